"""Where a model fails more, and which labels somebody should look at again."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import hilum
import trained
from hilum.evaluation import case_tables
from hilum.scoring.auditing import mistake_audit
from hilum.scoring.case_scoring import AuditInput, ScoredCases
from hilum.tasks import task_catalogue, task_settings
from hilum.values import Case, Geometry

WEAK = ["source", "attribute", "group", "n", "patients", "error", "elsewhere", "difference", "low", "high"]
WEAK += ["p", "p_adjusted", "judged"]


def audited(task, rows, features=None, facts=None, known=True, folds=None):
    table = case_tables.case_table([{"split": "test", **row} for row in rows])
    scored = ScoredCases(table, [], task=task, features=features or {}, facts=facts or {})
    return mistake_audit.audit_mistakes(AuditInput(scored, SimpleNamespace(task=task), [], 0, known, folds or {}))


def certainty(n: int, count: int, flipped) -> float:
    """Of a call 0.62 to 0.998, and of these the latter: where all are equally sure nothing tells labels apart."""
    return 0.9 if not flipped else 1 / (1 + np.exp(-6.0 if n in flipped else -0.5 - 5.5 * n / count))


def calling(count: int, wrong, flipped=(), **columns):
    """Calls of two classes, of which these are wrong, and of which these have the other one's label."""
    rows = []
    for n in range(count):
        truth = n % 2
        called = 1 - truth if wrong[n] else truth
        sure = certainty(n, count, flipped)
        p = sure if called else 1 - sure
        label = 1 - truth if n in flipped else truth
        own = {"reference": "ab"[label], "predicted": "ab"[called], "probability_a": 1 - p, "probability_b": p}
        rows.append(
            {"case": f"c{n}", "patient": f"p{n}", "label": "all", **own, **{k: v[n] for k, v in columns.items()}}
        )
    return rows


@pytest.fixture
def two():
    return task_settings.task_from_settings(
        task_catalogue.task_class("classification"), {"classes": ["a", "b"], "smoothing": 0.0}
    )


def test_a_covariate_a_fact_and_a_cluster_in_which_it_fails_more_are_found_and_named_in_the_report(two):
    rng = np.random.default_rng(0)
    cloud = rng.integers(2, size=200)
    wrong = rng.random(200) < np.where(cloud == 1, 0.6, 0.05)
    rows = calling(200, wrong, covariate_sex=["FM"[n] for n in rng.integers(2, size=200)])
    seen = {f"c{n}": (f"p{n}", rng.normal(size=8) + 9 * cloud[n]) for n in range(200)}
    facts = {f"c{n}": {"mean intensity": float(cloud[n] * 50 + rng.random())} for n in range(200)}
    result = audited(two, rows, seen, facts)
    table = result.tables["weak_groups.csv"]
    assert list(table) == WEAK
    assert set(table["source"]) == {"covariate", "image", "features"}
    found = table[table["p_adjusted"] < 0.05]
    assert set(found["source"]) == {"image", "features"}
    assert (found["low"] > 0).all()
    assert any("what the network sees" in note for note in result.notes)
    assert any(note.startswith("It fails more in images with mean intensity above ") for note in result.notes)
    [section] = result.sections
    assert section.blocks[0].text.startswith("The model fails more in ")


def test_what_the_networks_of_folds_see_is_clustered_fold_by_fold(two):
    rng = np.random.default_rng(0)
    cloud, fold = rng.integers(2, size=300), np.arange(300) % 3
    wrong = rng.random(300) < np.where(cloud == 1, 0.7, 0.05)
    axes = 99 * np.eye(8)[:3]  # each fold's network has a scale and an axis of its own
    seen = {f"c{n}": (f"p{n}", rng.normal(size=8) + 9 * cloud[n] + axes[fold[n]]) for n in range(300)}
    folds = {f"c{n}": SimpleNamespace(number=int(fold[n])) for n in range(300)}
    result = audited(two, calling(300, wrong), seen, folds=folds)
    table = result.tables["weak_groups.csv"]
    assert set(table["attribute"]) == {f"what the network of fold {n} sees" for n in range(3)}
    assert set(table.loc[table["p_adjusted"] < 0.05, "attribute"]) == set(table["attribute"])
    assert " by what the network of fold " in result.notes[0]


def test_of_many_groups_in_which_it_fails_more_three_are_named_and_the_others_counted(two):
    rng = np.random.default_rng(2)
    cloud = rng.integers(2, size=200)
    wrong = rng.random(200) < np.where(cloud == 1, 0.6, 0.05)
    alike = {f"covariate_{name}": [["no", "yes"][n] for n in cloud] for name in "abcde"}
    result = audited(two, calling(200, wrong, **alike))
    table = result.tables["weak_groups.csv"]
    assert ((table["p_adjusted"] < 0.05) & (table["low"] > 0)).sum() == 5
    assert len(result.notes) == 4
    assert result.notes[-1] == "It fails more in 2 further groups: see Where it fails."
    assert "; and 2 further groups. " in result.sections[0].blocks[0].text


def test_where_nothing_is_found_that_is_said_and_without_patients_none_is_counted(two):
    rng = np.random.default_rng(1)
    result = audited(two, calling(60, rng.random(60) < 0.2, covariate_sex=["F", "M"] * 30), known=False)
    assert not result.notes
    assert result.sections[0].blocks[0].text.startswith("The model is not shown to fail more in any of 2 groups.")
    assert result.tables["weak_groups.csv"]["patients"].isna().all()


def test_labels_that_are_probably_wrong_come_first_and_then_the_worst_cases(two):
    rows = calling(60, [False] * 60, flipped={4, 9})
    rows[20] |= {"predicted": "b", "probability_a": 0.45, "probability_b": 0.55}
    result = audited(two, rows)
    table = result.tables["relabel.csv"]
    assert table["case"].tolist() == ["c4", "c9", "c20"]
    assert table["why"].tolist() == ["probable label error", "probable label error", "among the worst"]
    first = table.iloc[0]
    assert (first["reference"], first["probable"]) == ("b", "a")
    assert first["probability_probable"] == pytest.approx(0.9975, abs=1e-4)
    words = [block.text for block in result.sections[0].blocks if hasattr(block, "text")]
    assert any(text.startswith("2 labels may be wrong and should be looked at again: ") for text in words)


def test_labels_that_are_worse_for_one_group_of_people_are_a_finding_of_their_own(two):
    rows = calling(120, [False] * 120, flipped=set(range(0, 60, 5)))
    result = audited(two, [row | {"covariate_sex": "FM"[n >= 60]} for n, row in enumerate(rows)])
    groups = result.tables["label_groups.csv"]
    assert groups[groups["p_adjusted"] < 0.05]["group"].tolist() == ["F"]
    assert any(
        note.startswith("Labels may be wrong more often where sex is F: 20% of 60 cases") for note in result.notes
    )


def test_a_rare_class_is_left_out_of_the_suspects_by_name_and_takes_no_other_with_it():
    three = task_settings.task_from_settings(
        task_catalogue.task_class("classification"), {"classes": ["a", "b", "rare"], "smoothing": 0.0}
    )
    rows = [row | {"probability_rare": 0.0} for row in calling(60, [False] * 60, flipped={4, 9})]
    of_the_rare = {"predicted": "rare", "probability_a": 0.02, "probability_b": 0.02, "probability_rare": 0.96}
    labels = ["rare", "rare", "rare", "a"]  # the last one probably wrong, which four labels cannot show
    rows += [
        {"case": f"r{n}", "patient": f"r{n}", "label": "all", "reference": label, **of_the_rare}
        for n, label in enumerate(labels)
    ]
    result = audited(three, rows)
    table = result.tables["relabel.csv"]
    assert table.loc[table["why"] == "probable label error", "case"].tolist() == ["c4", "c9"]
    words = [block.text for block in result.sections[0].blocks if hasattr(block, "text")]
    assert "Not looked at for label errors, with fewer than 5 labels of unseen cases: rare (3)." in words


def test_a_finding_that_few_have_is_left_out_of_the_suspects_and_the_others_stay():
    findings = task_settings.task_from_settings(
        task_catalogue.task_class("findings"), {"findings": ["often", "seldom"]}
    )
    rows = [
        {"case": f"c{n}", "patient": f"p{n}", "label": label, "reference": word, "predicted": word}
        | {"probability": sure if (word == "present") != (n == 3 and label == "often") else 1 - sure}
        for n in range(40)
        for sure in [certainty(n, 40, {3})]
        for label, word in (("often", ["absent", "present"][n % 2]), ("seldom", ["absent", "present"][n < 2]))
    ]
    result = audited(findings, rows)
    table = result.tables["relabel.csv"]
    assert table.loc[table["why"] == "probable label error", ["case", "label"]].to_numpy().tolist() == [["c3", "often"]]
    words = [block.text for block in result.sections[0].blocks if hasattr(block, "text")]
    assert any(text.endswith(": seldom present (2).") for text in words)


def test_cases_that_trained_are_never_suspected_unless_another_fold_has_scored_them(two):
    rows = [row | {"split": "train"} for row in calling(60, [False] * 60, flipped={4, 9})]
    assert set(audited(two, rows).tables["relabel.csv"]["why"]) == {"among the worst"}
    folds = [row | {"fold": str(n % 3)} for n, row in enumerate(rows)]
    assert (audited(two, folds).tables["relabel.csv"]["why"] == "probable label error").sum() == 2


def test_measured_values_and_boxes_have_worst_cases_too():
    regression = task_settings.task_from_settings(
        task_catalogue.task_class("regression"),
        {"targets": ["size"], "units": {}, "mean": {"size": 1.0}, "deviation": {"size": 2.0}},
    )
    rows = [
        {"case": f"c{n}", "patient": f"p{n}", "label": "size", "reference": 1.0, "predicted": 1.0 + n}
        | {"difference": float(n), "standardised_difference": n / 2, "covariate_sex": "FM"[n >= 15]}
        for n in range(30)
    ]
    result = audited(regression, rows)
    assert result.tables["relabel.csv"]["case"].iloc[0] == "c29"
    weak = result.tables["weak_groups.csv"]
    assert weak[weak["p_adjusted"] < 0.05]["group"].tolist() == ["M"]


@pytest.mark.whole
def test_an_evaluation_and_a_run_write_both_files(segmented, tmp_path):
    assert (segmented.out / "evaluation" / "weak_groups.csv").is_file()
    result = hilum.evaluate(
        segmented.out, segmented.data, out=tmp_path / "out", device="cpu", labels=trained.LABELS, split="all"
    )
    weak = pd.read_csv(result.out / "weak_groups.csv")
    assert {"image: mean intensity", "image: standard deviation of intensities"} <= set(weak["attribute"])
    assert set(weak["judged"]) == {"too few to judge"}
    assert list(pd.read_csv(result.out / "relabel.csv"))[:3] == ["case", "label", "why"]
    # Of so few cases nothing can be judged, and a page says nothing of it.
    assert "Where it fails" not in (result.out / "report.html").read_text()


def test_errors_that_are_weighed_for_censoring_make_no_group_of_short_follow_up_the_better_one():
    task = task_settings.task_from_settings(task_catalogue.task_class("survival"), 
        {"model": "weibull", "horizons": [5.0], "scale": 6.0, "edges": [5.0], "followed": 9.0,
         "censoring": {"time": [1.0], "share": [0.6]}}
    )  # fmt: skip
    random = np.random.default_rng(0)
    times, ends = random.exponential(8, 400), np.where(np.arange(400) % 2, 1.0, 9.0)
    predicted = task.decode([((), {"event": np.array([np.log(8 / 6), 0.0])})], Geometry.of_pixels((4, 4)))
    cases = [
        Case(f"c{n}", f"p{n}", {}, {"event": (float(min(time, end)), bool(time <= end))})
        for n, (time, end) in enumerate(zip(times, ends, strict=True))
    ]
    rows = task.score([predicted] * 400, cases).assign(covariate_site=np.where(np.arange(400) % 2, "new", "old"))
    assert audited(task, rows.to_dict("records")) is None

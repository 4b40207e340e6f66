from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest

import hilum
import trained
from hilum.errors import DatasetError, IntegrityError, UsageError
from hilum.evaluation import case_tables
from hilum.evaluation.significance import paired_tests
from hilum.evaluation.significance.paired_tests import ComparedFigure
from hilum.evaluation.significance.testing import DifferenceTest
from hilum.scoring import case_scoring, model_comparison
from hilum.scoring.case_scoring import ScoredCases
from hilum.scoring.model_comparison import OF_MARGINS, Comparison
from hilum.tasks.classification.question import Classification
from hilum.tasks.regression.question import Regression
from hilum.tasks.segmentation.question import Segmentation
from hilum.tasks.survival.question import Survival
from hilum.values import Case, Estimate, Geometry, Label
from hilum.verbs import compare, comparison_tests
from hilum.verbs.comparison_tests import ComparisonOptions
from matrices import thinned

TASKS = [Classification(("well", "ill"))] * 3


@pytest.fixture(scope="module")
def pair(segmented, tmp_path_factory):
    """A run, and its network of an earlier step scored on the same cases."""
    out = tmp_path_factory.mktemp("compare") / "again"
    given = {"labels": trained.LABELS, "device": "cpu", "split": "test"}
    hilum.evaluate(segmented.out, segmented.data, out=out, **given)
    table = pd.read_csv(out / "cases.csv", dtype=str, keep_default_na=False)
    table["dice"] = [str(min(1.0, float(value) + 0.1)) for value in table["dice"]]
    table.to_csv(out / "cases.csv", index=False)
    return segmented.out, out


@pytest.mark.whole
def test_the_difference_of_two_models_stands_with_its_interval_in_words_table_and_record(pair, tmp_path):
    run, other = pair
    found = hilum.compare([run, other], out=tmp_path / "out")
    first = found.rows[0]
    assert (first.metric, first.label, found.primary) == ("dice", "all", "dice")
    assert first.differences[0].value == pytest.approx(0.1, abs=1e-9)
    assert "again less" in repr(found)
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert record["models"] == list(found.names)
    assert record["differences"]["again"][0]["value"] == pytest.approx(0.1)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "again" in page
    assert record["differences"]["again"][0]["low"] is None  # all cases differ alike
    assert "intervals resample cases, because their patients are unknown" in page
    assert record["differences"]["again"][0]["patients"] is None
    # As the plan of the run said before training.
    assert record["margins"]["again"] == {"margin": 0.25, "preregistered": True, "because": "preregistered"}
    with pytest.raises(UsageError, match="exists already"):
        hilum.compare([run, other], out=tmp_path / "out")


def test_all_figures_of_an_evaluation_come_out_of_its_table_again(pair):
    run, _ = pair
    found = hilum.compare([*pair])
    summary = json.loads((run / "evaluation" / "summary.json").read_text())["rows"]
    known = {(row["metric"], row["label"]): row["value"] for row in summary}
    assert {(row.metric, row.label) for row in found.rows} == set(known)
    for row in found.rows:
        if known[row.metric, row.label] is not None:
            assert row.estimates[0].value == pytest.approx(known[row.metric, row.label], nan_ok=True)


def test_models_of_other_questions_or_cases_are_refused(pair, classified, tmp_path):
    run, other = pair
    with pytest.raises(UsageError, match="have no figures in common"):
        hilum.compare([run, classified.out])
    with pytest.raises(UsageError, match="1 evaluation given"):
        hilum.compare([run])
    with pytest.raises(UsageError, match="given twice"):
        hilum.compare([run, run])
    shutil.copytree(other, tmp_path / "fewer")
    table = pd.read_csv(tmp_path / "fewer" / "cases.csv", dtype=str, keep_default_na=False)
    table[table["case"] != table["case"][0]].to_csv(tmp_path / "fewer" / "cases.csv", index=False)
    with pytest.raises(DatasetError, match=r"the splits differ: .* only in"):
        hilum.compare([run, tmp_path / "fewer"])


def test_what_is_no_evaluation_is_refused_with_what_to_give(pair, tmp_path):
    run, other = pair
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no evaluation"):
        hilum.compare([run, tmp_path / "empty"])
    with pytest.raises(UsageError, match="no such file or folder"):
        hilum.compare([run, tmp_path / "nowhere"])
    shutil.copytree(other, tmp_path / "bare")
    (tmp_path / "bare" / "task.json").unlink()
    with pytest.raises(IntegrityError, match=r"task.json: is missing"):
        hilum.compare([run, tmp_path / "bare"])


def test_a_label_whose_figures_are_those_over_all_labels_has_no_row_of_its_own():
    both = (Estimate(0.9, 0.8, 1.0), Estimate(0.8, 0.7, 0.9))
    other = (Estimate(0.5, 0.4, 0.6), Estimate(0.8, 0.7, 0.9))
    apart = (Estimate(-0.1, -0.2, 0.0),)
    rows = [ComparedFigure("auroc", "all", both, apart), ComparedFigure("auroc", "benign", both, apart),
            ComparedFigure("auroc", "malignant", other, apart)]  # fmt: skip
    table = model_comparison.comparison_table(Comparison(("a", "b"), tuple(rows), "auroc", 9, {}), rows)
    assert [row[1] for row in table.rows] == ["all", "malignant"]


def classified_by(out, noise: float, seed: int, cases: int = 80, margin: float | None = None, folds: int = 1):
    """The folder of an evaluation of two classes, three patients in ten ill, as `evaluate` writes it."""
    random = np.random.default_rng(seed)
    ill = np.arange(cases) % 10 < 3
    signal = np.random.default_rng(0).normal(size=cases) + 1.5 * ill
    chance = 1 / (1 + np.exp(-(signal - 0.75 + random.normal(0, noise, cases))))
    names = np.array(["well", "ill"])
    table = pd.DataFrame(
        {
            "case": [f"c{n}" for n in range(cases)], "patient": [f"p{n}" for n in range(cases)], "split": "test",
            "label": "all", **({"fold": [str(n % folds) for n in range(cases)]} if folds > 1 else {}),
            "brier": (chance - ill) ** 2, "reference": names[ill.astype(int)],
            "predicted": names[(chance >= 0.5).astype(int)], "probability_well": 1 - chance, "probability_ill": chance,
            "covariate_sex": ["F" if n % 3 else "M" for n in range(cases)], "covariate_age": np.arange(cases) % 60 + 20,
            "covariate_ward": np.where((np.arange(cases) < 40) & ill, "A", "B"),
        }
    )  # fmt: skip
    task = Classification(("well", "ill"))
    out.mkdir(parents=True)
    scored = ScoredCases(table, task.summary(table, seed=0), task=task)
    scored.write(out)
    case_scoring.write_verdict(out, {}, "auroc", margin)
    return out


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Good, as good, poor; the second has preregistered a margin of .1."""
    root = tmp_path_factory.mktemp("models")
    good, again = classified_by(root / "good", 0.1, 1), classified_by(root / "again", 0.1, 2, margin=0.1)
    return good, again, classified_by(root / "poor", 4.0, 3)


@cache
def figures_of(folders):
    """The comparison without tests, which takes longest."""
    tables = {one.name: case_tables.read_cases(one / "cases.csv") for one in folders}
    return model_comparison.compare_tables(tables, TASKS[: len(folders)], seed=0, patients_known=True), tables


def found_of(*folders, **options):
    """The tests of some evaluations, as `compare` makes them."""
    found, tables = figures_of(folders)
    preregistered = {
        one.name: json.loads((one / "summary.json").read_text()).get("preregistered_margin") for one in folders
    }
    return comparison_tests.significance_tests(
        found, tables, TASKS[: len(folders)], preregistered, ComparisonOptions(**options), seed=0
    )


def test_every_difference_has_a_row_with_its_test_and_a_verdict(models, tmp_path):
    found = hilum.compare([*models], out=tmp_path / "out")
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    rows = {(row["metric"], row["label"], row["second"]): row for row in record["tests"]}
    assert {tuple(row) for row in record["tests"]} == {
        ("metric", "label", "first", "second", "test", "method", "difference", "low", "high", "statistic", "p",
         "p_adjusted", "margin", "verdict")
    }  # fmt: skip
    worse, alike = rows["auroc", "all", "poor"], rows["auroc", "all", "again"]
    assert (worse["test"], worse["verdict"], alike["verdict"]) == ("permutation", "inferior", "equivalent")
    assert worse["difference"] == pytest.approx(found.rows[0].differences[1].value) and worse["difference"] < 0
    assert worse["p_adjusted"] == pytest.approx(min(2 * worse["p"], 1))
    assert (rows["accuracy", "all", "poor"]["test"], rows["brier", "all", "poor"]["test"]) == ("mcnemar", "permutation")
    assert rows["mcc", "all", "poor"]["test"] == "bootstrap"
    assert ("auroc", "ill", "poor") not in rows
    assert (alike["margin"], worse["margin"]) == (0.1, None)
    assert record["margins"] == {"again": {"margin": 0.1, "preregistered": True, "because": "preregistered"}}
    assert [one["model"] for one in record["ranks"]] == ["good", "again", "poor"] and record["ranks"][2]["rank"] > 2.5
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Equivalent to" in page or "equivalent to" in page
    assert "Mean rank" in page and "adjusted by Holm" in page
    for is_known, units in ((True, "over patients"), (False, "over cases, whose patients are unknown,")):
        [ranks] = compare.rank_blocks(replace(found, patients_known=is_known))
        assert f"{units} resampled" in ranks.caption
    known = [one.low is not None for row in found.rows for one in row.differences]
    assert not all(known) and f"{sum(known)} differences with an interval: by chance alone one" in page
    assert "poor against good: inferior" in repr(found)
    assert repr(found).startswith("good: AUROC ")
    assert "poor less good: AUROC \N{MINUS SIGN}" in repr(found)


@pytest.mark.parametrize("margin", [0.0, -0.1, float("nan"), float("inf")])
def test_margins_are_above_0_wherever_they_are_given(margin):
    with pytest.raises(UsageError, match=r"--margin: .* is not a valid margin. Give a number above 0, in the unit"):
        ComparisonOptions(margin=margin)


def test_a_page_has_one_interval_of_each_difference_which_is_that_of_its_test(models, tmp_path):
    found = hilum.compare([*models], out=tmp_path / "out")
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    apart = {(row["metric"], row["label"], name): row for name, rows in record["differences"].items() for row in rows}
    for row in record["tests"]:
        own = apart[row["metric"], row["label"], row["second"]]
        assert (own["low"], own["high"]) == (row["low"], row["high"])
        assert row["method"].startswith(own["method"])
    methods = {row["metric"]: row["method"] for row in record["tests"]}
    assert "interval by DeLong's variances, logit scale" in methods["auroc"]
    assert "score interval (Tango)" in methods["accuracy"]
    assert "interval by exchanges at each difference" in methods["brier"]
    assert found.rows[0].differences[1].high < 0


@pytest.mark.whole
def test_no_margin_is_tested_with_too_few_patients_and_the_reason_stands_with_the_verdict(tmp_path):
    folders = [classified_by(tmp_path / name, 0.1, n, cases=40) for n, name in enumerate(("first", "second"))]
    found = hilum.compare([*folders], out=tmp_path / "out", margin=0.3, test="bootstrap")
    page = (tmp_path / "out" / "report.html").read_text()
    why = "the margin was not tested: its interval holds its level from 50 patients on, and these are 40"
    [row] = [row for row in found.tested.rows if row.is_primary]
    assert row.verdict not in ("equivalent", "non-inferior") and why in row.as_record()["method"]
    assert f"{row.verdict}, {why}" in repr(found) and why in page
    first, tables = figures_of(tuple(folders))
    options = ComparisonOptions(margin=0.3, test="bootstrap")
    tests = comparison_tests.significance_tests(
        replace(first, patients_known=False), tables, TASKS[:2], {}, options, seed=0
    ).rows
    assert tests[0].reason_against_margin == "its interval holds its level from 50 cases on, and these are 40"
    assert not any("patient" in row.test.method for row in tests)


def test_no_model_is_superior_where_the_interval_holds_0():
    both = [DifferenceTest(0.02, low, 0.05, 0.0, 0.04, "an interval") for low in (-0.001, 0.001)]
    assert [one for _, one in comparison_tests.verdicts_of_tests(both, [None] * 2, [True] * 2, "none")] == [
        "not shown",
        "superior",
    ]


@pytest.mark.parametrize(("test", "cases"), [("permutation", 20), ("permutation", 80)])
@pytest.mark.whole
def test_a_verdict_on_too_few_patients_is_marked_as_their_intervals_are(tmp_path, test, cases):
    folders = [classified_by(tmp_path / name, 0.1, n, cases=cases) for n, name in enumerate(("first", "second"))]
    found = hilum.compare([*folders], out=tmp_path / "out", margin=0.3, test=test)
    page = (tmp_path / "out" / "report.html").read_text()
    [row] = [row for row in json.loads((tmp_path / "out" / "comparison.json").read_text())["tests"]
             if row["metric"] == "auroc"]  # fmt: skip
    few = cases == 20  # 6 of whom are ill
    assert ("unreliable: 6 patients in the smallest group" in row["method"]) == few
    assert "second against first: equivalent by a margin of 0.3, which is exploratory" in repr(found)
    assert ("exploratory, unreliable (" in repr(found)) == few
    assert f"({test}, p of no difference " in repr(found) and "p of no difference " in page  # none of the margin
    assert ("equivalent, unreliable" in page) == few


@pytest.mark.parametrize(("margin", "why"), thinned(1, [(0.2, "0.1 was preregistered"), (0.1, "")]))
def test_a_margin_that_was_not_fixed_before_is_marked_exploratory(models, margin, why):
    found = found_of(*models[:2], margin=margin)
    own = found.margins["again"]
    assert own.is_preregistered == (not why) and why in own.because
    stated = " ".join(compare.caveats_of_tests(replace(figures_of(models[:2])[0], tested=found)))
    assert ("is exploratory: " in stated) == bool(why)
    late = found_of(models[0], models[2], margin=0.1).margins["poor"]
    assert "after the figures were made" in late.because


def test_a_smaller_margin_than_the_interval_shows_nothing(models):
    assert found_of(*models[:2], margin=0.001).rows[0].verdict == "not shown"
    assert found_of(*models[:2]).rows[0].verdict == "equivalent"
    better = found_of(models[2], models[0])
    assert better.rows[0].verdict == "superior"


@pytest.mark.parametrize("name", ["permutation", "bootstrap", "wilcoxon"])
def test_a_margin_of_means_is_tested_with_a_further_patient_by_whatever_test_and_by_ranks_not_at_all(models, name):
    found, tables = figures_of(models[:2])
    found, options = replace(found, primary="brier"), ComparisonOptions(test=name)
    tested = comparison_tests.significance_tests(found, tables, TASKS[:2], {"again": 0.1}, options, seed=0)
    [row] = [row for row in tested.rows if row.is_primary]
    found, method = replace(found, tested=tested), row.as_record()["method"]
    if name == "wilcoxon":
        assert "not tested: Wilcoxon's test is of the pseudomedian" in method and row.verdict not in OF_MARGINS
        return
    assert row.verdict == "equivalent"
    words = (
        "one further patient at 1, the metric's worst value; 80 patients without a failure do not exclude failures in"
    )
    assert (
        words in method and words in repr(found) and f"{words} 3.8 % (3/n)" in " ".join(compare.caveats_of_tests(found))
    )


@pytest.mark.parametrize("name", ["delong", "permutation", "bootstrap", "mcnemar", "wilcoxon"])
def test_the_test_that_is_asked_for_is_made_of_the_figures_that_it_fits(models, name):
    found = found_of(models[0], models[2], test=name)
    assert {row.name for row in found.rows} == {name}
    fits = {row.metric for row in found.rows}
    assert ("auroc" in fits, "accuracy" in fits) == (
        name in ("delong", "permutation", "bootstrap"),
        name in ("mcnemar", "permutation", "bootstrap"),
    )


def test_a_test_that_does_not_fit_the_primary_metric_leaves_it_untested_and_says_so(models, tmp_path):
    hilum.compare([models[0], models[2]], test="mcnemar", margin=0.2, out=tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text()
    assert "AUROC, the primary metric, was not tested: McNemar does not fit it." in html
    assert "The margin of 0.2 for poor is exploratory" in html  # what must be known stands under the verdict


@pytest.mark.parametrize("asked", ["auto", "wilcoxon"])
def test_a_model_whose_figure_is_0_in_every_case_is_compared_alike_in_either_order(asked):
    ids = {"case": [f"c{n}" for n in range(60)], "patient": [f"p{n}" for n in range(60)], "split": "test"}
    dice = {"none": np.zeros(60), "some": np.random.default_rng(0).random(60)}
    task, options, tested = Segmentation((Label(1, "lesion"),)), ComparisonOptions(test=asked), []
    for names in (("none", "some"), ("some", "none")):
        tables = {name: pd.DataFrame({**ids, "label": "lesion", "dice": dice[name]}) for name in names}
        both = tuple(Estimate(float(dice[name].mean())) for name in names)
        row = ComparedFigure("dice", "all", both, (Estimate(both[1].value - both[0].value),))
        found = Comparison(names, (row,), "dice", 60, {})
        [own] = comparison_tests.significance_tests(found, tables, [task, task], {}, options, seed=0).rows
        assert own.name == ("permutation" if asked == "auto" else asked)
        tested.append((own.test.difference, own.test.p))
    assert tested[0] == pytest.approx((-tested[1][0], tested[1][1]))


def test_a_difference_of_what_is_right_at_a_value_of_its_own_makes_no_model_better():
    assert [Regression.metrics.metric_named(name).better for name in ("bias", "loa_lower", "mae")] == [
        "aim",
        "aim",
        "less",
    ]
    assert Segmentation.metrics.metric_named("volume_loa_lower_mm2").better == "aim"
    apart = paired_tests.wilcoxon_test(np.zeros(30), np.arange(1.0, 31.0))
    [(p, verdict)] = comparison_tests.verdicts_of_tests([apart], [None], [None], "none")
    assert p < 0.001 and verdict == "not shown"
    assert [one for _, one in comparison_tests.verdicts_of_tests([apart] * 2, [None] * 2, [True, False], "none")] == [
        "superior",
        "inferior",
    ]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.03, "equivalent"),
        (0.01, 0.08, "superior"),
        (-0.01, 0.08, "non-inferior"),
        (-0.08, -0.01, "inferior"),
        (-0.03, -0.01, "equivalent"),
        (-0.08, 0.08, "not shown"),
    ],
)
def test_a_difference_that_is_shown_matters_unless_its_interval_lies_within_the_margin(low, high, verdict):
    p = 0.01 if low * high > 0 else 0.4
    more = DifferenceTest((low + high) / 2, low, high, 0.0, p, "an interval")
    less = DifferenceTest(
        -more.difference, -high, -low, 0.0, p, "an interval"
    )  # an error is better where there is less of it
    found = comparison_tests.verdicts_of_tests([more, less], [0.05, 0.05], [True, False], "none")
    assert found == [(p, verdict)] * 2


def test_identical_models_have_a_p_of_1_and_no_verdict(models, tmp_path):
    twin = shutil.copytree(models[0], tmp_path / "twin")
    found = found_of(models[0], twin, margin=0.1)
    assert {row.test.difference for row in found.rows if row.test.p == row.test.p} == {0}
    assert {row.test.p for row in found.rows if row.label == "all" and row.test.p == row.test.p} == {1}
    assert {row.verdict for row in found.rows if row.metric == "auroc"} == {"not shown"}


@pytest.mark.whole
def test_areas_of_folds_are_compared_by_resampling_within_them(tmp_path):
    pair = [classified_by(tmp_path / name, 0.5, n, folds=4) for n, name in enumerate("ab")]
    rows = {(row.metric, row.label): row.name for row in found_of(*pair).rows}
    assert (rows["auroc", "all"], rows["accuracy", "all"]) == ("bootstrap", "mcnemar")
    with pytest.raises(UsageError, match="delong fits no figure"):
        found_of(*pair, test="delong")


def read_cases_of(models, readers: int = 4, model: str | None = None, noise: float = 0.5) -> pd.DataFrame:
    table, random = pd.read_csv(models[0] / "cases.csv"), np.random.default_rng(0)
    sure = 2.0 * (table["reference"] == "ill")
    parts = [
        pd.DataFrame(
            {"reader": f"r{n}", "case": table["case"], "score": sure + random.normal(0, 1 + noise, len(table))}
        )
        for n in range(readers)
    ]
    return pd.concat(parts).assign(**({"model": model} if model else {}))


def test_readers_stand_beside_the_models_and_with_them(models, tmp_path):
    people = tmp_path / "people.csv"
    read_cases_of(models).to_csv(people, index=False)
    rows = [row for row in found_of(*models, readers=people).rows if row.name == "mrmc"]
    assert [(row.first, row.second) for row in rows] == [("readers", name) for name in ("good", "again", "poor")]
    assert "readers and cases random" in rows[0].test.method
    aided = pd.concat([read_cases_of(models, model="good"), read_cases_of(models, model="poor", noise=4)])
    aided.to_csv(people, index=False)
    [row] = [row for row in found_of(models[0], models[2], readers=people).rows if row.name == "mrmc"]
    assert (row.first, row.second, row.verdict) == ("good", "poor", "inferior")
    shown = hilum.compare([models[0], models[2]], readers=people, out=tmp_path / "aided")
    both = "readers with poor against readers with good: inferior (mrmc", "poor against good: inferior (permutation"
    assert all(any(line.startswith(one) for line in str(shown).splitlines()) for one in both)
    html = (tmp_path / "aided" / "report.html").read_text()
    assert "Readers with poor: inferior to readers with good" in html and "Poor: inferior to good" in html


def test_one_model_is_compared_with_its_readers_and_refused_with_nothing_to_compare_it_with(models, tmp_path):
    people = tmp_path / "people.csv"
    read_cases_of(models).to_csv(people, index=False)
    shown = hilum.compare(models[0], readers=people, out=tmp_path / "out")
    [row] = shown.tested.rows
    assert (row.name, row.first, row.second) == ("mrmc", "readers", "good") and "good against readers" in str(shown)
    assert "against" in (tmp_path / "out" / "report.html").read_text()
    aided = read_cases_of(models, model="good")
    pd.concat([read_cases_of(models, model=""), aided]).to_csv(people, index=False)
    assert [one.second for one in hilum.compare([models[0]], readers=people).tested.rows] == ["readers with good"]
    aided.to_csv(people, index=False)
    with pytest.raises(DatasetError, match="all readers read with good, so that there is nothing to compare it with"):
        hilum.compare([models[0]], readers=people)
    with pytest.raises(UsageError, match="one and its readers"):
        hilum.compare([models[0]])


@pytest.mark.whole
def test_times_and_errors_of_reading_with_a_model_stand_beside_those_without(models, tmp_path):
    people, random = tmp_path / "people.csv", np.random.default_rng(1)
    alone, aided = read_cases_of(models, model="", noise=3), read_cases_of(models, model="good", noise=0)
    for table, usual in ((alone, 60), (aided, 45)):
        table["seconds"] = usual * np.exp(random.normal(0, 0.2, len(table)))
        table["call"] = np.where(table["score"] > 1, "yes", "no")
    pd.concat([alone, aided]).to_csv(people, index=False)
    shown = hilum.compare([models[0], models[2]], readers=people, out=tmp_path / "out")
    [row] = json.loads((tmp_path / "out" / "comparison.json").read_text())["readers"]
    assert (row["first"], row["second"], row["readers"]) == ("readers", "good", 4)
    assert row["low"] < 0.75 < row["high"] and row["high"] < 0.85
    assert row["errors_second"] < row["errors_first"] and row["errors_high"] < 0
    assert [one.second for one in shown.tested.rows if one.name == "mrmc"] == ["readers with good"]
    assert "readers with good against readers: reading takes 0.7" in str(shown)
    assert "Readers with good against readers: reading takes" in (tmp_path / "out" / "report.html").read_text()
    aided["seconds"] = 0
    pd.concat([alone, aided]).to_csv(people, index=False)
    with pytest.raises(DatasetError, match=r"seconds '0.0' of reader r0.* is not a time above 0"):
        found_of(*models, readers=people)


def test_a_table_of_readers_may_be_as_spreadsheets_of_other_countries_write_it(models, tmp_path):
    plain, german = tmp_path / "plain.csv", tmp_path / "german.csv"
    read_cases_of(models).to_csv(plain, index=False)
    read_cases_of(models).to_csv(german, index=False, sep=";", decimal=",", encoding="utf-8-sig")
    first, second = (
        [row.test for row in found_of(*models, readers=people).rows if row.name == "mrmc"] for people in (plain, german)
    )
    assert first == second
    german.write_bytes("reader;case;score\nMüller;a;1\n".encode("cp1252"))
    with pytest.raises(DatasetError, match=r"cannot be read as a table .* UTF-8"):
        found_of(*models, readers=german)


@pytest.mark.whole
def test_a_preregistered_margin_holds_against_readers_for_the_first_model_too(models, tmp_path):
    people = tmp_path / "people.csv"
    read_cases_of(models).to_csv(people, index=False)
    rows = found_of(models[1], models[0], readers=people).rows
    assert {row.second: row.margin for row in rows if row.name == "mrmc"} == {"again": 0.1, "good": None}


def test_models_are_judged_by_their_own_primary_metric_and_a_margin_counts_for_that_metric_alone(models, tmp_path):
    good, again = (shutil.copytree(one, tmp_path / one.name) for one in models[:2])
    for folder in (good, again):
        case_scoring.write_verdict(folder, {}, "brier", 0.02)
    found = hilum.compare([good, again])
    [row] = [row for row in found.tested.rows if row.is_primary]
    assert (found.primary, row.metric, row.margin) == ("brier", "brier", 0.02)
    case_scoring.write_verdict(again, {}, "auroc", 0.02)
    found = hilum.compare([good, again], out=tmp_path / "out")
    assert (found.primary, found.tested.margins) == ("brier", {})
    assert "The primary metric of again is AUROC" in (tmp_path / "out" / "report.html").read_text()


def _without_a_case(table):
    return table[(table["reader"] != "r1") | (table["case"] != "c3")]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_without_a_case, "reader r1 read other cases: 1 case, c3 not read"),
        (lambda table: table.assign(case=table["case"] + "x"), "read other cases: 160 cases"),
        (lambda table: table.assign(score="?"), "is not a number"),
        (lambda table: table.assign(score="1,504"), "which may be 1504 or 1.504"),
        (lambda table: table.assign(call="maybe"), "call in line 2: 'maybe' is neither yes nor no"),
        (lambda table: table.drop(columns="reader"), "has no column reader"),
        (lambda table: table.assign(model="theirs"), "readers with"),
        (lambda table: pd.concat([table, table]), "twice"),
        (lambda table: table.assign(label="cyst"), "there is no AUROC of cyst"),
    ],
)
def test_readers_who_read_other_cases_are_refused(models, tmp_path, change, says):
    people = tmp_path / "people.csv"
    change(read_cases_of(models)).to_csv(people, index=False)
    with pytest.raises(DatasetError, match=says) as refused:
        found_of(*models[:2], readers=people)
    assert "people.csv" in str(refused.value)


@pytest.mark.whole
def test_groups_are_compared_by_themselves_and_none_that_there_is_not(models):
    rows = found_of(models[0], models[2], groups="sex,age:50").rows
    own = {row.label: row for row in rows if row.is_of_group}
    assert list(own) == ["all; sex F", "all; sex M", "all; age <50", "all; age >=50"]
    assert {row.metric for row in own.values()} == {"auroc"} and not any(row.is_primary for row in own.values())
    assert own["all; sex F"].test.difference != own["all; sex M"].test.difference
    assert all(row.p_adjusted >= row.test.p for row in own.values())
    [ill, _] = [row for row in found_of(models[0], models[2], groups="ward").rows if row.is_of_group]
    assert ill.label == "all; ward A" and (ill.as_record()["p"], ill.verdict) == (None, "not shown")
    with pytest.raises(UsageError, match="no covariate 'height'"):
        found_of(models[0], models[2], groups="height")


@pytest.mark.whole
def test_groups_stand_in_the_order_of_their_ranges(models):
    rows = found_of(models[0], models[2], groups="age:30:50").rows
    assert [row.label for row in rows if row.is_of_group] == ["all; age <30", "all; age 30-50", "all; age >=50"]


def test_a_preregistered_margin_is_stated_also_where_it_shows_nothing(models, tmp_path):
    found = hilum.compare([models[0], models[1]], margin=0.0001, out=tmp_path / "out")
    assert [row.verdict for row in found.tested.rows if row.is_primary] == ["not shown"]
    html = (tmp_path / "out" / "report.html").read_text()
    assert "nor to be non-inferior by the margin of 0.0001" in html
    assert 'href="comparison.json"' in html
    preregistered = hilum.compare([models[2], models[1]], out=tmp_path / "preregistered")
    assert preregistered.tested.margins["again"].is_preregistered
    assert "The margin of 0.1 for again was preregistered." in (tmp_path / "preregistered" / "report.html").read_text()


def test_two_classes_state_each_figure_once_in_the_terminal(models):
    lines = str(hilum.compare([models[0], models[1]])).splitlines()
    assert len(lines) == len(set(lines)) == 5


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"test": "t"}, "there is no test 't'"),
        ({"correction": "bonferroni"}, "there is no 'bonferroni'"),
        ({"margin": -0.1}, "-0.1 is not a valid margin"),
        ({"margin": 0.1, "test": "wilcoxon"}, "no margin can be tested: Wilcoxon's test is of the pseudomedian"),
    ],
)
def test_impossible_options_are_refused(models, given, says):
    with pytest.raises(UsageError, match=says):
        found_of(*models, **given)


def written(out, task, table):
    """The folder of an evaluation of these cases."""
    out.mkdir()
    ScoredCases(table, task.summary(table, seed=0), task=task).write(out)
    return out


def same_figures(first, second):
    """{(metric, label): figures of both} of a comparison of two models that say the same of each case."""
    found = hilum.compare([first, second])
    assert {row.verdict for row in found.tested.rows} <= {"not shown"}
    figures = {(row.metric, row.label): [one.value for one in row.estimates] for row in found.rows}
    differing = {key: both for key, both in figures.items() if np.isfinite(both).all() and not np.isclose(*both)}
    assert not differing
    return figures


@pytest.mark.whole
def test_the_order_in_which_a_model_has_its_classes_makes_no_difference(tmp_path):
    table = case_tables.read_cases(classified_by(tmp_path / "cases", 0.5, 1) / "cases.csv")
    usual = Classification(("well", "ill"), thresholds={"ill": 0.3}, prevalence={"well": 0.9, "ill": 0.1})
    other = Classification(("ill", "well"), thresholds={"well": 0.7})
    turned = [name for name in table if not name.startswith("probability")] + ["probability_ill", "probability_well"]
    folders = written(tmp_path / "usual", usual, table), written(tmp_path / "other", other, table[turned])
    figures = same_figures(*folders)
    assert figures["f1", "all"][0] != figures["f1", "well"][0]
    assert figures["sensitivity", "ill"][0] > 0.5 and {"auroc", "ppv", "npv"} <= {metric for metric, _ in figures}
    assert same_figures(*folders[::-1])["auroc", "all"] == figures["auroc", "all"]
    more = table.assign(probability_odd=0.0)
    third = written(tmp_path / "third", Classification(("well", "ill", "odd")), more)
    with pytest.raises(DatasetError, match="third: the classes are others than in usual"):
        hilum.compare([folders[0], third])


@pytest.mark.whole
def test_mistakes_of_all_models_cost_what_those_of_the_first_do(tmp_path):
    table = case_tables.read_cases(classified_by(tmp_path / "cases", 0.5, 1) / "cases.csv")
    first = Classification(("well", "ill"), costs=((0.0, 1.0), (5.0, 0.0)))
    other = Classification(("ill", "well"), costs=((0.0, 1.0), (9.0, 0.0)))
    figures = same_figures(written(tmp_path / "first", first, table), written(tmp_path / "other", other, table))
    missed = table["reference"] != table["predicted"]
    cost = (missed * np.where(table["reference"] == "ill", 5, 1)).mean()
    assert cost > missed.mean() > 0
    assert figures["expected_cost", "all"] == pytest.approx([cost] * 2)


@pytest.mark.whole
def test_errors_of_several_values_are_compared_in_the_deviations_of_one_set_of_training_cases(tmp_path):
    random, spread = np.random.default_rng(0), {"volume": 0.5, "age": 10.0}
    rows = [
        {
            "case": f"c{n}", "patient": f"p{n}", "split": "test", "label": name, "difference": apart,
            "standardised_difference": abs(apart) / deviation, "reference": float(n), "predicted": n + apart,
        }
        for n in range(60)
        for name, deviation in spread.items()
        for apart in [random.normal(0, 0.2 * deviation)]
    ]  # fmt: skip
    units, narrow = dict.fromkeys(spread, ""), {name: deviation / 2 for name, deviation in spread.items()}
    table, half = pd.DataFrame(rows), pd.DataFrame(rows).eval("standardised_difference = 2 * standardised_difference")
    wide = written(tmp_path / "wide", Regression(("volume", "age"), units, spread, spread), table)
    narrow = written(tmp_path / "narrow", Regression(("volume", "age"), units, spread, narrow), half)
    figures = same_figures(wide, narrow)
    assert figures["mae", "all"] == pytest.approx([table["standardised_difference"].mean()] * 2)
    assert same_figures(narrow, wide)["mae", "all"] == pytest.approx([half["standardised_difference"].mean()] * 2)


@pytest.mark.whole
def test_risks_are_compared_by_the_horizons_of_the_first_model(tmp_path):
    grid, followed = Geometry.of_pixels((4, 4)), {"time": [], "share": []}
    known = {"time": [1.0, 4.0, 9.0, 14.0], "hazard": [0.1, 0.3, 0.6, 1.0]}
    short = Survival("cox", (5.0, 10.0), 6.0, (2.0, 5.0, 20.0), 20.0, followed, baseline=known)
    long, random = replace(short, horizons=(5.0, 16.0)), np.random.default_rng(0)
    ratios, folders = random.normal(size=120), []
    times, last = random.exponential(9 * np.exp(-ratios)) + 0.01, random.uniform(17, 30, 120)
    for name, task in (("short", short), ("long", long)):
        decoded = [task.decode([((), {"event": np.array([one], np.float32)})], grid) for one in ratios]
        cases = [
            Case(f"c{n}", f"c{n}", {}, {"event": (float(min(time, end)), bool(time <= end))})
            for n, (time, end) in enumerate(zip(times, last, strict=True))
        ]
        folders.append(written(tmp_path / name, task, task.score(decoded, cases).assign(split="test")))
    figures = same_figures(*folders)
    own = {
        (row.metric, row.label): row.estimate.value
        for row in short.summary(case_tables.read_cases(folders[0] / "cases.csv"), seed=0)
    }
    assert figures["uno_c", "all"] == pytest.approx([own["uno_c", "all"]] * 2)
    assert np.isfinite(figures["brier", "5"]).all() and ("dynamic_auc", "10") in figures
    assert figures["integrated_brier", "all"] == pytest.approx([own["integrated_brier", "all"], np.nan], nan_ok=True)
    assert not {label for _, label in figures} & {"16"} and ("brier", "10") not in figures


@pytest.mark.whole
def test_errors_of_times_are_weighed_for_the_censoring_of_the_first_model_or_not_compared(tmp_path):
    grid, known = Geometry.of_pixels((4, 4)), {"time": [1.0, 4.0, 9.0], "hazard": [0.1, 0.3, 0.6]}
    whole = Survival("cox", (5.0, 10.0), 6.0, (2.0, 20.0), 20.0, {"time": [], "share": []}, baseline=known)
    half = replace(whole, censoring={"time": [0.5], "share": [0.5]})
    cases = [Case(f"c{n}", f"c{n}", {}, {"event": (1.0 + n / 4, n % 3 > 0)}) for n in range(60)]
    decoded = [whole.decode([((), {"event": np.array([n % 5], np.float32)})], grid) for n in range(60)]
    folders = [
        written(tmp_path / name, task, task.score(decoded, cases).assign(split="test"))
        for name, task in (("whole", whole), ("half", half))
    ]
    figures = same_figures(*folders)
    assert figures["brier", "5"][0] == pytest.approx(figures["brier", "5"][1])
    assert np.isnan(figures["integrated_brier", "all"]).tolist() == [False, True]


def test_trainings_of_one_plan_are_called_that_and_intervals_are_said_to_hold_no_other_training(models, tmp_path):
    good, again, poor = (shutil.copytree(one, tmp_path / one.name) for one in models)
    for folder, made, seed in ((good, "a", 0), (again, "a", 1), (poor, "b", 0)):
        case_scoring.write_verdict(folder, {}, "auroc", recipe=made, seed=seed)
    found = hilum.compare([good, again, poor], out=tmp_path / "out")
    [kin] = found.kinship
    assert kin.startswith("good and again are trainings of one plan with seeds 0, 1: a difference")
    page = (tmp_path / "out" / "report.html").read_text()
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    for words in (kin[1:], "is about these 3 models: the intervals hold what other patients would change, and not the"):
        assert all(words in text for text in (repr(found), page, record["about"][0] + record["about"][1]))
    assert not hilum.compare([good, poor]).kinship
    case_scoring.write_verdict(again, {}, "auroc", recipe="a", seed=0)
    assert "one training, or trainings of one plan with one seed, 0" in repr(hilum.compare([good, again]))
    people = tmp_path / "people.csv"
    read_cases_of(models).to_csv(people, index=False)
    assert "This is about this model: " in repr(hilum.compare([good], readers=people))


def test_models_of_two_splits_are_refused_as_such(models, tmp_path):
    other = shutil.copytree(models[1], tmp_path / "other")
    text = (other / "cases.csv").read_text()
    (other / "cases.csv").write_text(text.replace("\nc1,", "\nd1,").replace("\nc2,", "\nd2,"))
    says = "the splits differ: 78 test cases are in both, 2 only in good, 2 only in other"
    with pytest.raises(DatasetError, match=says) as refused:
        hilum.compare([models[0], other])
    assert "split.seed" in refused.value.remedy

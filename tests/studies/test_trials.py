"""A trial from its plan to its results: what each step writes, and what it refuses."""

from __future__ import annotations

import csv
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import hilum
from hilum.errors import DatasetError, IntegrityError, UsageError
from hilum.evaluation import survival
from hilum.files.storage import file_lock
from hilum.studies import interim_looks, treatment_effects, trial_protocol
from hilum.studies.concealment import KEY
from hilum.studies.trial_analysis import TrialAnalysis
from hilum.verbs import trial as verbs_trial

PARALLEL = """\
title = "A model as second reader"
question = "Does the model raise the share of pneumonias that are found?"
design = "parallel"
subgroups = ["sex"]

[[arms]]
name = "usual"
text = "Reading without the model"

[[arms]]
name = "model"
text = "Reading with the model"

[[endpoints]]
name = "found"
metric = "proportion"
direction = "higher"
primary = true

[[endpoints]]
name = "minutes"
metric = "mean"
direction = "lower"
margin = 1.0

[population]
criteria = "Adults sent for a chest radiograph"

[strata]
site = ["Bern", "Basel"]

[analysis]
per_protocol = "followed"
reason = "reason"

[missing]
imputations = 3
auxiliary = ["age"]
"""
CLUSTERED = """\
title = "A model in hospitals"
question = "Does it find more?"
design = "cluster"

[[arms]]
name = "usual"
text = "As before"

[[arms]]
name = "model"
text = "With the model"

[[endpoints]]
name = "found"
metric = "mean"
direction = "higher"
primary = true

[population]
criteria = "Adults"

[strata]
size = ["large", "small"]

[clusters]
column = "site"

[clusters.members]
A = { size = "large" }
B = { size = "large" }
C = { size = "small" }
D = { size = "small" }
E = { size = "small" }
"""
LOOKS = """
[size]
design = "proportions"
first = 0.9
second = 0.6

[looks]
number = 2
"""


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv(KEY, "5e" * 32)


def begun(folder: Path, text: str, method: str = "block") -> Path:
    """A study that is locked and randomised."""
    (folder / "study.toml").write_text(text)
    hilum.study_plan(folder / "study.toml", out=folder / "study")
    hilum.study_lock(folder / "study")
    hilum.study_randomise(folder / "study", method=method)
    return folder / "study"


def enrolled(study: Path, number: int, seed: int = 0) -> list[dict]:
    """Participants with their arms and outcomes; the model finds more."""
    random, rows = np.random.default_rng(seed), []
    for place in range(number):
        site = ["Bern", "Basel"][place % 2]
        arm = hilum.study_assign(study, participant=f"P{place}", assignments={"site": site}).arm
        found = int(random.random() < (0.9 if arm == "model" else 0.4))
        is_lost = place % 8 == 7
        rows.append(
            {
                "participant": f"P{place}",
                "arm": arm,
                "sex": "fm"[place // 2 % 2],
                "age": round(60 + 10 * random.normal(), 1),
                "found": "" if is_lost else found,
                "reason": "moved away" if is_lost else "",
                "minutes": round(5 + random.normal() - 2 * (arm == "model"), 2),
                "followed": int(place % 9 != 8),
            }
        )
    return rows


def table(path: Path, rows: list[dict]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_trial_goes_from_its_plan_to_a_report_by_consort(tmp_path):
    study = begun(tmp_path, PARALLEL)
    rows = enrolled(study, 48)
    result = hilum.study_analyse(
        study, data=table(tmp_path / "data.csv", rows), out=tmp_path / "result", explore={"age": "mean"}
    )
    first, *_ = result.tests
    fields = "metric label first second test method difference low high statistic p p_adjusted margin verdict"
    assert set(fields.split()) <= set(first)
    assert (first["role"], first["missing"], first["population"]) == ("primary", "imputed", "intention to treat")
    assert first["n"] == Counter(row["arm"] for row in rows)
    kinds = {(row["role"], row["missing"], row["population"]) for row in result.tests if row["endpoint"] == "found"}
    assert {("sensitivity", one, "intention to treat") for one in ("complete cases", "best case", "worst case")} < kinds
    assert ("sensitivity", "imputed", "per protocol") in kinds
    cases = {row["missing"]: row["difference"] for row in result.tests if row["endpoint"] == "found"}
    assert cases["worst case"] <= first["difference"] <= cases["best case"]
    assert cases["worst case"] < cases["best case"]
    shorter = next(row for row in result.tests if row["endpoint"] == "minutes")
    assert shorter["difference"] < 0 and shorter["verdict"] == "superior"
    interaction = next(row for row in result.tests if row["role"] == "interaction")
    assert interaction["label"] == "sex" and interaction["p_adjusted"] == interaction["p"]
    page = (tmp_path / "result" / "report.html").read_text()
    # Which subgroup differs most stands in the row of its test alone, and only where that shows a difference.
    assert (
        page.count("differs most") == (interaction["p"] < 0.05) != page.count("no difference between levels is shown")
    )
    shares = [row[arm] for row in result.results["baseline"][1:] for arm in ("usual", "model")]
    assert all(f"{one['count']} of {one['n']} (" in page for one in shares)
    assert [row["endpoint"] for row in result.tests if not row["planned"]] == ["age"]
    written = json.loads((tmp_path / "result" / "flow.json").read_text())
    assert sum(one["participants"] for one in written["losses"]) == 6
    assert {one["reason"] for one in written["losses"]} == {"moved away"}
    assert "Flow of participants" in (tmp_path / "result" / "report.html").read_text()
    consort = hilum.document(tmp_path / "result", names="consort-ai", out=tmp_path / "consort")
    answers = [answer for one in consort.documents[0].answered for answer in one.answers]
    gaps = {one.lookup.split()[1] for one in answers if one.state == "missing" and one.lookup.startswith("results ")}
    # No size was planned, the plan says nothing of masking and dates, and no table holds the others.
    assert gaps == {"size.n", "masking", "dates", "errors", "harms"}
    assert "Flow of participants" in (tmp_path / "consort" / "consort-ai.html").read_text()
    states = {row["item"]: row["state"] for row in consort.rows}
    assert {states[item] for item in ("9", "14", "17", "18", "19")} == {"planned"}
    assert {states[item] for item in ("10", "22", "25", "26", "28")} == {"measured"}
    assert hilum.verify_documents(tmp_path / "consort", against=tmp_path / "result").broken == []


def test_a_plan_writes_a_protocol_and_says_what_a_registry_still_asks_for(tmp_path):
    (tmp_path / "study.toml").write_text(PARALLEL)
    planned = hilum.study_plan(tmp_path / "study.toml", out=tmp_path / "study")
    assert "registry.sponsor" in planned.missing and "population.minimum_age" in planned.missing
    registry = json.loads((tmp_path / "study" / "registry.json").read_text())["protocolSection"]
    assert [one["measure"] for one in registry["outcomesModule"]["primaryOutcomes"]] == ["found"]
    assert "Permuted blocks of random size" in (tmp_path / "study" / "protocol.html").read_text()
    [spirit] = hilum.document(tmp_path / "study", names="spirit-ai").documents
    answers = [answer for one in spirit.answered for answer in one.answers if answer.lookup.startswith("study ")]
    gaps = {one.lookup.split()[1] for one in answers if one.state == "missing"}
    assert gaps == {"protocol_version", "size", "sponsor", "ethics", "masking"}
    remedies = " ".join(answer.because for one in spirit.answered for answer in one.answers)
    assert "hilum study plan" not in remedies and "hilum train" not in remedies
    assert "write it into the study's file" in remedies
    assert "imputations by chained equations" in (tmp_path / "study" / "sap.html").read_text()


@pytest.mark.parametrize(
    ("old", "new", "place", "problem"),
    [
        ('direction = "lower"', 'direction = "down"', 'direction = "down"', "endpoints.1.direction"),
        ("primary = true", "primary = false", "[[endpoints]]", "none is primary"),
        ("primary = true", "primary = true\nblinded = true", "blinded", "endpoints.0.blinded: there is no such key"),
        ('name = "model"', 'name = "usual"', 'name = "usual"\ntext = "Reading with the', "both arms have one name"),
        ('site = ["Bern", "Basel"]', 'site = "Bern"', "site = ", "strata.site"),
        ("imputations = 3", "imputations = 1", "imputations", "missing.imputations"),
        ("[missing]", '[size]\ndesign = "means"\ndifference = 0\nsd = 1\n[missing]', "[size]", "effect is 0"),
        (
            "[missing]",
            '[size]\ndesign = "auroc"\nexpected = 0.9\nat_least = 0.8\nprevalence = 0\n[missing]',
            "[size]",
            "prevalence is 0",
        ),
        ('design = "parallel"', "design parallel", "design parallel", "is not TOML"),
        ("primary = true", "primary = true\nmargin = 10.0", "[[endpoints]]", "Write 10 % as 0.1"),
        ('"Basel"]', '"Bern"]', "[strata]", "names one level twice"),
        (
            "[missing]",
            '[registry]\nstart = "2026-05-10"\ncompletion = "2026-04"\n[missing]',
            "completion",
            "ends on 2026-04, before it starts",
        ),
    ],
)
def test_a_fault_of_a_plan_is_named_with_its_line(old, new, place, problem):
    text = PARALLEL.replace(old, new, 1)
    with pytest.raises(UsageError, match=problem) as refused:
        trial_protocol.read_study(text, "study.toml")
    assert f"line {1 + text[: text.index(place)].count(chr(10))}" in str(refused.value)


def test_clusters_that_cannot_be_compared_are_refused():
    with pytest.raises(UsageError, match="one cluster an arm"):
        trial_protocol.read_study(CLUSTERED.partition("C = {")[0], "study.toml")
    with pytest.raises(UsageError, match="B has size huge"):
        trial_protocol.read_study(CLUSTERED.replace('B = { size = "large" }', 'B = { size = "huge" }'), "study.toml")


def test_a_locked_plan_is_refused_by_one_byte_and_amended_with_a_reason(tmp_path):
    study = begun(tmp_path, PARALLEL)
    plan = study / "study.toml"
    text = plan.read_text()
    plan.write_text(text.replace("imputations = 3", "imputations = 4"))
    with pytest.raises(IntegrityError, match="the plan is locked"):
        hilum.study_assign(study, participant="P1", assignments={"site": "Bern"})
    with pytest.raises(UsageError, match="--reason"):
        hilum.study_lock(study)
    amended = hilum.study_lock(study, reason="More imputations were asked for")
    [entry] = amended.amendments
    assert entry["changed"] == ["missing"] and entry["before"] != entry["after"]
    assert hilum.study_assign(study, participant="P1", assignments={"site": "Bern"}).arm in ("usual", "model")
    plan.write_text(plan.read_text().replace('"Bern", "Basel"', '"Bern"'))
    with pytest.raises(UsageError, match="after they were randomised"):
        hilum.study_lock(study, reason="One site left")
    plan.write_text(text)
    (study / "registry.json").write_bytes((study / "registry.json").read_bytes() + b" ")
    with pytest.raises(UsageError, match="is locked"):
        hilum.study_plan(tmp_path / "study.toml", out=study, overwrite=True)


def test_an_arm_is_given_once_and_nobody_sees_further(tmp_path, monkeypatch, cli):
    study = begun(tmp_path, PARALLEL)
    assert b"usual" not in (study / "allocation.bin").read_bytes()
    shown = cli("study", "assign", study, "--participant", "P1", "--set", "site=Bern")
    assert shown.code == 0 and shown.out.split(": ")[1].strip() in ("usual", "model")
    for participant, site, problem in (
        ("P1", "Bern", "was assigned already"),
        ("P2", "Genf", "site is 'Genf'"),
        ("=2+2", "Bern", "no number of a participant"),
    ):
        with pytest.raises(UsageError, match=problem):
            hilum.study_assign(study, participant=participant, assignments={"site": site})
    with pytest.raises(UsageError, match="already"):
        hilum.study_randomise(study, method="block")
    monkeypatch.setenv(KEY, "5f" * 32)
    with pytest.raises(IntegrityError, match="not the key of this list"):
        hilum.study_assign(study, participant="P3", assignments={"site": "Bern"})
    monkeypatch.delenv(KEY)
    with pytest.raises(UsageError, match="is not set"):
        hilum.study_assign(study, participant="P3", assignments={"site": "Bern"})
    monkeypatch.setenv(KEY, "5e" * 32)
    log = study / "assignments.csv"
    log.write_text(log.read_text().splitlines()[0] + "\n")
    with pytest.raises(IntegrityError, match="edited or lost"):
        hilum.study_assign(study, participant="P1", assignments={"site": "Bern"})


def test_sites_that_assign_at_once_wait_for_their_turn_and_are_told_to_try_again(tmp_path, monkeypatch):
    study = begun(tmp_path, PARALLEL)

    def assigned(number: int) -> str:
        return hilum.study_assign(study, participant=f"P{number}", assignments={"site": "Bern"}).arm

    with ThreadPoolExecutor(8) as sites:
        arms = list(sites.map(assigned, range(8)))
    assert set(arms) <= {"usual", "model"} and len((study / "assignments.csv").read_text().splitlines()) == 9
    monkeypatch.setattr(verbs_trial, "TURN_S", 0.01)
    with file_lock.hold_lock(study), pytest.raises(UsageError, match="has been writing it") as refused:
        assigned(9)
    assert refused.value.remedy == "Try again when it has ended"


def test_clusters_are_balanced_and_analysed_as_wholes(tmp_path):
    study = begun(tmp_path, CLUSTERED, "cluster")
    arms = {name: hilum.study_assign(study, participant=name).arm for name in "ABCDE"}
    assert sorted(Counter(arms.values()).values()) == [2, 3]
    assert arms["A"] != arms["B"]
    with pytest.raises(UsageError, match="was not randomised"):
        hilum.study_assign(study, participant="Z")
    random = np.random.default_rng(0)
    rows = [
        {"participant": f"{site}{place}", "arm": arms[site], "site": site, "found": round(random.normal(), 3)}
        for site in "ABCDE"
        for place in range(6)
    ]
    result = hilum.study_analyse(study, data=table(tmp_path / "data.csv", rows), out=tmp_path / "result")
    assert result.tests[0]["test"] == "cluster" and result.flow["arms"][0]["unit"] == "cluster"
    assert [one["assigned"] for one in result.flow["arms"]] == [
        Counter(arms.values())[one] for one in ("usual", "model")
    ]
    swapped = [
        {**row, "arm": "model" if row["participant"] == "A0" else "usual"} if row["site"] == "A" else row
        for row in rows
    ]
    with pytest.raises(DatasetError, match="site A is in both arms"):
        hilum.study_analyse(study, data=table(tmp_path / "both.csv", swapped), out=tmp_path / "both")


def test_data_unlike_the_allocation_are_refused(tmp_path):
    study = begun(tmp_path, PARALLEL)
    rows = enrolled(study, 12)
    other = {"usual": "model", "model": "usual"}
    for name, changed, problem in (
        ("arm", [{**rows[0], "arm": other[rows[0]["arm"]]}, *rows[1:]], "P0 has the arm"),
        ("few", rows[1:], "P0 was assigned and has no row"),
        ("more", [*rows, {**rows[0], "participant": "Q"}], "Q was never assigned"),
        ("twice", [*rows, rows[0]], "has P0 twice"),
        ("cell", [{**rows[0], "found": "2"}, *rows[1:]], "found of P0 is '2'"),
        ("same", [{**row, "found": 1} for row in rows], "found: an endpoint without variance"),
    ):
        with pytest.raises(DatasetError, match=problem):
            hilum.study_analyse(study, data=table(tmp_path / f"{name}.csv", changed), out=tmp_path / name)
        assert not (tmp_path / name).exists()


def test_looks_are_counted_and_spend_alpha(tmp_path):
    study = begun(tmp_path, PARALLEL + LOOKS)
    rows = enrolled(study, 40)
    first, last = table(tmp_path / "first.csv", rows[:24]), table(tmp_path / "last.csv", rows)
    look = hilum.study_analyse(study, data=first, out=tmp_path / "first").results["look"]
    fraction = (
        sum(row["found"] != "" for row in rows[:24])
        / hilum.study_size("proportions", assignments={"first": 0.9, "second": 0.6, "looks": 2}).n
    )
    assert look["now"] == 1 and look["fraction"] == pytest.approx(fraction)
    again = hilum.study_analyse(study, data=first, out=tmp_path / "again").results["look"]
    assert again == look
    second = hilum.study_analyse(study, data=last, out=tmp_path / "last").results["look"]
    assert second["now"] == 2 and second["planned"]
    assert look["level"] < second["level"] < 0.05
    rows[0]["minutes"] = 1.0
    third = hilum.study_analyse(study, data=table(tmp_path / "third.csv", rows), out=tmp_path / "third")
    assert not any(row["planned"] for row in third.tests) and "exploratory" in str(third)


def test_a_plan_that_is_not_locked_is_not_analysed(tmp_path):
    (tmp_path / "study.toml").write_text(PARALLEL)
    hilum.study_plan(tmp_path / "study.toml", out=tmp_path / "study")
    with pytest.raises(UsageError, match="is not locked"):
        hilum.study_randomise(tmp_path / "study", method="block")
    hilum.study_lock(tmp_path / "study")
    with pytest.raises(UsageError, match="not randomised by 'cluster'"):
        hilum.study_randomise(tmp_path / "study", method="cluster")


def test_a_test_of_clusters_is_that_of_their_means():
    random = np.random.default_rng(0)
    site = np.repeat(np.arange(6), [3, 9, 4, 12, 5, 7])
    arm, outcome = site % 2, random.normal(size=len(site)) + np.arange(6)[site]
    means = pd.Series(outcome).groupby(site).mean().to_numpy()
    gap = means[1::2].mean() - means[::2].mean()
    error = np.sqrt((means[1::2].var(ddof=1) + means[::2].var(ddof=1)) / 3)
    test = treatment_effects.cluster_test(outcome, arm, site)
    assert test.difference == pytest.approx(gap) and test.statistic == pytest.approx(gap / error)
    known = 3 * random.normal(size=len(site))
    assert treatment_effects.cluster_test(outcome + known, arm, site, known).difference == pytest.approx(gap, abs=1.5)
    for given, problem in (
        ((outcome, arm, np.zeros(len(site))), "is in both arms"),
        ((outcome, arm, arm), "one cluster an arm"),
        ((outcome * 0 + 1, arm, site), "without variance"),
        ((outcome, arm * 0, site), "1 arms"),
    ):
        with pytest.raises(UsageError, match=problem):
            treatment_effects.cluster_test(*given)


def test_imputations_are_pooled_by_rubins_rules():
    random = np.random.default_rng(1)
    arm, known = np.arange(60) % 2, random.normal(size=60)
    outcome = np.where(np.arange(60) % 5 == 0, np.nan, known + arm)
    given = pd.DataFrame({"outcome": outcome, "arm": arm.astype(float), "known": known})
    completed = treatment_effects.impute_missing(given, 4, 0)
    seen = ~np.isnan(outcome)
    assert all((one["outcome"][seen] == outcome[seen]).all() and one.notna().all(axis=None) for one in completed)
    effects = [
        treatment_effects.participant_effect(one["outcome"].to_numpy(), arm == 1, known[:, None]) for one in completed
    ]
    both, differences = treatment_effects.pool_effects(effects), np.array([one.difference for one in effects])
    within = np.mean([one.variance for one in effects])
    assert both.difference == pytest.approx(differences.mean())
    assert both.variance == pytest.approx(within + 1.25 * differences.var(ddof=1))
    assert both.degrees < effects[0].degrees


def test_bounds_at_other_fractions_spend_as_much():
    assert [
        one.bound for one in interim_looks.looks_at_fractions([1 / 3, 2 / 3, 1], 0.05, "obrien-fleming")
    ] == pytest.approx([3.710, 2.511, 1.993], abs=1e-3)
    assert interim_looks.looks_at_fractions([0.2, 1.0], 0.05, "obrien-fleming")[0].bound > 4


# Times to relapse in weeks, with 6-MP and without, 0 for who had none; Freireich et al., Blood 1963.
WITH_6MP = [6, 6, 6, 7, 10, 13, 16, 22, 23], [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
WITHOUT = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]


def test_a_hazard_ratio_is_that_of_the_published_trial():
    times = np.array([*WITH_6MP[0], *WITH_6MP[1], *WITHOUT], dtype=float)
    happened = np.array([True] * 9 + [False] * 12 + [True] * 21)
    is_new = np.arange(42) < 21
    found = treatment_effects.hazard_effect(times, happened, is_new, np.zeros((42, 0)))
    # coxph of R's survival: -1.5721, standard error 0.4124.
    assert (found.difference, found.variance**0.5) == pytest.approx((-1.5721, 0.4124), abs=1e-4)
    twice = np.repeat(is_new, 2).reshape(42, 2).astype(float) @ np.array([[0.0, 0.0], [0.0, 0.0]])
    assert treatment_effects.hazard_effect(times, happened, is_new, twice).difference == pytest.approx(found.difference)
    with pytest.raises(UsageError, match="nobody had the event"):
        treatment_effects.hazard_effect(times, happened & False, is_new, np.zeros((42, 0)))


NO_COVARIATES = np.zeros((40, 0))


@pytest.mark.parametrize("new_is_later", [False, True])
def test_arms_whose_times_are_separated_have_the_log_rank_test_and_no_warning(new_is_later, capfd):
    times, is_new = np.arange(1.0, 41.0), (np.arange(40) >= 20) == new_is_later
    for happened in (np.ones(40, dtype=bool), is_new):  # all have the event, or those of the new arm alone
        found = treatment_effects.hazard_effect(times, happened, is_new, NO_COVARIATES)
        test = found.test()
        assert np.isnan(test.difference) and test.method.startswith("log-rank; no hazard ratio: nobody in ")
        assert test.statistic == pytest.approx(survival.logrank_test(times, happened, is_new)[0], nan_ok=True)
        # Nobody of the control was followed any more when the first of the new arm had the event.
        assert np.isnan(test.p) == (new_is_later and not happened.all())
        assert (test.statistic < 0) == (new_is_later and happened.all()) and not test.p >= 0.05
    assert treatment_effects.hazard_effect(times, np.ones(40, dtype=bool), is_new, NO_COVARIATES).test().p < 1e-8
    # One who is as late as the others' first is enough for a ratio.
    mixed = np.where(times == 20, 21.0, times)
    assert np.isfinite(
        treatment_effects.hazard_effect(mixed, np.ones(40, dtype=bool), is_new, NO_COVARIATES).difference
    )
    tell = (times[:, None] < 20.5).astype(float) * times[:, None] + 100 * (times[:, None] > 20)
    treatment_effects.hazard_effect(times, np.ones(40, dtype=bool), np.arange(40) % 2 == 1, tell)
    assert capfd.readouterr() == ("", "")


def test_events_fewer_than_covariates_leave_the_log_rank_test():
    random = np.random.default_rng(0)
    found = treatment_effects.hazard_effect(
        random.random(40), np.arange(40) < 5, np.arange(40) % 2 == 1, random.normal(size=(40, 5))
    )
    assert "5 events for 5 covariates" in found.method and found.rank is not None


PLAIN = PARALLEL.replace('subgroups = ["sex"]', "").partition("[strata]")[0]


def trial_of(text: str, **columns) -> TrialAnalysis:
    """A trial of 40, every second of whom has the new arm, with these columns."""
    arms = ["usual", "model"] * 20
    cells = pd.DataFrame({"participant": [f"P{n}" for n in range(40)], "arm": arms, **columns})
    return TrialAnalysis(trial_protocol.read_study(text, "study.toml"), cells.astype(str), "data.csv")


MINUTES = np.round(5 + np.random.default_rng(0).normal(size=40) * 0.1, 3)


def test_an_arm_without_outcomes_is_named():
    found = np.where(np.arange(40) % 2 == 1, "", np.arange(40) % 4 // 2)
    with pytest.raises(DatasetError, match="found: no outcome of the arm model is known"):
        trial_of(PLAIN, found=found, minutes=MINUTES).rows()
    found[1] = "1"
    with pytest.raises(DatasetError, match="found: one outcome alone of the arm model is known"):
        trial_of(PLAIN, found=found, minutes=MINUTES).rows()
    timed = PLAIN.replace('metric = "proportion"', 'metric = "time"\nevent = "seen"', 1)
    with pytest.raises(DatasetError, match="found: one outcome alone of the arm model is known"):
        trial_of(timed, found=found, seen="1", minutes=MINUTES).rows()
    followed = PLAIN + '[analysis]\nper_protocol = "followed"\n'
    with pytest.raises(DatasetError, match="no outcome of the arm model is known of those treated per protocol"):
        trial_of(followed, found=np.arange(40) % 4 // 2, minutes=MINUTES, followed=1 - np.arange(40) % 2).rows()


def test_a_difference_of_proportions_ends_at_one_and_separated_arms_have_an_exact_test():
    found = np.arange(40) % 2
    separated, *_ = trial_of(PLAIN, found=found, minutes=MINUTES).rows()
    assert (separated["difference"], separated["verdict"]) == (1.0, "superior") and np.isnan(separated["high"])
    assert separated["p"] == pytest.approx(stats.fisher_exact(np.diag([20, 20])).pvalue, rel=1e-6)
    gaps = np.where(np.arange(40) > 29, "", found.astype(str))  # who is imputed is not known
    few, *_ = trial_of(PLAIN, found=gaps, minutes=MINUTES).rows()
    assert few["p"] == pytest.approx(stats.fisher_exact(np.diag([15, 15])).pvalue, rel=1e-6)
    found[1] = 0
    nearly, *_ = trial_of(PLAIN, found=found, minutes=MINUTES).rows()
    assert nearly["low"] < 0.95 < nearly["high"] == 1.0
    worse, *_ = trial_of(PLAIN, found=1 - found, minutes=MINUTES).rows()
    assert worse["low"] == -1.0 and worse["verdict"] == "inferior"
    assert treatment_effects.cluster_test(found, np.arange(40) % 2, np.arange(40) % 8).high == 1.0


def test_a_margin_that_holds_the_whole_interval_makes_arms_equivalent():
    later = MINUTES + 0.9 * (np.arange(40) % 2)
    rows = [trial_of(PLAIN, found=np.arange(40) % 4 // 2, minutes=one).rows()[1] for one in (MINUTES, later)]
    assert [row["verdict"] for row in rows] == ["equivalent", "equivalent"]
    barely = trial_of(PLAIN, found=np.arange(40) % 4 // 2, minutes=later + 0.08 * (np.arange(40) % 2)).rows()[1]
    assert barely["verdict"] == "inferior"


def test_the_answer_states_each_arm_before_the_difference_and_never_that_arms_are_alike():
    trial = trial_of(PLAIN, found=np.arange(40) % 4 // 2, minutes=MINUTES)
    results = {"tests": trial.rows(), "look": {"planned": True}}
    assert verbs_trial.verdict_words(results).startswith(
        "model is not shown to differ from usual in found: usual 10 of 20 (50 %); model 10 of 20 (50 %); difference"
    )
    minutes = PLAIN.replace("primary = true\n", "").replace("margin = 1.0", "margin = 0.01\nprimary = true")
    of_mean = {**results, "tests": trial_of(minutes, found=np.arange(40) % 4 // 2, minutes=MINUTES).rows()}
    told = verbs_trial.verdict_words(of_mean)
    assert (
        "not shown to differ from usual in minutes, nor to be non-inferior by the margin of 0.01: usual mean " in told
    )
    assert "(SD 0." in told and "), n 20; model mean" in told


def timed(rows: list[dict]) -> list[dict]:
    """Weeks to the detection of what was missed, which the model brings forward; the last are followed no longer."""
    random = np.random.default_rng(2)
    # Evenly spread over the distribution: the arms are allocated anew each time, and the effect is not to be.
    for arm, mean in (("model", 8), ("usual", 20)):
        own = [row for row in rows if row["arm"] == arm]
        shares = random.permutation((np.arange(len(own)) + 0.5) / len(own))
        for row, share in zip(own, shares, strict=True):
            weeks = -mean * np.log(1 - share)
            row.update({"weeks": round(min(weeks, 26), 2), "detected": int(weeks < 26)})
    rows[0].update(dict.fromkeys(("weeks", "detected"), ""))
    return rows


TIMED = PARALLEL.replace(
    """name = "found"
metric = "proportion"
direction = "higher"
""",
    """name = "weeks"
metric = "time"
event = "detected"
direction = "lower"
""",
)


def test_times_to_an_event_are_analysed_by_their_hazard(tmp_path):
    study = begun(tmp_path, TIMED)
    rows = timed(enrolled(study, 80))
    result = hilum.study_analyse(study, data=table(tmp_path / "data.csv", rows), out=tmp_path / "result")
    [primary] = [row for row in result.tests if row["role"] == "primary"]
    assert primary["verdict"] == "superior" and primary["difference"] > 0
    ratio = primary["hazard_ratio"]
    assert ratio["low"] < 2.5 < ratio["high"] and ratio["value"] == pytest.approx(np.exp(primary["difference"]))
    assert primary["logrank_p"] < 0.01 and primary["missing"] == "left out"
    known = [row for row in rows if row["weeks"] != ""]
    assert sum(primary["events"].values()) == sum(row["detected"] for row in known)
    assert primary["values"]["model"] < primary["values"]["usual"]  # median weeks
    assert "had the event, median" in (tmp_path / "result" / "report.html").read_text()
    assert {"subgroup", "interaction"} <= {row["role"] for row in result.tests}
    rows[3]["detected"] = "perhaps"
    with pytest.raises(DatasetError, match="detected of P3 is 'perhaps'"):
        hilum.study_analyse(study, data=table(tmp_path / "wrong.csv", rows), out=tmp_path / "other")


def test_times_by_cluster_or_without_their_event_are_refused_with_the_reason():
    with pytest.raises(UsageError, match="take no account of who is followed no longer"):
        trial_protocol.read_study(
            CLUSTERED.replace('metric = "mean"', 'metric = "time"\nevent = "detected"'), "study.toml"
        )
    with pytest.raises(UsageError, match="whether the event happened"):
        trial_protocol.read_study(TIMED.replace('event = "detected"\n', ""), "study.toml")


ADJUSTED = """\
title = "A trial"
question = "Which arm is better?"
design = "parallel"
[[arms]]
name = "control"
text = "without"
[[arms]]
name = "model"
text = "with"
[[endpoints]]
name = "hours"
metric = "mean"
direction = "lower"
primary = true
[population]
criteria = "adults"
[analysis]
covariates = ["age"]
[missing]
imputations = 2
"""


@pytest.fixture(scope="module")
def adjusted(tmp_path_factory):
    """A trial of 60 and the rows of its table, hours and age as text."""
    folder, random = tmp_path_factory.mktemp("adjusted"), np.random.default_rng(3)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(KEY, "5e" * 32)
        study = begun(folder, ADJUSTED)
        rows = []
        for place in range(60):
            arm = hilum.study_assign(study, participant=f"P{place}").arm
            age, noise = int(random.integers(20, 90)), random.normal(0, 100)
            hours = f"{1600 - 150 * (arm == 'model') + 2 * age + noise:.0f}"
            rows.append({"participant": f"P{place}", "arm": arm, "hours": hours, "age": str(age)})
    return study, rows


def analysed(adjusted, folder, changes=(), separator=",", hours=str):
    """The analysis of the trial whose table has other cells: (row, column, cell)."""
    study, rows = adjusted[0], [{**row, "hours": hours(row["hours"])} for row in adjusted[1]]
    for place, name, cell in changes:
        rows[place][name] = cell
    pd.DataFrame(rows).to_csv(folder / "data.csv", index=False, sep=separator)
    return hilum.study_analyse(study, data=folder / "data.csv", out=folder / "result", overwrite=True)


def primary_of(result):
    return next(row for row in result.tests if row["role"] == "primary")


@pytest.mark.parametrize("cell", ["n/a", ">89", "-999", "unknown"])
def test_a_covariate_with_one_odd_cell_stays_a_number_and_the_report_says_so(adjusted, tmp_path, cell):
    plain, odd = analysed(adjusted, tmp_path), analysed(adjusted, tmp_path, [(0, "age", cell)])
    assert primary_of(odd)["difference"] == pytest.approx(primary_of(plain)["difference"], abs=8)
    taken = "the limit" if cell.startswith(">") else "missing"
    assert f"note: age: 59 numbers, 1 cell '{cell}' taken as {taken}" in repr(odd)
    assert [row["characteristic"] for row in odd.results["baseline"]] == ["participants", "age"]
    assert "59 numbers" in (tmp_path / "result" / "report.html").read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([(7, "age", "old")], "age of P7 is 'old', line 9: it is no number"),
        ([(7, "hours", "-999")], "hours of P7 is '-999', line 9: it stands apart"),
        ([(7, "hours", "99999")], "hours of P7 is '99999'"),
        ([(7, "hours", ">2000")], "it is a limit"),
        ([(place, "age", f"ward {place}") for place in range(60)], "age has 60 levels"),
    ],
)
def test_cells_that_fit_nothing_are_refused_with_participant_and_line(adjusted, tmp_path, changes, words):
    with pytest.raises(DatasetError, match=words):
        analysed(adjusted, tmp_path, changes)
    assert not (tmp_path / "result").exists()


def test_marks_of_thousands_are_never_decimals(adjusted, tmp_path):
    plain = primary_of(analysed(adjusted, tmp_path))
    with pytest.raises(DatasetError, match=r"which may be 1[0-9]{3} or 1\."):
        analysed(adjusted, tmp_path, hours=lambda one: f"{int(one):,}")
    continental = analysed(
        adjusted, tmp_path, hours=lambda one: f"{int(one):,}".replace(",", ".") + ",0", separator=";"
    )
    assert primary_of(continental)["difference"] == plain["difference"]
    assert "with decimal commas" in continental.results["columns"][0]

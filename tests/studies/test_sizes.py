"""Sizes of studies beside statsmodels, published examples and simulations, and what is refused."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats import power as statsmodels_power
from statsmodels.stats import proportion as statsmodels_proportion

from hilum.errors import DatasetError, UsageError
from hilum.evaluation.significance import auroc_tests
from hilum.studies import _proportions, interim_looks
from hilum.studies.sizing import DESIGNS
from hilum.verbs import study

AUROC = {"expected": 0.85, "at_least": 0.75, "prevalence": 0.4}
READERS = {"readers": 5, "interaction": 0.0002, "own": 0.0006, "between": 0.0002, "pilot_cases": 100}
WEDGE = {"first": 0.035, "second": 0.05, "periods": 5, "size": 120, "tau": 0.01}


def test_two_proportions_and_two_means_are_as_statsmodels_sizes_them():
    found = study.study_size("proportions", assignments={"first": 0.6, "second": 0.5})
    assert (found.n, found.per_arm) == (776, 388)
    theirs = statsmodels_proportion.power_proportions_2indep(0.1, 0.5, 388, return_results=False)
    assert found.power == pytest.approx(theirs, abs=1e-6)
    means = study.study_size("means", assignments={"difference": 0.5, "sd": 1})
    assert means.per_arm == 64  # pwr.t.test(d = 0.5, power = 0.8): 63.77
    assert means.power == pytest.approx(statsmodels_power.TTestIndPower().power(0.5, 64, 0.05), abs=1e-6)
    assert study.study_size("means", assignments={"difference": 0.5, "sd": 1, "paired": True}).n == 34  # pwr: 33.37


def test_a_proportion_is_tested_exactly_and_its_power_stays():
    def power(n):
        fewest = stats.binom.isf(0.025, n, 0.8)
        return stats.binom.sf(fewest, n, 0.9)

    found = study.study_size("proportion", assignments={"expected": 0.9, "at_least": 0.8})
    assert power(found.n - 1) < 0.8 <= min(power(n) for n in range(found.n, 2 * found.n))
    rare = study.study_size("proportion", assignments={"expected": 0.9, "at_least": 0.8, "prevalence": 0.1})
    assert rare.n == 10 * found.n
    # Buderer's: 138.3 with the disease, a fifth of all.
    assert study.study_size("proportion", assignments={"expected": 0.9, "half_width": 0.05, "prevalence": 0.2}).n == 692


def test_published_examples():
    riley = study.study_size("prediction-model", assignments={"r2": 0.288, "parameters": 24, "prevalence": 0.174})
    assert riley.n == 662  # pmsampsize
    wedge = study.study_size("stepped-wedge", assignments={**WEDGE, "clusters": 24})
    assert wedge.power == pytest.approx(0.7861896, abs=1e-4)  # the example of swCRTdesign
    assert study.study_size("stepped-wedge", assignments=WEDGE).clusters == 28
    # Schoenfeld: 4 (1.96 + 0.8416)² / ln(0.7)² = 246.8
    assert study.study_size("survival", assignments={"hazard_ratio": 0.7}).events == 248  # as many in each arm
    assert study.study_size("survival", assignments={"hazard_ratio": 0.7}).n is None
    # Connor: (1.96 sqrt(0.3) + 0.8416 sqrt(0.29))² / 0.01 = 233.0
    pairs = {"first": 0.8, "second": 0.7, "discordance": 0.3}
    assert study.study_size("paired-proportions", assignments=pairs).n == 234


def test_bounds_of_looks_are_those_of_lan_and_demets():
    assert [look.bound for look in interim_looks.equally_spaced_looks(3, 0.05, "obrien-fleming")] == pytest.approx(
        [3.710, 2.511, 1.993], abs=1e-3
    )
    assert [look.bound for look in interim_looks.equally_spaced_looks(3, 0.05, "pocock")] == pytest.approx(
        [2.279, 2.295, 2.296], abs=2e-3
    )
    assert interim_looks.crossing_chance(interim_looks.equally_spaced_looks(5, 0.05, "pocock"), 0.0) == pytest.approx(
        0.025, abs=1e-5
    )
    found = study.study_size("means", assignments={"difference": 0.5, "sd": 1, "looks": 3})
    assert 128 < found.n < 135
    assert [look.fraction for look in found.looks] == pytest.approx([1 / 3, 2 / 3, 1])


def test_clusters_weigh_less_than_their_participants():
    given = {"first": 0.6, "second": 0.5, "cluster": 50, "icc": 0.02}
    even, uneven = (study.study_size("proportions", assignments={**given, "cv": cv}) for cv in (0, 0.6))
    assert even.n == even.clusters * 50
    # 776 * (1 + 49 * 0.02) = 1537 participants are 30.7 clusters; a t test of few clusters needs more.
    assert 32 <= even.clusters <= 34 < uneven.clusters
    alone = study.study_size("proportions", assignments={**given, "icc": 0, "clusters": 16})
    assert alone.power < study.study_size("proportions", assignments={"first": 0.6, "second": 0.5, "n": 800}).power


def test_of_n_power_and_effect_the_one_that_is_left_out_is_found():
    given = {"difference": 0.5, "sd": 1.0}
    assert study.study_size("means", assignments={**given, "per_arm": 64}).power == pytest.approx(0.8015, abs=1e-4)
    found = study.study_size("means", assignments={"sd": 1.0, "n": 128, "power": 0.8})
    assert found.inputs["difference"] == pytest.approx(0.4991, abs=1e-4)
    assert study.study_size("means", assignments={**given, "dropout": 0.2}).per_arm == 80
    with pytest.raises(UsageError, match="nothing is left to find"):
        study.study_size("means", assignments={**given, "n": 128, "power": 0.8})
    non_inferior = {"first": 0.9, "second": 0.9, "margin": 0.05}
    assert 560 < study.study_size("proportions", assignments=non_inferior).per_arm < 600  # Wald: 566


def test_with_a_margin_the_variance_is_that_of_the_likeliest_proportions_that_far_apart():
    def unlikely(own):
        first, second = 88 * np.log(own) + 12 * np.log(1 - own), 92 * np.log(own + 0.1) + 8 * np.log(0.9 - own)
        return -first - second

    own = optimize.minimize_scalar(unlikely, bounds=(1e-6, 0.9 - 1e-6), method="bounded").x
    theirs = own * (1 - own) + (own + 0.1) * (0.9 - own)
    assert _proportions.null_variance(np.array(0.88), np.array(0.92), 0.1) == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize(
    ("design", "given"),
    [
        ("proportion", {"expected": 0.9, "at_least": 0.8}),
        ("proportions", {"first": 0.6, "second": 0.5, "looks": 3}),
        ("paired-proportions", {"first": 0.8, "second": 0.7, "discordance": 0.3}),
        ("means", {"difference": 0.5, "sd": 1.0}),
        ("auroc", AUROC),
        ("auroc", {**AUROC, "correlation": 0.5}),
        ("survival", {"hazard_ratio": 0.6, "event_probability": 0.6}),
        ("stepped-wedge", WEDGE),
        ("mrmc", {**READERS, "difference": 0.05}),
        ("means", {"difference": 0.4, "sd": 1, "cluster": 20, "icc": 0.05, "cv": 0.5}),
        ("proportions", {"first": 0.6, "second": 0.45, "cluster": 30, "icc": 0.03, "looks": 2}),
    ],
)
def test_simulated_studies_find_the_effect_as_often_as_wished(design, given):
    found = study.study_size(design, assignments=given, simulate=500, seed=1)
    assert found.simulated.value >= 0.78 - 0.03  # two points, and the chance of 500 draws
    assert found.simulated.low <= found.simulated.value <= found.simulated.high


@pytest.mark.parametrize(
    ("design", "given", "problem"),
    [
        ("proportions", {"first": 0.5, "second": 0.5}, "effect is 0"),
        ("means", {"difference": 0, "sd": 1}, "effect is 0"),
        ("survival", {"hazard_ratio": 1}, "effect is 0"),
        ("auroc", {**AUROC, "prevalence": 0}, "prevalence is 0"),
        ("proportions", {"first": 0.6, "second": 0.5, "cluster": 50, "icc": 0.02, "clusters": 2}, "one cluster an arm"),
        ("stepped-wedge", {**WEDGE, "clusters": 25}, "multiple of 4"),
        ("means", {"diference": 0.5, "sd": 1}, r"no input 'diference'.*Use difference; means knows .*sd"),
        ("mrmc", {**READERS, "difference": 0}, "effect is 0"),
        ("means", {"n": 100, "sd": 1, "power": 0.02}, "power is 0.02"),
        ("proportions", {"first": 0.6, "second": 0.5, "clusters": 8}, "need the size of one"),
        ("mrmc", {**READERS, "difference": 0.001}, r"not reached by 1,000,000 participants.*Plan more readers"),
        ("mrmc", {**READERS, "readers": 1, "difference": 0.05}, "Plan two readers or more"),
        ("mrmc", {**READERS, "n": 3, "difference": 0.05}, "3 participants are too few for the test"),
        ("auroc", {**AUROC, "n": 4}, "4 participants are too few for the test"),
        ("before-after", {"level": 1.0, "n": 3}, "3 points in time are too few for the test"),
        ("means", {"difference": 1e-6, "sd": 1}, r"not reached by 1,000,000 participants in an arm"),
        ("means", {"difference": 5, "sd": 1e-9}, "cannot be computed: the effect is beyond"),
        ("prediction-model", {"r2": 1e-7, "parameters": 24, "prevalence": 0.174}, "Plan fewer parameters"),
        ("stepped-wedge", {**WEDGE, "periods": 10**6}, "more than any stepped wedge has"),
        ("mean", {}, r"no design 'mean'.*proportion, proportions"),
        ("means", {"difference": 0.5}, r"needs sd"),
        ("prediction-model", {"r2": 0.7, "parameters": 24, "prevalence": 0.174}, "r2 is 0.7"),
        ("paired-proportions", {"first": 0.8, "second": 0.7, "discordance": 0.05}, "lies in 0.1 to 0.5"),
    ],
)
def test_what_no_size_can_be_given_for_is_refused(design, given, problem):
    with pytest.raises(UsageError, match=problem):
        study.study_size(design, assignments=given)


def test_a_size_names_the_patients_with_and_without_the_finding():
    given = {"expected": 0.9, "at_least": 0.8}
    plain = study.study_size("proportion", assignments=given)
    assert (plain.n, plain.with_finding) == (113, None)
    found = study.study_size("proportion", assignments={**given, "prevalence": 0.2})
    assert (found.n, found.with_finding, found.without_finding) == (565, 113, 452)
    assert "565 participants, 113 with the finding, 452 without" in str(found)
    assert (found.as_record()["with_finding"], found.as_record()["without_finding"]) == (113, 452)
    other = study.study_size("proportion", assignments={**given, "prevalence": 0.2, "measure": "specificity"})
    assert (other.without_finding, other.n) == (113, 142)
    wide = study.study_size("proportion", assignments={"expected": 0.9, "half_width": 0.05, "prevalence": 0.2})
    assert (wide.n, wide.with_finding) == (692, 138)  # of 138.3, as published
    area = study.study_size("auroc", assignments={"expected": 0.9, "at_least": 0.8, "prevalence": 0.25})
    assert area.with_finding == area.n // 4 and area.with_finding + area.without_finding == area.n


def test_a_pilot_of_readers_sizes_a_study_as_its_own_test_sees_it(tmp_path):
    random = np.random.default_rng(0)
    truth = np.arange(60) % 2
    cases = random.standard_normal((2, 1, 60))
    shown = np.array([[0.5, 0.5, 0.5, 0.5], [0.5, 1.0, 2.0, 3.0]])  # the aid helps some readers more than others
    scores = truth * shown[:, :, None] + cases + random.standard_normal((2, 4, 60))
    rows = [
        f"{reader},{case},{scores[model, reader, case]},{'aid' if model else 'plain'},{truth[case]}"
        for model in range(2)
        for reader in range(4)
        for case in range(60)
    ]
    (tmp_path / "pilot.csv").write_text("\n".join(["reader,case,score,model,positive", *rows]))
    given = {"pilot": tmp_path / "pilot.csv", "readers": 4, "n": 60}
    seen = auroc_tests.reader_variances(scores, truth)
    found = study.study_size("mrmc", assignments={**given, "difference": seen.difference})
    # With the pilot's cases and readers, the error is that of its own test.
    test = auroc_tests.mrmc(scores, truth)
    assert 0.05 < found.power < 0.999
    assert found.inputs["pilot_cases"] == 60
    half = found.inputs["interaction"] + found.inputs["own"] - found.inputs["between"]
    assert half + 4 * found.inputs["between"] == pytest.approx(2 * seen.difference**2 / test.statistic, rel=1e-6)
    more = study.study_size("mrmc", assignments={**given, "n": 200, "difference": seen.difference})
    assert more.power > found.power
    words = (row.replace(",", ";").replace(".", ",")[:-1] + ("yes" if row[-1] == "1" else "No") for row in rows)
    (tmp_path / "pilot.csv").write_text("\n".join(["reader;case;score;model;positive", *words]))
    again = study.study_size("mrmc", assignments={**given, "difference": seen.difference})
    assert again.power == pytest.approx(found.power)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda rows: ["r1,c1,?,,1", *rows[1:]], "score '?' of {}, is missing"),
        (
            lambda rows: ["r1,c1,high,,1", *rows[1:]],
            "score 'high' of {}, is no number",
        ),
        (
            lambda rows: ["r1,c1,.5,,2", *rows[1:]],
            "positive '2' of {}, is neither yes nor no",
        ),
        (lambda rows: ["r1,c1,.5,,0", *rows[1:]], "case c1 is positive and negative"),
        (lambda rows: [*rows, rows[-1]], "there are two scores of reader r2, case c2, model aid"),
        (lambda rows: rows[:-1], "there is no score of reader r2, case c2, model aid"),
        (lambda rows: [row for row in rows if row[:2] == "r1" or ",aid," in row], "of reader r2, case c1, no model"),
    ],
)
def test_a_fault_of_a_pilot_is_named_by_reader_case_and_cell(tmp_path, change, problem):
    rows = [
        f"{r},{c},0.{n},{m},{int(c == 'c1')}"
        for m in ("", "aid")
        for r in ("r1", "r2")
        for n, c in enumerate(("c1", "c2"))
    ]
    (tmp_path / "pilot.csv").write_text("\n".join(["reader,case,score,model,positive", *change(rows)]))
    with pytest.raises(DatasetError, match=re.escape(problem.format("reader r1, case c1, no model, line 2"))):
        study.study_size(
            "mrmc", assignments={"pilot": tmp_path / "pilot.csv", "readers": 4, "n": 60, "difference": 0.1}
        )


def test_a_pilot_needs_two_cases_of_each_class(tmp_path):
    rows = [f"{r},c{n},0.{n},{m},{int(n == 1)}" for m in ("", "aid") for r in ("r1", "r2") for n in (1, 2, 3)]
    (tmp_path / "pilot.csv").write_text("\n".join(["reader,case,score,model,positive", *rows]))
    with pytest.raises(DatasetError, match=r"has 1 positive case and 2 negative\. The pilot needs two cases of each"):
        study.study_size("mrmc", assignments={"pilot": tmp_path / "pilot.csv", "readers": 4, "difference": 0.1})


def test_the_command_prints_words_or_one_document(cli):
    words = cli("study", "size", "means", "--set", "difference=0.5", "--set", "sd=1")
    assert words.code == 0 and "128 participants, 64 in an arm" in words.out
    record = json.loads(
        cli("study", "size", "proportion", "--set", "expected=0.9", "--set", "at_least=0.8", "--json").out
    )
    assert record["n"] == 113
    assert {"design", "inputs", "n", "per_arm", "clusters", "events", "looks", "power", "formula", "source"} <= {
        *record
    }
    wrong = cli("study", "size", "means", "--set", "sd=-1", "--set", "difference=1")
    assert wrong.code != 0 and "sd is '-1'" in wrong.err


def test_every_design_is_named_by_the_help(cli):
    shown = " ".join(cli("study", "size", "--help").out.split())
    assert [name for name in DESIGNS if name not in shown] == []

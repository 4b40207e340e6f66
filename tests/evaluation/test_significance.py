from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats

from hilum.errors import UsageError
from hilum.evaluation import classification, intervals, regression
from hilum.evaluation.intervals import Resampling
from hilum.evaluation.significance import auroc_tests, margins, paired_tests, probability_tests, raters, testing
from hilum.evaluation.significance.testing import DifferenceTest

SEEDS = st.integers(0, 2**32 - 1)


def simulated(seed: int, cases: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of two models, with ties, and truths of both kinds."""
    random = np.random.default_rng(seed)
    positive = random.permutation(cases) < cases // 3
    common = random.normal(size=cases) + positive
    return (common + random.normal(size=cases)).round(1), (common + random.normal(size=cases)).round(1), positive


def test_the_study_of_van_dyke_comes_out_as_published(corpus):
    table = pd.read_csv(corpus / "statistics" / "van_dyke.csv")
    cube = table.pivot(index=["treatment", "reader"], columns="case", values="rating").to_numpy().reshape(2, 5, -1)
    truth = table.drop_duplicates("case").sort_values("case")["truth"].to_numpy()
    areas = [np.mean([classification.auroc(reader, truth) for reader in modality]) for modality in cube]
    assert_allclose(areas, [0.89704, 0.94084], atol=1e-5)
    found = auroc_tests.mrmc(cube, truth)
    assert_allclose([found.difference, found.low, found.high], [0.0438, -0.00036, 0.08796], atol=1e-4)
    assert_allclose([found.statistic, found.p], [4.4563, 0.05167], atol=1e-4)
    assert "15.26 degrees" in found.method
    fixed = auroc_tests.mrmc(cube, truth, readers="fixed")
    assert fixed.p < found.p and "fixed" in fixed.method
    own = auroc_tests.mrmc(cube, truth, np.arange(len(truth)))
    assert own.p == pytest.approx(found.p, abs=2e-3)


def test_the_scores_of_haemorrhage_patients_differ_as_published(corpus):
    table = pd.read_csv(corpus / "statistics" / "asah.csv")
    poor = table["outcome"] == "Poor"
    areas, _ = auroc_tests.area_covariance(table[["wfns", "s100b", "ndka"]].to_numpy().T, poor)
    assert_allclose(areas, [0.8236789, 0.7313686, 0.6119580], atol=1e-6)
    found = auroc_tests.delong(table["wfns"], table["s100b"], poor)
    assert (found.statistic, found.p) == (pytest.approx(-2.209, abs=1e-3), pytest.approx(0.02718, abs=1e-5))
    assert found.difference == pytest.approx(0.7313686 - 0.8236789, abs=1e-6)


@settings(max_examples=15)
@given(SEEDS)
def test_one_reader_is_delongs_test_and_delong_of_one_image_each_knows_no_clusters(seed):
    first, second, positive = simulated(seed)
    alone = auroc_tests.delong(first, second, positive)
    assert auroc_tests.mrmc([[first], [second]], positive) == alone
    named = auroc_tests.delong(first, second, positive, [f"p{n}" for n in range(len(first))])
    assert (named.method, named.p) == (alone.method, pytest.approx(alone.p))
    assert alone.difference == pytest.approx(
        float(classification.auroc(second, positive) - classification.auroc(first, positive))
    )


def test_clusters_vary_as_obuchowskis_sums_over_patients_written_out():
    first, second, positive = simulated(3, 30)
    patients = np.arange(30) // 3
    areas, covariance = auroc_tests.area_covariance([first, second], positive, patients)
    yes, no, wins = positive.sum(), (~positive).sum(), []
    for scores in (first, second):
        apart = scores[positive][:, None] - scores[~positive]
        wins.append((apart > 0) + 0.5 * (apart == 0))
    parts = np.zeros((2, 2, 10))
    for model, pairs in enumerate(wins):
        for side, (sums, owner) in enumerate(
            ((pairs.mean(axis=1), patients[positive]), (pairs.mean(axis=0), patients[~positive]))
        ):
            for value, patient in zip(sums, owner, strict=True):
                parts[model, side, patient] += value - areas[model]
    with_yes, with_no = len(set(patients[positive])), len(set(patients[~positive]))
    for a, b in product(range(2), range(2)):
        x, y = parts[a], parts[b]
        expected = with_yes / (with_yes - 1) * (x[0] @ y[0]) / yes**2 + with_no / (with_no - 1) * (x[1] @ y[1]) / no**2
        expected += 10 / 9 * (x[0] @ y[1] + x[1] @ y[0]) / (yes * no)
        assert covariance[a, b] == pytest.approx(expected)


def test_the_same_patients_given_twice_are_no_more_patients():
    first, second, positive = simulated(5, 60)
    once = auroc_tests.delong(first, second, positive)
    twice = auroc_tests.delong(*(np.repeat(one, 2) for one in (first, second, positive, np.arange(60))))
    assert twice.difference == pytest.approx(once.difference)
    assert twice.p == pytest.approx(once.p, abs=0.02)
    assert auroc_tests.delong(*(np.repeat(one, 2) for one in (first, second, positive))).p < once.p


def test_models_of_other_patients_are_compared_without_pairs():
    first, second, positive = simulated(1, 80)
    apart = auroc_tests.delong_unpaired(first[:40], second[40:], positive[:40], positive[40:])
    assert apart.difference == pytest.approx(
        float(classification.auroc(second[40:], positive[40:]) - classification.auroc(first[:40], positive[:40]))
    )
    assert "degrees of freedom" in apart.method


@settings(max_examples=15)
@given(SEEDS)
def test_the_permutation_of_areas_is_that_of_scores_that_change_sides(seed):
    first, second, positive = simulated(seed, 9)
    ranks = [stats.rankdata(one) for one in (first, second)]
    moved = []
    for swap in product((False, True), repeat=9):
        one, other = np.where(swap, ranks[::-1], ranks)
        moved.append(abs(float(classification.auroc(other, positive) - classification.auroc(one, positive))))
    found = paired_tests.permutation_test(first, second, positive)
    if moved[0] > 0:
        assert found.p == pytest.approx(np.mean(np.array(moved) >= moved[0] - 1e-9))
    assert found.difference == pytest.approx(
        float(classification.auroc(second, positive) - classification.auroc(first, positive))
    )


@settings(max_examples=15)
@given(SEEDS)
def test_the_permutation_of_means_is_exact_where_all_can_be_tried(seed):
    first, second, _ = simulated(seed, 10)
    found = paired_tests.permutation_test(first, second)
    exact = stats.permutation_test(
        (second - first,), lambda one, axis: one.mean(axis=axis), permutation_type="samples", n_resamples=np.inf
    )
    assert found.p == pytest.approx(exact.pvalue)


def test_sampled_exchanges_of_many_agree_with_the_normal_law_of_very_many():
    random = np.random.default_rng(0)
    apart = random.normal(0.1, 1, 1900)
    found, student = paired_tests.permutation_test(np.zeros(1900), apart), stats.ttest_1samp(apart, 0)
    assert found.p == pytest.approx(student.pvalue, abs=2e-3)
    assert (found.low, found.high) == pytest.approx(tuple(student.confidence_interval()), abs=5e-3)
    many = paired_tests.permutation_test(np.zeros(2100), np.append(apart, random.normal(0.1, 1, 200)))
    assert "normal distribution" in many.method and many.low < many.difference < many.high


@settings(max_examples=15)
@given(SEEDS)
def test_signed_ranks_are_those_of_scipy(seed):
    random = np.random.default_rng(seed)
    few, many = random.normal(size=(2, 20)), random.normal(size=(2, 80)).round(1)
    assert paired_tests.wilcoxon_test(*few).p == pytest.approx(stats.wilcoxon(*few, method="exact").pvalue)
    assert paired_tests.wilcoxon_test(*many).p == pytest.approx(
        stats.wilcoxon(*many, method="approx", correction=False).pvalue
    )


def test_calls_of_patients_with_several_images_go_together():
    first, second = np.zeros(40), np.repeat(np.arange(8) < 7, 5)
    assert paired_tests.mcnemar_test(first, second).p < 1e-6
    by_patient = paired_tests.mcnemar_test(first, second, np.repeat(np.arange(8), 5))
    assert by_patient.p == pytest.approx(2 / 2**7)
    assert "exact, which is conservative" in by_patient.method


TESTS = {
    "delong": lambda one, truth: auroc_tests.delong(one, one, truth),
    "permutation": lambda one, truth: paired_tests.permutation_test(one, one, truth),
    "permutation of means": lambda one, truth: paired_tests.permutation_test(one, one),
    "mcnemar": lambda one, truth: paired_tests.mcnemar_test(one > 0, one > 0),
    "wilcoxon": lambda one, truth: paired_tests.wilcoxon_test(one, one),
    "mrmc": lambda one, truth: auroc_tests.mrmc([[one, -one], [one, -one]], truth),
    "mrmc of fixed readers": lambda one, truth: auroc_tests.mrmc([[one, -one], [one, -one]], truth, readers="fixed"),
}


@pytest.mark.parametrize("test", TESTS.values(), ids=TESTS)
def test_identical_models_differ_by_nothing_with_a_p_of_1(test):
    first, _, positive = simulated(7)
    found = test(first, positive)
    assert (found.difference, found.p) == (0, 1)


def test_areas_without_any_variance_have_no_p_at_all():
    positive = np.arange(20) < 10
    found = auroc_tests.delong(-1.0 * positive, positive, positive)
    assert (found.difference, found.low) == (1, None) and np.isnan(found.p)
    assert paired_tests.permutation_test(-1.0 * positive, positive, positive).p < 0.001


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: auroc_tests.delong([1, 2], [1, 2], [True, True]), "all cases are alike"),
        (
            lambda: auroc_tests.delong([1, np.nan], [1, 2], [True, False]),
            "NaN or an infinite number in `first` or `second`",
        ),
        (lambda: auroc_tests.delong([1, 2, 3], [1, 2], [True, False]), "3,.* and .2,.* cases"),
        (lambda: paired_tests.mcnemar_test([0.5, 1], [0, 1]), "neither right nor wrong"),
        (lambda: testing.holm([0.1, 1.2]), "outside 0..1"),
        (lambda: testing.benjamini_hochberg([[0.1], [0.2]]), "not in a row"),
        (lambda: auroc_tests.delong([1, 2], [1, 2], [True, False], ["a"]), "1,.* patients for 2 cases"),
        (lambda: paired_tests.permutation_test([1, 2], [1]), "same cases in the same order"),
        (lambda: auroc_tests.mrmc(np.full((2, 3, 4), np.nan), [0, 1, 0, 1]), "every reader reads every case"),
        (lambda: auroc_tests.mrmc(np.zeros((3, 3, 4)), [0, 1, 0, 1]), "every reader reads every case"),
        (lambda: raters.icc([[1], [2]]), "at least two of each"),
        (lambda: raters.icc([[3, 3], [3, 3], [3, 3]]), "all ratings are 3"),
        (lambda: probability_tests.net_benefit([0.2, 1.2], [0, 1], [0.5]), "outside 0..1"),
        (lambda: probability_tests.net_benefit([0.2, 0.7], [0, 1], [1.0]), "below 1"),
        (
            lambda: probability_tests.net_benefit([0.2, 0.7], [0, 1, 1], [0.5]),
            "2,.* probabilities for .3,.* references",
        ),
        (lambda: margins.non_inferiority(paired_tests.mcnemar_test([1, 0], [1, 1]), -0.1), "Give a number above 0"),
        (
            lambda: margins.equivalence(paired_tests.mcnemar_test([1, 0], [1, 1]), 0),
            "0 is not a valid margin. Give a number above 0",
        ),
    ],
)
def test_what_cannot_be_tested_is_refused(call, says):
    with pytest.raises(UsageError, match=says):
        call()


def test_a_margin_is_kept_where_the_whole_interval_lies_within_it():
    first, second, positive = simulated(2, 400)
    test = auroc_tests.delong(first, second, positive)
    edge = test.difference - test.low
    assert margins.non_inferiority(test, edge - test.difference).p == pytest.approx(0.025)
    assert margins.non_inferiority(test, 1.0).p < 1e-6
    assert margins.non_inferiority(test, max(-test.low, 1e-9), more=True).p <= 0.0251
    far = max(-test.low, test.high)
    assert margins.equivalence(test, far).p == pytest.approx(0.025)
    assert margins.equivalence(test, far / 2).p > 0.025
    errors = margins.non_inferiority(test, max(test.high, 1e-9), more=False)
    assert errors.p <= 0.0251
    assert np.isnan(margins.non_inferiority(auroc_tests.delong(first, first, positive), 0.1).p)


def uneven(difference: float, low: float, high: float) -> DifferenceTest:
    return DifferenceTest(difference, low, high, 0.0, 1.0, "an interval")


def test_a_margin_within_the_longer_half_of_an_uneven_interval_is_not_kept():
    # The worse end is -.051, which is beyond the margin although half of the interval's width is not.
    assert margins.non_inferiority(uneven(-0.02, -0.051, 0.0), 0.05).p == pytest.approx(0.0289, abs=1e-4)
    assert margins.equivalence(uneven(0.02, 0.0, 0.051), 0.05).p > 0.025
    correct = np.arange(100) < 80
    calls = paired_tests.mcnemar_test(correct, correct ^ (np.arange(100) % 11 == 0))
    assert calls.difference - calls.low > calls.high - calls.difference
    assert margins.non_inferiority(calls, -calls.low).p == pytest.approx(0.025)
    tailed, kept = np.random.default_rng(1).random((2, 60)) ** 9, Resampling(keeps_draws=True)
    errors = paired_tests.paired_bootstrap(*(intervals.bootstrap(one, np.arange(60), seed=kept) for one in tailed))
    assert abs(errors.high + errors.low - 2 * errors.difference) > 0.001
    assert margins.non_inferiority(errors, errors.high, more=False).p == pytest.approx(0.025)


@settings(max_examples=20)
@given(st.integers(6, 10), SEEDS)
def test_the_interval_of_means_holds_0_just_where_the_exchanges_show_no_difference(patients, seed):
    owner = np.append(np.arange(patients), np.random.default_rng(seed).integers(patients, size=patients))
    first, second = np.random.default_rng(seed).normal([[0.0], [0.8]], 1, (2, 2 * patients))
    found = paired_tests.permutation_test(first, second, None, owner)
    assert (found.low <= 0 <= found.high) == (found.p > 0.05)
    moved = paired_tests.permutation_test(
        first + found.low - 1e-6, second, None, owner
    )  # just beyond what is not refused
    assert moved.p <= 0.05 and paired_tests.permutation_test(first + found.difference, second, None, owner).p > 0.5


def test_of_five_patients_or_of_all_that_differ_alike_means_have_no_interval():
    five, alike = (
        paired_tests.permutation_test(np.zeros(5), np.arange(1.0, 6.0)),
        paired_tests.permutation_test(np.zeros(20), np.full(20, 0.1)),
    )
    assert five.low is alike.low is None and five.p == 2 / 2**5
    assert "no interval of so few patients, or of all alike" in five.method


@pytest.mark.parametrize(("gained", "lost"), [(12, 2), (0, 0), (1, 9), (0, 5)])
def test_the_ends_of_the_interval_of_calls_are_where_the_likeliest_shares_are_just_refused(gained, lost):
    """Tango's statistic, with the likelihood of the shares that differ by the end looked up on a fine grid."""
    cases = 50
    first, second = np.ones(cases), np.ones(cases)
    first[:gained], second[gained : gained + lost] = 0, 0
    found = paired_tests.mcnemar_test(first, second)
    for end, side in ((found.low, 1), (found.high, -1)):
        only_first = np.linspace(max(0.0, -end), (1 - end) / 2, 200_001)[1:-1]
        alike, only_second = 1 - 2 * only_first - end, only_first + end
        likelihood = gained * np.log(only_second) + lost * np.log(only_first) + (cases - gained - lost) * np.log(alike)
        likeliest = only_first[likelihood.argmax()]
        variance = cases * (2 * likeliest + end * (1 - end))
        assert side * (gained - lost - cases * end) / variance**0.5 == pytest.approx(1.96, abs=2e-3)


def test_calls_of_patients_given_twice_have_the_interval_of_the_patients():
    first, second = np.random.default_rng(0).random((2, 40)) < 0.8
    once, owner = paired_tests.mcnemar_test(first, second), np.repeat(np.arange(40), 2)
    twice = paired_tests.mcnemar_test(np.repeat(first, 2), np.repeat(second, 2), owner)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high), abs=0.01)


def test_the_interval_of_areas_is_delongs_of_many_patients_and_absent_at_a_perfect_area():
    first, second, positive = simulated(3, 2000)
    found, plain = (
        paired_tests.permutation_test(first, second, positive, draws=99),
        auroc_tests.delong(first, second, positive),
    )
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=2e-3)
    other = paired_tests.permutation_test(second, first, positive, draws=99)
    assert (-other.high, -other.low) == pytest.approx((found.low, found.high))
    perfect = paired_tests.permutation_test(positive * 1.0, first, positive)
    assert perfect.low is None and "an AUROC of 0 or 1 has no interval" in perfect.method and perfect.p < 0.05


@pytest.mark.parametrize("patients", [7, 49, 50])
def test_no_margin_is_tested_by_an_interval_that_needs_more_patients(patients):
    first, second = np.random.default_rng(1).beta(8.5, 1.5, (2, patients))
    test = paired_tests.permutation_test(first, second)
    found = margins.non_inferiority(test, 0.9), margins.equivalence(test, 0.9)
    if patients < 50:
        assert np.isnan([one.p for one in found]).all()
        assert all(f"from 50 patients on, and these are {patients}" in one.method for one in found)
    else:
        assert all(one.p < 0.025 for one in found)
    score, truth = np.arange(100.0) % 37, np.arange(100) % 3 == 0
    assert "from 400 patients on" in margins.non_inferiority(auroc_tests.delong(score, -score, truth), 0.9).method


def test_ranks_test_no_margin_of_means():
    ranks = paired_tests.wilcoxon_test(*np.random.default_rng(1).beta(8.5, 1.5, (2, 60)))
    for test in (margins.non_inferiority, margins.equivalence):
        with pytest.raises(UsageError, match=r"pseudomedian .* a margin of the difference of the means"):
            test(ranks, 0.9)
    assert "pseudomedian" in margins.reason_against_margins(ranks)


@pytest.mark.parametrize("worst", [0.0, 1.0])
def test_a_margin_of_means_needs_the_interval_with_one_further_patient_who_fails(worst):
    first, second = np.abs(worst - np.random.default_rng(1).beta(8.5, 1.5, (2, 100)))
    test = paired_tests.permutation_test(first, second, worst=worst)
    # By hand: the worst value in the second model, the mean in the first; and the other way about.
    failing = [stats.ttest_1samp(np.append(second - first, loss), 0).confidence_interval()
               for loss in (worst - first.mean(), second.mean() - worst)]  # fmt: skip
    assert test.margin_ends == pytest.approx((min(one.low for one in failing), max(one.high for one in failing)))
    low, high = margins.margin_interval(test)
    assert low < test.low < test.high < high and "100 patients without a failure" in test.margin_method
    worse = high if worst else -low
    kept = [margins.non_inferiority(test, margin, more=not worst).p < 0.025 for margin in (worse - 1e-6, worse + 1e-6)]
    assert kept == [False, True] and "failures in 3 % (3/n)" in test.margin_method
    assert [margins.equivalence(test, max(high, -low) + by).p < 0.025 for by in (-1e-6, 1e-6)] == [False, True]


def test_without_a_worst_value_the_further_patient_differs_as_the_farthest_and_clusters_count_once():
    first, second = np.random.default_rng(2).normal(size=(2, 60))
    alone, owner = paired_tests.permutation_test(first, second), np.repeat(np.arange(60), 2)
    far = np.abs(second - first).max()
    ends = [stats.ttest_1samp(np.append(second - first, one), 0).confidence_interval() for one in (-far, far)]
    assert alone.margin_ends[0] <= ends[0].low + 1e-12 and alone.margin_ends[1] >= ends[1].high - 1e-12
    assert "no worst value" in alone.margin_method
    twice = paired_tests.permutation_test(np.repeat(first, 2), np.repeat(second, 2), None, owner)
    assert twice.margin_ends == pytest.approx(alone.margin_ends)


@pytest.mark.whole
def test_a_model_that_is_worse_by_the_margin_is_seldom_called_non_inferior():
    """2.5 % is asked for, of AUROCs .95 and .90; DeLong's own interval says so of 7 %."""
    shown, positive = 0, np.arange(40) < 12
    for seed in range(200):
        common, *own = np.random.default_rng(seed).normal(size=(3, 40)) * 0.5**0.5
        areas = stats.norm.ppf([0.95, 0.9]) * 2**0.5
        first, second = (common + one + area * positive for one, area in zip(own, areas, strict=True))
        shown += (
            margins.non_inferiority(paired_tests.permutation_test(first, second, positive, draws=19), 0.05).p < 0.025
        )
    assert shown <= 11  # beyond it by chance in 1 of 100 series of 200 studies


@settings(max_examples=50)
@given(st.tuples(*[st.floats(-1, 1)] * 3), st.floats(0, 1, exclude_min=True), st.booleans())
def test_a_margin_is_kept_by_p_exactly_where_the_interval_keeps_it(ends, margin, more):
    low, difference, high = sorted(ends)
    assume(high - low > 1e-6)
    worse = low if more else -high
    assume(abs(worse + margin) > 1e-6)
    found = margins.non_inferiority(uneven(difference, low, high), margin, more=more)
    assert (found.p < 0.025) == (worse > -margin)


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_is_never_below_p_nor_above_bonferroni_and_keeps_the_order(p):
    adjusted, found = testing.holm(p), testing.benjamini_hochberg(p)
    assert all(own <= value <= min(1, len(p) * own) + 1e-12 for own, value in zip(p, adjusted, strict=True))
    assert np.all(np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0)
    assert np.all(found <= adjusted + 1e-12) and np.all(found >= np.array(p) - 1e-12)


def test_holm_of_three_is_as_worked_out_by_hand_and_what_has_no_p_counts_for_none():
    assert_allclose(testing.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    assert_allclose(testing.holm([0.01, np.nan, 0.04, 0.03]), [0.03, np.nan, 0.06, 0.06])


def test_the_net_benefit_is_as_worked_out_by_hand():
    """Of ten, four ill: three of them and two others reach .25, whose odds are a third."""
    chance, ill = [0.9, 0.5, 0.3, 0.1, 0.6, 0.4, 0.1, 0.1, 0.1, 0.1], [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert_allclose(probability_tests.net_benefit(chance, ill, [0.25]), [(3 - 2 / 3) / 10])
    assert_allclose(probability_tests.net_benefit(np.ones(10), ill, [0.0, 0.25]), [0.4, (4 - 6 / 3) / 10])
    twice = np.stack([np.ones(10), np.arange(10) < 4])
    assert_allclose(probability_tests.net_benefit(chance, ill, [0.25], twice)[:, 0], [(3 - 2 / 3) / 10, 3 / 4])


def test_a_decision_curve_is_the_net_benefit_and_its_interval_that_of_patients():
    random = np.random.default_rng(1)
    ill = random.random(300) < 0.3
    chance = 1 / (1 + np.exp(-(random.normal(size=300) + 2 * ill - 1.7)))
    curve = probability_tests.decision_curve(chance, ill, np.arange(300))
    assert_allclose(curve.value, probability_tests.net_benefit(chance, ill, curve.thresholds))
    assert_allclose(curve.treat_all, probability_tests.net_benefit(np.ones(300), ill, curve.thresholds), atol=1e-12)
    resampled = probability_tests.net_benefit(chance, ill, [0.3], random.multinomial(300, np.full(300, 1 / 300), 2000))
    assert_allclose([curve.low[29], curve.high[29]], np.quantile(resampled, [0.025, 0.975]), atol=0.01)
    low, high = curve.gains
    assert low < 0.1 and 0.4 < high < 0.95
    twice = probability_tests.decision_curve(np.repeat(chance, 2), np.repeat(ill, 2), np.repeat(np.arange(300), 2))
    assert_allclose(twice.low, curve.low, atol=1e-9)
    assert probability_tests.decision_curve(random.random(300), ill, np.arange(300)).gains is None


@pytest.mark.parametrize(("patients", "shown"), [(8, False), (800, True)])
def test_no_needless_call_among_a_few_patients_is_no_proof_that_there_are_none(patients, shown):
    ill = np.arange(2 * patients) % 2 == 1
    chance = np.where(ill, np.where(np.arange(2 * patients) % 4 == 1, 0.95, 0.5), 0.1)
    curve = probability_tests.decision_curve(chance, ill, np.arange(2 * patients), [0.9])
    assert curve.value == pytest.approx(0.25)
    # Of 8 patients without a needless call 37 % may still have one, and each costs 9 right calls.
    most = 1 - 0.025 ** (1 / patients)
    assert curve.low < curve.value - 9 * most / 2
    assert (curve.gains is not None) == shown


def test_nobody_missed_among_a_few_patients_is_no_proof_that_nobody_is():
    ill = np.arange(40) % 4 == 1
    chance = np.where(ill, 0.9, np.where(np.arange(40) % 4 == 0, 0.5, 0.1))  # some without it are called, so that
    assert (
        probability_tests.decision_curve(chance, ill, np.arange(40), [0.15]).gains is None
    )  # each of them costs little, and is seen
    many = np.tile(ill, 40)
    assert probability_tests.decision_curve(np.tile(chance, 40), many, np.arange(len(many)), [0.15]).gains == (
        0.15,
        0.15,
    )


def test_probabilities_that_are_right_fit_and_those_twice_as_sure_do_not():
    random = np.random.default_rng(0)
    chance = random.uniform(0.05, 0.95, 2000)
    happened = random.random(2000) < chance
    assert probability_tests.hosmer_lemeshow(chance, happened).p > 0.01
    odds = 2 * np.log(chance / (1 - chance))
    assert probability_tests.hosmer_lemeshow(1 / (1 + np.exp(-odds)), happened).p < 1e-6
    assert "8 degrees" in probability_tests.hosmer_lemeshow(chance, happened, is_fitted=True).method


def test_raters_who_agree_have_a_correlation_of_1_whatever_the_form():
    ratings = np.repeat(np.arange(6.0)[:, None], 3, axis=1)
    for form in ("1", "2", "3", "1k", "2k", "3k"):
        assert raters.icc(ratings, form).difference == pytest.approx(1)
    shifted = ratings + np.array([0, 5, 10])
    assert raters.icc(shifted, "3").difference == pytest.approx(1)
    assert raters.icc(shifted, "2").difference < 0.5


@pytest.mark.parametrize(
    "ratings",
    [
        [[1, 2], [2, 1], [1, 2], [2, 1]],
        [[1, 2], [2, 1], [1, 2.2], [2, 1], [1.5, 1.6]],
        [[1, 3], [3, 1], [2, 2.1]],
    ],
)
@pytest.mark.parametrize("form", ["1", "2", "3", "1k", "2k", "3k"])
def test_raters_who_contradict_each_other_have_no_agreement_above_1_nor_an_interval_without_one(ratings, form):
    found = raters.icc(ratings, form)
    if np.isnan(found.difference):
        assert form.endswith("k") and found.low is None and "their mean has none" in found.method
    else:
        assert found.difference < 0 and (form.endswith("k") or found.difference >= -1)
        assert found.low is None or found.low <= found.high < 1
    first, second = np.array(ratings, dtype=float).T
    assert -1 <= regression.absolute_agreement(first, second) < 0


def test_only_groups_with_cases_are_degrees_of_freedom():
    found = probability_tests.hosmer_lemeshow([0.1, 0.3, 0.5, 0.7, 0.9], [0, 0, 1, 0, 1])
    assert "5 groups; chi-squared with 5 degrees" in found.method
    assert found.p == pytest.approx(stats.chi2.sf(found.statistic, 5))


def test_why_an_auroc_has_no_interval_is_said_as_it_is():
    truth = np.arange(30) == 4
    found = paired_tests.permutation_test(np.arange(30) % 11, np.arange(30) % 7, truth)
    assert found.low is None and "one patient who has it, or one who has not, has no interval" in found.method
    perfect = paired_tests.permutation_test(np.arange(30) % 11, truth + 0.0, truth)
    assert "an AUROC of 0 or 1 has no interval" in perfect.method


def test_the_mean_over_readers_and_cases_holds_the_truth_as_often_as_it_states():
    random, held = np.random.default_rng(0), 0
    for _ in range(300):
        effects = random.normal(0, 0.1, (6, 1)) + random.normal(0, 0.3, (1, 40)) + random.normal(0, 0.5, (6, 40))
        found = raters.mean_over_raters(effects)
        held += found.low <= 0 <= found.high
    assert 0.92 <= held / 300 <= 0.99
    once = raters.mean_over_raters(effects)
    twice = raters.mean_over_raters(np.repeat(effects, 2, axis=1), np.repeat(np.arange(40), 2))
    assert twice.low == pytest.approx(once.low)
    assert raters.mean_over_raters(effects[:1]).low is None

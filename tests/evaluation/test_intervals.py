from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import beta, binomtest, norm, t

from hilum.errors import UsageError
from hilum.evaluation import biomarkers, calibration, classification, intervals, regression
from hilum.evaluation.classification import Confusion
from hilum.evaluation.fairness import shift_tests
from hilum.evaluation.intervals import CHUNK, Resampling
from hilum.evaluation.significance import paired_tests
from matrices import rarely


def scores_of(patients: int, images: int, seed: int = 0):
    random = np.random.default_rng(seed)
    person = random.normal(0.8, 0.1, patients)
    return (person[:, None] + random.normal(0, 0.01, (patients, images))).ravel(), np.repeat(
        np.arange(patients), images
    )


def test_the_value_is_the_mean_over_images():
    scores, patients = scores_of(20, 3)
    estimate = intervals.bootstrap(scores, patients, seed=0)
    assert estimate.value == pytest.approx(scores.mean())
    assert (estimate.n, estimate.patients, estimate.level) == (60, 20, 0.95)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.method == "patient bootstrap"


def test_for_many_patients_the_interval_is_that_of_the_normal_approximation():
    scores, patients = scores_of(400, 1)
    estimate = intervals.bootstrap(scores, patients, seed=0, draws=8000)
    half = 1.96 * scores.std(ddof=1) / np.sqrt(400)
    assert_allclose([estimate.low, estimate.high], [scores.mean() - half, scores.mean() + half], atol=0.1 * half)


def test_twenty_like_images_of_each_patient_do_not_narrow_the_interval():
    once, many = intervals.bootstrap(*scores_of(30, 1), seed=0), intervals.bootstrap(*scores_of(30, 20), seed=0)
    assert (many.high - many.low) > 0.8 * (once.high - once.low)
    images = intervals.bootstrap(scores_of(30, 20)[0], np.arange(600), seed=0)
    assert (many.high - many.low) > 3 * (images.high - images.low)


def test_draws_that_do_not_fit_at_once_make_one_interval():
    scores, patients = scores_of(5000, 1)
    assert 2 * CHUNK < 5000 * 2000
    estimate = intervals.bootstrap(scores, patients, seed=0)
    half = 1.96 * scores.std(ddof=1) / np.sqrt(5000)
    assert (estimate.high - estimate.low) / 2 == pytest.approx(half, rel=0.05)


def test_the_interval_of_few_patients_is_as_wide_as_that_of_student():
    scores, patients = scores_of(10, 1)
    estimate = intervals.bootstrap(scores, patients, seed=0, draws=8000)
    half = t.isf(0.025, 9) * scores.std(ddof=1) / np.sqrt(10)
    assert (estimate.high - estimate.low) / 2 == pytest.approx(half, rel=0.1)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    scores, patients = scores_of(20, 2)
    assert intervals.bootstrap(scores, patients, seed=1) == intervals.bootstrap(scores, patients, seed=1)
    assert intervals.bootstrap(scores, patients, seed=1).low != intervals.bootstrap(scores, patients, seed=2).low


def test_the_order_of_images_and_the_names_of_patients_do_not_matter_to_the_value():
    scores, patients = scores_of(20, 2)
    order = np.random.default_rng(3).permutation(40)
    names = np.array([f"patient {chr(97 + number)}" for number in patients])
    assert intervals.bootstrap(scores[order], names[order], seed=0).low == pytest.approx(
        intervals.bootstrap(scores, patients, seed=0).low
    )


def test_undefined_scores_are_left_out_and_counted():
    scores, patients = scores_of(20, 1)
    scores[:3] = np.nan
    estimate = intervals.bootstrap(scores, patients, seed=0)
    assert (estimate.value, estimate.n, estimate.patients) == (pytest.approx(scores[3:].mean()), 17, 17)
    assert "3 undefined left out" in estimate.method


def test_without_any_defined_score_there_is_no_estimate():
    estimate = intervals.bootstrap([np.nan, np.nan], [1, 2], seed=0)
    assert np.isnan(estimate.value)
    assert (estimate.low, estimate.n, estimate.method) == (None, 0, "none: no defined score; 2 undefined left out")
    assert intervals.bootstrap([], [], seed=0).method == "none: no defined score"


def test_one_patient_gives_no_interval():
    estimate = intervals.bootstrap([0.5, 0.7], ["a", "a"], seed=0)
    assert (estimate.value, estimate.low, estimate.high) == (0.6, None, None)
    assert estimate.method == "none: one patient"


def test_below_ten_patients_the_interval_is_marked_unreliable():
    assert "unreliable: 7 patients" in intervals.bootstrap(*scores_of(7, 2), seed=0).method
    assert "unreliable" not in intervals.bootstrap(*scores_of(10, 2), seed=0).method


@pytest.mark.parametrize("perfect", [0.0, 1.0])
def test_perfect_scores_get_the_exact_bound_of_as_many_patients(perfect):
    estimate = intervals.bootstrap(np.full(60, perfect), np.repeat(np.arange(30), 2), seed=0)
    bound = 0.025 ** (1 / 30)
    assert (estimate.low, estimate.high) == pytest.approx((bound, 1.0) if perfect else (0.0, 1 - bound))
    assert estimate.method == "exact (Clopper-Pearson), by patient"


def test_equal_scores_that_are_not_perfect_get_no_interval():
    assert intervals.bootstrap([0.5] * 20, range(20), seed=0).low is None
    assert intervals.bootstrap([0.0] * 20, range(20), seed=0, unit="mm").method == "none: all draws are equal"
    assert intervals.bootstrap([0.0] * 20, range(20), seed=0, exact=False).method == "none: all draws are equal"


def test_a_score_without_its_patient_is_refused():
    with pytest.raises(UsageError, match="one patient"):
        intervals.bootstrap([0.1, 0.2], ["a"], seed=0)


def labelled(n: int, share: float, seed: int = 0):
    random = np.random.default_rng(seed)
    positive = np.arange(n) < share * n
    return random.normal(positive * 1.5, 1), positive


def test_the_interval_of_an_auroc_is_that_of_delong():
    scores, positive = labelled(400, 0.3)
    how = {"strata": positive, "seed": 0, "compares": True}
    estimate = intervals.bootstrap_statistic(partial(classification.auroc, scores, positive), np.arange(400), **how)
    wins = scores[positive][:, None] > scores[~positive][None]
    # DeLong et al., Biometrics 1988: the variance of the placements of both classes
    error = np.sqrt(wins.mean(axis=1).var(ddof=1) / 120 + wins.mean(axis=0).var(ddof=1) / 280)
    assert estimate.value == wins.mean()
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * error, rel=0.05)


@pytest.mark.whole
def test_the_interval_of_a_high_auroc_holds_the_truth_and_misses_on_both_sides():
    """Of these 200 studies of 100 people percentiles miss 23, 21 of them too high."""
    truth, positive, missed = 0.97, np.arange(100) < 30, {"below": 0, "above": 0}
    for study in range(200):
        scores = np.random.default_rng(study).normal(positive * np.sqrt(2) * norm.ppf(truth), 1)
        how = {"strata": positive, "seed": 0, "compares": True, "draws": 300}
        estimate = intervals.bootstrap_statistic(partial(classification.auroc, scores, positive), np.arange(100), **how)
        missed["below"] += estimate.high < truth
        missed["above"] += estimate.low > truth
    assert max(missed.values()) <= 10, missed
    assert sum(missed.values()) <= 15, missed


def test_of_two_classes_either_as_the_positive_one_has_the_same_interval():
    random = np.random.default_rng(4)
    positive = random.random(40) < 0.3
    scores = random.normal(size=40) + positive
    first, second = (
        intervals.bootstrap_statistic(
            partial(classification.auroc, sign * scores, which), np.arange(40), strata=which, seed=0, compares=True
        )
        for sign, which in ((1, positive), (-1, ~positive))
    )
    assert_allclose([second.value, second.low, second.high], [first.value, first.low, first.high], rtol=1e-12)


def test_every_draw_holds_every_class_when_resampled_by_class():
    scores, positive = labelled(60, 0.05)
    unstratified = intervals.bootstrap_statistic(partial(classification.auroc, scores, positive), np.arange(60), seed=0)
    stratified = intervals.bootstrap_statistic(
        partial(classification.auroc, scores, positive), np.arange(60), strata=positive, seed=0
    )
    assert "draws undefined" in unstratified.method
    assert "draws undefined" not in stratified.method
    assert "unreliable: 3 patients in the smallest group" in stratified.method


def test_patients_with_images_of_both_classes_are_resampled_whole():
    positive = np.tile([True, False], 20)
    seen = []

    def statistic(weights):
        seen.append(weights)
        return weights[:, positive].sum(axis=1) / weights.sum(axis=1) + weights[:, 0] / 100

    intervals.bootstrap_statistic(statistic, np.repeat(np.arange(20), 2), strata=positive, seed=0, draws=50)
    weights = np.concatenate(seen[1:])
    assert weights.shape == (50, 40)
    assert (weights[:, ::2] == weights[:, 1::2]).all()
    assert (weights.sum(axis=1) == 40).all()


def test_a_perfect_auroc_is_bounded_by_the_smaller_class():
    positive = np.arange(50) < 12
    estimate = intervals.bootstrap_statistic(
        partial(classification.auroc, positive, positive), np.arange(50), strata=positive, seed=0
    )
    assert (estimate.value, estimate.low, estimate.high) == (1.0, pytest.approx(0.025 ** (1 / 12)), 1.0)


def test_a_perfect_correlation_has_no_exact_bound():
    truth = np.arange(50) % 2

    def mcc(weights):
        return Confusion.from_calls(truth, truth, weights=weights).mcc

    assert intervals.bootstrap_statistic(mcc, np.arange(50), strata=truth, seed=0, exact=False).low is None


def test_a_figure_that_is_not_defined_has_no_interval():
    estimate = intervals.bootstrap_statistic(partial(classification.auroc, [0.1, 0.2], [True, True]), [1, 2], seed=0)
    assert np.isnan(estimate.value)
    assert estimate.method == "none: undefined for these cases"


def test_the_mean_as_a_statistic_is_the_mean_bootstrapped():
    scores, patients = scores_of(25, 3)

    def mean(weights):
        return weights @ scores / weights.sum(axis=-1)

    assert intervals.bootstrap_statistic(mean, patients, seed=4).low == pytest.approx(
        intervals.bootstrap(scores, patients, seed=4).low
    )


@given(st.integers(1, 200), st.data())
def test_wilson_and_clopper_pearson_agree_with_scipy(n, data):
    successes = data.draw(st.integers(0, n))
    exact = binomtest(successes, n).proportion_ci(0.95, "exact")
    ours = intervals.clopper_pearson(successes, n)
    assert_allclose([ours.low, ours.high], [exact.low, exact.high], atol=1e-9)
    score = exact if successes in (0, n) else binomtest(successes, n).proportion_ci(0.95, "wilson")
    assert_allclose(
        [intervals.wilson(successes, n).low, intervals.wilson(successes, n).high], [score.low, score.high], atol=1e-9
    )


def test_impossible_counts_are_refused():
    for successes, n in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(UsageError, match="0 <= successes"):
            intervals.wilson(successes, n)


@pytest.mark.parametrize("level", [95, 1, 0, -0.1, float("nan")])
def test_a_level_that_is_no_share_is_refused(level):
    for estimate in (
        lambda: intervals.wilson(3, 9, level=level),
        lambda: intervals.clopper_pearson(3, 9, level=level),
        lambda: intervals.median(np.arange(20.0), np.arange(20), level=level),
        lambda: biomarkers.repeatability([1.0, 2.0, 3.0], [1.1, 2.0, 3.0], level=level),
    ):
        with pytest.raises(UsageError, match="no level of an interval"):
            estimate()


@pytest.mark.parametrize("draws", [0, -5])
def test_an_interval_or_a_test_without_draws_is_refused(draws):
    scores, patients, truths = np.linspace(0.1, 0.9, 12), np.arange(12), np.arange(12) % 2
    for estimate in (
        lambda: intervals.bootstrap(scores, patients, seed=0, draws=draws),
        lambda: Resampling(0, draws=draws),
        lambda: paired_tests.permutation_test(scores, scores[::-1], draws=draws),
        lambda: shift_tests.energy_test(scores[:6, None], scores[6:, None], seed=0, draws=draws),
        lambda: calibration.calibration_error(scores, truths, patients, seed=0, draws=draws),
    ):
        with pytest.raises(UsageError, match="random draws"):
            estimate()


def test_the_median_lies_between_order_statistics_that_hold_it_often_enough():
    estimate = intervals.median(np.arange(1.0, 21.0), np.arange(20), unit="mm")
    assert (estimate.value, estimate.low, estimate.high) == (10.5, 6.0, 15.0)  # tabulated for n = 20
    assert estimate.unit == "mm"


def test_the_median_of_few_or_of_several_scores_a_patient_has_no_interval():
    assert "too few" in intervals.median([1.0, 2.0, 3.0], [1, 2, 3]).method
    assert "several scores" in intervals.median(np.arange(20.0), np.arange(20) // 2).method
    assert np.isnan(intervals.median([np.nan], [1]).value)


def test_the_beta_quantile_behind_the_exact_bound_is_the_rule_of_three():
    assert 1 - intervals.clopper_pearson(100, 100, level=0.9).low == pytest.approx(3 / 100, rel=0.02)
    assert intervals.clopper_pearson(3, 10).low == pytest.approx(beta.ppf(0.025, 3, 8))


def test_a_share_of_independent_images_gets_the_interval_of_wilson():
    right = np.arange(40) < 30
    assert intervals.proportion(right, np.arange(40), seed=0) == intervals.wilson(30, 40)
    assert "unreliable: 8 patients" in intervals.proportion(right[-8:], np.arange(8), seed=0).method


def test_a_share_of_clustered_images_is_bootstrapped():
    right, patients = np.arange(40) % 3 > 0, np.arange(40) // 2
    assert intervals.proportion(right, patients, seed=0) == intervals.bootstrap(right, patients, seed=0)
    assert intervals.proportion([True], ["a"], seed=0).method == "none: one patient"


def two_folds(patients: int, shift: float, seed: int = 0):
    """Scores, truth, patients and {patient: fold} of two models of which the second calls everything higher."""
    random = np.random.default_rng(seed)
    truth = np.arange(patients) % 4 < 2
    fold = np.arange(patients) % 2
    scores = random.normal(size=patients) + 1.5 * truth + shift * fold
    return scores, truth, np.arange(patients), dict(enumerate(fold.tolist()))


def test_auroc_out_of_fold_is_the_mean_of_the_folds_and_not_that_of_all_scores_in_one_order():
    scores, truth, patients, folds = two_folds(200, shift=20.0)
    fold = np.array(list(folds.values()))
    each = [float(classification.auroc(scores[fold == one], truth[fold == one])) for one in (0, 1)]
    pooled = intervals.bootstrap_statistic(
        partial(classification.auroc, scores, truth), patients, strata=truth, seed=0, compares=True
    )
    within = Resampling(seed=0, models=folds)
    apart = intervals.bootstrap_statistic(
        partial(classification.auroc, scores, truth), patients, strata=truth, seed=within, compares=True
    )
    assert pooled.value < 0.75 and min(each) > 0.8  # what the shift hides
    assert apart.value == pytest.approx(np.mean(each))
    assert apart.low < apart.value < apart.high < 1
    assert "mean over 2 folds" in apart.method and "not of their mean" in apart.method


@given(st.floats(-50, 50))
def test_no_shift_of_a_folds_scores_changes_its_figure_or_interval(shift):
    scores, truth, patients, folds = two_folds(60, shift=0.0)
    moved = scores + shift * np.array(list(folds.values()))
    how = {"strata": truth, "seed": Resampling(seed=0, models=folds), "draws": 100, "compares": True}
    one, other = (
        intervals.bootstrap_statistic(partial(classification.auroc, given, truth), patients, **how)
        for given in (scores, np.round(moved, 9))
    )
    assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high))


def test_what_compares_no_scores_is_the_same_whoever_scored():
    scores, truth, patients, folds = two_folds(60, shift=0.3)

    def sensitivity(weights):
        return Confusion.from_calls(scores > 1, truth, 2, weights).sensitivity

    single = intervals.bootstrap_statistic(sensitivity, patients, strata=truth, seed=0)
    within = Resampling(seed=0, models=folds)
    assert intervals.bootstrap_statistic(sensitivity, patients, strata=truth, seed=within) == single


def test_a_fold_without_one_of_the_classes_is_left_out_and_counted():
    scores, truth, patients, folds = two_folds(60, shift=0.0)
    folds = {patient: 2 if patient < 6 and not truth[patient] else fold for patient, fold in folds.items()}
    within = Resampling(seed=0, models=folds)
    found = intervals.bootstrap_statistic(
        partial(classification.auroc, scores, truth), patients, strata=truth, seed=within, compares=True
    )
    assert "mean over 2 folds, undefined in 1 of 3" in found.method
    assert np.isfinite(found.value)


def test_within_two_folds_the_interval_is_as_wide_as_the_mean_of_two_independent_figures():
    scores, truth, patients, folds = two_folds(400, shift=5.0)
    fold = np.array(list(folds.values()))
    each = [
        intervals.bootstrap_statistic(
            partial(classification.auroc, scores[own], truth[own]), patients[own], strata=truth[own], seed=0
        )
        for own in (fold == 0, fold == 1)
    ]
    within = Resampling(seed=0, models=folds)
    both = intervals.bootstrap_statistic(
        partial(classification.auroc, scores, truth), patients, strata=truth, seed=within, compares=True
    )
    variance = sum((one.high - one.low) ** 2 for one in each) / 4
    assert both.high - both.low == pytest.approx(np.sqrt(variance), rel=0.1)


def test_a_figure_that_no_fold_has_is_undefined_and_says_so():
    scores, truth, patients, folds = two_folds(20, shift=0.0)
    auroc = partial(classification.auroc, scores, np.ones_like(truth))
    none = intervals.bootstrap_statistic(auroc, patients, seed=Resampling(seed=0, models=folds), compares=True)
    assert np.isnan(none.value) and "mean over 0 folds, undefined in 2 of 2" in none.method


def pairs(cases: int, true: float, seed: int = 0) -> np.ndarray:
    """(2, cases) normal values of such a correlation."""
    return (np.random.default_rng(seed).normal(size=(cases, 2)) @ np.linalg.cholesky([[1, true], [true, 1]]).T).T


@pytest.mark.parametrize(
    ("figure", "scale"), [(regression.pearson, "correlation"), (regression.spearman, "rank correlation")]
)
@pytest.mark.parametrize("true", [rarely(-0.6), rarely(0.0), 0.9])
def test_for_many_patients_the_interval_of_a_correlation_is_that_of_fishers_z(figure, scale, true):
    values = pairs(400, true)
    estimate = intervals.bootstrap_statistic(partial(figure, *values), np.arange(400), seed=0, exact=False, scale=scale)
    # Bonett and Wright, Psychometrika 2000, doi:10.1007/BF02294183, of ranks
    error = np.sqrt((1 + estimate.value**2 / 2 * (figure is regression.spearman)) / 397)
    middle = np.arctanh(estimate.value)
    assert_allclose(
        np.arctanh([estimate.low, estimate.high]), [middle - 1.96 * error, middle + 1.96 * error], atol=0.02
    )
    assert estimate.method == "patient bootstrap, Fisher's z"
    mirrored = intervals.bootstrap_statistic(
        partial(figure, values[0], -values[1]), np.arange(400), seed=0, exact=False, scale=scale
    )
    assert (mirrored.low, mirrored.high) == pytest.approx((-estimate.high, -estimate.low))


@pytest.mark.parametrize("scale", ["correlation", "rank correlation"])
@pytest.mark.parametrize("people", [3, 4, 5, 8])
def test_a_correlation_of_few_people_is_little_known_though_most_draws_hold_two_of_them(scale, people):
    figure = partial(regression.pearson if scale == "correlation" else regression.spearman, *pairs(people, 0.5, seed=3))
    estimate = intervals.bootstrap_statistic(figure, range(people), seed=0, exact=False, scale=scale)
    assert -1 <= estimate.low < estimate.value < estimate.high <= 1
    assert estimate.high - estimate.low > 0.8
    assert "unreliable" in estimate.method


def test_a_correlation_within_folds_is_their_mean_with_fishers_z():
    values = pairs(80, 0.7)
    fold = np.arange(80) % 2
    each = [float(regression.pearson(*values[:, fold == one])) for one in (0, 1)]
    within, how = Resampling(seed=0, models=dict(enumerate(fold.tolist()))), {"exact": False, "compares": True}
    estimate = intervals.bootstrap_statistic(
        partial(regression.pearson, values[0] + 9 * fold, values[1]), range(80), seed=within, scale="correlation", **how
    )
    assert estimate.value == pytest.approx(np.mean(each))
    assert "Fisher's z; mean over 2 folds" in estimate.method


def test_a_figure_outside_of_its_scale_is_refused():
    low, high = pairs(40, -0.5), pairs(40, 0.0)
    with pytest.raises(UsageError, match=r"on the scale of a share, 0 to 1"):
        intervals.bootstrap_statistic(partial(regression.pearson, *low), range(40), seed=0, compares=True)
    with pytest.raises(UsageError, match=r"on the scale of a share, 0 to 1"):  # some draws are below 0
        intervals.bootstrap_statistic(partial(regression.pearson, *high), range(40), seed=0, scale="share")
    with pytest.raises(UsageError, match=r"on the scale of a correlation, -1 to 1"):
        intervals.bootstrap_statistic(
            lambda weights: 3 * regression.pearson(*low, weights), range(40), seed=0, scale="correlation"
        )


def test_pairs_count_by_the_product_of_both_patients_draws() -> None:
    """Pairs that share a patient are alike: as pairs of patients of their own the interval would be too narrow."""
    effect = np.random.default_rng(0).normal(size=12)
    ends = [(a, b) for a in range(12) for b in range(12) if a != b]
    scores = [effect[a] + effect[b] for a, b in ends]
    estimate = intervals.bootstrap(scores, [f"p{a} & p{b}" for a, b in ends], seed=0, unit="mm")
    alone = intervals.bootstrap(scores, [str(n) for n in range(len(ends))], seed=0, unit="mm")
    assert estimate.patients == 12
    assert estimate.value == pytest.approx(np.mean(scores))
    assert "pigeonhole" in estimate.method
    assert estimate.high - estimate.low > 2 * (alone.high - alone.low)

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn import metrics

from hilum.errors import UsageError
from hilum.evaluation import calibration, classification
from hilum.evaluation.classification import Confusion

warnings.filterwarnings("ignore", module="sklearn")


@st.composite
def scored(draw, classes: int = 2):
    """Scores with many ties, truths that hold every class, and how often each image counts."""
    n = draw(st.integers(2 * classes, 30))
    scores = draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))
    truths = [*range(classes), *draw(st.lists(st.integers(0, classes - 1), min_size=n - classes, max_size=n - classes))]
    weights = draw(st.lists(st.integers(1, 4), min_size=n, max_size=n))
    return np.array(scores) / 6, np.array(truths), np.array(weights, dtype=float)


@given(scored())
def test_the_auroc_is_the_share_of_pairs_in_the_right_order(case):
    scores, truths, _ = case
    yes, no = scores[truths == 1][:, None], scores[truths == 0][None]
    assert classification.auroc(scores, truths) == pytest.approx(((yes > no) + (yes == no) / 2).mean())


@given(scored())
def test_weighted_figures_of_scores_are_those_of_scikit_learn(case):
    scores, truths, weights = case
    assert classification.auroc(scores, truths, weights) == pytest.approx(
        metrics.roc_auc_score(truths, scores, sample_weight=weights)
    )
    precision = metrics.average_precision_score(truths, scores, sample_weight=weights)
    assert classification.average_precision(scores, truths, weights) == pytest.approx(precision)
    loss = metrics.brier_score_loss(truths, scores, sample_weight=weights)
    assert classification.brier(scores, truths, weights) == pytest.approx(loss)
    clipped = np.clip(scores, 2**-23, 1 - 2**-23)
    assert classification.log_loss(scores, truths, weights) == pytest.approx(
        metrics.log_loss(truths, clipped, sample_weight=weights)
    )


@given(scored())
def test_a_weight_of_two_is_the_image_twice(case):
    scores, truths, weights = case
    times = weights.astype(int)
    for figure in (
        classification.auroc,
        classification.average_precision,
        classification.brier,
        classification.log_loss,
        classification.ece,
    ):
        repeated = figure(np.repeat(scores, times), np.repeat(truths, times))
        assert figure(scores, truths, weights) == pytest.approx(repeated)


@given(scored())
def test_several_weightings_give_one_figure_each(case):
    scores, truths, weights = case
    both = np.stack([weights, np.ones_like(weights)])
    for figure in (
        classification.auroc,
        classification.average_precision,
        classification.brier,
        classification.log_loss,
        classification.ece,
    ):
        assert_allclose(figure(scores, truths, both), [figure(scores, truths, weights), figure(scores, truths)])
    called = scores > 0.5
    stacked = Confusion.from_calls(called, truths, weights=both)
    for name in ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "ppv", "npv", "f1", "mcc", "kappa"):
        single = [getattr(Confusion.from_calls(called, truths, weights=each), name) for each in both]
        assert_allclose(getattr(stacked, name), single)


@given(scored())
def test_the_area_under_the_curve_through_the_points_is_the_auroc(case):
    scores, truths, _ = case
    wrong, found, thresholds = classification.roc_curve(scores, truths)
    assert np.trapezoid(found, wrong) == pytest.approx(classification.auroc(scores, truths))
    for x, y, threshold in zip(wrong, found, thresholds, strict=True):
        counts = Confusion.from_calls(scores >= threshold, truths)
        assert (1 - counts.specificity, counts.sensitivity) == pytest.approx((x, y))


def test_infinite_scores_are_ties_like_any_other():
    assert classification.auroc([np.inf, np.inf, -np.inf, -np.inf], [1, 0, 1, 0]) == 0.5


def test_one_class_alone_has_no_auroc():
    assert np.isnan(classification.auroc([0.1, 0.9], [1, 1]))
    assert np.isnan(classification.average_precision([0.1, 0.9], [0, 0]))
    assert np.isnan(classification.auroc([0.1, 0.9], [0, 1], np.array([0.0, 1.0])))


@given(scored(classes=3))
def test_the_auroc_of_several_classes_is_the_unweighted_mean_against_the_rest(case):
    scores, truths, _ = case
    table = np.stack([scores, 0.7 * (1 - scores), 0.3 * (1 - scores)], axis=1)
    sure = metrics.roc_auc_score(truths, table, multi_class="ovr", average="macro")
    assert classification.one_against_rest(classification.auroc, table, truths) == pytest.approx(sure)


def test_the_auroc_of_two_classes_is_that_of_the_second():
    table = np.array([[0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    assert classification.one_against_rest(
        classification.average_precision, table, [0, 1, 1]
    ) == classification.average_precision(table[:, 1], [0, 1, 1])


def test_a_class_that_no_image_has_leaves_the_mean_undefined():
    assert np.isnan(classification.one_against_rest(classification.auroc, np.eye(3)[[0, 1, 1]], [0, 1, 1]))


@given(scored(), st.integers(1, 6))
def test_figures_at_an_operating_point_are_those_of_scikit_learn(case, threshold):
    scores, truths, weights = case
    called = scores >= threshold / 6
    ours, given_weights = Confusion.from_calls(called, truths, weights=weights), {"sample_weight": weights}
    assert (ours.counts == metrics.confusion_matrix(truths, called, **given_weights)).all()
    assert ours.accuracy == pytest.approx(metrics.accuracy_score(truths, called, **given_weights))
    assert ours.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(truths, called, **given_weights))
    assert ours.sensitivity == pytest.approx(metrics.recall_score(truths, called, **given_weights))
    assert ours.specificity == pytest.approx(metrics.recall_score(truths, called, pos_label=0, **given_weights))
    assert ours.f1 == pytest.approx(metrics.f1_score(truths, called, **given_weights))
    for name, label in (("ppv", 1), ("npv", 0)):
        if (called == label).any():
            sure = metrics.precision_score(truths, called, pos_label=label, **given_weights)
            assert getattr(ours, name) == pytest.approx(sure)
        else:
            assert np.isnan(getattr(ours, name))
    if 0 < called.sum() < len(called):
        assert ours.mcc == pytest.approx(metrics.matthews_corrcoef(truths, called, **given_weights), abs=1e-12)


@given(scored(classes=3))
def test_figures_of_several_classes_are_those_of_scikit_learn(case):
    scores, truths, weights = case
    called = np.floor(scores * 2.99).astype(int)
    ours = Confusion.from_calls(called, truths, 3, weights)
    assert (ours.counts == metrics.confusion_matrix(truths, called, labels=range(3), sample_weight=weights)).all()
    assert ours.balanced_accuracy == pytest.approx(
        metrics.balanced_accuracy_score(truths, called, sample_weight=weights)
    )
    assert ours.f1 == pytest.approx(metrics.f1_score(truths, called, average="macro", sample_weight=weights))
    if len(set(called)) > 1:
        sure = metrics.matthews_corrcoef(truths, called, sample_weight=weights)
        assert ours.mcc == pytest.approx(sure, abs=1e-12)


@given(scored(), st.integers(1, 6))
def test_predictive_values_at_the_prevalence_of_the_images_are_the_counted_ones(case, threshold):
    scores, truths, _ = case
    counts = Confusion.from_calls(scores >= threshold / 6, truths)
    assert counts.ppv_at(truths.mean()) == pytest.approx(counts.ppv, nan_ok=True)
    assert counts.npv_at(truths.mean()) == pytest.approx(counts.npv, nan_ok=True)


def test_a_good_test_of_a_rare_disease_is_mostly_wrong_when_it_calls():
    counts = Confusion.from_calls(np.arange(200) % 100 < np.where(np.arange(200) < 100, 90, 10), np.arange(200) < 100)
    assert (counts.sensitivity, counts.specificity) == (0.9, 0.9)
    assert counts.ppv_at(0.01) == pytest.approx(0.009 / (0.009 + 0.099))
    assert counts.npv_at(0.01) == pytest.approx(0.891 / (0.891 + 0.001))


def test_the_brier_score_of_several_classes_sums_over_them():
    table = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    assert classification.brier(table, [0, 1]) == pytest.approx(((0.25 + 0.09 + 0.04) + (0.01 + 0.81 + 0.64)) / 2)
    assert (
        classification.brier([[0.2, 0.8]], [1])
        == pytest.approx(classification.brier([0.8], [1]))
        == pytest.approx(0.04)
    )
    assert classification.log_loss(table, [0, 1]) == pytest.approx(-(np.log(0.5) + np.log(0.1)) / 2)


def test_a_probability_of_zero_for_the_truth_costs_much_but_not_infinitely_much():
    assert classification.log_loss([0.0], [1]) == pytest.approx(15.94, abs=0.01)


def test_calibration_error_worked_out_by_hand():
    chances, happened = [0.1, 0.1, 0.9, 0.9, 1.0], [0, 1, 1, 1, 1]
    # bin of 0.1: 0.1 against 0.5; bin of 0.9: 0.9 against 1; bin of 1: 0.9333 to 1, right
    assert classification.ece(chances, happened) == pytest.approx((2 * 0.4 + 2 * 0.1 + 1 * 0) / 5)
    assert classification.ece(chances, happened, bins=1) == pytest.approx(abs(0.6 - 0.8))


@given(scored(), st.integers(1, 20))
def test_the_points_of_the_reliability_diagram_add_up_to_the_calibration_error(case, bins):
    chances, truths, _ = case
    mean, frequency, counts = classification.reliability_bins(chances, truths, bins=bins)
    assert counts.sum() == len(chances)
    assert (np.abs(mean - frequency) * counts).sum() / len(chances) == pytest.approx(
        classification.ece(chances, truths, bins=bins)
    )


@pytest.mark.whole
def test_a_calibrated_model_has_the_calibration_error_that_chance_gives_it():
    random = np.random.default_rng(0)
    chances = random.random(300)
    found = [
        calibration.calibration_error(chances, random.random(300) < chances, range(300), seed=0).value
        for _ in range(200)
    ]
    estimate = calibration.calibration_error(chances, chances > 0.5, np.arange(300) // 2, seed=0)
    expected = float(estimate.method.split(" has ")[1].split()[0])
    assert expected == pytest.approx(np.mean(found), abs=0.003)
    assert estimate.value == pytest.approx(0.218, abs=0.02)  # the middle bin cancels
    assert (estimate.n, estimate.patients) == (300, 150)
    assert np.isnan(calibration.calibration_error([], [], [], seed=0).value)


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(UsageError, match="one truth"):
        classification.auroc([0.1, np.nan], [0, 1])
    with pytest.raises(UsageError, match="one truth"):
        classification.average_precision([0.1], [0, 1])
    with pytest.raises(UsageError, match="indices"):
        Confusion.from_calls([0, 2], [0, 1])
    with pytest.raises(UsageError, match="indices"):
        classification.brier([[0.5, 0.5]], [2])

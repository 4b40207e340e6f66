from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import metrics

from hilum.errors import UsageError
from hilum.evaluation import classification
from hilum.evaluation.classification import Confusion

warnings.filterwarnings("ignore", module="sklearn")


@st.composite
def graded(draw, grades: int = 4):
    """Grades by two readers, and how often each image counts."""
    n = draw(st.integers(4, 40))
    one, other = (draw(st.lists(st.integers(0, grades - 1), min_size=n, max_size=n)) for _ in range(2))
    weights = draw(st.lists(st.integers(1, 4), min_size=n, max_size=n))
    return np.array(one), np.array(other), np.array(weights, dtype=float)


@st.composite
def forecasts(draw, grades: int | None = None):
    """(images, grades) probabilities and the grades that it was."""
    count, n = grades or draw(st.integers(2, 6)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    return rng.dirichlet(np.ones(count), n), rng.integers(0, count, n)


@pytest.mark.parametrize(("power", "called"), [(1, "linear"), (2, "quadratic")])
@given(case=graded())
def test_the_weighted_kappa_is_that_of_scikit_learn(case, power, called):
    predicted, reference, weights = case
    counts = Confusion.from_calls(predicted, reference, 4, weights)
    found = classification.weighted_kappa(counts, classification.grade_distances(4, power))
    expected = metrics.cohen_kappa_score(
        reference, predicted, labels=range(4), weights=called, sample_weight=weights.astype(int)
    )
    assert_allclose(found, expected, atol=1e-12)


def test_a_kappa_worked_out_by_hand():
    # Two of four right, one missed by one grade and one by two: a squared cost of 5. By chance any is called any.
    counts = Confusion.from_calls([0, 1, 2, 0], [0, 1, 1, 2], 3)
    chance = sum((r - p) ** 2 for r in (0, 1, 1, 2) for p in (0, 1, 2, 0)) / 4
    assert classification.weighted_kappa(counts, classification.grade_distances(3, 2)) == pytest.approx(1 - 5 / chance)


def test_one_kappa_for_each_weighting_and_none_where_both_say_one_grade():
    weights = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    found = classification.weighted_kappa(
        Confusion.from_calls([0, 1, 2], [0, 2, 2], 3, weights), classification.grade_distances(3, 2)
    )
    assert found.shape == (2,)
    assert np.isfinite(found[0])
    assert np.isnan(found[1])


@given(forecasts(grades=2))
def test_of_two_grades_the_ranked_probability_score_is_the_brier_score(case):
    probabilities, reference = case
    assert_allclose(
        classification.ranked_probability_score(probabilities, reference),
        classification.brier(probabilities, reference),
    )


@given(forecasts())
def test_the_ranked_probability_score_is_the_mean_brier_score_of_being_above_each_grade(case):
    probabilities, reference = case
    above = [
        metrics.brier_score_loss(reference > k, probabilities[:, k + 1 :].sum(axis=1).clip(0, 1), pos_label=True)
        for k in range(probabilities.shape[1] - 1)
    ]
    assert_allclose(classification.ranked_probability_score(probabilities, reference), np.mean(above), atol=1e-12)


@given(forecasts())
def test_certainty_of_the_truth_scores_0_and_of_the_grade_farthest_away_1(case):
    probabilities, reference = case
    grades = probabilities.shape[1]
    assert classification.ranked_probability_score(np.eye(grades)[reference], reference) == 0
    assert classification.ranked_probability_score(np.eye(grades)[[0]], [grades - 1]) == pytest.approx(1)


def test_a_near_miss_scores_better_than_a_far_one():
    near, far = [[0.0, 1.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 1.0]]
    assert classification.ranked_probability_score(near, [0]) == pytest.approx(1 / 3)
    assert classification.ranked_probability_score(far, [0]) == pytest.approx(1.0)


@given(forecasts())
def test_costs_of_one_call_the_likeliest_class_and_distances_the_median_one(case):
    probabilities, _ = case
    grades = probabilities.shape[1]
    assert_array_equal(classification.least_cost_class(probabilities, 1 - np.eye(grades)), probabilities.argmax(axis=1))
    medians = (np.cumsum(probabilities, axis=1) >= 0.5).argmax(axis=1)
    assert_array_equal(classification.least_cost_class(probabilities, classification.grade_distances(grades)), medians)


@given(forecasts())
def test_squared_distances_call_the_grade_nearest_to_the_mean(case):
    probabilities, _ = case
    grades = probabilities.shape[1]
    means = probabilities @ np.arange(grades)
    assert_array_equal(
        classification.least_cost_class(probabilities, classification.grade_distances(grades, 2)), means.round()
    )


def test_a_dear_miss_is_avoided_though_it_is_unlikely():
    costs = [[0.0, 1.0], [20.0, 0.0]]  # to miss the second class costs twenty times as much
    assert classification.least_cost_class([[0.9, 0.1]], costs) == [1]
    assert classification.least_cost_class([[0.96, 0.04]], costs) == [0]


def test_costs_and_probabilities_of_other_shapes_are_refused():
    with pytest.raises(UsageError, match="one row and column per class"):
        classification.least_cost_class([[0.5, 0.5]], np.zeros((3, 3)))
    with pytest.raises(UsageError, match="images, grades"):
        classification.ranked_probability_score([0.5, 0.5], [0, 1])

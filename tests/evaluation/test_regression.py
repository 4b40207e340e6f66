from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats
from sklearn import metrics

from hilum.errors import UsageError
from hilum.evaluation import regression
from hilum.evaluation.significance import raters

FIGURES = (
    *(
        regression.mean_absolute_error,
        regression.root_mean_squared_error,
        regression.r2,
        regression.pearson,
        regression.spearman,
        regression.concordance_correlation,
        regression.mean_bias,
    ),
    regression.absolute_agreement,
)
# Few different values, so that ties are common.
numbers = st.integers(-20, 20).map(float)
pairs = st.lists(st.tuples(numbers, numbers), min_size=3, max_size=25)


def simulated(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    reference = rng.normal(50, 10, n)
    return reference + rng.normal(1, 4, n), reference


def test_figures_are_those_of_scikit_learn_and_scipy():
    predicted, reference = simulated()
    predicted[10:20] = predicted[10]  # ties
    assert regression.mean_absolute_error(predicted, reference) == pytest.approx(
        metrics.mean_absolute_error(reference, predicted)
    )
    found = regression.root_mean_squared_error(predicted, reference)
    assert found == pytest.approx(metrics.root_mean_squared_error(reference, predicted))
    assert regression.r2(predicted, reference) == pytest.approx(metrics.r2_score(reference, predicted))
    assert regression.pearson(predicted, reference) == pytest.approx(stats.pearsonr(predicted, reference).statistic)
    assert regression.spearman(predicted, reference) == pytest.approx(stats.spearmanr(predicted, reference).statistic)


def test_absolute_agreement_is_the_intraclass_correlation_of_two_raters():
    predicted, reference = simulated()
    both = raters.icc(np.stack([predicted, reference], axis=1), "2").difference
    assert regression.absolute_agreement(predicted, reference) == pytest.approx(both)


@given(pairs, st.data())
def test_to_count_a_case_twice_is_to_have_it_twice(found, data):
    predicted, reference = np.array(found).T
    counts = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(found), max_size=len(found))))
    if counts.sum() < 2:
        return
    twice = [np.repeat(values, counts) for values in (predicted, reference)]
    weights = counts[None].astype(float)
    for figure in (*FIGURES, lambda *given: regression.limits_of_agreement(*given)[0]):
        assert_allclose(figure(predicted, reference, weights)[0], figure(*twice), rtol=1e-9, atol=1e-9)


def test_the_correlation_of_values_that_are_nearly_equal_stays_between_its_ends():
    generator = np.random.default_rng(0)
    for _ in range(200):
        values = 0.5 + 1e-8 * generator.normal(size=6)
        assert -1 <= regression.pearson(values, 3 * values) <= 1
        assert -1 <= regression.pearson(values, -3 * values) <= 1


@given(pairs)
def test_concordance_is_correlation_less_what_scale_and_offset_take_away(found):
    predicted, reference = np.array(found).T
    agreeing, correlated = (
        regression.concordance_correlation(predicted, reference),
        regression.pearson(predicted, reference),
    )
    if np.isfinite(correlated):
        assert abs(agreeing) <= abs(correlated) + 1e-9
        assert agreeing * correlated >= -1e-9


def test_concordance_is_lins_for_numbers_worked_out_by_hand():
    # means 2 and 3, variances 2/3, covariance 2/3: 2 * 2/3 / (2/3 + 2/3 + 1)
    assert regression.concordance_correlation([1, 2, 3], [2, 3, 4]) == pytest.approx(4 / 7)
    assert regression.concordance_correlation([1, 2, 3], [1, 2, 3]) == pytest.approx(1)


def test_a_constant_offset_is_all_bias_and_its_limits_meet():
    predicted = np.array([3.0, 5.0, 9.0])
    low, high = regression.limits_of_agreement(predicted + 2, predicted)
    assert (regression.mean_bias(predicted + 2, predicted), low, high) == (2, 2, 2)


def test_relative_bias_is_the_share_by_which_the_sum_is_off_and_means_nothing_of_negative_numbers():
    reference = np.array([1.0, 2.0, 5.0])
    assert regression.relative_bias(1.25 * reference, reference) == pytest.approx(25)
    assert regression.relative_bias(reference, reference, np.array([1.0, 0.0, 2.0])) == 0
    assert np.isnan(regression.relative_bias(reference, -reference))


def test_limits_of_agreement_hold_the_sample_deviation_of_the_differences():
    predicted, reference = simulated()
    apart = predicted - reference
    low, high = regression.limits_of_agreement(predicted, reference)
    assert_allclose([low, high], apart.mean() + stats.norm.ppf([0.025, 0.975]) * apart.std(ddof=1))
    assert np.isnan(regression.limits_of_agreement([1.0], [2.0])).all()


@pytest.mark.parametrize("figure", [regression.r2, regression.pearson, regression.spearman])
def test_what_asks_for_a_spread_is_undefined_without_one(figure):
    assert np.isnan(figure([0.1, 0.2, 0.3], [0.3, 0.3, 0.3]))
    rounded = 0.1 + 0.2  # not 0.3 to the last bit: no spread either
    assert figure is regression.spearman or np.isnan(figure([0.1, 0.2, 0.3], [rounded, 0.3, 0.3]))


def test_the_likelihood_and_the_coverage_are_those_of_the_normal_distribution():
    rng = np.random.default_rng(1)
    reference, spread = rng.normal(0, 3, 4000), rng.uniform(0.5, 2, 4000)
    predicted = reference + rng.normal(0, spread)
    expected = -stats.norm.logpdf(reference, predicted, spread).mean()
    assert regression.gaussian_nll(predicted, spread, reference) == pytest.approx(expected)
    assert regression.is_covered(predicted, spread, reference).mean() == pytest.approx(0.95, abs=0.01)
    assert regression.is_covered([0, 0], [1, 1], [1.95, 1.97]).tolist() == [True, False]


@pytest.mark.parametrize(("predicted", "reference"), [([1.0, np.nan], [1.0, 2.0]), ([1.0], [1.0, 2.0])])
def test_what_is_no_pair_of_numbers_is_refused(predicted, reference):
    with pytest.raises(UsageError, match="not a number"):
        regression.mean_absolute_error(predicted, reference)

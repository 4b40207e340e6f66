"""Figures of several sites pooled, beside statsmodels and beside what is computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats import meta_analysis

from hilum.evaluation import intervals, site_pooling
from hilum.evaluation.regression import NORMAL_95
from hilum.values import Estimate


def estimates(values, errors) -> list[Estimate]:
    """One a site, of nobody knows how many patients, so that its interval is normal."""
    return [
        Estimate(value, value - NORMAL_95 * error, value + NORMAL_95 * error, n=10)
        for value, error in zip(values, errors, strict=True)
    ]


@pytest.mark.parametrize(("sites", "spread"), [(3, 0.1), (5, 0.0), (5, 0.05), (12, 0.3)])
def test_mean_and_error_equal_those_of_statsmodels(sites, spread):
    random = np.random.default_rng(sites)
    for _ in range(20):
        errors = random.uniform(0.01, 0.1, sites)
        values = 0.8 + spread * random.normal(size=sites) + errors * random.normal(size=sites)
        pooled = site_pooling.pool_sites(estimates(values, errors))
        theirs = meta_analysis.combine_effects(values, errors**2, method_re="iterated", use_t=True, atol=1e-6)
        ours = (pooled.mean.value, pooled.error, pooled.mean.low, pooled.mean.high)
        expected = (theirs.mean_effect_re, math.sqrt(theirs.var_hksj_re), *theirs.conf_int()[3])
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_a_new_site_of_three_alike_ones_is_expected_within_t_of_one_degree_of_freedom():
    pooled = site_pooling.pool_sites(estimates([1.0, 2.0, 3.0], [1e-6, 1e-6, 1e-6]))
    # With exact figures tau is their standard deviation, and s that over the root of 3.
    half = math.tan(math.pi * 0.475) * math.sqrt(1 + 1 / 3)  # the quantile of t with 1 degree is a tangent
    assert pooled.between == pytest.approx(1)
    assert pooled.new_site.low == pytest.approx(2 - half, rel=1e-5)
    assert pooled.new_site.high == pytest.approx(2 + half, rel=1e-5)
    assert pooled.mean.n == 30


def test_below_three_sites_nothing_is_pooled_and_the_reason_is_stated():
    unmeasured = Estimate(0.9, method="none: one patient")
    for pooled in (
        site_pooling.pool_sites([*estimates([0.8, 0.9], [0.1, 0.1]), unmeasured]),
        site_pooling.pool_sites([]),
    ):
        assert math.isnan(pooled.mean.value)
        assert pooled.new_site.low is None
        assert "3 are needed" in pooled.new_site.method


def test_intervals_end_where_the_metric_does():
    pooled = site_pooling.pool_sites(estimates([0.7, 0.95, 0.99], [0.02, 0.02, 0.02]), ends=(0.0, 1.0))
    assert (pooled.new_site.low, pooled.new_site.high) == (0.0, 1.0)
    assert pooled.mean.high == 1.0


def test_the_standard_error_of_few_patients_goes_by_t():
    wide = Estimate(0.5, 0.5 - 2.262157, 0.5 + 2.262157, n=10, patients=10)
    assert site_pooling.standard_error(wide) == pytest.approx(1, abs=1e-6)
    assert site_pooling.standard_error(Estimate(0.5, 0.5, 0.5)) is None


def test_the_difference_of_two_independent_means_has_the_root_of_both_errors():
    apart = intervals.independent_difference(Estimate(1.0, 0.7, 1.3), Estimate(3.0, 2.6, 3.4))
    assert (apart.value, apart.low, apart.high) == pytest.approx((2.0, 1.5, 2.5))
    assert intervals.independent_difference(Estimate(1.0), Estimate(3.0, 2.6, 3.4)).low is None

"""Intervals by bootstrap-t move and stretch with the values, and that of a root mean square is worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from hilum.evaluation import intervals
from hilum.evaluation.intervals import Resampling
from hilum.values import Estimate

SEED = Resampling(seed=0, draws=400)
PLAIN = Estimate(0.0, -1.0, 1.0, n=60, patients=20, method="patient bootstrap")
RANDOM = np.random.default_rng(3)
OWNERS = np.repeat(np.arange(20), 3)
APART = RANDOM.normal(size=20)[OWNERS] + RANDOM.normal(size=60)


def ends(differences, side):
    found = intervals.figure_of_differences(PLAIN, differences, OWNERS, seed=SEED, side=side)
    assert found.method == "patient bootstrap-t"
    return np.array([found.low, found.high])


@pytest.mark.parametrize("side", [-1, 1])
def test_limits_move_and_stretch_with_the_differences_and_each_is_the_others_mirror(side):
    assert_allclose(ends(1000 + 10 * APART, side), 1000 + 10 * ends(APART, side), rtol=1e-4)
    assert_allclose(ends(-APART, -side), -ends(APART, side)[::-1], rtol=0.1)  # by other quantiles of as few draws


def test_a_root_mean_square_stretches_with_the_differences():
    assert_allclose(ends(10 * APART, 0), 10 * ends(APART, 0), rtol=1e-4)


def test_the_interval_of_a_root_mean_square_is_that_of_its_square_by_the_slope_of_a_root():
    values = RANDOM.normal(size=15)
    found = intervals.figure_of_differences(PLAIN, values, np.arange(15), seed=SEED)
    squares = values**2
    resampled = squares[np.random.default_rng(0).integers(15, size=(400, 15))]
    own, roots = np.sqrt(squares.mean()), np.sqrt(resampled.mean(axis=1))
    error, errors = squares.std() / (2 * own), resampled.std(axis=1) / (2 * roots)
    below, above = np.quantile((roots - own) / errors, [0.025, 0.975])
    assert [found.low, found.high] == pytest.approx([own - above * error, own - below * error])


def test_few_patients_and_figures_without_an_interval_stay_as_they_are():
    few = np.arange(9)
    assert intervals.figure_of_differences(PLAIN, APART[:9], few, seed=SEED) is PLAIN
    without = Estimate(0.0, method="none: all draws are equal")
    assert intervals.figure_of_differences(without, np.zeros(60), OWNERS, seed=SEED) is without


def test_an_interval_among_many_is_as_much_wider_as_the_law_of_student_says():
    scores = RANDOM.normal(size=30)
    own = intervals.bootstrap(scores, np.arange(30), seed=SEED)
    of_many = intervals.bonferroni(own, 45)
    wider = stats.t.isf(0.025 / 45, 29) / stats.t.isf(0.025, 29)
    assert of_many.value - of_many.low == pytest.approx(wider * (own.value - own.low))
    assert intervals.bonferroni(own, 1) is own and intervals.bonferroni(Estimate(1.0), 45) == Estimate(1.0)

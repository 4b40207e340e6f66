"""How far measured numbers lie from the truth, and how well the two agree.

Every figure takes `weights`, (..., cases) how often each case counts, and gives one number a weighting: (...).
Without weights each case counts once. So a figure and its bootstrap (`bootstrap_statistic`) are one definition.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from isocenter.errors import UsageError
from isocenter.values import Floats

# 95 % of a normal distribution lie within so many deviations of its mean.
NORMAL_95 = 1.959963984540054
# A deviation below this share of the largest value, or a variance below this share of that of all, is rounding.
ROUNDING = 1e-13


def mean_absolute_error(predicted: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """Mean distance, in the unit of the values."""
    said, true, count = _paired(predicted, reference, weights)
    return _mean(np.abs(said - true), count)


def root_mean_squared_error(predicted: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """Root of the mean squared distance, in the unit of the values; large errors count more."""
    said, true, count = _paired(predicted, reference, weights)
    return np.sqrt(_mean((said - true) ** 2, count))


def r2(predicted: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """Share of the variance of these references that is explained; below 0 worse than their own mean.

    NaN where all references are equal.
    """
    said, true, count = _paired(predicted, reference, weights)
    return 1 - _ratio(_mean((said - true) ** 2, count), _variance(true, count))


def pearson(predicted: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """Linear correlation; it does not see a wrong scale or offset. NaN where one side is constant."""
    said, true, count = _paired(predicted, reference, weights)
    return _correlation(said, true, count)


def spearman(predicted: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """Correlation of the ranks, ties sharing their mean rank. NaN where one side is constant.

    Spearman, Am J Psychol 1904, doi:10.2307/1412159
    """
    said, true, count = _paired(predicted, reference, weights)
    return _correlation(_ranks(said, count), _ranks(true, count), count)


def concordance(predicted: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """Correlation about the line of identity: a wrong scale or offset lowers it. NaN where both sides are one constant.

    Lin, Biometrics 1989, doi:10.2307/2532051, with variances over n as there
    """
    said, true, count = _paired(predicted, reference, weights)
    between = (_mean(said, count) - _mean(true, count)) ** 2
    return _ratio(2 * _covariance(said, true, count), _variance(said, count) + _variance(true, count) + between)


def bias(predicted: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """Mean of predicted minus reference, in the unit of the values."""
    said, true, count = _paired(predicted, reference, weights)
    return _mean(said - true, count)


def limits_of_agreement(
    predicted: ArrayLike, reference: ArrayLike, weights: Floats | None = None
) -> tuple[Floats, Floats]:
    """Between which 95 % of the differences lie if they are normal: bias less and plus 1.96 SD. NaN for one case.

    Bland and Altman, Lancet 1986, doi:10.1016/S0140-6736(86)90837-8
    """
    said, true, count = _paired(predicted, reference, weights)
    apart, total = said - true, count.sum(axis=-1)
    middle = _mean(apart, count)
    half = NORMAL_95 * np.sqrt(_ratio(_variance(apart, count) * total, total - 1))
    return middle - half, middle + half


def gaussian_nll(
    predicted: ArrayLike, deviation: ArrayLike, reference: ArrayLike, weights: Floats | None = None
) -> Floats:
    """Mean negative logarithm (nats) of the normal density at the reference; it depends on the unit of the values.

    deviation: (cases,) one standard deviation of each prediction
    """
    said, true, count = _paired(predicted, reference, weights)
    spread = np.asarray(deviation, dtype=np.float64)
    return _mean(0.5 * np.log(2 * np.pi * spread**2) + 0.5 * ((said - true) / spread) ** 2, count)


def is_covered(predicted: ArrayLike, deviation: ArrayLike, reference: ArrayLike) -> np.ndarray:
    """(cases,) whether the reference lies within 1.96 deviations of the prediction."""
    said, true, _ = _paired(predicted, reference, None)
    return np.abs(said - true) <= NORMAL_95 * np.asarray(deviation, dtype=np.float64)


def _paired(predicted: ArrayLike, reference: ArrayLike, weights: Floats | None) -> tuple[Floats, Floats, Floats]:
    said, true = np.asarray(predicted, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if said.shape != true.shape or said.ndim != 1 or not (np.isfinite(said).all() and np.isfinite(true).all()):
        problem = f"predictions of {said.shape} for references of {true.shape}, or one that is no number"
        raise UsageError(problem, "regression", "Give one prediction and one reference for each case")
    return said, true, np.ones(len(said)) if weights is None else np.asarray(weights, dtype=np.float64)


def _mean(values: Floats, count: Floats) -> Floats:
    """Of (cases,) or (..., cases) values."""
    # One product of matrices for all weightings where the values are the same for all: many times faster.
    total = count @ values if values.ndim == 1 else (values * count).sum(axis=-1)
    return _ratio(total, count.sum(axis=-1))


def _variance(values: Floats, count: Floats) -> Floats:
    """Over n; 0 where only rounding tells the values apart."""
    found = _covariance(values, values, count)
    least = max((ROUNDING * np.abs(values).max(initial=0.0)) ** 2, ROUNDING * float(np.var(values)))
    return np.where(found > least, found, 0.0)


def _covariance(one: Floats, other: Floats, count: Floats) -> Floats:
    """Over n; of values about a mean, because the difference of two large squares would lose what is small."""
    if one.ndim == other.ndim == 1:
        first, second = one - one.mean(), other - other.mean()
        return _mean(first * second, count) - _mean(first, count) * _mean(second, count)
    away = [values - np.expand_dims(_mean(values, count), -1) for values in (one, other)]
    return _mean(away[0] * away[1], count)


def _correlation(one: Floats, other: Floats, count: Floats) -> Floats:
    scale = np.sqrt(_variance(one, count) * _variance(other, count))
    return _ratio(_covariance(one, other, count), scale)


def _ranks(values: Floats, count: Floats) -> Floats:
    """(..., cases) the mean rank of each of (cases,) values, each as often as it counts."""
    _, starts, place = np.unique(np.sort(values), return_index=True, return_inverse=True)
    order = np.argsort(values, kind="stable")
    each = np.add.reduceat(count[..., order], starts, axis=-1)
    ranks = (np.cumsum(each, axis=-1) - each / 2)[..., place]
    return np.asarray(ranks[..., np.argsort(order, kind="stable")])


def _ratio(part: Any, whole: Any) -> Floats:
    """part / whole; NaN where there is nothing to divide by."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan), where=whole > 0)

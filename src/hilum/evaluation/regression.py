"""Errors of measured numbers, and their agreement with the reference.

Every figure takes `weights`, (..., cases) how often each case counts, and gives one number a weighting: (...).
Without weights each case counts once. So a figure and its bootstrap (`bootstrap_statistic`) are one definition.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from hilum.errors import UsageError
from hilum.evaluation import _weighting
from hilum.evaluation.metric import Metric
from hilum.values import Floats

# 95 % of a normal distribution lie within so many deviations of its mean.
NORMAL_95 = 1.959963984540054
# A deviation below this share of the largest value, or a variance below this share of that of all, is rounding.
ROUNDING = 1e-13
VALUE_METRICS = (
    Metric("mae", "MAE", "less", least=0.0),
    Metric("rmse", "RMSE", "less", least=0.0),
    Metric("median_absolute_error", better="less", least=0.0),
    Metric("r2", "R²", most=1.0),
    Metric("pearson", "Pearson's r", least=-1.0, most=1.0),
    Metric("spearman", "Spearman's rho", least=-1.0, most=1.0),
    Metric("concordance", "Concordance (Lin)", least=-1.0, most=1.0),
)
AGREEMENT_METRICS = (
    Metric("bias", better="aim", aim=0.0),
    Metric("loa_lower", "Lower limit of agreement", "aim"),
    Metric("loa_upper", "Upper limit of agreement", "aim"),
    # From .75 on reliability is called good: Koo and Li, J Chiropr Med 2016, doi:10.1016/j.jcm.2016.02.012
    Metric("icc", "ICC(2,1), absolute agreement", tolerated=0.75),
    Metric("relative_bias", better="aim", aim=0.0, unit="%", tolerated=5.0),
)
# Of values that come with a standard deviation.
ERROR_BAR_METRICS = (
    Metric("interval_coverage", "Coverage of the 95 % error bar", "aim", aim=0.95),
    Metric("nll", "Negative log-likelihood", "less"),
)


def mean_absolute_error(predicted: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """Mean distance, in the unit of the values."""
    values, true, count = _pair(predicted, reference, weights)
    return _weighting.weighted_mean(np.abs(values - true), count)


def root_mean_squared_error(predicted: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """Root of the mean squared distance, in the unit of the values; large errors count more."""
    values, true, count = _pair(predicted, reference, weights)
    return np.sqrt(_weighting.weighted_mean((values - true) ** 2, count))


def r2(predicted: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """Share of the variance of these references that is explained; below 0 worse than their own mean.

    NaN where all references are equal.
    """
    values, true, count = _pair(predicted, reference, weights)
    return 1 - _weighting.ratio_or_nan(_weighting.weighted_mean((values - true) ** 2, count), _variance(true, count))


def pearson(predicted: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """Linear correlation; it does not see a wrong scale or offset. NaN where one side is constant."""
    values, true, count = _pair(predicted, reference, weights)
    return _correlation(values, true, count)


def spearman(predicted: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """Correlation of the ranks, ties sharing their mean rank. NaN where one side is constant.

    Spearman, Am J Psychol 1904, doi:10.2307/1412159
    """
    values, true, count = _pair(predicted, reference, weights)
    return _correlation(_ranks(values, count), _ranks(true, count), count)


def concordance_correlation(predicted: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """Correlation about the line of identity: a wrong scale or offset lowers it. NaN where both sides are one constant.

    Lin, Biometrics 1989, doi:10.2307/2532051, with variances over n as there
    """
    values, true, count = _pair(predicted, reference, weights)
    between = (_weighting.weighted_mean(values, count) - _weighting.weighted_mean(true, count)) ** 2
    return _weighting.ratio_or_nan(
        2 * _covariance(values, true, count), _variance(values, count) + _variance(true, count) + between
    )


def absolute_agreement(predicted: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """ICC(2,1) of prediction and reference: share of the variance that is of the cases. NaN where all are one constant.

    As `icc` of two raters sampled from many. Shrout and Fleiss, Psychol Bull 1979, doi:10.1037/0033-2909.86.2.420
    """
    values, true, count = _pair(predicted, reference, weights)
    total = count.sum(axis=-1)
    free = _weighting.ratio_or_nan(total, total - 1)
    between = 2 * free * _variance((values + true) / 2, count)
    rest = free * _variance(values - true, count) / 2
    of_raters = total * _weighting.weighted_mean(values - true, count) ** 2 / 2
    estimated = _weighting.ratio_or_nan(
        between - rest, between + rest + 2 * _weighting.ratio_or_nan(of_raters - rest, total)
    )
    return np.maximum(estimated, -1)  # which the estimate may pass where they are opposite


def mean_bias(predicted: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """Mean of predicted minus reference, in the unit of the values."""
    values, true, count = _pair(predicted, reference, weights)
    return _weighting.weighted_mean(values - true, count)


def relative_bias(predicted: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """Mean of predicted minus reference, % of the mean reference. NaN where a reference is not above 0."""
    values, true, count = _pair(predicted, reference, weights)
    difference = 100 * _weighting.ratio_or_nan(
        _weighting.weighted_mean(values - true, count), _weighting.weighted_mean(true, count)
    )
    return difference if (true > 0).all() else np.full_like(difference, np.nan)


def limits_of_agreement(
    predicted: ArrayLike, reference: ArrayLike, weights: Floats | None = None
) -> tuple[Floats, Floats]:
    """Between which 95 % of the differences lie if they are normal: bias less and plus 1.96 SD. NaN for one case.

    Bland and Altman, Lancet 1986, doi:10.1016/S0140-6736(86)90837-8
    """
    values, true, count = _pair(predicted, reference, weights)
    apart = values - true
    total = count.sum(axis=-1)
    middle = _weighting.weighted_mean(apart, count)
    half = NORMAL_95 * np.sqrt(_weighting.ratio_or_nan(_variance(apart, count) * total, total - 1))
    return middle - half, middle + half


def gaussian_nll(
    predicted: ArrayLike, deviation: ArrayLike, reference: ArrayLike, weights: Floats | None = None
) -> Floats:
    """Mean negative logarithm (nats) of the normal density at the reference; it depends on the unit of the values.

    deviation: (cases,) one standard deviation of each prediction
    """
    values, true, count = _pair(predicted, reference, weights)
    spread = np.asarray(deviation, dtype=np.float64)
    return _weighting.weighted_mean(0.5 * np.log(2 * np.pi * spread**2) + 0.5 * ((values - true) / spread) ** 2, count)


def is_covered(predicted: ArrayLike, deviation: ArrayLike, reference: ArrayLike) -> np.ndarray:
    """(cases,) whether the reference lies within 1.96 deviations of the prediction."""
    values, true, _ = _pair(predicted, reference, None)
    return np.abs(values - true) <= NORMAL_95 * np.asarray(deviation, dtype=np.float64)


def _pair(predicted: ArrayLike, reference: ArrayLike, weights: Floats | None) -> tuple[Floats, Floats, Floats]:
    values = np.asarray(predicted, dtype=np.float64)
    true = np.asarray(reference, dtype=np.float64)
    if not (_weighting.have_same_cases(values, true) and np.isfinite([values, true]).all()):
        problem = f"predictions of {values.shape} for references of {true.shape}, or one that is not a number"
        raise UsageError(problem, "regression", "Give one prediction and one reference for each case")
    return values, true, _weighting.case_weights(weights, len(values))


def _variance(values: Floats, count: Floats) -> Floats:
    """Over n; 0 where only rounding tells the values apart."""
    variance = _covariance(values, values, count)
    least = max((ROUNDING * np.abs(values).max(initial=0.0)) ** 2, ROUNDING * float(np.var(values)))
    return np.where(variance > least, variance, 0.0)


def _covariance(values: Floats, others: Floats, count: Floats) -> Floats:
    """Over n; of values about a mean, because the difference of two large squares would lose what is small."""
    if _weighting.is_unweighted(values) and _weighting.is_unweighted(others):
        first, second = values - values.mean(), others - others.mean()
        return _weighting.weighted_mean(first * second, count) - _weighting.weighted_mean(
            first, count
        ) * _weighting.weighted_mean(second, count)
    first, second = (each - np.expand_dims(_weighting.weighted_mean(each, count), -1) for each in (values, others))
    return _weighting.weighted_mean(first * second, count)


def _correlation(values: Floats, others: Floats, count: Floats) -> Floats:
    scale = np.sqrt(_variance(values, count) * _variance(others, count))
    ratio = _weighting.ratio_or_nan(_covariance(values, others, count), scale)
    # Cauchy and Schwarz bound it; rounding does not, where values are nearly equal.
    return np.clip(ratio, -1.0, 1.0)


def _ranks(values: Floats, count: Floats) -> Floats:
    """(..., cases) the mean rank of each of (cases,) values, each as often as it counts."""
    _, starts, rank_of = np.unique(np.sort(values), return_index=True, return_inverse=True)
    order = np.argsort(values, kind="stable")
    tied = np.add.reduceat(count[..., order], starts, axis=-1)
    ranks = (np.cumsum(tied, axis=-1) - tied / 2)[..., rank_of]
    return np.asarray(ranks[..., np.argsort(order, kind="stable")])

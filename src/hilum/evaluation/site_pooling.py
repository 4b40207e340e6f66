"""A figure of several sites as one: the mean of sites, and the range in which a further site is expected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hilum import errors
from hilum.evaluation.intervals import LEVEL
from hilum.evaluation.regression import NORMAL_95
from hilum.lazy import stats
from hilum.values import Estimate, Floats

# From two sites nobody can tell how far a third lies from them: t has k - 2 degrees of freedom.
FEWEST_SITES = 3
# The search for tau^2 comes nearer with every step, because its equation is convex.
STEPS = 100


@dataclass(frozen=True)
class PooledSites:
    """A figure of several sites, pooled by random effects; NaN where these are too few.

    mean:     of the sites, with its confidence interval
    new_site: the same value, with the prediction interval of a further site
    between:  standard deviation between sites, tau
    error:    standard error of the mean, s
    """

    mean: Estimate
    new_site: Estimate
    between: float = math.nan
    error: float = math.nan


def pool_sites(estimates: Sequence[Estimate], *, ends: tuple[float, float] = (-math.inf, math.inf)) -> PooledSites:
    """The mean of sites, and the interval that holds the figure of a further site, on the metric's own scale.

    estimates: one of each site; one without an interval has no weight and is left out
    ends:      least and largest value of the metric, at which the intervals are cut
    With tau^2 by Paule and Mandel and weights w = 1 / (se^2 + tau^2) the mean is sum(w y) / sum(w) and its s^2 is
    sum(w (y - mean)^2) / ((k - 1) sum(w)); the intervals are mean ± t(k - 1) s and mean ± t(k - 2) sqrt(tau^2 + s^2).
    Paule and Mandel, J Res Natl Bur Stand 1982, doi:10.6028/jres.087.022; Hartung and Knapp, Stat Med 2001,
    doi:10.1002/sim.1009; Higgins et al., J R Stat Soc A 2009, doi:10.1111/j.1467-985X.2008.00552.x
    """
    weighed = [(one, error) for one in estimates if (error := standard_error(one)) is not None]
    cases = sum(one.n for one, _ in weighed)
    people = sum(one.patients for one, _ in weighed)
    if (sites := len(weighed)) < FEWEST_SITES:
        method = f"none: {errors.count_phrase(sites, 'site')} with an interval, {FEWEST_SITES} are needed"
        blank = Estimate(math.nan, n=cases, patients=people, method=method)
        return PooledSites(blank, blank)
    values = np.array([one.value for one, _ in weighed])
    variances = np.array([error for _, error in weighed]) ** 2
    between = _variance_between(values, variances)
    weights = 1 / (variances + between)
    mean = float(weights @ values / weights.sum())
    error = math.sqrt(float(weights @ (values - mean) ** 2 / ((sites - 1) * weights.sum())))

    def estimate(reach: float, free: int, method: str) -> Estimate:
        half = float(stats.t.isf((1 - LEVEL) / 2, free)) * reach
        low, high = np.clip([mean - half, mean + half], *ends).tolist()
        return Estimate(mean, low, high, LEVEL, cases, people, weighed[0][0].unit, f"{method}; {sites} sites")

    return PooledSites(
        estimate(error, sites - 1, "random effects, Paule-Mandel, Hartung-Knapp"),
        estimate(math.sqrt(between + error**2), sites - 2, "prediction interval of random effects"),
        math.sqrt(between),
        error,
    )


def standard_error(estimate: Estimate) -> float | None:
    """The standard error that the interval of an estimate states; None without an interval, or for one of no width.

    Half of the interval over the quantile of t with which few patients widen it (Cochrane Handbook, 6.5.2.2), of the
    normal distribution where the patients are unknown.
    """
    if estimate.low is None or estimate.high is None or not 0 < (width := estimate.high - estimate.low) < math.inf:
        return None
    reach = NORMAL_95 if estimate.patients < 2 else float(stats.t.isf((1 - LEVEL) / 2, estimate.patients - 1))
    return width / 2 / reach


def _variance_between(values: Floats, variances: Floats) -> float:
    """The variance between sites at which the weighted squares sum to their expectation, k - 1; 0 where it is less."""
    between = 0.0
    for _ in range(STEPS):
        weights = 1 / (variances + between)
        squares = (values - weights @ values / weights.sum()) ** 2
        excess = max(0.0, float(weights @ squares) - (len(values) - 1))
        between += excess / max(float(weights**2 @ squares), np.finfo(float).tiny)
    return between

"""A confidence sequence: an interval for a mean that holds at every look, however often one looks."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from hilum.errors import UsageError
from hilum.lazy import special
from hilum.values import Estimate, Floats

LEVEL = 0.95
# The sum of squared errors, in units of the range, at which the interval is nearly as narrow as it can be: that of 40
# cases of a rate of one half, or of 500 of a rate of .02.
NARROWEST_AT = 10.0
# Halvings of the range in which the boundary is searched: to an error of 1e-7 of a case.
HALVINGS = 32
# Halvings between a rate and the end of its interval: to .001.
RATES_TRIED = 10
METHOD = "confidence sequence, empirical Bernstein"


def confidence_sequence(
    values: ArrayLike, *, least: float = 0.0, most: float = 1.0, level: float = LEVEL
) -> tuple[Floats, Floats]:
    """(cases,) lower and (cases,) upper ends of the interval for the mean after each case.

    values:      (cases,) in the order of time, each between `least` and `most`
    With the chance `level` each interval holds the mean of what was expected of its cases, and all of them do at once,
    whatever the distribution and however it changes: a look at any time, or a stop because of what was seen, is free.
    Empirical Bernstein with the gamma-exponential mixture: Howard, Ramdas, McAuliffe and Sekhon, Ann Stat 2021,
    arXiv:1810.08240, theorem 4 and proposition 9.
    Raises UsageError for values outside the range, and for a level that is none.
    """
    return _ends(np.asarray(values, dtype=np.float64), least, most, level, first=0)


def _ends(observed: Floats, least: float, most: float, level: float, *, first: int) -> tuple[Floats, Floats]:
    """The ends after each case from the first on that is asked for."""
    if not (observed.ndim == 1 and least < most and ((observed >= least) & (observed <= most)).all()):
        remedy = "Give (cases,) numbers within least and most"
        raise UsageError(f"values that are not all within {least:g} and {most:g}", "confidence_sequence", remedy)
    if not 0 < level < 1:
        raise UsageError(f"the level {level:g}", "confidence_sequence", "Give one between 0 and 1, such as 0.95")
    scaled = (observed - least) / (most - least)
    n = np.arange(1, len(observed) + 1)
    # Each case is expected to be the mean of those before it; the first one, the middle.
    means = np.cumsum(scaled) / n
    expected = np.concatenate([[0.5], means[:-1]])[: len(scaled)]
    variance = np.cumsum((scaled - expected) ** 2)
    reach = _boundary(variance[first:], (1 - level) / 2) / n[first:]
    low, high = (np.clip(means[first:] + side * reach, 0, 1) for side in (-1, 1))
    return least + (most - least) * low, least + (most - least) * high


def followed_mean(values: ArrayLike, *, least: float = 0.0, most: float = 1.0, level: float = LEVEL) -> Estimate:
    """The mean of cases so far, one a patient, with its interval by `confidence_sequence`."""
    seen = np.asarray(values, dtype=np.float64)
    if not len(seen):
        return Estimate(float("nan"), n=0, patients=0, method="none: no case yet")
    low, high = _ends(seen, least, most, level, first=len(seen) - 1)
    return Estimate(float(seen.mean()), float(low[-1]), float(high[-1]), level, len(seen), len(seen), method=METHOD)


def followed_difference(
    new: ArrayLike, old: ArrayLike, *, least: float = 0.0, most: float = 1.0, level: float = LEVEL
) -> Estimate:
    """The mean of one arm less that of the other, with an interval that holds at every look.

    new, old: (cases,) of different patients
    Each arm has half of the chance to err.
    """
    first, second = (followed_mean(one, least=least, most=most, level=(1 + level) / 2) for one in (new, old))
    n = (first.n or 0) + (second.n or 0)
    ends = (first.low, first.high, second.low, second.high)
    value = first.value - second.value
    if None in ends:
        return Estimate(value, n=n, patients=n, method="none: an arm has no case yet")
    low, high = float(first.low or 0.0) - float(second.high or 0.0), float(first.high or 0.0) - float(second.low or 0.0)
    return Estimate(value, low, high, level, n, n, method=f"difference of two arms, each a {METHOD}")


def followed_ratio(hits: ArrayLike, over: ArrayLike, weights: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """A rate, such as a sensitivity, from weighted cases, one a patient, with an interval that holds at every look.

    hits:    (cases,) what counts for the rate, at most `over`
    over:    (cases,) between 0 and 1, what it is a share of
    weights: (cases,) inverse of the chance with which a case was sampled; the largest possible is among them
    A rate is in the interval as long as the sequence of hits - rate x over, weighted, holds zero.
    """
    found, of, weight = (np.asarray(one, dtype=np.float64) for one in (hits, over, weights))
    total = float((of * weight).sum())
    if not total > 0:
        return Estimate(float("nan"), n=len(of), patients=len(of), method="none: no such case")
    value = float((found * weight).sum() / total)
    largest = float(weight.max())

    def zero_is(rate: float) -> int:
        """-1 where the sequence lies below zero, 1 where it lies above, 0 where it holds zero."""
        least, most = -rate * largest, (1 - rate) * largest
        [low], [high] = _ends(weight * (found - rate * of), least, most, level, first=len(of) - 1)
        return int(low > 0) - int(high < 0)

    def end_of(side: int) -> float:
        inner, outer = value, 0.0 if side == 1 else 1.0
        for _ in range(RATES_TRIED if zero_is(outer) == side else 0):
            middle = (inner + outer) / 2
            inner, outer = (inner, middle) if zero_is(middle) == side else (middle, outer)
        return outer

    n = int((of > 0).sum())
    return Estimate(value, end_of(1), end_of(-1), level, n, n, method=METHOD)


def log_mixture(total: Floats, variance: Floats) -> Floats:
    """Logarithm of the gamma-exponential mixture martingale, for values in a range of length 1.

    total, variance: sum of the errors, and of their squares
    It is the mean of exp(x total - (-log(1 - x) - x) variance) over x in 0..1, of which 1 - x has a gamma density that
    is cut off at 1.
    """
    rho = _rho()
    a = variance + _rho()
    known = rho * np.log(rho) - special.gammaln(rho) - np.log(special.gammainc(rho, rho))
    rate = total + a
    return np.asarray(
        known + special.gammaln(a) + np.log(special.gammainc(a, rate)) - a * np.log(rate) + total + variance
    )


def _boundary(variance: Floats, alpha: float) -> Floats:
    """The least sum of errors that the martingale reaches with at most the chance alpha, for each variance."""
    low = np.zeros(len(variance))
    # Well beyond the boundary, which grows as the root of the variance times its logarithm.
    high = 20 + 4 * np.log(1 / alpha) + 10 * np.sqrt((variance + 1) * np.log(1 / alpha))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        is_below = log_mixture(middle, variance) < np.log(1 / alpha)
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
    return cast("Floats", high)


def _rho() -> float:
    # As for the normal mixture, which is close to it: Howard et al., section 3.5, for two sides of level .95.
    odds = 2 * np.log(1 / 0.025)
    return float(NARROWEST_AT / (odds + np.log(1 + odds)))

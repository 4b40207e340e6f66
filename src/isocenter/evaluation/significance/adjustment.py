"""p-values of several tests, adjusted for each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from isocenter.errors import UsageError
from isocenter.values import Floats

# Ordered p-values and their number to the adjusted ones.
Rule = Callable[[Floats, int], Floats]


def holm(p: ArrayLike) -> Floats:
    """Each p adjusted so that with any of them one false alarm is as rare as it says; NaN stays and counts for none.

    Holm, Scand J Stat 1979
    """
    return _adjusted(p, lambda ordered, tests: np.maximum.accumulate(ordered * (tests - np.arange(tests))))


def benjamini_hochberg(p: ArrayLike) -> Floats:
    """Each p adjusted so that of all found below a level that share is false on average; NaN stays, counts for none.

    Benjamini and Hochberg, J R Stat Soc B 1995, doi:10.1111/j.2517-6161.1995.tb02031.x
    """
    return _adjusted(
        p, lambda ordered, tests: np.minimum.accumulate((ordered * tests / np.arange(1, tests + 1))[::-1])[::-1]
    )


def _adjusted(p: ArrayLike, rule: Rule) -> Floats:
    given = np.asarray(p, dtype=np.float64)
    if given.ndim != 1 or (given < 0).any() or (given > 1).any():
        raise UsageError("p-values outside 0..1, or not in a row", "adjustment", "Give (tests,) p-values")
    adjusted, known = np.full(len(given), np.nan), np.flatnonzero(np.isfinite(given))
    order = known[np.argsort(given[known], kind="stable")]
    if len(order):
        adjusted[order] = np.minimum(rule(given[order], len(order)), 1.0)
    return adjusted

"""The result of a statistical test, and p-values of several tests, adjusted for each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum.errors import UsageError
from hilum.lazy import stats
from hilum.values import Floats

LEVEL = 0.95
# A standard error below this is rounding of figures between 0 and 1.
NOTHING = 1e-12
# Ordered p-values and their number to the adjusted ones.
Rule = Callable[[Floats, int], Floats]


@dataclass(frozen=True)
class DifferenceTest:
    """A difference, second less first, its 95 % interval, and how likely one as large is without any.

    low, high: absent where no interval can be given
    statistic: in units of its law, which `method` names: z, t, F or chi-squared
    p:         two-sided; NaN where the law says nothing of such cases, for the reason in `method`
    too_few:   why no margin can be tested by the interval, where the patients are too few for it to hold its level
    unfit:     why no margin is tested by such a test of however many patients
    margin_ends:   the ends by which margins are tested, where low and high alone are too bold
    margin_method: how those were made, in words
    """

    __test__ = False  # it is none of pytest's

    difference: float
    low: float | None
    high: float | None
    statistic: float
    p: float
    method: str
    too_few: str = ""
    unfit: str = ""
    margin_ends: tuple[float, float] | None = None
    margin_method: str = ""


def normal_test(
    difference: float, error: float, method: str, degrees: float | None = None, *, most: float = 1.0
) -> DifferenceTest:
    """The test of a difference with this standard error, by the normal law or Student's of so many degrees.

    most: the largest difference that there can be: 1 of proportions
    """
    if not error > NOTHING:
        same = abs(difference) <= NOTHING
        why = "no case tells them apart" if same else "their difference has no variance here"
        return DifferenceTest(
            difference, None, None, 0.0 if same else np.inf, 1.0 if same else np.nan, f"{method}; {why}"
        )
    law = stats.norm if degrees is None else stats.t(degrees)
    half = float(law.ppf((1 + LEVEL) / 2)) * error
    statistic = difference / error
    low, high = max(difference - half, -most), min(difference + half, most)
    return DifferenceTest(difference, low, high, statistic, 2 * float(law.sf(abs(statistic))), method)


def patient_numbers(patients: ArrayLike | None, cases: int) -> NDArray[np.intp]:
    """(cases,) number of the patient; each case its own patient where nobody says whose it is."""
    if patients is None:
        return np.arange(cases)
    owners = np.asarray(patients)
    if owners.shape != (cases,):
        raise UsageError(f"{owners.shape} patients for {cases} cases", "test", "Give one patient per case")
    return np.asarray(np.unique(owners, return_inverse=True)[1])


def paired_numbers(first: ArrayLike, second: ArrayLike) -> tuple[Floats, Floats]:
    """Two arrays of one number a case. Raises UsageError for anything else."""
    ours = np.asarray(first, dtype=np.float64)
    other = np.asarray(second, dtype=np.float64)
    if not ours.shape == other.shape == (ours.size,):
        problem = f"numbers of {ours.shape} and {other.shape} cases in `first` and `second`"
        raise UsageError(problem, "test", "Give one number per case, of the same cases in the same order")
    if not np.isfinite([ours, other]).all():
        problem = "NaN or an infinite number in `first` or `second`"
        raise UsageError(problem, "test", "Leave those cases out of both, and state their number")
    return ours, other


def holm(p: ArrayLike) -> Floats:
    """Each p adjusted so that with any of them one false alarm is as rare as it says; NaN stays and counts for none.

    Holm, Scand J Stat 1979
    """
    return _adjust(p, lambda ordered, tests: np.maximum.accumulate(ordered * (tests - np.arange(tests))))


def benjamini_hochberg(p: ArrayLike) -> Floats:
    """Each p adjusted so that of all found below a level that share is false on average; NaN stays, counts for none.

    Benjamini and Hochberg, J R Stat Soc B 1995, doi:10.1111/j.2517-6161.1995.tb02031.x
    """
    return _adjust(
        p, lambda ordered, tests: np.minimum.accumulate((ordered * tests / np.arange(1, tests + 1))[::-1])[::-1]
    )


def _adjust(p: ArrayLike, rule: Rule) -> Floats:
    p_values = np.asarray(p, dtype=np.float64)
    if p_values.ndim != 1 or (p_values < 0).any() or (p_values > 1).any():
        raise UsageError("p-values outside 0..1, or not in a row", "adjustment", "Give (tests,) p-values")
    adjusted = np.full(len(p_values), np.nan)
    finite = np.flatnonzero(np.isfinite(p_values))
    order = finite[np.argsort(p_values[finite], kind="stable")]
    if len(order):
        adjusted[order] = np.minimum(rule(p_values[order], len(order)), 1.0)
    return adjusted

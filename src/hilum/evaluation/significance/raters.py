"""Agreement of several people, or methods, who rate the same subjects by numbers."""

from __future__ import annotations

import math
from typing import Literal, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike

from hilum.errors import UsageError
from hilum.evaluation.significance import testing
from hilum.evaluation.significance.testing import LEVEL, DifferenceTest
from hilum.lazy import stats
from hilum.values import Floats

Form = Literal["1", "2", "3", "1k", "2k", "3k"]
V = TypeVar("V", float, Floats)
ROUNDING = 1e-12
# For the ends of an interval.
DRAWS = 20_000
WORDS = {
    "1": "each subject has raters of its own",
    "2": "raters are sampled from many; absolute agreement; generalised interval",
    "3": "these raters alone; consistency",
}


def icc(ratings: ArrayLike, form: Form = "2") -> DifferenceTest:
    """The intraclass correlation as `difference`, with its interval, and F and p against none.

    ratings: (subjects, raters), none missing
    form:    of one rating, "1", "2" or "3", or of the mean of the k raters, "1k", "2k", "3k"
    Shrout and Fleiss, Psychol Bull 1979, doi:10.1037/0033-2909.86.2.420; McGraw and Wong, Psychol Methods 1996,
    doi:10.1037/1082-989X.1.1.30
    """
    table = np.asarray(ratings, dtype=np.float64)
    if table.ndim != 2 or min(table.shape, default=0) < 2 or not np.isfinite(table).all():
        problem = f"ratings of {table.shape}, or some are missing"
        raise UsageError(problem, "icc", "Give (subjects, raters), at least two of each")
    if not np.ptp(table) > 0:
        problem = f"all ratings are {table.flat[0]:g}, so that subjects do not differ and nothing can be compared"
        raise UsageError(problem, "icc", "Give ratings that differ, or state the share of equal ratings")
    kind = form.removesuffix("k")
    raters = table.shape[1]
    if kind not in WORDS:
        raise UsageError(f"{form!r} is not a form of the ICC", "icc", "Choose 1, 2, 3, 1k, 2k or 3k")
    value, low, high, statistic, p = _two_way(table) if kind == "2" else _by_ratio(table, one_way=kind == "1")
    if form.endswith("k"):
        value, low, high = (_of_mean(one, raters) for one in (value, low, high))
    reason = "" if math.isfinite(value) else "; none: raters are less alike than chance, so that their mean has none"
    method = f"ICC({form}): {WORDS[kind]}; F{reason}"
    if not (math.isfinite(low) and math.isfinite(high)):
        return DifferenceTest(value, None, None, statistic, p, method)
    return DifferenceTest(value, low, high, statistic, p, method)


def _of_mean(single: float, raters: int) -> float:
    """The ICC of the mean of so many raters (Spearman and Brown); NaN of one so low that no variance is left."""
    rest = 1 + single * (raters - 1)
    return raters * single / rest if rest > ROUNDING else math.nan


def _squares(table: Floats) -> tuple[float, float, float]:
    """Mean squares between subjects, between raters, and of what is left."""
    subjects, raters = table.shape
    grand = table.mean()
    between = raters * float(((table.mean(axis=1) - grand) ** 2).sum())
    of_raters = subjects * float(((table.mean(axis=0) - grand) ** 2).sum())
    # What is left may be less than rounding, where raters agree.
    rest = max(float(((table - grand) ** 2).sum()) - between - of_raters, ROUNDING * (between + of_raters))
    return between / (subjects - 1), of_raters / (raters - 1), rest / ((subjects - 1) * (raters - 1))


def _by_ratio(table: Floats, *, one_way: bool) -> tuple[float, float, float, float, float]:
    """Value, low, high, F and p of the forms whose law is that of one ratio of mean squares."""
    subjects, raters = table.shape
    between, of_raters, rest = _squares(table)
    first, second = subjects - 1, (subjects - 1) * (raters - 1)
    if one_way:
        rest = (rest * second + of_raters * (raters - 1)) / (second + raters - 1)
        second = subjects * (raters - 1)
    ratio = between / rest
    tail = (1 + LEVEL) / 2
    ends = ratio, ratio / stats.f.ppf(tail, first, second), ratio * stats.f.ppf(tail, second, first)
    value, low, high = (float((one - 1) / (one + raters - 1)) for one in ends)
    return value, low, high, ratio, float(stats.f.sf(ratio, first, second))


def _two_way(table: Floats) -> tuple[float, float, float, float, float]:
    """Value, low, high, F and p where raters differ in their means too, and that counts.

    The ends are quantiles of the value that the mean squares have once each is divided by a draw of its own law
    (generalised interval): few raters tell little of how far raters lie apart, which no law of one ratio allows for.
    Ionan et al., BMC Med Res Methodol 2014, doi:10.1186/1471-2288-14-121
    """
    n, k = table.shape
    subjects, raters, rest = squares = _squares(table)
    free = n - 1, k - 1, (n - 1) * (k - 1)
    random = np.random.default_rng(0)
    of_subjects, of_raters, of_rest = (
        own * many / random.chisquare(many, DRAWS) for own, many in zip(squares, free, strict=True)
    )
    value = _absolute(subjects, raters, rest, n, k)
    ends = _absolute(of_subjects, of_raters, of_rest, n, k)
    low, high = np.quantile(ends, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    ratio = subjects / rest
    return float(value), low, high, ratio, float(stats.f.sf(ratio, free[0], free[2]))


def _absolute(between: V, of_raters: V, rest: V, subjects: int, raters: int) -> Floats:
    """The ICC of mean squares; it may pass -1 where raters contradict each other, which no correlation does."""
    total = between + (raters - 1) * rest + raters * (of_raters - rest) / subjects
    return cast("Floats", np.maximum(-1.0, (between - rest) / total))


def mean_over_raters(values: ArrayLike, owners: ArrayLike | None = None, *, most: float = math.inf) -> DifferenceTest:
    """The mean of one number of each rater and subject, which other raters and other subjects would change.

    values: (raters, subjects); owners: (subjects,) whose they are, of whom each counts once
    most:   the largest mean that there can be
    Both are random: Satterthwaite, Biometrics Bulletin 1946, doi:10.2307/3002019
    """
    ratings = np.asarray(values, dtype=np.float64)
    owner = testing.patient_numbers(owners, ratings.shape[1])
    table = np.stack([np.bincount(owner, row) / np.bincount(owner) for row in ratings])
    raters, subjects = table.shape
    mean = float(table.mean())
    method = "mean over readers and cases, both random"
    if min(raters, subjects) < 2:
        return DifferenceTest(mean, None, None, math.nan, math.nan, f"{method}; needs two readers and two patients")
    between, of_raters, rest = _squares(table.T)
    # a variance is never below 0
    of_raters = max(of_raters, rest)
    between = max(between, rest)
    total = of_raters + between - rest
    free = (raters - 1) * (subjects - 1)
    spread = of_raters**2 / (raters - 1) + between**2 / (subjects - 1) + rest**2 / free
    degrees = total**2 / spread if spread > 0 else None
    return testing.normal_test(mean, math.sqrt(total / table.size), method, degrees, most=most)

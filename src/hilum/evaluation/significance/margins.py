"""Tests of non-inferiority and of equivalence of two models, by a margin, and intervals that hold their level there.

How often each interval would wrongly show that a model is not inferior: bench/claims/margins.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.errors import UsageError
from hilum.evaluation import intervals
from hilum.evaluation.intervals import Resampling
from hilum.evaluation.significance.testing import LEVEL, NOTHING, DifferenceTest
from hilum.lazy import special, stats
from hilum.values import Floats

Interval = tuple[float, float] | None
# Of fewer patients the intervals of skewed means are too narrow at a margin.
FEWEST_FOR_MARGINS = 50
# From so many patients on a mean is normal.
MOST_RESAMPLED = 2000
# The shares below both ends of an interval.
TAILS = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
# Halvings of an interval of width 2 down to rounding.
HALVINGS = 50


def refuse_impossible_margin(margin: float, where: str) -> None:
    """UsageError for a margin that is no number above 0: one of 0 leaves nothing to show but superiority."""
    if not 0 < margin < float("inf"):
        raise UsageError(f"{margin:g} is not a valid margin", where, "Give a number above 0, in the unit of the metric")


def reason_against_margins(test: DifferenceTest) -> str:
    """Why the interval of a test can show nothing of a margin; empty where it can."""
    if not test.unfit and (test.low is None or test.high is None or test.high <= test.low):
        return "there is no interval"
    return test.unfit or test.too_few


def margin_interval(test: DifferenceTest) -> tuple[float, float] | None:
    """The interval that has to lie within a margin: that of the difference, with `margin_ends` where there are any."""
    if test.low is None or test.high is None:
        return None
    interval = (test.low, test.high)
    other = test.margin_ends or (test.low, test.high)
    return min(interval[0], other[0]), max(interval[1], other[1])


def non_inferiority(test: DifferenceTest, margin: float, *, more: bool = True) -> DifferenceTest:
    """Whether the second model is worse than the first by less than a margin: shown where p is below 2.5 %.

    test:   of their difference, such as `delong` gives, with its interval
    margin: in the unit of the difference, fixed before anybody saw a figure
    more:   whether more is better
    One-sided, by the end of `margin_interval`: p is below 2.5 % just where all of it is within the margin.
    It is NaN without an interval, and of so few patients that the interval does not hold its level at a margin.
    Raises UsageError for a test of something else than the difference of the figures, such as Wilcoxon's.
    Piaggio et al., JAMA 2012, doi:10.1001/jama.2012.87802
    """
    refuse_impossible_margin(margin, "margin")
    if test.unfit:
        raise UsageError(f"no margin can be tested: {test.unfit}", "margin", "Compare means by `permutation`")
    interval = margin_interval(test)
    reason = reason_against_margins(test)
    if interval is None or reason:
        return replace(test, p=float("nan"), method=f"non-inferiority: none, {reason}; {test.method}")
    low, high = interval
    worst, distance = (low, test.difference - low) if more else (-high, high - test.difference)
    # Intervals of resampling are not even about the difference: the worse end decides, and the wider half how fast p
    # falls beyond it.
    deviate = float(stats.norm.ppf((1 + LEVEL) / 2))
    error = max(distance, (high - low) / 2) / deviate
    statistic = deviate + (worst + margin) / error
    p = float(stats.norm.sf(statistic))
    return replace(test, statistic=statistic, p=p, method=f"non-inferiority by {margin:g}, one-sided; {test.method}")


def equivalence(test: DifferenceTest, margin: float) -> DifferenceTest:
    """Whether both models differ by less than a margin either way: shown where p is below 2.5 %.

    The larger p of two one-sided tests. Schuirmann, J Pharmacokinet Biopharm 1987, doi:10.1007/BF01068419; with the
    95 % interval, ICH E9 section 3.3.2
    """
    sides = [non_inferiority(test, margin, more=more) for more in (True, False)]
    worst = min(sides, key=lambda side: side.statistic if side.p == side.p else 0.0)
    return replace(worst, method=worst.method.replace("non-inferiority", "equivalence").replace("one-sided", "twice"))


def too_few_for_margins(patients: int, fewest: int = FEWEST_FOR_MARGINS) -> str:
    """Why no margin can be tested by an interval that needs more patients; empty where there are enough."""
    return f"its interval holds its level from {fewest} patients on, and these are {patients}" * (patients < fewest)


def exchange_interval(sums: Floats, cases: Floats, exchanges: NDArray[np.integer[Any]]) -> Interval:
    """The differences of means by which one model may be moved without the exchange of models showing any.

    sums:  (patients,) each patient's sum of differences; cases: (patients,) how many
    exchanges: (draws, patients) who is exchanged; with all 2**n the interval is exact for differences that lie
           evenly about their mean, and absent where even all exchanges are too few for its level
    The means of such subsets of patients: Hartigan, J Am Stat Assoc 1969, doi:10.1080/01621459.1969.10501057
    """
    both = np.asarray(exchanges @ np.stack([sums, cases], axis=1), dtype=np.float64)
    both = both[both[:, 1] > 0]
    means = np.sort(both[:, 0] / both[:, 1])
    beyond = int((1 - LEVEL) / 2 * (len(both) + 1))
    if not beyond or means[-beyond] - means[beyond - 1] <= NOTHING:
        return None
    return float(means[beyond - 1]), float(means[-beyond])


def mean_ends(sums: Floats, shares: Floats, losses: tuple[float, float], seed: int) -> tuple[float, float]:
    """The ends of a difference of means by which margins are tested: of failures the patients may show none.

    sums:   (patients,) what each adds to the difference; shares: (patients,) of all cases
    losses: the difference of a further patient in whom the second model fails, and of one in whom the first does
    The outer ends of bootstrap-t (Hall, Ann Stat 1988, doi:10.1214/aos/1176350933), and of Student's intervals with one
    such patient more: n without a failure do not exclude 3 / n (Hanley and Lippman-Hand, JAMA 1983,
    doi:10.1001/jama.1983.03330370053031). Bootstrap draws of patients who do not differ at all are left out.
    """
    people = len(sums)
    ends = []
    every = np.ones((1, people + 1))
    for loss in losses:
        mean, error = _means_and_errors(every, np.append(sums, loss / people), np.append(shares, 1 / people))
        ends.append(mean + error * stats.t.ppf(TAILS, people))
    if people <= MOST_RESAMPLED:
        weightings = intervals.sample_weightings(np.zeros(people, dtype=np.intp), Resampling(seed), width=people)
        means, errors = np.concatenate([_means_and_errors(weights, sums, shares) for weights in weightings], axis=1)
        mean, error = _means_and_errors(every[:, 1:], sums, shares)
        varying = errors > NOTHING
        ends.append(mean - error * np.quantile((means - mean)[varying] / errors[varying], TAILS[::-1]))
    return float(np.min(ends)), float(np.max(ends))


def _means_and_errors(weights: Floats, sums: Floats, shares: Floats) -> tuple[Floats, Floats]:
    """(draws,) means, and their standard errors by patients; weights: (draws, patients) how often each counts."""
    total, part, squares, products, parts = (weights @ np.stack([sums, shares, sums**2, sums * shares, shares**2], 1)).T
    mean = total / part
    people = weights.sum(axis=1)
    apart = np.maximum(squares - 2 * mean * products + mean**2 * parts, 0.0)
    return mean, np.sqrt(apart * people / (people - 1)) / part


def score_interval(gained: float, lost: float, cases: float) -> tuple[float, float]:
    """The difference of two shares of right calls of the same cases.

    gained, lost: cases that only the second, or only the first, calls right; need not be whole numbers, so that those
                  of patients with several cases can be divided by their design effect
    Tango, Stat Med 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B
    """
    return _score_end(gained, lost, cases), -_score_end(lost, gained, cases)


def design_effect(differences: Floats, owner: np.ndarray) -> float:
    """The factor by which the variance of a mean grows because a patient's cases are alike; 1 where each has one case.

    Where no case differs it is as large as can be. Rao and Scott, Biometrics 1992, doi:10.2307/2532311
    """
    apart = differences - differences.mean()
    people = int(owner.max()) + 1
    if people == len(differences) or people < 2:
        return len(differences) / people
    of_cases = float((apart**2).sum())
    if of_cases <= NOTHING:
        return len(differences) / people
    return max(1.0, float((np.bincount(owner, apart) ** 2).sum()) * people / (people - 1) / of_cases)


def area_interval(areas: Floats, covariance: Floats, people: int) -> Interval:
    """The difference of two AUROCs by their own intervals, each symmetric about its logit, and how they go together.

    Absent where an AUROC is 0 or 1, which has no variance. Student's law of the patients less one for each AUROC.
    Zou, Psychol Methods 2007, doi:10.1037/1082-989X.12.4.399; Pepe, The Statistical Evaluation of Medical Tests 2003,
    section 5.2.2
    """
    if people < 3 or not np.isfinite(covariance).all() or not ((areas > 0) & (areas < 1)).all():
        return None
    errors = np.sqrt(np.maximum(covariance.diagonal(), 0.0))
    half = float(stats.t.isf((1 - LEVEL) / 2, people - 2)) * errors / (areas * (1 - areas))
    below = areas - special.expit(special.logit(areas) - half)
    above = special.expit(special.logit(areas) + half) - areas
    alike = float(covariance[0, 1] / errors.prod()) if errors.min() > NOTHING else 0.0
    ends = [np.sqrt(max(a**2 + b**2 - 2 * alike * a * b, 0.0)) for a, b in ((below[1], above[0]), (above[1], below[0]))]
    difference = float(areas[1] - areas[0])
    return (difference - float(ends[0]), difference + float(ends[1])) if max(ends) > NOTHING else None


def _score_end(gained: float, lost: float, cases: float) -> float:
    """The lower end: the least difference that the score test does not refuse."""
    deviate = float(stats.norm.ppf((1 + LEVEL) / 2))
    low, high = -1.0, (gained - lost) / cases
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        # The likeliest share of cases that only the first calls right, if the shares differ by this.
        slope = (2 * cases - gained + lost) * middle - gained - lost
        only_first = (np.sqrt(slope**2 + 8 * cases * lost * middle * (1 - middle)) - slope) / (4 * cases)
        variance = cases * (2 * only_first + middle * (1 - middle))
        is_refused = gained - lost - cases * middle > deviate * max(variance, 0.0) ** 0.5
        low, high = (middle, high) if is_refused else (low, middle)
    return float(high)

"""Tests of non-inferiority and of equivalence of two models, by a margin."""

from __future__ import annotations

from dataclasses import replace

from isocenter.errors import UsageError
from isocenter.evaluation.significance.outcome import LEVEL, Test
from isocenter.lazy import stats


def refuse_impossible_margin(margin: float, where: str) -> None:
    """UsageError for a margin that is no number above 0: one of 0 leaves nothing to show but superiority."""
    if not 0 < margin < float("inf"):
        raise UsageError(f"{margin:g} is not a valid margin", where, "Give a number above 0, in the unit of the metric")


def reason_against_margins(test: Test) -> str:
    """Why the interval of a test can show nothing of a margin; empty where it can."""
    if not test.unfit and (test.low is None or test.high is None or test.high <= test.low):
        return "there is no interval"
    return test.unfit or test.too_few


def margin_interval(test: Test) -> tuple[float, float] | None:
    """What has to lie within a margin: the interval of the difference, and `margin_ends` where the test has any."""
    if test.low is None or test.high is None:
        return None
    own, other = (test.low, test.high), test.margin_ends or (test.low, test.high)
    return min(own[0], other[0]), max(own[1], other[1])


def non_inferiority(test: Test, margin: float, *, more: bool = True) -> Test:
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
    interval, reason = margin_interval(test), reason_against_margins(test)
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


def equivalence(test: Test, margin: float) -> Test:
    """Whether both models differ by less than a margin either way: shown where p is below 2.5 %.

    The larger p of two one-sided tests. Schuirmann, J Pharmacokinet Biopharm 1987, doi:10.1007/BF01068419; with the
    95 % interval, ICH E9 section 3.3.2
    """
    sides = [non_inferiority(test, margin, more=more) for more in (True, False)]
    worst = min(sides, key=lambda side: side.statistic if side.p == side.p else 0.0)
    return replace(worst, method=worst.method.replace("non-inferiority", "equivalence").replace("one-sided", "twice"))

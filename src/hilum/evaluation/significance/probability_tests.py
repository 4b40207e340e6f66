"""Probabilities beside what happened: goodness of fit, and what decisions by them are worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hilum.errors import UsageError
from hilum.evaluation import _weighting, intervals
from hilum.evaluation.significance import testing
from hilum.evaluation.significance.testing import LEVEL, NOTHING, DifferenceTest
from hilum.lazy import stats
from hilum.values import Floats

THRESHOLDS = np.arange(1, 100) / 100


def hosmer_lemeshow(
    probabilities: ArrayLike, positive: ArrayLike, groups: int = 10, *, is_fitted: bool = False
) -> DifferenceTest:
    """Whether events are as frequent as predicted in groups by probability; `difference` is observed less predicted.

    is_fitted: whether these very cases fitted the probabilities, which takes two degrees of freedom
    A small p shows that they are off; a large one, of few cases, shows nothing.
    Hosmer and Lemeshow, Commun Stat Theory Methods 1980, doi:10.1080/03610928008827941
    """
    chance, truth = _pair(probabilities, positive)
    edges = np.unique(np.quantile(chance, np.linspace(0, 1, groups + 1)))
    bin_of = np.clip(np.searchsorted(edges, chance, "left") - 1, 0, None)
    cases, expected, observed = (np.bincount(bin_of, one) for one in (np.ones(len(chance)), chance, truth))
    occupied = int((cases > 0).sum())
    free = occupied - 2 * is_fitted
    spread = expected * (1 - expected / np.maximum(cases, 1))
    parts = np.divide((observed - expected) ** 2, spread, out=np.zeros_like(spread), where=spread > 0)
    statistic = float("inf") if (np.abs(observed - expected)[spread <= 0] > 0).any() else float(parts.sum())
    p = float(stats.chi2.sf(statistic, free)) if free > 0 else float("nan")
    method = f"Hosmer-Lemeshow, {occupied} groups; chi-squared with {free} degrees of freedom"
    return DifferenceTest(float(truth.mean() - chance.mean()), None, None, statistic, p, method)


def net_benefit(
    probabilities: ArrayLike, positive: ArrayLike, thresholds: ArrayLike, weights: Floats | None = None
) -> Floats:
    """(..., thresholds) right calls a case, less wrong ones by the odds of the threshold from which on one acts.

    weights: (..., cases) how often each case counts
    Probabilities of 1 are those of acting on everybody; nobody treated has a net benefit of 0.
    Vickers and Elkin, Med Decis Making 2006, doi:10.1177/0272989X06295361
    """
    parts = benefit_parts(probabilities, positive, thresholds)
    count = _weighting.case_weights(weights, len(parts))
    return np.stack([_weighting.weighted_mean(one, count) for one in parts.T], axis=-1)


@dataclass(frozen=True, eq=False)
class DecisionCurve:
    """Net benefit of acting from each threshold on, (thresholds,) each; treating nobody is worth 0.

    low, high: the ends of the value's 95 % interval at each threshold; NaN where no case tells
    gain_low:  the lower end of what it is worth more than the better of treating everybody or nobody
    """

    thresholds: Floats
    value: Floats
    treat_all: Floats
    low: Floats
    high: Floats
    gain_low: Floats

    @property
    def gains(self) -> tuple[float, float] | None:
        """The ends of the longest run of thresholds at which a gain is shown; None where none is."""
        held = np.flatnonzero(self.gain_low > 0)
        runs = np.split(held, np.flatnonzero(np.diff(held) > 1) + 1)
        longest = max(runs, key=len)
        return (float(self.thresholds[longest[0]]), float(self.thresholds[longest[-1]])) if len(longest) else None


def decision_curve(
    probabilities: ArrayLike, positive: ArrayLike, patients: ArrayLike, thresholds: ArrayLike = THRESHOLDS
) -> DecisionCurve:
    """The net benefit by threshold, whose intervals take patients as clusters.

    Errors of which these cases have none are as many as the exact interval allows: one may cost as much as 99 right
    calls bring, so that none among a few patients shows no gain.
    Vickers et al., BMC Med Inform Decis Mak 2008, doi:10.1186/1472-6947-8-53
    """
    parts = benefit_parts(probabilities, positive, thresholds)
    everybody = benefit_parts(np.ones(len(parts)), positive, thresholds)
    owner = testing.patient_numbers(patients, len(parts))
    half = _half_widths(parts, owner)
    value = parts.mean(axis=0)
    treat_all = everybody.mean(axis=0)
    apart = parts - np.where(treat_all > 0, everybody, 0.0)
    needless, missed = _unseen_costs(probabilities, positive, thresholds, owner)
    low, high = value - half - needless, value + half
    # Nobody is missed where everybody is treated: a missed patient counts in the comparison with that alone.
    gain_low = apart.mean(axis=0) - _half_widths(apart, owner) - needless - np.where(treat_all > 0, missed, 0.0)
    return DecisionCurve(np.asarray(thresholds, dtype=np.float64), value, treat_all, low, high, gain_low)


def _unseen_costs(
    probabilities: ArrayLike, positive: ArrayLike, thresholds: ArrayLike, owner: np.ndarray
) -> tuple[Floats, Floats]:
    """(thresholds,) what needless calls, and missed patients, may cost where these cases have none; 0 where they have.

    The upper end of the exact interval of none among the patients of that class (Clopper and Pearson).
    """
    chance, truth = _pair(probabilities, positive)
    levels = np.asarray(thresholds, dtype=np.float64)
    is_positive = truth > 0
    called = chance[:, None] >= levels
    costs = []
    for is_of_class, wrong, price in ((~is_positive, called, levels / (1 - levels)), (is_positive, ~called, 1.0)):
        most = intervals.clopper_pearson(0, len(np.unique(owner[is_of_class]))).high if is_of_class.any() else 0.0
        costs.append(np.where(wrong[is_of_class].any(axis=0), 0.0, float(most or 0.0) * is_of_class.mean() * price))
    return costs[0], costs[1]


def _half_widths(parts: Floats, owner: np.ndarray) -> Floats:
    """(columns,) half of the interval of each mean; NaN where all cases are alike, or all of one patient."""
    people = int(owner.max()) + 1
    sums = np.zeros((people, parts.shape[1]))
    np.add.at(sums, owner, parts - parts.mean(axis=0))
    if people < 2:
        return np.full(parts.shape[1], np.nan)
    error = np.sqrt((sums**2).sum(axis=0) * people / (people - 1)) / len(parts)
    return np.where(error > NOTHING, float(stats.t.ppf((1 + LEVEL) / 2, people - 1)) * error, np.nan)


def benefit_parts(probabilities: ArrayLike, positive: ArrayLike, thresholds: ArrayLike) -> Floats:
    """(cases, thresholds) what each case adds to the net benefit, which is the mean of them."""
    chance, truth = _pair(probabilities, positive)
    levels = np.asarray(thresholds, dtype=np.float64)
    if not ((levels >= 0) & (levels < 1)).all():
        raise UsageError("a threshold outside 0..1", "net benefit", "Give probabilities below 1")
    worth = np.where(truth[:, None] > 0, 1.0, -levels / (1 - levels))
    return np.asarray(worth * (chance[:, None] >= levels))


def _pair(probabilities: ArrayLike, positive: ArrayLike) -> tuple[Floats, Floats]:
    chance = _weighting.require_probabilities(probabilities, "probabilities")
    truth = _weighting.require_truths(positive, "positive")
    if not _weighting.have_same_cases(chance, truth):
        problem = f"{chance.shape} probabilities for {truth.shape} references"
        raise UsageError(problem, "probabilities", "Give one probability and one truth per case")
    return chance, truth.astype(np.float64)

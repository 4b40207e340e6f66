"""Probabilities beside what happened: goodness of fit, and what decisions by them are worth."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from isocenter.errors import UsageError
from isocenter.evaluation.significance.outcome import Test
from isocenter.evaluation.weighting import mean, weights_of
from isocenter.lazy import stats
from isocenter.values import Floats


def hosmer_lemeshow(
    probabilities: ArrayLike, positive: ArrayLike, groups: int = 10, *, is_fitted: bool = False
) -> Test:
    """Whether events are as frequent as predicted in groups by probability; `difference` is observed less predicted.

    is_fitted: whether these very cases fitted the probabilities, which takes two degrees of freedom
    A small p shows that they are off; a large one, of few cases, shows nothing.
    Hosmer and Lemeshow, Commun Stat Theory Methods 1980, doi:10.1080/03610928008827941
    """
    chance, truth = _paired(probabilities, positive)
    edges = np.unique(np.quantile(chance, np.linspace(0, 1, groups + 1)))
    place = np.clip(np.searchsorted(edges, chance, "left") - 1, 0, None)
    cases, expected, observed = (np.bincount(place, one) for one in (np.ones(len(chance)), chance, truth))
    free = len(cases) - 2 * is_fitted
    spread = expected * (1 - expected / np.maximum(cases, 1))
    parts = np.divide((observed - expected) ** 2, spread, out=np.zeros_like(spread), where=spread > 0)
    statistic = float("inf") if (np.abs(observed - expected)[spread <= 0] > 0).any() else float(parts.sum())
    p = float(stats.chi2.sf(statistic, free)) if free > 0 else float("nan")
    method = f"Hosmer-Lemeshow, {len(cases)} groups; chi-squared with {free} degrees of freedom"
    return Test(float(truth.mean() - chance.mean()), None, None, statistic, p, method)


def net_benefit(
    probabilities: ArrayLike, positive: ArrayLike, thresholds: ArrayLike, weights: Floats | None = None
) -> Floats:
    """(..., thresholds) right calls a case, less wrong ones by the odds of the threshold from which on one acts.

    weights: (..., cases) how often each case counts
    Probabilities of 1 are those of acting on everybody; nobody treated has a net benefit of 0.
    Vickers and Elkin, Med Decis Making 2006, doi:10.1177/0272989X06295361
    """
    parts = benefit_parts(probabilities, positive, thresholds)
    count = weights_of(weights, len(parts))
    return np.stack([mean(one, count) for one in parts.T], axis=-1)


def benefit_parts(probabilities: ArrayLike, positive: ArrayLike, thresholds: ArrayLike) -> Floats:
    """(cases, thresholds) what each case adds to the net benefit, which is the mean of them."""
    chance, truth = _paired(probabilities, positive)
    levels = np.asarray(thresholds, dtype=np.float64)
    if not ((levels >= 0) & (levels < 1)).all():
        raise UsageError("a threshold outside 0..1", "net benefit", "Give probabilities below 1")
    worth = np.where(truth[:, None] > 0, 1.0, -levels / (1 - levels))
    return np.asarray(worth * (chance[:, None] >= levels))


def _paired(probabilities: ArrayLike, positive: ArrayLike) -> tuple[Floats, Floats]:
    chance, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(positive, dtype=np.float64)
    if chance.ndim != 1 or chance.shape != truth.shape or not ((chance >= 0) & (chance <= 1)).all():
        problem = f"{chance.shape} probabilities for {truth.shape} references, or one outside 0..1"
        raise UsageError(problem, "probabilities", "Give one probability and one truth a case")
    return chance, truth

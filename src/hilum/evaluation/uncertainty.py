"""The entropy of probabilities, in nats; how well an order of cases by doubt keeps mistakes for the end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from hilum.errors import UsageError
from hilum.evaluation import _weighting
from hilum.lazy import special
from hilum.values import Array, Floats

# p log p of less is 0, as it is in the limit.
SMALLEST = float(np.finfo(np.float32).tiny)


def entropy(probabilities: Array | Sequence[Array], *, exclusive: bool = True) -> Floats:
    """(...) nats of (classes, ...) probabilities: 0 where one is certain, log(classes) where all are as likely.

    exclusive: False for labels that are each there or not, of which the entropies add up
    Shannon, Bell Syst Tech J 1948, doi:10.1002/j.1538-7305.1948.tb01338.x
    """
    total = np.zeros(np.shape(probabilities[0]), dtype=np.float32)
    for chance in probabilities:
        for side in (chance,) if exclusive else (chance, 1 - chance):
            total -= side * np.log(np.maximum(side, SMALLEST))
    return np.maximum(total, 0.0)


def risk_coverage(doubt: ArrayLike, loss: ArrayLike) -> tuple[Floats, Floats]:
    """(cases,) shares of cases that are answered, the least doubtful first, and the mean loss among these.

    Cases of equal doubt have the mean of their losses, as on average over their orders.
    """
    losses, order, starts = _in_order(doubt, loss)
    sizes = np.diff(np.append(starts, len(order)))
    alike = np.repeat(np.add.reduceat(losses[order], starts) / sizes, sizes)
    counts = np.arange(1, len(order) + 1)
    return counts / len(order), np.cumsum(alike) / counts


def aurc(doubt: ArrayLike, loss: ArrayLike, weights: Floats | None = None) -> Floats:
    """Mean over all coverages of the mean loss among the cases that are answered: the area under that curve.

    doubt, loss: (cases,); weights: (draws, cases), of which whole ones are as many such cases
    Cases of equal doubt have the mean of their losses, under each weighting its own.
    Geifman and El-Yaniv, NeurIPS 2017, arXiv:1705.08500; Jaeger et al., ICLR 2023, arXiv:2211.15259
    """
    losses, order, starts = _in_order(doubt, loss)
    counts = _weighting.case_weights(weights, len(order))[..., order]
    groups = np.add.reduceat(counts, starts, axis=-1)
    lost = np.add.reduceat(counts * losses[order], starts, axis=-1)
    before = np.cumsum(groups, axis=-1) - groups
    lost_before = np.cumsum(lost, axis=-1) - lost
    mean = np.nan_to_num(_weighting.ratio_or_nan(lost, groups))
    # After c cases that lost s, the mean loss among c + j, with j more that lose m each, is m + (s - c m) / (c + j):
    # the sum of 1 / (c + j) over j is a difference of harmonic numbers.
    harmonic = special.digamma(before + groups + 1) - special.digamma(before + 1)
    return _weighting.ratio_or_nan(
        (groups * mean + (lost_before - before * mean) * harmonic).sum(axis=-1), groups.sum(axis=-1)
    )


def excess_aurc(doubt: ArrayLike, loss: ArrayLike, weights: Floats | None = None) -> Floats:
    """The area less that of the best order, which knows every loss. Geifman et al., arXiv:1805.08206"""
    return aurc(doubt, loss, weights) - aurc(loss, loss, weights)


def _in_order(doubt: ArrayLike, loss: ArrayLike) -> tuple[Floats, np.ndarray, np.ndarray]:
    """(cases,) losses, the order of rising doubt, and the places in it where cases of equal doubt begin."""
    doubts = np.asarray(doubt, dtype=np.float64)
    losses = np.asarray(loss, dtype=np.float64)
    if (
        not _weighting.have_same_cases(doubts, losses)
        or not len(doubts)
        or np.isnan(doubts).any()
        or np.isnan(losses).any()
    ):
        problem = f"doubt of {doubts.shape} for losses of {losses.shape}, or one that is NaN"
        raise UsageError(problem, "aurc", "Give one doubt and one loss for each case")
    order = np.argsort(doubts, kind="stable")
    return losses, order, np.unique(doubts[order], return_index=True)[1]

"""The entropy of probabilities, in nats; how well an order of cases by doubt keeps mistakes for the end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from isocenter.errors import UsageError
from isocenter.evaluation.weighting import are_paired, ratio, weights_of
from isocenter.values import Array, Floats

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
    losses = _in_order(doubt, loss)[1]
    counts = np.arange(1, len(losses) + 1)
    return counts / len(losses), np.cumsum(losses) / counts


def aurc(doubt: ArrayLike, loss: ArrayLike, weights: Floats | None = None) -> Floats:
    """Mean over all coverages of the mean loss among the cases that are answered: the area under that curve.

    doubt, loss: (cases,); weights: (draws, cases)
    Geifman and El-Yaniv, NeurIPS 2017, arXiv:1705.08500; Jaeger et al., ICLR 2023, arXiv:2211.15259
    """
    order, losses = _in_order(doubt, loss)
    counts = weights_of(weights, len(losses))[..., order]
    among = ratio(np.cumsum(counts * losses, axis=-1), np.cumsum(counts, axis=-1))
    return ratio((counts * np.nan_to_num(among)).sum(axis=-1), counts.sum(axis=-1))


def excess_aurc(doubt: ArrayLike, loss: ArrayLike, weights: Floats | None = None) -> Floats:
    """What the area is above that of the best order, which knows every loss. Geifman et al., arXiv:1805.08206"""
    return aurc(doubt, loss, weights) - aurc(loss, loss, weights)


def _in_order(doubt: ArrayLike, loss: ArrayLike) -> tuple[np.ndarray, Floats]:
    """The order of rising doubt, and the losses in it, those of equal doubt as their mean."""
    doubts, losses = np.asarray(doubt, dtype=np.float64), np.asarray(loss, dtype=np.float64)
    if not are_paired(doubts, losses) or not len(doubts) or np.isnan(doubts).any() or np.isnan(losses).any():
        problem = f"doubt of {doubts.shape} for losses of {losses.shape}, or one that is NaN"
        raise UsageError(problem, "aurc", "Give one doubt and one loss for each case")
    order = np.argsort(doubts, kind="stable")
    _, group = np.unique(doubts[order], return_inverse=True)
    return order, (np.bincount(group, losses[order]) / np.bincount(group))[group]

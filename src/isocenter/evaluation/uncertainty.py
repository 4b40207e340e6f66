"""Entropy of probabilities, in nats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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

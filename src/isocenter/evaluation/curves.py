"""How far a curve could lie from the truth, point by point."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from isocenter.evaluation.intervals import FEW_PATIENTS, LEVEL, reweighted
from isocenter.values import Floats

# Points of 1 - specificity at which the sensitivity is looked at.
POINTS = 101


def roc_band(
    scores: ArrayLike, positive: ArrayLike, patients: ArrayLike, *, seed: int, draws: int = 500
) -> tuple[Floats, Floats, Floats] | None:
    """1 - specificity, and the lowest and highest sensitivity there in 95 % of draws of patients within their class.

    None where a class has fewer than ten patients: a band would seem to say more than is known.
    Each point has its own interval; the whole curve leaves the band more often. Macskassy and Provost, ROCAI 2004
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    owners = np.asarray(patients)
    if min(len(np.unique(owners[side])) for side in (truth, ~truth)) < FEW_PATIENTS:
        return None
    # From the highest score down; cases of equal score enter together.
    order = np.argsort(-values, kind="stable")
    last = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)
    across = np.linspace(0, 1, POINTS)
    found = []
    for weights in reweighted(owners, strata=truth, seed=seed, draws=draws):
        counts = weights[:, order]
        right, wrong = (np.cumsum(counts * side[order], axis=1)[:, last] for side in (truth, ~truth))
        for hit, false in zip(right, wrong, strict=True):
            found.append(np.interp(across, np.append(0, false / false[-1]), np.append(0, hit / hit[-1])))
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return across, low, high

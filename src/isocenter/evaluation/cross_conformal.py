"""Sets and intervals of the mean of several networks, each trained without its fold (CV+).

Their coverage is at least 2 level - 1, less what few patients cost, and usually near the level.

A candidate is in a set unless too many cases, each scored by the network that has not seen it, went better with their
truth than the candidate goes with the same network. Barber et al., arXiv:1905.02928 (values); Romano et al.,
arXiv:2006.02544 (classes); several cases of a patient share his weight, as in Lee et al., arXiv:2306.06342.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from isocenter.evaluation.conformal import ROUNDING, Steps, Truths, ordered_ends, shares_of
from isocenter.values import Floats

# Scores of a network that a model carries: of more the next larger ones stand for them, which makes sets no smaller.
MOST_STEPS = 64


def cross_steps(scores: ArrayLike, folds: ArrayLike, networks: int, patients: ArrayLike | None = None) -> Steps:
    """Steps that sets and intervals of the mean of so many networks need.

    scores: (n,) of calibration cases by the network that has not seen them; NaN counts as worse than any
    folds:  (n,) the number of that network, from 0
    """
    own, numbers = np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=np.inf, posinf=np.inf), np.asarray(folds)
    shares, _ = shares_of(len(own), patients)
    return tuple(_steps(own[numbers == one], shares[numbers == one]) for one in range(networks))


def cross_sets(steps: Steps, candidates: ArrayLike, level: float) -> Truths:
    """(...) which candidates are in the set; candidates: (networks, ...) their scores by each of the networks."""
    offered = np.asarray(candidates, dtype=np.float64)
    better = np.zeros(offered.shape[1:])
    for own, each in zip(steps, offered, strict=True):
        reached = np.cumsum([0.0, *(share for _, share in own)])
        better += reached[np.searchsorted([score for score, _ in own], each, side="left")]
    return np.isnan(offered).any(axis=0) | (better < level * (people_of(steps) + 1) - ROUNDING)


def cross_interval(
    steps: Steps, low: ArrayLike, high: ArrayLike, widths: ArrayLike, level: float
) -> tuple[float, float]:
    """The ends of an interval, infinite with too few patients, and both midway where they would pass each other.

    low, high: (networks,) what each says of a new case: one value, or its quantiles
    widths:    (networks,) by which a score is multiplied, an error bar or 1
    """
    above = cross_lower_bound(steps, -np.asarray(high), level, widths)
    return ordered_ends(cross_lower_bound(steps, low, level, widths), -above)


def cross_lower_bound(steps: Steps, values: ArrayLike, level: float, widths: ArrayLike = 1.0) -> float:
    """The lower end alone, which negative scores may move above the values; minus infinity with too few patients.

    values: (networks,) what each says of a new case; widths: (networks,) by which a score is multiplied, or 1
    """
    each = zip(steps, np.asarray(values), np.broadcast_to(np.asarray(widths), len(steps)), strict=True)
    rows = [(value - score * wide, share) for own, value, wide in each for score, share in own]
    downwards, shares = np.array(rows, dtype=np.float64).reshape(-1, 2).T
    return -_reached(-downwards, shares, level * (people_of(steps) + 1))


def people_of(steps: Steps) -> int:
    """The patients whose cases were scored."""
    return round(sum(share for own in steps for _, share in own))


def cross_bound(steps: Steps, level: float) -> float:
    """The coverage that is surely held: 2 level - 1 less what few patients cost; Barber et al., theorem 4."""
    people, networks = people_of(steps), len(steps)
    if people < networks:
        return 0.0
    lost = min(2 * (1 - 1 / networks) / (people / networks + 1), (1 - networks / people) / (networks + 1))
    return max(0.0, 2 * level - 1 - lost)


def _steps(scores: Floats, shares: Floats) -> tuple[tuple[float, float], ...]:
    order = np.argsort(scores, kind="stable")
    parts = np.array_split(order, min(len(order), MOST_STEPS) or 1)
    return tuple((float(scores[part[-1]]), float(shares[part].sum())) for part in parts if len(part))


def _reached(ends: Floats, shares: Floats, count: float) -> float:
    """The first of the ends, from the smallest on, by which so much is counted; infinite where it is never."""
    order = np.argsort(ends, kind="stable")
    there = np.cumsum(shares[order]) >= count - ROUNDING
    return float(ends[order][np.argmax(there)]) if there.any() else math.inf

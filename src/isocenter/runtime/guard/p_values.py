"""How rare a distance is among cases that did not train, as a conformal p-value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Of the largest distances, the part from which the tail goes on, and how many of them at most.
TAIL, MOST_OF_TAIL = 0.5, 30
# Of a distance, what is no difference.
ROUNDING = 1e-9


def p_value(distance: float, held_out: NDArray[np.float64], smallest: float, least: float = 0.0) -> float:
    """The share of cases like the held-out ones that lie at least as far away.

    held_out: (n,) distances of cases that did not train, sorted
    smallest: the p-value that has to be told apart; where so many cases cannot, the tail is extrapolated
    least:    mean excess of the tail, at least: cases that are all alike say nothing of how far others may lie
    With enough cases it is (1 + number as far away) / (n + 1), uniform for a case like these (Vovk et al., 2005).
    Beyond the u-th largest the excesses are else taken as exponential: of k of them with the sum s a further one is
    above x with probability (1 + x / s)^-k, whatever their mean. Distances have lighter tails, so that it errs upwards.
    """
    count = len(held_out)
    if not np.isfinite(distance):
        return 0.0
    counted = (1 + int(np.sum(held_out >= distance))) / (count + 1)
    if is_enough(count, smallest):
        return counted
    k = min(max(1, int(TAIL * count)), MOST_OF_TAIL, count - 1)
    threshold, excesses = held_out[-k - 1], held_out[-k:] - held_out[-k - 1]
    if distance <= threshold:
        return counted
    total = max(float(excesses.sum()), k * least, ROUNDING * distance)
    return float((k + 1) / (count + 1) * np.exp(-k * np.log1p((distance - threshold) / total)))


def is_enough(count: int, smallest: float) -> bool:
    """Whether so many cases tell such a p-value without extrapolation."""
    return (count + 1) * smallest >= 1

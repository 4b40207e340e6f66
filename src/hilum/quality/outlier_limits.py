"""How far a case lies from the others of its set, and from where on that is unusual."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hilum.lazy import special
from hilum.values import Floats

# With fewer cases nobody knows what is usual; one case among more than `MANY` changes neither median nor spread.
FEWEST, MANY = 8, 200
# Degrees of freedom of the tails, for the root of the number of cases: few cases show little of how far one may lie
# from the others. Chosen on sets drawn from hippocampi, tumours, hearts and nuclei, in which at most one in twenty sets
# may have a case named (bench/mask_faults.py).
FREEDOM, LEAST_FREEDOM, MOST_FREEDOM = 1.6, 3.0, 20.0
# A normal distribution has these shares below its standard deviation, and below 1.2816 and (of distances) 1.6449 of it.
ONE_SIGMA, NINE_TENTHS, NINE_TENTHS_SIGMA, TWO_SIDED_SIGMA = 0.8413, 0.9, 1.2816, 1.6449
# A median absolute deviation is so many times smaller than the standard deviation of a normal distribution.
TO_SIGMA = 1.4826


def threshold(cases: int, measures: int, alpha: float) -> float:
    """Robust standard deviations that no case of a right set exceeds in any measure, but with a chance of alpha.

    Bonferroni over cases and measures; the tails are those of Student's t, heavy where few cases are known.
    """
    freedom = float(np.clip(FREEDOM * np.sqrt(cases) - 1, LEAST_FREEDOM, MOST_FREEDOM))
    return -float(special.stdtrit(freedom, alpha / (cases * measures)))


def upper_deviations(values: Floats, least: float) -> Floats:
    """(cases,) how far each lies above the median of the others, in robust standard deviations of their upper half."""

    def upper_half(others: Floats) -> tuple[float, float]:
        middle = float(np.median(others))
        absolute = TO_SIGMA * float(np.median(np.abs(others - middle)))
        one_sigma, tenth = (np.quantile(others, [ONE_SIGMA, NINE_TENTHS]) - middle).tolist()
        return middle, max(absolute, one_sigma, tenth / NINE_TENTHS_SIGMA, least)

    return _from_others(values, upper_half)


def deviations_from_others(values: Floats, least: float) -> Floats:
    """(cases,) how far each lies from the median of the others, in robust standard deviations, with its sign."""

    def both_sides(others: Floats) -> tuple[float, float]:
        middle = float(np.median(others))
        distances = np.abs(others - middle)
        absolute = TO_SIGMA * float(np.median(distances))
        return middle, max(absolute, float(np.quantile(distances, NINE_TENTHS)) / TWO_SIDED_SIGMA, least)

    return _from_others(values, both_sides)


def _from_others(values: Floats, middle_and_spread: Callable[[Floats], tuple[float, float]]) -> Floats:
    """(cases,) deviations from the other cases; where these are many, from all."""
    if len(values) > MANY:
        middle, spread = middle_and_spread(values)
        return np.asarray((values - middle) / spread)
    deviations = np.empty(len(values))
    for number, value in enumerate(values):
        middle, spread = middle_and_spread(np.delete(values, number))
        deviations[number] = (value - middle) / spread
    return deviations

"""Numbers of cases that are in two units, or far outside of all others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from hilum import errors
from hilum.values import Floats, Problem
from hilum.values.covariate_values import UNIT_FACTORS, KnownRange

# Of fewer values chance makes patterns.
FEWEST = 20
# Others that show where a number lies, though they are too few for patterns.
FEWEST_OTHERS = 5
# Two units are two heaps: of so many values at least, with an empty room between them of so many of their deviations,
# and apart by the factor within so many of their standard errors and this share of its logarithm.
FEWEST_OF_UNIT, ROOM, ERRORS, OFF = 3, 3.0, 4.0, 0.1
# A value so many interquartile ranges beyond the quartiles is no tail: of a normal distribution one in 10^13 is. By its
# logarithm a small value has to be twice as far, because 0 is infinitely far there.
FAR = 5.0


def number_problems(name: str, numbers_of: Mapping[str, float]) -> Iterator[Problem]:
    """Findings on a named number of cases: a column of two units, else values far outside of all others.

    numbers_of: {case: its number}; of fewer than 20 chance makes patterns, but for one that a unit alone explains
    """
    numbers = np.array(list(numbers_of.values()))
    if len(numbers) == 0 or np.ptp(numbers) == 0:
        return
    if len(numbers) < FEWEST:
        yield from _in_another_unit(name, numbers_of)
        return
    if (mixed := mixed_units(numbers)) is not None:
        factor, larger = mixed
        yield Problem.warning(
            f"{name} seems to be in two units: {errors.count_phrase(int(larger.sum()), 'value')} of {len(numbers)} "
            f"are about {factor:g} times as large as the others ({UNIT_FACTORS[factor]})",
            _case_names(numbers_of, larger if larger.sum() <= len(numbers) / 2 else ~larger),
            "the model learns from values that mean something else",
            "Bring all to one unit",
        )
        return
    if (far := far_outside(numbers)).any():
        extreme = ", ".join(f"{value:g}" for value in sorted(numbers[far].tolist())[:3])
        yield Problem.warning(
            f"{name} has {errors.count_phrase(int(far.sum()), 'value')} far outside all others: {extreme} where "
            f"the middle half lies between {np.quantile(numbers, 0.25):g} and {np.quantile(numbers, 0.75):g}",
            _case_names(numbers_of, far),
            "a typing error would be learnt, and distorts every mean",
            "Look at them, and correct what is wrong",
        )


def mixed_units(values: Floats) -> tuple[float, np.ndarray] | None:
    """(factor, (values,) which are the larger) where positive values lie in two heaps apart by a factor of units.

    Judged by logarithms, in which another unit is a shift. Skewed and heavy-tailed values are one heap there.
    """
    if (values <= 0).any():
        return None
    logs = np.log(values)
    ordered = np.sort(logs)
    gaps = np.diff(ordered)[FEWEST_OF_UNIT - 1 : 1 - FEWEST_OF_UNIT]
    if not gaps.size:
        return None
    boundary = int(gaps.argmax()) + FEWEST_OF_UNIT
    low, high = ordered[:boundary], ordered[boundary:]
    within = np.concatenate([low - np.median(low), high - np.median(high)])
    deviation = float(np.sqrt((within**2).sum() / (len(within) - 2)))
    if gaps.max() < ROOM * deviation:
        return None
    apart = float(np.median(high) - np.median(low))
    error = 1.25 * deviation * float(np.sqrt(1 / len(low) + 1 / len(high)))  # of a difference of medians
    for factor in UNIT_FACTORS:
        shift = float(np.log(factor))
        if abs(apart - shift) <= min(ERRORS * error, OFF * shift) + 1e-9:
            return factor, logs > ordered[boundary - 1]
    return None


def far_outside(values: Floats) -> np.ndarray:
    """(values,) which are no tail of the others: of positive values by their logarithms, which skew makes even."""
    by_logarithm = bool((values >= 0).all())
    is_judged = values > 0 if by_logarithm else np.ones(len(values), dtype=bool)
    judged = np.log(np.where(is_judged, values, 1.0)) if by_logarithm else values
    if is_judged.sum() < FEWEST:
        return np.zeros(len(values), dtype=bool)
    low, high = np.quantile(judged[is_judged], [0.25, 0.75])
    room = FAR * (high - low)
    if room == 0:  # more than half are alike: nothing says how far is far
        return np.zeros(len(values), dtype=bool)
    return np.asarray(is_judged & ((judged < low - (2 if by_logarithm else 1) * room) | (judged > high + room)))


def _in_another_unit(name: str, numbers_of: Mapping[str, float]) -> Iterator[Problem]:
    """A warning for each of few numbers that lies far outside of all others, and among them in another unit."""
    for case, number in numbers_of.items():
        others = np.array([other for own, other in numbers_of.items() if own != case])
        if len(others) < FEWEST_OTHERS or others.std() == 0:
            continue
        known = KnownRange(others.min(), others.max(), float(others.mean()), float(others.std()))
        # Few others do not reach as far as all people do: the smallest of all may be the one in another unit.
        room = (known.high - known.low) / 2
        factors = replace(known, low=known.low - room, high=known.high + room).unit_factors(number)
        reason = known.why_far(number, "the others")
        if factors and reason:
            words = reason if known.unit_factors(number) else f"{reason}; {factors[0]}"
            yield Problem.warning(
                f"{name} is {number:g}, {words}",
                (case,),
                "the model learns from a value that means something else",
                "Look at it, and bring all to one unit",
            )


def _case_names(values: Mapping[str, float], chosen: np.ndarray) -> tuple[str, ...]:
    return tuple(name for name, one in zip(values, chosen, strict=True) if one)

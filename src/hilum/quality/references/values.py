"""Measured values, named numbers of each case: constants, identifiers, mixed units, values far outside."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hilum import errors
from hilum.quality import covariate_checks
from hilum.report import Figure
from hilum.report.figures import charts
from hilum.values import (
    Case,
    Cohort,
    Dataset,
    Fingerprint,
    Floats,
    Problem,
    ReferenceChecks,
    ReferenceFacts,
    ReferenceKind,
    ReferenceWords,
)
from hilum.values.reference_kind import ReferenceStrata

KIND = "value"
# Cases are spread over the parts of a split by the quarters of a value, or by fewer levels of at least so many cases.
MOST_LEVELS, FEWEST_OF_LEVEL = 4, 10

# What one unit is in another: inches in cm; mm in cm or l in dl; cm in m, or mm² in cm²; mm³ in ml, g in kg, m in mm.
FACTORS: Mapping[float, str] = {
    2.54: "inches beside cm",
    10.0: "mm beside cm",
    100.0: "cm beside m, or mm² beside cm²",
    1000.0: "mm³ beside ml, or g beside kg",
}
# Of fewer values chance makes patterns.
FEWEST = 20
# Two units are two heaps: of so many values at least, with an empty room between them of so many of their deviations,
# and apart by the factor within so many of their standard errors and this share of its logarithm.
FEWEST_OF_UNIT, ROOM, ERRORS, OFF = 3, 3.0, 4.0, 0.1
# A value so many interquartile ranges beyond the quartiles is no tail: of a normal distribution one in 10^13 is. By its
# logarithm a small value has to be twice as far, because 0 is infinitely far there.
FAR = 5.0
# A word of a column's name that says what a number is for.
NAMING = frozenset({"id", "ids", "identifier", "index", "number", "no", "nr", "code", "mrn", "accession", "record"})
# Whole numbers that all differ and lie so densely count the cases.
DENSE = 2.0


def _answers(summary: Any) -> Mapping[str, tuple[float, bool]]:
    return {name: (float(value), True) for name, value in summary.items()}


def _count(fingerprint: Fingerprint) -> Mapping[str, Mapping[str, float]]:
    """{name: how many cases have it, their mean and standard deviation}"""
    return {
        name: {"cases": len(values), "mean": float(values.mean()), "deviation": float(values.std())}
        for name, values in fingerprint.values(KIND).items()
    }


def _cohort_problems(cohort: Cohort) -> Iterator[Problem]:
    """Findings on each named value of the cases that have it."""
    values: dict[str, dict[str, float]] = {}
    for case, summary in cohort.summaries(KIND).items():
        for name, value in summary.items():
            values.setdefault(name, {})[case] = float(value)
    training = {case.id for case in cohort.training.cases}
    for name, numbers_of in values.items():
        yield from _constant(name, [value for case, value in numbers_of.items() if case in training], cohort.dataset)
        numbers = np.array(list(numbers_of.values()))
        if len(numbers) < FEWEST or np.ptp(numbers) == 0:
            continue
        if is_identifier(name, numbers):
            yield Problem.warning(
                f"{name} seems to be an identifier: {len(numbers)} whole numbers, no two of them alike",
                (),
                "no image can show it",
                "Give the column of a measurement",
            )
            continue
        if (mixed := mixed_units(numbers)) is not None:
            factor, larger = mixed
            yield Problem.warning(
                f"{name} seems to be in two units: {errors.count_phrase(int(larger.sum()), 'value')} of {len(numbers)} "
                f"are about {factor:g} times as large as the others ({FACTORS[factor]})",
                _case_names(numbers_of, larger if larger.sum() <= len(numbers) / 2 else ~larger),
                "the model learns from values that mean something else",
                "Bring all to one unit",
            )
            continue
        if (far := far_outside(numbers)).any():
            extreme = ", ".join(f"{value:g}" for value in sorted(numbers[far].tolist())[:3])
            yield Problem.warning(
                f"{name} has {errors.count_phrase(int(far.sum()), 'value')} far outside all others: {extreme} where "
                f"the middle half lies between {np.quantile(numbers, 0.25):g} and {np.quantile(numbers, 0.75):g}",
                _case_names(numbers_of, far),
                "a typing error would be learnt, and distorts every mean",
                "Look at them, and correct what is wrong",
            )


def is_identifier(name: str, values: Floats) -> bool:
    """Whole numbers, all different, that a column's name calls so or that lie as densely as a count."""
    if not (values == np.rint(values)).all() or len(np.unique(values)) < len(values):
        return False
    words = covariate_checks.column_words(name) | set(re.split(r"[\W_\d]+", name.lower()))
    return bool(words & NAMING or np.ptp(values) < DENSE * len(values))


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
    for factor in FACTORS:
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


def _constant(name: str, values: list[float], dataset: Dataset) -> Iterator[Problem]:
    if len(set(values)) > 1:
        return
    what = f"{name} is {values[0]:g} in all {len(values)} training cases" if len(values) > 1 else ""
    yield Problem(
        # Other references can still be learnt.
        "error" if dataset.kinds == {KIND} else "warning",
        what or f"{errors.count_phrase(len(values), 'training case has', 'training cases have')} a value of {name}",
        (),
        "there is nothing to learn",
        "Give cases that differ, or leave the column out",
    )


def _case_names(values: Mapping[str, float], chosen: np.ndarray) -> tuple[str, ...]:
    return tuple(name for name, one in zip(values, chosen, strict=True) if one)


def _strata(cases: Sequence[Case]) -> Mapping[str, Sequence[str]]:
    """The level of each case in the value that most cases have."""
    measured = {case.id: case.references[KIND] for case in cases if KIND in case.references}
    counts = Counter(name for values in measured.values() for name in values)
    first = min(counts, key=lambda name: (-counts[name], name), default="")
    ranked = sorted((one for one in measured if first in measured[one]), key=lambda case: (measured[case][first], case))
    levels = min(MOST_LEVELS, max(1, len(ranked) // FEWEST_OF_LEVEL))
    return {case: [f"part {place * levels // len(ranked)} of {first}"] for place, case in enumerate(ranked)}


def _lines(cohort: Cohort) -> Mapping[str, str]:
    values = cohort.fingerprint.values()
    return {"values": "; ".join(f"{name} {_spread_words(own)}" for name, own in values.items())} if values else {}


def _spread_words(values: Floats) -> str:
    """The number of values, and their range."""
    low, middle, high = np.quantile(values, [0, 0.5, 1]).tolist()
    return f"{low:.4g} to {high:.4g}, median {middle:.4g} ({errors.count_phrase(len(values), 'case')})"


def _charts(cohort: Cohort) -> Iterator[Figure]:
    """Charts of the distribution of each measured value."""
    for name, values in cohort.fingerprint.values().items():
        if np.ptp(values) > 0:
            yield charts.histogram_chart({name: values}, f"Values: {name}", axis=name)


VALUE = ReferenceKind(
    KIND,
    ReferenceFacts(answers=_answers, is_measured=True, counted=_count),
    ReferenceChecks(cohort=_cohort_problems),
    ReferenceStrata(_strata, rank=2, words="small and large values"),
    ReferenceWords("values", "{name} can be told", _lines, _charts),
)

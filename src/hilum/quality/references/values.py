"""Measured values, named numbers of each case: constants, identifiers, mixed units, values far outside."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hilum import errors
from hilum.quality import covariate_checks, number_checks
from hilum.quality.number_checks import FEWEST
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
        yield from number_checks.number_problems(name, numbers_of)


def is_identifier(name: str, values: Floats) -> bool:
    """Whole numbers, all different, that a column's name calls so or that lie as densely as a count."""
    if not (values == np.rint(values)).all() or len(np.unique(values)) < len(values):
        return False
    words = covariate_checks.column_words(name) | set(re.split(r"[\W_\d]+", name.lower()))
    return bool(words & NAMING or np.ptp(values) < DENSE * len(values))


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

"""Courses of covariates as numbers: over which time, and in how many stretches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isocenter.errors import listed
from isocenter.quality import PROXY, label_association
from isocenter.runtime import Monitored
from isocenter.values import course_in, is_missing, number_in

# Of the courses so many end by the last moment that is looked at; a few very long ones do not leave all others blank.
ENDED = 0.9
# About as many stretches as the middle course has readings, of these at the least and at the most.
FEWEST, MOST = 8, 64
CHE = "doi:10.1038/s41598-018-24271-9"


@dataclass(frozen=True)
class Along:
    """The stretches of time that all that is monitored is told in.

    start, stop: in s where `unit` says so
    """

    start: float
    stop: float
    stretches: int
    unit: str

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.stretches} stretches from {self.start:g} to {self.stop:g}{unit}"


def is_monitored(values: Sequence[Any]) -> bool:
    """Whether it changed in anybody while it was read."""
    return any(course_in(one) is not None and number_in(course_in(one)) is None for one in values)


def along(columns: Mapping[str, Sequence[Any]]) -> Along | str:
    """For the columns that are monitored, as the training cases have them; or why it cannot be."""
    courses = [course for values in columns.values() for course in map(course_in, values) if course is not None]
    if len(units := sorted({one.unit or "no unit" for one in courses})) > 1:
        return f"its times are in {listed(units)}"
    start = float(np.quantile([one.times[0] for one in courses], 1 - ENDED))
    stop = float(np.quantile([one.times[-1] for one in courses], ENDED))
    if not start < stop:
        return "it was measured at one time only"
    count = int(np.clip(np.median([len(one.times) for one in courses]), FEWEST, MOST))
    return Along(float(f"{start:.6g}"), float(f"{stop:.6g}"), count, courses[0].unit)


def monitored(
    name: str, values: Sequence[Any], when: Along, references: list[Mapping[str, Any]], patients: list[str]
) -> Monitored | str:
    """How the column becomes numbers, or why it is left out."""
    courses = [course_in(one) for one in values]
    if strange := sum(one is None and not is_missing(value) for one, value in zip(courses, values, strict=True)):
        return f"{strange} training cases have words, not numbers"
    if (score := label_association(list(courses), references, patients)) >= PROXY:
        of = "its mean, its end, or how long or often it was read"
        return f"a proxy of the label: {of} predicts it (score {score:.3f} of 1)"
    read = np.concatenate([one.values for one in courses if one is not None])
    missing = sum(one is None for one in courses) / len(courses)
    mean, deviation, missing = (float(f"{one:.6g}") for one in (read.mean(), read.std(), missing))
    return Monitored(name, when.start, when.stop, when.stretches, mean, deviation, missing, when.unit)

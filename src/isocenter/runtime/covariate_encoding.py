"""Covariates as the vector that a network is given beside an image. A copy of this file travels with a model.

A number is standardised, and stands at the median where it is missing; of a category each level has an entry. Whether
something was missing is an entry too, where training cases lacked it. Every entry is centred by the training cases:
the average patient is the origin. What was read time and again is the mean of each stretch of time, or the last one
before, and by 1 or 0 whether anything was read then (Che et al., doi:10.1038/s41598-018-24271-9). Which of several
images a case has is told too, by 1 or 0 as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import PlanError
from isocenter.values import course_in, is_missing, level_in, number_in

# What a category's entry for missing and rare levels is called.
UNKNOWN = "unknown"
# Before a channel's name, so that a covariate may have the same.
IMAGE = "image:"
# Columns of a patient that are noted one by one; of more only how many they are.
MOST_NOTES = 12


@dataclass(frozen=True)
class Number:
    """median, mean, deviation: of the training cases; missing: share of those without a value"""

    name: str
    median: float
    mean: float
    deviation: float
    missing: float = 0.0

    @property
    def entries(self) -> tuple[str, ...]:
        return (self.name, *((f"{self.name} missing",) if self.missing > 0 else ()))

    @property
    def settings(self) -> dict[str, Any]:
        return {"median": self.median, "mean": self.mean, "deviation": self.deviation, "missing": self.missing}

    def encoded(self, value: Any) -> tuple[list[float], str]:
        """Its entries, and what has to be known of how they came about; empty where nothing has."""
        found = None if is_missing(value) else number_in(value)
        known = self.median if found is None else found
        made = [(known - self.mean) / self.deviation]
        made += [(1.0 if found is None else 0.0) - self.missing] if self.missing > 0 else []
        if found is not None:
            return made, ""
        said = "missing" if is_missing(value) else f"{value!r}, no number"
        return made, f"{self.name} is {said}: taken as {self.median:g}, the median of the training cases"


@dataclass(frozen=True)
class Category:
    """levels: {level: share of the training cases}; missing: share of those without a value, or with a rare one"""

    name: str
    levels: Mapping[str, float]
    missing: float = 0.0

    @property
    def entries(self) -> tuple[str, ...]:
        return (*(f"{self.name} {level}" for level in self._shares),)

    @property
    def settings(self) -> dict[str, Any]:
        return {"levels": dict(self.levels), "missing": self.missing}

    @property
    def _shares(self) -> dict[str, float]:
        return {**self.levels, **({UNKNOWN: self.missing} if self.missing > 0 else {})}

    def encoded(self, value: Any) -> tuple[list[float], str]:
        level, note = (UNKNOWN, "missing") if is_missing(value) else (level_in(value), "")
        if level not in self.levels:
            note = note or f"{value!r}, which few or no training cases were"
            most = max(self.levels, key=lambda one: self.levels[one])
            level = UNKNOWN if self.missing > 0 else most
            taken = "taken as unknown, as it was of some of them" if self.missing > 0 else f"taken as {most}, as most"
            note = f"{self.name} is {note}: {taken}"
        return [float(one == level) - share for one, share in self._shares.items()], note


@dataclass(frozen=True)
class Presence:
    """Whether a case has an image: 1 or 0, not centred, because a network leaves out by it what is not there.

    name:  "image:" and the channel
    there: share of the training cases that have it
    """

    name: str
    there: float = 1.0

    @classmethod
    def of(cls, channel: str, there: float) -> Presence:
        return cls(f"{IMAGE}{channel}", there)

    @property
    def channel(self) -> str:
        return self.name.removeprefix(IMAGE)

    @property
    def entries(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def settings(self) -> dict[str, Any]:
        return {"there": self.there}


@dataclass(frozen=True)
class Monitored:
    """What is read time and again, as stretches of equal length.

    start, stop:     of the time that is looked at; in s where `unit` says so, else as the tables count
    stretches:       how many
    mean, deviation: of all that was read in the training cases
    missing:         share of those without any
    """

    name: str
    start: float
    stop: float
    stretches: int
    mean: float
    deviation: float
    missing: float = 0.0
    unit: str = ""

    @property
    def entries(self) -> tuple[str, ...]:
        length = (self.stop - self.start) / self.stretches
        begins = [f"{self.start + n * length:g}{f' {self.unit}' if self.unit else ''}" for n in range(self.stretches)]
        return (*(f"{self.name} from {one}" for one in begins), *(f"{self.name} read from {one}" for one in begins))

    @property
    def settings(self) -> dict[str, Any]:
        told = {"start": self.start, "stop": self.stop, "stretches": self.stretches}
        told |= {"mean": self.mean, "deviation": self.deviation, "missing": self.missing}
        return {**told, **({"unit": self.unit} if self.unit else {})}

    def encoded(self, value: Any) -> tuple[list[float], str]:
        """Its entries, and what has to be known of how they came about; PlanError for times of another unit."""
        course = course_in(value, self.unit)  # pairs say no unit: they are in the model's
        if course is None:
            said = "missing" if is_missing(value) else f"{value!r}, no readings with their times"
            return [0.0] * 2 * self.stretches, f"{self.name} is {said}: taken as never read"
        if course.unit != self.unit:
            units = [f"in {one}" if one else "without a unit" for one in (course.unit, self.unit)]
            problem = f"its times are {units[0]}, those that the model learnt {units[1]}"
            raise PlanError(problem, self.name, "Call the column of times as in the training's table")
        times, values = np.array(course.times), (np.array(course.values) - self.mean) / self.deviation
        seen = (times >= self.start) & (times <= self.stop)
        places = ((times[seen] - self.start) / (self.stop - self.start) * self.stretches).astype(int)
        places = np.minimum(places, self.stretches - 1)  # the very last moment is of the last stretch
        counts = np.bincount(places, minlength=self.stretches)
        sums = np.bincount(places, values[seen], minlength=self.stretches)
        before = times < self.start
        last = float(values[before][-1]) if before.any() else 0.0
        made = []
        for total, count in zip(sums, counts, strict=True):
            last = float(total / count) if count else last
            made.append(last)
        outside = "" if counts.any() else f"{self.name} was not read from {self.start:g} to {self.stop:g} {self.unit}"
        return [*made, *(counts > 0).astype(float).tolist()], outside.rstrip()


Column = Number | Category | Monitored | Presence
# In this order they stand in the vector, where networks look for the first and for the last of them.
ORDER = (Monitored, Number | Category, Presence)


@dataclass(frozen=True)
class Context:
    """What a network is told of a patient: columns, and how each becomes entries of one vector."""

    columns: tuple[Column, ...]

    @classmethod
    def of(cls, settings: Any) -> Context:
        """From a plan's `network.context` or a model's record; PlanError for a column that cannot be."""
        if not isinstance(settings, Mapping | None):
            problem = f"{settings!r} does not say what the training cases have in these columns"
            raise PlanError(problem, "network.context", "Plan anew from the data, and name them there")
        columns = [_column(name, one) for name, one in (settings or {}).items()]
        if len({(one.start, one.stop, one.stretches) for one in columns if isinstance(one, Monitored)}) > 1:
            remedy = "Plan anew"
            raise PlanError("what is monitored is told in stretches that are not the same", "network.context", remedy)
        return cls(tuple(one for kind in ORDER for one in columns if isinstance(one, kind)))

    @property
    def settings(self) -> dict[str, Any]:
        return {one.name: one.settings for one in self.columns}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the covariates."""
        return tuple(one.name for one in self.columns if not isinstance(one, Presence))

    @property
    def channels(self) -> tuple[str, ...]:
        """Of which it is told whether a case has them; their entries are the vector's last."""
        return tuple(one.channel for one in self.columns if isinstance(one, Presence))

    @property
    def entries(self) -> tuple[str, ...]:
        """What each number of the vector is."""
        return tuple(entry for one in self.columns for entry in one.entries)

    @property
    def courses(self) -> tuple[int, int]:
        """How many are monitored, and in how many stretches: their entries are the vector's first, two a stretch."""
        found = [one.stretches for one in self.columns if isinstance(one, Monitored)]
        return len(found), found[0] if found else 0

    @property
    def of_patients(self) -> Context:
        """The covariates alone."""
        return Context(tuple(one for one in self.columns if not isinstance(one, Presence)))

    @property
    def of_images(self) -> Context:
        """What is told of the images alone: which a case has."""
        return Context(tuple(one for one in self.columns if isinstance(one, Presence)))

    def __len__(self) -> int:
        return len(self.entries)

    def vector(
        self, covariates: Mapping[str, Any], there: Collection[str] | None = None
    ) -> tuple[NDArray[np.float32], list[str]]:
        """(entries,) of a patient, and what has to be known of them; a column that is not there is missing.

        there: channels that the case has; None for all
        """
        made: list[float] = []
        notes: list[str] = []
        for one in self.columns:
            if isinstance(one, Presence):
                made.append(float(there is None or one.channel in there))
                continue
            entries, note = one.encoded(covariates.get(one.name))
            made += entries
            notes += [note] if note else []
        if len(notes) > MOST_NOTES:
            notes = [f"{notes[0]}; so are {len(notes) - 1} more columns, each taken as the training cases have it"]
        return np.array(made, dtype=np.float32), notes


def _column(name: str, settings: Any) -> Column:
    try:
        if "there" in settings:
            return Presence(name, float(settings["there"]))
        missing = float(settings["missing"])
        if "stretches" in settings:
            times = [float(settings[key]) for key in ("start", "stop", "mean", "deviation")]
            count, unit = int(settings["stretches"]), str(settings.get("unit", ""))
            made: Column = Monitored(name, times[0], times[1], count, times[2], times[3], missing, unit)
            sound = bool(np.isfinite(times).all()) and times[0] < times[1] and times[3] > 0 and count > 0
        elif "levels" in settings:
            levels = {str(level): float(share) for level, share in settings["levels"].items()}
            made = Category(name, levels, missing)
            sound = bool(levels) and all(0 < one <= 1 for one in levels.values())
        else:
            median, mean, deviation = (float(settings[key]) for key in ("median", "mean", "deviation"))
            made, sound = Number(name, median, mean, deviation, missing), bool(np.isfinite([median, mean]).all())
            sound = sound and 0 < deviation < np.inf
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _impossible(name, str(error)) from error
    if not (sound and 0 <= missing < 1):
        raise _impossible(name, "numbers that no training cases have")
    return made


def _impossible(name: str, problem: str) -> PlanError:
    return PlanError(f"{name} cannot be told the network ({problem})", "network.context", "Plan anew")


def tiled(vector: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """(count, entries) the same for each window of a batch."""
    return np.repeat(vector[None], count, axis=0)


def with_context(network: Any, vector: NDArray[np.float32] | None) -> Any:
    """A network that is told this of whatever it sees; as it is where there is nothing to tell."""
    if vector is None:
        return network
    return lambda batch: network(batch, tiled(vector, len(batch)))

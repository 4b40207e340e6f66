"""Covariates as a network's context: one vector of numbers per patient. A copy of this file travels with a model.

A number is standardised, and a missing one stands at the median; each level of a category has an entry. Whether a
value was missing is an entry too, where training cases lacked it. Every entry is centred by the training cases: the
average patient is the origin. Readings over time become the mean of each stretch of time, or the last mean before, and
1 or 0 for whether the stretch has a reading (Che et al., doi:10.1038/s41598-018-24271-9). Free text becomes a few
numbers by the hashes of its words. Which images a case has are entries of 1 or 0, not centred.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from hilum.errors import PlanError
from hilum.values import covariate_values, table_cells
from hilum.values.covariate_values import CovariateValues, KnownRange

# The entry of a category for missing and rare levels.
UNKNOWN = "unknown"
# Prefix of a channel's name, so that a covariate may have the same name.
IMAGE = "image:"
# A number written as codes of missing ones are is one below so many deviations, or so many times above them.
DEVIATIONS, TIMES_APART = 6.0, 3.0
# Deviations about the mean between which nearly all numbers lie.
USUAL = 3.0
# Places into which words and letter triples are hashed (Weinberger et al., arXiv:0902.2206).
PLACES = 4096
# Notes on single columns; of more columns the note has only their number.
MOST_NOTES = 12


class NumberSettings(TypedDict):
    """As `Number`."""

    median: float
    mean: float
    deviation: float
    missing: float
    low: NotRequired[float]
    high: NotRequired[float]


class CategorySettings(TypedDict):
    """As `Category`."""

    levels: Mapping[str, float]
    missing: float


class PresenceSettings(TypedDict):
    """As `Presence`."""

    there: float


class MonitoredSettings(TypedDict):
    """As `MonitoredCovariate`."""

    start: float
    stop: float
    stretches: int
    mean: float
    deviation: float
    missing: float
    unit: NotRequired[str]


class FreeTextSettings(TypedDict):
    """As `FreeText`."""

    weights: str
    means: list[float]
    deviations: list[float]
    missing: float


ColumnSettings = NumberSettings | CategorySettings | PresenceSettings | MonitoredSettings | FreeTextSettings


@dataclass(frozen=True)
class Number:
    """A covariate that is a number.

    median, mean, deviation: of the training cases
    missing:   share of the training cases without a value
    low, high: between which the training cases lie, rounded outwards so that they show nobody's value; None for three
               deviations about the mean
    """

    name: str
    median: float
    mean: float
    deviation: float
    missing: float = 0.0
    low: float | None = None
    high: float | None = None

    place: ClassVar[int] = 1
    of_patient: ClassVar[bool] = True

    @classmethod
    def from_settings(cls, name: str, settings: NumberSettings) -> Number:
        """Make one of settings; raises KeyError, TypeError or ValueError for others."""
        median, mean = float(settings["median"]), float(settings["mean"])
        ends = [float(settings[end]) if end in settings else None for end in ("low", "high")]
        return cls(name, median, mean, float(settings["deviation"]), float(settings["missing"]), *ends)

    @property
    def entries(self) -> tuple[str, ...]:
        """The number, and whether it was missing where training cases lacked it."""
        return (self.name, *((f"{self.name} missing",) if self.missing > 0 else ()))

    @property
    def settings(self) -> NumberSettings:
        """Plain values for a plan and a model's record."""
        settings: NumberSettings = {
            "median": self.median,
            "mean": self.mean,
            "deviation": self.deviation,
            "missing": self.missing,
        }
        if self.low is not None and self.high is not None:
            settings |= {"low": self.low, "high": self.high}
        return settings

    @property
    def is_sound(self) -> bool:
        """Whether training cases can have such numbers."""
        known = self.known_range
        is_finite = bool(np.isfinite([self.median, self.mean, known.low, known.high]).all())
        return is_finite and known.low <= known.high and 0 < self.deviation < np.inf and _share(self.missing)

    @property
    def known_range(self) -> KnownRange:
        """Between which training cases lie."""
        low = self.mean - USUAL * self.deviation if self.low is None else self.low
        high = self.mean + USUAL * self.deviation if self.high is None else self.high
        return KnownRange(low, high, self.mean, self.deviation)

    def encode(self, value: Any) -> tuple[list[float], str]:
        """Its entries for a patient, and a note where the value is missing, no number, or far outside."""
        number = None if covariate_values.is_missing(value) else covariate_values.number_in(value)
        if number is not None and self._is_code(number):
            return self.encode(None)[0], f"{self.name} is {number:g}, a code of what is missing: {self._as_taken}"
        limit = table_cells.limit_in(str(value)) if number is None else None
        if limit is not None:
            return self.encode(limit)[0], f"{self.name} is {value!r}, a limit: taken as {limit:g}"
        entry = self.median if number is None else number
        entries = [(entry - self.mean) / self.deviation]
        entries += [(1.0 if number is None else 0.0) - self.missing] if self.missing > 0 else []
        if number is not None:
            return entries, self.why_far(value)
        reason = "missing" if covariate_values.is_missing(value) else f"{value!r}, no number"
        return entries, f"{self.name} is {reason}: {self._as_taken}"

    def why_far(self, value: Any) -> str:
        """Why a value is far outside of the training cases, in words; empty where it is not, and of a missing one."""
        number = None if covariate_values.is_missing(value) else covariate_values.number_in(value)
        if number is None or self._is_code(number) or not (reason := self.known_range.why_far(number)):
            return ""
        return f"{self.name} is {number:g}, {reason}"

    @property
    def _as_taken(self) -> str:
        return f"taken as {self.median:g}, the median of the training cases"

    def _is_code(self, number: float) -> bool:
        """Whether a number is written as codes of missing ones are, and no training case comes near it."""
        width = DEVIATIONS * self.deviation
        is_far = number < min(0.0, self.mean - width) or number > TIMES_APART * (self.mean + width)
        return is_far and table_cells.may_be_code(f"{number:.15g}")


@dataclass(frozen=True)
class Category:
    """A covariate with levels.

    levels:  {level: share of the training cases}
    missing: share of the training cases without a value, or with a rare one
    """

    name: str
    levels: Mapping[str, float]
    missing: float = 0.0

    place: ClassVar[int] = 1
    of_patient: ClassVar[bool] = True

    @classmethod
    def from_settings(cls, name: str, settings: CategorySettings) -> Category:
        """Make one of settings; raises KeyError, TypeError, ValueError or AttributeError for others."""
        levels = {str(level): float(share) for level, share in settings["levels"].items()}
        return cls(name, levels, float(settings["missing"]))

    @property
    def entries(self) -> tuple[str, ...]:
        """One per level, and one for missing and rare levels where training cases had them."""
        return (*(f"{self.name} {level}" for level in self._shares),)

    @property
    def settings(self) -> CategorySettings:
        """Plain values for a plan and a model's record."""
        return {"levels": dict(self.levels), "missing": self.missing}

    @property
    def is_sound(self) -> bool:
        """Whether training cases can have such shares."""
        return bool(self.levels) and all(0 < share <= 1 for share in self.levels.values()) and _share(self.missing)

    @property
    def _shares(self) -> dict[str, float]:
        return {**self.levels, **({UNKNOWN: self.missing} if self.missing > 0 else {})}

    def encode(self, value: Any) -> tuple[list[float], str]:
        """Its entries for a patient, and a note where the level is missing or rare."""
        level, note = (
            (UNKNOWN, "missing") if covariate_values.is_missing(value) else (covariate_values.level_in(value), "")
        )
        level = {covariate_values.level_in(own): own for own in self.levels}.get(level, level)
        if level not in self.levels and (truth := table_cells.truth_in(level)) is not None:
            truths = {table_cells.truth_in(own): own for own in self.levels}
            level = level if None in truths else truths.get(truth, level)  # F is no, unless M is a level too
        if level not in self.levels:
            note = note or f"{value!r}, which few or no training cases had"
            level, because = max(self.levels, key=self.levels.__getitem__), "the most frequent"
            if self.missing > 0:
                level, because = UNKNOWN, "as in some training cases"
            note = f"{self.name} is {note}: taken as {level}, {because}"
        return [float(known == level) - share for known, share in self._shares.items()], note


@dataclass(frozen=True)
class Presence:
    """Whether a case has an image: 1 or 0, not centred, because a network leaves out missing images by it.

    name:  "image:" and the channel
    there: share of the training cases that have it
    """

    name: str
    there: float = 1.0

    place: ClassVar[int] = 2
    of_patient: ClassVar[bool] = False

    @classmethod
    def from_settings(cls, name: str, settings: PresenceSettings) -> Presence:
        """Make one of settings; raises KeyError, TypeError or ValueError for others."""
        return cls(name, float(settings["there"]))

    @classmethod
    def of_channel(cls, channel: str, share: float) -> Presence:
        """Encoding of a channel that this share of the training cases has."""
        return cls(f"{IMAGE}{channel}", share)

    @property
    def channel(self) -> str:
        """The name of the image's channel."""
        return self.name.removeprefix(IMAGE)

    @property
    def entries(self) -> tuple[str, ...]:
        """Its only one."""
        return (self.name,)

    @property
    def settings(self) -> PresenceSettings:
        """Plain values for a plan and a model's record."""
        return {"there": self.there}

    @property
    def is_sound(self) -> bool:
        """Every share is."""
        return True

    def encode(self, value: Any) -> tuple[list[float], str]:
        """Its entry for a case that has the image or not, without a note."""
        return [float(value)], ""


@dataclass(frozen=True)
class MonitoredCovariate:
    """A covariate that is read again and again, as stretches of equal length.

    start, stop:     time span of the entries; in s where `unit` says so, else as the tables count
    stretches:       number of stretches
    mean, deviation: of all readings of the training cases
    missing:         share of the training cases without any
    """

    name: str
    start: float
    stop: float
    stretches: int
    mean: float
    deviation: float
    missing: float = 0.0
    unit: str = ""

    place: ClassVar[int] = 0
    of_patient: ClassVar[bool] = True

    @classmethod
    def from_settings(cls, name: str, settings: MonitoredSettings) -> MonitoredCovariate:
        """Make one of settings; raises KeyError, TypeError or ValueError for others."""
        start, stop, stretches = float(settings["start"]), float(settings["stop"]), int(settings["stretches"])
        mean, deviation, missing = float(settings["mean"]), float(settings["deviation"]), float(settings["missing"])
        return cls(name, start, stop, stretches, mean, deviation, missing, str(settings.get("unit", "")))

    @property
    def entries(self) -> tuple[str, ...]:
        """A mean per stretch, then whether each stretch has a reading."""
        length = (self.stop - self.start) / self.stretches
        starts = [f"{self.start + n * length:g}{f' {self.unit}' if self.unit else ''}" for n in range(self.stretches)]
        return (
            *(f"{self.name} from {start}" for start in starts),
            *(f"{self.name} read from {start}" for start in starts),
        )

    @property
    def settings(self) -> MonitoredSettings:
        """Plain values for a plan and a model's record."""
        settings: MonitoredSettings = {
            "start": self.start,
            "stop": self.stop,
            "stretches": self.stretches,
            "mean": self.mean,
            "deviation": self.deviation,
            "missing": self.missing,
        }
        if self.unit:
            settings["unit"] = self.unit
        return settings

    @property
    def is_sound(self) -> bool:
        """Whether training cases can have such numbers."""
        finite = bool(np.isfinite([self.start, self.stop, self.mean, self.deviation]).all())
        return finite and self.start < self.stop and self.deviation > 0 < self.stretches and _share(self.missing)

    @property
    def span(self) -> tuple[float, float, int]:
        """Start, stop and number of stretches."""
        return self.start, self.stop, self.stretches

    def encode(self, value: Any) -> tuple[list[float], str]:
        """Its entries for a patient, and a note without readings; PlanError for times of another unit."""
        course = covariate_values.course_in(value, self.unit)  # pairs have no unit: they are in the model's
        if course is None:
            reason = "missing" if covariate_values.is_missing(value) else f"{value!r}, no readings with their times"
            return [0.0] * 2 * self.stretches, f"{self.name} is {reason}: taken as never read"
        if course.unit != self.unit:
            units = [f"in {unit}" if unit else "without a unit" for unit in (course.unit, self.unit)]
            problem = f"its times are {units[0]}, those that the model learnt {units[1]}"
            raise PlanError(problem, self.name, "Name the column of times as in the training table")
        times, values = np.array(course.times), (np.array(course.values) - self.mean) / self.deviation
        is_monitored = (times >= self.start) & (times <= self.stop)
        places = ((times[is_monitored] - self.start) / (self.stop - self.start) * self.stretches).astype(int)
        places = np.minimum(places, self.stretches - 1)  # the last moment belongs to the last stretch
        counts = np.bincount(places, minlength=self.stretches)
        sums = np.bincount(places, values[is_monitored], minlength=self.stretches)
        before = times < self.start
        last = float(values[before][-1]) if before.any() else 0.0
        entries = []
        for total, count in zip(sums, counts, strict=True):
            last = float(total / count) if count else last
            entries.append(last)
        outside = "" if counts.any() else f"{self.name} was not read from {self.start:g} to {self.stop:g} {self.unit}"
        return [*entries, *(counts > 0).astype(float).tolist()], outside.rstrip() or self.why_far(course)

    def why_far(self, value: Any) -> str:
        """Why half of the readings are far outside of those of the training cases; empty where they are not."""
        course = covariate_values.course_in(value, self.unit)
        if course is None:
            return ""
        middle, width = float(np.median(course.values)), USUAL * self.deviation
        reason = KnownRange(self.mean - width, self.mean + width, self.mean, self.deviation).why_far(middle)
        return f"{self.name} is {middle:g} in the middle of its readings, {reason}" if reason else ""


@dataclass(frozen=True)
class FreeText:
    """A covariate of free text as a few numbers, from which no word can be read.

    packed:            weights of the places of hashes for each number, as `pack_weights` has them
    means, deviations: of each number over the texts of the training cases
    missing:           share of the training cases without a text
    """

    name: str
    packed: str
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    missing: float = 0.0

    place: ClassVar[int] = 1
    of_patient: ClassVar[bool] = True

    @classmethod
    def from_settings(cls, name: str, settings: FreeTextSettings) -> FreeText:
        """Make one of settings; raises KeyError, TypeError or ValueError for others."""
        means, deviations = tuple(map(float, settings["means"])), tuple(map(float, settings["deviations"]))
        packed, missing = str(settings["weights"]), float(settings["missing"])
        unpack_weights(packed, len(means))
        return cls(name, packed, means, deviations, missing)

    @property
    def entries(self) -> tuple[str, ...]:
        """The numbers, and whether the text was missing where training cases lacked it."""
        numbers = (f"{self.name} {n}" for n in range(1, len(self.means) + 1))
        return (*numbers, *((f"{self.name} missing",) if self.missing > 0 else ()))

    @property
    def settings(self) -> FreeTextSettings:
        """Plain values for a plan and a model's record."""
        return {
            "weights": self.packed,
            "means": list(self.means),
            "deviations": list(self.deviations),
            "missing": self.missing,
        }

    @property
    def is_sound(self) -> bool:
        """Whether training cases can have such numbers."""
        finite = bool(np.isfinite(self.means).all()) and all(0 < one < np.inf for one in self.deviations)
        return finite and 0 < len(self.means) == len(self.deviations) and _share(self.missing)

    def encode(self, value: Any) -> tuple[list[float], str]:
        """Its entries for a patient, and a note where the text is missing or has no word of the training texts."""
        weights = unpack_weights(self.packed, len(self.means))
        is_missing = covariate_values.is_missing(value)
        mark = [float(is_missing) - self.missing] if self.missing > 0 else []
        places = text_places("" if is_missing else str(value))
        if not places[weights.any(axis=1)].any():
            reason = "missing" if is_missing else "in words that hardly any training case had"
            return [*[0.0] * len(self.means), *mark], f"{self.name} is {reason}: taken as the mean of their texts"
        return [*((places @ weights - self.means) / self.deviations).tolist(), *mark], ""


def text_places(text: str) -> NDArray[np.float64]:
    """(PLACES,) of length 1: how often a text's words, and the triples of letters in each, fall on a place of hashes.

    Counts enter by their logarithm; a text without letters is 0 everywhere.
    """
    words = covariate_values.WORD.findall(text.casefold())
    pieces = words + [f"^{word}$"[n : n + 3] for word in words for n in range(len(word))]
    places = [zlib.crc32(piece.encode()) % PLACES for piece in pieces]
    counts = np.log1p(np.bincount(np.array(places, dtype=np.int64), minlength=PLACES))
    return np.asarray(counts / max(float(np.linalg.norm(counts)), 1e-12), dtype=np.float64)


def pack_weights(weights: NDArray[np.int8]) -> str:
    """(PLACES, numbers) weights as letters of a record."""
    return base64.b64encode(zlib.compress(weights.tobytes(), 9)).decode()


@lru_cache(maxsize=8)
def unpack_weights(packed: str, numbers: int) -> NDArray[np.float64]:
    """(PLACES, numbers) weights; ValueError for what `pack_weights` has not made."""
    try:
        content = zlib.decompressobj().decompress(base64.b64decode(packed, validate=True), PLACES * numbers + 1)
    except zlib.error as error:
        raise ValueError(f"weights of its words that are none: {error}") from error
    if len(content) != PLACES * numbers:
        raise ValueError(f"{len(content)} weights of its words for {numbers} numbers of {PLACES} places")
    return np.frombuffer(content, np.int8).reshape(PLACES, numbers).astype(np.float64)


# A covariate or an image of a case as entries of the context. `place` orders them, because networks look for the first
# and the last; `of_patient` are the covariates.
Column = Number | Category | MonitoredCovariate | FreeText | Presence
# Kinds of columns, by the setting that only they have; else a column is a number.
KINDS: Mapping[str, type[Presence | MonitoredCovariate | FreeText | Category]] = {
    "there": Presence,
    "weights": FreeText,
    "stretches": MonitoredCovariate,
    "levels": Category,
}


@dataclass(frozen=True)
class Context:
    """The columns of a patient that a network gets with an image, as entries of one vector."""

    columns: tuple[Column, ...]

    @classmethod
    def from_settings(cls, settings: Any) -> Context:
        """Read a plan's `network.context` or a model's record; PlanError for a column that cannot be.

        A list has one of each network of a mean: their entries follow one another.
        """
        if isinstance(settings, list):
            return cls(tuple(column for own in settings for column in cls.from_settings(own).columns))
        if not isinstance(settings, Mapping | None):
            problem = f"{settings!r} does not say what the training cases have in these columns"
            raise PlanError(problem, "network.context", "Plan again from the data, and name them there")
        columns = [_column(name, own) for name, own in (settings or {}).items()]
        context = cls(tuple(sorted(columns, key=lambda column: column.place)))
        if len({column.span for column in context.monitored_columns}) > 1:
            problem = "columns with readings over time have stretches that are not the same"
            raise PlanError(problem, "network.context", "Plan again")
        return context

    @property
    def settings(self) -> dict[str, ColumnSettings]:
        """Plain values for a plan and a model's record."""
        return {column.name: column.settings for column in self.columns}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the covariates."""
        return tuple(dict.fromkeys(column.name for column in self.columns if column.of_patient))

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels whose presence is an entry; these entries are the last of a network's vector."""
        return tuple(dict.fromkeys(column.channel for column in self.columns if isinstance(column, Presence)))

    @property
    def entries(self) -> tuple[str, ...]:
        """The meaning of each number of the vector."""
        return tuple(entry for column in self.columns for entry in column.entries)

    @property
    def monitored_columns(self) -> tuple[MonitoredCovariate, ...]:
        """Columns with readings over time."""
        return tuple(column for column in self.columns if isinstance(column, MonitoredCovariate))

    @property
    def courses(self) -> tuple[int, int]:
        """Numbers of columns with readings and of their stretches: their entries are the first, two per stretch."""
        monitored = self.monitored_columns
        return len(monitored), monitored[0].stretches if monitored else 0

    @property
    def of_patients(self) -> Context:
        """The covariates only."""
        return Context(tuple(column for column in self.columns if column.of_patient))

    @property
    def of_images(self) -> Context:
        """The presence of images only."""
        return Context(tuple(column for column in self.columns if not column.of_patient))

    def __len__(self) -> int:
        return len(self.entries)

    def why_far(self, covariates: CovariateValues) -> list[str]:
        """Why covariates of a patient are far outside of those of the training cases; empty where none is."""
        numbers = (column for column in self.columns if isinstance(column, Number | MonitoredCovariate))
        reasons = (column.why_far(covariates.get(column.name)) for column in numbers)
        return list(dict.fromkeys(filter(None, reasons)))

    def vector(
        self, covariates: CovariateValues, channels: Collection[str] | None = None
    ) -> tuple[NDArray[np.float32], list[str]]:
        """(entries,) of a patient, and notes on missing values; a column that the covariates lack is missing.

        channels: that the case has; None for all
        """
        context: list[float] = []
        noted: dict[str, list[str]] = {}
        for column in self.columns:
            present = channels is None or column.name.removeprefix(IMAGE) in channels
            entries, note = column.encode(covariates.get(column.name) if column.of_patient else present)
            context += entries
            noted.setdefault(column.name, []).extend([note] if note else [])
        notes = [
            f"{own[0]}, each of {len(own)} networks by its own" if len(set(own)) > 1 else own[0]
            for own in noted.values()
            if own
        ]
        if len(notes) > MOST_NOTES:
            notes = [f"{notes[0]}; so are {len(notes) - 1} more columns, each taken as the training cases have it"]
        return np.array(context, dtype=np.float32), notes


def _column(name: str, settings: Any) -> Column:
    try:
        kind = next((KINDS[key] for key in KINDS if key in settings), Number)
        column: Column = kind.from_settings(name, settings)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _impossible(name, str(error)) from error
    if not column.is_sound:
        raise _impossible(name, "numbers that no training cases have")
    return column


def _share(missing: float) -> bool:
    return 0 <= missing < 1


def _impossible(name: str, problem: str) -> PlanError:
    return PlanError(f"{name} cannot be an entry of the context ({problem})", "network.context", "Plan again")


def bind_context(network: Any, vector: NDArray[np.float32] | None) -> Any:
    """The network with this context for each window of a batch; unchanged without a vector."""
    if vector is None:
        return network
    return lambda batch: network(batch, np.repeat(vector[None], len(batch), axis=0))

"""Covariates of a patient, as tables and headers write them."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from operator import itemgetter
from statistics import median
from typing import Any

# DICOM writes 045Y, PS3.5 6.2; months, weeks and days are of children.
AGE = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*([YMWD]?)\s*", re.IGNORECASE)
DAYS = {"": 365.25, "Y": 365.25, "M": 30.44, "W": 7.0, "D": 1.0}
# How tables, spreadsheets (#N/A), data bases (NULL) and pandas write that nothing is there, in any column.
BLANKS = frozenset({"", "nan", "na", "n/a", "#n/a", "<na>", "null"})
# What a table writes where nobody knows the class, in English, German, French and Spanish.
UNLABELLED = frozenset({"?", "-", "--", ".", "unknown", "missing", "not available", "unlabeled", "unlabelled", "todo",
                        "tbd", "unbekannt", "inconnu", "desconocido"})  # fmt: skip
NOTHING = BLANKS | {"none", "[not available]"}
# Names of the column of a row's time, with or without a unit, as "time (min)", "time_ms" or "hours".
TIME = re.compile(
    r"(?:(?:chart|elapsed|relative)?_?\s?time|t|timestamp|date_?time)(?:\s*[\[(]\s*([a-z]+)\s*[\])]|[_ ]([a-z]+))?"
)
UNIT_TITLES = ("hours", "minutes", "seconds")
CLOCK = re.compile(r"(\d+):(\d\d)(?::(\d\d))?")
NUMBER, DATE, CLOCK_TIME = "number", "date", "clock"  # how a table writes its times
DAY = 86400.0
# What parts two words, or a word and its number, as in "high risk", "high-risk" and "high_risk"; no sign of a number.
BETWEEN_WORDS = re.compile(r"(?<=[^\W\d_])\s?[_\-\u2010-\u2015]\s?(?=[^\W\d_])|(?<=[^\W\d_])[_\-\u2010-\u2015](?=\d)")
# Words that tables use for one another, of which one stands for all: sexes, and yes and no. A letter alone that may be
# something else (w, t, +) stands for itself.
ONE_WORD: Mapping[str, str] = {
    **dict.fromkeys(("female", "woman", "weiblich", "frau", "femme", "femenino", "mujer", "femmina", "vrouw"), "f"),
    **dict.fromkeys(("male", "man", "männlich", "mann", "homme", "masculino", "hombre", "maschio"), "m"),
    **dict.fromkeys(("y", "true", "ja", "oui", "sí", "sì", "sim"), "yes"),
    **dict.fromkeys(("n", "false", "nein", "non", "nee", "não"), "no"),
}
# A word of letters. The usual value of free text has three, and more values than make groups, or most of them differ.
WORD = re.compile(r"[^\W\d_]+")
WORDS_OF_TEXT, MOST_SENTENCES = 3, 8
SECONDS: Mapping[str, float] = {
    **dict.fromkeys(("ms", "milliseconds"), 1e-3),
    **dict.fromkeys(("s", "sec", "seconds"), 1.0),
    **dict.fromkeys(("min", "minutes"), 60.0),
    **dict.fromkeys(("h", "hours"), 3600.0),
    **dict.fromkeys(("d", "days"), DAY),
}

# What one unit is in another: inches in cm; mm in cm or l in dl; months in years; cm in m, or mm² in cm²; mm³ in ml, g
# in kg, m in mm.
UNIT_FACTORS: Mapping[float, str] = {
    2.54: "inches beside cm",
    10.0: "mm beside cm",
    12.0: "months beside years",
    100.0: "cm beside m, or mm² beside cm²",
    1000.0: "mm³ beside ml, or g beside kg",
}
# A number that another unit explains is far by so many widths of the range of others, and so many of their deviations;
# one that nothing explains by twice as many widths.
FAR_WIDTHS, FAR_DEVIATIONS, ODD_DEVIATIONS = 1.0, 6.0, 10.0


@dataclass(frozen=True)
class Course:
    """Repeated readings of one patient, as a monitor or a chart has them.

    times:  rising; in s where that is the `unit`, else as the table counts
    values: as many, one or more
    """

    times: tuple[float, ...]
    values: tuple[float, ...]
    unit: str = ""

    def __str__(self) -> str:
        return f"{len(self.values)} readings from {self.times[0]:g} to {self.times[-1]:g} {self.unit}".rstrip()


# A covariate as it was read; None where it is missing.
CovariateReading = bool | int | float | str | Course | None
CovariateValues = Mapping[str, CovariateReading]


def is_missing(value: Any) -> bool:
    """Whether a value is missing: None, empty text or NaN."""
    return value is None or str(value).strip().lower() in NOTHING


def number_in(value: Any) -> float | None:
    """A number as it is, or in years where it is an age as DICOM writes it; None where it is none.

    A course is a number where it never changed.
    """
    if isinstance(value, Course):
        return value.values[0] if len(set(value.values)) == 1 else None
    text = str(value).strip()
    fit = AGE.fullmatch(text)
    if fit is not None and fit[2]:
        return float(fit[1]) * DAYS[fit[2].upper()] / DAYS["Y"]
    try:
        number = math.nan if "_" in text else float(text)  # 1_21 is a code, though Python reads it as 121
    except ValueError:
        return None
    return number if math.isfinite(number) else None


@dataclass(frozen=True)
class KnownRange:
    """The range in which the numbers of known people lie, about, with their mean and standard deviation."""

    low: float
    high: float
    mean: float
    deviation: float

    def why_far(self, number: float, known: str = "the training cases") -> str:
        """Why a number is far outside of it, with the factors of units that bring it in; empty where it is not far.

        known: whose range it is
        """
        beyond = max(self.low - number, number - self.high)
        width = self.high - self.low
        if beyond <= max(FAR_WIDTHS * width, FAR_DEVIATIONS * self.deviation):
            return ""
        factors = self.unit_factors(number)
        if not factors and beyond <= max(2 * FAR_WIDTHS * width, ODD_DEVIATIONS * self.deviation):
            return ""
        words = f"far outside of {known}, which lie between {self.low:g} and {self.high:g}"
        return "; ".join([words, *factors])

    def unit_factors(self, number: float) -> list[str]:
        """The factors of units that bring a number in, in words, the one that brings it nearest to the mean first."""
        changed = {
            f"{verb} by {factor:g} it is {value:.4g} ({units})": value
            for factor, units in UNIT_FACTORS.items()
            for verb, value in (("divided", number / factor), ("multiplied", number * factor))
            if self.low <= value <= self.high
        }
        return sorted(changed, key=lambda words: abs(changed[words] - self.mean))


def level_in(value: Any) -> str:
    """A category as text: one level however people spell it. A whole number has no decimals.

    Case, blanks and hyphens between words do not matter; sexes and yes and no are one word, as "f" for "Female".
    """
    constant = number_in(value) if isinstance(value, Course) else None
    text = unicodedata.normalize("NFKC", str(value if constant is None else constant)).strip().casefold()
    if text.removesuffix(".0").lstrip("-").isdecimal():
        return text.removesuffix(".0")
    text = BETWEEN_WORDS.sub(" ", " ".join(text.split()))
    return ONE_WORD.get(text, text)


def one_spelling(cells: Sequence[str], known: Sequence[str] = ()) -> list[str]:
    """Cells of a category, each as its level is first written: among those that are known, else in the cells."""
    written = dict[str, str]()
    for cell in (*known, *cells):
        written.setdefault(level_in(cell), cell)
    return [written[level_in(cell)] for cell in cells]


def is_free_text(values: Sequence[Any]) -> bool:
    """Whether a column holds what people wrote in sentences, as a history: no table of cases or page repeats it."""
    texts = [str(one) for one in values if not is_missing(one)]
    distinct = set(texts)
    if not distinct or len(distinct) <= min(MOST_SENTENCES, len(texts) // 2):
        return False
    return median(len(WORD.findall(one)) for one in distinct) >= WORDS_OF_TEXT


def course_in(value: Any, unit: str = "") -> Course | None:
    """A course, or pairs of a time in `unit` and a number as one; None where it is neither, or no pair has a number."""
    if isinstance(value, Course):
        return value
    if isinstance(value, str) or not isinstance(value, Sequence):
        return None
    try:
        pairs = [(float(time), float(number)) for time, number in value]
    except (TypeError, ValueError):
        return None
    return _course(pairs, unit)


def time_column(columns: Sequence[str]) -> str | None:
    """The first column with a name of times, None where there is none."""
    return next((one for one in columns if _unit(one) is not None), None)


def courses_by_column(rows: Sequence[CovariateValues], time: str) -> dict[str, CovariateReading]:
    """{column: its readings} of the rows of one patient, each read at the time in its column `time`.

    A column of numbers is a Course; a column of words has its last one. Dates are counted from the first row's.
    Raises ValueError for a row whose time is none, or of another kind than the first's.
    """
    when, unit = _times([row[time] for row in rows], *(_unit(time) or ("", 1.0)))
    values = dict[str, CovariateReading]()
    for name in dict.fromkeys(name for row in rows for name in row if name != time):
        read = [(at, row[name]) for at, row in zip(when, rows, strict=True) if not is_missing(row.get(name))]
        numbers = [number_in(one) for _, one in read]
        pairs = [(at, one) for (at, _), one in zip(read, numbers, strict=True) if one is not None]
        words = len(pairs) < len(read)
        values[name] = max(read, key=itemgetter(0))[1] if words else _course(pairs, unit)
    return values


def _course(pairs: Sequence[tuple[float, float]], unit: str) -> Course | None:
    finite = sorted((at, one) for at, one in pairs if math.isfinite(at) and math.isfinite(one))
    return Course(tuple(at for at, _ in finite), tuple(one for _, one in finite), unit) if finite else None


def _unit(title: str) -> tuple[str, float] | None:
    """("s" where the title names a unit, s in 1 of it); None for what is no time."""
    words = title.strip().lower()
    if words in UNIT_TITLES:
        return "s", SECONDS[words]
    fit = TIME.fullmatch(words)
    unit = (fit[1] or fit[2] or "") if fit else None
    if not unit:
        return None if unit is None else ("", 1.0)
    return ("s", SECONDS[unit]) if unit in SECONDS else None


def _times(cells: Sequence[Any], unit: str, factor: float) -> tuple[list[float], str]:
    """The times as numbers, and their unit."""
    read = [_time(cell) for cell in cells]
    if len({kind for kind, _ in read}) != 1:
        raise ValueError("some times are numbers, others dates or hours of a clock")
    kind, times = read[0][0], [at for _, at in read]
    if kind == CLOCK_TIME and _may_pass_midnight(times):
        raise ValueError("hours of a clock jump by more than half a day, and their rows may pass midnight")
    if kind == NUMBER:
        return [at * factor for at in times], unit
    start = min(times) if kind == DATE else 0.0
    return [at - start for at in times], "s"


def _may_pass_midnight(times: Sequence[float]) -> bool:
    """Whether hours of a clock that do not rise row by row jump as from 23:50 to 00:10; from 24 on they count days."""
    steps = [after - before for before, after in pairwise(times)]
    jumps = max(map(abs, steps), default=0.0) > DAY / 2
    return jumps and min(steps) < 0 and max(times) < DAY


def _time(cell: Any) -> tuple[str, float]:
    """(number, clock or date, itself; s of a clock or a date)"""
    text = str(cell).strip()
    if fit := CLOCK.fullmatch(text):
        return CLOCK_TIME, 3600.0 * int(fit[1]) + 60.0 * int(fit[2]) + int(fit[3] or 0)
    if (number := number_in(text)) is not None:
        return NUMBER, number
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time") from None
    return DATE, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

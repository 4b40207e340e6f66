"""Columns of text cells as numbers, yes and no, or times: one reader for the tables that people and programs write.

A column is read as a whole, because a cell alone may mean two things: 1,504 is a thousand or a decimal, 03.04.2026 is
in March or in April. What stays ambiguous is refused with both readings, what fits nothing with its line and text, and
what was taken as missing is stated.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import DatasetError, UsageError
from hilum.values.covariate_values import NOTHING, UNLABELLED
from hilum.values.grid_geometry import Floats

# What people write where nothing is known, in any column.
ABSENT = NOTHING | UNLABELLED | {"n.a.", "k.a.", "k. a.", "keine angabe", "unk", "not known", "not stated"}
# English, German, French, Spanish, Portuguese, Italian, Dutch, Swedish, R and Excel.
YES = frozenset({"yes", "y", "true", "t", "pos", "positive", "present", "detected", "+",
                 "ja", "j", "wahr", "positiv", "vorhanden", "oui", "vrai", "positif", "présent",
                 "si", "sí", "verdadero", "positivo", "presente", "sim", "verdadeiro", "sì", "vero",
                 "waar", "positief", "aanwezig", "sant"})  # fmt: skip
NO = frozenset({"no", "n", "false", "f", "neg", "negative", "absent", "not present", "not detected",
                "nein", "falsch", "negativ", "nicht vorhanden", "non", "faux", "négatif", "falso", "negativo",
                "ausente", "não", "nao", "assente", "nee", "onwaar", "negatief", "afwezig", "nej",
                "falskt"})  # fmt: skip
ONE_OR_ZERO = re.compile(r"([01])(?:[.,]0+)?")
LIMIT = re.compile(r"([<>\u2264\u2265])=?\s*(.+)|(\d.*)\+")
BELOW = "<\u2264"
# How DICOM writes an age, PS3.5 6.2.
DICOM_AGE, YEARS = re.compile(r"(\d{3})([ymwd])"), {"y": 1.0, "m": 30.44 / 365.25, "w": 7 / 365.25, "d": 1 / 365.25}
# Codes that stand for a missing number in SPSS, SAS, surveys and registries.
BELOW_ZERO, NINES = re.compile(r"-(?:1|([789])\1*)(?:[.,]0+)?"), re.compile(r"9{2,}(?:[.,]0+)?")
# Such a code shows beside so many other numbers: of none below 0, or where it is so many times the largest of them.
FEWEST_BESIDE, TIMES_APART = 5, 3.0
# So many different numbers beside a word are measurements; fewer may be grades, of which 3a is one.
MOST_GRADES = 10
# Different cells that a sentence has in full, and how it ends for each.
MOST_NAMED, AS_MISSING, AS_LIMIT = 3, "taken as missing", "taken as the limit"
ISO = re.compile(r"\d{4}-?\d\d-?\d\d(?!\d)")
DAY_AND_MONTH = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4})(?:[ T,]+(\d{1,2}):(\d\d)(?::(\d\d))?)?")
SPACES = re.compile(r"[\s\u00a0\u2007\u2009\u202f]+")
# A cell of a table that we write, and a row of it; a missing cell is None.
PlainCell = bool | int | float | str | None
TableRow = Mapping[str, PlainCell]


@dataclass(frozen=True)
class TextColumn:
    """Cells of one column, and where they stand.

    where:      the table, as refusals name it
    separator:  what parts its columns; empty for a table in memory
    first_line: the line of the first cell; 0 for a table in memory
    places:     the place of each cell in words, where lines were left out or parts joined
    """

    name: str
    cells: Sequence[str]
    where: str
    separator: str = ""
    first_line: int = 0
    places: Sequence[str] = ()

    def place(self, index: int) -> str:
        """The place of a cell in words."""
        if self.places:
            return self.places[index]
        return f"line {self.first_line + index}" if self.first_line else f"row {index + 1}"

    def place_of(self, cell: str) -> str:
        """The place of the first cell with this text."""
        return self.place(next(index for index, one in enumerate(self.cells) if _plain(one) == cell))


@dataclass(frozen=True, eq=False)
class ColumnValues:
    """What the cells of a column mean.

    values:  (cells,) numbers, of truths 1 and 0, of a limit such as <0.1 its number; NaN where nothing is known
    sides:   (cells,) -1 of a cell that is below a limit, 1 above one, 0 of a number that was measured
    odd:     {index: why the cell has no value, as what it is or does}
    missing: {text: count} of the cells, other than blank ones, that were taken as missing
    manner:  how the others were read, where that is not as usual
    """

    column: TextColumn
    values: Floats
    sides: NDArray[np.int8]
    odd: Mapping[int, str] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)
    unit: str = "number"
    manner: str = ""

    @property
    def is_notable(self) -> bool:
        """Whether a report states how the column was read."""
        return bool(self.missing or self.manner or self.limits)

    @property
    def limits(self) -> Mapping[str, int]:
        """{text: count} of the cells that are limits."""
        return Counter(_plain(self.column.cells[index]) for index in np.flatnonzero(self.sides).tolist())

    @property
    def ordered_values(self) -> Floats:
        """(cells,) numbers in their order: one below a limit stands next below it, one above a limit next above."""
        beyond = np.where(self.sides < 0, -np.inf, np.inf)
        return np.where(self.sides == 0, self.values, np.nextafter(self.values, beyond))

    @property
    def sentence(self) -> str:
        """ "age: 49 numbers, 1 cell '>89' taken as the limit, 2 cells 'unknown' taken as missing"."""
        limits = self.limits
        measured = int(np.isfinite(self.values).sum()) - sum(limits.values())
        parts = [f"{errors.count_phrase(measured, self.unit)}{self.manner}"]
        for texts, words in ((limits, AS_LIMIT), (self.missing, AS_MISSING)):
            if len(texts) <= MOST_NAMED:
                parts += [f"{errors.count_phrase(n, 'cell')} {text!r} {words}" for text, n in texts.items()]
            else:
                most = errors.list_phrase(map(repr, texts), MOST_NAMED)
                parts.append(f"{errors.count_phrase(sum(texts.values()), 'cell')} {words}: {most}")
        return f"{self.column.name}: {', '.join(parts)}"

    def refuse_odd(self) -> Self:
        """The same, if each cell has a meaning. Raises DatasetError for the first that has none."""
        if self.odd:
            index = min(self.odd)
            more = f", and so {errors.count_phrase(len(self.odd) - 1, 'more cell')}" if len(self.odd) > 1 else ""
            cell, place = self.column.cells[index], self.column.place(index)
            problem = f"{self.column.name} in {place}: {cell!r} {self.odd[index]}{more}"
            raise DatasetError(problem, self.column.where, "Correct it, or leave the cell blank where nothing is known")
        return self


@dataclass(frozen=True, eq=False)
class ColumnTimes:
    """What the cells of a column of times mean.

    at:    (cells,) datetime64 in UTC, where no zone is stated by the clock as it is written; NaT where odd or blank
    local: (cells,) datetime64 by the clock of the table
    odd:   {index: why the cell has no time}
    """

    at: NDArray[np.datetime64]
    local: NDArray[np.datetime64]
    odd: Mapping[int, str]


def is_absent(cell: str) -> bool:
    """Whether a cell is blank, or a word that says that nothing is known."""
    return _plain(cell).casefold() in ABSENT


def numbers_in(column: TextColumn, *, strictly: bool = False, has_codes: bool = True) -> ColumnValues:
    """The numbers of a column; a code such as -999 is missing, a limit such as <0.1 a value with a side; strictly odd.

    has_codes: whether codes are looked for; a coordinate may be any number
    Raises DatasetError where decimals and thousands cannot be told apart, or where some cells have % and others none.
    """
    counts = Counter(map(_plain, column.cells))
    words = [text for text in counts if text.casefold() not in ABSENT]
    mark = _decimal_mark(column, [text.removesuffix("%").rstrip() for text in words])
    known = {text: value for text in words if (value := _number(text, mark)) is not None}
    percent = [text for text in known if text.endswith("%")]
    if percent and len(percent) < len(known):
        other = next(text for text in known if not text.endswith("%"))
        problem = f"{column.name} is {percent[0]!r} in {column.place_of(percent[0])} and {other!r} in "
        raise DatasetError(f"{problem}{column.place_of(other)}", column.where, "Write all of them with % or none")
    why = {text: "is no number" for text in words if text not in known}
    limits = {text: limit for text in why if (limit := _limit(text, mark)) is not None}
    aside = dict.fromkeys(limits, "is a limit, no number")
    code = "stands apart from the others, as codes of what is missing do; a measured one is written as"
    aside |= {text: f"{code} {text}e0" for text in missing_codes(known, counts) if has_codes}
    why = {**why, **aside} if strictly else {text: words for text, words in why.items() if text not in aside}
    left = (why.keys() | aside.keys()) - (set() if strictly else limits.keys())
    known |= {text: number for text, (number, _) in limits.items()}
    manner = " with decimal commas" if mark == "," and any("," in text for text in known) else ""
    manner += " with %, as hundredths" if percent else ""
    sides = {} if strictly else {text: side for text, (_, side) in limits.items()}
    return _values_of(column, {t: v for t, v in known.items() if t not in left}, why, "number", manner, sides)


def plain_numbers(column: TextColumn) -> dict[str, float]:
    """{cell: its number} of those with digits and marks alone, by all cells; empty where these may mean two things."""
    texts = {cell: _plain(cell) for cell in dict.fromkeys(column.cells)}
    if column.separator != ";" and all(map(PLAIN.fullmatch, texts.values())):
        return {cell: float(text) for cell, text in texts.items()}
    try:
        mark = _decimal_mark(column, list(texts.values()))
    except DatasetError:
        return {}
    known = {cell: _as_float(text, mark) for cell, text in texts.items() if FORMS[mark].fullmatch(text)}
    return {cell: number for cell, number in known.items() if np.isfinite(number)}


def probabilities_in(column: TextColumn) -> ColumnValues:
    """The probabilities of a column. Raises DatasetError for those from 0 to 100 or with %, and for odd cells."""
    found = numbers_in(column).refuse_odd()
    outside = np.flatnonzero((found.values < 0) | (found.values > 1))
    with_percent = [index for index, cell in enumerate(column.cells) if _plain(cell).endswith("%")]
    if with_percent or outside.size:
        index = with_percent[0] if with_percent else int(outside[0])
        problem = f"{column.name} in {column.place(index)} is {column.cells[index]!r}, and probabilities are 0 to 1"
        raise DatasetError(problem, column.where, "Write 83 % as 0.83")
    return found


def truths_in(column: TextColumn) -> ColumnValues:
    """1 where a cell says yes, 0 where it says no, in the words of common languages and programs; NaN where neither."""
    counts = Counter(map(_plain, column.cells))
    # A reference of "none" may be a finding that is not there, and "-" a negative one beside "+".
    absent = ABSENT - ({"none", "-"} if "+" in counts else {"none"})
    words = [text for text in counts if text.casefold() not in absent]
    known = {text: value for text in words if (value := truth_in(text)) is not None}
    why = {text: "is neither yes nor no" for text in words if text not in known}
    examples = {
        name: errors.list_phrase(repr(text) for text, own in known.items() if own == value)
        for name, value in _TRUTHS.items()
    }
    is_usual = all(ONE_OR_ZERO.fullmatch(text) for text in known)
    manner = "" if is_usual else f" (yes is {examples['yes'] or 'not there'}, no is {examples['no'] or 'not there'})"
    return _values_of(column, known, why, "answer", manner)


def one_spelling(column: TextColumn) -> dict[str, str]:
    """{cell: the most frequent spelling of its truth} of a column that says yes and no; else empty."""
    counts = Counter(cell for cell in column.cells if not is_absent(cell))
    truths = {cell: truth_in(cell) for cell in counts}
    if set(truths.values()) != set(_TRUTHS.values()):
        return {}
    usual = {truth: next(cell for cell, _ in counts.most_common() if truths[cell] == truth) for truth in (0.0, 1.0)}
    return {cell: usual[truth] for cell, truth in truths.items() if truth is not None}


def is_mostly_numeric(column: TextColumn) -> bool:
    """Whether a column is one of numbers, though some cells are odd: then these are not levels of a category.

    Raises DatasetError as `numbers_in` does.
    """
    found = numbers_in(column)
    in_limits = sum(found.limits.values())
    known = found.values[np.isfinite(found.values) & (found.sides == 0)]
    if found.odd:
        return len(known) > len(found.odd) and len(np.unique(known)) > MOST_GRADES
    # Of ages in groups, such as <40 and >=40, each is a level.
    return len(known) >= in_limits


def missing_codes(numbers: Mapping[str, float], counts: Mapping[str, int]) -> list[str]:
    """The texts that are codes of missing numbers, such as -999 or 9999, by the other numbers of their column.

    numbers: {text: its number}; counts: {text: number of its cells}
    """
    candidates = [text for text in numbers if may_be_code(text)]
    others = [value for text, value in numbers.items() if text not in candidates]
    if not candidates or sum(counts[text] for text in numbers if text not in candidates) < FEWEST_BESIDE:
        return []
    return [
        text
        for text in candidates
        if min(others) >= 0 and (numbers[text] < 0 or numbers[text] > TIMES_APART * max(others))
    ]


def may_be_code(text: str) -> bool:
    """Whether a number is written as codes of missing ones are, such as -999 or 9999."""
    return bool(BELOW_ZERO.fullmatch(text) or NINES.fullmatch(text))


def times_in(column: TextColumn) -> ColumnTimes:
    """The times of a column, as 2026-03-01T08:30:00 or by day and month.

    Raises DatasetError where day and month cannot be told apart, and where some times have a zone and others none.
    """
    cells = [_plain(cell) for cell in column.cells]
    is_day_first = _is_day_first(column, cells)
    found = [_moment(cell, is_day_first) for cell in cells]
    stated = [(index, one.tzinfo is not None) for index, one in enumerate(found) if one is not None]
    zoned, naive = ([index for index, has_zone in stated if has_zone == wanted] for wanted in (True, False))
    if zoned and naive:
        first, other = (f"{cells[own[0]]!r} in {column.place(own[0])}" for own in (zoned, naive))
        zoned_times = errors.count_phrase(len(zoned), "time")
        problem = f"{column.name} has {zoned_times} with a zone ({first}) and {len(naive)} without "
        raise DatasetError(f"{problem}({other})", column.where, "State the zone in each, or in none")
    odd = {
        index: "is no time"
        for index, (cell, one) in enumerate(zip(cells, found, strict=True))
        if one is None and cell.casefold() not in ABSENT
    }
    at = [None if one is None else _utc(one).replace(tzinfo=None) for one in found]
    local = [None if one is None else one.replace(tzinfo=None) for one in found]
    return ColumnTimes(np.array(at, dtype="datetime64[us]"), np.array(local, dtype="datetime64[us]"), odd)


def mixed_dates(cells: Sequence[str]) -> tuple[str, str] | None:
    """A date that can only have the day first, and one that can only have the month first; None without both."""
    dates = [cell for cell in map(_plain, cells) if DAY_AND_MONTH.fullmatch(cell)]
    day_first = next((cell for cell in dates if _moment(cell, False) is None and _moment(cell, True)), None)
    month_first = next((cell for cell in dates if _moment(cell, True) is None and _moment(cell, False)), None)
    return None if day_first is None or month_first is None else (day_first, month_first)


def moment_in(text: str, flag: str) -> datetime:
    """The day or time that a flag names. Raises UsageError where it is not written as 2026-03-01."""
    plain = _plain(text)
    if (moment := _moment(plain, None)) is not None:
        return moment
    days = _days(plain)
    problem = f"{text!r} may be {' or '.join(days)}" if days else f"{text!r} is no day"
    raise UsageError(problem, flag, f"Write it as {' or as '.join(days) or '2026-03-01'}")


_TRUTHS = {"yes": 1.0, "no": 0.0}


def _plain(cell: str) -> str:
    """A cell without blanks around it, each blank a space and each minus the usual one."""
    if cell.isascii() and cell.isprintable() and "  " not in cell:
        return cell.strip(" ")
    return SPACES.sub(" ", cell.replace("\u2212", "-")).strip()


def _form(mark: str, grouping: str) -> re.Pattern[str]:
    # Nobody parts thousands of a number with an exponent: 7.780E+01 has decimals.
    plain = rf"(?:\d+(?:{mark}\d+)?|{mark}\d+|\d+\.)(?:e[+-]?\d+)?"
    in_thousands = rf"[1-9]\d{{0,2}}(?P<mark>[{grouping}'\u2019 ])\d{{3}}(?:(?P=mark)\d{{3}})*(?:{mark}\d+)?"
    return re.compile(rf"[+-]?(?:{plain}|{in_thousands})", re.IGNORECASE)


PLAIN = re.compile(r"-?\d+(?:\.\d+)?")
# A number with a point, or a comma, before its decimals; the other mark, or a blank or an apostrophe, parts thousands.
FORMS = {".": _form(r"\.", ","), ",": _form(",", ".")}


def _decimal_mark(column: TextColumn, texts: Sequence[str]) -> str:
    """The mark before decimals, by all cells that are numbers in one of the two ways, and by the separator."""
    if column.separator != ";" and not any("," in text or text.count(".") > 1 for text in texts):
        return "."
    limits = [fit[2] or fit[3] for text in texts if (fit := LIMIT.fullmatch(text))]
    looked_at = [text for text in (*texts, *limits) if "," in text or "." in text]
    fits = {text: [mark for mark, form in FORMS.items() if form.fullmatch(text)] for text in looked_at}
    only = {mark: [text for text, marks in fits.items() if marks == [mark]] for mark in FORMS}
    if only["."] and only[","]:
        first, second = only["."][0], only[","][0]
        problem = f"{column.name} has decimal points, as {first!r}, and decimal commas, as {second!r}"
        raise DatasetError(problem, column.where, "Write all numbers of a column in one way")
    if only["."] or only[","]:
        return "." if only["."] else ","
    unclear = [text for text, marks in fits.items() if len(marks) > 1 and _as_float(text, ".") != _as_float(text, ",")]
    has_comma, has_point = (any(mark in text for text in unclear) for mark in ",.")
    is_by_semicolon = column.separator == ";"
    if not unclear or (has_point and not has_comma and not is_by_semicolon):
        return "."
    if has_comma and not has_point and is_by_semicolon:
        return ","
    readings = " or ".join(f"{_as_float(unclear[0], mark):g}" for mark in FORMS)
    remedy = "Write thousands without a mark, as 1504, and other decimals than three, as 1.50"
    raise DatasetError(f"{column.name} holds {unclear[0]!r}, which may be {readings}", column.where, remedy)


def _as_float(text: str, mark: str) -> float:
    other = "," if mark == "." else "."
    return float(re.sub(rf"[{other}'\u2019 ]", "", text).replace(mark, "."))


def _number(text: str, mark: str) -> float | None:
    """The number of a cell, of a percentage in hundredths, of an age of DICOM in years; None where it is none."""
    if mark == "." and PLAIN.fullmatch(text):
        return float(text)
    bare = text.removesuffix("%").rstrip()
    if FORMS[mark].fullmatch(bare):
        value = _as_float(bare, mark) / (100 if text.endswith("%") else 1)
        return value if np.isfinite(value) else None
    age = DICOM_AGE.fullmatch(text.casefold())
    return float(age[1]) * YEARS[age[2]] if age else None


def _limit(text: str, mark: str) -> tuple[float, int] | None:
    """The number of a limit such as <0.1 or 90+, and -1 below it or 1 above; None of a text that is none."""
    fit = LIMIT.fullmatch(text)
    number = None if fit is None else _number(fit[2] or fit[3], mark)
    if fit is None or number is None:
        return None
    return number, -1 if fit[1] and fit[1] in BELOW else 1


def limit_in(cell: str) -> float | None:
    """The number of a limit such as <0.1 or 90+; None where a cell is none."""
    limit = _limit(_plain(cell), ".")
    return None if limit is None else limit[0]


def truth_in(cell: str) -> float | None:
    """1 for yes and 0 for no, in the words of common languages and programs; None where a cell is neither."""
    word = _plain(cell).casefold().rstrip(".")
    if fit := ONE_OR_ZERO.fullmatch(word):
        return float(fit[1])
    return 1.0 if word in YES else 0.0 if word in NO or word == "-" else None


def _values_of(
    column: TextColumn,
    known: Mapping[str, float],
    why: Mapping[str, str],
    unit: str,
    manner: str,
    sides: Mapping[str, int] = {},
) -> ColumnValues:
    """The values of all cells, from those of their texts; what is neither known nor odd is missing."""
    cells = [_plain(cell) for cell in column.cells]
    values = np.array([known.get(cell, np.nan) for cell in cells], dtype=np.float64)
    odd = {index: why[cell] for index, cell in enumerate(cells) if cell in why}
    missing = Counter(cell for cell in cells if cell and cell not in known and cell not in why)
    sides_of_cells = np.array([sides.get(cell, 0) for cell in cells], dtype=np.int8)
    return ColumnValues(column, values, sides_of_cells, odd, missing, unit, manner)


def _is_day_first(column: TextColumn, cells: Sequence[str]) -> bool | None:
    """Whether dates such as 25.04.2026 have the day first; None where not, or where the column has no such date."""
    dates = list(dict.fromkeys(cell for cell in cells if DAY_AND_MONTH.fullmatch(cell)))
    possible = [first for first in (True, False) if all(_moment(cell, first) is not None for cell in dates)]
    if not dates or not possible:
        return None
    if len(possible) > 1 and (apart := next((cell for cell in dates if len(_days(cell)) > 1), None)) is not None:
        problem = f"{column.name} in {column.place_of(apart)} is {apart!r}, which may be {' or '.join(_days(apart))}"
        raise DatasetError(problem, column.where, "Write times as 2026-03-01T08:30:00")
    return possible[0]


def _days(cell: str) -> list[str]:
    """The days, as ISO has them, that a date by day and month may be."""
    moments = (_moment(cell, is_day_first) for is_day_first in (True, False))
    return sorted({one.date().isoformat() for one in moments if one is not None})


def _moment(cell: str, is_day_first: bool | None) -> datetime | None:
    """The time of a cell; None where it is none. is_day_first: None for ISO times only"""
    try:
        if ISO.match(cell):
            return datetime.fromisoformat(cell)
        fit = None if is_day_first is None else DAY_AND_MONTH.fullmatch(cell)
        if fit is None:
            return None
        day, month = (fit[1], fit[3]) if is_day_first else (fit[3], fit[1])
        hour, minute, second = (int(one or 0) for one in fit.groups()[-3:])
        return datetime(int(fit[4]), int(month), int(day), hour, minute, second)
    except ValueError:
        return None


def _utc(moment: datetime) -> datetime:
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)

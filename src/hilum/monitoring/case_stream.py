"""Cases of a model in use, in the order of time, as a table of anyone's model states them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import DatasetError, FormatError
from hilum.evaluation.fairness import group_attributes
from hilum.files.storage import csv_text
from hilum.lazy import pandas as pd
from hilum.values import Floats, covariate_values, table_cells
from hilum.values.table_cells import ColumnTimes, ColumnValues, TextColumn

AT = "at"
CASE = "case"
PATIENT = "patient"
VERSION = "version"
SOFTWARE = "software"
WARD = "ward"
REFERENCE = "reference"
REFERENCE_AT = "reference_at"
INCLUSION = "inclusion"
ABSTAINED = "abstained"
SECONDS = "seconds"
PREDICTED = "predicted"
PROBABILITY = "probability_"
CALLED = "called_"
MEASURE = "measure_"
COVARIATE = "covariate_"
# What the network sees, watched as one; each column is ranked by itself, so that many take long.
FEATURE = "feature_"
FEATURES = "features"
MOST_FEATURES = 64
# Beginnings and endings of columns that are watched, by what a change of them is: of images, or of answers.
INPUTS = (MEASURE, COVARIATE)
OUTPUTS = (PROBABILITY, "value_")
VOLUME = "_ml"
NOT_WATCHED = ("_ml_low", "_ml_high")
INPUT = "input"
OUTPUT = "output"
CONCEPT = "concept"
OPERATION = "operation"
MOST_LEVELS = 20
# The least of the whole numbers above 0 that stand for missing ones.
FROM_CODES = 99
# Columns, and beginnings of columns, that are no groups.
NO_GROUPS = (AT, CASE, PATIENT, REFERENCE, INCLUSION)
NO_GROUPS_OF = (PROBABILITY, CALLED, FEATURE, f"{REFERENCE}_")
# How a reference says that no finding is present.
NOTHING_FOUND = frozenset({"none", "no finding", "no findings", "nothing", "normal"})
# What parts several findings of a cell.
BETWEEN = ";,|"


@dataclass(frozen=True, eq=False)
class CaseStream:
    """Rows of a table, ordered by time.

    table:   text cells, of which blank ones are not known; numbers, calls and outcomes as plain numbers
    at:      (cases,) when each was answered
    local:   (cases,) the same by the clock of the site
    numeric: columns of numbers
    notes:   how columns were read, where that is not as usual, and names that are no finding
    was_ordered: whether the table's own order was that of time
    """

    table: pd.DataFrame
    at: pd.DatetimeIndex
    local: pd.DatetimeIndex
    where: str
    numeric: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    was_ordered: bool = True

    @classmethod
    def from_table(
        cls, table: str | Path | pd.DataFrame, *, needs_time: bool = True, zone: str = "", strictly: bool = True
    ) -> CaseStream:
        """The stream of a CSV, a Parquet file or a DataFrame.

        zone:     of the site; empty: the clock of the table
        strictly: whether an odd cell among numbers is refused, or else not known
        Raises FormatError for a file that is no table, DatasetError for one without `at` and `case`, for a cell that
        fits nothing, and for a case that occurs twice.
        """
        where = "table" if isinstance(table, pd.DataFrame) else str(table)
        rows = text_table(table, where)
        needed = [name for name in ((AT, CASE) if needs_time else (CASE,)) if name not in rows]
        if needed:
            raise DatasetError(f"has no column {' and no column '.join(needed)}", where, f"Name them {AT} and {CASE}")
        if not len(rows):
            raise DatasetError("has no row", where, "Give the cases that the model has answered")
        if rows[CASE].duplicated().any():
            twice = rows[CASE][rows[CASE].duplicated()].iloc[0]
            raise DatasetError(f"case {twice} occurs twice", where, "Give one row per case, the last version of each")
        times = _times(rows, where, needs_time=needs_time)
        at = pd.DatetimeIndex(times.at).tz_localize("UTC")
        local = pd.DatetimeIndex(times.local)
        if zone:
            local = at.tz_convert(zone).tz_localize(None)
        typed = _plain_numbers(table) if isinstance(table, pd.DataFrame) else frozenset()
        numeric, notes = _read_columns(rows, where, typed, strictly=strictly)
        order = np.argsort(at.to_numpy(), kind="stable")
        was_ordered = bool((np.diff(order) == 1).all())
        rows = rows.iloc[order].reset_index(drop=True)
        return cls(rows, at[order], local[order], where, numeric, tuple(notes), was_ordered)

    def __len__(self) -> int:
        return len(self.table)

    def between(self, since: str | None, until: str | None) -> CaseStream:
        """The cases from a day on and before another, each an ISO date of the site.

        Raises UsageError for a date that is none, DatasetError where no case is left.
        """
        chosen = np.ones(len(self), dtype=bool)
        for flag, day in (("--since", since), ("--until", until)):
            if day is None:
                continue
            limit = pd.Timestamp(table_cells.moment_in(day, flag))
            times = self.local if limit.tzinfo is None else self.at
            chosen &= np.asarray(times >= limit if flag == "--since" else times < limit)
        if not chosen.any():
            raise DatasetError("no case lies between --since and --until", self.where, "Give other dates")
        return self.only(chosen)

    def only(self, chosen: NDArray[np.bool_]) -> CaseStream:
        """The cases that are kept."""
        rows = self.table[chosen].reset_index(drop=True)
        return replace(self, table=rows, at=self.at[chosen], local=self.local[chosen])

    def has(self, name: str) -> bool:
        """Whether a column is there and not blank in every row."""
        return name in self.table and bool((self.table[name] != "").any())

    def text(self, name: str) -> NDArray[np.str_]:
        """(cases,) cells of a column; blank where it does not exist."""
        return np.asarray(self.table[name] if name in self.table else [""] * len(self), dtype=object).astype(str)

    def numbers(self, name: str) -> Floats:
        """(cases,) numbers of a column; NaN where there is none."""
        return np.asarray(pd.to_numeric(pd.Series(self.text(name)), errors="coerce"), dtype=np.float64)

    @property
    def patients(self) -> NDArray[np.str_]:
        """(cases,) the patient of each; a case without one stands for itself."""
        named = self.text(PATIENT)
        return np.where(named == "", np.char.add("\0", self.text(CASE)), named)

    @property
    def strata(self) -> NDArray[np.str_]:
        """(cases,) circumstances in which cases are not alike without a change: weekend and ward."""
        weekend = np.where(np.asarray(self.local.dayofweek) >= 5, "weekend", "week") if len(self) else np.array([])
        return np.char.add(np.char.add(weekend.astype(str), "\0"), self.text(WARD))

    @property
    def findings(self) -> list[str]:
        """The classes or findings with probabilities."""
        return [name.removeprefix(PROBABILITY) for name in map(str, self.table) if name.startswith(PROBABILITY)]

    @property
    def software_changes(self) -> dict[str, str]:
        """{time of the first case, by the clock of the site: software or version that was new with it}."""
        made = dict[str, str]()
        for name in (SOFTWARE, VERSION):
            cells = self.text(name)
            for level in sorted(set(cells) - {""} - set(cells[:1])):
                at = self.local[int(np.argmax(cells == level))].isoformat(timespec="seconds")
                made[at] = "; ".join(filter(None, [made.get(at, ""), f"{name} {level[:12]}"]))
        return made

    def outcomes(self, finding: str) -> Floats:
        """(cases,) 1 where the reference has the finding, 0 where it has not, NaN where it is not known.

        `reference` holds the class, or the findings that are present, joined by ";"; `reference_<finding>` stands
        before it.
        """
        named = [np.nan if cell == "" else float(finding in cell.split(";")) for cell in self.text(REFERENCE).tolist()]
        own = self.numbers(f"{REFERENCE}_{finding}")
        return np.where(np.isfinite(own), own, named)

    def calls(self, finding: str) -> Floats:
        """(cases,) 1 where the model called the finding, by `called_<finding>` or `predicted`; NaN where not stated."""
        if self.has(f"{CALLED}{finding}"):
            return self.numbers(f"{CALLED}{finding}")
        cells = self.text(PREDICTED)
        return np.array([np.nan if cell == "" else float(cell == finding) for cell in cells])

    def groups(self, by: str | None) -> dict[str, np.ndarray]:
        """{attribute: (cases,) the group of each}, as `groups_by_attribute` makes them of the columns."""
        if not by:
            return {}
        named = {word.partition(":")[0].strip().casefold() for word in by.replace("*", ",").split(",")}
        usable = [name for name in map(str, self.table) if name not in NO_GROUPS and not name.startswith(NO_GROUPS_OF)]
        columns = {name.removeprefix(COVARIATE): name for name in usable}
        cells = {
            name: [cell or None for cell in self.text(column).tolist()] if name.casefold() in named else []
            for name, column in columns.items()
        }
        return group_attributes.groups_by_attribute(cells, by, flag="--by")


@dataclass(frozen=True, eq=False)
class WatchedColumn:
    """Subject of one watch.

    name:      as rows of `drift.csv` call it
    kind:      what a change of it is: input, output or operation
    reference: (cases, columns); values: (cases, columns) of the stream
    is_compared: (cases,) of the reference, whether the stream is compared with it
    new_levels: (cases,) of the stream, the level of a category where the reference has no such; else blank
    """

    name: str
    kind: str
    reference: Floats
    values: Floats
    is_compared: NDArray[np.bool_]
    new_levels: np.ndarray


def watched_columns(reference: CaseStream, stream: CaseStream) -> Iterator[WatchedColumn]:
    """Columns of a stream that are watched: each number of the reference, and each category as shares of its levels.

    A category of more than 20 levels is watched as how frequent a level is, and whether it is new, by every second case
    of the reference: with these the others and the stream are compared, which without a change are alike. Of a column
    that is blank in the reference it is watched whether it is filled; one that the stream has no more is all missing.
    Raises DatasetError for more than 64 features.
    """
    seen = [name for name in map(str, reference.table) if name.startswith(FEATURE)]
    if len(seen) > MOST_FEATURES:
        remedy = f"Give at most {MOST_FEATURES}: principal axes of cases that are not watched"
        raise DatasetError(f"has {len(seen)} columns {FEATURE}...", reference.where, remedy)
    everyone = np.ones(len(reference), dtype=bool)
    none_new = np.full(len(stream), "", dtype=object)
    if seen:
        before, now = (np.stack([one.numbers(name) for name in seen], axis=1) for one in (reference, stream))
        yield WatchedColumn(FEATURES, INPUT, before, now, everyone, none_new)
    for name in map(str, reference.table):
        kind = _kind(name)
        if kind is None or not (reference.has(name) or stream.has(name)):
            continue
        is_compared = everyone
        new_levels = none_new
        if name == ABSTAINED or not reference.has(name):
            before, now = ((one.text(name) != "").astype(np.float64)[:, None] for one in (reference, stream))
        elif (both := _numbers_of_both(name, reference, stream)) is not None:
            before, now = both
        else:
            known, cells = (_in_one_spelling(one.text(name), reference.text(name)) for one in (reference, stream))
            levels = sorted(set(known) - {""})
            new_levels = np.where(np.isin(cells, [*levels, ""]), "", cells)
            is_compared = everyone if len(levels) <= MOST_LEVELS else np.arange(len(reference)) % 2 == 1
            frequent = Counter(known[~is_compared].tolist())
            before, now = (
                _levels(one, levels) if is_compared.all() else _frequencies(one, frequent) for one in (known, cells)
            )
        yield WatchedColumn(name, kind, before, now, is_compared, new_levels)


def _numbers_of_both(name: str, reference: CaseStream, stream: CaseStream) -> tuple[Floats, Floats] | None:
    """(cases, 1) numbers of a column of the reference and of the stream; None where one of them has words.

    Where most cells of one are limits such as <0.1, which by themselves may be the groups of a category, the numbers of
    the other say what they are.
    """
    streams = (reference, stream)
    if not any(name in one.numeric for one in streams):
        return None
    found = list[Floats]()
    for one in streams:
        if name in one.numeric:
            found.append(one.numbers(name)[:, None])
            continue
        read = table_cells.numbers_in(TextColumn(name, one.text(name).tolist(), one.where))
        if read.odd and name not in reference.numeric:
            return None
        found.append(read.ordered_values[:, None])
    return found[0], found[1]


def _in_one_spelling(cells: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(cases,) cells of a category, spelled as in the reference: "female" is no new level beside "F"."""
    spelled = covariate_values.one_spelling(cells.tolist(), reference.tolist())
    return np.asarray(spelled, dtype=object).astype(str)


def watch_notes(reference: CaseStream, stream: CaseStream) -> Iterator[str]:
    """What is not watched, or not as other columns are, and why; and cases that are compared with themselves."""
    both = set(reference.text(CASE)) & set(stream.text(CASE))
    if both:
        cases = errors.count_phrase(len(both), "case is", "cases are")
        yield f"{cases} in the baseline too: what is compared with itself shows no change"
    for name in sorted({*map(str, reference.table), *map(str, stream.table)}):
        if _kind(name) is None or name == ABSTAINED or name.startswith(FEATURE):
            continue
        levels = set(reference.text(name)) - {""}
        if stream.has(name) and name not in reference.table:
            yield f"{name} is not watched: the baseline has no such column"
        elif stream.has(name) and not reference.has(name):
            yield f"{name} is blank in the baseline: only whether it is filled is watched"
        elif name not in reference.numeric and len(levels) > MOST_LEVELS:
            yield f"{name} has {len(levels)} levels: watched are how frequent a level is, and new levels"


def _kind(name: str) -> str | None:
    if name in (ABSTAINED, SECONDS):
        return OPERATION
    if name.startswith(INPUTS):
        return INPUT
    is_output = name == PREDICTED or name.startswith(OUTPUTS) or name.endswith(VOLUME)
    return OUTPUT if is_output and not name.endswith(NOT_WATCHED) else None


def _levels(cells: NDArray[np.str_], levels: list[str]) -> Floats:
    """(cases, levels + 1) 1 for the level of each case; the last is any other, which the reference never has."""
    each = np.stack([cells == level for level in levels] + [~np.isin(cells, levels)], axis=1).astype(np.float64)
    each[cells == ""] = np.nan
    return each


def _frequencies(cells: NDArray[np.str_], frequent: Counter[str]) -> Floats:
    """(cases, 2) how often some cases of the reference have the level of each case, and whether they do not."""
    counts = np.array([np.nan if cell == "" else frequent[cell] for cell in cells.tolist()])
    return np.stack([counts, np.where(np.isnan(counts), np.nan, counts == 0)], axis=1)


def _times(rows: pd.DataFrame, where: str, *, needs_time: bool) -> ColumnTimes:
    column = csv_text.text_column(rows, AT, where) if AT in rows else TextColumn(AT, [""] * len(rows), where)
    times = table_cells.times_in(column)
    lacking = [*times.odd, *(np.flatnonzero(np.isnat(times.at)).tolist() if needs_time else ())]
    for index in sorted(lacking)[:1]:
        problem = f"{column.cells[index]!r} in column {AT}, {column.place(index)}, is no time"
        raise DatasetError(problem, where, "Write times as 2026-03-01T08:30:00")
    return times


def _plain_numbers(table: pd.DataFrame) -> frozenset[str]:
    """Columns whose numbers need no reading: none is a whole one that may be a code, nor a probability outside 0..1."""
    typed = frozenset[str]()
    for name in map(str, table.select_dtypes("number")):
        if name in (ABSTAINED, PREDICTED) or name.startswith((CALLED, REFERENCE)):
            continue
        values = table[name].to_numpy(dtype=np.float64, na_value=np.nan)
        is_outside = (values < 0) | (values > 1 if name.startswith(PROBABILITY) else values >= FROM_CODES)
        is_suspect = is_outside if name.startswith(PROBABILITY) else is_outside & (values == np.rint(values))
        typed |= frozenset() if is_suspect.any() else {name}
    return typed


def _read_columns(
    rows: pd.DataFrame, where: str, typed: frozenset[str], *, strictly: bool
) -> tuple[frozenset[str], list[str]]:
    """(columns of numbers, notes); the cells of `rows` are brought into one form."""
    findings = [name.removeprefix(PROBABILITY) for name in map(str, rows) if name.startswith(PROBABILITY)]
    numeric = set(typed & set(rows))
    notes = list[str]()
    for name in [one for one in map(str, rows) if one not in typed]:
        column = csv_text.text_column(rows, name, where)
        label = name.partition("_")[2]
        if name in (REFERENCE, PREDICTED):
            rows[name], more = _named_findings(column, findings)
            notes += more
            continue
        if name.startswith((CALLED, f"{REFERENCE}_")) and label not in findings:
            is_known = name == REFERENCE_AT or f"value_{label}" in rows or f"{label}{VOLUME}" in rows
            notes += (
                [] if is_known else [f"{name}: {label!r} is no finding of this table ({errors.list_phrase(findings)})"]
            )
            continue
        found = _values(name, column, strictly=strictly)
        if found is not None:
            numeric |= {name}
            rows[name] = [_cell(value) for value in found.ordered_values]
            notes += [found.sentence] if found.is_notable else []
        elif _kind(name) == OPERATION:  # why the model abstained, or whether
            is_no = table_cells.truths_in(column).values == 0
            rows[name] = [
                "" if no or table_cells.is_absent(cell) else cell for cell, no in zip(column.cells, is_no, strict=True)
            ]
        elif _kind(name) is not None:
            rows[name] = ["" if table_cells.is_absent(cell) else cell for cell in column.cells]
    return frozenset(numeric), notes


def _values(name: str, column: TextColumn, *, strictly: bool) -> ColumnValues | None:
    """The values of a column by its name; None of one of words. Raises DatasetError for a cell that fits nothing."""
    if name.startswith(PROBABILITY) or name == INCLUSION:
        return table_cells.probabilities_in(column)
    if name.startswith((CALLED, f"{REFERENCE}_")):
        return table_cells.truths_in(column).refuse_odd()
    is_number = name == SECONDS or name.startswith(FEATURE)
    if is_number or (_kind(name) in (INPUT, OUTPUT) and name != PREDICTED and table_cells.is_mostly_numeric(column)):
        found = table_cells.numbers_in(column)
        return found.refuse_odd() if strictly else found
    return None


def _cell(value: float) -> str:
    return "" if np.isnan(value) else repr(float(value)).removesuffix(".0")


def _named_findings(column: TextColumn, findings: Sequence[str]) -> tuple[list[str], list[str]]:
    """(the cells with the names of findings as the table has them, joined by ";", and ";" for none; notes).

    Raises DatasetError where no cell names any, and for yes or no of one among several.
    """
    truths = table_cells.truths_in(column).values
    spellings = {one.casefold(): one for one in findings}
    cells = list[str]()
    strange = Counter[str]()
    for index, cell in enumerate(map(str.strip, column.cells)):
        whole = spellings.get(cell.casefold()) or spellings.get(cell.removesuffix(".0"))
        if whole is None and (cell == "" or (table_cells.is_absent(cell) and cell.casefold() not in NOTHING_FOUND)):
            cells.append("")
        elif whole is not None or cell.casefold() in NOTHING_FOUND:
            cells.append(whole or ";")
        elif np.isfinite(truths[index]) and findings:
            if len(findings) > 1:
                finding_names = errors.list_phrase(findings)
                problem = f"{column.name} in {column.place(index)}: {cell!r} does not say which of {finding_names}"
                raise DatasetError(problem, column.where, f"Give columns {REFERENCE}_{findings[0]} and so on")
            cells.append(findings[0] if truths[index] else ";")
        else:
            parts = [one.strip() for one in _split_cell(cell)]
            strange.update(one for one in parts if one.casefold() not in spellings)
            cells.append(";".join(spellings.get(one.casefold(), "") for one in parts) or ";")
    if strange and findings and not any(cell.strip(";") for cell in cells):
        finding_names = errors.list_phrase(findings)
        problem = f"{column.name} names none of {finding_names}, but {errors.list_phrase(map(repr, strange), 3)}"
        raise DatasetError(problem, column.where, f"Name these, or give {REFERENCE}_{findings[0]} as 1 and 0")
    if column.name == PREDICTED:  # watched by its own words
        cells = [own if own.strip(";") else cell for own, cell in zip(cells, column.cells, strict=True)]
    names = ", ".join(f"{one!r} ({n})" for one, n in strange.most_common(3))
    return cells, [f"{column.name} names what is no finding of this table: {names}"] if strange and findings else []


def _split_cell(cell: str) -> list[str]:
    mark = next((one for one in BETWEEN if one in cell), ";")
    return cell.split(mark)


def text_table(table: str | Path | pd.DataFrame, where: str) -> pd.DataFrame:
    """A CSV, a Parquet file or a DataFrame with every cell as text. Raises DatasetError and FormatError."""
    if not isinstance(table, pd.DataFrame):
        path = Path(table)
        if not path.is_file():
            raise DatasetError("is no file", where, "Give a table, CSV or Parquet")
        if path.suffix.casefold() != ".parquet":
            return csv_text.read_given_table(path)
        try:
            table = pd.read_parquet(path)
        except (ValueError, OSError) as error:
            raise FormatError(f"is no Parquet table ({error})", where, "Save it again") from error
    filled = table.astype(object).where(table.notna(), "").map(str)
    filled.columns = [str(name) for name in filled.columns]
    return filled.reset_index(drop=True)

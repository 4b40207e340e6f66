"""Cases of a model in use, in the order of time, as a table of anyone's model states them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import DatasetError, FormatError
from isocenter.evaluation import groups_of
from isocenter.files import read_text_table
from isocenter.lazy import pandas as pd
from isocenter.values import Floats

AT, CASE, PATIENT, VERSION, WARD = "at", "case", "patient", "version", "ward"
REFERENCE, INCLUSION, ABSTAINED, SECONDS, PREDICTED = "reference", "inclusion", "abstained", "seconds", "predicted"
PROBABILITY, CALLED, MEASURE, COVARIATE = "probability_", "called_", "measure_", "covariate_"
# What the network sees, watched as one; each column is ranked by itself, so that many take long.
FEATURE, FEATURES, MOST_FEATURES = "feature_", "features", 64
# Beginnings and endings of columns that are watched, by what a change of them is: of images, or of answers.
INPUTS, OUTPUTS, VOLUME = (MEASURE, COVARIATE), (PROBABILITY, "value_"), "_ml"
NOT_WATCHED = ("_ml_low", "_ml_high")
INPUT, OUTPUT, CONCEPT, OPERATION = "input", "output", "concept", "operation"
MOST_LEVELS = 20
TRUE = ("1", "1.0", "true", "yes", "positive", "present")
FALSE = ("0", "0.0", "false", "no", "negative", "absent")


@dataclass(frozen=True, eq=False)
class Stream:
    """Rows of a table, ordered by time.

    table: text cells, of which blank ones are not known
    at:    (cases,) when each was answered
    was_ordered: whether the table's own order was that of time
    """

    table: pd.DataFrame
    at: pd.DatetimeIndex
    where: str
    was_ordered: bool = True

    @classmethod
    def of(cls, table: str | Path | pd.DataFrame, *, needs_time: bool = True) -> Stream:
        """The stream of a CSV, a Parquet file or a DataFrame.

        Raises FormatError for a file that is no table, DatasetError for one without `at` and `case`, for a time that is
        none, and for a case that occurs twice.
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
        times = rows[AT] if AT in rows else pd.Series([""] * len(rows))
        at = pd.to_datetime(times, errors="coerce", utc=True, format="ISO8601")
        if needs_time and at.isna().any():
            wrong = times[at.isna()].iloc[0]
            raise DatasetError(f"{wrong!r} in column {AT} is no time", where, "Write times as 2026-03-01T08:30:00")
        order = np.argsort(at.to_numpy(), kind="stable")
        return cls(
            rows.iloc[order].reset_index(drop=True),
            pd.DatetimeIndex(at.iloc[order]),
            where,
            bool((np.diff(order) == 1).all()),
        )

    def __len__(self) -> int:
        return len(self.table)

    def between(self, since: str | None, until: str | None) -> Stream:
        """The cases from a day on and before another, each an ISO date.

        Raises DatasetError for a date that is none, and where no case is left.
        """
        chosen = np.ones(len(self), dtype=bool)
        for day, later in ((since, True), (until, False)):
            if day is None:
                continue
            limit = pd.to_datetime(day, errors="coerce", utc=True)
            if pd.isna(limit):
                raise DatasetError(f"{day!r} is no date", self.where, "Write it as 2026-03-01")
            chosen &= np.asarray(self.at >= limit if later else self.at < limit)
        if not chosen.any():
            raise DatasetError("no case lies between --since and --until", self.where, "Give other dates")
        return self.only(chosen)

    def only(self, chosen: NDArray[np.bool_]) -> Stream:
        """The cases that are kept."""
        return Stream(self.table[chosen].reset_index(drop=True), self.at[chosen], self.where, self.was_ordered)

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
        weekend = np.where(np.asarray(self.at.dayofweek) >= 5, "weekend", "week") if len(self) else np.array([])
        return np.char.add(np.char.add(weekend.astype(str), "\0"), self.text(WARD))

    @property
    def findings(self) -> list[str]:
        """The classes or findings with probabilities."""
        return [name.removeprefix(PROBABILITY) for name in map(str, self.table) if name.startswith(PROBABILITY)]

    def outcomes(self, finding: str) -> Floats:
        """(cases,) 1 where the reference has the finding, 0 where it has not, NaN where it is not known.

        `reference` holds the class, or the findings that are present, joined by ";"; of one finding also 1 and 0.
        """
        references = [cell.strip() for cell in self.text(REFERENCE).tolist()]
        columns = self.text(f"{REFERENCE}_{finding}").tolist()
        yes_no = len(self.findings) == 1
        outcomes = [
            _outcome(cell, name, finding, yes_no=yes_no) for cell, name in zip(references, columns, strict=True)
        ]
        return np.array(outcomes, dtype=np.float64)

    def calls(self, finding: str) -> Floats:
        """(cases,) 1 where the model called the finding, by `called_<finding>` or `predicted`; NaN where not stated."""
        if self.has(f"{CALLED}{finding}"):
            cells = self.text(f"{CALLED}{finding}").tolist()
            return np.array([np.nan if cell == "" else float(cell.casefold() in TRUE) for cell in cells])
        cells = self.text(PREDICTED)
        return np.array([np.nan if cell == "" else float(cell == finding) for cell in cells])

    def groups(self, by: str | None) -> dict[str, np.ndarray]:
        """{attribute: (cases,) the group of each}, as `groups_of` makes them of the columns."""
        if not by:
            return {}
        named = {word.partition(":")[0].strip().casefold() for word in by.replace("*", ",").split(",")}
        columns = {name.removeprefix(COVARIATE): name for name in map(str, self.table)}
        cells = {
            name: [cell or None for cell in self.text(column).tolist()] if name.casefold() in named else []
            for name, column in columns.items()
        }
        return groups_of(cells, by)


@dataclass(frozen=True, eq=False)
class Watched:
    """Subject of one watch.

    name:      as rows of `drift.csv` call it
    kind:      what a change of it is: input, output or operation
    reference: (cases, columns); values: (cases, columns) of the stream
    """

    name: str
    kind: str
    reference: Floats
    values: Floats


def watched_columns(reference: Stream, stream: Stream) -> Iterator[Watched]:
    """Columns of a stream that are watched: each number of the reference, and each category as shares of its levels.

    A column that the stream has no more is all missing, which its watch sees. Raises DatasetError for more than 64
    features.
    """
    seen = [name for name in map(str, reference.table) if name.startswith(FEATURE)]
    if len(seen) > MOST_FEATURES:
        remedy = f"Give at most {MOST_FEATURES}: principal axes of cases that are not watched"
        raise DatasetError(f"has {len(seen)} columns {FEATURE}...", reference.where, remedy)
    if seen:
        yield Watched(
            FEATURES,
            INPUT,
            *(np.stack([one.numbers(name) for name in seen], axis=1) for one in (reference, stream)),
        )
    for name in map(str, reference.table):
        kind = _kind(name)
        if kind is None or not reference.has(name):
            continue
        if name == ABSTAINED:
            yield Watched(name, kind, *(_shares(one.text(name), ["", "0", "False"]) for one in (reference, stream)))
            continue
        known = reference.numbers(name)
        if np.isfinite(known).any():
            yield Watched(name, kind, known[:, None], stream.numbers(name)[:, None])
            continue
        levels = sorted(set(reference.text(name)) - {""})
        if len(levels) <= MOST_LEVELS:
            yield Watched(name, kind, *(_levels(one.text(name), levels) for one in (reference, stream)))


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


def _shares(cells: NDArray[np.str_], none: list[str]) -> Floats:
    return (~np.isin(cells, none)).astype(np.float64)[:, None]


def _outcome(cell: str, column: str, finding: str, *, yes_no: bool) -> float:
    if column != "":
        return float(column.strip().casefold() in TRUE)
    if cell == "":
        return np.nan
    named = {one.strip() for one in cell.split(";")}
    return float(finding in named or (yes_no and cell.casefold() in TRUE))


def text_table(table: str | Path | pd.DataFrame, where: str) -> pd.DataFrame:
    """A CSV, a Parquet file or a DataFrame with every cell as text. Raises DatasetError and FormatError."""
    if not isinstance(table, pd.DataFrame):
        path = Path(table)
        if not path.is_file():
            raise DatasetError("is no file", where, "Give a table, CSV or Parquet")
        if path.suffix.casefold() != ".parquet":
            try:
                return read_text_table(path)
            except (ValueError, UnicodeDecodeError) as error:
                raise FormatError(f"is no table ({error})", where, "Save it as CSV in UTF-8, or as Parquet") from error
        try:
            table = pd.read_parquet(path)
        except (ValueError, OSError) as error:
            raise FormatError(f"is no Parquet table ({error})", where, "Save it again") from error
    filled = table.astype(object).where(table.notna(), "").map(str)
    filled.columns = [str(name) for name in filled.columns]
    return filled.reset_index(drop=True)

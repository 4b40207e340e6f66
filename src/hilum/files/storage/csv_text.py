"""Tables as CSV, written and read in one place: text that a spreadsheet would compute comes as text, and comes back.

An apostrophe before a cell makes it text: OWASP, CSV Injection, https://owasp.org/www-community/attacks/CSV_Injection
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO, cast

from hilum.errors import DatasetError
from hilum.lazy import pandas
from hilum.values.table_cells import TextColumn

MARK = "'"
# What a spreadsheet takes for a formula; with marks before it, so that a cell that has one keeps it.
FORMULA = re.compile(rf"{MARK}*[=+\-@\t\r]")
NUMBER = re.compile(r"[+-]?(inf|([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?)")
# The first line by which Excel knows what separates columns, which is no row.
SEPARATOR_LINE = re.compile(r"sep=(.)\s*", re.IGNORECASE)
# How pandas calls a column whose name is empty.
UNNAMED = re.compile(r"Unnamed: \d+")
UNNAMED_REMEDY = "Name each column in the first line; a title does not stand above it"
# How Python, NumPy and pandas spell a value that is not there.
ABSENT = frozenset({"None", "nan", "NaT", "<NA>"})


class CsvWriter:
    """Writes rows into an open file: numbers as they are, nothing for None and NaN, text so that it stays text.

    header: None where the file has one already
    """

    def __init__(self, file: TextIO, header: Iterable[str] | None, delimiter: str = ",") -> None:
        self._file, self._delimiter = file, delimiter
        if header is not None:
            self.add(header)

    def add(self, row: Iterable[object]) -> None:
        """One row."""
        line = self._delimiter.join(map(self._cell, row))
        self._file.write((line or '""') + "\n")  # an empty line would be no row

    def _cell(self, value: object) -> str:
        text = str(value)
        if not isinstance(value, str) and text in ABSENT:
            return ""
        if FORMULA.match(text) and not NUMBER.fullmatch(text):
            text = MARK + text
        # The standard library's writer leaves a lone return bare before Python 3.13, and no reader takes that.
        is_quoted = any(mark in text for mark in (self._delimiter, '"', "\r", "\n"))
        return '"' + text.replace('"', '""') + '"' if is_quoted else text


def unmark_cell(cell: Any) -> Any:
    """A cell as it was before it was marked; what is no text stays what it is."""
    return cell[1:] if isinstance(cell, str) and cell.startswith(MARK) and FORMULA.match(cell) else cell


def write_table(table: pandas.DataFrame, path: Path) -> None:
    """Write a table with its header, without its index."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = CsvWriter(file, map(str, table.columns))
        for row in table.itertuples(index=False, name=None):
            writer.add(row)


def separator_of(path: Path) -> str:
    """The separator of a table that somebody else wrote: a comma, a semicolon or a tab.

    Raises UnicodeDecodeError for a table that is not in UTF-8.
    """
    with path.open(encoding="utf-8-sig") as file:
        head = file.readline()
    separator = SEPARATOR_LINE.fullmatch(head)
    return separator[1] if separator else max(",;\t", key=head.count)


def lines_before_header(path: Path) -> int:
    """The number of lines before the header, or the first row without one."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return int(SEPARATOR_LINE.fullmatch(file.readline()) is not None)


def read_text_table(
    path: Path, *, separator: str = ",", most: int | None = None, has_header: bool = True
) -> pandas.DataFrame:
    """A table, or its first `most` rows, with every cell as text: a case may be called NA, or 007.

    has_header: whether the first line names the columns; else they are called 0, 1 and so on
    Raises DatasetError where a line has more columns than the header, or a quote has no end.
    """
    how: dict[str, Any] = {
        "sep": separator,
        "engine": "python" if separator.endswith("$)") else None,
        "dtype": str,
        "keep_default_na": False,
        "encoding": "utf-8-sig",
        "nrows": most,
        "header": 0 if has_header else None,
        "skiprows": lines_before_header(path),
    }
    try:
        table = pandas.read_csv(path, **how)
    except pandas.errors.ParserError as error:
        raise _uneven(path, separator, str(error)) from error
    if not isinstance(table.index, pandas.RangeIndex):  # lines with more cells than the header, all alike
        beyond = table.index.nlevels
        if (table.iloc[:, -beyond:] == "").all(axis=None):  # separators at their ends
            table = pandas.read_csv(path, **how, usecols=range(table.shape[1]), index_col=False)
        elif list(table.index) != [str(number) for number in range(1, len(table) + 1)]:  # as R numbers its rows
            names = table.shape[1]
            problem = f"has {names + beyond} columns in line 2 where the header names {names}"
            raise DatasetError(problem, str(path), UNNAMED_REMEDY)
    if has_header:
        _refuse_title(table, path)
    table = table.map(unmark_cell)
    table.columns = table.columns.map(unmark_cell)
    return cast("pandas.DataFrame", table.reset_index(drop=True))


def _refuse_title(table: pandas.DataFrame, path: Path) -> None:
    """Raise DatasetError where the first line names one of several columns at most, as a title above a table does."""
    names = [name for name in map(str, table.columns) if not UNNAMED.fullmatch(name)]
    if table.shape[1] > 2 and len(names) <= 1:
        problem = f"has {table.shape[1]} columns, of which the first line names {len(names)}"
        raise DatasetError(problem, str(path), UNNAMED_REMEDY)


def _uneven(path: Path, separator: str, reason: str) -> DatasetError:
    """The error of a table whose lines pandas cannot part into columns."""
    if fit := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", reason):
        expected, line, found_count = fit.groups()
        mark = {"\t": "tab"}.get(separator, f"'{separator}'")
        quotes = f"double quotes around a cell that contains a {mark}"
        if expected == "1":  # a title has none of the marks that part columns
            problem = f"has {found_count} columns in line {line}, and the first line names one"
            return DatasetError(problem, str(path), f"{UNNAMED_REMEDY}, or put {quotes}")
        problem = f"has {found_count} columns in line {line} where {expected} are expected"
        return DatasetError(problem, str(path), f"Put {quotes}, or remove what is too much")
    if fit := re.search(r"EOF inside string starting at row (\d+)", reason):
        problem = f"has a double quote in line {int(fit[1]) + 1} that begins a cell and is never closed"
        return DatasetError(problem, str(path), "Close or remove the quote")
    return DatasetError(f"cannot be read as a table ({reason.strip()})", str(path), "Save it as CSV in UTF-8")


def read_given_table(path: Path) -> pandas.DataFrame:
    """A table that the user wrote, with every cell as text and no blanks around cells and headers.

    Its attributes are the place of its cells, for `text_column`. Raises DatasetError where it cannot be read.
    """
    try:
        separator = separator_of(path)
        table = read_text_table(path, separator=separator).map(str.strip)
    except (ValueError, OSError) as error:
        problem = f"cannot be read as a table ({error})"
        raise DatasetError(problem, str(path), "Save it as CSV in UTF-8 (in Excel: CSV UTF-8)") from error
    table.attrs = {"separator": separator, "first_line": 2 + lines_before_header(path)}
    return table.rename(columns=str.strip)


def text_column(table: pandas.DataFrame, name: str, where: str) -> TextColumn:
    """A column of a table of text, to be read as values; where: the table, as refusals name it."""
    separator, first_line = table.attrs.get("separator", ""), table.attrs.get("first_line", 0)
    return TextColumn(name, table[name].tolist(), where, separator, first_line)

"""Tables in CSV, TSV, Parquet and text files, as rows of text and numbers.

Those with several rows of one patient, each with its time, are as monitors and charts write them.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hilum import errors
from hilum.errors import DatasetError
from hilum.files import file_formats
from hilum.files.storage import csv_text, hashing
from hilum.layouts.cases.column_names import (
    CASE_COLUMNS,
    FOLD_COLUMNS,
    OUTCOMES,
    PATIENT_COLUMNS,
    REFERENCE_COLUMNS,
    SELDOM_LEARNT,
    SPLIT_COLUMNS,
)
from hilum.lazy import pandas
from hilum.values import Problem, covariate_values, grouping, personal_columns, table_cells
from hilum.values.covariate_values import BLANKS
from hilum.values.table_cells import TextColumn

PARQUET, SEPARATORS = (".parquet",), {".tsv": "\t"}
TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".parquet"})
# Text files may hold anything: what parts the columns of one that is a table, and letters that are looked at to know.
# The last blank alone parts the columns where names of files have blanks.
TEXT_SUFFIX, TEXT_SEPARATORS, TEXT_BEGINNING = ".txt", ("\t", ",", ";", r"\s+", r"\s+(?=\S+$)"), 2**16
# Tables that are not read, because a cell of a spreadsheet may hold what it does not show.
SPREADSHEETS = frozenset({".xlsx", ".xls", ".ods"})
# Bytes of a name and letters of a path, on the systems in use; cells that are looked at to know what a column holds.
LONGEST_NAME, LONGEST_PATH, LOOKED_AT = 255, 4096, 20
# A column of more different values is none of classes.
MOST_CLASSES = 20
# So many columns, one of which is 1 in each row and the others 0, are the classes of a table.
FEWEST_OF_COLUMNS, COLUMN_OF_CLASSES = 3, "class"
# A whole number; pandas writes decimals where another cell of its column is blank.
WHOLE = re.compile(r"[+-]?\d+(\.0)?")
# What pandas calls a column without a name: mostly the numbers of its rows.
UNNAMED = re.compile(r"Unnamed: \d+")
# A mask as pairs of a start and a length, as in challenges of Kaggle: they count down the columns, or along the rows.
RUNS = re.compile(r"\d+ \d+(?: \d+ \d+)+")
DIGITS = re.compile(r"\d+")
# What keras-retinanet's tables hold, which have no header: a row with nothing but the image has no box.
BOX_COLUMNS = ("image", "x0", "y0", "x1", "y1", "label")
# {column: cell}: a number where a whole column is numbers, None where the cell is empty.
TableRow = Mapping[str, Any]


@dataclass(frozen=True)
class DataTable:
    """A table.

    columns:    their names, without blanks around them
    has_header: whether the file names the columns
    findings:   columns that say of each image whether it shows a finding
    separator:  what parts the columns
    places:     the place of each row in words
    root:       folder from which relative paths start, where a person names one
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    has_header: bool = True
    findings: tuple[str, ...] = ()
    separator: str = ""
    places: tuple[str, ...] = ()
    root: Path | None = None

    @property
    def start(self) -> Path:
        """The folder from which relative paths start: the one that was named, else that of the table."""
        return self.root or self.path.parent

    def column(self, names: Sequence[str]) -> str | None:
        """The first column with one of these names, in any case and with blanks or hyphens for underscores."""
        plain = {_plain(column): column for column in reversed(self.columns)}
        return next((plain[name] for name in names if name in plain), None)

    def cells(self, column: str | None) -> list[Any]:
        """The cells of a column that are filled; none without a column."""
        return [row[column] for row in self.rows if row[column] is not None] if column else []

    def quote(self, column: str, cell: Any) -> str:
        """A cell in the words of an error; not of a column that says who somebody is."""
        return "a text" if personal_columns.identifies_person(column) else repr(cell)

    def refusal(self, problem: str, remedy: str) -> DatasetError:
        """The error on the table, for whoever raises it."""
        return DatasetError(problem, str(self.path), remedy)


def read_table(path: Path, most: int | None = None, *, codes: Collection[str | None] = ()) -> DataTable:
    """A table, or its first `most` rows; codes that start with 0 stay text (007 is a patient, not seven).

    Where the first line is a case and no header, the columns get names. Raises DatasetError where it is damaged.
    codes: further columns that name patients or cases, of which 3.1 and 3.10 are two
    """
    separator, has_header = ",", True
    try:
        if path.suffix.lower() in PARQUET:
            frame = pandas.read_parquet(path)[:most]
        else:
            separator = SEPARATORS.get(path.suffix.lower()) or _text_separator(path) or csv_text.separator_of(path)
            frame = csv_text.read_text_table(path, separator=separator, most=most)
            has_header = not _begins_with_case(frame)
            if not has_header:
                frame = _with_names(csv_text.read_text_table(path, separator=separator, most=most, has_header=False))
    except UnicodeDecodeError as error:
        problem = "is not written in UTF-8, as tables with letters such as ä or é need it"
        raise DatasetError(problem, str(path), "Save it as CSV in UTF-8 (in Excel: CSV UTF-8)") from error
    except (ValueError, OSError) as error:
        raise DatasetError(f"cannot be read as a table ({error})", str(path), "Save it as CSV in UTF-8") from error
    cells = {name: list(frame.iloc[:, n]) for n, name in enumerate(_names(frame.columns))}
    return table_of_columns(path, typed_columns(cells, separator, codes), separator, has_header=has_header)


def try_table(path: Path, most: int | None = None, *, codes: Collection[str | None] = ()) -> DataTable | None:
    """As `read_table`, to know what a table is about; None of a damaged one, which whoever uses it reports."""
    try:
        return read_table(path, most, codes=codes)
    except DatasetError:
        return None


def typed_columns(
    columns: Mapping[str, Sequence[Any]], separator: str = ",", codes: Collection[str | None] = ()
) -> dict[str, list[Any]]:
    """The columns of a table with numbers where a whole column is numbers, without those of nothing and no name.

    codes: further columns that name patients or cases
    """
    naming = {*PATIENT_COLUMNS, *CASE_COLUMNS, *(_plain(code) for code in codes if code)}
    named = dict[str, list[Any]]()
    for name, cells in columns.items():
        own = [compose_letters(cell.strip()) if isinstance(cell, str) else cell for cell in cells]
        if not (UNNAMED.fullmatch(name) and own and all(map(_is_missing, own))):
            named[name] = typed_column(own, separator, is_code=_plain(name) in naming)
    return named


def table_of_columns(
    path: Path, columns: Mapping[str, Sequence[Any]], separator: str, *, has_header: bool = True
) -> DataTable:
    """The table of these columns, without the rows of nothing that spreadsheets write where cells were once filled."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    filled = [number for number, row in enumerate(rows) if any(cell is not None for cell in row.values())]
    is_parquet = path.suffix.lower() in PARQUET
    first = 1 if is_parquet else 1 + has_header + csv_text.lines_before_header(path)
    places = tuple(f"{'row' if is_parquet else 'line'} {first + number}" for number in filled)
    own = tuple(rows[number] for number in filled)
    return DataTable(path, tuple(columns), own, has_header, separator=separator, places=places)


def is_text_table(path: Path) -> bool:
    """Whether a text file is a table: its lines name an image each and say more of it, as `a.png 1` and `b.png 0` do.

    Lines that name several images and nothing else are a list of what belongs together.
    """
    return _text_separator(path) is not None


def states_references(path: Path) -> bool:
    """Whether a table has rows, and a column of a name that stands for labels, or one for each class."""
    table = try_table(path, most=LOOKED_AT)
    return table is not None and bool(table.rows) and is_label_column(table)


def is_label_column(table: DataTable) -> bool:
    """Whether a column has a name that stands for labels, or one for each class says which an image has."""
    return _has_reference(table) or bool(columns_of_classes(table))


def stated_kinds(table: DataTable) -> frozenset[str]:
    """The kinds of reference for which columns have known names."""
    kinds = {"mask": "mask", "label": "class", "findings": "findings"}
    named = {kinds[role] for role, names in REFERENCE_COLUMNS.items() if table.column(names)}
    named |= {"class"} if columns_of_classes(table) else {"findings"} if table.findings else set()
    return frozenset(named)


def _has_reference(table: DataTable) -> bool:
    return any(table.column(names) for names in REFERENCE_COLUMNS.values())


def columns_of_classes(table: DataTable) -> tuple[str, ...]:
    """The columns for the classes, one of which is 1 in each row; empty where they are fewer than three.

    All columns count that do not name a case, its patient or its part: with any other the table is about more.
    """
    if _has_reference(table):
        return ()
    known = {table.column((name,)) for name in (*CASE_COLUMNS, *PATIENT_COLUMNS, *FOLD_COLUMNS, *SPLIT_COLUMNS)}
    unnamed = [name for name in table.columns if name not in known and not UNNAMED.fullmatch(name)]
    others = tuple(name for name in unnamed if not _names_cases([row[name] for row in table.rows]))
    marks = [[row[name] for name in others] for row in table.rows]
    is_one_each = all(all(mark in (0, 1) for mark in own) and sum(own) == 1 for own in marks)
    return others if len(others) >= FEWEST_OF_COLUMNS and marks and is_one_each else ()


def _names_cases(cells: Sequence[Any]) -> bool:
    return all(isinstance(cell, str) for cell in cells) and len(set(cells)) == len(cells)


def with_column_of_classes(table: DataTable, classes: Sequence[str]) -> DataTable:
    """The table with one column in place of those for each class."""
    others = [name for name in table.columns if name not in classes]
    stated = (next(name for name in classes if row[name] == 1) for row in table.rows)
    each = zip(table.rows, stated, strict=True)
    rows = tuple({**{name: row[name] for name in others}, COLUMN_OF_CLASSES: own} for row, own in each)
    return replace(table, columns=(*others, COLUMN_OF_CLASSES), rows=rows)


def header_notes(table: DataTable) -> Iterator[Problem]:
    """The note on a table without a header: what its columns are called."""
    if not table.has_header:
        what = f"the first line of {table.path.name} is a case: its columns are called "
        what += errors.list_phrase(table.columns)
        yield Problem("note", what, remedy="Write a header to name them otherwise")


def covariates_of_row(row: TableRow, used: Collection[str | None]) -> TableRow:
    """The cells of a row that say more of a case: without those used otherwise, folds, and columns without a name."""
    taken = {*used, *FOLD_COLUMNS}
    known = ((name, value) for name, value in row.items() if not UNNAMED.fullmatch(name))
    return {name: value for name, value in known if name not in taken and name.lower() not in taken}


def convert_values(
    table: DataTable, used: Collection[str | None], numbers: Collection[str] = ()
) -> tuple[DataTable, list[Problem]]:
    """The table with its covariates as numbers, and one spelling of yes and no; what was understood, and what was not.

    used:    columns that are no covariates
    numbers: covariates that have to be numbers
    Raises DatasetError for a cell of these that is none.
    """
    read = covariates_of_row(dict.fromkeys(table.columns), used)
    # Cells that say who somebody is stay as they are, and no note quotes them.
    names = [name for name in read if name in numbers or not personal_columns.identifies_person(_bare(name))]
    values, sentences, problems = dict[str, list[Any]](), list[str](), list[Problem]()
    for name in names:
        is_number, cells = name in numbers, [row[name] for row in table.rows]
        texts, has_text = ["" if cell is None else str(cell) for cell in cells], any(isinstance(c, str) for c in cells)
        is_plain = not has_text and not any(map(table_cells.may_be_code, texts))
        if is_plain or (not is_number and any(map(_is_code, texts))):
            continue
        # Numbers that were read have points, whatever parts the columns.
        separator, bare = table.separator if has_text else "", _bare(name)
        column = TextColumn(bare, texts, str(table.path), separator, places=table.places)
        try:
            if not is_number and not table_cells.is_mostly_numeric(column):
                spelling = table_cells.one_spelling(column)
                values[name] = [spelling.get(text, cell) for text, cell in zip(texts, cells, strict=True)]
                continue
            found = table_cells.numbers_in(column).refuse_odd()
        except DatasetError as error:
            if is_number:
                raise
            what = f"{table.path.name}: {error.problem}"
            why = "its numbers are read as words, and training by it is refused"
            problems.append(Problem("warning", what, (), why, error.remedy, column=bare))
            continue
        sentences += [found.sentence] if found.is_notable else []
        values[name] = [_number_of(cell, value) for cell, value in zip(cells, found.values, strict=True)]
    if sentences:
        remedy = "Correct the table where this is not meant"
        problems.append(Problem("note", f"{table.path.name}: {errors.list_phrase(sentences)}", remedy=remedy))
    rows = ({**row, **{name: own[number] for name, own in values.items()}} for number, row in enumerate(table.rows))
    return replace(table, rows=tuple(rows)), problems


def _bare(column: str) -> str:
    """The name of a covariate's column in a table of ours."""
    return column.removeprefix("covariate:")


def _number_of(cell: Any, value: float) -> float | int | None:
    """The number of a cell, as it is where it is one; None where it is missing."""
    if math.isnan(value):
        return None
    return cell if isinstance(cell, int | float) else float(value)


def names_nobody(cell: Any) -> bool:
    """Whether a cell in the column of patients names none."""
    return cell is None or hashing.is_nobody(str(cell))


def can_be_named(text: str) -> bool:
    """Whether a file can bear this name: systems take no NUL and no endless names."""
    longest = max((len(part.encode(errors="replace")) for part in text.replace("\\", "/").split("/")), default=0)
    return "\0" not in text and longest <= LONGEST_NAME and len(text) <= LONGEST_PATH


def columns_of_files(table: DataTable, folder: Path) -> tuple[str, ...]:
    """The columns of which the first cells all name files that lie in a folder or below one of its folders."""
    places = [folder, *sorted(place for place in folder.iterdir() if place.is_dir())]

    def names_files(column: str) -> bool:
        cells = table.cells(column)[:LOOKED_AT]
        are_names = all(isinstance(cell, str) and can_be_named(cell) and is_image_name(cell) for cell in cells)
        return bool(cells) and are_names and any(all((place / cell).is_file() for cell in cells) for place in places)

    return tuple(column for column in table.columns if names_files(column))


def label_remedy(table: DataTable, used: Collection[str] = ()) -> str:
    """The remedy that names a column of labels: for example one of few different values, or one of numbers.

    used: columns that hold something else
    """
    counts = {name: len({row[name] for row in table.rows} - {None}) for name in table.columns if name not in used}
    if runs := [name for name in counts if any(RUNS.fullmatch(str(row[name])) for row in table.rows)]:
        masks = "write masks, as images/x.png and masks/x.png"
        return f"Column {runs[0]} holds runs of pixels, which are not read: {masks}"
    few = [name for name, count in counts.items() if 1 < count <= min(MOST_CLASSES, len(table.rows) - 1)]
    likeliest = min(few, key=lambda name: (name.lower() in SELDOM_LEARNT, counts[name]), default="COLUMN")
    classes = f"--column label={likeliest}"
    measured = [name for name, count in counts.items() if count > 1 and name not in few and _is_measured(table, name)]
    value = f"value={measured[0]}" if measured else "value=COLUMN"
    marked = [name for name in few if {row[name] for row in table.rows} <= {-1, 0, 1, None}]
    several = ",".join(f"finding:{name}={name}" for name in marked[:2])
    findings = f"{several} and so on" if len(marked) > 1 else "finding:NAME=COLUMN"
    others = f"mask=COLUMN, {findings}, {value} or time=COLUMN,event=COLUMN"
    return f"Name the column, as in {classes} for classes, or --column {others}"


def _is_measured(table: DataTable, name: str) -> bool:
    """Whether a column holds numbers alone, and is not called as cases or patients are."""
    if name in {table.column((known,)) for known in (*CASE_COLUMNS, *PATIENT_COLUMNS, *FOLD_COLUMNS)}:
        return False
    return all(row[name] is None or isinstance(row[name], int | float) for row in table.rows)


def is_image_name(text: str) -> bool:
    """Whether a name ends as those of images do, and not as those of tables."""
    suffix, known = file_formats.suffix_of(Path(text)), file_formats.format_entries().values()
    return suffix not in TABLE_SUFFIXES and any(suffix in entry.suffixes for entry in known)


def cell_number(value: Any) -> float | None:
    """A value as a number, None where it is none: 1_21 is a code, though Python reads it as 121."""
    try:
        return None if "_" in str(value) else float(value)
    except (TypeError, ValueError):
        return None


def as_whole_number(value: Any) -> Any:
    """A float without decimals as an integer, any other value as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text_separator(path: Path) -> str | None:
    """The separator of the columns of a text file; None where it is no table."""
    if path.suffix.lower() != TEXT_SUFFIX:
        return None
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        beginning = file.read(TEXT_BEGINNING)
    lines = beginning.splitlines()[: -1 if len(beginning) == TEXT_BEGINNING else None]
    fitting = list(_fitting_separators([line.strip() for line in lines if line.strip()][:LOOKED_AT]))
    return next((one for one, image in fitting if _is_there(path, image)), fitting[0][0] if fitting else None)


def _is_there(table: Path, image: str) -> bool:
    """Whether an image that a table names lies beside it, or in a folder there."""
    places = [table.parent, *(place for place in table.parent.iterdir() if place.is_dir())]
    return can_be_named(image) and any((place / image).is_file() for place in places)


def _fitting_separators(looked_at: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(separator, image of the last line) of those that part lines into as many columns, of which one names images."""
    for separator in TEXT_SEPARATORS:
        rows = [re.split(separator, line) for line in looked_at]
        if len(rows) < 2 or len({len(row) for row in rows}) > 1:
            continue
        below = zip(*rows[1:], strict=True)  # the first may be a header
        names_images = [all(is_image_name(cell.strip()) for cell in own) for own in below]
        if any(names_images) and not all(names_images):
            yield separator, rows[-1][names_images.index(True)].strip()


def _begins_with_case(frame: pandas.DataFrame) -> bool:
    """Whether the line taken for the header is a case: it names an image as all rows do, or case_001 above case_002."""
    if len(frame) == 0:
        return False
    names, cells = [str(name) for name in frame.columns], [list(frame.iloc[:, n]) for n in range(frame.shape[1])]
    if any(all(map(is_image_name, (name, *own))) for name, own in zip(names, cells, strict=True)):
        return True
    shape = DIGITS.sub("#", names[0])
    is_numbered = "#" in shape and any(map(str.isalpha, shape)) and len({names[0], *cells[0]}) > 1
    return is_numbered and all(DIGITS.sub("#", cell) == shape for cell in cells[0])


def _with_names(frame: pandas.DataFrame) -> pandas.DataFrame:
    """A table without a header with names: image for the first column of images, label where only that can be meant.

    That is beside images in a table of two columns, and in keras-retinanet's tables of boxes; else column_2 and so on.
    """
    cells = [[cell.strip() for cell in frame.iloc[:, n]] for n in range(frame.shape[1])]
    image = next((n for n, own in enumerate(cells) if all(map(is_image_name, own))), 0)
    names = ["image" if n == image else f"column_{n + 1}" for n in range(len(cells))]
    if len(cells) == len(BOX_COLUMNS) and image == 0 and _are_boxes(cells):
        names = list(BOX_COLUMNS)
    elif len(cells) == 2 and len(set(cells[1 - image])) <= min(MOST_CLASSES, len(frame) - 1):
        names[1 - image] = "label"
    return frame.set_axis(names, axis="columns")


def _are_boxes(cells: Sequence[Sequence[str]]) -> bool:
    """Whether columns between the first and the last hold numbers or nothing, and the last holds words."""
    corners = [cell_number(cell) for own in cells[1:-1] for cell in own if cell]
    words = [cell_number(cell) is None for cell in cells[-1] if cell]
    return bool(corners and words) and None not in corners and all(words)


def _names(columns: Iterable[object]) -> list[str]:
    """The names of columns without blanks around them, unless two would then be equal."""
    names = [str(column) for column in columns]
    bare = [name.strip() for name in names]
    return bare if len(set(bare)) == len(bare) else names


def compose_letters(text: str) -> str:
    """A text with ü as one letter: some systems write it as u and a mark, so that equal names would differ."""
    return unicodedata.normalize("NFC", text)


def _plain(column: str) -> str:
    return column.strip().lower().replace(" ", "_").replace("-", "_")


def typed_column(values: Sequence[Any], separator: str = ",", *, is_code: bool = False) -> list[Any]:
    """None for what is missing; numbers where all the rest are numbers that do not start with 0 as codes do.

    separator: of the table; where it is a comma, cells with commas are no numbers
    is_code:   only whole numbers are numbers, as 3.1 and 3.10, or 12E3 and 120E2, would be one patient
    """
    known = [None if _is_missing(value) else value for value in values]
    texts = [value for value in known if isinstance(value, str)]
    if is_code and not all(map(WHOLE.fullmatch, texts)):
        return known
    if any(" " in text.strip() or ("," in text and separator == ",") or _is_code(text) for text in texts):
        return known
    numbers = table_cells.plain_numbers(TextColumn("", texts, "", separator))
    if not texts or not all(text in numbers for text in texts):
        return known
    return [_numeric(value, numbers[value]) if isinstance(value, str) else value for value in known]


def _numeric(text: str, number: float) -> float | int:
    return int(text) if text.strip().lstrip("+-").isdecimal() else number


def _is_code(text: str) -> bool:
    plain = text.strip()
    return len(plain) > 1 and plain.startswith("0") and plain.isdecimal()


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or str(value).strip().lower() in BLANKS


@dataclass(frozen=True)
class LongTable:
    """A table of readings over time.

    owner: the column that names cases or patients
    time:  the column of times
    problems: what was understood of the other columns, and what was not
    """

    table: DataTable
    owner: str
    time: str
    problems: tuple[Problem, ...] = ()

    @property
    def is_of_cases(self) -> bool:
        """Whether the owner may be a case; else it is a patient."""
        return self.owner == self.table.column(CASE_COLUMNS)

    @classmethod
    def from_table(cls, table: DataTable) -> LongTable | None:
        """The table as a long one; None where it has no times, or a row of each, or names files or outcomes."""
        owner = table.column(CASE_COLUMNS) or table.column(PATIENT_COLUMNS)
        time, named = covariate_values.time_column(table.columns), table.cells(owner)
        if owner is None or time is None or table.column(OUTCOMES) is not None:
            return None
        if len(set(named)) == len(named) or _names_files(table, owner):
            return None
        table, problems = convert_values(table, (owner, time))
        return cls(table, owner, time, tuple(problems))

    @classmethod
    def from_file(cls, path: Path) -> LongTable | None:
        """The table of a file, if it is long and not damaged."""
        # Most tables have no times, and are read by whoever has use for them: of these the first line is enough.
        head = try_table(path, most=0)
        has_times = head is not None and covariate_values.time_column(head.columns)
        return cls.from_table(table) if has_times and (table := try_table(path)) is not None else None

    def courses(self) -> dict[str, TableRow]:
        """{case or patient: {column: its readings}}. Raises DatasetError for a time that is none."""
        named = ((str(row[self.owner]), row) for row in self.table.rows if row[self.owner] is not None)
        rows = grouping.by_key((name, covariates_of_row(row, (self.owner,))) for name, row in named)
        try:
            return {name: covariate_values.courses_by_column(own, self.time) for name, own in rows.items()}
        except ValueError as error:
            problem, remedy = f"{error}, in column {self.time}", "Write numbers, or dates as 2024-05-17T08:30"
            raise self.table.refusal(problem, remedy) from error


def _names_files(table: DataTable, owner: str) -> bool:
    """Whether another column than that of the owner names files."""
    first = table.rows[0].items() if table.rows else ()
    return any(name != owner and isinstance(cell, str) and is_image_name(cell) for name, cell in first)

"""Tables whose columns have roles: which column has which, and what the cells of a row state of a case."""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from hilum import errors, plugins
from hilum.errors import DatasetError, UsageError
from hilum.files import file_formats
from hilum.files.dicom import header_reading
from hilum.files.dicom.reading import series_survey
from hilum.layouts import layout
from hilum.layouts.cases import table_join, table_reading
from hilum.layouts.cases.table_reading import DataTable, TableRow
from hilum.layouts.layout import DatasetOptions, Problems, References
from hilum.values import CaseRow, Cell, ReferenceKind
from hilum.values.dataset_cases import CaseTexts

# Texts of a case, such as radiology reports: cells of a table, which `dataset.csv` names and never repeats.
TEXT = "text"
ONLY_NAMES = {"image": "image"}  # of a single column in a role of several; else the column's name
# In a column of several names: what parts them, and words that say there is none of them (NIH ChestX-ray14). A comma
# may belong to a name.
BETWEEN, COMMA, NOTHING = re.compile(r"[|;]"), ",", frozenset({"no finding", "no findings", "none", "normal"})
# Commas part the names where nearly all that they part is known otherwise, and belong to them where next to none is.
PARTING, BELONGING = 0.8, 0.2
YES, NO = frozenset({"1", "1.0", "true", "yes", "y"}), frozenset({"0", "0.0", "false", "no", "n"})
# How CheXpert calls a finding of which the reader was not sure.
UNSURE = frozenset({"-1", "-1.0"})
# Further words of an event.
HAPPENED, CENSORED = frozenset({"dead", "deceased", "died", "event"}), frozenset({"alive", "living", "censored"})


@dataclass(frozen=True)
class RoleTable:
    """A table and the roles of its columns.

    column: {role: column}; of roles that several columns can have each is <role>:<name>
    """

    table: DataTable
    column: Mapping[str, str]

    def columns(self, kind: str) -> dict[str, str]:
        """{name: column} of a role that several columns can have, in order; a single one has its column's name."""
        several = {role.partition(":")[2]: name for role, name in self.column.items() if role.startswith(f"{kind}:")}
        if several or kind not in self.column:
            return several
        return {ONLY_NAMES.get(kind, self.column[kind]): self.column[kind]}

    def cell(self, row: TableRow, role: str) -> Any:
        """The value of a role in a row; a whole number in a column of floats stays whole."""
        return table_reading.as_whole_number(row[self.column[role]]) if role in self.column else None

    def references(self, row: TableRow) -> References:
        """{kind: what a row states} of values, findings, an event, and kinds of other packages."""
        values = {name: self._number(row, column) for name, column in self.columns("value").items()}
        stated: References = {
            "value": {name: value for name, value in values.items() if value is not None} or None,
            "findings": self._present(row) or None,
            "event": self._event(row),
            **{kind: self._added(row, kind) for kind in plugins.entry_points_of("hilum.references")},
        }
        return {kind: known for kind, known in stated.items() if known is not None}

    def texts(self, index: int, images: Sequence[Path]) -> dict[str, Cell]:
        """{"text": the cell} of a row that states one; DatasetError for a table that was joined of several."""
        if TEXT not in self.column:
            return {}
        if any(" of " in place for place in self.table.places):
            raise self.table.refusal("texts lie in tables of parts", "Join the tables to one, with a column split")
        column = self.column[TEXT]
        text, key = self.table.rows[index][column], f"{index + 1}/{column}"
        return {} if text is None else {TEXT: text_cell(self.table.path, key, [str(text)], images)}

    @cached_property
    def unsure(self) -> dict[str, int]:
        """{column of findings: rows with -1}, where it stands beside 0 and 1: the reader was not sure (CheXpert)."""
        words = {name: [_word(row[name]) for row in self.table.rows] for name in self.columns("finding").values()}
        unsure = {name: sum(word in UNSURE for word in own) for name, own in words.items() if NO & set(own)}
        return {name: count for name, count in unsure.items() if count}

    @cached_property
    def findings(self) -> tuple[str, ...]:
        """All findings of the table: one a column in order, or by name those that its one column lists."""
        listed = {name for row in self.table.rows for name in self.named_in(row) or ()}
        return tuple(dict.fromkeys([*self.columns("finding"), *sorted(listed)]))

    def named_in(self, row: TableRow) -> list[str] | None:
        """The findings that a cell lists; None where it is blank."""
        text = row[self.column["findings"]] if "findings" in self.column else None
        if text is None:
            return None
        names = _split_names(cell := str(text).strip())
        if self.has_commas and not _is_list(cell):
            names = [part.strip() for name in names for part in name.split(COMMA)]
        return [name for name in names if name and name.lower() not in NOTHING]

    @cached_property
    def has_commas(self) -> bool:
        """Whether commas part the findings of a cell: what they part is then also a cell's own, or beside others.

        Raises DatasetError where only some of it is.
        """
        column = self.column.get("findings")
        cells = [str(cell).strip() for cell in self.table.cells(column)]
        names = [name for cell in cells if not _is_list(cell) for name in _split_names(cell)]
        joined = [tuple(part.strip() for part in name.split(COMMA)) for name in names if COMMA in name]
        listings = Counter(part for parts in set(joined) for part in set(parts))
        known = {*names, *(part for part, count in listings.items() if count > 1)}
        parts = [part for each in joined for part in each if part]
        share = sum(part in known for part in parts) / len(parts) if parts else 0.0
        if BELONGING < share < PARTING:
            strange = errors.list_phrase(sorted({part for part in parts if part not in known}))
            problem = f"commas in column {column} may separate findings or belong to names: {strange} "
            problem += "stand in no other cell"
            raise self.table.refusal(problem, "Write | or ; between the findings of a cell, and no comma within a name")
        return share >= PARTING

    def _present(self, row: TableRow) -> dict[str, bool]:
        """{finding: whether the row has it}, of those that it states."""
        each = {name: self._is_yes(row, column) for name, column in self.columns("finding").items()}
        stated = {name: is_present for name, is_present in each.items() if is_present is not None}
        names = self.named_in(row)
        return stated if names is None else {name: name in names for name in self.findings if name not in each} | stated

    def _event(self, row: TableRow) -> tuple[float, bool] | None:
        """A time and whether the event happened then; None where either is blank."""
        if not {"time", "event"} <= set(self.column):
            return None
        happened = self._is_yes(row, self.column["event"], YES | HAPPENED, NO | CENSORED)
        time = self._number(row, self.column["time"])
        return None if time is None or happened is None else (time, happened)

    def _is_yes(self, row: TableRow, column: str, yes: frozenset[str] = YES, no: frozenset[str] = NO) -> bool | None:
        """Whether a cell is yes or no; None where it is blank."""
        word = _word(row[column])
        if word is None or (word in UNSURE and column in self.unsure):
            return None
        if word not in yes | no:
            remedy = f"Write {' or '.join(sorted(yes))}, {' or '.join(sorted(no))}, or leave it blank"
            shown = self.table.quote(column, row[column])
            raise self.table.refusal(f"column {column} holds {shown}, neither yes nor no", remedy)
        return word in yes

    def _number(self, row: TableRow, column: str) -> float | None:
        """The number in a cell; None where it is blank."""
        value = table_reading.cell_number(row[column])
        if row[column] is not None and (value is None or not math.isfinite(value)):
            remedy = "Write a number with a decimal point and without its unit, or leave it blank"
            shown = self.table.quote(column, row[column])
            raise self.table.refusal(f"column {column} holds {shown}, which is not a number", remedy)
        return value

    def _added(self, row: TableRow, kind: str) -> Cell | None:
        """The reference of a kind of another package that a cell states; None where it is blank."""
        if (cell := self.cell(row, kind)) is None:
            return None
        reference: ReferenceKind = plugins.entry_points_of("hilum.references")[kind].load()
        try:
            known = reference.facts.of_cell(cell)
        except ValueError as error:
            problem = f"column {self.column[kind]} holds {cell!r}, which is not a {kind} ({error})"
            raise self.table.refusal(problem, "Correct the cell, or leave it blank") from error
        return None if known is None else Cell((), "stated", str(cell), known=known)


def _split_names(text: str) -> list[str]:
    """The names in a cell of several: a|b or a;b, or a list as Python writes it, ['a', 'b'] (PadChest, VinDr-Mammo)."""
    if _is_list(text):
        with suppress(ValueError, SyntaxError):
            return [str(name).strip() for name in ast.literal_eval(text)]
    return [name.strip() for name in BETWEEN.split(text)]


def _is_list(text: str) -> bool:
    return text.startswith("[") and text.endswith("]")


def _word(cell: Any) -> str | None:
    return None if cell is None else str(cell).strip().lower()


def columns_by_role(
    table: DataTable, options: DatasetOptions, known: Mapping[str, str | None], several: Collection[str] = ()
) -> dict[str, str]:
    """{role: column}, as --column names them, else these known ones.

    several: roles that several columns can have, each as <role>:<name>
    Raises UsageError for a role or column that is none, DatasetError as `split_column` does.
    """
    for role, name in options.column.items():
        kind, colon, _ = role.partition(":")
        if kind not in (several if colon else known):
            problem, choices = f"there is no role {role!r}", ", ".join((*known, *(f"{one}:NAME" for one in several)))
        elif name not in table.columns:
            problem, choices = f"{table.path.name} has no column {name}", ", ".join(table.columns)
        else:
            continue
        raise UsageError(problem, f"--column {role}={name}", f"Choose one of {choices}")
    taken = set(options.column.values())
    columns = {role: name for role, name in known.items() if name is not None and name not in taken}
    columns |= options.column
    if options.patient in table.columns:
        columns["patient"] = str(options.patient)
    if table_join.split_column(table, options.column.get("split")) is None:
        columns.pop("split", None)
    return columns


def drop_repeats(cases: Sequence[CaseRow], table: DataTable, *, stating: bool) -> tuple[list[CaseRow], Problems]:
    """The cases without those whose files another row names too, and the note on them.

    stating: whether what rows state is wanted
    A covariate in which such rows differ is not known; each may have its own text.
    Raises DatasetError where two such rows then state a different class, value or finding.
    """
    first, kept, repeated = dict[tuple[Cell, ...], int](), list[CaseRow](), list[str]()
    for case in cases:
        of_references = (one for one in case.references.values() if isinstance(one, Cell))
        cells = (*case.images.values(), *(one for one in of_references if one.part != TEXT))
        place = first.setdefault(cells, len(kept)) if cells else len(kept)
        if place == len(kept):
            kept.append(case)
            continue
        before = kept[place]
        stated = sorted({*case.references, *before.references} - {TEXT})
        kinds = [kind for kind in stated if case.references.get(kind) != before.references.get(kind)]
        kinds += ["part"] * (case.split != before.split) + ["patient"] * (case.patient != before.patient)
        if kinds and stating:
            problem = f"several rows name {case.paths[0].name}, and state a different {' and '.join(kinds)}"
            remedy = "Write one row for each image, several findings in one cell with | between them"
            raise table.refusal(problem, remedy)
        common = {name: one for name, one in before.covariates.items() if case.covariates.get(name) == one}
        known = join_texts(before, case)
        kept[place] = replace(before, references=known, covariates=dict.fromkeys(before.covariates) | common)
        repeated.append(case.name)
    what = f"{errors.count_phrase(len(repeated), 'row names', 'rows name')} files that an earlier row names too"
    return kept, layout.left_out_problem(repeated, what, "Remove them", "warning") if stating else ()


def absent_files_problem(names: Sequence[str], remedy: str = "Correct the paths, or get the files") -> Problems:
    """The problem of rows whose files are not there; names: of their cases."""
    what = f"{errors.count_phrase(len(names), 'row names', 'rows name')} files that are not there"
    return layout.left_out_problem(names, what, remedy)


def text_cell(table: Path, key: str, texts: Sequence[str], images: Sequence[Path]) -> Cell:
    """The cell of a case's texts; images: whose headers, where they are DICOM, name the patient."""
    own = CaseTexts(tuple(texts))
    files = (path for path in images[:1] if path.is_file() and file_formats.format_of(path) == "dicom")
    headers = (header_reading.read_header(path).dataset for path in files)
    names = any(series_survey.names_the_patient(one, sentence) for one in headers for sentence in own.sentences)
    return Cell((table,), TEXT, key, known=CaseTexts(own.texts, names))


def join_texts(case: CaseRow, other: CaseRow) -> References:
    """The references of a case with the texts that another row states of its image, as a further report."""
    own, more = case.references.get(TEXT), other.references.get(TEXT)
    if own is None or more is None or own == more:
        return {**({TEXT: more} if more is not None else {}), **case.references}
    (rows, _, column), (row, _, _) = own.key.partition("/"), more.key.partition("/")
    known = CaseTexts((*own.known.texts, *more.known.texts), own.known.names_patient or more.known.names_patient)
    return {**case.references, TEXT: Cell(own.paths, TEXT, f"{rows}+{row}/{column}", known=known)}


def find_texts(table: DataTable, key: str, images: Sequence[Path]) -> Cell:
    """The cell of the texts of `row+row/column`, counted from 1; DatasetError where the table has none there."""
    rows, _, column = key.partition("/")
    try:
        cells = [table.rows[int(row) - 1][column] for row in rows.split("+")]
    except (KeyError, ValueError, IndexError) as error:
        remedy = "Restore the table as it was, or read the data set again"
        raise DatasetError(f"has no text at {key}", str(table.path), remedy) from error
    return text_cell(table.path, key, [str(one) for one in cells if one is not None], images)

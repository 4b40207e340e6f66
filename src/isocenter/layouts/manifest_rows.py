"""Rows of a manifest: what their cells say of a case, and what is wrong with the files that they name."""

from __future__ import annotations

import ast
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from isocenter import errors, plugins
from isocenter.errors import DatasetError, UsageError
from isocenter.files import file_formats
from isocenter.files.storage import folder_files
from isocenter.layouts import layout
from isocenter.layouts.cases import dataset_folder, dicom_cases, stated_texts, table_join, table_reading
from isocenter.layouts.cases.dataset_folder import Folder
from isocenter.layouts.cases.stated_texts import TEXT
from isocenter.layouts.cases.table_reading import DataTable
from isocenter.layouts.layout import PSEUDONYMS, DatasetOptions, Reading
from isocenter.layouts.named_cases import EVERY_END, NamedCases, PathEnds
from isocenter.values import CaseRow, Cell, Problem, ReferenceKind

ONLY_NAMES = {"image": "image"}  # of a single column in a role of several; else the column's name
# In a column of several names: what parts them, and words that say there is none of them (NIH ChestX-ray14). A comma
# may belong to a name.
BETWEEN, COMMA, NOTHING = re.compile(r"[|;]"), ",", frozenset({"no finding", "no findings", "none", "normal"})
# Commas part the names where nearly all that they part is known otherwise, and belong to them where next to none is.
PARTING, BELONGING = 0.8, 0.2
YES, NO = frozenset({"1", "1.0", "true", "yes", "y"}), frozenset({"0", "0.0", "false", "no", "n"})
# How CheXpert calls a finding of which the reader was not sure.
UNSURE = frozenset({"-1", "-1.0"})
# Letters of a cell that an error shows.
SHOWN = 60
# Further words of an event.
HAPPENED, CENSORED = frozenset({"dead", "deceased", "died", "event"}), frozenset({"alive", "living", "censored"})


@dataclass(frozen=True)
class Manifest:
    """A table and the roles of its columns.

    named: images that cells name otherwise than by their paths; None where they are paths
    """

    table: DataTable
    column: Mapping[str, str]
    base: Path
    named: NamedCases | None = None

    def cell(self, row: Mapping[str, Any], role: str) -> Any:
        """The value of a role in a row; a whole number in a column of floats stays whole."""
        return table_reading.as_whole_number(row[self.column[role]]) if role in self.column else None

    def yes(
        self, row: Mapping[str, Any], column: str, yes: frozenset[str] = YES, no: frozenset[str] = NO
    ) -> bool | None:
        """Whether a cell is yes or no; None where it is blank."""
        word = _word(row[column])
        if word in UNSURE and column in self.unsure:
            return None
        if word is not None and word not in yes | no:
            remedy = f"Write {' or '.join(sorted(yes))}, {' or '.join(sorted(no))}, or leave it blank"
            raise DatasetError(
                f"column {column} holds {row[column]!r}, neither yes nor no", str(self.table.path), remedy
            )
        return None if word is None else word in yes

    @cached_property
    def unsure(self) -> dict[str, int]:
        """{column of findings: rows with -1}, where it stands beside 0 and 1: the reader was not sure (CheXpert)."""
        columns = columns_of_role(self.column, "finding").values()
        words = {name: [_word(row[name]) for row in self.table.rows] for name in columns}
        unsure = {name: sum(word in UNSURE for word in own) for name, own in words.items() if NO & set(own)}
        return {name: count for name, count in unsure.items() if count}

    def event(self, row: Mapping[str, Any]) -> tuple[float, bool] | None:
        """A time and whether the event happened then; None where either is blank."""
        if not {"time", "event"} <= set(self.column):
            return None
        happened = self.yes(row, self.column["event"], YES | HAPPENED, NO | CENSORED)
        time = self.number_in_cell(row, self.column["time"])
        return None if time is None or happened is None else (time, happened)

    def number_in_cell(self, row: Mapping[str, Any], column: str) -> float | None:
        """The number in a cell; None where it is blank."""
        if row[column] is None:
            return None
        value = table_reading.cell_number(row[column])
        if value is None or not math.isfinite(value):
            remedy = "Write a number with a decimal point and without its unit, or leave it blank"
            raise DatasetError(
                f"column {column} holds {row[column]!r}, which is not a number", str(self.table.path), remedy
            )
        return value

    def references(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """{kind: what a row states} of values, findings, an event, and kinds of other packages."""
        values = {name: self.number_in_cell(row, own) for name, own in columns_of_role(self.column, "value").items()}
        stated: dict[str, Any] = {
            "value": {name: value for name, value in values.items() if value is not None} or None,
            "findings": self.present(row) or None,
            "event": self.event(row),
        }
        for kind in plugins.entry_points_of("isocenter.references"):
            if kind in self.column and (known := self._reference_in_cell(row, kind)) is not None:
                stated[kind] = Cell((), "stated", str(self.cell(row, kind)), known=known)
        return {kind: known for kind, known in stated.items() if known is not None}

    def texts(self, index: int, images: Sequence[Path]) -> dict[str, Cell]:
        """{"text": the cell} of a row that states one; DatasetError for a table that was joined of several."""
        if TEXT not in self.column:
            return {}
        if any(" of " in place for place in self.table.places):
            remedy = "Join the tables to one, with a column split"
            raise DatasetError("texts lie in tables of parts", str(self.table.path), remedy)
        column = self.column[TEXT]
        text = self.table.rows[index][column]
        key = f"{index + 1}/{column}"
        return {} if text is None else {TEXT: stated_texts.text_cell(self.table.path, key, [str(text)], images)}

    def _reference_in_cell(self, row: Mapping[str, Any], kind: str) -> Any:
        """The reference of a kind of another package that a cell states; None where it is blank."""
        cell, column = self.cell(row, kind), self.column[kind]
        if cell is None:
            return None
        reference: ReferenceKind = plugins.entry_points_of("isocenter.references")[kind].load()
        try:
            return reference.facts.of_cell(cell)
        except ValueError as error:
            problem = f"column {column} holds {cell!r}, which is not a {kind} ({error})"
            raise DatasetError(problem, str(self.table.path), "Correct the cell, or leave it blank") from error

    @cached_property
    def findings(self) -> tuple[str, ...]:
        """All findings of the table: one a column in order, or by name those that its one column lists."""
        listed = {name for row in self.table.rows for name in self.named_in(row) or ()}
        return tuple(dict.fromkeys([*columns_of_role(self.column, "finding"), *sorted(listed)]))

    def present(self, row: Mapping[str, Any]) -> dict[str, bool]:
        """{finding: whether the row has it}, of those that it states."""
        each = {name: self.yes(row, column) for name, column in columns_of_role(self.column, "finding").items()}
        stated = {name: is_present for name, is_present in each.items() if is_present is not None}
        names = self.named_in(row)
        return stated if names is None else {name: name in names for name in self.findings if name not in each} | stated

    def named_in(self, row: Mapping[str, Any]) -> list[str] | None:
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
        cells = [str(row[column]).strip() for row in self.table.rows if column and row[column] is not None]
        names = [name for cell in cells if not _is_list(cell) for name in _split_names(cell)]
        joined = [tuple(part.strip() for part in name.split(COMMA)) for name in names if COMMA in name]
        listings = Counter(part for parts in set(joined) for part in set(parts))
        known = {*names, *(part for part, count in listings.items() if count > 1)}
        parts = [part for each in joined for part in each if part]
        share = sum(part in known for part in parts) / len(parts) if parts else 0.0
        if BELONGING < share < PARTING:
            strange = (
                f"{errors.list_phrase(sorted({part for part in parts if part not in known}))} stand in no other cell"
            )
            problem = f"commas in column {column} may separate findings or belong to names: {strange}"
            remedy = "Write | or ; between the findings of a cell, and no comma within a name"
            raise DatasetError(problem, str(self.table.path), remedy)
        return share >= PARTING

    def _name(self, row: Mapping[str, Any], column: str) -> str:
        """A cell that names a file, if a file can bear the name."""
        text = str(row[column])
        if not table_reading.can_be_named(text):
            shown = repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")
            problem = f"column {column} holds {shown} of {len(text)} letters, which names no file"
            raise DatasetError(problem, str(self.table.path), "Write the path of a file, or leave the cell blank")
        return text

    def cases(self, row: Mapping[str, Any]) -> Sequence[CaseRow]:
        """The images that a row names otherwise than by a path; none where it names paths, or what is not there."""
        split = table_join.split_of(self.cell(row, "split"))
        return self.named.find(row[self.column["image"]], self._ends, split) if self.named else ()

    @cached_property
    def _ends(self) -> PathEnds:
        return self.named.ends_of(row[self.column["image"]] for row in self.table.rows) if self.named else EVERY_END

    @cached_property
    def _is_of_headers(self) -> bool:
        """Whether the paths lead to DICOM, and no column says whose images they are: the headers do."""
        paths = (path for row in self.table.rows for path in self.images(row).values() if path.exists())
        first = None if self.named or "patient" in self.column else next(paths, None)
        return first is not None and file_formats.format_of(first) == "dicom"

    @property
    def hidden(self) -> str:
        """The rule, in words, by which patients of DICOM are hidden; empty where the images are of no DICOM."""
        rule = self.named.reading.patients if self.named else PSEUDONYMS if self._is_of_headers else ""
        stated = f"column {self.column.get('patient')} of {self.table.path.name}, which goes before "
        return f"{stated if rule and self._states_people else ''}{rule}"

    def patient(self, row: Mapping[str, Any], named_case: CaseRow | None) -> str | None:
        """Whose images a row names: as a column states, else the headers of DICOM, whose people have pseudonyms."""
        stated = self.cell(row, "patient")
        if not self.hidden:
            return None if stated is None else str(stated)
        if self.named is None or named_case is None:
            return next(
                (dicom_cases.person_in_files(path) for path in self.images(row).values() if path.exists()), None
            )
        is_stated = self._states_people and not table_reading.names_nobody(stated)
        return self.named.person(named_case, str(stated)) if is_stated else named_case.patient

    @cached_property
    def _states_people(self) -> bool:
        """Whether a column of patients tells some apart; where all is one word, the identifiers were removed."""
        is_own = "patient" in self.column and self.column["patient"] != self.column.get("image")
        cells = {self.cell(row, "patient") for row in self.table.rows} if is_own else set()
        return sum(not table_reading.names_nobody(cell) for cell in cells) > 1

    def images(self, row: Mapping[str, Any]) -> dict[str, Path]:
        """{channel: file} that a row names by paths, whether it is there or not."""
        each = {channel: self.path(row, column) for channel, column in columns_of_role(self.column, "image").items()}
        return {channel: path for channel, path in each.items() if path is not None}

    def existing(self, row: Mapping[str, Any]) -> Path | None:
        """The file or folder that a row names as its image, if it is there."""
        path = self.path(row, self.column["image"])
        return path if path is not None and path.exists() else None

    @cached_property
    def root(self) -> Path:
        """The folder in which all images lie."""
        folders = {path.absolute().parent for row in self.table.rows for path in self.images(row).values()}
        return Path(os.path.commonpath(folders)) if folders else self.base

    def name_of(self, path: Path) -> str:
        """The name of a case by the path of its image: the folders say whose it is, where no column does."""
        return "/".join((*path.absolute().parent.relative_to(self.root).parts, dataset_folder.stem_of(path.name)))

    def path(self, row: Mapping[str, Any], column: str) -> Path | None:
        """The file that a cell names: absolute, or relative to the table and inside its folder."""
        if row[column] is None:
            return None
        text = self._name(row, column)
        path = self.base / text
        if not (Path(text).is_absolute() or folder_files.is_named_inside(path, self.table.start)):
            raise DatasetError(
                f"names {text}, which lies outside its folder", str(self.table.path), "Write the whole path"
            )
        # Some systems write ü as u and a mark in names of files, and tables as one letter.
        apart = self.base / unicodedata.normalize("NFD", text)
        return next((one for one in (path, apart) if one.exists()), None) or self._spelt_otherwise(path) or path

    def _spelt_otherwise(self, path: Path) -> Path | None:
        """The only file whose name differs in upper and lower case alone; None where there is none, or several."""
        if path.parent not in self._names:
            there = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
            times = Counter(one.name.casefold() for one in there)
            self._names[path.parent] = {name: one for one in there if times[name := one.name.casefold()] == 1}
        return self._names[path.parent].get(path.name.casefold())

    @cached_property
    def _names(self) -> dict[Path, dict[str, Path]]:
        """{folder: {name in small letters: file}}, filled as rows name files that are not there."""
        return {}


def plain_name(name: Any) -> str:
    """A cell as a name without folders."""
    return str(name).replace("/", "-").replace("\\", "-")


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
            choices = ", ".join((*known, *(f"{one}:NAME" for one in several)))
            raise UsageError(f"there is no role {role!r}", f"--column {role}={name}", f"Choose one of {choices}")
        if name not in table.columns:
            problem, choices = f"{table.path.name} has no column {name}", ", ".join(table.columns)
            raise UsageError(problem, f"--column {role}={name}", f"Choose one of {choices}")
    taken = set(options.column.values())
    columns = {role: name for role, name in known.items() if name is not None and name not in taken}
    columns |= options.column
    if options.patient in table.columns:
        columns["patient"] = str(options.patient)
    if table_join.split_column(table, options.column.get("split")) is None:
        columns.pop("split", None)
    return columns


def columns_of_role(column: Mapping[str, str], kind: str) -> dict[str, str]:
    """{name: column} of a role that several columns can have, in order; a single one has its column's name."""
    several = {role.partition(":")[2]: name for role, name in column.items() if role.startswith(f"{kind}:")}
    if several or kind not in column:
        return several
    return {ONLY_NAMES.get(kind, column[kind]): column[kind]}


def drop_repeats(
    cases: Sequence[CaseRow], manifest: Manifest, *, stating: bool
) -> tuple[list[CaseRow], tuple[Problem, ...]]:
    """The cases without those whose files another row names too, and the note on them.

    stating: whether what rows state is wanted
    A covariate in which such rows differ is not known.
    Raises DatasetError where two such rows then state different things.
    """
    first: dict[tuple[Cell, ...], int] = {}
    kept, repeated = list[CaseRow](), list[str]()
    for case in cases:
        of_references = (one for one in case.references.values() if isinstance(one, Cell))
        cells = (*case.images.values(), *(one for one in of_references if one.part != TEXT))
        place = first.setdefault(cells, len(kept)) if cells else len(kept)
        if place == len(kept):
            kept.append(case)
            continue
        before = kept[place]
        kinds = sorted(kind for kind in {**case.references, **before.references} if _differ(kind, case, before))
        kinds += ["part"] * (case.split != before.split) + ["patient"] * (case.patient != before.patient)
        if kinds and stating:
            problem = f"several rows name {case.paths[0].name}, and state a different {' and '.join(kinds)}"
            remedy = "Write one row for each image, several findings in one cell with | between them"
            raise DatasetError(problem, str(manifest.table.path), remedy)
        common = {name: one for name, one in before.covariates.items() if case.covariates.get(name) == one}
        known = stated_texts.join_texts(before, case)
        kept[place] = replace(before, references=known, covariates=dict.fromkeys(before.covariates) | common)
        repeated.append(case.name)
    what = f"{errors.count_phrase(len(repeated), 'row names', 'rows name')} files that an earlier row names too"
    return kept, layout.left_out_problem(repeated, what, "Remove them", "warning") if stating else ()


def _differ(kind: str, one: CaseRow, other: CaseRow) -> bool:
    """Whether two rows of the same files state a different class, value or finding; each may have its own text."""
    if kind == TEXT:
        return False
    first, second = (each.references.get(kind) for each in (one, other))
    return bool(first != second)


def unsure_notes(manifest: Manifest) -> Iterator[Problem]:
    """The note on findings of which readers were not sure."""
    if manifest.unsure:
        stated = errors.list_phrase(f"{name}: {count}" for name, count in manifest.unsure.items())
        what = f"-1 in columns of 0 and 1 is read as not known ({stated})"
        yield Problem("note", what, (), "such a finding of a case trains and tests nothing", "Write 1 or 0 to count it")


def listed_notes(manifest: Manifest) -> Iterator[Problem]:
    """The note on cells that list several findings: by which sign, and how many there are."""
    column = manifest.column.get("findings")
    cells = [str(row[column]) for row in manifest.table.rows if column and row[column] is not None]
    known = ("|", ";", COMMA) if manifest.has_commas else ("|", ";")
    if signs := [sign for sign in known if any(sign in cell for cell in cells)]:
        several = sum(len(manifest.named_in(row) or ()) > 1 for row in manifest.table.rows)
        what = f"findings in column {column} are separated by {' and '.join(signs)}"
        what += f": {several} of {len(cells)} cells list several"
        yield Problem("note", what, remedy="Write another sign where one of these belongs to a name")


def file_problems(
    manifest: Manifest, folder: Folder, missing: Sequence[CaseRow], seen: Reading | None, taken: Sequence[CaseRow]
) -> tuple[Problem, ...]:
    """Problems of rows without their files, of images without a row, and of those that no column names.

    seen:  the folder as it lies, where rows name its cases
    taken: those that have a row, whole or a slice of them
    """
    everything = seen.rows if seen else ()
    stated = {path for row in taken for path in row.paths}
    absent = f"{errors.count_phrase(len(missing), 'row names', 'rows name')} files that are not there"
    rowless = [case.name for case in everything if stated.isdisjoint(case.paths)]
    unnamed = f"{errors.count_phrase(len(rowless), 'image has', 'images have')} no row in {manifest.table.path.name}"
    remedy = "Correct the paths, or get the files"
    return (
        *(seen.problems if seen else ()),
        *layout.left_out_problem((case.name for case in missing), absent, remedy),
        *layout.left_out_problem(rowless, unnamed, "Add their rows, or remove the images", "warning"),
        *_single_slices(manifest, everything, taken),
        *_unnamed_warning(manifest, folder),
    )


def _single_slices(manifest: Manifest, series: Sequence[CaseRow], taken: Sequence[CaseRow]) -> tuple[Problem, ...]:
    """The note that rows are of slices, each a case of its own, and not of the series to which they belong."""
    whole = {case.name for case in series}
    slices = [case.name for case in taken if case.name not in whole]
    rows_of_slices = errors.count_phrase(len(slices), "row names", "rows name")
    what = f"{rows_of_slices} a single slice of a series each, which is then a case"
    remedy = "For cases of whole series name the column that has them: --column image=COLUMN"
    why = f"column {manifest.column.get('image')} of {manifest.table.path.name} names files of series"
    return (Problem("note", what, (), why, remedy),) if slices else ()


def _unnamed_warning(manifest: Manifest, folder: Folder) -> tuple[Problem, ...]:
    """The warning on images next to a table that none of its columns names; none where there are no such images."""
    count = 0 if folder.is_file or columns_of_role(manifest.column, "image") else len(folder.images) + len(folder.dicom)
    what = f"no column of {manifest.table.path.name} names the images next to it ({errors.count_phrase(count, 'file')})"
    remedy = "Name the column, --column image=COLUMN"
    return (Problem("warning", what, why="its cases have no image", remedy=remedy),) if count else ()

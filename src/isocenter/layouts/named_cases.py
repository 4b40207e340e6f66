"""The images of a folder by what a table calls them: a file without its suffix, the end of a path, a case's folder.

DICOM by its folder too, by its UIDs, or by its study or patient, whose row is then that of each of the series; a row
that names a file of a series is of that slice.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, cast

from isocenter.errors import DatasetError
from isocenter.files.storage import hashing
from isocenter.layouts import case_folders, dicom_folder, plain_images
from isocenter.layouts.cases import dataset_folder, dicom_cases, mask_pairs, table_join, table_reading
from isocenter.layouts.cases.dataset_folder import Folder
from isocenter.layouts.cases.table_join import NumberedPatients
from isocenter.layouts.cases.table_reading import DataTable
from isocenter.layouts.layout import DatasetOptions, Layout
from isocenter.values import CaseRow, Split

# Cells of a column by which it is known whether it names images.
LOOKED_AT = 20
# Parts of a slice's path by which it is known: of a hundred thousand files each ending counts.
SLICE_PARTS = 3
# Letters of a name by whose beginning a file is known: short ones are numbers of rows.
FEWEST_LETTERS = 6
# What folders of series are called, in a published path too that begins and ends elsewhere (CBIS-DDSM).
UID = re.compile(r"[0-2](?:\.\d+){5,}")


@dataclass(frozen=True)
class PathEnds:
    """The part of paths in a table that says which image is meant: those of a column may begin elsewhere.

    shared:  ends that several different paths have: study1/view1.png of a patient who is not here is not another's
    dropped: {root: folders at the beginning that are not those of the files}; every end counts where it lacks a root
    """

    shared: frozenset[str] = frozenset()
    dropped: Mapping[str, int] = field(default_factory=dict)

    def from_path(self, text: str) -> list[str]:
        """The path and its ends that count, the longest first."""
        whole, *ends = _endings(text) or [text]
        return [whole, *(end for end in ends[: self.dropped.get(_root(text))] if end not in self.shared)]


EVERY_END = PathEnds()


class NamedCases:
    """The cases of a folder without its tables, by each name that only one of them has."""

    def __init__(self, folder: Folder, options: DatasetOptions) -> None:
        self.reading = _layout(folder, options).read(folder, options)
        known: dict[str, list[CaseRow]] = defaultdict(list)
        of_part: dict[tuple[str, Split | None], list[CaseRow]] = defaultdict(list)
        people: dict[str, list[CaseRow]] = defaultdict(list)
        called: dict[str, list[CaseRow]] = defaultdict(list)
        for case in self.reading.rows:
            for name in {ending for path in _names(case) for ending in _endings(table_reading.compose_letters(path))}:
                known[name].append(case)
                of_part[name, case.split].append(case)
            if case.patient:
                people[case.patient].append(case)
            for alias in case.aliases:
                called[alias].append(case)
        self._known = {name: cases[0] for name, cases in known.items() if len(cases) == 1}
        self._of_part = {key: cases[0] for key, cases in of_part.items() if len(cases) == 1 and key[1] is not None}
        self._people, self._called = people, called
        self._where = str(folder.root)
        firsts = [case.paths[0] for cases in people.values() for case in cases if case.paths]
        self._numbered = NumberedPatients(firsts, self._where)

    @classmethod
    def of_table(cls, table: DataTable, folder: Folder, options: DatasetOptions) -> NamedCases | None:
        """The images in the folder of a table; None where there are none. Its headers are read once."""
        place = Folder(table.path.parent) if folder.is_file else folder
        if not (place.images or place.dicom or place.films):
            return None
        before, named = place.known.get(cls, (None, None))
        if named is None or before != options:
            named = cls(place, options)
            place.known[cls] = (options, named)
        return cast("NamedCases | None", named)

    def find(self, cell: object, ends: PathEnds = EVERY_END, split: Split | None = None) -> Sequence[CaseRow]:
        """The cases that a cell names: one, by a path that may begin elsewhere; the series of a patient or a study of
        DICOM; one slice of a series.

        ends:  how much of a path counts, where the other cells of its column are known
        split: of the row: of images of one name in several parts that of its own is meant
        Raises DatasetError where the cell names the images of one person, and those of another in another sense.
        """
        text = _text(cell)
        names = [name for end in ends.from_path(text) for name in (end, dataset_folder.stem_of(end))]
        case = next((self._known[name] for name in names if name in self._known), None)
        case = case or next((own for name in names if (own := self._of_part.get((name, split)))), None)
        of_study = self._called.get(text, [])
        self._check_sense(text, case, {one.patient for one in of_study})
        if case is not None or of_study:
            return of_study if case is None else (case,)
        if patients := self._numbered.patients(text, self._people) if self._people else ():
            return [one for patient in patients for one in self._people[patient]]
        if (of_series := self._in_series(text)) is not None:
            return of_series
        others = (
            *self._begun.get(dataset_folder.stem_of(text), ()),
            *(self._slices[name] for name in names if name in self._slices),
        )
        return others[:1]

    def _in_series(self, text: str) -> Sequence[CaseRow] | None:
        """The one image of the series by whose UID a folder of a path is called; None where no folder is."""
        folders = [part for part in reversed(PurePosixPath(text).parts[:-1]) if part in self._by_uid]
        own = self._by_uid[folders[0]] if folders else None
        return own if own is None or len(own) == 1 else ()

    @cached_property
    def _by_uid(self) -> Mapping[str, Sequence[CaseRow]]:
        known: dict[str, list[CaseRow]] = defaultdict(list)
        for case in self.reading.rows:
            folders = {part for path in case.paths for part in path.parent.parts}
            for uid in filter(UID.fullmatch, {*case.aliases, *folders}):
                known[uid].append(case)
        return known

    @cached_property
    def _begun(self) -> Mapping[str, Sequence[CaseRow]]:
        """The one image whose file's name begins so, and goes on after a mark: 20586908 of 20586908_6c61_MG_R_CC."""
        known: dict[str, list[CaseRow]] = defaultdict(list)
        for case in self.reading.rows:
            stem = (
                table_reading.compose_letters(dataset_folder.stem_of(case.paths[0].name))
                if len(case.paths) == 1
                else ""
            )
            for end in (n for n in range(FEWEST_LETTERS, len(stem)) if not stem[n].isalnum()):
                known[stem[:end]].append(case)
        return {name: cases for name, cases in known.items() if len(cases) == 1}

    def _check_sense(self, text: str, case: CaseRow | None, of_study: Collection[str | None]) -> None:
        """Raise DatasetError where what a cell names as a file, a study and a patient is not of one person."""
        is_number = bool(self._people) and "/" not in text  # a path is nobody's number
        people = set(self._numbered.candidates(text, self._people)) if is_number else set()
        remedy = "Name images by their files or folders, from the data set's folder on, or by StudyInstanceUID"
        if len(of_study) > 1:
            problem = "a number in the table is the AccessionNumber, or UID, of studies of several patients"
            raise DatasetError(problem, self._where, remedy)
        if people and not people.issuperset(of_study):
            problem = "a number in the table is the PatientID of one person, and the AccessionNumber of another's study"
            raise DatasetError(problem, self._where, remedy)
        if case is not None and any(own and case.patient not in own for own in (people, of_study)):
            problem = "a word in the table is the name of one person's file or folder, and the number of another"
            raise DatasetError(problem, self._where, remedy)

    def ends_of(self, cells: Iterable[object]) -> PathEnds:
        """The part of the paths in a column that counts."""
        paths = {text: _endings(text) for text in {_text(cell) for cell in cells if cell is not None}}
        counts = Counter(end for every in paths.values() for end in every)
        ends = PathEnds(frozenset(end for end, count in counts.items() if count > 1))
        dropped: dict[str, int] = {}
        for text, every in paths.items():
            known = (end for end in ends.from_path(text) if self._is_known(end)) if len(every) > 1 else iter(())
            if (end := next(known, None)) is not None:
                count = len(every) - len(_endings(end))
                dropped[_root(text)] = min(count, dropped.get(_root(text), count))
        return replace(ends, dropped=dropped)

    def _is_known(self, end: str) -> bool:
        names = (end, dataset_folder.stem_of(end))
        return any(name in self._known for name in names) or any(name in self._slices for name in names)

    @cached_property
    def _slices(self) -> Mapping[str, CaseRow]:
        """Slices of series by what only one of them is called: its UID, its file, and the ends of its path."""
        known: dict[str, list[CaseRow]] = defaultdict(list)
        for one in (one for case in self.reading.rows for one in _slices_of(case)):
            paths = [name for name in _names(one) if "/" in name]
            for name in {*one.aliases, *(end for path in paths for end in _endings(path)[-SLICE_PARTS:])}:
                known[name].append(one)
        return {name: slices[0] for name, slices in known.items() if len(slices) == 1}

    def column(self, table: DataTable, first: str | None, without: Collection[str]) -> str | None:
        """The column that names cases; None where none does.

        first:   that of the images by what it is called, which is taken where most of its cells name some
        without: columns that hold something else
        Any other has another case in each row.
        """
        if first and len(self._named_cases(table, first)) * 2 > len(_looked_at(table, first)):
            return first
        others = [name for name in table.columns if name not in without and name != first]
        return next((name for name in others if self._names_all(table, name)), None)

    def _names_all(self, table: DataTable, column: str) -> bool:
        rows = _looked_at(table, column)
        return bool(rows) and len(set(self._named_cases(table, column))) == len(rows)

    def _named_cases(self, table: DataTable, column: str) -> list[str]:
        """The first case of each cell that names some; a cell that names several in two senses counts as one."""
        names = (self._name(row[column], table_join.part_of_row(table, row)) for row in _looked_at(table, column))
        return [name for name in names if name is not None]

    def _name(self, cell: object, split: Split | None) -> str | None:
        try:
            cases = self.find(cell, split=split)
        except DatasetError:  # whoever reads the row is told
            return _text(cell)
        return f"{cases[0].split or ''}/{cases[0].name}" if cases else None

    def person(self, case: CaseRow, number: str) -> str:
        """The pseudonym of a case's patient where a table states their number: that of the files if it is theirs."""
        is_known = case.patient is not None and self._numbered.candidates(number, (case.patient,))
        return case.patient if is_known and case.patient is not None else hashing.pseudonym_of_number(number)


def _slices_of(row: CaseRow) -> Sequence[CaseRow]:
    """Each file of a series of DICOM as a case; none of any other case."""
    cells = list(row.images.values())
    return dicom_cases.cases_of_slices(row) if [cell.part for cell in cells] == ["series"] else ()


def _looked_at(table: DataTable, column: str) -> Sequence[Mapping[str, Any]]:
    return [row for row in table.rows if row[column] is not None][:LOOKED_AT]


def _text(cell: object) -> str:
    return str(cell).strip().replace("\\", "/")


def _root(text: str) -> str:
    """The root of a whole path, as tables that were made on several machines have it; empty for any other path."""
    return text.strip("/").partition("/")[0] if text.startswith("/") or text[1:2] == ":" else ""


def _layout(folder: Folder, options: DatasetOptions) -> Layout:
    """The layout by which the images lie, whatever lies next to them; label maps next to DICOM are no images."""
    if folder.dicom and all(mask_pairs.is_called_mask(member.path) for member in folder.images):
        return dicom_folder.LAYOUT
    return case_folders.LAYOUT if case_folders.fits(folder, options) else plain_images.LAYOUT


def _names(case: CaseRow) -> set[str]:
    """The names of a case: its own, that of its only file with and without suffix, that of the folder of several."""
    places = {path.parent.as_posix() for path in case.paths} if len(case.paths) > 1 else set()
    single = (
        {case.paths[0].as_posix(), dataset_folder.stem_of(case.paths[0].as_posix())} if len(case.paths) == 1 else set()
    )
    return {case.name, *single, *(places if len(places) == 1 else ())}


def _endings(path: str) -> list[str]:
    """The path and what is left of it folder by folder, the longest first."""
    parts = [part for part in Path(path).parts if part not in ("/", ".")]
    return ["/".join(parts[start:]) for start in range(len(parts))]

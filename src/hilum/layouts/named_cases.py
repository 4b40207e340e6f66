"""The images of a folder by what a table calls them: a file without its suffix, the end of a path, a case's folder.

DICOM by its folder too, by its UIDs, or by its study or patient, whose row is then that of each of the series; a row
that names a file of a series is of that slice.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import PurePosixPath
from typing import cast

from hilum.errors import DatasetError
from hilum.files.storage import hashing
from hilum.layouts import case_folders, dicom_folder, plain_images
from hilum.layouts.cases import dataset_folder, dicom_cases, mask_pairs, table_join, table_reading, text_names
from hilum.layouts.cases.dataset_folder import Folder
from hilum.layouts.cases.table_join import NumberedPatients
from hilum.layouts.cases.table_reading import DataTable
from hilum.layouts.layout import DatasetOptions, Layout
from hilum.values import CaseRow, Split, grouping

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
        whole, *ends = text_names.path_endings(text) or [text]
        return [whole, *(end for end in ends[: self.dropped.get(_root(text))] if end not in self.shared)]


EVERY_END = PathEnds()


class NamedCases:
    """The cases of a folder without its tables, by each name that only one of them has."""

    def __init__(self, folder: Folder, options: DatasetOptions) -> None:
        self.reading = _layout(folder, options).read(folder, options)
        rows = self.reading.rows
        ends = [set(chain(*map(text_names.path_endings, _names(case)))) for case in rows]
        named = [(end, case) for case, own in zip(rows, ends, strict=True) for end in own]
        self._known = text_names.sole_bearers(named)
        self._of_part = text_names.sole_bearers(((end, case.split), case) for end, case in named if case.split)
        self._people = grouping.by_key((case.patient, case) for case in rows if case.patient)
        self._called = grouping.by_key((alias, case) for case in rows for alias in case.aliases)
        self._where = str(folder.root)
        self._numbered = NumberedPatients([one.paths[0] for one in rows if one.patient and one.paths], self._where)

    @classmethod
    def of_table(cls, table: DataTable, folder: Folder, options: DatasetOptions) -> NamedCases | None:
        """The images in the folder of a table; None where there are none. Its headers are read once."""
        place = Folder(table.path.parent) if folder.is_file else folder
        if not (place.images or place.dicom or place.clips):
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
        text = text_names.plain_text(cell)
        names = [name for end in ends.from_path(text) for name in (end, dataset_folder.stem_of(end))]
        case = next((self._known[name] for name in names if name in self._known), None)
        if split is not None:
            case = case or next((self._of_part[name, split] for name in names if (name, split) in self._of_part), None)
        of_study = self._called.get(text, [])
        self._check_sense(text, case, {one.patient for one in of_study})
        if case is not None or of_study:
            return of_study if case is None else (case,)
        if patients := self._numbered.patients(text, self._people) if self._people else ():
            return [one for patient in patients for one in self._people[patient]]
        # By the innermost folder that is called by a UID: the one image of its series, or none.
        folders = reversed(PurePosixPath(text).parts[:-1])
        if own := next((self._by_uid[part] for part in folders if part in self._by_uid), []):
            return own if len(own) == 1 else ()
        begun = self._begun.get(dataset_folder.stem_of(text))
        other = begun or next((self._slices[name] for name in names if name in self._slices), None)
        return () if other is None else (other,)

    @cached_property
    def _by_uid(self) -> Mapping[str, Sequence[CaseRow]]:
        folders = [(case, (part for path in case.paths for part in path.parent.parts)) for case in self.reading.rows]
        return grouping.by_key(
            (uid, case) for case, own in folders for uid in filter(UID.fullmatch, {*case.aliases, *own})
        )

    @cached_property
    def _begun(self) -> Mapping[str, CaseRow]:
        """The one image whose file's name begins so, and goes on after a mark: 20586908 of 20586908_6c61_MG_R_CC."""
        single = [(dataset_folder.stem_of(one.paths[0].name), one) for one in self.reading.rows if len(one.paths) == 1]
        stems = [(table_reading.compose_letters(stem), case) for stem, case in single]
        marks = ((stem, n, case) for stem, case in stems for n in range(FEWEST_LETTERS, len(stem)))
        return text_names.sole_bearers((stem[:n], case) for stem, n, case in marks if not stem[n].isalnum())

    def _check_sense(self, text: str, case: CaseRow | None, of_study: Collection[str | None]) -> None:
        """Raise DatasetError where what a cell names as a file, a study and a patient is not of one person."""
        is_number = bool(self._people) and "/" not in text  # a path is nobody's number
        people = set(self._numbered.candidates(text, self._people)) if is_number else set()
        remedy = "Name images by their files or folders, from the data set's folder on, or by StudyInstanceUID"
        if len(of_study) > 1:
            problem = "a number in the table is the AccessionNumber, or UID, of studies of several patients"
        elif people and not people.issuperset(of_study):
            problem = "a number in the table is the PatientID of one person, and the AccessionNumber of another's study"
        elif case is not None and any(own and case.patient not in own for own in (people, of_study)):
            problem = "a word in the table is the name of one person's file or folder, and the number of another"
        else:
            return
        raise DatasetError(problem, self._where, remedy)

    def ends_of(self, cells: Iterable[object]) -> PathEnds:
        """The part of the paths in a column that counts."""
        texts = {text_names.plain_text(cell) for cell in cells if cell is not None}
        paths = {text: text_names.path_endings(text) for text in texts}
        counts = Counter(end for every in paths.values() for end in every)
        ends = PathEnds(frozenset(end for end, count in counts.items() if count > 1))
        dropped: dict[str, int] = {}
        for text, every in paths.items():
            known = (end for end in ends.from_path(text) if self._is_known(end)) if len(every) > 1 else iter(())
            if (end := next(known, None)) is not None:
                count = len(every) - len(text_names.path_endings(end))
                dropped[_root(text)] = min(count, dropped.get(_root(text), count))
        return replace(ends, dropped=dropped)

    def _is_known(self, end: str) -> bool:
        names = {end, dataset_folder.stem_of(end)}
        return not (names.isdisjoint(self._known) and names.isdisjoint(self._slices))

    @cached_property
    def _slices(self) -> Mapping[str, CaseRow]:
        """Slices of series by what only one of them is called: its UID, its file, and the ends of its path."""
        named = list[tuple[str, CaseRow]]()
        for one in (one for case in self.reading.rows for one in _slices_of(case)):
            ends = (text_names.path_endings(name)[-SLICE_PARTS:] for name in _names(one) if "/" in name)
            named += [(name, one) for name in {*one.aliases, *chain(*ends)}]
        return text_names.sole_bearers(named)

    def column(self, table: DataTable, first: str | None, without: Collection[str]) -> str | None:
        """The column that names cases; None where none does.

        first:   that of the images by what it is called, which is taken where most of its cells name some
        without: columns that hold something else
        Any other has another case in each row.
        """
        if first and (cases := self._named_cases(table, first)) and 2 * cases.count(None) < len(cases):
            return first
        others = [name for name in table.columns if name not in without and name != first]
        named = ((name, self._named_cases(table, name)) for name in others)
        return next((name for name, own in named if own and None not in own and len({*own}) == len(own)), None)

    def _named_cases(self, table: DataTable, column: str) -> list[str | None]:
        """The first case of each of the first cells; one that names several in two senses counts as one."""
        looked_at = [row for row in table.rows if row[column] is not None][:LOOKED_AT]
        return [self._name(row[column], table_join.part_of_row(table, row)) for row in looked_at]

    def _name(self, cell: object, split: Split | None) -> str | None:
        try:
            cases = self.find(cell, split=split)
        except DatasetError:  # whoever reads the row is told
            return text_names.plain_text(cell)
        return f"{cases[0].split or ''}/{cases[0].name}" if cases else None

    def person(self, case: CaseRow, number: str) -> str:
        """The pseudonym of a case's patient where a table states their number: that of the files if it is theirs."""
        is_known = case.patient is not None and self._numbered.candidates(number, (case.patient,))
        return case.patient if is_known and case.patient is not None else hashing.pseudonym_of_number(number)


def _slices_of(row: CaseRow) -> Sequence[CaseRow]:
    """Each file of a series of DICOM as a case; none of any other case."""
    return dicom_cases.cases_of_slices(row) if [cell.part for cell in row.images.values()] == ["series"] else ()


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
    if len(case.paths) == 1:
        path = case.paths[0].as_posix()
        return {case.name, path, dataset_folder.stem_of(path)}
    places = {path.parent.as_posix() for path in case.paths}
    return {case.name, *(places if len(places) == 1 else ())}

"""The images of a folder by what a table calls them: a file without its suffix, the end of a path, a case's folder.

DICOM by its folder too, by its UIDs, or by its study or patient, whose row is then that of each of the series; a row
that names a file of a series is of that slice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from isocenter.errors import DatasetError
from isocenter.files.layouts import case_folders, dicom_folder, plain_images
from isocenter.files.layouts.cases import Folder, Numbered, Table, stem_of
from isocenter.files.layouts.layout import CaseFiles, DatasetOptions, Layout

# Cells of a column by which it is known whether it names images.
LOOKED_AT = 20
# Parts of a slice's path by which it is known: of a hundred thousand files each ending counts.
SLICE_PARTS = 3


class NamedCases:
    """The cases of a folder without its tables, by each name that only one of them has."""

    def __init__(self, folder: Folder, options: DatasetOptions) -> None:
        self.reading = _layout(folder, options).read(folder, options)
        known: dict[str, list[CaseFiles]] = defaultdict(list)
        people: dict[str, list[CaseFiles]] = defaultdict(list)
        called: dict[str, list[CaseFiles]] = defaultdict(list)
        for case in self.reading.cases:
            for name in {ending for path in _names(case) for ending in _endings(path)}:
                known[name].append(case)
            if case.patient:
                people[case.patient].append(case)
            for alias in case.aliases:
                called[alias].append(case)
        self._known = {name: cases[0] for name, cases in known.items() if len(cases) == 1}
        self._people, self._called = people, called
        self._where = str(folder.root)
        firsts = [case.files[0] for cases in people.values() for case in cases if case.files]
        self._numbered = Numbered(firsts, self._where)

    @classmethod
    def of_table(cls, table: Table, folder: Folder, options: DatasetOptions) -> NamedCases | None:
        """The images in the folder of a table; None where there are none. Its headers are read once."""
        place = Folder(table.path.parent) if folder.is_file else folder
        if not (place.images or place.dicom or place.films):
            return None
        before, named = place.known.get(cls, (None, None))
        if named is None or before != options:
            named = cls(place, options)
            place.known[cls] = (options, named)
        return named

    def find(self, cell: object) -> Sequence[CaseFiles]:
        """The cases that a cell names: one, by a path that may begin elsewhere; the series of a patient or a study of
        DICOM; one slice of a series.

        Raises DatasetError where one number is that of a patient, and the accession number of a study of another.
        """
        text = str(cell).strip().replace("\\", "/")
        names = [name for ending in _endings(text) for name in (ending, stem_of(ending))]
        case = next((self._known[name] for name in names if name in self._known), None)
        if case is not None:
            return (case,)
        patients = self._numbered.patients(text, self._people) if self._people else ()
        of_patients = [case for patient in patients for case in self._people[patient]]
        of_study = self._called.get(text, [])
        if of_patients and any(case not in of_patients for case in of_study):
            problem = "a number in the table is the PatientID of one person, and the AccessionNumber of another's study"
            remedy = "Name images by their files or folders, or by StudyInstanceUID"
            raise DatasetError(problem, self._where, remedy)
        if of_study or of_patients:
            return of_study or of_patients
        return next(((self._slices[name],) for name in names if name in self._slices), ())

    @cached_property
    def _slices(self) -> Mapping[str, CaseFiles]:
        """Slices of series by what only one of them is called: its UID, its file, and the ends of its path."""
        known: dict[str, list[CaseFiles]] = defaultdict(list)
        for one in (one for case in self.reading.cases if case.slices for one in case.slices()):
            paths = [name for name in _names(one) if "/" in name]
            for name in {*one.aliases, *(end for path in paths for end in _endings(path)[-SLICE_PARTS:])}:
                known[name].append(one)
        return {name: slices[0] for name, slices in known.items() if len(slices) == 1}

    def column(self, table: Table, first: str | None, without: Collection[str]) -> str | None:
        """The column that names cases; None where none does.

        first:   that of the images by what it is called, which is taken where most of its cells name some
        without: columns that hold something else
        Any other has another case in each row.
        """
        if first and len(self._named(table, first)) * 2 > len(_looked_at(table, first)):
            return first
        others = [name for name in table.columns if name not in without and name != first]
        return next((name for name in others if self._names_all(table, name)), None)

    def _names_all(self, table: Table, column: str) -> bool:
        cells = _looked_at(table, column)
        return bool(cells) and len(set(self._named(table, column))) == len(cells)

    def _named(self, table: Table, column: str) -> list[str]:
        """The first case of each cell that names some."""
        return [cases[0].name for cell in _looked_at(table, column) if (cases := self.find(cell))]


def _looked_at(table: Table, column: str) -> list[object]:
    return [row[column] for row in table.rows if row[column] is not None][:LOOKED_AT]


def _layout(folder: Folder, options: DatasetOptions) -> Layout:
    """As the images lie, whatever else lies beside them."""
    if folder.dicom and not folder.images:
        return dicom_folder.LAYOUT
    return case_folders.LAYOUT if case_folders.fits(folder, options) else plain_images.LAYOUT


def _names(case: CaseFiles) -> set[str]:
    """Of the case, of its file where it has one, with its suffix too, and of the folder of several."""
    places = {path.parent.as_posix() for path in case.files} if len(case.files) > 1 else set()
    single = {case.files[0].as_posix(), stem_of(case.files[0].as_posix())} if len(case.files) == 1 else set()
    return {case.name, *single, *(places if len(places) == 1 else ())}


def _endings(path: str) -> list[str]:
    """The path and what is left of it folder by folder, the longest first."""
    parts = [part for part in Path(path).parts if part not in ("/", ".")]
    return ["/".join(parts[start:]) for start in range(len(parts))]

"""The images of a folder by what a table calls them: a file without its suffix, the end of a path, a case's folder.

DICOM by its folder too, or by its patient, whose row is then that of each of the patient's series.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from isocenter.files.layouts import case_folders, dicom_folder, plain_images
from isocenter.files.layouts.cases import Folder, Numbered, Table, stem_of
from isocenter.files.layouts.layout import CaseFiles, DatasetOptions, Layout

# Cells of a column that must all name images.
LOOKED_AT = 20


class NamedCases:
    """The cases of a folder without its tables, by each name that only one of them has."""

    def __init__(self, folder: Folder, options: DatasetOptions) -> None:
        self.reading = _layout(folder, options).read(folder, options)
        known: dict[str, list[CaseFiles]] = defaultdict(list)
        people: dict[str, list[CaseFiles]] = defaultdict(list)
        for case in self.reading.cases:
            for name in {ending for path in _names(case) for ending in _endings(path)}:
                known[name].append(case)
            if case.patient:
                people[case.patient].append(case)
        self._known = {name: cases[0] for name, cases in known.items() if len(cases) == 1}
        self._people = people
        firsts = [case.files[0] for cases in people.values() for case in cases if case.files]
        self._numbered = Numbered(firsts, str(folder.root))

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
        """The cases that a cell names: one, by a path that may begin elsewhere, or those of a patient of DICOM."""
        text = str(cell).strip().replace("\\", "/")
        names = (name for ending in _endings(text) for name in (ending, stem_of(ending)))
        case = next((self._known[name] for name in names if name in self._known), None)
        if case is not None:
            return (case,)
        patients = self._numbered.patients(text, self._people) if self._people else ()
        return [case for patient in patients for case in self._people[patient]]

    def column(self, table: Table, first: str | None, without: Collection[str]) -> str | None:
        """The column that names cases, this one before others; None where none does.

        without: columns that hold something else
        """
        others = [name for name in table.columns if name not in without and name != first]
        return next((name for name in [*([first] if first else []), *others] if self._names_all(table, name)), None)

    def _names_all(self, table: Table, column: str) -> bool:
        cells: Sequence[object] = [row[column] for row in table.rows if row[column] is not None][:LOOKED_AT]
        names = [cases[0].name for cell in cells if (cases := self.find(cell))]
        return bool(cells) and len(set(names)) == len(cells)


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

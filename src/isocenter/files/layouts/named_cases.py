"""The images of a folder by what a table calls them: a file without its suffix, the end of a path, a case's folder."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from isocenter.files.layouts import case_folders, plain_images
from isocenter.files.layouts.cases import Folder, Table, stem_of
from isocenter.files.layouts.layout import CaseFiles, DatasetOptions

# Cells of a column that must all name images.
LOOKED_AT = 20


class NamedCases:
    """The cases of a folder without its labels, by each name that only one of them has."""

    def __init__(self, folder: Folder, options: DatasetOptions) -> None:
        layout = case_folders if case_folders.fits(folder, options) else plain_images
        reading = layout.read(folder, options)
        self.channels = reading.channels
        self._known: dict[str, CaseFiles | None] = {}
        for case in reading.cases:
            for name in {ending for path in _names(case) for ending in _endings(path)}:
                self._known[name] = None if name in self._known else case

    @classmethod
    def beside(cls, table: Table, folder: Folder, options: DatasetOptions) -> NamedCases | None:
        """The images in the folder of a table; None where there are none."""
        place = Folder(table.path.parent) if folder.is_file else folder
        return cls(place, options) if place.images else None

    def find(self, cell: object) -> CaseFiles | None:
        """The case that a cell names, by a path that may begin elsewhere; None where none or several have the name."""
        text = str(cell).strip().replace("\\", "/")
        names = (name for ending in _endings(text) for name in (ending, stem_of(ending)))
        return next((self._known[name] for name in names if name in self._known), None)

    def column(self, table: Table, first: str | None, without: Collection[str]) -> str | None:
        """The column that names cases, this one before others; None where none does.

        without: columns that hold something else
        """
        others = [name for name in table.columns if name not in without and name != first]
        return next((name for name in [*([first] if first else []), *others] if self._names_all(table, name)), None)

    def _names_all(self, table: Table, column: str) -> bool:
        cells: Sequence[object] = [row[column] for row in table.rows if row[column] is not None][:LOOKED_AT]
        found = [case.name for cell in cells if (case := self.find(cell)) is not None]
        return bool(cells) and len(set(found)) == len(cells)


def _names(case: CaseFiles) -> set[str]:
    """Of the case, and of its file where it has one, with its suffix too."""
    single = [case.files[0].as_posix()] if len(case.files) == 1 else []
    return {case.name, *(name for path in single for name in (path, stem_of(path)))}


def _endings(path: str) -> list[str]:
    """The path and what is left of it folder by folder, the longest first."""
    parts = [part for part in Path(path).parts if part not in ("/", ".")]
    return ["/".join(parts[start:]) for start in range(len(parts))]

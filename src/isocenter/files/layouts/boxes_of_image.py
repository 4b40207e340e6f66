"""The boxes of one image, read from an XML file of Pascal VOC or a table with a row for each box."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from isocenter.errors import DatasetError
from isocenter.files.layouts.box_table import annotation_in, columns_in
from isocenter.files.layouts.cases import TABLE_SUFFIXES, Annotation, load_boxes, names_in, read_table
from isocenter.files.layouts.layout import DatasetOptions
from isocenter.files.layouts.voc import annotation_of
from isocenter.values import BoundingBoxes, Image

XML = (".xml",)
SUFFIXES = (*XML, *TABLE_SUFFIXES)


def holds_boxes(path: Path) -> bool:
    """Whether a file of this name may hold boxes, and no label map."""
    return path.name.lower().endswith(SUFFIXES)


def read_boxes(path: Path, image: Image, name: str) -> BoundingBoxes:
    """The boxes of the image of this file name, on its axes; a table that `predict` has written is one too.

    Raises DatasetError for a table that does not name the image, and for what no layout of boxes takes.
    """
    annotation = annotation_of(path)[0] if path.suffix.lower() in XML else _in_table(path, name)
    called = {one: one for one in names_in([annotation])}
    return load_boxes(annotation, called, lambda: image)


def _in_table(path: Path, name: str) -> Annotation:
    table = read_table(path)
    column = columns_in(table, DatasetOptions())
    own: list[tuple[int, Mapping[str, Any]]] = []
    for place, row in enumerate(table.rows, start=2):  # as a spreadsheet counts: the first has the names
        if PurePosixPath(str(row[column["image"]]).replace("\\", "/")).name == name:
            own.append((place, row))
    if not own:
        raise DatasetError(f"has no row for {name}", str(path), "Give the table that names the image")
    return annotation_in(path, column, own)

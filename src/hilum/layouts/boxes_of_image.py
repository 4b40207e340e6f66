"""The boxes of one image, read from an XML file of Pascal VOC or a table with a row for each box."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from hilum import errors
from hilum.layouts import box_table, voc
from hilum.layouts.box_table import BoxTable
from hilum.layouts.cases import annotated_boxes, table_reading
from hilum.layouts.cases.annotated_boxes import Annotation
from hilum.layouts.cases.table_reading import TABLE_SUFFIXES
from hilum.layouts.layout import DatasetOptions
from hilum.values import BoundingBoxes, Image

XML = (".xml",)
SUFFIXES = (*XML, *TABLE_SUFFIXES)


def holds_boxes(path: Path) -> bool:
    """Whether a file of this name may hold boxes, and no label map."""
    return path.name.lower().endswith(SUFFIXES)


def read_boxes(path: Path, image: Image, file: Path) -> BoundingBoxes:
    """The boxes of the image in this file, on its axes; a table that `predict` has written is one too.

    Raises DatasetError for a table that does not name the image, and for what no layout of boxes takes.
    """
    annotation = voc.voc_sidecar(path).annotation if path.suffix.lower() in XML else _in_table(path, file)
    called = {one: one for one in annotated_boxes.annotated_names([annotation])}
    return annotated_boxes.load_boxes(annotation, called, lambda: image)


def _in_table(path: Path, file: Path) -> Annotation:
    table = table_reading.read_table(path)
    column = box_table.columns_of_boxes(table, DatasetOptions())
    # A row without an image is of none, and so not of this one.
    rows = tuple({**row, column["image"]: str(row[column["image"]])} for row in table.rows)
    boxes = BoxTable(replace(table, rows=rows), column)
    named = {name: PurePosixPath(name.replace("\\", "/")) for name in boxes.rows}
    if own := [row for name, rows in boxes.rows.items() if _names(named[name], file, path.parent) for row in rows]:
        return boxes.annotation(sorted(own, key=lambda row: row[0]))
    if others := sorted({str(one) for one in named.values() if one.name == file.name}):
        # Another patient may have an image of this name.
        problem = f"has rows for {errors.list_phrase(others)}, and none for {file.name} in the folder where it lies"
        raise table.refusal(problem, "Write the image's own path into the table, or its name alone")
    raise table.refusal(f"has no row for {file.name}", "Give the table that names the image")


def _names(named: PurePosixPath, file: Path, folder: Path) -> bool:
    """Whether a table in a folder names the file: by its name alone, the end of its path, or from here on."""
    whole = file.absolute()
    parts = tuple(part for part in named.parts if part not in (".", ".."))
    if whole.parts[-len(parts) :] == parts:
        return True
    return whole.resolve() in {(start / named).resolve() for start in (folder, Path())}

"""LabelMe: a JSON file of outlines for each image, in its folder or a neighbouring one.

Coordinates are pixels from the corner of the first one; https://github.com/wkentaro/labelme
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from isocenter import errors
from isocenter.errors import DatasetError
from isocenter.layouts import layout
from isocenter.layouts.cases import drawn_boxes, drawn_outlines
from isocenter.layouts.cases.dataset_folder import Folder, FolderMember
from isocenter.layouts.cases.drawn_boxes import Annotation, DrawnBox, Ring
from isocenter.layouts.layout import BY_NAMES, DatasetOptions, Layout, Reading
from isocenter.lazy import pil_image

SHAPES = re.compile(rb'"shapes"\s*:\s*\[')
# Of many JSON files, such as the sidecars of BIDS, only so many are opened to know them.
MOST_OPENED = 8
# A file may hold its image a second time.
LARGEST = 256 << 20
WITHOUT_AREA = frozenset({"point", "points", "line", "linestrip"})


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A JSON file with the name of an image that lists shapes."""
    del options
    opened = (member.path for member in _files(folder)[:MOST_OPENED])
    return any(SHAPES.search(path.read_bytes()) for path in opened if path.stat().st_size <= LARGEST)


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """A case for each image; one without a file is not labelled, a file without shapes means that nothing is there.

    Outlines are label maps, and where all are rectangles boxes; points and lines cover nothing, and are left out.
    Raises DatasetError, by file, for a damaged one and for two of one image.
    """
    records = {member: record for member in _files(folder) if (record := _record(member.path)) is not None}
    read = {member: labelme_annotation(member.path, record) for member, record in records.items()}
    stated = {member: (drawn, str(records[member].get("imagePath") or "")) for member, (drawn, _) in read.items()}
    owners, lost = drawn_outlines.owners_by_stem(folder, stated)
    pointed = [member.name for member, (_, without_area) in read.items() if without_area]
    what = f"{errors.count_phrase(len(pointed), 'file has', 'files have')} points or lines, which cover nothing"
    problems = (*lost, *layout.left_out_problem(pointed, what, "Draw them as outlines", "warning"))
    kinds = {_kind(shape) for record in records.values() for shape in record["shapes"]}
    usual = "boxes" if kinds <= {"rectangle"} else "mask"
    return drawn_outlines.read_sidecars(
        owners, folder, options, part="labelme", what="LabelMe", usual=usual, problems=problems
    )


def labelme_annotation(path: Path, record: Mapping[str, Any]) -> tuple[Annotation, bool]:
    """The outlines of a file, and whether there were shapes without an area.

    Shapes of one label and one group are one object. Raises DatasetError, by file and shape, for what is no outline.
    """
    outlines: list[tuple[str, Any, Ring, str]] = []
    masks: list[DrawnBox] = []
    without_area = False
    try:
        size = _size(record)
        for number, shape in enumerate(record["shapes"], start=1):
            name, group = str(shape["label"]), shape.get("group_id")
            if _kind(shape) in WITHOUT_AREA:
                without_area = True
            elif _kind(shape) == "mask":
                masks.append(_stored_mask(shape, name, f"shape {number}", size))
            else:
                outlines.append((name, group, _ring(shape, f"shape {number}"), f"shape {number}"))
        outlined = DrawnBox.in_groups(outlines)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        problem = f"is not a file of outlines of LabelMe ({errors.describe_cause(error)})"
        raise DatasetError(problem, str(path), "Open and save it with LabelMe") from error
    return Annotation(path, (*outlined, *masks), size), without_area


def _annotations(path: Path, settings: Mapping[str, str]) -> Mapping[str, Annotation]:
    del settings
    record = _record(path)
    if record is None:
        raise DatasetError("is not a file of outlines of LabelMe", str(path), "Open and save it with LabelMe")
    return {"": labelme_annotation(path, record)[0]}


def _files(folder: Folder) -> list[FolderMember]:
    """JSON files that bear the name of an image."""
    stems = {member.stem.casefold() for member in folder.images}
    return [one for one in folder.members if one.suffix == ".json" and one.stem.casefold() in stems]


def _record(path: Path) -> Mapping[str, Any] | None:
    """The content of the file; None where it is about something else."""
    record = drawn_outlines.json_record(path, LARGEST)
    is_drawn = isinstance(record, Mapping) and isinstance(record.get("shapes"), list)
    return record if is_drawn else None


def _kind(shape: Any) -> str:
    return str(shape.get("shape_type") or "polygon") if isinstance(shape, Mapping) else ""


def _size(record: Mapping[str, Any]) -> tuple[int, int] | None:
    columns, rows = int(record.get("imageWidth") or 0), int(record.get("imageHeight") or 0)
    return (columns, rows) if columns and rows else None


def _ring(shape: Mapping[str, Any], where: str) -> Ring:
    """The corners of a shape; ValueError for a kind that is not known."""
    points = [(float(x), float(y)) for x, y in shape["points"]]
    match _kind(shape):
        case "polygon":
            return tuple(points)
        case "rectangle":
            (x0, y0), (x1, y1) = points
            return ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
        case "circle":
            centre, edge = points
            radius = math.dist(centre, edge)
            return drawn_boxes.ellipse_corners(centre, (radius, radius))
        case other:
            raise ValueError(f"{where} is of the kind {other!r}")


def _stored_mask(shape: Mapping[str, Any], name: str, where: str, size: tuple[int, int] | None) -> DrawnBox:
    """An object whose pixels are stored: a PNG in base64 at the corner that is stated first."""
    (x, y), _ = ((int(a), int(b)) for a, b in shape["points"])
    try:
        with pil_image.open(io.BytesIO(base64.b64decode(shape["mask"], validate=True)), formats=["PNG"]) as picture:
            stored = np.asarray(picture) > 0
    except (binascii.Error, OSError, pil_image.DecompressionBombError) as error:
        raise ValueError(f"{where} holds a mask that cannot be read ({error})") from error
    return DrawnBox.of_pixels(name, stored, (x, y), size, where)


LAYOUT = Layout(
    "labelme",
    "a JSON file of outlines for each image, as in LabelMe",
    fits,
    read,
    over=BY_NAMES,
    annotations=_annotations,
)

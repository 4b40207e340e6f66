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
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hilum import errors
from hilum.errors import DatasetError
from hilum.layouts.cases import annotated_boxes, annotation_files
from hilum.layouts.cases.annotated_boxes import AnnotatedBox, Annotation, Ring, UnreadObject
from hilum.layouts.cases.annotation_files import UNREADABLE, AnnotatedFolder, AnnotationFormat, Sidecar
from hilum.layouts.cases.dataset_folder import Folder, Record
from hilum.layouts.layout import BY_NAMES, DatasetOptions, Example, Layout, Reading
from hilum.lazy import pil_image

SHAPES = re.compile(rb'"shapes"\s*:\s*\[')
# Of many JSON files, such as the sidecars of BIDS, only so many are opened to know them.
MOST_OPENED = 8
# A file may hold its image a second time.
LARGEST = 256 << 20
FLAT = frozenset({"point", "points", "line", "linestrip"})
FORMAT = AnnotationFormat("labelme", "LabelMe", flat=FLAT)
NO_OUTLINES, REMEDY = "is not a file of outlines of LabelMe", "Open and save it with LabelMe"


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A JSON file with the name of an image that lists shapes."""
    opened = (member.path for member in annotation_files.files_beside_images(folder, ".json")[:MOST_OPENED])
    return any(SHAPES.search(path.read_bytes()) for path in opened if path.stat().st_size <= LARGEST)


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """A case for each image; one without a file is not labelled, a file without shapes means that nothing is there.

    Outlines are label maps, and where all are rectangles boxes; points and lines cover nothing, and are left out.
    Raises DatasetError, by file, for a damaged one and for two of one image.
    """
    records = {one: _record(one.path) for one in annotation_files.files_beside_images(folder, ".json")}
    files = {one: labelme_sidecar(one.path, record) for one, record in records.items() if record is not None}
    are_boxes = all(sidecar.kinds <= {"rectangle"} for sidecar in files.values())
    return AnnotatedFolder(folder, options, replace(FORMAT, usual="boxes") if are_boxes else FORMAT).read_sidecars(
        files
    )


def labelme_sidecar(path: Path, record: Record) -> Sidecar:
    """The outlines of a file, and the shapes that cannot be read. Shapes of one label and one group are one object.

    Raises DatasetError, by file, for a size that is no number.
    """
    outlines: list[tuple[str, Any, Ring, str]] = []
    masks, unread = list[AnnotatedBox](), list[UnreadObject]()
    with annotation_files.refuse_unreadable(path, f"{NO_OUTLINES} ({{}})", REMEDY):
        size = annotation_files.stated_size(record.get("imageWidth"), record.get("imageHeight"))
        for number, shape in enumerate(record["shapes"], start=1):
            where = f"shape {number}"
            if _kind(shape) in FLAT:
                continue
            try:
                name = _name(shape)
                if _kind(shape) == "mask":
                    masks.append(_stored_mask(shape, name, where, size))
                else:
                    AnnotatedBox.around(name, [ring := _ring(shape)], where)  # which refuses what encloses nothing
                    outlines.append((name, shape.get("group_id"), ring, where))
            except UNREADABLE as error:
                unread.append(_unread_shape(shape, f"{where}: {errors.describe_cause(error)}"))
        boxes = (*AnnotatedBox.in_groups(outlines), *masks)
    kinds = frozenset(_kind(shape) for shape in record["shapes"] if isinstance(shape, Mapping))
    return Sidecar(Annotation(path, boxes, size, unread=tuple(unread)), str(record.get("imagePath") or ""), kinds)


def _annotations(path: Path, settings: Mapping[str, str]) -> Mapping[str, Annotation]:
    if (record := _record(path)) is None:
        raise DatasetError(NO_OUTLINES, str(path), REMEDY)
    return {"": labelme_sidecar(path, record).annotation}


def _record(path: Path) -> Record | None:
    """The content of the file; None where it is about something else."""
    record = annotation_files.json_record(path, LARGEST)
    return record if isinstance(record, Mapping) and isinstance(record.get("shapes"), list) else None


def _kind(shape: Any) -> str:
    return str(shape.get("shape_type") or "polygon") if isinstance(shape, Mapping) else ""


def _name(shape: Record) -> str:
    """The class of a shape; ValueError where it has none."""
    if not (label := shape["label"]):
        raise ValueError("it has no label")
    return str(label)


def _unread_shape(shape: Any, words: str) -> UnreadObject:
    """What is known of a shape that cannot be read: its class, and the corners where all of them are numbers."""
    if not isinstance(shape, Mapping):
        return UnreadObject(words)
    return UnreadObject.of_corners(words, str(shape.get("label") or ""), shape.get("points"))


def _ring(shape: Record) -> Ring:
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
            return annotated_boxes.ellipse_corners(centre, (radius, radius))
        case other:
            raise ValueError(f"a shape of the kind {other!r}")


def _stored_mask(shape: Record, name: str, where: str, size: tuple[int, int] | None) -> AnnotatedBox:
    """An object whose pixels are stored: a PNG in base64 at the corner that is stated first."""
    (x, y), _ = ((int(a), int(b)) for a, b in shape["points"])
    try:
        with pil_image.open(io.BytesIO(base64.b64decode(shape["mask"], validate=True)), formats=["PNG"]) as picture:
            stored = np.asarray(picture) > 0
    except (binascii.Error, OSError, pil_image.DecompressionBombError) as error:
        raise ValueError(f"a mask that cannot be read ({error})") from error
    return AnnotatedBox.of_pixels(name, stored, (x, y), size, where)


EXAMPLE: Example = {f"images/a{n}.png": n for n in range(2)} | {
    f"images/a{n}.json": '{"shapes": [{"label": "cyst", "points": [[2, 2], [8, 2], [8, 8], [2, 8]],\n'
    '"shape_type": "polygon"}], "imageWidth": 30, "imageHeight": 20}'
    for n in range(2)
}
LAYOUT = Layout(
    "labelme", "a JSON file of outlines for each image, as in LabelMe", fits, read, BY_NAMES, EXAMPLE, _annotations
)

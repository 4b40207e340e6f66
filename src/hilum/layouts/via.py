"""VGG Image Annotator (VIA): a JSON file that lists images with the regions on them.

Versions 1 and 2, https://www.robots.ox.ac.uk/~vgg/software/via/; coordinates are pixels from the corner of the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hilum import errors
from hilum.errors import DatasetError
from hilum.layouts import layout
from hilum.layouts.cases import annotated_boxes, annotation_files
from hilum.layouts.cases.annotated_boxes import AnnotatedBox, Annotation, Ring, UnreadObject
from hilum.layouts.cases.annotation_files import UNREADABLE, AnnotatedFolder, AnnotationFormat, ListedImage
from hilum.layouts.cases.dataset_folder import Folder, Record
from hilum.layouts.layout import BY_NAMES, DatasetOptions, Example, Layout, Reading

MARKS = (b'"filename"', b'"regions"', b'"file_attributes"')
LARGEST = 1 << 30
PROJECT = "_via_img_metadata"
FLAT = frozenset({"point", "polyline", "line"})
FORMAT = AnnotationFormat("via", "VIA", flat=FLAT)
SAVE = "Open and save it with VIA"
# Of several attributes of a region, the one that names its class; and the class where regions have none.
CLASS_NAMES, ONLY_CLASS = ("class", "label", "name", "type", "category", "object"), "object"


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A JSON file of regions with attributes of their shapes, and images in the folder."""
    return bool(folder.images) and bool(annotation_files.files_of_many(folder, ".json", MARKS))


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """A case for each image that is listed; where all regions are rectangles they are boxes, else outlines.

    A region that cannot be read makes its place unknown.
    Raises DatasetError, by file, for a damaged one, for regions of which no attribute surely names the class, and for
    an image that two files list.
    """
    entries = {member.path: _entries(member.path) for member in annotation_files.files_of_many(folder, ".json", MARKS)}
    kinds = [_kind(region) for own in entries.values() for entry in own for region in _regions(entry)]
    flat = sum(kind in FLAT for kind in kinds)
    what = f"{errors.count_phrase(flat, 'region covers', 'regions cover')} nothing (points, lines)"
    files = [path.name for path in entries] if flat else ()
    problems = layout.left_out_problem(files, what, "Outline them", "warning")
    listed = [one for path, own in entries.items() for one in via_images(path, own)]
    form = replace(FORMAT, usual="boxes") if set(kinds) - FLAT - {""} <= {"rect"} else FORMAT
    return AnnotatedFolder(folder, options, form).read_listed(listed, problems)


def via_images(path: Path, entries: Iterable[Record]) -> list[ListedImage]:
    """The images of a file with their regions, and those that cannot be read."""
    own = list(entries)
    naming = _class_attribute(path, [region for entry in own for region in _regions(entry)])
    found = []
    for entry in own:
        name = str(entry["filename"])
        boxes, unread = list[AnnotatedBox](), list[UnreadObject]()
        for number, region in enumerate(_regions(entry), start=1):
            if _kind(region) in FLAT:
                continue
            where = f"region {number} of {name}"
            try:
                boxes.append(_annotated_box(region, naming, where))
            except UNREADABLE as error:
                unread.append(_unread_region(region, naming, f"{where}: {errors.describe_cause(error)}"))
        found.append(ListedImage(name, Annotation(path, tuple(boxes), unread=tuple(unread))))
    return found


def _entries(path: Path) -> list[Record]:
    """The images that a file lists, of a project or of its annotations alone."""
    record = annotation_files.json_record(path, LARGEST)
    images = record.get(PROJECT, record) if isinstance(record, Mapping) else None
    entries = list(images.values()) if isinstance(images, Mapping) else []
    known = (isinstance(entry, Mapping) and "filename" in entry and _are_regions(entry) for entry in entries)
    if not entries or not all(known):
        raise DatasetError("lists no images as VIA does", str(path), SAVE)
    return entries


def _regions(entry: Record) -> list[Any]:
    """The regions of an image: a list, or in version 1 numbered."""
    regions = entry.get("regions") or []
    return list(regions.values() if isinstance(regions, Mapping) else regions)


def _are_regions(entry: Record) -> bool:
    return isinstance(entry.get("regions") or [], Mapping | list)


def _part(region: Any, key: str) -> Record:
    """What a region states of its shape or of its attributes; empty where that is odd."""
    part = region.get(key) if isinstance(region, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def _kind(region: Any) -> str:
    return str(_part(region, "shape_attributes").get("name") or "")


def _class_attribute(path: Path, regions: Iterable[Any]) -> str | None:
    """The attribute of regions that names their class; None where they have no attributes."""
    names = list(dict.fromkeys(name for region in regions for name in _part(region, "region_attributes")))
    known = [name for name in names if name.lower() in CLASS_NAMES]
    if len(names) > 1 and len(known) != 1:
        attributes = errors.list_phrase(names)
        problem = f"regions have the attributes {attributes}, and it is not clear which names their class"
        raise DatasetError(problem, str(path), "Call that attribute class, and save the file with VIA")
    return next(iter(known if len(names) > 1 else names), None)


def _annotated_box(region: Record, naming: str | None, where: str) -> AnnotatedBox:
    """The object that a region shows; ValueError where it has no class."""
    shape, attributes = region["shape_attributes"], region.get("region_attributes") or {}
    if not isinstance(attributes, Mapping):
        raise ValueError("its attributes are no names with values")
    name = _class_name(region, naming)
    if not name:
        raise ValueError(f"it has no {naming}")
    return AnnotatedBox.around(name, [_ring(shape, _kind(region))], where)


def _class_name(region: Any, naming: str | None) -> str:
    """The class of a region; empty where it states none, or several."""
    return ONLY_CLASS if naming is None else _chosen_value(_part(region, "region_attributes").get(naming))


def _unread_region(region: Any, naming: str | None, words: str) -> UnreadObject:
    """What is known of a region that cannot be read: its class, and its corners where all of them are numbers."""
    name = _class_name(region, naming)
    with suppress(*UNREADABLE):
        return UnreadObject.of_corners(words, name, _ring(_part(region, "shape_attributes"), _kind(region)))
    return UnreadObject(words, name)


def _chosen_value(value: Any) -> str:
    """The value of an attribute; of a field of ticks the only one that is set."""
    ticked = [str(key) for key, is_set in value.items() if is_set] if isinstance(value, Mapping) else [str(value or "")]
    return ticked[0].strip() if len(ticked) == 1 else ""


def _ring(shape: Record, kind: str) -> Ring:
    """The corners of a shape; ValueError for a kind that is not known."""
    match kind:
        case "rect":
            x, y, width, height = (float(shape[key]) for key in ("x", "y", "width", "height"))
            return ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
        case "polygon":
            across, down = shape["all_points_x"], shape["all_points_y"]
            if len(across) != len(down):
                raise ValueError(f"corners at {len(across)} places across and {len(down)} down")
            return tuple((float(x), float(y)) for x, y in zip(across, down, strict=True))
        case "circle":
            x, y, radius = (float(shape[key]) for key in ("cx", "cy", "r"))
            return annotated_boxes.ellipse_corners((x, y), (radius, radius))
        case "ellipse":
            x, y, across, down = (float(shape[key]) for key in ("cx", "cy", "rx", "ry"))
            return annotated_boxes.ellipse_corners((x, y), (across, down), float(shape.get("theta") or 0))
        case other:
            raise ValueError(f"a shape of the kind {other!r}")


EXAMPLE: Example = {f"images/a{n}.png": n for n in range(2)} | {
    "project.json": '{"a0": {"filename": "a0.png", "file_attributes": {}, "regions": [{"region_attributes":\n'
    '{"class": "cyst"}, "shape_attributes": {"name": "rect", "x": 2, "y": 3, "width": 4, "height": 5}}]},\n'
    '"a1": {"filename": "a1.png", "file_attributes": {}, "regions": []}}'
}
WHAT = "a JSON file that lists images and the regions on them, as in VGG Image Annotator"
LAYOUT = Layout(
    "via",
    WHAT,
    fits,
    read,
    BY_NAMES,
    EXAMPLE,
    lambda path, settings: {one.name: one.annotation for one in via_images(path, _entries(path))},
)

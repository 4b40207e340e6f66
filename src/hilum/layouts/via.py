"""VGG Image Annotator (VIA): a JSON file that lists images with the regions on them.

Versions 1 and 2, https://www.robots.ox.ac.uk/~vgg/software/via/; coordinates are pixels from the corner of the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hilum import errors
from hilum.errors import DatasetError
from hilum.layouts import layout
from hilum.layouts.cases import annotated_boxes, annotation_files
from hilum.layouts.cases.annotated_boxes import AnnotatedBox, Annotation, Ring
from hilum.layouts.cases.annotation_files import AnnotatedFolder, AnnotationFormat, ListedImage
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
    form = replace(FORMAT, usual="boxes") if set(kinds) - FLAT <= {"rect"} else FORMAT
    return AnnotatedFolder(folder, options, form).read_listed(listed, problems)


def via_images(path: Path, entries: Iterable[Record]) -> list[ListedImage]:
    """The images of a file with their regions."""
    own = list(entries)
    naming = _class_attribute(path, [region for entry in own for region in _regions(entry)])
    found = []
    for entry in own:
        name = str(entry["filename"])
        with annotation_files.refuse_unreadable(path, f"{name} has regions that VIA does not write ({{}})", SAVE):
            numbered = enumerate(_regions(entry), start=1)
            boxes = [_annotated_box(region, naming, f"region {n} of {name}") for n, region in numbered]
        found.append(ListedImage(name, Annotation(path, tuple(one for one in boxes if one is not None))))
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


def _regions(entry: Record) -> list[Record]:
    """The regions of an image: a list, or in version 1 numbered."""
    regions = entry.get("regions") or []
    return list(regions.values() if isinstance(regions, Mapping) else regions)


def _are_regions(entry: Record) -> bool:
    regions = entry.get("regions") or []
    return isinstance(regions, Mapping | list) and all(
        isinstance(region, Mapping) and isinstance(region.get("region_attributes") or {}, Mapping)
        for region in _regions(entry)
    )


def _kind(region: Record) -> str:
    shape = region.get("shape_attributes")
    return str(shape.get("name")) if isinstance(shape, Mapping) else ""


def _class_attribute(path: Path, regions: Iterable[Record]) -> str | None:
    """The attribute of regions that names their class; None where they have no attributes."""
    names = list(dict.fromkeys(name for region in regions for name in region.get("region_attributes") or {}))
    known = [name for name in names if name.lower() in CLASS_NAMES]
    if len(names) > 1 and len(known) != 1:
        attributes = errors.list_phrase(names)
        problem = f"regions have the attributes {attributes}, and it is not clear which names their class"
        raise DatasetError(problem, str(path), "Call that attribute class, and save the file with VIA")
    return next(iter(known if len(names) > 1 else names), None)


def _annotated_box(region: Record, naming: str | None, where: str) -> AnnotatedBox | None:
    """The object that a region shows; None where it covers nothing."""
    shape, kind = region["shape_attributes"], _kind(region)
    if kind in FLAT:
        return None
    name = ONLY_CLASS if naming is None else _chosen_value((region.get("region_attributes") or {}).get(naming))
    if not name:
        raise ValueError(f"{where} has no {naming}")
    return AnnotatedBox.around(name, [_ring(shape, kind)], where)


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
            corners = zip(shape["all_points_x"], shape["all_points_y"], strict=True)
            return tuple((float(x), float(y)) for x, y in corners)
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

"""QuPath: a GeoJSON file of annotations beside each picture or slide, `x.svs` and `x.geojson`.

Coordinates are pixels of the finest level from its corner; https://qupath.readthedocs.io/en/stable/docs/advanced/exporting_annotations.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from isocenter import errors
from isocenter.errors import DatasetError
from isocenter.layouts import layout
from isocenter.layouts.cases import drawn_outlines
from isocenter.layouts.cases.dataset_folder import Folder, FolderMember
from isocenter.layouts.cases.drawn_boxes import Annotation, DrawnBox, Ring
from isocenter.layouts.layout import BY_NAMES, DatasetOptions, Layout, Reading

SUFFIX, PART = ".geojson", "qupath"
FEATURE = b'"Feature'
# A slide may have a million cells.
LARGEST, MOST_OPENED = 1 << 30, 8
# What nobody has named.
UNNAMED = "object"
WITHOUT_AREA = frozenset({"Point", "MultiPoint", "LineString", "MultiLineString"})
EXPORT = "Export it with QuPath as GeoJSON"


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A GeoJSON file with the name of an image that begins with a feature."""
    del options
    stems = {member.stem.casefold() for member in folder.images}
    named = [one for one in _files(folder) if one.stem.casefold() in stems]
    return any(drawn_outlines.file_begins_with(one.path, FEATURE) for one in named[:MOST_OPENED])


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """A case for each image; one without a file is not labelled. Outlines are label maps, rectangles boxes.

    A file of no image is named by a problem. Raises DatasetError, by file, for a damaged one and for two of one image.
    """
    made = {member: _annotation(member.path) for member in _files(folder)}
    stated = {member: (drawn, "") for member, (drawn, _) in made.items()}
    owners, lost = drawn_outlines.owners_by_stem(folder, stated)
    pointed = [member.name for member, (_, without_area) in made.items() if without_area]
    what = f"{errors.count_phrase(len(pointed), 'file has', 'files have')} points or lines, which cover nothing"
    problems = (*lost, *layout.left_out_problem(pointed, what, "Draw them as outlines", "warning"))
    return drawn_outlines.read_sidecars(
        owners, folder, options, part=PART, what="QuPath", usual="mask", problems=problems
    )


def _files(folder: Folder) -> list[FolderMember]:
    return [one for one in folder.members if one.suffix == SUFFIX]


def _annotation(path: Path) -> tuple[Annotation, bool]:
    """What a file draws, and whether there are points or lines in it.

    Raises DatasetError, by file and feature, for what is no outline.
    """
    boxes, without_area = list[DrawnBox](), False
    try:
        for number, feature in enumerate(_features(drawn_outlines.json_record(path, LARGEST)), start=1):
            shape, where = feature["geometry"], f"feature {number}"
            if shape["type"] in WITHOUT_AREA:
                without_area = True
            else:
                boxes.append(DrawnBox.around(_name(feature.get("properties") or {}), _rings(shape, where), where))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problem = f"is not a GeoJSON of outlines ({errors.describe_cause(error)})"
        raise DatasetError(problem, str(path), EXPORT) from error
    return Annotation(path, tuple(boxes)), without_area


def _features(record: Any) -> Iterator[Mapping[str, Any]]:
    """The features of a collection, of a list or of a file that is one feature."""
    if isinstance(record, Mapping):
        record = record["features"] if record.get("type") == "FeatureCollection" else [record]
    yield from record


def _name(properties: Mapping[str, Any]) -> str:
    """The class of an object, else its own name."""
    classed = properties.get("classification")
    named = classed.get("name") if isinstance(classed, Mapping) else classed
    return str(named or properties.get("name") or UNNAMED)


def _rings(shape: Mapping[str, Any], where: str) -> list[Ring]:
    """The outer rings of an outline; ValueError for a kind that is not known. Holes are filled."""
    polygons: Sequence[Any] = {
        "Polygon": [shape["coordinates"]],
        "MultiPolygon": shape["coordinates"],
    }.get(shape["type"], [])
    if not polygons:
        raise ValueError(f"{where} is of the kind {shape['type']!r}")
    # The last corner of a ring is its first one once more.
    return [tuple((float(x), float(y)) for x, y, *_ in polygon[0][:-1]) for polygon in polygons]


def _annotations(path: Path, settings: Mapping[str, str]) -> Mapping[str, Annotation]:
    del settings
    return {"": _annotation(path)[0]}


LAYOUT = Layout(
    PART,
    "a GeoJSON file of outlines beside each image, as QuPath exports them",
    fits,
    read,
    over=BY_NAMES,
    annotations=_annotations,
)

"""QuPath: a GeoJSON file of annotations beside each picture or slide, `x.svs` and `x.geojson`.

Coordinates are pixels of the finest level from its corner; https://qupath.readthedocs.io/en/stable/docs/advanced/exporting_annotations.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hilum import errors
from hilum.layouts.cases import annotation_files
from hilum.layouts.cases.annotated_boxes import AnnotatedBox, Annotation, Ring, UnreadObject
from hilum.layouts.cases.annotation_files import UNREADABLE, AnnotatedFolder, AnnotationFormat, Sidecar
from hilum.layouts.cases.dataset_folder import Folder, Record
from hilum.layouts.layout import BY_NAMES, DatasetOptions, Example, Layout, Reading
from hilum.values import FactRule

FLAT = frozenset({"Point", "MultiPoint", "LineString", "MultiLineString"})
FORMAT = AnnotationFormat("qupath", "QuPath", flat=FLAT)
SUFFIX, FEATURE = ".geojson", b'"Feature'
# A slide may have a million cells.
LARGEST, MOST_OPENED = 1 << 30, 8
# QuPath writes names of the parts of a derived class, and joins them so where it shows them.
DERIVED = ": "
CHILDREN, NUCLEUS = "childObjects", "nucleusGeometry"
# What nobody has named.
UNNAMED = "object"


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A GeoJSON file with the name of an image that begins with a feature."""
    named = annotation_files.files_beside_images(folder, SUFFIX)
    return any(annotation_files.file_begins_with(one.path, FEATURE) for one in named[:MOST_OPENED])


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """A case for each image; one without a file is not labelled. Outlines are label maps, rectangles boxes.

    A file of no image is named by a problem. Raises DatasetError, by file, for a damaged one and for two of one image.
    """
    files = {member: _sidecar(member.path) for member in folder.members if member.suffix == SUFFIX}
    return AnnotatedFolder(folder, options, FORMAT).read_sidecars(files)


def _sidecar(path: Path) -> Sidecar:
    """The annotation of a file, and the features that cannot be read. Raises DatasetError, by file, for no GeoJSON."""
    boxes, unread_features = list[AnnotatedBox](), list[UnreadObject]()
    kinds = set[str]()
    unread = set[str]()
    problem, remedy = "is not a GeoJSON of outlines ({})", "Export it with QuPath as GeoJSON"
    with annotation_files.refuse_unreadable(path, problem, remedy):
        for where, feature in _with_children(_features(annotation_files.json_record(path, LARGEST))):
            try:
                if NUCLEUS in feature:
                    unread.add("outlines of nuclei within cells")
                shape = feature["geometry"]
                if shape is None:
                    unread.add("an object without a place")
                elif any((shape.get("plane") or {}).get(axis) for axis in "zt"):
                    unread.add("an outline in a further plane of a stack")
                else:
                    kinds.add(shape["type"])
                    if shape["type"] not in FLAT:
                        rings, holes = _rings(shape)
                        boxes.append(AnnotatedBox.around(_name(_properties(feature)), rings, where, holes))
            except UNREADABLE as error:
                unread_features.append(_unread_feature(feature, f"{where}: {errors.describe_cause(error)}"))
    annotation = Annotation(path, tuple(boxes), unread=tuple(unread_features))
    return Sidecar(annotation, kinds=frozenset(kinds), unread=frozenset(unread))


def _features(record: Any) -> Iterable[Record]:
    """The features of a collection, of a list or of a file that is one feature."""
    features: Iterable[Record] = record
    if isinstance(record, Mapping):
        features = record["features"] if record.get("type") == "FeatureCollection" else [record]
    return features


def _with_children(features: Iterable[Record]) -> Iterator[tuple[str, Record]]:
    """Each feature with its place in words, and after it those of the hierarchy below it."""
    waiting = [(f"feature {number}", feature) for number, feature in enumerate(features, start=1)][::-1]
    while waiting:
        where, feature = waiting.pop()
        yield where, feature
        children = _properties(feature).get(CHILDREN)
        if not children and isinstance(feature, Mapping):
            children = feature.get(CHILDREN)
        waiting += [(f"{where}, child {number}", child) for number, child in enumerate(children or (), start=1)][::-1]


def _properties(feature: Any) -> Record:
    """What a feature states beside its place; empty where that is odd."""
    properties = feature.get("properties") if isinstance(feature, Mapping) else None
    return properties if isinstance(properties, Mapping) else {}


def _unread_feature(feature: Any, words: str) -> UnreadObject:
    """What is known of a feature that cannot be read: its class, and its corners where all of them are numbers."""
    corners = list[Sequence[Any]]()
    with suppress(*UNREADABLE):
        shape = feature["geometry"]
        polygons = [shape["coordinates"]] if shape["type"] == "Polygon" else shape["coordinates"]
        corners = [corner[:2] for polygon in polygons for ring in polygon for corner in ring]
    return UnreadObject.of_corners(words, _name(_properties(feature)), corners)


def _name(properties: Record) -> str:
    """The class of an object, else its own name; a class is a name, or a list of a name and what is derived of it."""
    classed = properties.get("classification")
    stated = classed
    if isinstance(classed, Mapping):
        stated = classed.get("name") or classed.get("names")
    if isinstance(stated, Sequence) and not isinstance(stated, str):
        stated = DERIVED.join(str(name) for name in stated)
    return str(stated or properties.get("name") or UNNAMED)


def _rings(shape: Record) -> tuple[list[Ring], list[list[Ring]]]:
    """The outer rings of an outline, and the holes of each; ValueError for a kind that is not known.

    The first ring of a polygon is its outside and all others are holes, whichever way they run (RFC 7946, 3.1.6).
    """
    kinds = {"Polygon": [shape["coordinates"]], "MultiPolygon": shape["coordinates"]}
    polygons: Sequence[Any] = kinds.get(shape["type"], [])
    if not polygons:
        raise ValueError(f"a shape of the kind {shape['type']!r}")
    rings = [[_ring(ring) for ring in polygon] for polygon in polygons]
    return [outer for outer, *_ in rings], [holes for _, *holes in rings]


def _ring(corners: Sequence[Any]) -> Ring:
    """The corners of a ring, the first one not repeated at its end; some writers do not repeat it."""
    ring = tuple((float(x), float(y)) for x, y, *_ in corners)
    return ring[:-1] if len(ring) > 1 and ring[-1] == ring[0] else ring


EXAMPLE: Example = {f"images/a{n}.png": n for n in range(2)} | {
    f"images/a{n}.geojson": '{"type": "Feature", "properties": {"classification": {"name": "cyst"}},\n'
    '"geometry": {"type": "Polygon", "coordinates": [[[2, 2], [8, 2], [8, 8], [2, 8], [2, 2]]]}}'
    for n in range(2)
}
WHAT = "a GeoJSON file of outlines beside each image, as QuPath exports them"
GEOJSON = "GeoJSON of QuPath"
FACTS = (
    FactRule(GEOJSON, "read", "holes"),
    FactRule(GEOJSON, "read", "open rings"),
    FactRule(GEOJSON, "read", "lists of names"),
    FactRule(GEOJSON, "read", "child objects"),
    FactRule(GEOJSON, "named", "nuclei within cells"),
    FactRule(GEOJSON, "named", "objects without a place"),
    FactRule(GEOJSON, "named", "further planes"),
    FactRule(GEOJSON, "named", "rings of fewer than three corners"),
)
LAYOUT = Layout(
    "qupath", WHAT, fits, read, BY_NAMES, EXAMPLE, lambda path, settings: {"": _sidecar(path).annotation}, facts=FACTS
)

"""QuPath: a GeoJSON file of annotations beside each picture or slide, `x.svs` and `x.geojson`.

Coordinates are pixels of the finest level from its corner; https://qupath.readthedocs.io/en/stable/docs/advanced/exporting_annotations.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hilum.layouts.cases import annotation_files
from hilum.layouts.cases.annotated_boxes import AnnotatedBox, Annotation, Ring
from hilum.layouts.cases.annotation_files import AnnotatedFolder, AnnotationFormat, Sidecar
from hilum.layouts.cases.dataset_folder import Folder, Record
from hilum.layouts.layout import BY_NAMES, DatasetOptions, Example, Layout, Reading

FLAT = frozenset({"Point", "MultiPoint", "LineString", "MultiLineString"})
FORMAT = AnnotationFormat("qupath", "QuPath", flat=FLAT)
SUFFIX, FEATURE = ".geojson", b'"Feature'
# A slide may have a million cells.
LARGEST, MOST_OPENED = 1 << 30, 8
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
    """The annotation of a file. Raises DatasetError, by file and feature, for what is no outline."""
    boxes, kinds = list[AnnotatedBox](), set[str]()
    problem, remedy = "is not a GeoJSON of outlines ({})", "Export it with QuPath as GeoJSON"
    with annotation_files.refuse_unreadable(path, problem, remedy):
        for number, feature in enumerate(_features(annotation_files.json_record(path, LARGEST)), start=1):
            shape, where = feature["geometry"], f"feature {number}"
            kinds.add(shape["type"])
            if shape["type"] not in FLAT:
                boxes.append(AnnotatedBox.around(_name(feature.get("properties") or {}), _rings(shape, where), where))
    return Sidecar(Annotation(path, tuple(boxes)), kinds=frozenset(kinds))


def _features(record: Any) -> Iterable[Record]:
    """The features of a collection, of a list or of a file that is one feature."""
    features: Iterable[Record] = record
    if isinstance(record, Mapping):
        features = record["features"] if record.get("type") == "FeatureCollection" else [record]
    return features


def _name(properties: Record) -> str:
    """The class of an object, else its own name."""
    classed = properties.get("classification")
    return str((classed.get("name") if isinstance(classed, Mapping) else classed) or properties.get("name") or UNNAMED)


def _rings(shape: Record, where: str) -> list[Ring]:
    """The outer rings of an outline; ValueError for a kind that is not known. Holes are filled."""
    kinds = {"Polygon": [shape["coordinates"]], "MultiPolygon": shape["coordinates"]}
    polygons: Sequence[Any] = kinds.get(shape["type"], [])
    if not polygons:
        raise ValueError(f"{where} is of the kind {shape['type']!r}")
    # The last corner of a ring is its first one once more.
    return [tuple((float(x), float(y)) for x, y, *_ in polygon[0][:-1]) for polygon in polygons]


EXAMPLE: Example = {f"images/a{n}.png": n for n in range(2)} | {
    f"images/a{n}.geojson": '{"type": "Feature", "properties": {"classification": {"name": "cyst"}},\n'
    '"geometry": {"type": "Polygon", "coordinates": [[[2, 2], [8, 2], [8, 8], [2, 8], [2, 2]]]}}'
    for n in range(2)
}
WHAT = "a GeoJSON file of outlines beside each image, as QuPath exports them"
LAYOUT = Layout("qupath", WHAT, fits, read, BY_NAMES, EXAMPLE, lambda path, settings: {"": _sidecar(path).annotation})

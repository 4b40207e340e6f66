"""The one reader of rows: the functions that read a case's images and references, from what its cells name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hilum.files import file_formats
from hilum.layouts import image_pairs, medmnist
from hilum.layouts.cases import (
    annotated_boxes,
    annotated_outlines,
    cell_loading,
    dicom_cases,
    dicom_masks,
    object_classes,
)
from hilum.layouts.cases.annotated_boxes import Annotation
from hilum.layouts.cases.cell_loading import ImageLoader
from hilum.layouts.cases.column_names import TARGET
from hilum.layouts.cases.object_classes import BY_TABLE, OBJECT_MAPS
from hilum.layouts.cases.table_roles import TEXT
from hilum.layouts.layout import AnnotationNames, DatasetOptions, Labels, Reading
from hilum.values import CaseRow, Cell, Image, grouping, voxel_images

# Kinds of reference that are voxels on the image's grid, of which one file may be read as either.
LABEL_MAPS = ("mask", "instances")
# Kinds that lie on pixels, which EXIF may turn.
ON_PIXELS = frozenset({*LABEL_MAPS, "boxes"})
# Parts of a file that more than one case may be, so that the file alone does not say which.
SHARED = frozenset({"coco", "cvat", "mot", "via", "box_table", TEXT})
FOLDER, ROW, FRAME, FIELD, STATED = "folder", "row", "frame", "field", "stated"
# A label map of an image on which nothing is; the file is the image's own.
EMPTY = "empty"

Loader = Callable[[], Any]


@dataclass(frozen=True)
class CaseLoaders:
    """The functions that read a case: {channel: image} and {kind: reference}."""

    images: Mapping[str, ImageLoader]
    references: Mapping[str, Loader]


def case_loaders(row: CaseRow, reading: Reading, options: DatasetOptions) -> CaseLoaders:
    """The functions that read a row's cells, label maps and further images on the axes of the first image."""
    loaders = {name: _image(cell, options) for name, cell in row.images.items()}
    first = next(iter(loaders.values()), None)
    references: dict[str, Loader] = {}
    for kind, known in row.references.items():
        references |= _reference(kind, known, row, first, reading, options)
    if reading.exif == "stored" and first is not None and not options.read.stored:
        references |= _turn_references(row, first, references, reading, options)
    files = files_of_case(row) if options.references else ()
    own = {kind: load for path in files for kind, load in file_formats.references_in(path).items()}
    maps = {kind: load for kind, load in references.items() if kind.partition(":")[0] in LABEL_MAPS}
    images = {name: _on_axes(load, first) for name, load in loaders.items()}
    if lacks_images(row, reading):
        padded = {voxel_images.pad_numeric_name(name): load for name, load in images.items()}
        images = {name: partial(_name_channels, name, load) for name, load in padded.items()}
    return CaseLoaders(images, {**own, **references, **{kind: _on_axes(load, first) for kind, load in maps.items()}})


def lacks_images(row: CaseRow, reading: Reading) -> bool:
    """Whether a case has only some of the images that are declared: they are then known by their names alone."""
    return bool(row.images) and bool(set(reading.channels) - set(row.images))


def files_of_case(row: CaseRow) -> tuple[Path, ...]:
    """The files of a case, of folders all inside them, of detached headers those with the voxels too.

    Not those that state something of many cases.
    """
    each = [files_in(cell.paths[0]) if cell.part == FOLDER else list(cell.paths) for cell in row.images.values()]
    # The first file of each image before all others: by these a pair is known again.
    paths = [*(own[0] for own in each if own), *(path for own in each for path in own[1:])]
    for cell in (one for one in row.references.values() if isinstance(one, Cell)):
        is_bare = isinstance(cell.known, Annotation) and cell.part == "yolo" and not cell.known.boxes
        if cell.part not in SHARED and not is_bare:  # an empty file of YOLO is no damaged one
            own = cell.paths[:1] if cell.part == BY_TABLE else cell.paths
            paths += files_in(own[0]) if cell.part == FOLDER else own
    return tuple(dict.fromkeys(part for path in paths for part in file_formats.parts_of_file(path)))


def files_in(folder: Path) -> list[Path]:
    """All files below a folder, in order."""
    return sorted(inside for inside in folder.rglob("*") if inside.is_file())


def case_key(row: CaseRow, reading: Reading, options: DatasetOptions) -> str:
    """What distinguishes a case beside the contents of its files: empty where these say all.

    That is its place in a file of many cases, values that it states, and what of its files is read otherwise.
    """
    own = {ROW} if len(row.images) > 1 else {ROW, FRAME}  # several frames of one file are the channels of one case
    stated: list[Any] = [[name, cell.key] for name, cell in row.images.items() if cell.part in own]
    for kind, known in sorted(row.references.items()):
        if not isinstance(known, Cell):
            stated.append([kind, known])
        elif known.part == STATED:
            stated.append([kind, known.key])
        elif known.part == BY_TABLE:
            stated.append([kind, object_classes.stated_rows(known)])
        elif known.part in SHARED:
            stated.append([kind.partition(":")[0], known.known.digest])
    stated += [[options.read.background, "is 0"]] if options.read.background else []
    stated += [["contoured as", "stored"]] if reading.exif == "stored" else []
    stated += [["images", sorted(map(voxel_images.pad_numeric_name, row.images))]] if lacks_images(row, reading) else []
    return hashlib.sha256(json.dumps(stated, sort_keys=True, default=str).encode()).hexdigest() if stated else ""


def _image(cell: Cell, options: DatasetOptions) -> ImageLoader:
    """The function that reads one image."""
    path, modality = cell.paths[0], cell.modality
    match cell.part:
        case "frame":
            frame, _, frames = cell.key.partition("/")
            return partial(cell_loading.load_frame, path, int(frame), int(frames), options.read, modality)
        case "clip":
            return partial(cell_loading.load_numbered_frame, path, options.read, modality)
        case "row":
            array, _, row = cell.key.rpartition("/")
            return partial(medmnist.load_row, path, array, int(row), modality or "unknown", options.read.orientation)
        case "series":
            return partial(dicom_cases.load_series, cell.paths, options.read, modality)
        case _:
            return partial(cell_loading.load_image, path, options.read, modality)


def _reference(
    kind: str, known: Any, row: CaseRow, image: ImageLoader | None, reading: Reading, options: DatasetOptions
) -> dict[str, Loader]:
    """{kind: function that reads it} of one reference."""
    if not isinstance(known, Cell):
        return {kind: partial(cell_loading.constant_value, known)}
    labels, names = tuple(reading.classes.get("mask", ())), reading.annotation_names or AnnotationNames()
    if kind == OBJECT_MAPS and object_classes.states_classes(known):
        own = tuple(reading.classes.get(kind, ()))
        return {kind: partial(object_classes.load_classed_objects, known, own, dict(names.called), options.read)}
    if known.part in (STATED, TEXT):
        return {kind: partial(cell_loading.constant_value, known.known)}
    if kind == TARGET:
        return {TARGET: _on_axes(_image(known, options), image)}
    if known.part == FIELD:
        own = tuple(reading.classes.get("field", ()))
        return {kind: partial(image_pairs.load_correspondence, known, own, options.read)}
    if known.names:
        return {kind: _structures(known, labels, options)}
    if known.part == "":
        return _label_maps(kind, known, labels, options)
    assert image is not None  # noqa: S101 - what is annotated lies on an image
    match known.part:
        case one if one == EMPTY:
            return {kind: partial(cell_loading.empty_label_map, labels, image)}
        case "contoured":
            files = tuple(path for cell in row.images.values() for path in cell.paths)
            if kind == OBJECT_MAPS:
                return {kind: partial(dicom_masks.load_single_objects, known.paths, image, files, dict(names.called))}
            chosen = options.labels is not None
            load = partial(dicom_masks.load_contoured_masks, known.paths, image, files, labels, chosen=chosen)
            return {kind: partial(load, fill_contours=options.read.fill_contours)}
        case "report":
            return {kind: partial(dicom_cases.load_reported_boxes, known, dict(names.called), image)}
        case _:
            readers: dict[str, Loader] = {
                "boxes": partial(annotated_boxes.load_boxes, known.known, names.called, image),
                "mask": partial(annotated_outlines.load_label_map, known.known, names.labels, image),
                OBJECT_MAPS: partial(annotated_outlines.load_object_map, known.known, names.called, image),
            }
            return {kind: readers[kind]}


def _label_maps(kind: str, cell: Cell, labels: Labels, options: DatasetOptions) -> dict[str, Loader]:
    """The kinds that are asked for of label maps, whose numbers name structures or count them."""
    base, colon, reader = kind.partition(":")
    is_whole = base != "mask" or cell_loading.differ_in_number_alone(cell.paths)
    whole = partial(cell_loading.load_mask, cell.paths, labels, options.read, cell.reader)
    readers: dict[str, Loader] = {
        "mask": whole if is_whole else partial(cell_loading.refuse_unlike_masks, cell.paths),
        "instances": partial(cell_loading.load_instances, cell.paths, options.read),
    }
    wanted = [one for one in LABEL_MAPS if one in options.kinds] or [base]
    return {f"{one}{colon}{reader}": readers[one] for one in wanted}


def _structures(cell: Cell, labels: Labels, options: DatasetOptions) -> Loader:
    """The function that reads masks of single structures as a label map of those that are declared."""
    of_name = grouping.by_key(zip(cell.names, cell.paths, strict=True))
    each = tuple((label.value, tuple(of_name[label.name])) for label in labels if label.name in of_name)
    return partial(cell_loading.load_structures, each, labels, options.read)


def _turn_references(
    row: CaseRow, image: ImageLoader, references: Mapping[str, Loader], reading: Reading, options: DatasetOptions
) -> dict[str, Loader]:
    """The references that lie on stored pixels, turned with their image."""
    as_stored = replace(options, read=replace(options.read, stored=True))
    stored = case_loaders(row, replace(reading, exif=""), as_stored).references
    placed = [kind for kind in references if kind.partition(":")[0] in ON_PIXELS]
    return {kind: partial(cell_loading.turn_reference, stored[kind], files_of_case(row), image) for kind in placed}


def _on_axes(load: ImageLoader, first: ImageLoader | None) -> ImageLoader:
    """An image or label map with its axes in the order of those of the case's first image."""
    return partial(cell_loading.on_axes_of_image, load, first) if first is not None and load is not first else load


def _name_channels(name: str, load: ImageLoader) -> Image:
    return load().with_image_name(name)

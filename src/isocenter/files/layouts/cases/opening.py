"""The one reader of rows: the functions that read a case's images and references, from what its cells name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from isocenter.files.index import references_in
from isocenter.files.layouts import cases as layout_cases
from isocenter.files.layouts.cases.boxes import Annotation, load_boxes
from isocenter.files.layouts.cases.load import (
    are_pieces,
    given,
    load_frame,
    load_image,
    load_instances,
    load_mask,
    load_structures,
    on_axes_of_image,
    refuse_unlike,
)
from isocenter.files.layouts.cases.outlines import load_label_map, load_object_map
from isocenter.files.layouts.cases.turning import turned
from isocenter.files.layouts.image_pairs import load_correspondence
from isocenter.files.layouts.layout import DatasetOptions, DrawnNames, Reading
from isocenter.files.layouts.medmnist import load_row
from isocenter.values import CaseRow, Cell, Image, Label, unambiguous_name

# Kinds of reference that are voxels on the image's grid, of which one file may be read as either.
LABEL_MAPS = ("mask", "instances")
# Kinds that lie on pixels, which EXIF may turn.
ON_PIXELS = frozenset({*LABEL_MAPS, "boxes"})
# Parts of a file that more than one case may be, so that the file alone does not say which.
SHARED = frozenset({"coco", "cvat", "via", "box_table"})
FOLDER, ROW, FIELD, STATED = "folder", "row", "field", "stated"

Loader = Callable[[], Any]


@dataclass(frozen=True)
class Opened:
    """The functions that read a case: {channel: image} and {kind: reference}."""

    images: Mapping[str, Callable[[], Image]]
    references: Mapping[str, Loader]


def opened(row: CaseRow, reading: Reading, options: DatasetOptions) -> Opened:
    """The functions that read a row's cells, label maps and further images on the axes of the first image."""
    loaders = {name: _image(cell, options) for name, cell in row.images.items()}
    first = next(iter(loaders.values()), None)
    references: dict[str, Loader] = {}
    for kind, known in row.references.items():
        references |= _reference(kind, known, row, first, reading, options)
    if reading.exif == "stored" and first is not None and not options.read.stored:
        references |= _turned(row, first, references, reading, options)
    own = (
        {kind: load for path in files_of(row) for kind, load in references_in(path).items()}
        if options.references
        else {}
    )
    maps = {kind: load for kind, load in references.items() if kind.partition(":")[0] in LABEL_MAPS}
    images = {name: _on_axes(load, first) for name, load in loaders.items()}
    if lacks_images(row, reading):
        images = {
            unambiguous_name(name): partial(_named, unambiguous_name(name), load) for name, load in images.items()
        }
    return Opened(images, {**own, **references, **{kind: _on_axes(load, first) for kind, load in maps.items()}})


def lacks_images(row: CaseRow, reading: Reading) -> bool:
    """Whether a case has only some of the images that are declared: they are then known by their names alone."""
    return bool(row.images) and bool(set(reading.channels) - set(row.images))


def files_of(row: CaseRow) -> tuple[Path, ...]:
    """The files of a case, of folders all inside them; not those that state something of many cases."""
    each = [files_in(cell.paths[0]) if cell.part == FOLDER else list(cell.paths) for cell in row.images.values()]
    # The first file of each image before all others: by these a pair is known again.
    paths = [*(own[0] for own in each if own), *(path for own in each for path in own[1:])]
    for cell in (one for one in row.references.values() if isinstance(one, Cell)):
        is_bare = isinstance(cell.known, Annotation) and cell.part == "yolo" and not cell.known.boxes
        if cell.part not in SHARED and not is_bare:  # an empty file of YOLO is no damaged one
            paths += cell.paths
    return tuple(dict.fromkeys(paths))


def files_in(folder: Path) -> list[Path]:
    """All files below a folder, in order."""
    return sorted(inside for inside in folder.rglob("*") if inside.is_file())


def key_of(row: CaseRow, reading: Reading, options: DatasetOptions) -> str:
    """What distinguishes a case beside the contents of its files: empty where these say all.

    That is its place in a file of many cases, values that it states, and what of its files is read otherwise.
    """
    stated: list[Any] = [[name, cell.key] for name, cell in row.images.items() if cell.part == ROW]
    for kind, known in sorted(row.references.items()):
        if not isinstance(known, Cell):
            stated.append([kind, known])
        elif known.part == STATED:
            stated.append([kind, known.key])
        elif known.part in SHARED:
            stated.append([kind.partition(":")[0], known.known.digest])
    stated += [[options.read.background, "is 0"]] if options.read.background else []
    stated += [["drawn as", "stored"]] if reading.exif == "stored" else []
    stated += [["images", sorted(map(unambiguous_name, row.images))]] if lacks_images(row, reading) else []
    return hashlib.sha256(json.dumps(stated, sort_keys=True, default=str).encode()).hexdigest() if stated else ""


def _image(cell: Cell, options: DatasetOptions) -> Callable[[], Image]:
    """The function that reads one image."""
    path, modality = cell.paths[0], cell.modality
    match cell.part:
        case "frame":
            frame, _, frames = cell.key.partition("/")
            return partial(load_frame, path, int(frame), int(frames), options.read, modality)
        case "row":
            array, _, row = cell.key.rpartition("/")
            return partial(load_row, path, array, int(row), modality or "unknown", options.read.orientation)
        case "series":
            return partial(layout_cases.load_series, cell.paths, options.read, modality)
        case _:
            return partial(load_image, path, options.read, modality)


def _reference(
    kind: str, known: Any, row: CaseRow, image: Callable[[], Image] | None, reading: Reading, options: DatasetOptions
) -> dict[str, Loader]:
    """{kind: function that reads it} of one reference."""
    if not isinstance(known, Cell):
        return {kind: partial(given, known)}
    labels = tuple(reading.classes.get("mask", ()))
    if known.part == STATED:
        return {kind: partial(given, known.known)}
    if known.part == FIELD:
        return {kind: partial(load_correspondence, known, tuple(reading.classes.get("field", ())), options.read)}
    if known.names:
        return {kind: _structures(known, labels, options)}
    if known.part == "":
        return _label_maps(kind, known, labels, options)
    assert image is not None  # noqa: S101 - what is drawn is drawn on an image
    names = reading.drawn or DrawnNames()
    match known.part:
        case "drawn":
            files = tuple(path for cell in row.images.values() for path in cell.paths)
            chosen = options.labels is not None
            fills = options.read.fill_contours
            load = partial(
                layout_cases.load_drawn, known.paths, image, files, labels, chosen=chosen, fill_contours=fills
            )
            return {kind: load}
        case "report":
            return {kind: partial(layout_cases.load_reported, known, dict(names.called), image)}
        case _:
            readers: dict[str, Loader] = {
                "boxes": partial(load_boxes, known.known, names.called, image),
                "mask": partial(load_label_map, known.known, names.labels, image),
                "instances": partial(load_object_map, known.known, image),
            }
            return {kind: readers[kind]}


def _label_maps(kind: str, cell: Cell, labels: tuple[Label, ...], options: DatasetOptions) -> dict[str, Loader]:
    """The kinds that are asked for of label maps, whose numbers name structures or count them."""
    base, colon, reader = kind.partition(":")
    is_whole = base != "mask" or are_pieces(cell.paths)
    readers: dict[str, Loader] = {
        "mask": partial(load_mask, cell.paths, labels, options.read, cell.reader)
        if is_whole
        else partial(refuse_unlike, cell.paths),
        "instances": partial(load_instances, cell.paths, options.read),
    }
    wanted = [one for one in LABEL_MAPS if one in options.kinds] or [base]
    return {f"{one}{colon}{reader}": readers[one] for one in wanted}


def _structures(cell: Cell, labels: tuple[Label, ...], options: DatasetOptions) -> Loader:
    """The function that reads masks of single structures as a label map of those that are declared."""
    of_name: dict[str, list[Path]] = {}
    for name, path in zip(cell.names, cell.paths, strict=True):
        of_name.setdefault(name, []).append(path)
    each = tuple((label.value, tuple(of_name[label.name])) for label in labels if label.name in of_name)
    return partial(load_structures, each, labels, options.read)


def _turned(
    row: CaseRow,
    image: Callable[[], Image],
    references: Mapping[str, Loader],
    reading: Reading,
    options: DatasetOptions,
) -> dict[str, Loader]:
    """The references that were drawn on stored pixels, turned with their image."""
    as_stored = replace(options, read=replace(options.read, stored=True))
    stored = opened(row, replace(reading, exif=""), as_stored).references
    drawn = [kind for kind in references if kind.partition(":")[0] in ON_PIXELS]
    return {kind: partial(turned, stored[kind], files_of(row), image) for kind in drawn}


def _on_axes(load: Callable[[], Image], first: Callable[[], Image] | None) -> Callable[[], Image]:
    """An image or label map with its axes in the order of those of the case's first image."""
    return partial(on_axes_of_image, load, first) if first is not None and load is not first else load


def _named(name: str, load: Callable[[], Image]) -> Image:
    return load().named(name)

"""Outlines as files state them, rasterised to label maps and maps of objects on the grid of their image."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import DatasetError, UsageError
from hilum.files import polygon
from hilum.layouts.cases import annotated_boxes, cell_loading, class_labels, object_classes
from hilum.layouts.cases.annotated_boxes import AnnotatedBox, Annotation, Outline, UnreadObject
from hilum.layouts.cases.class_labels import NamedClasses
from hilum.layouts.cases.dataset_folder import Folder
from hilum.layouts.layout import AnnotationNames, DatasetOptions, Labels, Problems
from hilum.values import CaseRow, Cell, Image, Label, Problem
from hilum.values.voxel_images import WITHOUT_VOXELS

BOXES, MASK, OBJECT_MAPS = "boxes", "mask", "instances"
# What annotators call what is not to be looked at, and what is nothing (LabelMe's examples of semantic segmentation).
IGNORED, NOTHING = frozenset({"__ignore__", "ignore"}), frozenset({"_background_", "background"})

Pixels = NDArray[np.bool_]


@dataclass(frozen=True)
class AnnotationReferences:
    """The references that are made of the annotations of a data set.

    kinds: boxes, mask or instances
    """

    kinds: tuple[str, ...]
    names: AnnotationNames
    classes: Mapping[str, Labels]

    @classmethod
    def for_options(
        cls,
        annotations: Sequence[Annotation],
        usual: str,
        folder: Folder,
        options: DatasetOptions,
        names: Mapping[str, str] | None = None,
        *,
        rows: Sequence[CaseRow] = (),
    ) -> AnnotationReferences:
        """The kinds that are asked for, of those that the annotations allow.

        usual: the kind where none is asked for
        names: {name in the file: name of its class}, where the data set states them
        rows:  the cases, whose pictures say how large they are where their annotations do not
        Raises UsageError where --labels names what nobody annotated.
        """
        stated_names = annotated_boxes.annotated_names(annotations)
        outlined = any(box.outline is not None for one in annotations for box in one.boxes)
        possible = (BOXES, MASK, OBJECT_MAPS) if outlined else (BOXES,)
        kinds = tuple(kind for kind in possible if kind in options.kinds) or (usual if outlined else BOXES,)
        called, labels = dict(names or {}), {}
        classes: dict[str, Any] = {}
        if BOXES in kinds or OBJECT_MAPS in kinds:
            labels_of, called = _box_classes(stated_names, called, folder, options)
            classes |= {kind: labels_of for kind in (BOXES, OBJECT_MAPS) if kind in kinds}
        if MASK in kinds:
            labels = _labels(stated_names, called, folder, options)
            can_ignore = any(label.is_ignored for label in labels.values())
            if not can_ignore and (
                any(one.has_unread_outlines for one in annotations) or any(map(_leaves_picture, rows))
            ):
                unknown = Label(max((label.value for label in labels.values()), default=0) + 1, "ignore")
                labels[unknown.name] = unknown
            classes[MASK] = tuple(sorted(set(labels.values()), key=lambda label: label.value))
        return cls(kinds, AnnotationNames(called, labels), classes)

    def with_kinds(self, rows: Iterable[CaseRow]) -> Iterator[CaseRow]:
        """The rows, whose annotations are references of these kinds."""
        for row, annotated in ((row, annotations_of(row)) for row in rows):
            others = {kind: one for kind, one in row.references.items() if kind not in annotated}
            made = dict.fromkeys(self.kinds, next(iter(annotated.values()))) if annotated else {}
            yield replace(row, references={**others, **made})

    def count_in_words(self, annotations: Iterable[Annotation]) -> str:
        """The number of boxes or outlines, in words."""
        what = ("box", "boxes") if self.kinds == (BOXES,) else ("outline", "outlines")
        return errors.count_phrase(sum(len(annotation.boxes) for annotation in annotations), *what)

    def notes(self, annotations: Iterable[Annotation]) -> Problems:
        """Notes on what else could be read of them."""
        if not any(box.outline is not None for one in annotations for box in one.boxes):
            return ()
        read = {BOXES: "boxes", MASK: "label maps", OBJECT_MAPS: "maps of single objects"}
        tasks = {BOXES: "detection", MASK: "segmentation", OBJECT_MAPS: "instances"}
        others = [kind for kind in read if kind not in self.kinds]
        what = f"outlines are read as {errors.list_phrase(read[kind] for kind in self.kinds)}"
        can_be = f"they can be read as {' or '.join(read[kind] for kind in others)} too"
        remedy = f"Choose {' or '.join(f'--task {tasks[kind]}' for kind in others)} for that"
        return (Problem("note", what, (), can_be, remedy),) if others else ()


def annotations_of(row: CaseRow) -> dict[str, Cell]:
    """{kind: the cell of an annotation file} of the references that are such."""
    cells = {kind: one for kind, one in row.references.items() if isinstance(one, Cell)}
    return {kind: cell for kind, cell in cells.items() if isinstance(cell.known, Annotation)}


def _leaves_picture(row: CaseRow) -> bool:
    """Whether an outline lies beyond the picture of its case, where the annotations do not state how large that is."""
    annotations = [cell.known for cell in annotations_of(row).values()]
    unsized = [one for one in annotations if isinstance(one, Annotation) and one.size is None and one.boxes]
    image = next(iter(row.images.values()), None)
    if not unsized or image is None or image.part:
        return False
    sizes = cell_loading.sizes_of_picture(image.paths[0])
    return any(replace(one, size=size).has_unread_outlines for one in unsized for size in sizes)


@dataclass(frozen=True)
class CoveredPixels:
    """The pixels of one object: those of a box of rows and columns whose centre lies in its outline."""

    source: AnnotatedBox
    box: tuple[slice, slice]
    inside: Pixels

    @property
    def area(self) -> int:
        """The area in pixels."""
        return int(np.count_nonzero(self.inside))


def load_label_map(annotation: Annotation, labels: Mapping[str, Label], image: Callable[[], Image]) -> Image:
    """The label map of one image; where outlines of several labels overlap, a pixel is the smallest one's.

    labels: {name in the file: label}; what is not in it is background, and the place of an object that cannot be read
            is to be ignored where no other object is
    Raises DatasetError as `pixels_of_objects` does, where none of the objects can be read, and for one that cannot
    where no label says so.
    """
    on = image()
    objects, unread = pixels_of_objects(annotation, on, labels)
    every = tuple(sorted(set(labels.values()), key=lambda label: label.value))
    unknown = next((label.value for label in every if label.is_ignored), 0)
    if unread and not objects:
        raise DatasetError(unread[0].words, str(annotation.path), "Outline it again")
    if unread and not unknown:
        remedy = "Correct it, or declare a label that is called ignore, as --labels 1=NAME,2=ignore does"
        raise DatasetError(f"{unread[0].words}, and no label says where nothing is known", str(annotation.path), remedy)
    map_of_labels = _rasterise([(labels[one.source.name].value, one) for one in objects], on, every, unread, unknown)
    notes = [f"{one.words}: its place is unknown" for one in unread]
    return replace(map_of_labels, notes=(*map_of_labels.notes, *notes))


def load_object_map(annotation: Annotation, called: Mapping[str, str], image: Callable[[], Image]) -> Image:
    """A map in which each object has its number and its class; where outlines overlap, a pixel is the smallest one's.

    called: {name in the file: name of its class}
    Raises DatasetError as `pixels_of_objects` does, and for an object that cannot be read: its place is unknown, which
    no map of objects says.
    """
    on = image()
    covered, unread = pixels_of_objects(annotation, on)
    if unread:
        problem = f"{unread[0].words}, and a map of objects cannot say that a place is unknown"
        raise DatasetError(problem, str(annotation.path), "Correct it, or read label maps: --task segmentation")
    objects = [one for one in covered if not one.source.ignored]
    numbered = list(enumerate(objects, start=1))
    kinds = {number: called.get(one.source.name, one.source.name) for number, one in numbered}
    return object_classes.with_kinds(_rasterise(numbered, on, ()), kinds)


def pixels_of_objects(
    annotation: Annotation, image: Image, names: Collection[str] | None = None
) -> tuple[list[CoveredPixels], list[UnreadObject]]:
    """The pixels of each object, and the objects that cannot be read; of these names alone, where they are given.

    Raises DatasetError, by file, for a volume, by file and object for one without an outline, and as
    `Annotation.placed_on` does.
    """
    where = str(annotation.path)
    if image.geometry.ndim > 2 and image.geometry.shape[2:] != (1,):
        raise DatasetError("outlines are of pictures, and the image is a volume", where, "Save masks as volumes")
    columns, rows = annotated_boxes.columns_and_rows(image.geometry)[:2]
    placed = annotation.placed_on(image.geometry)
    # One of a class that was not chosen is background wherever it lies.
    unread = [one for one in placed.unread if names is None or not one.name or one.name in names]
    objects = []
    for box in placed.boxes:
        if names is not None and box.name not in names:
            continue
        if box.outline is None:
            problem = f"{box.where} ({box.name}) has a box and no outline"
            raise DatasetError(problem, where, "Outline it, or read boxes: --task detection")
        try:
            objects.append(CoveredPixels(box, *cover_outline(box.outline, (rows, columns))))
        except ValueError as error:
            unread.append(UnreadObject(f"{box.where} ({box.name}) {error}", box.name, box.low, box.high))
    return objects, unread


def cover_outline(outline: Outline, shape: tuple[int, int]) -> tuple[tuple[slice, slice], Pixels]:
    """A box of rows and columns, and which of its pixels have their centre in one of the polygons, or in the runs.

    What a hole of a polygon holds is not that polygon's.

    Raises ValueError for runs that do not fill their size, or are of another than the picture's.
    """
    rows, columns = shape
    if outline.runs:
        if not outline.fills(columns, rows):
            stated = "has runs of {} pixels for {} x {}".format(sum(outline.runs), *outline.size)
            raise ValueError(f"{stated}, and the image has {columns} x {rows}")
        inside = np.arange(len(outline.runs)) % 2 == 1
        return (slice(rows), slice(columns)), np.repeat(inside, outline.runs).reshape(columns, rows).T
    corners = np.array([corner for ring in outline.rings for corner in ring])
    low = np.clip(np.floor(corners.min(axis=0)), 0, (columns, rows)).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)), low, (columns, rows)).astype(int)
    pixels = np.zeros((high - low)[::-1], bool)
    for ring, holes in outline.parts:
        # n to n + 1 is a pixel.
        covered = polygon.inside_polygon(np.array(ring, dtype=np.float64) - low - 0.5, pixels.shape)
        for hole in holes:
            covered &= ~polygon.inside_polygon(np.array(hole, dtype=np.float64) - low - 0.5, pixels.shape)
        pixels |= covered
    return (slice(low[1], high[1]), slice(low[0], high[0])), pixels


def _box_classes(
    stated_names: Collection[str], names: Mapping[str, str], folder: Folder, options: DatasetOptions
) -> NamedClasses:
    """The classes of boxes, and {name in the file: name of its class}."""
    if not names:
        return class_labels.name_classes(stated_names, folder, options)
    called = {name: names[name] for name in names if name in stated_names}
    return class_labels.numbered_names(called.values()), called


def _labels(
    stated_names: Collection[str], names: Mapping[str, str], folder: Folder, options: DatasetOptions
) -> dict[str, Label]:
    """{name in the file: its label} as --labels, a table or dataset.json declares them, else numbered from 1.

    --labels either chooses names with their values, or names classes that the files have as numbers.
    """
    if not names and options.labels is not None and all(name.isdecimal() for name in stated_names):
        names, options = class_labels.name_classes(stated_names, folder, options)[1], replace(options, labels=None)
    called = {name: names.get(name, name) for name in (names or sorted(stated_names)) if name in stated_names}
    called = {name: one for name, one in called.items() if one.casefold() not in NOTHING}
    declared = {label.name: label for label in class_labels.mask_labels(folder, options)}
    if regions := class_labels.mask_regions(folder, options):
        by_value = {label.value: label for label in declared.values()}
        declared = {name: by_value[values[0]] for name, values in regions.items()}
    if options.labels is not None and (unknown := sorted(set(declared) - set(called.values()) - IGNORED - NOTHING)):
        problem = f"nobody annotated {errors.list_phrase(unknown)}"
        remedy = f"Choose from {errors.list_phrase(sorted(set(called.values())))}"
        raise UsageError(problem, f"--labels {options.labels}", remedy)
    if options.labels is not None or (declared and set(called.values()) <= set(declared)):
        unknown_places = {label.name: label for label in declared.values() if label.is_ignored}
        return {name: declared[one] for name, one in called.items() if one in declared} | unknown_places
    kept = list(dict.fromkeys(one for one in called.values() if one.casefold() not in IGNORED))
    numbered = {one: Label(number, one) for number, one in enumerate(kept, start=1)}
    return {name: numbered.get(one, Label(len(kept) + 1, "ignore")) for name, one in called.items()}


def _rasterise(
    objects: Sequence[tuple[int, CoveredPixels]],
    image: Image,
    labels: Labels,
    unread: Sequence[UnreadObject] = (),
    unknown: int = 0,
) -> Image:
    """A map of these values on the grid of the image that they were annotated on, small objects over large ones.

    unknown: the value below all of them, at the places of objects that cannot be read
    """
    columns, rows = annotated_boxes.columns_and_rows(image.geometry)[:2]
    largest = max((unknown, *(value for value, _ in objects)), default=1)
    pixels = np.zeros((rows, columns), np.min_scalar_type(largest))
    for undrawn in unread:
        low, high = undrawn.edges_on((columns, rows))
        first, last = np.floor(low).astype(int), np.ceil(high).astype(int)
        pixels[first[1] : last[1], first[0] : last[0]] = unknown
    shared = 0
    for value, one in sorted(objects, key=lambda pair: -pair[1].area):
        place = pixels[one.box]
        shared += int(np.count_nonzero(one.inside & (place != 0) & (place != value) & (place != unknown)))
        place[one.inside] = value
    empty = [one.source for _, one in objects if not one.area]
    notes = [f"{one.where} ({one.name}) holds the centre of no pixel, and is left out" for one in empty]
    if shared:
        notes.append(f"outlines overlap in {errors.count_phrase(shared, 'pixel')}, which are those of the smaller one")
    on_axes = pixels if image.geometry.is_picture else pixels.T.reshape(image.geometry.shape)
    own = replace(image, pixels=on_axes[None], channels=("label",), times=None, padding=None, labels=labels)
    return replace(own, facts={WITHOUT_VOXELS: _lost(objects, pixels, labels)}, notes=tuple(notes))


def _lost(objects: Sequence[tuple[int, CoveredPixels]], pixels: NDArray[Any], labels: Labels) -> dict[str, str]:
    """{structure that is outlined and has no pixel in a label map: why}."""
    # Where nothing is outlined nothing is looked at, as on a slide.
    shown = {value for _, one in objects for value in np.unique(pixels[one.box]).tolist()}
    lost = {value for value, _ in objects} - shown
    hidden = {value for value, one in objects if one.area}
    over, too_small = "other outlines lie over all of it", "its outlines hold the centre of none"
    named = [label for label in labels if label.value in lost and not label.is_ignored]
    return {label.name: over if label.value in hidden else too_small for label in named}

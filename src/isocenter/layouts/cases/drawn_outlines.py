"""Outlines as files state them, drawn into label maps and maps of objects on the grid of their image.

A file may list many images with what is drawn on each: the images that it names become cases.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isocenter import errors
from isocenter.errors import DatasetError, UsageError
from isocenter.files import modality_words, polygon
from isocenter.files.storage import structured_text
from isocenter.layouts import layout
from isocenter.layouts.cases import class_labels, dataset_folder, drawn_boxes, mask_pairs, object_classes
from isocenter.layouts.cases.dataset_folder import Folder, FolderMember
from isocenter.layouts.cases.drawn_boxes import Annotation, DrawnBox, Outline
from isocenter.layouts.cases.names import NEIGHBOURS
from isocenter.layouts.layout import DatasetOptions, DrawnNameMeanings, Reading
from isocenter.values import CaseRow, Cell, Image, Label, Problem, Split
from isocenter.values.voxel_images import WITHOUT_VOXELS

BOXES, MASK, OBJECT_MAPS = "boxes", "mask", "instances"
# What annotators call what is not to be looked at, and what is nothing (LabelMe's examples of semantic segmentation).
IGNORED, NOTHING = frozenset({"__ignore__", "ignore"}), frozenset({"_background_", "background"})

Pixels = NDArray[np.bool_]
# Of many files, such as the sidecars of BIDS, only so many are opened to know them.
MOST_OPENED = 32
HEAD_BYTES = 1 << 20
MOST_NAMED = 12  # images in one message


@dataclass(frozen=True)
class DrawnReferences:
    """The references that are made of the annotations of a data set.

    kinds: boxes, mask or instances
    """

    kinds: tuple[str, ...]
    names: DrawnNameMeanings
    classes: Mapping[str, tuple[Label, ...]]

    @classmethod
    def for_options(
        cls,
        annotations: Sequence[Annotation],
        usual: str,
        folder: Folder,
        options: DatasetOptions,
        names: Mapping[str, str] | None = None,
    ) -> DrawnReferences:
        """The kinds that are asked for, of those that the annotations allow.

        usual: the kind where none is asked for
        names: {name in the file: name of its class}, where the data set states them
        Raises UsageError where --labels names what nobody drew.
        """
        drawn = drawn_boxes.drawn_names(annotations)
        outlined = any(box.outline is not None for one in annotations for box in one.boxes)
        possible = (BOXES, MASK, OBJECT_MAPS) if outlined else (BOXES,)
        kinds = tuple(kind for kind in possible if kind in options.kinds) or (usual if outlined else BOXES,)
        called, labels = dict(names or {}), {}
        classes: dict[str, Any] = {}
        if BOXES in kinds or OBJECT_MAPS in kinds:
            labels_of, called = _box_classes(drawn, called, folder, options)
            classes |= {kind: labels_of for kind in (BOXES, OBJECT_MAPS) if kind in kinds}
        if MASK in kinds:
            labels = _labels(drawn, called, folder, options)
            classes[MASK] = tuple(sorted(set(labels.values()), key=lambda label: label.value))
        return cls(kinds, DrawnNameMeanings(called, labels), classes)

    def cells(self, part: str, annotation: Annotation, key: str = "") -> dict[str, Cell]:
        """{kind: its cell} of one image; part: the layout's name; key: the image's in a file of many."""
        return dict.fromkeys(self.kinds, Cell((annotation.path,), part, key, known=annotation))

    def count_in_words(self, annotations: Iterable[Annotation]) -> str:
        """The number of boxes or outlines, in words."""
        what = ("box", "boxes") if self.kinds == (BOXES,) else ("outline", "outlines")
        return errors.count_phrase(sum(len(annotation.boxes) for annotation in annotations), *what)

    def notes(self, annotations: Iterable[Annotation]) -> tuple[Problem, ...]:
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


@dataclass(frozen=True)
class CoveredPixels:
    """The pixels of one object: those of a box of rows and columns whose centre lies in its outline."""

    drawn: DrawnBox
    box: tuple[slice, slice]
    inside: Pixels

    @property
    def area(self) -> int:
        """The area in pixels."""
        return int(np.count_nonzero(self.inside))


def load_label_map(annotation: Annotation, labels: Mapping[str, Label], image: Callable[[], Image]) -> Image:
    """The label map of one image; where outlines of several labels overlap, a pixel is the smallest one's.

    labels: {name in the file: label}; what is not in it is background
    Raises DatasetError as `pixels_of_objects` does.
    """
    on = image()
    objects = pixels_of_objects(annotation, on, labels)
    every = tuple(sorted(set(labels.values()), key=lambda label: label.value))
    return _paint([(labels[one.drawn.name].value, one) for one in objects], on, every)


def load_object_map(annotation: Annotation, called: Mapping[str, str], image: Callable[[], Image]) -> Image:
    """A map in which each object has its number and its class; where outlines overlap, a pixel is the smallest one's.

    called: {name in the file: name of its class}
    Raises DatasetError as `pixels_of_objects` does.
    """
    on = image()
    objects = [one for one in pixels_of_objects(annotation, on) if not one.drawn.ignored]
    numbered = list(enumerate(objects, start=1))
    kinds = {number: called.get(one.drawn.name, one.drawn.name) for number, one in numbered}
    return object_classes.with_kinds(_paint(numbered, on, ()), kinds)


def pixels_of_objects(
    annotation: Annotation, image: Image, names: Collection[str] | None = None
) -> list[CoveredPixels]:
    """The pixels of each object; of these names alone, where they are given.

    Raises DatasetError, by file and object, for a volume, for an object without an outline or one that lies outside
    the image, for runs of another size, and as `Annotation.placed_on` does.
    """
    where = str(annotation.path)
    if image.geometry.ndim > 2 and image.geometry.shape[2:] != (1,):
        raise DatasetError("outlines are of pictures, and the image is a volume", where, "Save masks as volumes")
    rows, columns = _rows_and_columns(image)
    objects = []
    for drawn in annotation.placed_on(image.geometry).boxes:
        if names is not None and drawn.name not in names:
            continue
        if drawn.outline is None:
            problem = f"{drawn.where} ({drawn.name}) has a box and no outline"
            raise DatasetError(problem, where, "Draw its outline, or read boxes: --task detection")
        drawn_boxes.edges_inside(drawn, (columns, rows, *image.geometry.shape[2:]), where)
        try:
            objects.append(CoveredPixels(drawn, *cover_outline(drawn.outline, (rows, columns))))
        except ValueError as error:
            raise DatasetError(f"{drawn.where} ({drawn.name}) {error}", where, "Draw it again") from error
    return objects


def cover_outline(outline: Outline, shape: tuple[int, int]) -> tuple[tuple[slice, slice], Pixels]:
    """A box of rows and columns, and which of its pixels have their centre in one of the polygons, or in the runs.

    Raises ValueError for runs that do not fill their size, or are of another than the picture's.
    """
    rows, columns = shape
    if outline.runs:
        if outline.size != (columns, rows) or sum(outline.runs) != rows * columns or min(outline.runs) < 0:
            stated = "has runs of {} pixels for {} x {}".format(sum(outline.runs), *outline.size)
            raise ValueError(f"{stated}, and the image has {columns} x {rows}")
        inside = np.arange(len(outline.runs)) % 2 == 1
        return (slice(rows), slice(columns)), np.repeat(inside, outline.runs).reshape(columns, rows).T
    corners = np.array([corner for ring in outline.rings for corner in ring])
    low = np.clip(np.floor(corners.min(axis=0)), 0, (columns, rows)).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)), low, (columns, rows)).astype(int)
    pixels = np.zeros((high - low)[::-1], bool)
    for ring in outline.rings:
        pixels |= polygon.inside_polygon(
            np.array(ring, dtype=np.float64) - low - 0.5, pixels.shape
        )  # n to n + 1 is a pixel
    return (slice(low[1], high[1]), slice(low[0], high[0])), pixels


def _box_classes(
    drawn: Collection[str], names: Mapping[str, str], folder: Folder, options: DatasetOptions
) -> tuple[tuple[Label, ...], dict[str, str]]:
    """The classes of boxes, and {name in the file: name of its class}."""
    if not names:
        return class_labels.name_classes(drawn, folder, options)
    called = {name: names[name] for name in names if name in drawn}
    return class_labels.numbered_names(called.values()), called


def _labels(
    drawn: Collection[str], names: Mapping[str, str], folder: Folder, options: DatasetOptions
) -> dict[str, Label]:
    """{name in the file: its label} as --labels, a table or dataset.json declares them, else numbered from 1.

    --labels either chooses names with their values, or names classes that the files have as numbers.
    """
    if not names and options.labels is not None and all(name.isdecimal() for name in drawn):
        names, options = class_labels.name_classes(drawn, folder, options)[1], replace(options, labels=None)
    called = {name: names.get(name, name) for name in (names or sorted(drawn)) if name in drawn}
    called = {name: one for name, one in called.items() if one.casefold() not in NOTHING}
    declared = {label.name: label for label in class_labels.mask_labels(folder, options)}
    if regions := class_labels.mask_regions(folder, options):
        by_value = {label.value: label for label in declared.values()}
        declared = {name: by_value[values[0]] for name, values in regions.items()}
    if options.labels is not None and (unknown := sorted(set(declared) - set(called.values()) - IGNORED - NOTHING)):
        problem = f"nobody drew {errors.list_phrase(unknown)}"
        remedy = f"Choose from {errors.list_phrase(sorted(set(called.values())))}"
        raise UsageError(problem, f"--labels {options.labels}", remedy)
    if options.labels is not None or (declared and set(called.values()) <= set(declared)):
        return {name: declared[one] for name, one in called.items() if one in declared}
    kept = list(dict.fromkeys(one for one in called.values() if one.casefold() not in IGNORED))
    numbered = {one: Label(number, one) for number, one in enumerate(kept, start=1)}
    return {name: numbered.get(one, Label(len(kept) + 1, "ignore")) for name, one in called.items()}


def _paint(objects: Sequence[tuple[int, CoveredPixels]], image: Image, labels: tuple[Label, ...]) -> Image:
    """A map of these values on the grid of the image that they were drawn on, small objects over large ones."""
    pixels = np.zeros(_rows_and_columns(image), np.min_scalar_type(max((value for value, _ in objects), default=1)))
    shared = 0
    for value, one in sorted(objects, key=lambda pair: -pair[1].area):
        place = pixels[one.box]
        shared += int(np.count_nonzero(one.inside & (place != 0) & (place != value)))
        place[one.inside] = value
    empty = [one.drawn for _, one in objects if not one.area]
    notes = [f"{one.where} ({one.name}) holds the centre of no pixel, and is left out" for one in empty]
    if shared:
        notes.append(f"outlines overlap in {errors.count_phrase(shared, 'pixel')}, which are those of the smaller one")
    on_axes = pixels if image.geometry.is_picture else pixels.T.reshape(image.geometry.shape)
    own = replace(image, pixels=on_axes[None], channels=("label",), times=None, padding=None, labels=labels)
    return replace(own, facts={WITHOUT_VOXELS: _lost(objects, pixels, labels)}, notes=tuple(notes))


def _lost(
    objects: Sequence[tuple[int, CoveredPixels]], pixels: NDArray[Any], labels: tuple[Label, ...]
) -> dict[str, str]:
    """{structure that is drawn and has no pixel in a label map: why}."""
    # Where nothing is drawn nothing is looked at, as on a slide.
    shown = {value for _, one in objects for value in np.unique(pixels[one.box]).tolist()}
    lost = {value for value, _ in objects} - shown
    hidden = {value for value, one in objects if one.area}
    over, too_small = "other outlines lie over all of it", "its outlines hold the centre of none"
    named = [label for label in labels if label.value in lost and not label.is_ignored]
    return {label.name: over if label.value in hidden else too_small for label in named}


def _rows_and_columns(image: Image) -> tuple[int, int]:
    shape = image.geometry.shape
    return (shape[0], shape[1]) if image.geometry.is_picture else (shape[1], shape[0])


def read_sidecars(
    owners: Mapping[Path, Annotation],
    folder: Folder,
    options: DatasetOptions,
    *,
    part: str,
    what: str,
    usual: str,
    names: Mapping[str, str] | None = None,
    parts: Mapping[str, Split] = MappingProxyType({}),
    cases: Mapping[Path, str] = MappingProxyType({}),
    problems: Sequence[Problem] = (),
) -> Reading:
    """A case for each image in the folders of those that a file is about; the others of these are not labelled.

    owners: {image: what is drawn on it}
    part:   the word for a cell of such a file, the layout's name
    what:   the format
    usual:  the kind of reference where none is asked for
    names:  {name in a file: name of its class}, where the data set states them
    parts:  {name of an image without suffix: its part}, where the data set lists them
    cases:  {image: name of its case}, where that is not the path of the image
    """
    annotations, modality = list(owners.values()), modality_words.modality_word(options.modality)
    made = DrawnReferences.for_options(annotations, usual, folder, options, names)
    places = {path.parent for path in owners}
    rows = []
    for image in folder.images:
        if not places or image.path.parent in places:
            own = owners.get(image.path)
            references = {} if own is None else made.cells(part, own)
            split = parts.get(image.stem, image.split)
            name = cases.get(image.path, image.name)
            rows.append(CaseRow(name, {"image": Cell((image.path,), modality=modality)}, references, split))
    return Reading(
        tuple(rows),
        how=f"{what}: {made.count_in_words(annotations)} on {errors.count_phrase(len(owners), 'image')}",
        classes=made.classes,
        drawn=made.names,
        modality=modality,
        problems=(*problems, *made.notes(annotations)),
    )


def owners_by_stem(
    folder: Folder, files: Mapping[FolderMember, tuple[Annotation, str]]
) -> tuple[dict[Path, Annotation], tuple[Problem, ...]]:
    """{image: what is drawn on it} of files that bear the name of their image, and the problem of those without one.

    files: {file: what is drawn, and the name of the image that the file states, whose suffix chooses between two}
    An image is looked for in the folder of its file, then in the neighbouring ones, at last anywhere.
    Raises DatasetError for two files of one image.
    """
    images, called = drawn_boxes.images_by_file_name(folder), defaultdict[str, set[str]](set)
    for one in folder.images:
        called[one.stem.casefold()].add(one.path.name)
    owners, lost, places = dict[Path, Annotation](), list[str](), {member.path.parent for member in files}
    for member, (annotation, stated) in files.items():
        place, suffix = member.path.parent, Path(stated).suffix
        near = [place, *(place.parent / name for name in NEIGHBOURS)]
        ranked = sorted(
            (dataset_folder.stem_of(name) != member.stem, not name.endswith(suffix), name)
            for name in called[member.stem.casefold()]
        )
        found = (
            drawn_boxes.image_named(images, name, near, member.path, split=member.split, others=places - {place})
            for *_, name in ranked
        )
        image = next((one for one in found if one is not None), None)
        if image is None:
            lost.append(member.name)
        elif image.path in owners:
            problem = f"{owners[image.path].path.name} is of the same image"
            raise DatasetError(problem, str(member.path), "Keep one")
        else:
            owners[image.path] = annotation
    return owners, mask_pairs.missing_image_problem(lost)


@dataclass(frozen=True)
class ListedImage:
    """One image as a file lists it.

    name:   of its file, which may begin with folders
    within: the name of the folder of its images, where the file names one
    source: what lists it, in words
    film:   of which it is a frame; empty of a picture
    """

    name: str
    annotation: Annotation
    split: Split | None = None
    within: str = ""
    source: str = ""
    film: str = ""

    @property
    def key(self) -> str:
        """The image's name in its file, with the folder that tells it from others of its name."""
        return f"{self.within}/{self.name}" if self.within else self.name


def file_begins_with(path: Path, *patterns: bytes) -> bool:
    """Whether each of these stands at the beginning of a file."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return all(pattern in head for pattern in patterns)


def json_record(path: Path, largest: int) -> Any:
    """The content of a JSON file. Raises DatasetError where it is damaged."""
    try:
        return structured_text.load_json(path, largest=largest)
    except (ValueError, OSError) as error:
        raise DatasetError(f"cannot be read ({error})", str(path), "Get the file again") from error


def files_of_many(folder: Folder, suffix: str) -> list[FolderMember]:
    """The first files of a suffix that bear the name of no image, so that they are no sidecar of one."""
    stems = {member.stem for member in folder.images}
    return [one for one in folder.members if one.suffix == suffix and one.stem not in stems][:MOST_OPENED]


def read_listed_images(
    entries: Sequence[ListedImage],
    folder: Folder,
    options: DatasetOptions,
    *,
    part: str,
    what: str,
    usual: str,
    words: Callable[[Path], Sequence[str]] = lambda path: (),
) -> Reading:
    """A case for each image that is listed; an image without a box is known to hold nothing.

    part:  the word for a cell of such a file, the layout's name
    what:  the format
    usual: the kind of reference where none is asked for
    words: of folders that may hold the images of a file, the best first
    Raises DatasetError where no image is listed, and for one that is listed twice.
    """
    if not entries:
        raise DatasetError(f"no file of {what} lists an image", str(folder.root), "Name another --layout")
    annotations = [entry.annotation for entry in entries]
    _refuse_unreadable(annotations)
    made = DrawnReferences.for_options(annotations, usual, folder, options)
    images, modality = drawn_boxes.images_by_file_name(folder), modality_words.modality_word(options.modality)
    own = {annotation.path.parent for annotation in annotations}
    rows: dict[Path, CaseRow] = {}
    missing, owners, odd = list[str](), defaultdict[Path, list[ListedImage]](list), dict[str, tuple[str, ...]]()
    for entry in entries:
        path = entry.annotation.path
        near = [path.parent, folder.root, path.parent / "images", folder.root / "images"]
        near += [base / word for base in (near[0], near[1], near[3]) for word in words(path)]
        near = [*(place / entry.within for place in near if entry.within), *near]
        image = drawn_boxes.image_named(
            images, entry.name, near, path, split=entry.split, others=own - {path.parent}, within=entry.within
        )
        if image is None:
            missing.append(entry.name)
            continue
        owners[image.path].append(entry)
        odd |= {image.name: entry.annotation.odd} if entry.annotation.odd else {}
        rows[image.path] = CaseRow(
            image.name,
            {"image": Cell((image.path,), "film" if entry.film else "", modality=modality)},
            made.cells(part, entry.annotation, entry.key),
            split=entry.split or image.split,
            patient=entry.film or None,
        )
    _refuse_twice([entries_of for entries_of in owners.values() if len(entries_of) > 1])
    files = ", ".join(dict.fromkeys(annotation.path.name for annotation in annotations))
    absent = f"{errors.count_phrase(len(missing), 'listed image is', 'listed images are')} not there"
    image_count = errors.count_phrase(len(rows), "image")
    return Reading(
        tuple(rows.values()),
        how=f"{what}: {made.count_in_words(annotations)} on {image_count}, listed in {files}",
        classes=made.classes,
        drawn=made.names,
        modality=modality,
        patients="films, each of which counts as a patient",
        problems=(
            *layout.left_out_problem(missing, absent, "Correct the names, or get the files"),
            *_left_out_of(odd, files),
            *made.notes(annotations),
        ),
    )


def _refuse_unreadable(annotations: Sequence[Annotation]) -> None:
    """Raise DatasetError where no annotation can be read: not one is odd, but the file is of another kind."""
    faults = [(one, fault) for one in annotations for fault in one.odd]
    if faults and not any(one.boxes for one in annotations):
        raise DatasetError(f"no annotation can be read: {faults[0][1]}", str(faults[0][0].path), "Export it anew")


def _refuse_twice(twice: Sequence[Sequence[ListedImage]]) -> None:
    """Raise DatasetError for images that several lists, or tasks of one, describe."""
    if twice:
        each = [entry for entries in twice for entry in entries]
        by = errors.list_phrase(dict.fromkeys(entry.source or entry.annotation.path.name for entry in each))
        names = errors.list_phrase([entries[0].name for entries in twice], MOST_NAMED)
        problem = (
            f"{errors.count_phrase(len(twice), 'image is', 'images are')} listed more than once ({names}), by {by}"
        )
        remedy = "Keep one list of each image and move the others away; give images of one name a folder each"
        raise DatasetError(problem, str(each[-1].annotation.path), remedy)


def _left_out_of(odd: Mapping[str, Sequence[str]], files: str) -> tuple[Problem, ...]:
    """The warning on annotations that cannot be read, by the cases of their images."""
    each = [fault for faults in odd.values() for fault in faults]
    what = f"{errors.count_phrase(len(each), 'annotation')} of {files} cannot be read ({errors.list_phrase(each)})"
    remedy = "Correct them: what they show is background, and nothing to be found"
    return layout.left_out_problem(odd, what, remedy, "warning")

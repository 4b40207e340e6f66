"""Segmentations and structure sets in a folder of DICOM as masks on the grid of the series of their contours."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from hilum import errors
from hilum.errors import FormatError, HilumError
from hilum.files.dicom import header_reading, object_identity, tags
from hilum.files.dicom.reading import dicom_reading, rtstruct_reading, seg_reading
from hilum.files.dicom.reading.seg_reading import SegmentationOrigin
from hilum.files.dicom.reading.series_survey import CONTOURED, SeriesFiles
from hilum.files.dicom.uids import STRUCTURE_SET
from hilum.layouts import layout
from hilum.layouts.cases import class_labels, object_classes, segments
from hilum.layouts.cases.cell_loading import ImageLoader
from hilum.layouts.cases.frame_cases import CONTOURED_FRAMES
from hilum.layouts.layout import DatasetOptions, Labels, Problems
from hilum.values import Cell, Geometry, Image, Problem, grouping


def is_contoured_object(path: Path) -> bool:
    """Whether a file is a DICOM segmentation or structure set, which states contours on an image."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(132)
    return header_reading.looks_like_dicom(start) and header_reading.read_header(path).sop_class in CONTOURED


def instance_of(path: Path) -> str:
    """The SOP Instance UID of a file."""
    return tags.text(header_reading.read_header(path).dataset, "SOPInstanceUID")


def read_contoured_object(
    path: Path,
    grid: Geometry,
    image: Sequence[Path] = (),
    *,
    fill_contours: bool = False,
) -> Image:
    """A segmentation, or the contours of a structure set, on the grid of the image that it was contoured on.

    image:         the files of that image, as far as known: contours on another image are refused
    fill_contours: interpolate contours between the slices on which they lie
    Planes without a frame or contour are background. Raises what `read_segmentation` and `rasterise_regions` raise.
    """
    if header_reading.read_header(path).sop_class == STRUCTURE_SET:
        return rtstruct_reading.rasterise_regions(path, grid, [*map(instance_of, image)], fill_contours=fill_contours)
    return seg_reading.read_segmentation(path, grid)


@dataclass(frozen=True, eq=False)
class ContouredObject:
    """A segmentation or a structure set.

    structures: {name: number} of its structures; None where the object is damaged
    origin:     None of a structure set, and of the only object on its image
    frames:     of the image, on which it lies
    """

    files: SeriesFiles
    structures: Mapping[str, int] | None
    origin: SegmentationOrigin | None = None
    frames: frozenset[int] = frozenset({0})

    @property
    def algorithm(self) -> str:
        """The name of the one that made it alone; empty where that is not known."""
        return "" if self.origin is None else self.origin.algorithm

    def meets(self, other: ContouredObject) -> bool:
        """Whether both state one structure on one frame, or as different algorithms on any."""
        are_readers = "" not in (self.algorithm, other.algorithm) and self.algorithm != other.algorithm
        return not self.names.isdisjoint(other.names) and (are_readers or not self.frames.isdisjoint(other.frames))

    @property
    def names(self) -> frozenset[str]:
        """The names of its structures, to compare."""
        return frozenset(name.casefold() for name in self.structures or ())

    def replaces(self, other: ContouredObject) -> bool:
        """Whether the same algorithm has made the same structures again, later."""
        mine, theirs = self.origin, other.origin
        return self.names == other.names and mine is not None and theirs is not None and mine.replaces(theirs)


# Objects that name different structures, and so make one label map.
ContouredMap = tuple[ContouredObject, ...]


@dataclass(frozen=True, eq=False)
class ContouredMasks:
    """The label maps that were contoured on the series of a folder.

    of:       {files of an image: its label maps, several where objects name the same structures}
    labels:   one numbering for all: that of the files where they agree, else the names in order
    unlike:   files of images with label maps of different structures
    problems: what lies on images that are not here, holds no structure, or was made again later
    """

    of: Mapping[tuple[Path, ...], tuple[ContouredMap, ...]]
    labels: Labels
    unlike: frozenset[tuple[Path, ...]]
    problems: Problems


def survey_contoured_objects(
    everything: Sequence[SeriesFiles], images: Sequence[SeriesFiles], options: DatasetOptions
) -> ContouredMasks:
    """The segmentations and structure sets among the files of a folder, by the series that they were contoured on."""
    by_image, lost = _by_image(everything, images)
    every, latest = dict[tuple[Path, ...], list[ContouredObject]](), dict[tuple[Path, ...], list[ContouredObject]]()
    for image, files in by_image.items():
        every[image] = some = _with_frames(image, [_contoured_object(one, is_single=len(files) == 1) for one in files])
        latest[image] = [one for one in some if not any(other.replaces(one) for other in some)]
    older = [one.files.name for image, some in every.items() for one in some if one not in latest[image]]
    if options.labels is not None:
        labels = tuple(label for label in class_labels.parse_labels(options.labels) if label.value)
    else:
        labels = segments.one_numbering(one.structures or {} for some in latest.values() for one in some)
    chosen = {label.name.casefold() for label in labels}
    empty = [one.files.name for some in latest.values() for one in some if one.structures == {}]
    of = {image: maps for image, some in latest.items() if (maps := _maps(some, chosen))}
    unlike = (image for image, maps in of.items() if len({_names(own) & chosen for own in maps}) > 1)
    return ContouredMasks(of, labels, frozenset(unlike), _left_out(lost, empty, older))


def _left_out(lost: Sequence[str], empty: Sequence[str], older: Sequence[str]) -> Problems:
    """The problems of segmentations without an image, without a structure, and of those made again later."""
    without_image = "to no image series here, or to several images at once"
    of_images = "segmentation refers", "segmentations refer", without_image
    of_nothing = "segmentation holds", "segmentations hold", "neither a segment nor a closed contour"
    of_before = "segmentation was", "segmentations were", "made again later by the same algorithm"
    kept = "To use an older one, take the later one out of the folder"
    return (
        *layout.left_out_problem(lost, of_images, "Put the series they were contoured on into the folder", "warning"),
        *layout.left_out_problem(empty, of_nothing, severity="warning"),
        *layout.left_out_problem(older, of_before, kept, "warning"),
    )


def masks_on(maps: Sequence[ContouredMap]) -> dict[str, Cell]:
    """{kind, of all label maps but the first mask:name: its cell} of one image."""
    kinds = ["mask", *(f"mask:{own[0].files.name}" for own in maps[1:])]
    cells = (Cell(tuple(path for one in own for path in one.files.paths), "contoured") for own in maps)
    return dict(zip(kinds, cells, strict=False))


def load_contoured_masks(
    paths: tuple[Path, ...],
    image: ImageLoader,
    files: tuple[Path, ...],
    labels: Labels,
    *,
    chosen: bool,
    fill_contours: bool,
) -> Image:
    """Segmentations and structure sets as one label map on their image's grid, numbered as in the whole data set.

    paths:   the file of each; several with the same UID and different contents are refused
    files:   those of the image
    chosen:  whether the labels were: what they do not name is then background, else it is refused
    fill_contours: as of `read_contoured_object`
    Raises FormatError where what `labels` names overlaps.
    """
    source, masks = image(), dict[int, Image]()
    grid = source.geometry
    every = map(header_reading.read_header, paths)
    headers = grouping.by_key((tags.text(one.dataset, "SOPInstanceUID"), one) for one in every)
    heads = [object_identity.drop_copies(own, str(own[0].path.parent))[0][0] for own in headers.values()]
    places = {} if any(head.sop_class == STRUCTURE_SET for head in heads) else _frames_of_images(source)
    for head in heads:
        if places:
            parts = _parts_by_frame(head.path, places)
            numbers = [*parts]
            maps = seg_reading.read_groups_of_frames(head.path, grid, parts.values())
        else:
            numbers = [0]
            maps = iter([read_contoured_object(head.path, grid, files, fill_contours=fill_contours)])
        for number, contoured in zip(numbers, maps, strict=True):
            if not chosen:
                segments.refuse_unnamed(contoured, labels, head.path)
            masks[number] = segments.number_by_name(contoured, labels, head.path, masks.get(number))
    if not masks:
        raise FormatError("nothing is contoured on the image", str(files[0]), "Give a segmentation of it")
    first = next(iter(masks.values()))
    if not places:
        return first
    pixels = np.zeros((1, source.frames or 0, *grid.shape), first.dtype)
    for number, mask in masks.items():
        pixels[:, number] = mask.data
    return replace(first, pixels=pixels, facts={**first.facts, CONTOURED_FRAMES: tuple(sorted(masks))})


# What a segment of a single object is called after its class: "cell 12", "cell_12", "cell #12"; "CD4" is a class.
OBJECT_NUMBER = re.compile(r"[\s_#-]+\d+$")


def class_of_segment(name: str) -> str:
    """The class of a segment that is a single object: its name without the number at the end."""
    return OBJECT_NUMBER.sub("", name)


def objects_on(maps: Sequence[ContouredMap]) -> dict[str, Cell]:
    """{"instances": the cell of the first label map of an image}, whose segments are objects."""
    return {object_classes.OBJECT_MAPS: masks_on(maps)["mask"]}


def load_single_objects(
    paths: tuple[Path, ...], image: ImageLoader, files: tuple[Path, ...], called: Mapping[str, str]
) -> Image:
    """The segments of segmentations as numbered objects, with their classes; voxels of several are the first one's.

    called: {class as the segments' names state it: its name}
    Raises FormatError for a clip, and what `read_contoured_object` raises.
    """
    source = image()
    if source.frames is not None:
        raise FormatError("segments of single objects are read of still images", str(files[0]), "Give single frames")
    numbers, kinds, shared = np.zeros(source.geometry.shape, np.uint16), list[str](), 0
    for path in paths:
        segments_read = read_contoured_object(path, source.geometry, files)
        for place, label in enumerate(segments_read.labels):
            own = segments_read.data[place] > 0 if len(segments_read.data) > 1 else segments_read.data[0] == label.value
            kinds.append(class_of_segment(label.name))
            shared += int(np.count_nonzero(numbers[own]))
            numbers[own & (numbers == 0)] = len(kinds)
    notes = [f"segments overlap in {errors.count_phrase(shared, 'voxel')}, which are those of the first"]
    made = replace(source.with_label_map(numbers, ()), notes=tuple(notes) if shared else ())
    return object_classes.with_kinds(made, {n: called.get(kind, kind) for n, kind in enumerate(kinds, start=1) if kind})


def _frames_of_images(source: Image) -> dict[tuple[str, int | None], set[int]]:
    """{(SOP Instance UID, its frame or None): frames of the image}; nothing of a still image."""
    header: Mapping[str, Any] = (source.source.header if source.source else None) or {}
    if source.frames is None or "slices" not in header:
        return {}
    places, uids = defaultdict[tuple[str, int | None], set[int]](set), dict[str, str]()
    for number, stack in enumerate(header.get("volumes") or [[one] for one in header["slices"]]):
        for path, frame, _ in filter(None, stack):
            uid = uids[path] = uids.get(path) or instance_of(Path(path))
            places[uid, frame].add(number)
            places[uid, None].add(number)
    return places


def _parts_by_frame(path: Path, places: Mapping[tuple[str, int | None], set[int]]) -> dict[int, list[int]]:
    """{frame of the image: frames of the segmentation that lie on it}, by the instances that they name."""
    parts = defaultdict[int, list[int]](list)
    for part, named in enumerate(seg_reading.images_of_frames(path)):
        numbers = set[int]().union(*(places.get(one, ()) for one in named))
        if len(numbers) != 1:
            problem = f"frame {part + 1} names images of {len(numbers) or 'no'} frames of the series"
            raise FormatError(problem, str(path), "Export it with the image that each of its frames lies on")
        parts[numbers.pop()].append(part)
    return parts


def _with_frames(paths: tuple[Path, ...], some: list[ContouredObject]) -> list[ContouredObject]:
    """The objects on one image with the frames of it that they name, where several name the same structures."""
    if not any(one.meets(other) for one, other in combinations(some, 2)):
        return some
    with suppress(HilumError, ValueError):  # where the image or one of them is read says what is wrong
        [source] = dicom_reading.read_series(paths).values()
        if places := _frames_of_images(source):
            return [replace(one, frames=frozenset(_parts_by_frame(one.files.paths[0], places))) for one in some]
    return some


def _maps(objects: Sequence[ContouredObject], chosen: Collection[str]) -> tuple[ContouredMap, ...]:
    """The objects on one image by label map: objects that name the same structures are maps of several readers.

    An object joins the first map that lacks its structures on its frames, if possible one with an object of its own
    series; one that is damaged does, too, so that reading the map refuses it. Objects without a chosen
    structure are left out; where no object has one, the map is empty.
    """
    maps: list[list[ContouredObject]] = []
    full = [one for one in objects if one.structures != {}]
    for one in [one for one in full if one.structures is None or not one.names.isdisjoint(chosen)] or full:
        free = [own for own in maps if not any(one.meets(other) for other in own)]
        of_series = [own for own in free if one.files.uid in {other.files.uid for other in own}]
        if free:
            (of_series or free)[0].append(one)
        else:
            maps.append([one])
    return tuple(map(tuple, maps))


def _names(objects: Sequence[ContouredObject]) -> frozenset[str]:
    return frozenset().union(*(one.names for one in objects))


def unlike_map_warning(cases: Sequence[str]) -> Problems:
    """The warning that the label maps of these cases name different structures."""
    if not cases:
        return ()
    cases_in_words = errors.count_phrase(len(cases), "case has", "cases have")
    what = f"{cases_in_words} segmentations that share some structures and not others"
    why = "each is a mask by a reader of its own, in which the structures of the others are background"
    remedy = "Keep the files that are meant, or choose structures by --labels 1=NAME,2=NAME"
    return (Problem("warning", what, tuple(cases), why, remedy),)


def _by_image(
    everything: Sequence[SeriesFiles], images: Sequence[SeriesFiles]
) -> tuple[dict[tuple[Path, ...], list[SeriesFiles]], list[str]]:
    """{files of an image: what was contoured on it}, and the names of what was contoured on images that are not here.

    A segmentation that names no series belongs to the one series with its frame of reference. Of the radiographs of a
    series it belongs to the one whose instance it names.
    """
    contoured: dict[tuple[Path, ...], list[SeriesFiles]] = defaultdict(list)
    lost = []
    for one in everything:
        if one.sop_class not in CONTOURED:
            continue
        owners = [image for image in images if image.uid in one.references]
        if not owners and not one.references and one.frame_of_reference:
            owners = [image for image in images if image.frame_of_reference == one.frame_of_reference]
        if len(owners) > 1 and one.sop_class != STRUCTURE_SET:
            named = seg_reading.segmentation_origin(one.paths[0]).instances
            owners = [image for image in owners if any(image.instances.get(uid) in image.paths for uid in named)]
        if len(owners) == 1:
            contoured[owners[0].paths].append(one)
        else:
            lost.append(one.name)
    return contoured, lost


def _contoured_object(files: SeriesFiles, *, is_single: bool) -> ContouredObject:
    """is_single: whether nothing else was contoured on its image."""
    skips = is_single or files.sop_class == STRUCTURE_SET
    return ContouredObject(
        files, _structures(files), None if skips else seg_reading.segmentation_origin(files.paths[0])
    )


def _structures(files: SeriesFiles) -> dict[str, int] | None:
    """{name: number} of the structures in an object, as reading it names them; None where reading refuses it."""
    read = rtstruct_reading.regions_of if files.sop_class == STRUCTURE_SET else seg_reading.stated_segments
    try:
        labels = read(files.paths[0])
    except HilumError:
        return None
    return {label.name: label.value for label in labels}

"""DICOM segmentations, PS3.3 A.51 and C.8.20, as label maps: binary, fractional and label map kinds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import FormatError, GeometryError
from hilum.files.dicom import header_reading, seg_planes, slice_geometry, tags
from hilum.files.dicom.elements import DicomDataset
from hilum.files.dicom.reading import colour_spaces, pixel_decoding, pixel_layout
from hilum.files.dicom.seg_planes import Placement
from hilum.files.dicom.slice_geometry import Plane
from hilum.files.dicom.uids import LABEL_MAP, SEGMENTATION
from hilum.files.storage import packed_files
from hilum.values import Code, Geometry, Image, Label, Source
from hilum.values.voxel_images import WITHOUT_VOXELS, FileFacts

SOP_CLASSES = (SEGMENTATION, LABEL_MAP)
BACKGROUND = ("DCM", "125040")  # PS3.16 annex D

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Part:
    """One frame: its number, where it goes, and which value its voxels get (a label map's frame brings its own)."""

    number: int
    placement: Placement
    segment: int | None


@dataclass(frozen=True)
class _Levels:
    """The meaning of the stored values of fractional segments.

    highest: {segment: the highest value in it}
    maximum: the value of a whole voxel; None where none is stated and 0 and one other value say whether a voxel is in
    """

    highest: Mapping[int | None, int]
    maximum: float | None

    @property
    def half(self) -> float:
        """The stored value from which on a pixel belongs to the segment."""
        return 1 if self.maximum is None else self.maximum / 2

    def below_half(self, segment: int) -> str:
        """Why a segment that the file states has no voxel."""
        return f"none reaches one half: the highest value is {self.highest[segment]} of {self.maximum:g}"


def read_segmentation(path: Path | str, on: Geometry | None = None) -> Image:
    """The label map of a DICOM SEG on its own grid, or on the grid `on` of its source image.

    Values are segment numbers, or new ones where a segment has the number 0, with a note. Where segments overlap there
    is one channel a segment, named by it. Planes without a frame are background; fractional segments count from one
    half of the maximum on, which a note then states; where no maximum is stated and they hold one value, they are
    binary. Segments of which no voxel reaches that are named in the facts, under `WITHOUT_VOXELS`; segments that no
    frame shows in the notes.
    Raises FormatError for what is no segmentation that can be read, GeometryError where its planes lie on no regular
    grid or do not coincide with those of `on` within .05 of a pixel.
    """
    where = str(path)
    dataset = _dataset(Path(path), where)
    described = _labels(dataset, where)
    grid, parts = _placed_frames(dataset, on, where)
    return _label_map(dataset, described, grid, parts, where)


def read_groups_of_frames(path: Path, on: Geometry, groups: Iterable[Collection[int]]) -> Iterator[Image]:
    """The label map of each of these groups of frames of a DICOM SEG, as `read_segmentation` makes it of all.

    The file is read once, and one label map is made at a time.
    """
    where = str(path)
    dataset = _dataset(path, where)
    described = _labels(dataset, where)
    grid, parts = _placed_frames(dataset, on, where)
    for frames in groups:
        yield _label_map(dataset, described, grid, [parts[number] for number in sorted(frames)], where)


def _placed_frames(dataset: DicomDataset, on: Geometry | None, where: str) -> tuple[Geometry, list[_Part]]:
    """The grid of a label map, and all frames with their places on it."""
    planes = _planes(dataset, where)
    grid = on or _own_grid(dataset, planes, where)
    _check_frame_of_reference(dataset, grid, where)
    return grid, _parts(dataset, planes, grid, where)


def _label_map(
    dataset: DicomDataset, described: dict[int, Label], grid: Geometry, parts: list[_Part], where: str
) -> Image:
    """The label map that these frames make; described: {stored number: label}."""
    labels = tuple(described.values())
    levels = _levels(dataset, parts, where)
    pixels, overlapping, shown = _fill_map(dataset, parts, grid, described, levels, where)
    absent = {stored: label.name for stored, label in described.items() if label.value not in shown}
    low = {name: levels.below_half(stored) for stored, name in absent.items() if levels and levels.highest.get(stored)}
    unseen = [f"segment {name} is described, and no frame shows it" for name in absent.values() if name not in low]
    return Image(
        pixels,
        grid,
        modality="SEG",
        channels=tuple(label.name for label in labels) if overlapping else ("segments",),
        labels=labels,
        notes=(*_notes(dataset, overlapping, levels, renumbered=0 in described), *unseen),
        facts={**_facts(dataset), "overlapping": overlapping, WITHOUT_VOXELS: low},
        source=Source("dicom", (where,)),
    )


@dataclass(frozen=True)
class SegmentationOrigin:
    """The origin of a segmentation.

    instances: SOP Instance UIDs of the images that it marks
    algorithm: the name of the one that made all of it alone; empty where a person had a share in it
    at:        s, of its content; only differences mean something
    """

    instances: frozenset[str]
    algorithm: str = ""
    at: float | None = None

    def replaces(self, other: SegmentationOrigin) -> bool:
        """Whether the same algorithm has marked the same images again, later."""
        if not self.algorithm or self.algorithm != other.algorithm or self.at is None or other.at is None:
            return False
        return self.at > other.at and not self.instances.isdisjoint(other.instances)


def segmentation_origin(path: Path) -> SegmentationOrigin:
    """The origin of a segmentation, from the header alone. PS3.3 C.8.20.2 and C.8.20.4"""
    dataset = header_reading.read_header(path).dataset
    groups = [g for k in ("Shared", "PerFrame") for g in tags.items(dataset, f"{k}FunctionalGroupsSequence")]
    derived = [one for group in groups for one in tags.items(group, "DerivationImageSequence")]
    series = tags.items(dataset, "ReferencedSeriesSequence")
    # Frames name their own images; of others an object may name all of a series.
    named = [image for one in derived for image in tags.items(one, "SourceImageSequence")]
    named = named or [image for one in series for image in tags.items(one, "ReferencedInstanceSequence")]
    segments = tags.items(dataset, "SegmentSequence")
    names = {(tags.text(one, "SegmentAlgorithmType"), tags.text(one, "SegmentAlgorithmName")) for one in segments}
    kind, name = names.pop() if len(names) == 1 else ("", "")
    return SegmentationOrigin(
        frozenset(tags.text(one, "ReferencedSOPInstanceUID") for one in named) - {""},
        name if kind == "AUTOMATIC" else "",
        tags.time_in_seconds(tags.text(dataset, "ContentDate") + tags.text(dataset, "ContentTime")),
    )


def images_of_frames(path: Path) -> list[frozenset[tuple[str, int | None]]]:
    """The images that each frame of a segmentation names, else those of all: (SOP Instance UID, frame from 0 or None).

    PS3.3 C.7.6.16.2.6 and C.12.2
    """
    head = header_reading.read_header(path)
    series = tags.items(head.dataset, "ReferencedSeriesSequence")
    of_all = [image for one in series for image in tags.items(one, "ReferencedInstanceSequence")]
    named = []
    for n in range(header_reading.frame_count(head)):
        derivation = _groups(head.dataset, n, "DerivationImageSequence")
        images = (tags.items(derivation, "SourceImageSequence") if derivation is not None else []) or of_all
        named.append(
            frozenset(
                (tags.text(one, "ReferencedSOPInstanceUID"), number) for one in images for number in _frames_of(one)
            )
        )
    return named


def _frames_of(image: DicomDataset) -> list[int | None]:
    """The frames from 0 of an image that an item refers to; None for all."""
    numbers_of_frames = tags.numbers(image, "ReferencedFrameNumber", "")
    return [int(one) - 1 for one in numbers_of_frames] if numbers_of_frames else [None]


def stated_segments(path: Path) -> tuple[Label, ...]:
    """The segments as `read_segmentation` numbers and names them, from the header alone."""
    return tuple(_labels(header_reading.read_header(path).dataset, str(path)).values())


def _dataset(path: Path, where: str) -> DicomDataset:
    """The object with its pixels, once its header has shown that they can be there."""
    head = header_reading.read_header(path)
    if head.sop_class not in SOP_CLASSES:
        raise FormatError("is not a DICOM segmentation", where, "Give a SEG object")
    organised = tags.text(head.dataset, "DimensionOrganizationType")
    if organised.startswith("TILED") or "TotalPixelMatrixRows" in head.dataset:
        raise FormatError("segments tiles of a slide", where, "Convert it to a label map of the whole slide")
    header_reading.check_pixels(head)
    frames = header_reading.frame_count(head)
    described = len(tags.items(head.dataset, "PerFrameFunctionalGroupsSequence"))
    if frames > max(described, 1):  # PS3.3 C.7.6.16: an item for each frame; one alone may be described for all
        raise FormatError(f"claims {frames} frames and describes {described}", where, "Get the file again")
    return header_reading.read_object(path)


def _labels(dataset: DicomDataset, where: str) -> dict[int, Label]:
    """{stored number: label} of the described segments in order of their numbers, without the background.

    Labels are numbered as the segments, or anew where one has the number 0, which is always background here.
    """
    background = _background(dataset, where)
    described, labels = list[int](), list[Label]()
    for segment in tags.items(dataset, "SegmentSequence"):
        value = tags.whole_number(segment, "SegmentNumber", where)
        if value is None:
            raise FormatError("has a segment without a number", where, "Get the file again")
        described.append(value)
        code = _code(tags.first_item(segment, "SegmentedPropertyTypeCodeSequence"))
        is_coded = code is not None and (code.scheme, code.value) == BACKGROUND
        if value != background and not (value == 0 and is_coded):
            name = tags.text(segment, "SegmentLabel") or (code.meaning if code else str(value))
            labels.append(Label(value, name, _colour(segment, where), code))
    if not described or len(set(described)) < len(described) or min(described) < 0:
        raise FormatError(f"segments are numbered {described}", where, "Get the file again")
    labels.sort(key=lambda label: label.value)
    stored = [label.value for label in labels]
    if 0 in stored:
        labels = [replace(label, value=n) for n, label in enumerate(labels, start=1)]
    return dict(zip(stored, unique_label_names(labels), strict=True))


def _background(dataset: DicomDataset, where: str) -> int | None:
    """The number of a label map that is no segment, PS3.3 C.8.20.2; None for other kinds, whose frames name theirs."""
    return (tags.whole_number(dataset, "PixelPaddingValue", where) or 0) if _is_label_map(dataset) else None


def unique_label_names(labels: Sequence[Label]) -> tuple[Label, ...]:
    """The labels with different names: those that share one, but for upper case, get their number behind it."""
    times = Counter(label.name.casefold() for label in labels)
    taken = {name for name, count in times.items() if count == 1}
    named = []
    for label in labels:
        name = label.name
        while times[label.name.casefold()] > 1 and (name == label.name or name.casefold() in taken):
            name = f"{name} {label.value}"
        taken.add(name.casefold())
        named.append(replace(label, name=name))
    return tuple(named)


def _code(concept: DicomDataset | None) -> Code | None:
    if concept is None:
        return None
    value = tags.text(concept, "CodeValue") or tags.text(concept, "LongCodeValue") or tags.text(concept, "URNCodeValue")
    return (
        Code(tags.text(concept, "CodingSchemeDesignator"), value, tags.text(concept, "CodeMeaning")) if value else None
    )


def _colour(segment: DicomDataset, where: str) -> tuple[int, int, int] | None:
    """Recommended Display CIELab Value, PS3.3 C.10.7.1.1, as sRGB."""
    lab = tags.numbers(segment, "RecommendedDisplayCIELabValue", where, count=3)
    if lab is None or not all(0 <= n <= 0xFFFF for n in lab):
        return None
    return colour_spaces.rgb_of_cielab(lab)


def _groups(dataset: DicomDataset, frame: int, sequence: str) -> DicomDataset | None:
    """A functional group of a frame, PS3.3 C.7.6.16: its own, else the shared one."""
    groups = (tags.first_item(group, sequence) for group in tags.frame_groups(dataset, frame))
    return next((group for group in groups if group is not None), None)


def _shape(dataset: DicomDataset, where: str) -> tuple[int, int, int]:
    """(frames, rows, columns)"""
    layout = pixel_layout.layout_from_header(dataset, where)
    return layout.frames, layout.rows, layout.columns


def _own_grid(dataset: DicomDataset, planes: list[Plane] | None, where: str) -> Geometry:
    _, rows, columns = _shape(dataset, where)
    if planes is None:
        return Geometry.of_pixels((rows, columns))
    return seg_planes.grid_of_frames(planes, rows, columns, _depth(dataset, where), _frame_of_reference(dataset), where)


def _planes(dataset: DicomDataset, where: str) -> list[Plane] | None:
    """The place of each frame; None for a segmentation of a picture without position, such as a radiograph."""
    frames = _shape(dataset, where)[0]
    groups = [
        [_groups(dataset, n, name) for name in ("PlanePositionSequence", "PlaneOrientationSequence")]
        for n in range(frames)
    ]
    if all(position is None and orientation is None for position, orientation in groups):
        return None
    planes = []
    for n, (position, orientation) in enumerate(groups):
        measures = _groups(dataset, n, "PixelMeasuresSequence")
        origin = position and tags.numbers(position, "ImagePositionPatient", where, count=3)
        axes = orientation and tags.numbers(orientation, "ImageOrientationPatient", where, count=6)
        spacing = measures and tags.numbers(measures, "PixelSpacing", where, count=2)
        if not origin or not axes or not spacing:
            raise GeometryError(f"frame {n + 1} has no position", where, "Get the file again from its source")
        digits = tags.last_digits(position, "ImagePositionPatient") if position else ()
        planes.append(slice_geometry.check_plane(origin, axes, spacing, where, digits))
    return planes


def _depth(dataset: DicomDataset, where: str) -> tuple[float | None, float | None]:
    """(spacing between slices, slice thickness) as stated for the first frame."""
    measures = _groups(dataset, 0, "PixelMeasuresSequence")
    if measures is None:
        return None, None
    return tags.single_number(measures, "SpacingBetweenSlices", where), tags.single_number(
        measures, "SliceThickness", where
    )


def _frame_of_reference(dataset: DicomDataset) -> str | None:
    return tags.text(dataset, "FrameOfReferenceUID") or None


def _check_frame_of_reference(dataset: DicomDataset, grid: Geometry, where: str) -> None:
    frame_of_reference = _frame_of_reference(dataset)
    if frame_of_reference and grid.frame_of_reference and frame_of_reference != grid.frame_of_reference:
        raise GeometryError(
            "lies in another frame of reference than the image", where, "Give the image that it was contoured on"
        )


def _parts(dataset: DicomDataset, planes: list[Plane] | None, grid: Geometry, where: str) -> list[_Part]:
    frames, rows, columns = _shape(dataset, where)
    places = [
        seg_planes.place_frame(plane, rows, columns, grid, f"{where}, frame {n + 1}")
        for n, plane in enumerate(planes or [None] * frames)
    ]
    return [_Part(n, place, _segment(dataset, n, where)) for n, place in enumerate(places)]


def _frames_with_values(
    dataset: DicomDataset, parts: Sequence[_Part], where: str
) -> Iterator[tuple[_Part, NDArray[Any]]]:
    """The frames with their stored values."""
    return zip(
        parts, pixel_decoding.iterate_frames(dataset, where, [part.number for part in parts], indices=True), strict=True
    )


def _is_label_map(dataset: DicomDataset) -> bool:
    return tags.text(dataset, "SOPClassUID") == LABEL_MAP or tags.text(dataset, "SegmentationType") == "LABELMAP"


def _segment(dataset: DicomDataset, frame: int, where: str) -> int | None:
    """The segment that a frame belongs to; None for a label map, whose values are segments."""
    if _is_label_map(dataset):
        return None
    identification = _groups(dataset, frame, "SegmentIdentificationSequence")
    segment = None if identification is None else tags.whole_number(identification, "ReferencedSegmentNumber", where)
    if segment is None:
        raise FormatError(f"frame {frame + 1} names no segment", where, "Get the file again")
    return segment


def _levels(dataset: DicomDataset, parts: list[_Part], where: str) -> _Levels | None:
    """The meaning of fractional values, found from all of them; None for other kinds of segments.

    Raises FormatError for a value above the stated maximum, and for several values without one.
    """
    if tags.text(dataset, "SegmentationType") != "FRACTIONAL":
        return None
    values, highest = set[int](), defaultdict[int | None, int](int)
    for part, frame in _frames_with_values(dataset, parts, where):
        present = np.flatnonzero(np.bincount(frame.ravel().astype(np.int64))).tolist()
        values |= {*present} - {0}
        highest[part.segment] = max(highest[part.segment], *present)
    maximum = tags.single_number(dataset, "MaximumFractionalValue", where)
    if maximum is None or maximum <= 0:
        if len(values) > 1:
            listed_values = errors.list_phrase(sorted(values))
            problem = f"is fractional, holds {listed_values} and states no MaximumFractionalValue (0062,000E)"
            remedy = "Export it with the value of a whole voxel, or as BINARY: the values may be bits or shares"
            raise FormatError(problem, where, remedy)
        return _Levels(highest, None)
    if max(values, default=0) > maximum:
        problem = f"is fractional and holds {max(values)}, above its MaximumFractionalValue (0062,000E) of {maximum:g}"
        raise FormatError(problem, where, "Correct the maximum, or export it as BINARY")
    return _Levels(highest, maximum)


def _fill_map(
    dataset: DicomDataset,
    parts: list[_Part],
    grid: Geometry,
    described: dict[int, Label],
    levels: _Levels | None,
    where: str,
) -> tuple[NDArray[Any], bool, set[int]]:
    """((channels, *spatial) numbers of labels, whether segments overlap, the numbers that a voxel has).

    described: {stored number: label}
    """
    dtype = np.uint8 if max((label.value for label in described.values()), default=0) < 256 else np.uint16
    _refuse_empty(prod(grid.shape) * np.dtype(dtype).itemsize, where)
    single, shown = np.zeros(grid.shape, dtype), set[int]()
    for index, values in _voxels(dataset, parts, described, levels, where):
        labels_there = single[index]
        if ((labels_there != 0) & (labels_there != values)).any():
            return _channels(dataset, parts, grid, described, levels, dtype, where)
        single[index] = values
        shown |= {*np.flatnonzero(np.bincount(values)).tolist()}
    return single[None], False, shown


def _refuse_empty(needed: int, where: str) -> None:
    """Refuse a grid of far more voxels than the frames can cover: two stray planes ask for all between them."""
    packed_files.refuse_expansion(Path(where).stat().st_size, needed, where)


def _channels(
    dataset: DicomDataset,
    parts: list[_Part],
    grid: Geometry,
    described: dict[int, Label],
    levels: _Levels | None,
    dtype: Any,
    where: str,
) -> tuple[NDArray[Any], bool, set[int]]:
    _refuse_empty(len(described) * prod(grid.shape) * np.dtype(dtype).itemsize, where)
    pixels = np.zeros((len(described), *grid.shape), dtype)
    row = {label.value: n for n, label in enumerate(described.values())}
    for index, values in _voxels(dataset, parts, described, levels, where):
        for value in np.unique(values).tolist():  # a frame of a label map shows several
            pixels[row[value]][tuple(axis[values == value] for axis in index)] = value
    return pixels, True, {value for value, n in row.items() if pixels[n].any()}


def _voxels(
    dataset: DicomDataset, parts: list[_Part], described: dict[int, Label], levels: _Levels | None, where: str
) -> Iterator[tuple[tuple[NDArray[np.int64], ...], NDArray[Any]]]:
    """Frame by frame the index of each voxel that is no background, and the number of its label."""
    half, background = 1 if levels is None else levels.half, _background(dataset, where)
    numbers, values = np.array(list(described)), np.array([label.value for label in described.values()])
    for part, frame in _frames_with_values(dataset, parts, where):
        n = part.number
        if part.segment is None:
            marked = frame != background if 0 in described else (frame != background) & (frame != 0)
        else:
            marked = frame >= half
        rows, columns = np.nonzero(marked)
        if not len(rows):
            continue
        stored = frame[rows, columns] if part.segment is None else np.full(len(rows), part.segment)
        unknown = set(np.unique(stored).tolist()) - described.keys()
        if unknown:
            raise FormatError(f"frame {n + 1} has undescribed segments {sorted(unknown)}", where, "Get the file again")
        yield part.placement.index(rows, columns, f"{where}, frame {n + 1}"), values[np.searchsorted(numbers, stored)]


def _notes(dataset: DicomDataset, overlapping: bool, levels: _Levels | None, *, renumbered: bool) -> tuple[str, ...]:
    notes = ["segments overlap: one channel a segment"] if overlapping else []
    if renumbered:
        notes.append("segments were numbered anew: one has the number 0")
    if levels is not None and levels.maximum is None:
        notes.append("fractional without a maximum, and of two values: a voxel belongs to a segment where it is not 0")
    elif levels is not None and levels.maximum is not None:
        kind = tags.text(dataset, "SegmentationFractionalType").lower() or "fraction"
        notes.append(f"a voxel belongs to a segment from a {kind} of one half on")
        if levels.half <= (most := max(levels.highest.values(), default=0)) < levels.maximum:
            notes.append(f"no voxel lies wholly in a segment: the highest value is {most} of {levels.maximum:g}")
    return tuple(notes)


def _facts(dataset: DicomDataset) -> FileFacts:
    """The images that it was contoured on, so that they can be found."""
    series = tags.items(dataset, "ReferencedSeriesSequence")
    instances = [i for s in series for i in tags.items(s, "ReferencedInstanceSequence")]
    return {
        "kind": tags.text(dataset, "SegmentationType").lower(),
        "source_series": tuple(tags.text(s, "SeriesInstanceUID") for s in series),
        "source_instances": tuple(tags.text(i, "ReferencedSOPInstanceUID") for i in instances),
        "maker": tags.text(dataset, "Manufacturer"),
        "algorithms": sorted(
            {tags.text(one, "SegmentAlgorithmName") for one in tags.items(dataset, "SegmentSequence")} - {""}
        ),
    }

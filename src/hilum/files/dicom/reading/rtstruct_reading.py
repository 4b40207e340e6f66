"""RT Structure Sets, PS3.3 A.19 and C.8.8.6, as label maps on the grid of their image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import FormatError, GeometryError
from hilum.files import polygon
from hilum.files.dicom import header_reading, tags
from hilum.files.dicom.elements import DicomDataset
from hilum.files.dicom.reading import seg_reading
from hilum.files.dicom.slice_geometry import LPS_TO_RAS
from hilum.files.dicom.uids import STRUCTURE_SET
from hilum.files.polygon import DECIMALS, Mask
from hilum.lazy import ndimage
from hilum.values import Code, Floats, Geometry, Image, Label, Source
from hilum.values.voxel_images import WITHOUT_VOXELS

XOR = "CLOSEDPLANAR_XOR"
CLOSED = ("CLOSED_PLANAR", XOR)

# Contours are written with few decimals; a tenth of a slice step is rounding, more is another plane.
PLANE_TOLERANCE = 0.1
# A channel each takes the memory of the image: more overlapping regions than anybody contours are refused.
MOST_CHANNELS = 1000
# Of the usual step between a region's slices, how wide a gap may be that interpolation fills: a slice that was passed
# over, and no two pieces of a structure.
WIDEST_GAP = 2

FEWEST_POINTS = 3  # some programs write contours of one or two, where a region only touches a slice


@dataclass(frozen=True)
class ReferencedImages:
    """The images that a structure set was contoured on, by their UIDs."""

    frames_of_reference: frozenset[str]
    series: frozenset[str]
    instances: frozenset[str]


@dataclass(frozen=True, eq=False)
class _Region:
    """One region of interest.

    contours: the closed ones in RAS+ mm, (points, 3) each
    is_xor:   whether it consists of the points that an odd number of its contours holds
    """

    label: Label
    contours: tuple[Floats, ...]
    is_xor: bool


class _RegionSlices(NamedTuple):
    """One region on its grid: {slice: (columns, rows)}, and notes on its contours."""

    slices: dict[int, Mask]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Filled:
    """Regions on their grid.

    pixels:      (channels, *spatial) ROI numbers
    overlapping: whether regions overlap
    empty:       {region that holds the centre of no voxel: why}
    """

    pixels: NDArray[Any]
    overlapping: bool
    notes: tuple[str, ...]
    empty: dict[str, str]


def referenced_images(path: Path | str) -> ReferencedImages:
    """The images that a structure set belongs to."""
    dataset = _dataset(path)
    frames_of_reference, all_series = set[str](), set[str]()
    for frame in tags.items(dataset, "ReferencedFrameOfReferenceSequence"):
        frames_of_reference.add(tags.text(frame, "FrameOfReferenceUID"))
        for study in tags.items(frame, "RTReferencedStudySequence"):
            for series in tags.items(study, "RTReferencedSeriesSequence"):
                all_series.add(tags.text(series, "SeriesInstanceUID"))
    for region in tags.items(dataset, "StructureSetROISequence"):
        frames_of_reference.add(tags.text(region, "ReferencedFrameOfReferenceUID"))
    instances = {
        tags.text(image, "ReferencedSOPInstanceUID")
        for region in tags.items(dataset, "ROIContourSequence")
        for contour in tags.items(region, "ContourSequence")
        for image in tags.items(contour, "ContourImageSequence")
    }
    uid_sets = [frozenset(uids - {""}) for uids in (frames_of_reference, all_series, instances)]
    return ReferencedImages(*uid_sets)


def regions_of(path: Path) -> tuple[Label, ...]:
    """The regions as `rasterise_regions` numbers and names them; none where no contour is closed."""
    return _regions(_dataset(path), str(path))[0]


def rasterise_regions(
    path: Path | str, on: Geometry, instances: Collection[str] = (), *, fill_contours: bool = False
) -> Image:
    """The regions as a label map on the grid of their image: a voxel belongs to a region when its centre does.

    instances:     SOP Instance UIDs of that image, as far as known; contours that refer to others are refused
    fill_contours: interpolate each region on the slices between its contoured ones, with a note
    Values are ROI numbers. Of one region on one slice a contour inside another is a hole, as a keyhole is; contours
    that are equal or overlap in part are united, with a note. CLOSEDPLANAR_XOR is exclusive or. PS3.3 C.8.8.6.3
    A region that holds the centre of no voxel is named in the facts, under `WITHOUT_VOXELS`.
    Where regions overlap there is one channel a region.
    Raises GeometryError for another frame of reference or image, and for contours off the slice planes.
    """
    where = str(path)
    dataset = _dataset(path)
    if on.ndim != 3 or not on.physical or not on.oriented:
        raise GeometryError(
            "contours in mm need an image with positions", where, "Give the image they were contoured on"
        )
    notes = _check_image(referenced_images(path), on, set(instances), where)
    labels, contours, passed = _regions(dataset, where)
    if not labels:
        raise FormatError("holds no closed contour", where, "Leave this file out")
    regions, thin = list[_Region](), list[str]()
    for label, closed in zip(labels, contours, strict=True):
        every = [_points(one, label.name, where) for one in closed]
        wide = tuple(points for points in every if len(points) >= FEWEST_POINTS)
        if len(wide) < len(every):
            which = errors.count_phrase(len(every) - len(wide), "contour")
            thin.append(f"{which} of {label.name} with fewer than {FEWEST_POINTS} points bound nothing")
        is_xor = any(tags.text(contour, "ContourGeometricType") == XOR for contour in closed)
        regions.append(_Region(label, wide, is_xor))
    filled = _fill_regions(regions, on, where, fill_contours=fill_contours)
    return Image(
        filled.pixels,
        on,
        modality="RTSTRUCT",
        channels=tuple(label.name for label in labels) if filled.overlapping else ("regions",),
        labels=labels,
        notes=(
            *notes,
            *passed,
            *thin,
            *filled.notes,
            *(["regions overlap: one channel a region"] if filled.overlapping else []),
        ),
        facts={"overlapping": filled.overlapping, WITHOUT_VOXELS: filled.empty},
        source=Source("dicom", (where,)),
    )


def _dataset(path: Path | str) -> DicomDataset:
    head = header_reading.read_header(Path(path))
    if head.sop_class != STRUCTURE_SET:
        raise FormatError("is not an RT structure set", str(path), "Give an RTSTRUCT object")
    return head.dataset


def _check_image(named: ReferencedImages, on: Geometry, instances: set[str], where: str) -> tuple[str, ...]:
    """Notes on what is odd. Raises GeometryError unless the structure set was contoured on this image."""
    strangers = named.instances - instances if instances else set()
    if strangers:
        raise GeometryError(
            f"refers to {len(strangers)} of {len(named.instances)} images that are not in the series, such as "
            f"{min(strangers)}",
            where,
            "Give the whole series that it was contoured on",
        )
    same = (
        not on.frame_of_reference or not named.frames_of_reference or on.frame_of_reference in named.frames_of_reference
    )
    if same:
        return ()
    if instances and named.instances:
        return ("states a frame of reference of its own, but names the image's files",)
    raise GeometryError(
        "lies in another frame of reference than the image", where, "Give the image that it was contoured on"
    )


def _regions(dataset: DicomDataset, where: str) -> tuple[tuple[Label, ...], list[list[DicomDataset]], tuple[str, ...]]:
    """Regions with closed contours in order of their numbers, these contours of each, and notes on what is odd."""
    codes = _codes(dataset, where)
    regions, notes = list[tuple[Label, list[DicomDataset]]](), list[str]()
    of_regions, shared = _contours(dataset, where)
    for number, described, contours in of_regions:
        name = tags.text(described, "ROIName") or str(number)
        closed = [contour for one in contours for contour in _closed_contours(one)]
        if not closed:
            notes.append(f"region {name} has no closed contour")
            continue
        code = None if number in shared else codes.get(number)
        regions.append((Label(number, name, _colour(contours[0], where), code), closed))
    regions.sort(key=lambda region: region[0].value)
    labels = [label for label, _ in regions]
    values = [label.value for label in labels]
    if values and (len(set(values)) < len(values) or values[0] < 1 or values[-1] > np.iinfo(np.uint16).max):
        labels = [replace(label, value=n) for n, label in enumerate(labels, start=1)]
        notes.append("regions were numbered anew")
    by_order = [f"several regions have the number {n}: their order says whose contours are whose" for n in shared]
    return seg_reading.unique_label_names(labels), [contours for _, contours in regions], (*by_order, *notes)


def _contours(
    dataset: DicomDataset, where: str
) -> tuple[list[tuple[int, DicomDataset, list[DicomDataset]]], list[int]]:
    """(Number, description and items of contours of each region that has any, the numbers that several regions have).

    Regions of one number are distinguished by their order where both sequences have the same numbers in the same order;
    else nobody knows whose the contours are. Several items of the one region of a number are its own.
    Raises FormatError for contours of no region, or of nobody knows which.
    """
    described = defaultdict[int | None, list[DicomDataset]](list)
    contours_by_number = defaultdict[int | None, list[DicomDataset]](list)
    sequences = (
        ("StructureSetROISequence", "ROINumber", described),
        ("ROIContourSequence", "ReferencedROINumber", contours_by_number),
    )
    orders = list[list[int | None]]()
    for sequence, keyword, of_number in sequences:
        every = tags.items(dataset, sequence)
        orders.append([tags.whole_number(roi, keyword, where) for roi in every])
        for number, roi in zip(orders[-1], every, strict=True):
            of_number[number].append(roi)
    regions, shared = list[tuple[int, DicomDataset, list[DicomDataset]]](), list[int]()
    for number, contours in contours_by_number.items():
        descriptions = described[number]
        if number is None or not descriptions:
            problem = f"has contours of a region {number} that it does not describe"
            raise FormatError(problem, where, "Get the file again")
        names = {tags.text(roi, "ROIName") for roi in descriptions}
        if len(names) == 1:
            regions.append((number, descriptions[0], contours))
            continue
        order, others = ([roi for roi in every if roi in contours_by_number] for every in orders)
        if order != others:
            problem = f"{len(descriptions)} regions have the number {number} ({errors.list_phrase(sorted(names))})"
            remedy = "Export it again with a number of its own for each region: whose contours are whose is not known"
            raise FormatError(problem, where, remedy)
        shared.append(number)
        regions += [(number, roi, [its]) for roi, its in zip(descriptions, contours, strict=True)]
    return regions, shared


def _closed_contours(contours: DicomDataset) -> list[DicomDataset]:
    """The closed contours of a region."""
    every = tags.items(contours, "ContourSequence")
    return [contour for contour in every if tags.text(contour, "ContourGeometricType") in CLOSED]


def _points(contour: DicomDataset, name: str, where: str) -> Floats:
    """(points, 3) in RAS+ mm."""
    data = tags.numbers(contour, "ContourData", where)
    if data is None or len(data) % 3:
        raise FormatError(f"a contour of {name} has {len(data or ())} numbers", where, "Get the file again")
    return np.array(data).reshape(-1, 3) @ LPS_TO_RAS


def _colour(contours: DicomDataset, where: str) -> tuple[int, int, int] | None:
    colour = tags.numbers(contours, "ROIDisplayColor", where)
    if colour is None or len(colour) != 3 or not all(0 <= n <= 255 for n in colour):
        return None
    red, green, blue = (int(n) for n in colour)
    return red, green, blue


def _codes(dataset: DicomDataset, where: str) -> dict[int | None, Code]:
    """{ROI number: what the region is}, PS3.3 C.8.8.8."""
    codes = {}
    for observation in tags.items(dataset, "RTROIObservationsSequence"):
        code = tags.first_item(observation, "RTROIIdentificationCodeSequence")
        if code is not None and tags.text(code, "CodeValue"):
            scheme, value, meaning = (
                tags.text(code, k) for k in ("CodingSchemeDesignator", "CodeValue", "CodeMeaning")
            )
            codes[tags.whole_number(observation, "ReferencedROINumber", where)] = Code(scheme, value, meaning)
    return codes


def _mask(region: _Region, on: Geometry, where: str) -> _RegionSlices:
    """The slices of one region as they are contoured."""
    contours: dict[int, list[Mask]] = defaultdict(list)
    for contour in region.contours:
        index = np.round(on.to_index(contour), DECIMALS)
        number = _slice(index[:, 2], region.label.name, on, where)
        contours[number].append(polygon.inside_polygon(index[:, [0, 1]], (on.shape[1], on.shape[0])).T)
    if region.is_xor:
        return _RegionSlices({number: np.logical_xor.reduce(own) for number, own in contours.items()}, ())
    slices = {number: inside_contours(own) for number, own in contours.items()}
    odd = sum(is_united for _, is_united in slices.values())
    united_slices = errors.count_phrase(odd, "slice")
    note = f"contours of {region.label.name} that are equal or overlap in part are united on {united_slices}"
    return _RegionSlices({number: mask for number, (mask, _) in slices.items()}, (note,) if odd else ())


def inside_contours(contours: Sequence[Mask]) -> tuple[Mask, bool]:
    """(What lies in closed contours on one slice, whether some are equal or overlap in part).

    A contour inside another is a hole in it, one inside the hole an island.
    """
    union = np.logical_or.reduce(contours)
    shared = np.sum(contours, axis=0, dtype=np.uint16) > 1
    if not shared.any():
        return union, False
    crossing = sorted((mask for mask in contours if mask[shared].any()), key=np.count_nonzero, reverse=True)
    masks: list[Mask] = []
    for mask in crossing:
        if not any(np.array_equal(mask, other) for other in masks):
            masks.append(mask)
    around = [{m for m in range(n) if not (mask & ~masks[m]).any()} for n, mask in enumerate(masks)]
    is_united = len(masks) < len(crossing) or any(
        (mask & masks[m]).any() for n, mask in enumerate(masks) for m in range(n) if m not in around[n]
    )
    filled = [mask.copy() for mask in masks]
    for n in reversed(range(len(masks))):  # from the innermost outwards
        for m in around[n] - set().union(*(around[k] for k in around[n])):
            filled[m] &= ~filled[n]
    outermost = [mask for mask, holders in zip(filled, around, strict=True) if not holders]
    apart = [mask for mask in contours if not mask[shared].any()]
    return np.logical_or.reduce([*outermost, *apart]), is_united


def _slice(depths: Floats, name: str, on: Geometry, where: str) -> int:
    """The slice on which a contour lies. Raises GeometryError where it lies on none."""
    number = int(np.rint(np.median(depths)))
    nearest = min(max(number, 0), on.shape[2] - 1)
    off = float(np.abs(depths - nearest).max())
    if off > PLANE_TOLERANCE:
        raise GeometryError(
            f"a contour of {name} lies {off * on.steps[2]:.3g} mm off the nearest slice",
            where,
            "Give the whole series that it was contoured on",
        )
    return nearest


def _interpolate(region: _RegionSlices, name: str, on: Geometry) -> _RegionSlices:
    """A region with the slices between contoured ones, where the gap is not far wider than its usual step, and a note.

    A voxel belongs to it where the signed distance to the outline, interpolated along the slices, is inside
    (shape-based interpolation; Raya and Udupa, IEEE Trans Med Imaging 1990, doi:10.1109/42.52980).
    """
    numbers = sorted(number for number, mask in region.slices.items() if mask.any())
    steps = np.diff(numbers)
    if not len(steps) or steps.max() == 1:
        return region
    between, left = dict[int, Mask](), 0
    for low, high in pairwise(numbers):
        if high - low > WIDEST_GAP * np.median(steps):
            left += high - low - 1
        elif high - low > 1:
            between |= _between(region.slices, low, high, on.steps[:2])
    filled = sum(bool(mask.any()) for mask in between.values())
    notes = (
        [f"{name} is interpolated on {errors.count_phrase(filled, 'slice')} between contoured ones"] if filled else []
    )
    notes += [
        f"{name} is not interpolated on {errors.count_phrase(left, 'slice')}: the gap is far wider than others"
    ] * (left > 0)
    return _RegionSlices({**region.slices, **between}, (*region.notes, *notes))


def _between(slices: Mapping[int, Mask], low: int, high: int, steps: Sequence[float]) -> dict[int, Mask]:
    """The slices between two contoured ones."""
    first, last = slices[low], slices[high]
    [box] = ndimage.find_objects((first | last).astype(np.uint8))  # outside it the distances of both are below 0
    near, far = (_signed_distance(one[box], steps) for one in (first, last))
    between = {number: np.zeros_like(first) for number in range(low + 1, high)}
    for number, mask in between.items():
        share = (number - low) / (high - low)
        mask[box] = (1 - share) * near + share * far > 0
    return between


def _signed_distance(mask: Mask, steps: Sequence[float]) -> Floats:
    """(columns, rows) mm to the nearest voxel on the other side of the outline, above 0 inside."""
    framed = np.pad(mask, 1)
    signed = ndimage.distance_transform_edt(framed, steps) - ndimage.distance_transform_edt(~framed, steps)
    return np.asarray(signed[1:-1, 1:-1])


def _fill_regions(regions: list[_Region], on: Geometry, where: str, *, fill_contours: bool) -> _Filled:
    """All regions in one map, or where they overlap in a channel each."""

    def slices_of(region: _Region) -> _RegionSlices:
        """The slices of a region, and those between if they are asked for."""
        mask = _mask(region, on, where)
        return _interpolate(mask, region.label.name, on) if fill_contours else mask

    dtype = np.uint8 if regions[-1].label.value < 256 else np.uint16
    if (single := _in_channels(regions, on, dtype, slices_of, 1)) is not None:
        return single
    if len(regions) > MOST_CHANNELS:
        raise FormatError(f"{len(regions)} regions overlap", where, "Export only the regions that you need")
    apart = _in_channels(regions, on, dtype, slices_of, len(regions))
    assert apart is not None  # noqa: S101 - a channel of its own is free
    return apart


def _in_channels(
    regions: list[_Region], on: Geometry, dtype: Any, slices_of: Callable[[_Region], _RegionSlices], channels: int
) -> _Filled | None:
    """The regions in so many channels, one or one each; None where two of them claim a voxel of one channel."""
    pixels = np.zeros((channels, *on.shape), dtype)
    notes, empty = list[str](), dict[str, str]()
    for n, region in enumerate(regions):
        slices, notes_of_region = slices_of(region)
        notes += notes_of_region
        if not any(mask.any() for mask in slices.values()):
            empty[region.label.name] = "its contours hold the centre of none"
        for number, mask in slices.items():
            plane = pixels[n % channels, :, :, number]
            if plane[mask].any():
                return None
            plane[mask] = region.label.value
    return _Filled(pixels, channels > 1, tuple(notes), empty)

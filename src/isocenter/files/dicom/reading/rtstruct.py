"""RT Structure Sets, PS3.3 A.19 and C.8.8.6, as label maps on the grid of the image they were drawn on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import FormatError, GeometryError, counted
from isocenter.files.dicom.elements import Dataset
from isocenter.files.dicom.geometry import LPS_TO_RAS
from isocenter.files.dicom.header import read_header
from isocenter.files.dicom.reading.seg import named_once
from isocenter.files.dicom.reading.series import STRUCTURE_SET
from isocenter.files.dicom.tags import first_item, items, numbers, text, whole
from isocenter.values import Code, Floats, Geometry, Image, Label, Source

XOR = "CLOSEDPLANAR_XOR"
CLOSED = ("CLOSED_PLANAR", XOR)

# Contours are written with few decimals; a tenth of a slice step is rounding, more is another plane.
PLANE_TOLERANCE = 0.1
# A channel each takes the memory of the image: more overlapping regions than anybody draws are refused.
MOST_CHANNELS = 1000
# Vertices often lie on pixel centres: rounding decides then, and must decide alike everywhere.
DECIMALS = 5

FEWEST_POINTS = 3  # some programs write contours of one or two, where a region only touches a slice

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class References:
    """The images that a structure set was drawn on, by their UIDs."""

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


def references(path: Path | str) -> References:
    """The images that a structure set belongs to."""
    dataset = _dataset(path)
    frames_of_reference, all_series = set[str](), set[str]()
    for frame in items(dataset, "ReferencedFrameOfReferenceSequence"):
        frames_of_reference.add(text(frame, "FrameOfReferenceUID"))
        for study in items(frame, "RTReferencedStudySequence"):
            for series in items(study, "RTReferencedSeriesSequence"):
                all_series.add(text(series, "SeriesInstanceUID"))
    for region in items(dataset, "StructureSetROISequence"):
        frames_of_reference.add(text(region, "ReferencedFrameOfReferenceUID"))
    instances = {
        text(image, "ReferencedSOPInstanceUID")
        for region in items(dataset, "ROIContourSequence")
        for contour in items(region, "ContourSequence")
        for image in items(contour, "ContourImageSequence")
    }
    known = [frozenset(uids - {""}) for uids in (frames_of_reference, all_series, instances)]
    return References(*known)


def regions_of(path: Path) -> tuple[Label, ...]:
    """The regions as `rasterise` numbers and names them; none where no contour is closed."""
    return _regions(_dataset(path), str(path))[0]


def rasterise(path: Path | str, on: Geometry, instances: Collection[str] = ()) -> Image:
    """The regions as a label map on the grid of their image: a voxel belongs to a region when its centre does.

    instances: SOP Instance UIDs of that image, as far as known; contours that refer to others are refused
    Values are ROI numbers. Of one region on one slice a contour inside another is a hole, as a keyhole is; contours
    that are equal or overlap in part are united, with a note. CLOSEDPLANAR_XOR is exclusive or. PS3.3 C.8.8.6.3
    Where regions overlap there is one channel a region.
    Raises GeometryError for another frame of reference or image, and for contours off the slice planes.
    """
    where = str(path)
    dataset = _dataset(path)
    if on.ndim != 3 or not on.physical or not on.oriented:
        raise GeometryError("contours in mm need an image with positions", where, "Give the image they were drawn on")
    notes = _check_image(references(path), on, set(instances), where)
    labels, drawn, passed = _regions(dataset, where)
    if not labels:
        raise FormatError("holds no closed contour", where, "Leave this file out")
    regions, thin = list[_Region](), list[str]()
    for label, closed in zip(labels, map(_closed, drawn), strict=True):
        every = [_points(one, label.name, where) for one in closed]
        wide = tuple(points for points in every if len(points) >= FEWEST_POINTS)
        if len(wide) < len(every):
            which = counted(len(every) - len(wide), "contour")
            thin.append(f"{which} of {label.name} with fewer than {FEWEST_POINTS} points bound nothing")
        regions.append(_Region(label, wide, _is_xor(closed)))
    pixels, overlapping, united = _filled(regions, on, where)
    return Image(
        pixels,
        on,
        modality="RTSTRUCT",
        channels=tuple(label.name for label in labels) if overlapping else ("regions",),
        labels=labels,
        notes=(*notes, *passed, *thin, *united, *(["regions overlap: one channel a region"] if overlapping else [])),
        facts={"overlapping": overlapping},
        source=Source("dicom", (where,)),
    )


def _dataset(path: Path | str) -> Dataset:
    head = read_header(Path(path))
    if head.sop_class != STRUCTURE_SET:
        raise FormatError("is not an RT structure set", str(path), "Give an RTSTRUCT object")
    return head.dataset


def _check_image(named: References, on: Geometry, instances: set[str], where: str) -> tuple[str, ...]:
    """Notes on what is odd. Raises GeometryError unless the structure set was drawn on this image."""
    strangers = named.instances - instances if instances else set()
    if strangers:
        raise GeometryError(
            f"refers to {len(strangers)} of {len(named.instances)} images that are not in the series, such as "
            f"{min(strangers)}",
            where,
            "Give the whole series that it was drawn on",
        )
    same = (
        not on.frame_of_reference or not named.frames_of_reference or on.frame_of_reference in named.frames_of_reference
    )
    if same:
        return ()
    if instances and named.instances:
        return ("states a frame of reference of its own, but names the image's files",)
    raise GeometryError(
        "lies in another frame of reference than the image", where, "Give the image that it was drawn on"
    )


def _regions(dataset: Dataset, where: str) -> tuple[tuple[Label, ...], list[Dataset], tuple[str, ...]]:
    """Regions with closed contours in order of their numbers, the contours of each, and notes on what is odd."""
    described = {whole(region, "ROINumber", where): region for region in items(dataset, "StructureSetROISequence")}
    codes = _codes(dataset, where)
    regions, notes = list[tuple[Label, Dataset]](), []
    for contours in items(dataset, "ROIContourSequence"):
        number = whole(contours, "ReferencedROINumber", where)
        if number not in described or number is None:
            raise FormatError(
                f"has contours of a region {number} that it does not describe", where, "Get the file again"
            )
        name = text(described[number], "ROIName") or str(number)
        if not _closed(contours):
            notes.append(f"region {name} has no closed contour")
            continue
        regions.append((Label(number, name, _colour(contours, where), codes.get(number)), contours))
    regions.sort(key=lambda region: region[0].value)
    labels = [label for label, _ in regions]
    values = [label.value for label in labels]
    if values and (len(set(values)) < len(values) or values[0] < 1 or values[-1] > np.iinfo(np.uint16).max):
        labels = [replace(label, value=n) for n, label in enumerate(labels, start=1)]
        notes.append("regions were numbered anew")
    return named_once(labels), [contours for _, contours in regions], tuple(notes)


def _closed(contours: Dataset) -> list[Dataset]:
    """The closed contours of a region."""
    every = items(contours, "ContourSequence")
    return [contour for contour in every if text(contour, "ContourGeometricType") in CLOSED]


def _points(contour: Dataset, name: str, where: str) -> Floats:
    """(points, 3) in RAS+ mm."""
    data = numbers(contour, "ContourData", where)
    if data is None or len(data) % 3:
        raise FormatError(f"a contour of {name} has {len(data or ())} numbers", where, "Get the file again")
    return np.array(data).reshape(-1, 3) @ LPS_TO_RAS


def _colour(contours: Dataset, where: str) -> tuple[int, int, int] | None:
    stated = numbers(contours, "ROIDisplayColor", where)
    if stated is None or len(stated) != 3 or not all(0 <= n <= 255 for n in stated):
        return None
    red, green, blue = (int(n) for n in stated)
    return red, green, blue


def _codes(dataset: Dataset, where: str) -> dict[int | None, Code]:
    """{ROI number: what the region is}, PS3.3 C.8.8.8."""
    codes = {}
    for seen in items(dataset, "RTROIObservationsSequence"):
        code = first_item(seen, "RTROIIdentificationCodeSequence")
        if code is not None and text(code, "CodeValue"):
            scheme, value, meaning = (text(code, k) for k in ("CodingSchemeDesignator", "CodeValue", "CodeMeaning"))
            codes[whole(seen, "ReferencedROINumber", where)] = Code(scheme, value, meaning)
    return codes


def _is_xor(closed: list[Dataset]) -> bool:
    return any(text(contour, "ContourGeometricType") == XOR for contour in closed)


def _mask(region: _Region, on: Geometry, where: str) -> tuple[dict[int, Mask], tuple[str, ...]]:
    """({slice: (columns, rows)} of one region, notes on its contours)."""
    contours: dict[int, list[Mask]] = defaultdict(list)
    for contour in region.contours:
        index = np.round(on.to_index(contour), DECIMALS)
        number = _slice(index[:, 2], region.label.name, on, where)
        contours[number].append(polygon(index[:, 1], index[:, 0], on.shape[1], on.shape[0]).T)
    if region.is_xor:
        return {number: np.logical_xor.reduce(own) for number, own in contours.items()}, ()
    slices = {number: inside(own) for number, own in contours.items()}
    odd = sum(is_united for _, is_united in slices.values())
    note = f"contours of {region.label.name} that are equal or overlap in part are united on {counted(odd, 'slice')}"
    return {number: mask for number, (mask, _) in slices.items()}, (note,) if odd else ()


def inside(contours: Sequence[Mask]) -> tuple[Mask, bool]:
    """(What lies in closed contours on one slice, whether some are equal or overlap in part).

    A contour inside another is a hole in it, one inside the hole an island.
    """
    whole = np.logical_or.reduce(contours)
    shared = np.sum(contours, axis=0, dtype=np.uint16) > 1
    if not shared.any():
        return whole, False
    crossing = sorted((mask for mask in contours if mask[shared].any()), key=np.count_nonzero, reverse=True)
    drawn: list[Mask] = []
    for mask in crossing:
        if not any(np.array_equal(mask, other) for other in drawn):
            drawn.append(mask)
    around = [{m for m in range(n) if not (mask & ~drawn[m]).any()} for n, mask in enumerate(drawn)]
    is_united = len(drawn) < len(crossing) or any(
        (mask & drawn[m]).any() for n, mask in enumerate(drawn) for m in range(n) if m not in around[n]
    )
    filled = [mask.copy() for mask in drawn]
    for n in reversed(range(len(drawn))):  # from the innermost outwards
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
            "Give the whole series that it was drawn on",
        )
    return nearest


def polygon(y: Floats, x: Floats, rows: int, columns: int) -> Mask:
    """(rows, columns) whose centres lie inside a closed polygon, by the even-odd rule.

    y, x: (points,) in pixels, 0 is the centre of the first one. Of centres on the edge those on the side of smaller
    numbers belong to it, so that polygons that share an edge share no pixel.
    """
    parity = np.zeros((rows, columns + 1), np.uint8)
    for y0, x0, y1, x1 in zip(y, x, np.roll(y, -1), np.roll(x, -1), strict=True):
        low, high = sorted((y0, y1))
        crossed = np.arange(max(0, int(np.ceil(low))), min(rows, int(np.ceil(high))))
        if len(crossed):
            at = x0 + (crossed - y0) * (x1 - x0) / (y1 - y0)
            # From here on to the right every centre is on the other side of this edge.
            first = np.clip(np.ceil(np.round(at, DECIMALS)), 0, columns).astype(np.int64)
            parity[crossed, first] ^= 1
    return np.bitwise_xor.accumulate(parity, axis=1)[:, :columns].astype(bool)


def _filled(regions: list[_Region], on: Geometry, where: str) -> tuple[NDArray[Any], bool, tuple[str, ...]]:
    """((channels, *spatial) ROI numbers, whether regions overlap, notes)."""
    dtype = np.uint8 if regions[-1].label.value < 256 else np.uint16
    single, notes = np.zeros((1, *on.shape), dtype), list[str]()
    for region in regions:
        slices, own = _mask(region, on, where)
        notes += own
        for number, mask in slices.items():
            if single[0, :, :, number][mask].any():
                return _channels(regions, on, dtype, where)
            single[0, :, :, number][mask] = region.label.value
    return single, False, tuple(notes)


def _channels(
    regions: list[_Region], on: Geometry, dtype: Any, where: str
) -> tuple[NDArray[Any], bool, tuple[str, ...]]:
    if len(regions) > MOST_CHANNELS:
        raise FormatError(f"{len(regions)} regions overlap", where, "Export only the regions that you need")
    pixels, notes = np.zeros((len(regions), *on.shape), dtype), list[str]()
    for n, region in enumerate(regions):
        slices, own = _mask(region, on, where)
        notes += own
        for number, mask in slices.items():
            pixels[n, :, :, number][mask] = region.label.value
    return pixels, True, tuple(notes)

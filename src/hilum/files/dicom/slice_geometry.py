"""DICOM's frames and their planes (LPS mm, row and column directions), and the affine in RAS+ mm that they make.

PS3.3 C.7.6.2.1.1
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import mul
from pathlib import Path
from typing import TypedDict, cast

import numpy as np

from hilum.errors import GeometryError
from hilum.files.dicom import tags
from hilum.files.dicom.elements import DicomDataset
from hilum.values import Floats
from hilum.values.grid_geometry import DIRECTION_TOLERANCE

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
# Directions come as text of up to 16 characters; some writers keep four digits of them.
UNIT_TOLERANCE = 1e-2
EVEN_TOLERANCE = 0.05  # of a step by which slices may lie off the even grid: the design's contract
LARGEST_ROUNDING = 0.2  # of a step: coarser positions do not show where slices lie
NOTED = 0.01  # of a step: slices further off the even grid are worth a note
# Of the smallest gap: rounding makes gaps of two and three digits of one of two and a half; wider ones lack slices.
SINGLE_GAP = 1.5

# The labels that may distinguish frames at one position, in the order in which they are tried.
TEMPORAL, REFERENCE_TIME, TRIGGER, ACQUISITION = "temporal position", "frame time", "trigger time", "acquisition number"
B_VALUE, DIRECTION, ECHO = "b-value", "gradient direction", "echo time"

Label = float | tuple[float, ...]
Labels = Mapping[str, Label]


# A frame's file, its number in it, and its tile; None where a slice is missing.
FramePlace = tuple[str, int, int | None]


class SliceHeader(TypedDict, total=False):
    """The frames that an image was read from, those of each of several volumes, or which one of these it is."""

    slices: Sequence[FramePlace | None]
    volumes: Sequence[Sequence[FramePlace | None]]
    volume: int


@dataclass(frozen=True)
class Plane:
    """One slice in the patient, in DICOM's own terms.

    position:    (3,) LPS mm, centre of the first voxel
    orientation: (6,) direction of a row (growing column index), then of a column, as unit vectors
    spacing:     (between rows, between columns) in mm
    digits:      (3,) mm that the last written digit of each coordinate of the position stands for; 0 where not known
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, float]
    digits: tuple[float, ...] = (0.0, 0.0, 0.0)

    @property
    def along_row(self) -> Floats:
        """(3,) unit vector in which the column index grows."""
        return _unit(np.asarray(self.orientation[:3]))

    @property
    def along_column(self) -> Floats:
        """(3,) unit vector in which the row index grows."""
        return _unit(np.asarray(self.orientation[3:]))

    @property
    def normal(self) -> Floats:
        """Unit vector to the side from which the picture is not mirrored, PS3.3 C.7.6.2.1.1."""
        return _unit(np.cross(self.along_row, self.along_column))

    def at(self, position: Floats) -> Plane:
        """The same plane at another position, (3,) LPS mm."""
        return Plane(tuple(float(x) for x in position), self.orientation, self.spacing)


def check_plane(
    position: Sequence[float],
    orientation: Sequence[float],
    spacing: Sequence[float],
    where: str,
    digits: Sequence[float] = (0.0, 0.0, 0.0),
) -> Plane:
    """A plane that can exist. Raises GeometryError, which names the attribute."""
    row, column = orientation[:3], orientation[3:]  # of three numbers NumPy takes ten times as long
    off = max(abs(math.hypot(*row) - 1), abs(math.hypot(*column) - 1), abs(sum(map(mul, row, column))))
    if off > UNIT_TOLERANCE:
        shown = "\\".join(f"{x:g}" for x in orientation)
        raise GeometryError(
            f"ImageOrientationPatient (0020,0037) {shown} are not two unit vectors at a right angle",
            where,
            "Correct the attribute, or export the series again",
        )
    if min(spacing) <= 0:
        shown = "\\".join(f"{x:g}" for x in spacing)
        raise GeometryError(
            f"PixelSpacing (0028,0030) is {shown}", where, "Correct the attribute, or export the series again"
        )
    return Plane(tuple(position), tuple(orientation), (float(spacing[0]), float(spacing[1])), tuple(digits))


def affine_of_slices(plane: Plane, step: Floats) -> Floats:
    """(4, 4) from (column, row, slice) index to RAS+ mm; `step` is LPS mm from one slice to the next."""
    affine = np.eye(4)
    affine[:3, 0] = plane.along_row * plane.spacing[1]
    affine[:3, 1] = plane.along_column * plane.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = plane.position
    affine[:3] = LPS_TO_RAS @ affine[:3]
    return affine


def plane_depths(planes: Sequence[Plane]) -> Floats:
    """(n,) mm of each plane along the first one's normal."""
    return np.array([plane.position for plane in planes]) @ planes[0].normal


def share_orientation(planes: Sequence[Plane]) -> bool:
    """Whether all lie the same way, within 1e-3 in each direction cosine."""
    orientations = np.array([plane.orientation for plane in planes])
    return bool(np.abs(orientations - orientations[0]).max() <= DIRECTION_TOLERANCE)


@dataclass(frozen=True)
class Stack:
    """Slices in order, and the step between them.

    step:    (3,) LPS mm
    indices: (n,) which place on the regular grid each slice has; all places where none is missing
    notes:   on slices that lie a little off it
    """

    step: Floats
    indices: tuple[int, ...]
    notes: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[int, ...]:
        """The places on the grid at which there is no slice."""
        return tuple(sorted(set(range(self.indices[-1] + 1)) - set(self.indices)))


def stack_planes(planes: Sequence[Plane], names: Sequence[str], where: str, *, fill_missing: bool = False) -> Stack:
    """The grid of at least two slices that are in order of depth.

    names: of each slice, for messages
    Raises GeometryError where one lies further off the even grid than .05 of a step and than its position was rounded;
    with `fill_missing` only where the gaps are no whole multiples of the smallest.
    """
    positions, heights = np.array([plane.position for plane in planes]), plane_depths(planes)
    rounding, gaps = position_roundings(planes), np.diff(heights)
    across = np.abs(planes[0].normal) @ rounding
    indices = np.arange(len(planes), dtype=float)
    if not (are_single_gaps(gaps) and are_evenly_spaced(heights[:, None], indices, across)):
        indices = _indices(heights, across, names, where, fill_missing)
    step = (positions[-1] - positions[0]) / indices[-1]
    if not are_evenly_spaced(positions, indices, rounding):
        odd = int(np.linalg.norm(np.diff(positions, axis=0) - np.diff(indices)[:, None] * step, axis=1).argmax())
        raise GeometryError(
            f"the slices lie on no straight line: between {names[odd]} and {names[odd + 1]} they step sideways "
            "(ImagePositionPatient (0020,0032))",
            where,
            "Split the series where the position jumps",
        )
    return Stack(step, tuple(int(i) for i in indices), _notes(positions, indices, heights))


def position_roundings(planes: Sequence[Plane]) -> Floats:
    """(3,) LPS mm by which the positions may be rounded: half of the last digit that any of them has."""
    return cast("Floats", np.array([plane.digits for plane in planes]).min(axis=0) / 2)


def are_evenly_spaced(places: Floats, indices: Floats, rounding: Floats) -> bool:
    """Whether slices lie on an even grid: each within .05 of a step of it, or by what its position was rounded.

    places:   (n, k) in mm; indices: (n,) on the grid
    rounding: (k,) mm, half of the last digit that is written
    """
    size = float(np.linalg.norm(places[-1] - places[0]) / indices[-1])
    if _off(places, indices).max() <= EVEN_TOLERANCE * size:
        return True
    within = np.minimum(rounding, LARGEST_ROUNDING * size)
    return all(_fits(own, indices, most) for own, most in zip(places.T, np.atleast_1d(within), strict=True))


def _off(places: Floats, indices: Floats) -> Floats:
    """(n,) mm of each place (n, k) from the grid that is even between the first and the last."""
    step = (places[-1] - places[0]) / indices[-1]
    return np.asarray(np.linalg.norm(places - (places[0] + indices[:, None] * step), axis=1))


def _fits(values: Floats, indices: Floats, within: float) -> bool:
    """Whether some even grid has a value (n,) for each index (n,) that differs from it by no more than `within`."""
    # The ends are rounded too, so the slope is not theirs; of 41 that they allow one is right but for a 20th.
    slopes = (values[-1] - values[0] + 2 * within * np.linspace(-1, 1, 41)) / indices[-1]
    spread = np.ptp(values - slopes[:, None] * indices, axis=1).min()
    return bool(spread <= 2 * 1.05 * within + 1e-9)


def _notes(positions: Floats, indices: Floats, heights: Floats) -> tuple[str, ...]:
    """The note on slices that lie off the even grid by more than a hundredth of a step."""
    size = float(np.linalg.norm(positions[-1] - positions[0]) / indices[-1])
    off = float(_off(positions, indices).max())
    if off <= NOTED * size:
        return ()
    return (
        f"positions lie up to {off:.2g} mm off the even grid (gaps of {_show_gaps(np.diff(heights))} mm), as rounded "
        f"ones do (ImagePositionPatient (0020,0032)): read with an even step of {size:.4g} mm",
    )


def _show_gaps(gaps: Floats) -> str:
    return ", ".join(f"{gap:.4g}" for gap in sorted({round(float(gap), 4) for gap in gaps})[:6])


def are_single_gaps(gaps: Floats) -> bool:
    """Whether no gap (mm) is so wide that a slice may be missing in it."""
    return bool(gaps.max() <= SINGLE_GAP * gaps.min() + 1e-9)


def single_gap(gaps: Floats) -> float:
    """The mean (mm) of the smallest gaps, which are those between neighbours."""
    return float(gaps[gaps <= SINGLE_GAP * gaps.min() + 1e-9].mean())


def _indices(heights: Floats, rounding: Floats, names: Sequence[str], where: str, fill_missing: bool) -> Floats:
    """Places on the grid whose step is the smallest gap; refused unless asked to fill and unless they fit."""
    gaps = np.diff(heights)
    coarse = f", written in steps of {2 * rounding:.3g} mm" if rounding > LARGEST_ROUNDING * gaps.mean() else ""
    along = f"gaps of {_show_gaps(gaps)} mm along the normal (ImagePositionPatient (0020,0032){coarse})"
    multiples = np.rint(gaps / single_gap(gaps))
    indices = np.concatenate([[0.0], np.cumsum(multiples)])
    fits = are_evenly_spaced(heights[:, None], indices, rounding)
    # Where fewer than half of the gaps are single steps, it is as likely that a slice lies askew.
    regular = bool(fits and 2 * np.count_nonzero(multiples == 1) >= len(gaps))
    odd = int(np.argmax(np.abs(gaps - np.median(gaps)))) if not regular else int(np.argmax(multiples))
    between = f"between {names[odd]} and {names[odd + 1]}"
    if not regular:
        raise GeometryError(
            f"slices are not evenly spaced: {along}, such as {between}",
            where,
            "Split the series where the spacing changes, or get the missing slices",
        )
    count = int((multiples - 1).sum())
    if count > len(names):
        raise GeometryError(
            f"{count} slices are missing, the first {between}: {along}",
            where,
            "Get the whole series",
        )
    if count and not fill_missing:
        raise GeometryError(
            f"{count} slice{'s are' if count > 1 else ' is'} missing, the first {between}: {along}",
            where,
            "Get the whole series, or mark missing slices as padding with --fill-missing",
        )
    return indices


def _unit(vector: Floats) -> Floats:
    return vector / np.linalg.norm(vector)


@dataclass(frozen=True)
class Frame:
    """One plane of voxels, and where in which file it is.

    number:    frame in the file, from 0; tile: of a mosaic, and how many a side
    shape:     (rows, columns)
    thickness: (mm, the attribute that states it): the step where there is only one slice
    order:     (instance number, frame number, tile); is_numbered: whether that says which frame comes first
    stack:     of an enhanced object that declares several
    kind:      what is shown: magnitude, phase, ...; is_derived: whether it was made from other images
    time:      s, of acquisition; only differences mean something
    labels:    {what may distinguish it from others at its position: value}
    """

    path: Path
    shape: tuple[int, int]
    number: int = 0
    tile: int | None = None
    side: int = 1
    plane: Plane | None = None
    thickness: tuple[float, str] | None = None
    frame_of_reference: str | None = None
    order: tuple[int, int, int] = (0, 0, 0)
    is_numbered: bool = True
    stack: str = ""
    kind: str = ""
    is_derived: bool = False
    time: float | None = None
    labels: Labels = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name in messages: the file, and the frame where there are several."""
        frame_name = f" frame {self.number + 1}" if self.number else ""
        return f"{self.path.name}{frame_name}" + (f" tile {self.tile + 1}" if self.tile else "")


def stated_plane(sources: list[DicomDataset], where: str, *, required: bool) -> Plane | None:
    """The plane that the first of these items with each attribute states, None where there is none.

    Raises GeometryError where one part is there and another is missing.
    """
    position = _first(sources, "ImagePositionPatient", where, 3)
    orientation = _first(sources, "ImageOrientationPatient", where, 6)
    spacing = _first(sources, "PixelSpacing", where, 2)
    if position is None and orientation is None:
        return None
    attributes = {"ImagePositionPatient": position, "ImageOrientationPatient": orientation, "PixelSpacing": spacing}
    if position is not None and orientation is not None and spacing is not None:
        written = next(source for source in sources if tags.numbers(source, "ImagePositionPatient", where) is not None)
        return check_plane(position, orientation, spacing, where, tags.last_digits(written, "ImagePositionPatient"))
    if not required:
        return None
    missing = next(keyword for keyword, value in attributes.items() if value is None)
    raise GeometryError(
        f"{tags.keyword_with_tag(missing)} is missing, so the position of the voxels is not known",
        where,
        "Export the series again with all attributes",
    )


def _first(sources: list[DicomDataset], keyword: str, where: str, count: int) -> tuple[float, ...] | None:
    readings = (tags.numbers(source, keyword, where, count) for source in sources)
    return next((values for values in readings if values is not None), None)


def stated_thickness(dataset: DicomDataset, where: str) -> tuple[float, str] | None:
    """(mm between slices or of one slice, the attribute that states it); None where neither is stated."""
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = tags.single_number(dataset, keyword, where)
        if value:  # absent and 0 mean the same: not known; NM counts against the normal with a minus
            return value, keyword
    return None

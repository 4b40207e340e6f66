"""DICOM's frames and their planes (LPS mm, row and column directions), and the affine in RAS+ mm that they make.

PS3.3 C.7.6.2.1.1
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import mul
from pathlib import Path

import numpy as np

from isocenter.errors import GeometryError
from isocenter.files.dicom.elements import Dataset
from isocenter.files.dicom.tags import named, number, numbers
from isocenter.values import DIRECTION_TOLERANCE, Floats

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
# Directions come as text of up to 16 characters; some writers keep four digits of them.
UNIT_TOLERANCE = 1e-2
GAP_TOLERANCE = 0.01  # of the median gap: the design's contract
LARGEST_DRIFT = 0.25  # of a step: further off, a slice would be nearer to a neighbour's border than to its own centre

# The labels that may distinguish frames at one position, in the order in which they are tried.
TEMPORAL, REFERENCE_TIME, TRIGGER, ACQUISITION = "temporal position", "frame time", "trigger time", "acquisition number"
B_VALUE, DIRECTION, ECHO = "b-value", "gradient direction", "echo time"

Label = float | tuple[float, ...]
Labels = Mapping[str, Label]


@dataclass(frozen=True)
class Plane:
    """One slice in the patient, in DICOM's own terms.

    position:    (3,) LPS mm, centre of the first voxel
    orientation: (6,) direction of a row (growing column index), then of a column, as unit vectors
    spacing:     (between rows, between columns) in mm
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, float]

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


def checked_plane(
    position: Sequence[float], orientation: Sequence[float], spacing: Sequence[float], where: str
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
    return Plane(tuple(position), tuple(orientation), (float(spacing[0]), float(spacing[1])))


def affine_of(plane: Plane, step: Floats) -> Floats:
    """(4, 4) from (column, row, slice) index to RAS+ mm; `step` is LPS mm from one slice to the next."""
    affine = np.eye(4)
    affine[:3, 0] = plane.along_row * plane.spacing[1]
    affine[:3, 1] = plane.along_column * plane.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = plane.position
    affine[:3] = LPS_TO_RAS @ affine[:3]
    return affine


def depths(planes: Sequence[Plane]) -> Floats:
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
    """

    step: Floats
    indices: tuple[int, ...]

    @property
    def missing(self) -> tuple[int, ...]:
        """The places on the grid at which there is no slice."""
        return tuple(sorted(set(range(self.indices[-1] + 1)) - set(self.indices)))


def stacked(planes: Sequence[Plane], names: Sequence[str], where: str, *, fill_missing: bool = False) -> Stack:
    """The grid of at least two slices that are in order of depth.

    names: of each slice, for messages
    Raises GeometryError for gaps that are not equal within 1 % of their median; with `fill_missing` only where they
    are no whole multiples of the smallest.
    """
    positions = np.array([plane.position for plane in planes])
    gaps = np.diff(depths(planes))
    usual = float(np.sort(gaps)[[(len(gaps) - 1) // 2, len(gaps) // 2]].mean())  # np.median imports much
    indices: Floats
    if np.all(np.abs(gaps - usual) <= GAP_TOLERANCE * usual):
        indices = np.arange(len(planes), dtype=float)
    else:
        indices = _indices(gaps, names, where, fill_missing)
    step = (positions[-1] - positions[0]) / indices[-1]
    off = np.linalg.norm(positions - (positions[0] + indices[:, None] * step), axis=1)
    bends = np.linalg.norm(np.diff(positions, axis=0) - np.diff(indices)[:, None] * step, axis=1)
    size = float(np.linalg.norm(step))
    # Each step may be off by as much as the gaps may differ; their sum must not lead away from the grid.
    if bends.max() > 2 * GAP_TOLERANCE * size or off.max() > LARGEST_DRIFT * size:
        odd = int(bends.argmax()) if bends.max() > 2 * GAP_TOLERANCE * size else int(off.argmax()) - 1
        raise GeometryError(
            f"the slices lie on no straight line: between {names[odd]} and {names[odd + 1]} they step sideways "
            "(ImagePositionPatient (0020,0032))",
            where,
            "Split the series where the position jumps",
        )
    return Stack(step, tuple(int(i) for i in indices))


def _indices(gaps: Floats, names: Sequence[str], where: str, fill_missing: bool) -> Floats:
    """Places on the grid whose step is the smallest gap; refused unless asked to fill and unless they fit."""
    shown = ", ".join(f"{gap:.4g}" for gap in sorted({round(float(g), 4) for g in gaps})[:6])
    least = float(np.median(gaps[gaps <= gaps.min() * (1 + GAP_TOLERANCE)]))
    multiples = np.rint(gaps / least)
    fits = np.all(np.abs(gaps - multiples * least) <= GAP_TOLERANCE * least * multiples)
    # Where fewer than half of the gaps are single steps, it is as likely that a slice lies askew.
    regular = bool(fits and 2 * np.count_nonzero(multiples == 1) >= len(gaps))
    odd = int(np.argmax(np.abs(gaps - np.median(gaps)))) if not regular else int(np.argmax(multiples))
    between = f"between {names[odd]} and {names[odd + 1]}"
    if not regular:
        raise GeometryError(
            f"slices are not evenly spaced: gaps of {shown} mm along the normal (ImagePositionPatient (0020,0032)), "
            f"such as {between}",
            where,
            "Split the series where the spacing changes, or get the missing slices",
        )
    count = int((multiples - 1).sum())
    if count > len(names):
        raise GeometryError(
            f"{count} slices are missing, the first {between}: gaps of {shown} mm along the normal "
            "(ImagePositionPatient (0020,0032))",
            where,
            "Get the whole series",
        )
    if not fill_missing:
        raise GeometryError(
            f"{count} slice{'s are' if count > 1 else ' is'} missing, the first {between}: gaps of {shown} mm along "
            "the normal (ImagePositionPatient (0020,0032))",
            where,
            "Get the whole series, or mark missing slices as padding with --fill-missing",
        )
    return np.concatenate([[0], np.cumsum(multiples)])


def _unit(vector: Floats) -> Floats:
    return vector / np.linalg.norm(vector)


@dataclass(frozen=True)
class Frame:
    """One plane of voxels, and where in which file it is.

    number:    frame in the file, from 0; tile: of a mosaic, and how many a side
    shape:     (rows, columns)
    thickness: (mm, the attribute that states it): the step where there is only one slice
    order:     (instance number, frame number, tile)
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
    stack: str = ""
    kind: str = ""
    is_derived: bool = False
    time: float | None = None
    labels: Labels = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For messages: the file, and the frame where there are several."""
        place = f" frame {self.number + 1}" if self.number else ""
        return f"{self.path.name}{place}" + (f" tile {self.tile + 1}" if self.tile else "")


def plane_of(sources: list[Dataset], where: str, *, required: bool) -> Plane | None:
    """The plane that the first of these items with each attribute states, None where there is none.

    Raises GeometryError where one part is there and another is missing.
    """
    position = _first(sources, "ImagePositionPatient", where, 3)
    orientation = _first(sources, "ImageOrientationPatient", where, 6)
    spacing = _first(sources, "PixelSpacing", where, 2)
    if position is None and orientation is None:
        return None
    stated = {"ImagePositionPatient": position, "ImageOrientationPatient": orientation, "PixelSpacing": spacing}
    if position is not None and orientation is not None and spacing is not None:
        return checked_plane(position, orientation, spacing, where)
    if not required:
        return None
    missing = next(keyword for keyword, value in stated.items() if value is None)
    raise GeometryError(
        f"{named(missing)} is missing, so the position of the voxels is not known",
        where,
        "Export the series again with all attributes",
    )


def _first(sources: list[Dataset], keyword: str, where: str, count: int) -> tuple[float, ...] | None:
    stated = (numbers(source, keyword, where, count) for source in sources)
    return next((values for values in stated if values is not None), None)


def thickness_of(dataset: Dataset, where: str) -> tuple[float, str] | None:
    """(mm between slices or of one slice, the attribute that states it); None where neither is stated."""
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = number(dataset, keyword, where)
        if value:  # absent and 0 mean the same: not known; NM counts against the normal with a minus
            return value, keyword
    return None

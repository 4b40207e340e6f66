"""The planes of a segmentation's frames, and the voxels of a grid into which their pixels go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from hilum.errors import GeometryError
from hilum.files.dicom import slice_geometry
from hilum.files.dicom.slice_geometry import EVEN_TOLERANCE, LARGEST_ROUNDING, Plane
from hilum.values import Floats, Geometry
from hilum.values.grid_geometry import HEADER_ROUNDING

Integers = NDArray[np.int64]

ON_ITS_IMAGE = "Read it on the image that it was contoured on"
# The slices of an image may lie off its own even grid, and a plane off the slice.
SLICE_TOLERANCE = 2 * EVEN_TOLERANCE

MOST_PLANES = 10_000  # two stray planes must not ask for all the memory between them


@dataclass(frozen=True, eq=False)
class Placement:
    """Pixel (row, column) to voxel: origin + row * row_step + column * column_step, in whole voxels."""

    origin: Integers
    row_step: Integers
    column_step: Integers
    shape: tuple[int, ...]

    def voxels(self, rows: Integers, columns: Integers) -> Integers:
        """(n, axes) the voxel of each pixel."""
        return cast("Integers", self.origin + rows[:, None] * self.row_step + columns[:, None] * self.column_step)

    def index(self, rows: Integers, columns: Integers, where: str) -> tuple[Integers, ...]:
        """The voxels of these pixels, for indexing. Raises GeometryError where one lies outside the grid."""
        voxels = self.voxels(rows, columns)
        if ((voxels < 0) | (voxels >= np.array(self.shape))).any():
            raise GeometryError("a segment reaches out of the image", where, "Give the image that it was contoured on")
        return tuple(voxels.T)


def place_frame(plane: Plane | None, rows: int, columns: int, grid: Geometry, where: str) -> Placement:
    """The place of a frame's pixels on a grid; a frame without position lies on a picture of its size.

    Raises GeometryError unless each corner of the frame is a voxel centre: within .05 of a pixel (0.5 mm) along the
    frame; across it within a tenth of a slice step, or by what the positions of both are rounded.
    """
    if plane is None:
        if grid.shape != (rows, columns):
            raise GeometryError(f"{rows} x {columns} pixels without position", where, ON_ITS_IMAGE)
        return Placement(np.array([0, 0]), np.array([1, 0]), np.array([0, 1]), grid.shape)
    if grid.ndim != 3 or not grid.physical:
        raise GeometryError("has positions in mm, the image has none", where, ON_ITS_IMAGE)
    frame = slice_geometry.affine_of_slices(plane, plane.normal)[:3]
    starts = np.stack([frame[:, 3], frame[:, 3] + frame[:, 0], frame[:, 3] + frame[:, 1]])
    origin, column, row = np.rint(grid.to_index(starts)).astype(np.int64)
    placed = Placement(origin, row - origin, column - origin, grid.shape)
    corners = np.array([(0, 0), (rows - 1, 0), (0, columns - 1), (rows - 1, columns - 1)])
    meant = frame[:, 3] + corners[:, :1] * frame[:, 1] + corners[:, 1:] * frame[:, 0]
    _check_coincident(grid, meant, placed, placed.voxels(corners[:, 0], corners[:, 1]), plane, where)
    return placed


def _check_coincident(
    grid: Geometry, meant: Floats, place: Placement, voxels: Integers, plane: Plane, where: str
) -> None:
    off = grid.to_index(meant) - voxels
    across = (place.row_step == 0) & (place.column_step == 0)
    if across.sum() != 1:
        raise GeometryError("its pixels do not coincide with the image's pixels", where, ON_ITS_IMAGE)
    along = np.where(across, 0.0, off) @ grid.affine[:3, :3].T
    distance = float(np.linalg.norm(along, axis=1).max())
    steps = np.array(grid.steps)
    slices, step = float(np.abs(off[:, across]).max()), float(steps[across][0])
    # The positions of the slices were rounded, and so was that of the plane.
    rounding = np.minimum(2 * np.linalg.norm(slice_geometry.position_roundings([plane])), 2 * LARGEST_ROUNDING * steps)
    along_frame, across_it = float(rounding[~across].min()), float(rounding[across][0]) / step
    if distance > max(grid.tolerance, along_frame) or slices > max(SLICE_TOLERANCE, across_it):
        far = max(distance, slices * step)
        raise GeometryError(f"lies {far:.3g} mm from the image's voxel centres", where, ON_ITS_IMAGE)


def grid_of_frames(
    planes: list[Plane],
    rows: int,
    columns: int,
    depth: tuple[float | None, float | None],
    frame_of_reference: str | None,
    where: str,
) -> Geometry:
    """The regular grid on which all frames lie; planes that no frame shows may be missing between them.

    depth: (spacing between slices, slice thickness), as far as stated; used where the planes do not show it
    Raises GeometryError where planes are not parallel or not a whole number of steps apart.
    """
    if not slice_geometry.share_orientation(planes):
        raise GeometryError("its planes are not parallel", where, ON_ITS_IMAGE)
    heights = slice_geometry.plane_depths(planes)
    order = np.argsort(heights, kind="stable")
    rounding = slice_geometry.position_roundings(planes)
    across = float(np.abs(planes[0].normal) @ rounding)
    step, numbers = _steps(heights[order], across, depth, where)
    first, last = (np.array(planes[n].position) for n in order[[0, -1]])
    many = int(numbers[-1])
    if many > MOST_PLANES:
        raise GeometryError(f"its planes span {many} slices", where, ON_ITS_IMAGE)
    rise = (last - first) / many if many else planes[0].normal * step
    positions = np.array([planes[n].position for n in order])
    if many and not slice_geometry.are_evenly_spaced(positions, numbers, rounding):
        off = float(np.linalg.norm(first + numbers[:, None] * rise - positions, axis=1).max())
        raise GeometryError(f"a plane lies {off:.3g} mm off the regular grid", where, ON_ITS_IMAGE)
    affine = slice_geometry.affine_of_slices(planes[0].at(first), rise)
    return Geometry((columns, rows, many + 1), affine, frame_of_reference)


def _steps(
    heights: Floats, rounding: float, depth: tuple[float | None, float | None], where: str
) -> tuple[float, Floats]:
    """(mm between planes, (n,) their places): as stated where the planes agree, else by the smallest gap between them.

    heights: (n,) mm in order, equal ones of planes at one place; rounding: mm, of a height
    """
    places, place_of_plane = np.unique(
        np.cumsum(np.diff(heights, prepend=heights[0]) > HEADER_ROUNDING), return_inverse=True
    )
    apart = heights[np.searchsorted(place_of_plane, places)]
    gaps = np.diff(apart)
    depths = [value for value in depth if value is not None and value > 0]
    if not len(gaps):
        if not depths:
            raise GeometryError("one plane without thickness", where, ON_ITS_IMAGE)
        return depths[0], np.zeros(len(heights))
    for step in [*([depth[0]] if depth[0] else []), slice_geometry.single_gap(gaps)]:
        numbers = np.concatenate([[0.0], np.cumsum(np.rint(gaps / step))])
        is_stated = abs(numbers[-1] * step - (apart[-1] - apart[0])) <= SLICE_TOLERANCE * step * max(numbers[-1], 1)
        if (
            is_stated
            and np.diff(numbers).min() >= 1
            and slice_geometry.are_evenly_spaced(apart[:, None], numbers, np.array([rounding]))
        ):
            return step, numbers[place_of_plane]
    shown = ", ".join(f"{gap:.3g}" for gap in np.unique(np.round(gaps, 3))[:5])
    raise GeometryError(f"its planes are unevenly spaced: {shown} mm", where, ON_ITS_IMAGE)

"""Corners that an earlier program filled with a constant when it turned an image, or a scanner beyond its field."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from isocenter.lazy import ndimage, spatial
from isocenter.values import Floats

# HU of the lowest stored air: a constant below it is a padding value that the header does not state.
LOWEST_HU = -1024.0
# Of the surface around what was measured, the share that lies on the sides of a turned box and of the image; degrees
# between normals of one side, and from the image's own axes. A head, which is round, has a tenth of its surface there.
FLAT, ONE_SIDE, ALONG = 0.9, 6.0, 1.0
# Of a convex hull, the share that a box fills, and voxels along an axis that are looked at, at the most.
FILLED, MOST_LOOKED = 0.9, 96


def filled_corners(values: Floats, is_measured: NDArray[np.bool_], *, is_ct: bool) -> NDArray[np.bool_]:
    """(*spatial) voxels of one constant that reaches most corners, around a turned box or in CT below the HU of air."""
    corners = np.ix_(*[[0, -1] if size > 1 else [0] for size in values.shape])
    levels, counts = np.unique(values[corners], return_counts=True)
    level, is_filled = levels[counts.argmax()], np.zeros(values.shape, dtype=bool)
    if counts.max() < 4 or not is_measured.any():
        return is_filled
    pieces, _ = ndimage.label(values == level)
    at_corners = np.unique(pieces[corners])
    is_filled = np.isin(pieces, at_corners[at_corners > 0])
    if is_filled.all() or not ((is_ct and level < LOWEST_HU) or _is_turned_box(is_measured & ~is_filled)):
        return np.zeros(values.shape, dtype=bool)
    return np.asarray(ndimage.binary_dilation(is_filled))  # at its edge values are means of both


def _is_turned_box(inside: NDArray[np.bool_]) -> bool:
    """Whether voxels fill a box whose sides are flat, and do not all lie along the image's own."""
    kept = inside[tuple(slice(None, None, -(-size // MOST_LOOKED)) for size in inside.shape)]
    axes = [axis for axis, size in enumerate(kept.shape) if size > 1]
    surface = np.argwhere(kept & ~ndimage.binary_erosion(kept))[:, axes].astype(float)
    if len(surface) <= len(axes) or len(axes) < 2:
        return False
    hull = spatial.ConvexHull(surface, qhull_options="QJ")  # joggled: no degenerate hull fails
    if kept.sum() < FILLED * hull.volume:
        return False
    sizes, normals = _facets(hull.points[hull.simplices]), hull.equations[:, :-1]
    is_along = np.abs(normals).max(axis=1) > np.cos(np.radians(ALONG))
    is_near = np.abs(normals @ normals.T) > np.cos(np.radians(ONE_SIDE))  # opposite sides too
    flat, left = 0.0, sizes.copy()
    for _ in range(2 * len(axes)):
        side = is_near[int((is_near @ left).argmax())]
        flat += float(left[side].sum())
        left[side] = 0
    return flat > FLAT and float(sizes[is_along].sum()) < FLAT


def _facets(corners: Floats) -> Floats:
    """(facets,) the share of each facet, (facets, n, n), in the surface."""
    first, *others = (corners[:, n] - corners[:, -1] for n in range(corners.shape[1] - 1))
    sizes: Floats = np.linalg.norm(np.cross(first, others[0]) if others else first, axis=1)
    return cast("Floats", sizes / sizes.sum())

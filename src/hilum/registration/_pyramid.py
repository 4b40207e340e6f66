"""Both images of a registration at one resolution after the other, the coarsest first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from hilum.lazy import ndimage, spatial, torch
from hilum.registration import similarity_measures
from hilum.registration.similarity_measures import Similarity
from hilum.transforms import resampling
from hilum.values import Floats, Geometry, Image

if TYPE_CHECKING:
    from torch import Tensor


# Of intensities: outside of these percentiles a few hot voxels would set the scale.
PERCENTILES = (0.5, 99.5)
# Voxels whose percentiles are taken at the most.
MOST_RANKED = 2**22
# HU that CT is compared in: air to dense bone.
CT_WINDOW = (-1000.0, 1000.0)
# Of the voxels of a side, those that have to be measured for it to count.
LEAST_SHARE = 0.5
# Of the fixed image's weight, the share that the moving image has to cover.
LEAST_OVERLAP = 0.25
NO_OVERLAP = 1e6
# HU of the lowest stored air: a constant below it is a padding value that the header does not state.
LOWEST_HU = -1024.0
# Of the surface around what was measured, the share that lies on the sides of a turned box and of the image; degrees
# between normals of one side, and from the image's own axes. A head, which is round, has a tenth of its surface there.
FLAT = 0.9
ONE_SIDE = 6.0
ALONG = 1.0
# Of a convex hull, the share that a box fills, and voxels along an axis that are looked at, at the most.
FILLED = 0.9
MOST_LOOKED = 96


@dataclass(frozen=True, eq=False)
class PyramidSide:
    """One image at one resolution.

    values, weight: (1, 1, *spatial) in about 0..1; where it is measured
    to_grid:        (n, n + 1) from mm relative to `centre` to places as torch counts: -1 to 1, last axis first
    """

    grid: Geometry
    values: Tensor
    weight: Tensor
    to_grid: Tensor
    is_whole: bool


@dataclass(frozen=True, eq=False)
class PyramidLevel:
    """Both images at one resolution. points: (*spatial, n) mm of the fixed voxels, relative to the fixed centre"""

    fixed: PyramidSide
    moving: PyramidSide
    points: Tensor

    def read_moving(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """The moving image at (*spatial, n) mm relative to its centre, and the weight of both there."""
        at = (places @ self.moving.to_grid[:, :-1].T + self.moving.to_grid[:, -1])[None]
        values = _interpolate(self.moving.values, at)
        inside = (at.detach().abs() <= 1).all(dim=-1)[:, None].to(values.dtype)
        weight = self.fixed.weight * inside
        if not self.moving.is_whole:
            weight = weight * _interpolate(self.moving.weight, at.detach())
        return values, weight

    @property
    def smoothed_level(self) -> PyramidLevel:
        """Both images as binomial means of neighbours, so that noise is hardly smaller between voxels than at them."""
        fixed, moving = (replace(side, values=_binomial(side)) for side in (self.fixed, self.moving))
        return replace(self, fixed=fixed, moving=moving)

    def sample_voxels(self, count: int) -> PyramidLevel:
        """The level with so many voxels of the fixed image, always the same: for measures that need no neighbours."""
        number = self.fixed.values.numel()
        ndim = self.points.shape[-1]
        chosen = torch.as_tensor(np.random.default_rng(0).permutation(number)[:count])
        ones = (1,) * (ndim - 1)
        values, weight = (
            one.reshape(-1)[chosen].reshape(1, 1, -1, *ones) for one in (self.fixed.values, self.fixed.weight)
        )
        fixed = replace(self.fixed, values=values, weight=weight)
        return replace(self, fixed=fixed, points=self.points.reshape(-1, ndim)[chosen].reshape(-1, *ones, ndim))

    def loss(self, places: Tensor, similarity: Similarity) -> Tensor:
        """Unlikeness of both where they overlap; very large where they hardly do."""
        values, weight = self.read_moving(places)
        if float(weight.sum()) < LEAST_OVERLAP * float(self.fixed.weight.sum()):
            return NO_OVERLAP + 0 * values.sum()
        return similarity(self.fixed.values, values, weight)


def _binomial(side: PyramidSide) -> Tensor:
    values = side.values * side.weight
    weight = side.weight
    for axis in range(2, values.ndim):
        matrix = _neighbours(values.shape[axis])
        values = similarity_measures.multiply_axis(values, axis, matrix)
        weight = similarity_measures.multiply_axis(weight, axis, matrix)
    return values / weight.clamp(min=1e-3)


def _neighbours(size: int) -> Tensor:
    """(size, size) weights 1, 2, 1 of the voxels that lie within the image."""
    apart = (torch.arange(size)[:, None] - torch.arange(size)[None]).abs()
    matrix = (2 - apart).clamp(min=0).float()
    return matrix / matrix.sum(dim=1, keepdim=True)


def _interpolate(values: Tensor, at: Tensor) -> Tensor:
    return torch.nn.functional.grid_sample(values, at, mode="bilinear", padding_mode="border", align_corners=False)


@dataclass(frozen=True, eq=False)
class ImagePair:
    """Two images as they are compared: (*spatial) numbers in about 0..1, where they are known, and their centres.

    fixed_centre, moving_centre: (n,) mm, from which places are counted: so float32 holds them
    """

    fixed: NDArray[np.float32]
    fixed_known: NDArray[np.bool_]
    fixed_grid: Geometry
    moving: NDArray[np.float32]
    moving_known: NDArray[np.bool_]
    moving_grid: Geometry

    @property
    def fixed_centre(self) -> Floats:
        """Middle of the fixed grid."""
        return cast("Floats", self.fixed_grid.corners.mean(axis=0))

    @property
    def moving_centre(self) -> Floats:
        """Middle of the moving grid."""
        return cast("Floats", self.moving_grid.corners.mean(axis=0))

    def level(self, spacing: float) -> PyramidLevel:
        """Both at about this spacing; axes that are coarser stay as they are."""
        fixed = _side(self.fixed, self.fixed_known, self.fixed_grid, spacing, self.fixed_centre)
        moving = _side(self.moving, self.moving_known, self.moving_grid, spacing, self.moving_centre)
        index = np.stack(np.meshgrid(*map(np.arange, fixed.grid.shape), indexing="ij"), axis=-1)
        points = torch.as_tensor(fixed.grid.to_world(index) - self.fixed_centre, dtype=torch.float32)
        return PyramidLevel(fixed, moving, points)


def prepare_pair(fixed: Image, moving: Image, mask: NDArray[np.bool_] | None, *, one_scale: bool) -> ImagePair:
    """The first channels of two images; mask: (*spatial) of the fixed one, where they are compared

    one_scale: intensities mean the same in both, so one scale serves both
    """
    sides = [_measurements(fixed), _measurements(moving)]
    scales = [
        _scale(values, known, image.modality) for (values, known), image in zip(sides, (fixed, moving), strict=True)
    ]
    if one_scale:
        both = (min(low for low, _ in scales), max(high for _, high in scales))
        scales = [both, both]
    scaled = [_in_scale(*side, *scale) for side, scale in zip(sides, scales, strict=True)]
    inside = sides[0][1] if mask is None else sides[0][1] & mask
    return ImagePair(scaled[0], inside, fixed.geometry, scaled[1], sides[1][1], moving.geometry)


def _measurements(image: Image) -> tuple[Floats, NDArray[np.bool_]]:
    """(*spatial) values and which are measured: not the corners that an earlier program filled."""
    values, is_measured = _numbers(image)
    return values, is_measured & ~filled_corners(values, is_measured, is_ct=image.modality == "CT")


def _numbers(image: Image) -> tuple[Floats, NDArray[np.bool_]]:
    """(*spatial) values and which are measured; of several channels or frames the mean."""
    ndim = image.geometry.ndim
    data = image.data
    is_valid = image.valid
    channels = np.where(is_valid, data, 0).astype(np.float32).reshape(-1, *data.shape[-ndim:])
    are_valid = is_valid.reshape(channels.shape)
    if len(channels) == 1:
        return channels[0], are_valid[0]
    return channels.mean(axis=0), np.logical_and.reduce(are_valid, axis=0)


def _in_scale(values: NDArray[np.float32], is_valid: NDArray[np.bool_], low: float, high: float) -> NDArray[np.float32]:
    """Numbers from 0 to 1; 0 where nothing was measured. In place: a large volume is not held twice."""
    values -= np.float32(low)
    values /= np.float32(high - low)
    np.clip(values, 0, 1, out=values)
    values[~is_valid] = 0
    return values


def _scale(values: Floats, is_valid: NDArray[np.bool_], modality: str) -> tuple[float, float]:
    if modality == "CT":
        return CT_WINDOW
    # Of a large volume every so many voxels tell the same.
    every = max(1, values.size // MOST_RANKED)
    ranked = values.ravel()[::every][is_valid.ravel()[::every]]
    low, high = np.percentile(ranked, PERCENTILES).tolist() if ranked.size else (0.0, 1.0)
    return low, high if high > low else low + 1


def _side(
    values: NDArray[np.float32], known: NDArray[np.bool_], grid: Geometry, spacing: float, centre: Floats
) -> PyramidSide:
    coarse = grid.resample(
        [max(spacing, step) if size > 1 else step for step, size in zip(grid.steps, grid.shape, strict=True)]
    )
    is_whole = bool(known.all())
    if is_whole:
        numbers = resampling.resample(values[None], coarse.shape)[0]
        weight = np.ones(coarse.shape, dtype=np.float32)
    else:
        measured, weight = resampling.resample(np.stack([values * known, known]), coarse.shape)
        numbers = measured / np.maximum(weight, 1e-3)
        weight = np.where(weight >= LEAST_SHARE, weight, 0).astype(np.float32)
    size = np.array(coarse.shape)
    to_index = np.linalg.inv(coarse.affine)
    # index = L (x + centre) + o; torch's place = (2 index + 1) / size - 1, last axis first
    linear = to_index[:-1, :-1] * 2 / size[:, None]
    shift = (2 * (to_index[:-1, :-1] @ centre + to_index[:-1, -1]) + 1) / size - 1
    to_grid = np.concatenate([linear, shift[:, None]], axis=1)[::-1].copy()
    intensities, weights = (
        torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float32)[None, None] for array in (numbers, weight)
    )
    return PyramidSide(coarse, intensities, weights, torch.as_tensor(to_grid, dtype=torch.float32), is_whole)


def level_spacings(grid: Geometry, levels: int, most: int) -> list[float]:
    """Spacings of the levels, the coarsest first: halved each time, the finest with at most so many voxels."""
    finest = min(step for step, size in zip(grid.steps, grid.shape, strict=True) if size > 1 or max(grid.shape) == 1)
    while math.prod(_sizes(grid, finest)) > most:
        finest *= 1.1
    return [finest * 2**level for level in reversed(range(levels))]


def _sizes(grid: Geometry, spacing: float) -> Sequence[float]:
    return [max(1.0, size * min(1.0, step / spacing)) for size, step in zip(grid.shape, grid.steps, strict=True)]


# Corners that an earlier program filled with a constant when it turned an image, or a scanner beyond its field.


def filled_corners(values: Floats, is_measured: NDArray[np.bool_], *, is_ct: bool) -> NDArray[np.bool_]:
    """(*spatial) voxels of one constant that reaches most corners, around a turned box or in CT below the HU of air."""
    corners = np.ix_(*[[0, -1] if size > 1 else [0] for size in values.shape])
    levels, counts = np.unique(values[corners], return_counts=True)
    level = levels[counts.argmax()]
    is_filled = np.zeros(values.shape, dtype=bool)
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
    sizes = _facets(hull.points[hull.simplices])
    normals = hull.equations[:, :-1]
    is_along = np.abs(normals).max(axis=1) > np.cos(np.radians(ALONG))
    is_near = np.abs(normals @ normals.T) > np.cos(np.radians(ONE_SIDE))  # opposite sides too
    flat = 0.0
    left = sizes.copy()
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

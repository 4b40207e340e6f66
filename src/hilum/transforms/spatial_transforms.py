"""Spatial transforms applied: points, images, label maps and boxes carried through them, inverses and Jacobians.

Every image is sampled by `_Sampler`, and every field by `displacements_at`: at any places, on any grid, slab by slab.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum.errors import GeometryError
from hilum.lazy import ndimage, torch
from hilum.transforms import augment_spatial, resampling
from hilum.transforms.resampling import Order
from hilum.values import Affine, Array, Deferred, Displacement, Floats, Geometry, Image, SpatialTransform
from hilum.values.grid_geometry import HEADER_ROUNDING

# Of the voxels that a new one is made of, the share that has to be measured.
MEASURED = 1 - 1e-3
# Places that are worked on together: each takes some hundred bytes on the way.
AT_ONCE = 2**20
# mm: what is left of |field(inverse(x)) - x| at every voxel of an inverted field.
INVERSE_TOLERANCE = 0.01
MOST_STEPS = 40


def carry_points(transform: SpatialTransform, points: ArrayLike) -> Floats:
    """(..., n) points of the fixed image to points of the moving one, mm."""
    places = np.asarray(points, dtype=np.float64)
    for part in transform.parts:
        match part:
            case Affine():
                places = places @ part.matrix[:-1, :-1].T + part.matrix[:-1, -1]
            case Displacement():
                places = places + displacements_at(part, places)
    return places


def displacements_at(field: Displacement, points: Floats) -> Floats:
    """(..., n) mm by which a field moves points."""
    index = field.geometry.to_index(points).reshape(-1, field.ndim).T
    ends = np.reshape(field.geometry.shape, (-1, 1)) - 0.5
    inside = np.logical_and.reduce((index >= -0.5) & (index <= ends), axis=0)
    moved = np.stack([_linear(one, index) for one in field.vectors], axis=-1) * inside[:, None]
    return cast("Floats", moved.reshape(np.shape(points)))


def compose_transforms(first: SpatialTransform, second: SpatialTransform) -> SpatialTransform:
    """The transform that applies one after the other."""
    return SpatialTransform((*first.parts, *second.parts), first.fixed, second.moving)


def invert_transform(transform: SpatialTransform) -> SpatialTransform:
    """The transform from the moving image to the fixed one: affine parts exactly, fields to 0.01 mm at their voxels.

    Raises GeometryError for a field that folds, with the place.
    """
    parts = [part.inverse if isinstance(part, Affine) else invert_field(part) for part in transform.parts[::-1]]
    return SpatialTransform(tuple(parts), transform.moving, transform.fixed)


def invert_field(field: Displacement) -> Displacement:
    """The field that moves everything back, on the same grid, by Newton's method at every voxel.

    Raises GeometryError where it folds: two points that come to lie on one have no inverse.
    """
    grid = field.geometry
    worst, where_worst = _lowest(field_determinants(field))
    if worst <= 0:
        at = ", ".join(f"{one:.1f}" for one in grid.to_world(where_worst))
        raise GeometryError(
            f"the field folds over itself at voxel {tuple(where_worst)} ({at} mm): its Jacobian is {worst:.2g} there",
            "inverse",
            "Register more smoothly, or use it in its own direction only",
        )
    back = -field.vectors.reshape(grid.ndim, -1).astype(np.float64)
    slopes = np.moveaxis(_slopes(field.vectors, grid).reshape(grid.ndim, grid.ndim, -1), -1, 0)
    for start in range(0, back.shape[1], AT_ONCE):
        part = np.arange(start, min(start + AT_ONCE, back.shape[1]))
        targets = grid.to_world(np.stack(np.unravel_index(part, grid.shape), axis=-1))
        back[:, part] = _solve(field, slopes, targets, back[:, part].T).T
    return Displacement(back.reshape(field.vectors.shape), grid)


def _solve(field: Displacement, slopes: Floats, targets: Floats, guess: Floats) -> Floats:
    """(points, n) displacements that lead back from each target, from a first guess.

    slopes: (voxels, n, n) derivatives of the field, by which steps are made; where one leads farther away it is halved
    """
    shape = np.array(field.geometry.shape)
    steps = guess.copy()
    last = np.linalg.norm(steps + displacements_at(field, targets + steps), axis=1)
    share = np.ones(len(steps))
    open_ones = np.arange(len(steps))
    tolerance = INVERSE_TOLERANCE / 4
    for _ in range(MOST_STEPS):
        open_ones = open_ones[last[open_ones] > tolerance]
        if not len(open_ones):
            break
        places = targets[open_ones] + steps[open_ones]
        error = steps[open_ones] + displacements_at(field, places)
        nearest = np.clip(np.rint(field.geometry.to_index(places)).astype(np.intp), 0, shape - 1)
        matrices = np.eye(field.ndim) + slopes[np.ravel_multi_index(tuple(nearest.T), field.geometry.shape)]
        change = np.linalg.solve(matrices, error[..., None])[..., 0] * share[open_ones, None]
        tried = steps[open_ones] - change
        left = np.linalg.norm(tried + displacements_at(field, targets[open_ones] + tried), axis=1)
        better = left < last[open_ones]
        steps[open_ones[better]] = tried[better]
        last[open_ones[better]] = left[better]
        share[open_ones] = np.where(better, np.minimum(1.0, 2 * share[open_ones]), share[open_ones] / 2)
    return steps


def _slopes(vectors: Floats, grid: Geometry) -> Floats:
    """(n, n, *spatial) mm a mm: the derivative of each component along each axis of the world."""
    by_index = np.stack([_gradient(one) for one in vectors])  # (component, index axis, ...)
    return cast(
        "Floats", np.einsum("ci...,iw->cw...", by_index, np.linalg.inv(grid.affine[:-1, :-1]).astype(np.float32))
    )


def _gradient(values: Array) -> Floats:
    """(n, *spatial) change a voxel, central; 0 along an axis of a single voxel."""
    slopes = [
        np.gradient(values, axis=axis) if size > 1 else np.zeros_like(values) for axis, size in enumerate(values.shape)
    ]
    return np.stack(slopes)


def field_determinants(field: Displacement) -> NDArray[np.float32]:
    """(*spatial) by how much the surroundings of each voxel grow; at or below 0 the field folds."""
    values = np.empty(field.geometry.shape, dtype=np.float32)
    count = max(1, AT_ONCE // math.prod(field.geometry.shape[1:]))
    for start in range(0, len(values), count):
        rows = slice(start, min(start + count, len(values)))
        near = slice(max(rows.start - 1, 0), min(rows.stop + 1, len(values)))  # a derivative needs both neighbours
        slopes = _slopes(field.vectors[:, near], field.geometry)[:, :, rows.start - near.start :][
            :, :, : rows.stop - start
        ]
        values[rows] = np.linalg.det(np.moveaxis(slopes, (0, 1), (-2, -1)) + np.eye(field.ndim))
    return values


def jacobian_determinants(transform: SpatialTransform, grid: Geometry) -> NDArray[np.float32]:
    """(*spatial) determinant at each voxel of a grid: 2 where a region is twice as large in the moving image."""
    matrix = transform.matrix
    if matrix is not None:
        return np.full(grid.shape, np.linalg.det(matrix), dtype=np.float32)
    return field_determinants(to_single_field(transform, grid))


def to_single_field(transform: SpatialTransform, grid: Geometry) -> Displacement:
    """The transform as a single field on a grid, its affine parts included."""
    vectors = np.empty((grid.ndim, *grid.shape), dtype=np.float32)
    for rows, points in _points(grid):
        vectors[:, rows] = np.moveaxis(carry_points(transform, points) - points, -1, 0)
    return Displacement(vectors, grid)


def join_fields(transform: SpatialTransform) -> SpatialTransform:
    """The transform with all its fields, and what lies between them, as one on the grid of the first: DICOM's form."""
    fields = [(place, part) for place, part in enumerate(transform.parts) if isinstance(part, Displacement)]
    if len(fields) < 2:
        return transform
    first, begun = fields[0]
    last, _ = fields[-1]
    joined = to_single_field(SpatialTransform(transform.parts[first : last + 1]), begun.geometry)
    return replace(transform, parts=(*transform.parts[:first], joined, *transform.parts[last + 1 :]))


def right_angled_field(curved: Displacement) -> Displacement:
    """A field on a grid whose axes are at right angles, which alone other programs read."""
    grid = curved.geometry
    if not grid.is_sheared:
        return curved
    turn, _ = np.linalg.qr(grid.affine[:-1, :-1])
    along_axes = grid.corners @ turn
    low, high = along_axes.min(axis=0), along_axes.max(axis=0)
    step = min(grid.steps)
    affine = np.eye(grid.ndim + 1)
    affine[:-1, :-1] = turn * step
    affine[:-1, -1] = turn @ low
    shape = tuple(int(one) for one in np.ceil((high - low) / step) + 1)
    return to_single_field(SpatialTransform((curved,)), Geometry(shape, affine))


def _lowest(values: NDArray[np.float32]) -> tuple[float, tuple[int, ...]]:
    index = np.unravel_index(int(values.argmin()), values.shape)
    return float(values[index]), tuple(int(one) for one in index)


def _slabs(grid: Geometry) -> Iterator[tuple[slice, list[Floats]]]:
    """(rows of the first axis, index along each axis, each along an axis of its own), slab after slab."""
    count = max(1, AT_ONCE // math.prod(grid.shape[1:]))
    for start in range(0, grid.shape[0], count):
        rows = slice(start, min(start + count, grid.shape[0]))
        axes = [np.arange(rows.start, rows.stop), *map(np.arange, grid.shape[1:])]
        yield rows, list(np.meshgrid(*(axis.astype(np.float64) for axis in axes), indexing="ij", sparse=True))


def _points(grid: Geometry) -> Iterator[tuple[slice, Floats]]:
    """(rows of the first axis, (rows, *rest, n) mm of their voxel centres), slab after slab."""
    for rows, axes in _slabs(grid):
        yield rows, grid.to_world(np.stack(np.broadcast_arrays(*axes), axis=-1))


def _places(transform: SpatialTransform, onto: Geometry, source: Geometry) -> Iterator[tuple[slice, Floats]]:
    """(rows, (n, rows, *rest) voxel index of the source that lies at each voxel of the new grid), slab after slab."""
    matrix = transform.matrix
    if matrix is None:
        for rows, points in _points(onto):
            yield rows, np.moveaxis(source.to_index(carry_points(transform, points)), -1, 0)
        return
    # From index to index at once: through points in mm, large volumes took most of their time.
    index_to_index = np.linalg.solve(source.affine, matrix @ onto.affine)
    for rows, axes in _slabs(onto):
        lines = [(zip(steps, axes, strict=True), start) for *steps, start in index_to_index[:-1]]
        yield rows, np.stack([sum((step * axis for step, axis in pairs), start) for pairs, start in lines])


def carry_image(
    image: Image,
    transform: SpatialTransform,
    onto: Geometry,
    order: Order = "linear",
    *,
    beyond: Literal["nothing", "edge"] = "nothing",
) -> Image:
    """A moving image on the grid of the fixed one; what it does not cover is NaN, so not `valid`.

    Nor is what is made of voxels that are no measurements. Cubic is the interpolating B-spline of Unser, IEEE Signal
    Process Mag 1999, doi:10.1109/79.799930. A label map goes through `carry_labels`.
    beyond: "edge": the image's edge goes on where it does not reach
    """
    image = image.with_pixels(image.data)  # read once: `valid` looks at the voxels too
    volumes = image.data.reshape(-1, *image.geometry.shape)
    is_valid = image.valid.reshape(volumes.shape)
    moved = np.empty((len(volumes), *onto.shape), dtype=np.float32)
    readers = [_Sampler(one, there, order) for one, there in zip(volumes, is_valid, strict=True)]
    for rows, places in _places(transform, onto, image.geometry):
        outside = ~_is_covered(image.geometry, places)
        for number, reader in enumerate(readers):
            part = reader.at(places)
            if beyond == "nothing":
                part[outside] = np.nan
            moved[number, rows] = part
    pixels = moved.reshape(*image.shape[: -image.geometry.ndim], *onto.shape)
    return replace(image, pixels=pixels, geometry=onto, padding=None)


def refuse_unreached(transform: SpatialTransform, moving: Image, fixed: Geometry, where: str) -> None:
    """GeometryError where no voxel of the fixed grid comes to lie in the moving image: all would be empty."""
    if not any(_is_covered(moving.geometry, places).any() for _, places in _places(transform, fixed, moving.geometry)):
        problem = "no voxel of the grid comes to lie in the image that is carried: the result would be empty"
        raise GeometryError(problem, where, "Give the transform of these two images, in this direction")


class _Sampler:
    """A volume that can be read at any place; beyond the outermost centres the edge goes on."""

    def __init__(self, values: Array, is_valid: NDArray[np.bool_], order: Order) -> None:
        self.degree = {"linear": 1, "cubic": 3}[order]
        self.share = None if is_valid.all() else is_valid.astype(np.float32)
        filled = values
        if self.share is not None:
            filled = np.where(is_valid, values, values[is_valid].mean() if is_valid.any() else 0)
        filled = filled.astype(np.float32)
        self.held = filled if self.degree == 1 else ndimage.spline_filter(filled, 3, output=np.float32, mode="mirror")
        self.top = np.array(values.shape) - 1
        self.plain = np.where(is_valid, values, 0).astype(np.float32) if self.share is not None else filled

    def at(self, places: Floats) -> NDArray[np.float32]:
        """(n, ...) voxel index to (...) values; NaN where they are made of what is no measurement."""
        if self.degree == 3:
            top = self.top.reshape(-1, *[1] * (places.ndim - 1))
            places = np.clip(places, 0, top)
            sampled_values = ndimage.map_coordinates(self.held, places, order=3, mode="mirror", prefilter=False)
        else:
            sampled_values = _linear(self.plain, places)
        if self.share is None:
            return np.asarray(sampled_values)
        share = _linear(self.share, places)
        scaled = sampled_values if self.degree == 3 else sampled_values / np.maximum(share, MEASURED)
        return np.where(share < MEASURED, np.float32(np.nan), scaled)


def _linear(values: Array, places: Floats) -> NDArray[np.float32]:
    return np.asarray(ndimage.map_coordinates(values, places, order=1, mode="nearest"))


def _is_covered(grid: Geometry, places: Floats) -> NDArray[np.bool_]:
    """Places that lie between the outermost centres of a grid, but for rounding."""
    covered = np.ones(places.shape[1:], dtype=bool)
    for size, step, positions in zip(grid.shape, grid.steps, places, strict=True):
        near = HEADER_ROUNDING / step
        covered &= (positions >= -near) & (positions <= size - 1 + near)
    return covered


def carry_labels(labels: Array, source: Geometry, transform: SpatialTransform, onto: Geometry) -> Array:
    """(..., *spatial) labels on another grid: at each voxel that with the largest share in it; 0 outside."""
    maps = labels.reshape(-1, *source.shape)
    numbers_found, numbers = np.unique(maps, return_inverse=True)
    values = np.concatenate(
        [np.zeros(1, numbers_found.dtype), numbers_found[numbers_found != 0]]
    )  # 0 is what lies outside, so it comes first
    in_values = np.where(numbers_found == 0, 0, np.cumsum(numbers_found != 0)).astype(np.int32)
    ranks = in_values[numbers].reshape(maps.shape)
    moved = np.zeros((len(maps), *onto.shape), dtype=labels.dtype)
    for rows, places in _places(transform, onto, source):
        for number, rank in enumerate(ranks):
            moved[number, rows] = values[_labels_at(rank, places)]
    return moved.reshape(*labels.shape[: -len(source.shape)], *onto.shape)


def _labels_at(labels: NDArray[np.int32], places: Floats) -> NDArray[np.intp]:
    """Labels at places, read from the part of the map that they need."""
    low = [max(0, math.floor(float(one.min())) - 1) for one in places]
    high = [min(size, math.ceil(float(one.max())) + 2) for one, size in zip(places, labels.shape, strict=True)]
    if any(end <= start for start, end in zip(low, high, strict=True)):
        return np.zeros(places.shape[1:], dtype=np.intp)
    part = labels[tuple(map(slice, low, high))]
    sizes = np.reshape(part.shape, (-1, *[1] * (places.ndim - 1)))
    # As torch counts: -1 to 1 from edge to edge, last axis first.
    grid = (2 * (places - np.reshape(low, sizes.shape)) + 1) / sizes - 1
    ordered = torch.as_tensor(np.moveaxis(grid[::-1], 0, -1).copy(), dtype=torch.float32)
    return (
        augment_spatial.sample_labels(torch.as_tensor(np.ascontiguousarray(part))[None], ordered[None])[0]
        .numpy()
        .astype(np.intp)
    )


def folded_percent(determinant: NDArray[np.float32], inside: NDArray[np.bool_] | None = None) -> float:
    """% of voxels at which a transform folds: those with a determinant at or below 0."""
    chosen = determinant if inside is None else determinant[inside]
    return 100.0 * float(np.mean(chosen <= 0)) if chosen.size else math.nan


def sd_log_jacobian(determinant: NDArray[np.float32], inside: NDArray[np.bool_] | None = None) -> float:
    """Standard deviation of the logarithm of the determinant, where above 0: how unevenly the image is stretched."""
    chosen = determinant if inside is None else determinant[inside]
    return float(np.log(chosen[chosen > 0]).std()) if (chosen > 0).any() else math.nan


def inverse_errors(forth: SpatialTransform, back: SpatialTransform, grid: Geometry) -> Iterator[Floats]:
    """mm by which points of a grid miss themselves when they go forth and back, slab after slab.

    Only where they come to lie within the moving image's grid, if it is known.
    """
    for _, points in _points(grid):
        forth_points = carry_points(forth, points)
        error = np.linalg.norm(carry_points(back, forth_points) - points, axis=-1)
        if forth.moving is not None:
            error = error[_is_covered(forth.moving, _index_first(forth.moving, forth_points))]
        yield error


def _index_first(grid: Geometry, points: Floats) -> Floats:
    return np.moveaxis(grid.to_index(points), -1, 0)


def refuse_unlike_axes(grids: Sequence[Geometry], where: str) -> None:
    """Raise GeometryError for a picture with a volume."""
    if len({grid.ndim for grid in grids}) > 1:
        counts = " and ".join(f"{grid.ndim} axes" for grid in grids)
        raise GeometryError(f"images of {counts} cannot lie on one another", where, "Give two volumes or two pictures")


def align_to_grid(image: Image, geometry: Geometry, where: str) -> Image:
    """The image sampled at the voxel centres of `geometry`, linearly; what it does not cover is NaN, so not `valid`.

    Nor is what is made of voxels that are no measurements. Nothing is registered: both must lie in the same world.
    Raises GeometryError where they do not, or where the size or sides of one are not known.
    """
    for grid in (image.geometry, geometry):
        if not (grid.physical and grid.oriented):
            raise GeometryError(
                "a grid without spacing or orientation",
                where,
                "Give images with a position in the patient: only these can be aligned",
            )
    frames = {image.geometry.frame_of_reference, geometry.frame_of_reference} - {None}
    if len(frames) > 1:
        raise GeometryError(
            "the images lie in different frames of reference",
            where,
            "Register them: --align register; the headers alone do not say how they lie",
        )
    if image.geometry.equals(geometry):
        return image
    moved = carry_image(image, SpatialTransform((), geometry, image.geometry), geometry)
    return replace(moved, notes=(*image.notes, "resampled onto another image's grid"))


def fit_to_grid(image: Image, geometry: Geometry, where: str) -> Image:
    """The image as large as it fits on the middle of another grid, its proportions kept; beyond it is NaN, not `valid`.

    They are those in mm where both grids state mm, else those in voxels; the place of neither image counts, and only
    volumes that know their sides are turned alike. Nothing says any more how large a voxel of the image was.
    Raises GeometryError for a picture with a volume.
    """
    refuse_unlike_axes([geometry, image.geometry], where)
    image = image.on_axes_of(geometry)
    grids = (image.geometry, geometry)
    in_mm = all(grid.physical for grid in grids)
    own, onto = (np.asarray(grid.steps) if in_mm else np.ones(grid.ndim) for grid in grids)
    lengths = np.asarray(image.geometry.shape) * own
    factor = (np.asarray(geometry.shape) * onto / lengths).min()
    sizes = np.clip(np.rint(lengths * factor / onto).astype(int), 1, geometry.shape)
    shape = (*image.shape[: -geometry.ndim], *geometry.shape)
    fitted = partial(_fitted_pixels, image, tuple(sizes.tolist()), shape)
    return replace(image, pixels=Deferred(shape, np.dtype(np.float32), fitted), geometry=geometry, padding=None)


def _fitted_pixels(image: Image, sizes: tuple[int, ...], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The pixels resampled to these sizes, in the middle of an array of this shape that is NaN elsewhere."""
    image = image.with_pixels(image.data)  # read once: `valid` looks at the voxels too
    flat, valid = (one.reshape(-1, *image.geometry.shape) for one in (image.data, image.valid))
    share = resampling.resample(valid.astype(np.float32), sizes)
    values = resampling.resample(np.where(valid, flat, 0).astype(np.float32), sizes)
    fitted = np.full((len(flat), *shape[-len(sizes) :]), np.nan, dtype=np.float32)
    starts = [(whole - size) // 2 for whole, size in zip(shape[-len(sizes) :], sizes, strict=True)]
    inside = tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
    fitted[(slice(None), *inside)] = np.where(share < MEASURED, np.nan, values / np.maximum(share, MEASURED))
    return fitted.reshape(shape)

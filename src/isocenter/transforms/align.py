"""Resampling of an image onto the grid of another, by their places in the patient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import GeometryError
from isocenter.lazy import ndimage
from isocenter.values import HEADER_ROUNDING, Array, Floats, Geometry, Image

# Of the voxels that a new one is made of, the share that has to be measured.
MEASURED = 1 - 1e-3


def aligned(image: Image, geometry: Geometry, where: str) -> Image:
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
            "the images lie in different frames of reference", where, "Register them first: aligning would be a guess"
        )
    if image.geometry.equals(geometry):
        return image
    image = image.with_pixels(image.data)  # read once: `valid` looks at the voxels too
    to_source = np.linalg.inv(image.geometry.affine) @ geometry.affine
    flat, known = (one.reshape(-1, *image.geometry.shape) for one in (image.data, image.valid))
    sampled = [_sampled(one, there, to_source, geometry.shape) for one, there in zip(flat, known, strict=True)]
    pixels = np.stack(sampled).reshape(*image.shape[: -image.geometry.ndim], *geometry.shape)
    pixels[..., ~_covered(image.geometry, to_source, geometry.shape)] = np.nan
    return replace(
        image,
        pixels=pixels,
        geometry=geometry,
        padding=None,
        notes=(*image.notes, "resampled onto another image's grid"),
    )


def _sampled(values: Array, known: NDArray[np.bool_], to_source: Floats, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """(*shape) means of the neighbours by linear weights; NaN where they are no measurements, in part or all."""
    linear, offset = to_source[:-1, :-1], to_source[:-1, -1]

    def means(of: Array) -> NDArray[np.float32]:
        """Means by linear weights; beyond the outermost centres the edge goes on."""
        return np.asarray(ndimage.affine_transform(of, linear, offset, shape, order=1, mode="nearest"))

    if known.all():
        return means(values.astype(np.float32))
    share = means(known.astype(np.float32))
    made = means(np.where(known, values, 0).astype(np.float32)) / np.maximum(share, MEASURED)
    return np.where(share < MEASURED, np.float32(np.nan), made)


def _covered(grid: Geometry, to_source: Floats, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """(*shape) which centres lie between the outermost ones of a grid, but for the rounding of their places."""
    covered = np.ones(shape, dtype=bool)
    others = np.ogrid[tuple(slice(size) for size in shape[1:])]
    for size, step, (first, *rest, offset) in zip(grid.shape, grid.steps, to_source[:-1], strict=True):
        near, plane = HEADER_ROUNDING / step, sum(factor * one for factor, one in zip(rest, others, strict=True))
        for row in range(shape[0]):  # the places of all rows together would be larger than the image
            place = plane + (first * row + offset)
            covered[row] &= (place >= -near) & (place <= size - 1 + near)
    return covered

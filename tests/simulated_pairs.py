"""Pairs of small images with a known motion between them, and grids on which other programs judge ours."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from hilum.transforms import augment_spatial, spatial_transforms
from hilum.values import Affine, Displacement, Geometry, Image, SpatialTransform

SIDE = 24


def oblique(shape: tuple[int, ...] = (20, 24, 18), *, left_handed: bool = True) -> Geometry:
    """An oblique grid of uneven spacing, left-handed unless told otherwise."""
    turn = augment_spatial.rotation_matrix(np.radians([20.0, -15.0, 10.0]), 3)
    steps = np.diag([1.1, 0.9, -1.4 if left_handed else 1.4])
    affine = np.eye(4)
    affine[:3, :3] = turn @ steps
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2) + (12.0, -30.0, 55.0)
    return Geometry(shape, affine)


def blobs(geometry: Geometry, seed: int = 0) -> Image:
    """Smooth structures of several sizes, brighter in the middle of the grid."""
    noise = np.random.default_rng(seed).normal(size=geometry.shape)
    values = sum(ndimage.gaussian_filter(noise, sigma) * sigma**1.5 for sigma in (1.5, 3.0))
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"))
    middle = np.reshape((np.array(geometry.shape) - 1) / 2, (-1, *[1] * geometry.ndim))
    apart = (((index - middle) / np.reshape(geometry.shape, middle.shape)) ** 2).sum(axis=0)
    return Image((100 * (values + 2 * np.exp(-8 * apart)))[None].astype(np.float32), geometry)


def smooth_field(grid: Geometry, most: float, seed: int = 1) -> Displacement:
    """A field that reaches `most` mm and ends at the edge of its grid."""
    noise = np.random.default_rng(seed).normal(size=(grid.ndim, *grid.shape))
    bent = np.stack([ndimage.gaussian_filter(one, 4) for one in noise])
    for axis, size in enumerate(grid.shape):
        fade = np.minimum(np.minimum(np.arange(size), np.arange(size)[::-1]) / 4, 1)
        bent = bent * fade.reshape([-1 if a == axis else 1 for a in range(grid.ndim)])
    return Displacement(most * bent / np.abs(bent).max(), grid)


def pair_of(true: SpatialTransform) -> tuple[Image, Image]:
    """Both images of one scene that goes on beyond them, the moving one where the transform leads to."""
    fixed, moving = true.fixed, true.moving
    assert fixed is not None
    assert moving is not None
    more = tuple(size // 2 for size in fixed.shape)
    scene = blobs(fixed.pad(more, more))
    made = spatial_transforms.carry_image(scene, SpatialTransform((), fixed, scene.geometry), fixed, "cubic")
    moved = spatial_transforms.carry_image(scene, spatial_transforms.invert_transform(true), moving, "cubic")
    return made, moved.with_pixels(np.nan_to_num(moved.data, nan=float(np.nanmin(moved.data))))


def turn_and_shift(degrees: tuple[float, float, float], shift: tuple[float, float, float], about: Geometry) -> Affine:
    """A rigid motion about the middle of a grid."""
    matrix, centre = np.eye(4), about.corners.mean(axis=0)
    matrix[:3, :3] = augment_spatial.rotation_matrix(np.radians(degrees), 3)
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + shift
    return Affine(matrix)

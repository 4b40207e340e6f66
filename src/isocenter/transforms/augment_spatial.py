"""Where voxels are read from: mirrored, turned, scaled, shifted, bent; image and label through the same grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isocenter.lazy import torch
from isocenter.transforms.resample import resample

if TYPE_CHECKING:
    from torch import Tensor

# Control points of a bend along each axis.
POINTS = 5
# Slices this many times as far apart as the finest voxels are not read between: the image there would be invented.
# nnU-Net draws the same line, doi:10.1038/s41592-020-01008-z
THICK = 3.0

Floats = NDArray[np.float64]


def flipped(images: Tensor, mirrored: NDArray[np.bool_]) -> Tensor:
    """(samples, ..., *spatial) with those axes mirrored that (samples, ndim) says, to the bit."""
    first = images.ndim - mirrored.shape[1]
    for axis, chosen in enumerate(mirrored.T):
        if chosen.any():
            mask = torch.as_tensor(chosen, device=images.device).reshape(-1, *[1] * (images.ndim - 1))
            images = torch.where(mask, images.flip(first + axis), images)
    return images


def turned(images: Tensor, turns: NDArray[np.intp], ndim: int) -> Tensor:
    """Each sample turned by its number of quarter turns in the plane of the first two axes, to the bit."""
    first = images.ndim - ndim
    for number in (1, 2, 3):
        if (turns == number).any():
            mask = torch.as_tensor(turns == number, device=images.device).reshape(-1, *[1] * (images.ndim - 1))
            images = torch.where(mask, images.rot90(number, (first, first + 1)), images)
    return images


def sides_changed(labels: Tensor, crossed: Tensor, mirrored: Sequence[int]) -> Tensor:
    """Label values of the samples that crossed, permuted; values that the permutation does not know stay."""
    table = torch.as_tensor(mirrored, dtype=torch.long, device=labels.device)
    known = (labels >= 0) & (labels < len(mirrored))
    swapped = table[torch.where(known, labels, 0).long()].to(labels.dtype)
    return torch.where(known & crossed.reshape(-1, *[1] * (labels.ndim - 1)), swapped, labels)


def sampling_grid(maps: Floats, shifts: Floats, sizes: Floats, images: Tensor) -> Tensor:
    """(samples, *spatial, ndim) where to read each voxel, as torch counts: -1 to 1 from edge to edge, last axis first.

    maps:   (samples, ndim, ndim) linear map in mm about the centre
    shifts: (samples, ndim) as a share of the field
    sizes:  (ndim,) mm from edge to edge
    """
    ndim = len(sizes)
    theta = np.concatenate([maps * sizes[None, None, :] / sizes[None, :, None], 2 * shifts[:, :, None]], axis=2)
    theta = theta[:, ::-1, [*range(ndim - 1, -1, -1), ndim]].copy()
    return torch.nn.functional.affine_grid(
        torch.as_tensor(theta, dtype=torch.float32, device=images.device),
        [len(maps), 1, *images.shape[-ndim:]],
        align_corners=False,
    )


def bent(grid: Tensor, points: Floats) -> Tensor:
    """The grid with a smooth field of displacements added.

    points: (samples, ndim, POINTS...) displacement of the control points, as a share of the field
    """
    *spatial, ndim = grid.shape[1:]
    coarse = torch.as_tensor(2 * points[:, ::-1].copy(), dtype=grid.dtype, device=grid.device)
    fine = resample(coarse.reshape(-1, *[POINTS] * ndim), spatial, "cubic")
    return grid + fine.reshape(len(points), ndim, *spatial).movedim(1, -1)


def read(images: Tensor, grid: Tensor) -> Tensor:
    """(samples, channels, *spatial) intensities, linear in between; beyond the edge the edge goes on."""
    return torch.nn.functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def read_labels(labels: Tensor, grid: Tensor) -> Tensor:
    """(samples, *spatial) labels, of the nearest voxel; beyond the edge there is background."""
    moved = torch.nn.functional.grid_sample(
        labels[:, None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False
    )
    return moved[:, 0].to(labels.dtype)


def rotation(angles: Floats, ndim: int) -> Floats:
    """(ndim, ndim) rotation about z, then y, then x; in 2D by the first angle alone."""
    (sz, sy, sx), (cz, cy, cx) = np.sin(angles), np.cos(angles)
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    if ndim == 2:
        return about_z[:2, :2]
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    return about_x @ about_y @ about_z


def thick(steps: Floats) -> NDArray[np.bool_]:
    """(ndim,) the axes along which nothing is read in between; never in a picture, where nothing lies in between."""
    return (steps > THICK * steps.min()) & (len(steps) > 2)


def out_of_plane(still: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(3,) which of the rotations about z, y and x lead along an axis that stays still."""
    first, second, third = np.resize(still, 3)
    return np.array([first | second, first | third, second | third])

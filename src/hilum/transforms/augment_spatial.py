"""Sampling grids for mirroring, rotation, scale, shift and bending, shared by image and label."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from hilum.lazy import torch
from hilum.transforms import resampling

if TYPE_CHECKING:
    from torch import Tensor

# Control points of a bend along each axis.
POINTS = 5
# Of neighbouring control points: the most that one may be moved towards the other, as a share of their distance, so
# that the image never folds over itself (0 of 3000 sampled fields in two and three dimensions).
STEEPEST = 0.5
# Slices this many times as far apart as the finest voxels are not read between: the image there would be invented.
# nnU-Net has the same limit, doi:10.1038/s41592-020-01008-z
THICK = 3.0

# The rotations about z, y and x, each by the axis that turns and the axis that it turns to.
PLANES = ((0, 1), (2, 0), (1, 2))

Floats = NDArray[np.float64]


def flip_samples(images: Tensor, mirrored: NDArray[np.bool_]) -> Tensor:
    """(samples, ..., *spatial) with those axes mirrored that (samples, ndim) says, to the bit."""
    first = images.ndim - mirrored.shape[1]
    for axis, chosen in enumerate(mirrored.T):
        if chosen.any():
            mask = torch.as_tensor(chosen, device=images.device).reshape(-1, *[1] * (images.ndim - 1))
            images = torch.where(mask, images.flip(first + axis), images)
    return images


def turn_samples(images: Tensor, turns: NDArray[np.intp], ndim: int) -> Tensor:
    """Each sample turned by its number of quarter turns in the plane of the first two axes, to the bit."""
    first = images.ndim - ndim
    for number in (1, 2, 3):
        if (turns == number).any():
            mask = torch.as_tensor(turns == number, device=images.device).reshape(-1, *[1] * (images.ndim - 1))
            images = torch.where(mask, images.rot90(number, (first, first + 1)), images)
    return images


def permute_sides(labels: Tensor, crossed: Tensor, mirrored: Sequence[int]) -> Tensor:
    """Label values of the samples that crossed, permuted; values that the permutation does not know stay."""
    table = torch.as_tensor(mirrored, dtype=torch.long, device=labels.device)
    is_label = (labels >= 0) & (labels < len(mirrored))
    swapped = table[torch.where(is_label, labels, 0).long()].to(labels.dtype)
    return torch.where(is_label & crossed.reshape(-1, *[1] * (labels.ndim - 1)), swapped, labels)


def sampling_grid(maps: Floats, shifts: Floats, sizes: Floats, images: Tensor) -> Tensor:
    """(samples, *spatial, ndim) where to read each voxel, as torch counts: -1 to 1 from edge to edge, last axis first.

    maps:   (samples, ndim, ndim) linear map in mm about the centre
    shifts: (samples, ndim) as a share of the field
    sizes:  (ndim,) mm from edge to edge
    """
    ndim = len(sizes)
    theta = np.concatenate([maps * sizes[None, None, :] / sizes[None, :, None], 2 * shifts[:, :, None]], axis=2)
    theta = theta[:, ::-1, [*range(ndim - 1, -1, -1), ndim]].copy()
    if ndim == 1:  # torch knows pictures and volumes
        places = torch.as_tensor((2 * np.arange(images.shape[-1]) + 1) / images.shape[-1] - 1)
        factor, shift = torch.as_tensor(theta).movedim(2, 0)
        return cast("Tensor", (factor * places + shift)[..., None].to(images.device, torch.float32))
    return torch.nn.functional.affine_grid(
        torch.as_tensor(theta, dtype=torch.float32, device=images.device),
        [len(maps), 1, *images.shape[-ndim:]],
        align_corners=False,
    )


def bend_grid(grid: Tensor, points: Floats) -> Tensor:
    """The grid with a smooth field of displacements added.

    points: (samples, ndim, POINTS...) displacement of the control points, as a share of the field
    """
    *spatial, ndim = grid.shape[1:]
    coarse = torch.as_tensor(2 * points[:, ::-1].copy(), dtype=grid.dtype, device=grid.device)
    fine = resampling.resample(coarse.reshape(-1, *[POINTS] * ndim), spatial, "cubic")
    return cast("Tensor", grid + fine.reshape(len(points), ndim, *spatial).movedim(1, -1))


def weaken_folds(points: Floats) -> Floats:
    """(ndim, POINTS...) displacements of one sample's control points, all weakened where the image would fold."""
    steepest = max(abs(np.diff(points, axis=axis)).max() for axis in range(1, points.ndim)) * POINTS
    return cast("Floats", points * min(1.0, STEEPEST / max(steepest, 1e-9)))


def sample_intensities(images: Tensor, grid: Tensor) -> Tensor:
    """(samples, channels, *spatial) intensities, linear in between; beyond the edge the edge goes on."""
    return sample_at_grid(images, grid, "bilinear", "border")


def sample_at_grid(images: Tensor, grid: Tensor, mode: str, padding: str) -> Tensor:
    """(samples, channels, *spatial) at a grid's places; a series is read as a picture of one row."""
    if grid.shape[-1] > 1:
        return torch.nn.functional.grid_sample(images, grid, mode=mode, padding_mode=padding, align_corners=False)
    row = torch.cat([grid, torch.zeros_like(grid)], dim=-1)[:, None]
    return sample_at_grid(images[:, :, None], row, mode, padding)[:, :, 0]


def clamp_grid(grid: Tensor, spatial: Sequence[int]) -> Tensor:
    """The grid with places beyond the edge moved to the nearest voxel: what is read so goes on as images do."""
    most = 1 - 1 / torch.tensor(list(spatial)[::-1], dtype=grid.dtype, device=grid.device)
    return torch.minimum(torch.maximum(grid, -most), most)


def sample_labels(labels: Tensor, grid: Tensor) -> Tensor:
    """(samples, *spatial) at each place the label with the largest share in it; beyond the edge there is 0.

    What reading a one-hot volume linearly would give, found among the 2^n voxels around a place, so that the number of
    labels costs nothing. The nearest voxel alone serves thin structures worse: retinal vessels turned so agree with a
    map three times as fine at a Dice of 0.91, at 0.90 with the nearest.
    """

    def nearest(values: Tensor) -> Tensor:
        """Values of the nearest voxels."""
        return sample_at_grid(values[:, None].float(), grid, "nearest", "zeros")[:, 0]

    moved = nearest(labels).to(labels.dtype)
    # Where all around the nearest voxel is of one label, so is the place.
    unsure = torch.nonzero(nearest(_borders(labels)), as_tuple=True)
    if len(unsure[0]):
        moved[unsure] = _largest_share(labels, grid[unsure], unsure[0])
    return moved


def _borders(labels: Tensor) -> Tensor:
    """(samples, *spatial) voxels with another label, or the edge of the image, among their neighbours."""
    low = high = torch.nn.functional.pad(labels, (1, 1) * (labels.ndim - 1))
    for axis, size in enumerate(labels.shape[1:], start=1):
        lows, highs = ([one.narrow(axis, start, size) for start in range(3)] for one in (low, high))
        low = torch.minimum(torch.minimum(lows[0], lows[1]), lows[2])
        high = torch.maximum(torch.maximum(highs[0], highs[1]), highs[2])
    return low != high


def _largest_share(labels: Tensor, places: Tensor, samples: Tensor) -> Tensor:
    """(places,) the label that weighs most among the voxels around each of (places, ndim), linearly.

    samples: (places,) in which of the label maps it lies
    All corners at once: a GPU waits for each operation that it is given, however small.
    """
    index = samples
    weight = places.new_ones(len(places))
    inside = torch.ones_like(samples, dtype=torch.bool)
    for axis, size in enumerate(labels.shape[1:]):
        centre = ((places[:, -1 - axis] + 1) * size - 1) / 2
        lower = centre.floor().long()
        voxel = torch.stack([lower, lower + 1])
        # The corners so far, (..., places), before this axis's lower and upper neighbour: (..., 2, places)
        index = index[..., None, :] * size + voxel.clamp(0, size - 1)
        inside = inside[..., None, :] & (voxel >= 0) & (voxel < size)
        weight = weight[..., None, :] * (1 - (centre - voxel).abs())
    around = (labels.flatten()[index] * inside).reshape(-1, len(places))
    share = weight.reshape(-1, len(places))
    votes = torch.stack([(share * (around == one)).sum(dim=0) for one in around])
    return around.gather(0, votes.argmax(dim=0)[None])[0]


def rotation_matrix(angles: Floats, ndim: int) -> Floats:
    """(ndim, ndim) rotation about z, then y, then x; in 2D by the first angle alone; a series cannot be turned."""
    turns: list[Floats] = []
    for (first, second), sine, cosine in zip(PLANES, np.sin(angles), np.cos(angles), strict=False):
        if max(first, second) < ndim:
            turn = np.eye(ndim)
            turn[first, first] = turn[second, second] = cosine
            turn[first, second] = -sine
            turn[second, first] = sine
            turns.insert(0, turn)
    return reduce(np.matmul, turns) if turns else np.eye(ndim)


def shear_matrix(strength: float, still: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """(ndim, ndim) map that moves one axis along the others by up to `strength` of their length; areas stay the same.

    still: (ndim,) the axes that take no part
    """
    ndim = len(still)
    moved = int(rng.integers(ndim))
    amounts = rng.uniform(-strength, strength, size=ndim)
    turn = np.eye(ndim)
    turn[moved] += np.where(still | still[moved] | (np.arange(ndim) == moved), 0, amounts)
    return turn


def thick_axes(steps: Floats) -> NDArray[np.bool_]:
    """(ndim,) the axes along which nothing is read in between; never in a picture, where nothing lies in between."""
    return cast("NDArray[np.bool_]", (steps > THICK * steps.min()) & (len(steps) > 2))


def out_of_plane_turns(still: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(3,) which of the rotations about z, y and x lead along an axis that stays still."""
    first, second, third = np.resize(still, 3)
    return np.array([first | second, first | third, second | third])

"""Rigid and affine registration: several starts scored on the coarsest grid, the best followed to the finest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from hilum.lazy import torch
from hilum.registration._pyramid import NO_OVERLAP, ImagePair, PyramidLevel
from hilum.registration.similarity_measures import Similarity
from hilum.transforms import augment_spatial
from hilum.values import Affine, Floats, Geometry

if TYPE_CHECKING:
    from torch import Tensor

Initial = Literal["world", "centres", "moments"]
# Turns that are tried, in degrees: in a picture all around, in a volume about each axis.
PICTURE_TURNS = tuple(range(-150, 181, 30))
VOLUME_TURNS = (-30, 30)
# Degrees: patients lie on two tables less far apart than this. A larger turn more often fits noise.
USUAL_TURN = 45.0
# Of the other image's extent along an axis: one that is shorter may show any part of it, and also begins shifted.
SHORTER = 0.75
# Starts that are followed on the coarsest grid, and steps there and on each finer one.
FOLLOWED = 4
COARSE_STEPS = 60
FINE_STEPS = 40
# mm of a step at the edge of the image, as a share of the grid's spacing: at the start and at the end of a level.
RATE = 0.4
LAST_RATE = 0.02
# A level is done where no step of so many has lowered the loss by this share of it.
PATIENCE = 12
LEAST_GAIN = 2e-3


class Plateau:
    """Watches a loss: reached where so many steps have not made it smaller by so much."""

    def __init__(self) -> None:
        self.lowest = math.inf
        self.since = 0

    def is_reached(self, loss: float) -> bool:
        """Whether to stop after this step."""
        if loss < self.lowest - LEAST_GAIN * abs(self.lowest if math.isfinite(self.lowest) else 0.0):
            self.lowest = loss
            self.since = 0
        else:
            self.since += 1
        return self.since >= PATIENCE


@dataclass(frozen=True, eq=False)
class FirstGuess:
    """A first guess. matrix: (n, n) and shift: (n,) from mm relative to the fixed centre to the moving one's"""

    name: str
    matrix: Floats
    shift: Floats
    loss: float = math.inf

    def mirror(self, mirror: Floats) -> FirstGuess:
        """The same guess of a moving image that is mirrored about its centre."""
        return FirstGuess(self.name, mirror @ self.matrix, mirror @ self.shift)

    def affine(self, pair: ImagePair) -> Affine:
        """Affine from RAS+ mm to RAS+ mm."""
        matrix = np.eye(len(self.shift) + 1)
        matrix[:-1, :-1] = self.matrix
        matrix[:-1, -1] = pair.moving_centre + self.shift - self.matrix @ pair.fixed_centre
        return Affine(matrix)


def first_guesses(pair: ImagePair, initials: Sequence[Initial]) -> Iterator[FirstGuess]:
    """Every first guess: the world's own axes, both centres, or both centres of mass, and turns about these."""
    ndim = pair.fixed_grid.ndim
    for name in initials:
        if name == "world":
            yield FirstGuess(name, np.eye(ndim), pair.fixed_centre - pair.moving_centre)
            continue
        ours: Floats = np.zeros(ndim)
        theirs: Floats = np.zeros(ndim)
        if name == "moments":
            ours = _mass(np.where(pair.fixed_known, pair.fixed, 0), pair.fixed_grid) - pair.fixed_centre
            # The moving image is already 0 where it is not known.
            theirs = _mass(pair.moving, pair.moving_grid) - pair.moving_centre
        for turn in _turns(ndim, flat=min(pair.fixed_grid.shape) == 1):
            yield FirstGuess(name, turn, theirs - turn @ ours)
        if name == "centres":
            yield from (FirstGuess(name, np.eye(ndim), shift) for shift in _shifts(pair))


def _shifts(pair: ImagePair) -> Iterator[Floats]:
    """Shifts in mm along axes in which one image is much shorter, by thirds of it, until one lies beyond the other."""
    extents = (np.ptp(grid.corners, axis=0) for grid in (pair.fixed_grid, pair.moving_grid))
    for axis, (short, long) in enumerate(np.sort(list(extents), axis=0).T.tolist()):
        if 0 < short < SHORTER * long:
            count = math.ceil((long - short) / 2 / (short / 3)) + 1
            yield from (number * short / 3 * np.eye(pair.fixed_grid.ndim)[axis] for number in range(-count, count + 1))


def _turns(ndim: int, *, flat: bool) -> Iterator[Floats]:
    """Rotations, the identity among them: in a plane all around, in space about each axis."""
    if ndim == 2 or flat:
        yield from (augment_spatial.rotation_matrix(np.radians([angle, 0.0, 0.0]), ndim) for angle in PICTURE_TURNS)
        return
    yield np.eye(ndim)
    for axis, angle in product(range(3), VOLUME_TURNS):
        yield augment_spatial.rotation_matrix(np.radians(angle) * np.eye(3)[axis], ndim)


def _mass(mass: NDArray[np.float32], grid: Geometry) -> Floats:
    """(n,) mm: the centre of mass of the intensities."""
    total = float(mass.sum(dtype=np.float64)) or 1.0
    index = [
        float(
            (mass.sum(axis=tuple(other for other in range(mass.ndim) if other != axis)) * np.arange(size)).sum() / total
        )
        for axis, size in enumerate(mass.shape)
    ]
    return grid.to_world(index)


def rotation_degrees(matrix: Floats) -> float:
    """Angle in degrees of the rotation in a linear map of two or three axes, its stretch apart."""
    left, _, right = np.linalg.svd(matrix)
    cosine = (np.trace(left @ right) - (len(matrix) - 2)) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def best_first_guess(
    pair: ImagePair,
    level: PyramidLevel,
    guesses: Sequence[FirstGuess],
    similarity: Similarity,
    *,
    followed: int = FOLLOWED,
    steps: int = COARSE_STEPS,
) -> FirstGuess:
    """The guess that leads to the lowest loss on a level, by a rigid motion; an endless loss where none overlaps."""
    with torch.no_grad():
        losses = [float(level.loss(_places(level.points, one), similarity)) for one in guesses]
    order = sorted((number for number, loss in enumerate(losses) if loss < NO_OVERLAP), key=losses.__getitem__)
    ends = [descend_from_guess(level, guesses[one], similarity, rigid=True, steps=steps) for one in order[:followed]]
    return min(ends, key=lambda one: one.loss, default=replace(guesses[0], loss=math.inf))


def _places(points: Tensor, start: FirstGuess) -> Tensor:
    return points @ torch.as_tensor(start.matrix.T.copy(), dtype=points.dtype) + torch.as_tensor(
        start.shift, dtype=points.dtype
    )


def descend_from_guess(
    level: PyramidLevel, start: FirstGuess, similarity: Similarity, *, rigid: bool, steps: int
) -> FirstGuess:
    """The start moved downhill by Adam, with a step that falls: a rotation, or any linear map, and a shift."""
    ndim = level.fixed.grid.ndim
    points = level.points
    radius = (
        float(points.reshape(-1, ndim).norm(dim=1).quantile(0.9))
        if points.numel() < 2**24
        else float(points.abs().amax())
    )
    radius = max(radius, 1e-3)
    within = torch.as_tensor(_plane(level.fixed.grid), dtype=torch.float32)
    count = ndim * (ndim - 1) // 2 if rigid else ndim * ndim
    turn = torch.zeros(count, requires_grad=True)
    shift = torch.zeros(ndim, requires_grad=True)
    first = torch.as_tensor(start.matrix, dtype=torch.float32)
    offset = torch.as_tensor(start.shift, dtype=torch.float32)
    step = max(level.fixed.grid.steps)
    optimiser = torch.optim.Adam([turn, shift], lr=RATE * step, betas=(0.9, 0.95))
    best = (first.clone(), offset.clone())
    lowest = math.inf
    plateau = Plateau()
    for number in range(steps):
        share = number / max(steps - 1, 1)
        optimiser.param_groups[0]["lr"] = step * RATE * (LAST_RATE / RATE) ** share
        matrix = torch.matrix_exp(within @ _generator(turn / radius, ndim) @ within) @ first
        loss = level.loss(points @ matrix.T + offset + shift, similarity)
        value = float(loss.detach())
        if value < lowest:
            lowest = value
            best = (matrix.detach().clone(), (offset + shift).detach().clone())
        if plateau.is_reached(value) and number > steps // 2:  # the first steps are long, and lead past the best
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return FirstGuess(start.name, best[0].double().numpy(), best[1].double().numpy(), lowest)


def _plane(grid: Geometry) -> Floats:
    """(n, n) projection onto the axes along which the grid has several voxels: a slice stays in its plane."""
    axes = grid.affine[:-1, :-1][:, [size > 1 for size in grid.shape]]
    return axes @ np.linalg.pinv(axes)


def _generator(numbers: Tensor, ndim: int) -> Tensor:
    """(n, n) whose exponential is a rotation for n (n - 1) / 2 numbers, any linear map for n n."""
    matrix = torch.zeros(ndim, ndim)
    if len(numbers) == ndim * ndim:
        return matrix + numbers.reshape(ndim, ndim)
    rows, columns = torch.triu_indices(ndim, ndim, 1)
    upper = matrix.index_put((rows, columns), numbers)
    return upper - upper.T

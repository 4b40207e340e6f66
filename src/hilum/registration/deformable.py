"""Deformable registration: a stationary velocity, whose exponential is smooth and has an inverse.

Arsigny et al., MICCAI 2006, doi:10.1007/11866565_113. The velocity stands on half the grid of the fixed image and a
margin around it, and is zero at the margin's edge, so that the field ends softly outside of the image.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import numpy as np

from hilum.lazy import torch
from hilum.registration import similarity_measures
from hilum.registration._pyramid import PyramidLevel
from hilum.registration.linear import FirstGuess, Plateau
from hilum.registration.similarity_measures import Similarity
from hilum.values import Displacement, Floats, Geometry

if TYPE_CHECKING:
    from torch import Tensor

# Times that a small displacement is composed with itself: 2**5 steps of a path.
SQUARINGS = 5
# Of each side of the fixed image, the margin in which the field falls to zero.
MARGIN = 0.12
# Nodes of the grid: the velocity is a Gaussian mean of what is fitted, so that each step is smooth.
SMOOTHING = 1.0
# Voxels of a step at the beginning and the end of a level.
RATE = 0.25
LAST_RATE = 0.05
# Steps on each level, the coarsest first.
STEPS = (60, 60, 60)
# Weight of the diffusion energy beside each similarity: on six pairs of MR, half and twice as much are no better.
SMOOTHNESS = {"lncc": 0.5, "mse": 0.1, "mind": 0.1, "mi": 0.5, "nmi": 0.1}


@dataclass(frozen=True, eq=False)
class Nodes:
    """The grid of a velocity: nodes at every second voxel of an image's grid, and a margin.

    geometry: of the nodes, before: (n,) nodes before the image's first voxel
    """

    geometry: Geometry
    image: Geometry
    before: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def around(cls, image: Geometry) -> Nodes:
        """The nodes that cover an image with its margin."""
        strides = tuple(2 if size > 1 else 1 for size in image.shape)
        before = tuple(
            math.ceil(MARGIN * size / stride) + 2 if size > 1 else 0
            for size, stride in zip(image.shape, strides, strict=True)
        )
        inner = [math.ceil((size - 1) / stride) + 1 for size, stride in zip(image.shape, strides, strict=True)]
        shape = tuple(count + 2 * more for count, more in zip(inner, before, strict=True))
        affine = image.affine.copy()
        affine[:-1, :-1] = affine[:-1, :-1] * strides
        affine[:-1, -1] = image.to_world(-np.array(before) * strides)
        return cls(Geometry(shape, affine, physical=image.physical, oriented=image.oriented), image, before, strides)

    @property
    def dense(self) -> Geometry:
        """The grid of the image with the margin."""
        shape = tuple((size - 1) * stride + 1 for size, stride in zip(self.geometry.shape, self.strides, strict=True))
        affine = self.image.affine.copy()
        affine[:-1, -1] = self.geometry.affine[:-1, -1]
        return Geometry(shape, affine, physical=self.image.physical, oriented=self.image.oriented)

    def on(self, values: Tensor, grid: Geometry) -> Tensor:
        """(1, n, *nodes) at the voxels of a grid along the same axes, by cubic B-splines; 0 beyond the nodes."""
        offsets = self.geometry.to_index(grid.affine[:-1, -1])
        for axis, (new, old) in enumerate(zip(grid.shape, self.geometry.shape, strict=True)):
            ratio = float(grid.steps[axis] / self.geometry.steps[axis])
            values = similarity_measures.multiply_axis(
                values, axis + 2, _spline(old, new, round(float(offsets[axis]), 6), round(ratio, 9))
            )
        return values


@lru_cache(maxsize=64)
def _spline(old: int, new: int, offset: float, ratio: float) -> Tensor:
    """(new, old) weights of the cubic B-spline at offset + ratio * n: smooth, so that no kink stands at a node."""
    places = offset + ratio * torch.arange(new, dtype=torch.float64)
    apart = (places[:, None] - torch.arange(old)[None]).abs()
    near = 2 / 3 - apart.square() + apart**3 / 2
    far = (2 - apart).clamp(min=0) ** 3 / 6
    return torch.where(apart < 1, near, far).float() if old > 1 else torch.ones(new, 1)


@lru_cache(maxsize=64)
def _gaussian(size: int, sigma: float) -> Tensor:
    """(size, size) means by a Gaussian, with zeros beyond both ends."""
    places = torch.arange(size, dtype=torch.float32)
    weight = torch.exp(-0.5 * ((places[:, None] - places[None]) / sigma).square())
    return weight / weight[size // 2].sum()


def smooth_velocity(velocity: Tensor, sigma: float) -> Tensor:
    """(1, n, *nodes) Gaussian means, with zero at the outermost nodes."""
    for axis in range(2, velocity.ndim):
        if velocity.shape[axis] > 1:
            velocity = similarity_measures.multiply_axis(
                velocity, axis, _ends(velocity.shape[axis]) @ _gaussian(velocity.shape[axis], sigma)
            )
    return velocity


@lru_cache(maxsize=64)
def _ends(size: int) -> Tensor:
    is_inside = torch.ones(size)
    is_inside[:2] = is_inside[-2:] = 0  # a spline reaches two nodes
    return torch.diag(is_inside)


def exponentiate_velocity(velocity: Tensor, geometry: Geometry) -> Tensor:
    """(1, n, *nodes) displacement in mm of one unit of time along a velocity, by scaling and squaring."""
    to_grid = _grid_units(geometry)
    places = _node_places(geometry)
    shift = velocity / 2**SQUARINGS
    for _ in range(SQUARINGS):
        at = places + shift.movedim(1, -1) @ to_grid.T
        shift = shift + torch.nn.functional.grid_sample(
            shift, at, mode="bilinear", padding_mode="zeros", align_corners=True
        )
    return cast("Tensor", shift)


def _grid_units(geometry: Geometry) -> Tensor:
    """(n, n) from mm to places as torch counts between the outermost centres, last axis first."""
    linear = np.linalg.inv(geometry.affine)[:-1, :-1] * 2 / np.maximum(np.array(geometry.shape) - 1, 1)[:, None]
    return torch.as_tensor(linear[::-1].copy(), dtype=torch.float32)


def _node_places(geometry: Geometry) -> Tensor:
    lines = [torch.linspace(-1, 1, size) if size > 1 else torch.zeros(1) for size in geometry.shape]
    places = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], dim=-1)
    return places[None]


def diffusion_energy(velocity: Tensor, steps: Sequence[float]) -> Tensor:
    """Mean square of the derivative of velocities or displacements, mm a mm: large where neighbours move apart."""
    total = velocity.new_zeros(())
    for axis, step in enumerate(steps, start=2):
        if velocity.shape[axis] > 1:
            total = total + (velocity.diff(dim=axis) / step).square().sum() / velocity[:, 0].numel()
    return total


@dataclass(frozen=True, eq=False)
class FittedVelocity:
    """A fitted velocity. seconds: what it took; is_cut: whether the time ran out before all steps were done"""

    velocity: Tensor
    nodes: Nodes
    is_cut: bool = False


def fit_velocity(
    level: PyramidLevel,
    start: FirstGuess,
    similarity: Similarity,
    *,
    smoothness: float,
    steps: int,
    before: FittedVelocity | None = None,
    until: float = math.inf,
) -> FittedVelocity:
    """The velocity that lowers unlikeness and diffusion energy on one level, from that of the level before."""
    nodes = Nodes.around(level.fixed.grid)
    ndim = nodes.geometry.ndim
    base = torch.zeros(1, ndim, *nodes.geometry.shape)
    if before is not None:
        base = before.nodes.on(before.velocity, nodes.geometry)
    raw = torch.zeros_like(base, requires_grad=True)
    matrix, shift = (torch.as_tensor(one, dtype=torch.float32) for one in (start.matrix, start.shift))
    step = min(size for size, count in zip(level.fixed.grid.steps, level.fixed.grid.shape, strict=True) if count > 1)
    optimiser = torch.optim.Adam([raw], lr=step, betas=(0.9, 0.99))
    is_cut = False
    plateau = Plateau()
    for number in range(steps):
        if time.monotonic() > until:
            is_cut = True
            break
        optimiser.param_groups[0]["lr"] = step * RATE * (LAST_RATE / RATE) ** (number / max(steps - 1, 1))
        velocity = base + smooth_velocity(raw, SMOOTHING)
        moved = nodes.on(exponentiate_velocity(velocity, nodes.geometry), level.fixed.grid)[0].movedim(0, -1)
        loss = level.loss((level.points + moved) @ matrix.T + shift, similarity)
        loss = loss + smoothness * diffusion_energy(velocity, nodes.geometry.steps)
        if plateau.is_reached(float(loss.detach())):
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return FittedVelocity(base + smooth_velocity(raw, SMOOTHING), nodes, is_cut)


def field_of_velocity(bent: FittedVelocity) -> Displacement:
    """The displacement of a velocity, on the fixed grid of its level with the margin."""
    with torch.no_grad():
        vectors: Floats = bent.nodes.on(exponentiate_velocity(bent.velocity, bent.nodes.geometry), bent.nodes.dense)[
            0
        ].numpy()
    return Displacement(vectors, bent.nodes.dense)

"""Targets that follow the augmentation of their image: label maps voxel by voxel, boxes by their corners.

`Augmentation` says how an image is moved, and each kind of target what that makes of it. A new kind is one class here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from hilum.lazy import torch
from hilum.transforms import augment_spatial

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]
F = TypeVar("F", bound="Following")
# A bend folds nowhere, so that each step of its inverse comes closer at least by half: after so many, by 0.001.
INVERSE_STEPS = 10


@dataclass(frozen=True, eq=False)
class Warp:
    """The places from which some samples of a batch are read.

    chosen: (samples,) their numbers in the batch
    grid:   (samples, *spatial, ndim) as torch counts, see `sampling_grid`
    maps:   (samples, ndim, ndim) from a place in the new image to that in the old, in mm from the middle of the field
    shifts: (samples, ndim) added to it, as a share of the field
    points: (samples, ndim, POINTS...) displacement of the control points of a bend, added as a share of the field
    sizes:  (ndim,) mm of the field
    """

    chosen: Sequence[int]
    grid: Tensor
    maps: Floats
    shifts: Floats
    points: Floats
    sizes: Floats


class Following(Protocol):
    """A batch of targets, of the same samples as the images; every change gives a new one."""

    @property
    def targets(self) -> Any:
        """The targets as a task's loss takes them."""

    def flip(self: F, mirrored: NDArray[np.bool_]) -> F:
        """Mirrored along the axes that (samples, ndim) says."""

    def sides_changed(self: F, crossed: Tensor, mirrored: Sequence[int]) -> F:
        """The target with labels of the other side where (samples,) left and right have changed places."""

    def turn(self: F, turns: NDArray[np.intp]) -> F:
        """The target after (samples,) quarter turns in the plane of the first two axes."""

    def warp(self: F, warp: Warp) -> F:
        """The target read at the places of the warp."""


@dataclass(frozen=True, eq=False)
class LabelMap:
    """(batch, *spatial) label values, and which of them lies beyond the edge.

    outside: None where the edge goes on, as that of the image does: an organ that is cut there has no border there
    """

    labels: Tensor
    outside: int | None = None

    @property
    def targets(self) -> Tensor:
        """The tensor that the loss takes."""
        return self.labels

    def flip(self, mirrored: NDArray[np.bool_]) -> Self:
        """Mirrored as the images are, sample by sample."""
        return replace(self, labels=augment_spatial.flip_samples(self.labels, mirrored))

    def sides_changed(self, crossed: Tensor, mirrored: Sequence[int]) -> Self:
        """The target with the labels of left and right exchanged where the sample was mirrored across them."""
        return replace(self, labels=augment_spatial.permute_sides(self.labels, crossed, mirrored))

    def turn(self, turns: NDArray[np.intp]) -> Self:
        """Turned by (samples,) quarter turns."""
        return replace(self, labels=augment_spatial.turn_samples(self.labels, turns, self.labels.ndim - 1))

    def warp(self, warp: Warp) -> Self:
        """Read through the sampling grid of the warp."""
        chosen = list(warp.chosen)
        grid = augment_spatial.clamp_grid(warp.grid, self.labels.shape[1:]) if self.outside is None else warp.grid
        read = self._exchange_outside(augment_spatial.sample_labels(self._exchange_outside(self.labels[chosen]), grid))
        return replace(self, labels=replace_samples(self.labels, chosen, read))

    def _exchange_outside(self, labels: Tensor) -> Tensor:
        """0, which is read beyond the edge, and what lies there in each other's place."""
        if not self.outside:
            return labels
        moved = torch.where(labels == self.outside, torch.zeros_like(labels), labels)
        return torch.where(labels == 0, torch.full_like(labels, self.outside), moved)


@dataclass(frozen=True, eq=False)
class ObjectMap(LabelMap):
    """(batch, *spatial) numbers of objects: they name no side, and in a mirror they stay what they are."""

    def sides_changed(self, crossed: Tensor, mirrored: Sequence[int]) -> Self:
        """The target with the labels of left and right exchanged where the sample was mirrored across them."""
        return self


@dataclass(frozen=True, eq=False)
class NumberMap:
    """(batch, channels, *spatial) numbers for every voxel, read between voxels; or (batch, channels), which stay.

    sides: the channel that each becomes where left and right change sides
    """

    numbers: Tensor
    sides: tuple[int, ...]

    @property
    def targets(self) -> Tensor:
        """The batch as it is now."""
        return self.numbers

    @property
    def _is_dense(self) -> bool:
        return self.numbers.ndim > 2

    def flip(self, mirrored: NDArray[np.bool_]) -> Self:
        """After the images were flipped."""
        return replace(self, numbers=augment_spatial.flip_samples(self.numbers, mirrored)) if self._is_dense else self

    def sides_changed(self, crossed: Tensor, mirrored: Sequence[int]) -> Self:
        """After left and right changed in the images."""
        is_crossed = crossed.reshape(-1, *[1] * (self.numbers.ndim - 1))
        return replace(self, numbers=torch.where(is_crossed, self.numbers[:, list(self.sides)], self.numbers))

    def turn(self, turns: NDArray[np.intp]) -> Self:
        """After the images were turned."""
        if self._is_dense:
            return replace(self, numbers=augment_spatial.turn_samples(self.numbers, turns, self.numbers.ndim - 2))
        return self

    def warp(self, warp: Warp) -> Self:
        """After the images were warped."""
        if not self._is_dense:
            return self
        chosen = list(warp.chosen)
        read = augment_spatial.sample_intensities(self.numbers[chosen], warp.grid)
        return replace(self, numbers=replace_samples(self.numbers, chosen, read))


@dataclass(frozen=True, eq=False)
class Corners:
    """Boxes on the images of a batch.

    boxes:   (batch, n, 1 + 2 * ndim) class, where each begins on every axis, where it ends: edges in voxels; the class
             is -1 where there is no box, and -2 of a region to be ignored
    spatial: of the images
    """

    boxes: Tensor
    spatial: tuple[int, ...]

    @property
    def targets(self) -> Tensor:
        """The tensor that the loss takes."""
        return self.boxes

    @property
    def _edges(self) -> tuple[Tensor, Tensor]:
        """(batch, n, ndim) where each begins, and where it ends."""
        ndim = len(self.spatial)
        return self.boxes[..., 1 : 1 + ndim], self.boxes[..., 1 + ndim :]

    def flip(self, mirrored: NDArray[np.bool_]) -> Corners:
        """Mirrored as the images are, sample by sample."""
        low, high = self._edges
        size = low.new_tensor(self.spatial)
        is_mirrored = torch.as_tensor(mirrored, device=low.device)[:, None]
        return self._at(torch.where(is_mirrored, size - high, low), torch.where(is_mirrored, size - low, high))

    def sides_changed(self, crossed: Tensor, mirrored: Sequence[int]) -> Corners:
        """The target with the labels of left and right exchanged where the sample was mirrored across them."""
        changed = augment_spatial.permute_sides(self.boxes[..., 0], crossed, mirrored)
        return replace(self, boxes=torch.cat([changed[..., None], self.boxes[..., 1:]], dim=-1))

    def turn(self, turns: NDArray[np.intp]) -> Corners:
        """A quarter turn brings the end of the second axis to the beginning of the first."""
        boxes = self
        for step in range(int(turns.max(initial=0))):
            # With each turn the two axes change their sizes.
            boxes = boxes._quarter(turns > step, self.spatial[(step + 1) % 2])
        return boxes

    def warp(self, warp: Warp) -> Corners:
        """The box around the ellipse that fills each box, where that comes to lie.

        Around the corners it would grow with every turn, a disc's by up to 1.41: what is found in images is rounder
        than boxes are. Kalra et al., ICCV 2021, arXiv:2109.13488. A bend moves it by what it does at its centre. What
        leaves the image with its centre is no box any more. A region to be ignored is the box around the corners, as
        all of it is unknown.
        """
        chosen = list(warp.chosen)
        ndim = len(self.spatial)
        low, high = (edges[chosen] for edges in self._edges)
        size = low.new_tensor(warp.sizes)
        shape = low.new_tensor(self.spatial)
        step = size / shape
        back = low.new_tensor(np.linalg.inv(warp.maps))
        targets = (low + high) / 2 * step - size / 2 - low.new_tensor(warp.shifts)[:, None] * size
        centre = torch.einsum("sij,snj->sni", back, targets)
        if warp.points.any():
            zeros = torch.zeros(len(chosen), *self.spatial, ndim, device=low.device)
            field = augment_spatial.bend_grid(zeros, warp.points).movedim(-1, 1)
            for _ in range(INVERSE_STEPS):
                centre = torch.einsum("sij,snj->sni", back, targets - _displacement_at(field, centre, size))
        half = (high - low) / 2 * step
        region = self.boxes[chosen][..., :1] == -2
        reach = torch.einsum("sij,snj->sni", back**2, half**2).sqrt()
        reach = torch.where(region, torch.einsum("sij,snj->sni", back.abs(), half), reach)
        centre = (centre + size / 2) / step
        reach = reach / step
        inside = ((centre >= 0) & (centre < shape)).all(dim=-1)
        kind = torch.where(inside | region[..., 0], self.boxes[chosen][..., 0], -1.0)
        moved = torch.cat([kind[..., None], centre - reach, centre + reach], dim=-1)
        return replace(self, boxes=replace_samples(self.boxes, chosen, moved))

    def _quarter(self, chosen: NDArray[np.bool_], size: int) -> Corners:
        """size: of the second axis"""
        low, high = self._edges
        is_chosen = torch.as_tensor(chosen, device=low.device)[:, None, None]
        begins = torch.cat([size - high[..., 1:2], low[..., :1], low[..., 2:]], dim=-1)
        ends = torch.cat([size - low[..., 1:2], high[..., :1], high[..., 2:]], dim=-1)
        return self._at(torch.where(is_chosen, begins, low), torch.where(is_chosen, ends, high))

    def _at(self, low: Tensor, high: Tensor) -> Corners:
        return replace(self, boxes=torch.cat([self.boxes[..., :1], low, high], dim=-1))


def replace_samples(batch: Tensor, chosen: Sequence[int], changed: Tensor) -> Tensor:
    """The batch with some of its samples replaced; the given one stays as it is."""
    if len(chosen) == len(batch):
        return changed
    return batch.index_copy(0, torch.as_tensor(chosen, device=batch.device), changed)


def _displacement_at(field: Tensor, places: Tensor, size: Tensor) -> Tensor:
    """(samples, n, ndim) mm by which a bend moves what is read at these places, in mm from the middle.

    field: (samples, ndim, *spatial) as torch counts, last axis first
    """
    ndim = places.shape[-1]
    where = (2 * places / size).flip(-1).reshape(*places.shape[:2], *[1] * (ndim - 1), ndim)
    displacements = augment_spatial.sample_at_grid(field, where, "bilinear", "border")
    return displacements.flatten(2).movedim(1, -1).flip(-1) * size / 2

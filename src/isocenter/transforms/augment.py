"""Augmentation of a whole batch on the training device.

All spatial changes (flip, rotation, scale, shift, elastic) are composed into one sampling grid, and image and label
are read through it once. Each sample draws its own numbers from its own generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import PlanError
from isocenter.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """How far a sample may be changed; a probability of 0 or a width of 0 turns a change off.

    rotation:   degrees, about each axis (about the one axis in 2D)
    scale:      1 +- this, for all axes together
    shift:      share of the patch, per axis
    elastic:    standard deviation of the control points' displacement, as a share of the patch
    flips:      axes that may be mirrored
    probability: of each kind of spatial change, and of each kind of intensity change
    contrast, brightness: factor 1 +- this, and standard deviations added
    gamma:      exponent in [1 / (1 + g), 1 + g] on the intensity range of the sample
    noise:      largest standard deviation of Gaussian noise
    left_right: axis of the network's grid that runs from left to right; None where that is not known
    The kinds from `blur` on are off at 0.
    """

    rotation: float = 15.0
    scale: float = 0.15
    shift: float = 0.0
    elastic: float = 0.0
    flips: tuple[int, ...] = ()
    probability: float = 0.3
    contrast: float = 0.25
    brightness: float = 0.15
    gamma: float = 0.4
    noise: float = 0.1
    blur: float = 0.0
    low_resolution: float = 0.0
    bias_field: float = 0.0
    motion: float = 0.0
    ghosting: float = 0.0
    spikes: float = 0.0
    dose_noise: float = 0.0
    metal: float = 0.0
    cutout: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    left_right: int | None = None
    quarter_turns: bool = False

    def __call__(
        self,
        images: Tensor,
        labels: Tensor | None,
        generators: Sequence[np.random.Generator],
        steps: Sequence[float],
        *,
        mirrored: Sequence[int] | None = (),
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """(batch, channels, *spatial) images and (batch, *spatial) labels, changed alike.

        steps: length of a voxel per axis, so that a rotation is one in mm also where voxels are no cubes
        mirrored: value that a label takes where left and right change sides; None where they must not
        The third of the results, (batch,), says whose left and right have changed sides.
        Raises PlanError where an axis may be mirrored that must not be.
        """
        self.check(mirrored)
        drawn = [self._spatial(rng, images.ndim - 2) for rng in generators]
        if any(one is not None for one in drawn):
            images, labels = self._warp(images, labels, drawn, np.asarray(steps))
        crossed = torch.as_tensor([self._crosses(one) for one in drawn], device=images.device)
        if labels is not None and mirrored:
            labels = _sides_changed(labels, crossed, mirrored)
        return self._intensity(images, generators), labels, crossed

    def mixed(self, images: Tensor, generators: Sequence[np.random.Generator]) -> tuple[Tensor, Tensor | None, float]:
        """Whole images mixed in pairs: the images, whom each was mixed with, and its own share of the result.

        The loss is share * loss(targets) + (1 - share) * loss(targets[partner]);
        nobody (None) where nothing was mixed.
        """
        return images, None, 1.0

    def check(self, mirrored: Sequence[int] | None) -> None:
        """Raises PlanError where `flips` would put a label on the wrong side, or may do so."""
        sided = mirrored is None or any(value != place for place, value in enumerate(mirrored))
        if mirrored is None and self.left_right in self.flips:
            problem = "left and right would change sides, and a label has no counterpart on the other side"
            raise PlanError(problem, "augmentation.flips", f"Leave out axis {self.left_right}")
        if sided and self.left_right is None and self.flips:
            problem = "labels name a side, and it is not known which axis runs from left to right"
            raise PlanError(problem, "augmentation.flips", "Give augmentation.left_right, or no flips")

    def _crosses(self, one: tuple | None) -> bool:
        return one is not None and self.left_right is not None and bool(one[2][self.left_right])

    def _spatial(self, rng: np.random.Generator, ndim: int) -> tuple[NDArray, NDArray | None, NDArray] | None:
        """A linear map with a shift, (ndim, ndim + 1) in mm about the centre, and control points, what is mirrored."""
        angles = np.deg2rad(self.rotation) * rng.uniform(-1, 1, size=3) * (rng.random() < self.probability)
        factor = 1 + self.scale * rng.uniform(-1, 1) * (rng.random() < self.probability)
        shift = self.shift * rng.uniform(-1, 1, size=ndim) * (rng.random() < self.probability)
        mirror = np.where(np.isin(np.arange(ndim), self.flips) & (rng.random(ndim) < 0.5), -1.0, 1.0)
        points = rng.normal(scale=self.elastic, size=(ndim, *[5] * ndim)) * (rng.random() < self.probability)
        linear = factor * _rotation(angles, ndim) @ np.diag(mirror)
        elastic = points if self.elastic > 0 and points.any() else None
        if elastic is None and not shift.any() and np.array_equal(linear, np.eye(ndim)):
            return None
        return np.concatenate([linear, shift[:, None]], axis=1), elastic, mirror < 0

    def _warp(
        self, images: Tensor, labels: Tensor | None, drawn: Sequence[tuple | None], steps: NDArray
    ) -> tuple[Tensor, Tensor | None]:
        ndim, spatial = images.ndim - 2, images.shape[2:]
        size = np.asarray(spatial) * steps
        theta = np.tile(np.eye(ndim, ndim + 1), (len(images), 1, 1))
        for n, one in enumerate(drawn):
            if one is not None:
                # grid_sample counts each axis from -1 to 1: mm = coordinate * size / 2, on both sides of the map
                theta[n, :, :-1] = one[0][:, :-1] * size[None, :] / size[:, None]
                theta[n, :, -1] = 2 * one[0][:, -1]
        theta = theta[:, ::-1, [*range(ndim - 1, -1, -1), ndim]].copy()  # it counts x, y, z from the last axis
        grid = torch.nn.functional.affine_grid(
            torch.as_tensor(theta, dtype=torch.float32, device=images.device),
            [len(images), 1, *spatial],
            align_corners=False,
        )
        grid = self._with_elastic(grid, drawn)
        sample = torch.nn.functional.grid_sample
        warped = sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
        if labels is None:
            return warped, None
        # The image goes on beyond its edge, the label does not: outside there is background.
        moved = sample(labels[:, None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
        return warped, moved[:, 0].to(labels.dtype)

    @staticmethod
    def _with_elastic(grid: Tensor, drawn: Sequence[tuple | None]) -> Tensor:
        fields = [None if one is None else one[1] for one in drawn]
        if all(field is None for field in fields):
            return grid
        ndim = grid.shape[-1]
        points = np.stack([np.zeros((ndim, *[5] * ndim)) if field is None else field for field in fields])
        coarse = torch.as_tensor(2 * points[:, ::-1].copy(), dtype=torch.float32, device=grid.device)
        mode = "bicubic" if ndim == 2 else "trilinear"
        fine = torch.nn.functional.interpolate(coarse, size=grid.shape[1:-1], mode=mode, align_corners=True)
        return grid + fine.movedim(1, -1)

    def _intensity(self, images: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
        """Each change once for the batch, with a neutral number for the samples that go without it."""
        chosen = [rng.random(4) < self.probability for rng in generators]
        numbers = [rng.uniform(-1, 1, size=4) for rng in generators]
        amount = np.where(chosen, numbers, 0.0)  # (batch, 4): contrast, brightness, gamma, noise

        def per_sample(values: NDArray) -> Tensor:
            tensor = torch.as_tensor(values, dtype=images.dtype, device=images.device)
            return tensor.reshape(-1, *[1] * (images.ndim - 1))

        axes = tuple(range(2, images.ndim))
        mean = images.mean(dim=axes, keepdim=True)
        images = (images - mean) * per_sample(1 + self.contrast * amount[:, 0]) + mean
        images = images + per_sample(self.brightness * amount[:, 1])
        if amount[:, 2].any():
            low, high = images.amin(dim=axes, keepdim=True), images.amax(dim=axes, keepdim=True)
            width = (high - low).clamp(min=1e-6)
            images = ((images - low) / width).clamp(0, 1) ** per_sample((1 + self.gamma) ** amount[:, 2]) * width + low
        if amount[:, 3].any():
            images = images + _noise(images, generators, np.abs(amount[:, 3]) * self.noise)
        return images


def _sides_changed(labels: Tensor, crossed: Tensor, mirrored: Sequence[int]) -> Tensor:
    """Label values of the samples that crossed, permuted; values that the permutation does not know stay."""
    table = torch.as_tensor(mirrored, dtype=torch.long, device=labels.device)
    known = (labels >= 0) & (labels < len(mirrored))
    swapped = table[torch.where(known, labels, 0).long()].to(labels.dtype)
    return torch.where(known & crossed.reshape(-1, *[1] * (labels.ndim - 1)), swapped, labels)


def _noise(images: Tensor, generators: Sequence[np.random.Generator], deviation: NDArray) -> Tensor:
    noise = torch.zeros_like(images)
    for n, rng in enumerate(generators):
        if deviation[n] > 0:
            source = torch.Generator(device=images.device).manual_seed(int(rng.integers(2**63)))
            drawn = torch.randn(images.shape[1:], generator=source, device=images.device, dtype=images.dtype)
            noise[n] = deviation[n] * drawn
    return noise


def _rotation(angles: NDArray, ndim: int) -> NDArray:
    """(ndim, ndim) rotation about z, then y, then x; in 2D by the first angle alone."""
    (sz, sy, sx), (cz, cy, cx) = np.sin(angles), np.cos(angles)
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    if ndim == 2:
        return about_z[:2, :2]
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    return about_x @ about_y @ about_z

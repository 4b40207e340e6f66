"""Cutout, mixup and CutMix: covered boxes, and images mixed in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from isocenter.lazy import torch
from isocenter.transforms.augment_intensity import axes

if TYPE_CHECKING:
    from torch import Tensor


def cutout(images: Tensor, strength: float, generators: Sequence[np.random.Generator]) -> Tensor:
    """A box with sides of up to `strength` of the image's, filled with the mean; what it covers keeps its label.

    DeVries and Taylor, arXiv:1708.04552
    """
    spatial = images.shape[2:]
    changed, mean = images.clone(), images.mean(dim=axes(images))
    for n, rng in enumerate(generators):
        covered = changed[n][(slice(None), *_box(spatial, rng.uniform(0, strength), rng))]
        covered[...] = mean[n].reshape(-1, *[1] * len(spatial))
    return changed


def mixup(images: Tensor, partner: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Every image and its partner laid over each other, with the share that stays its own.

    The share is drawn from Beta(alpha, alpha). Zhang, ICLR 2018, arXiv:1710.09412
    """
    share = float(rng.beta(alpha, alpha))
    return share * images + (1 - share) * images[partner], share


def cutmix(images: Tensor, partner: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """A box of every image replaced by its partner's, with the share of voxels that stays its own.

    Yun, ICCV 2019, arXiv:1905.04899
    """
    spatial = images.shape[2:]
    box = _box(spatial, (1 - float(rng.beta(alpha, alpha))) ** (1 / len(spatial)), rng)
    changed = images.clone()
    inside = (slice(None), slice(None), *box)
    changed[inside] = images[partner][inside]
    replaced = np.prod([part.stop - part.start for part in box]) / np.prod(spatial)
    return changed, float(1 - replaced)


def partners(count: int, rng: np.random.Generator, images: Tensor) -> Tensor:
    """(batch,) whom each is mixed with."""
    return torch.as_tensor(rng.permutation(count), device=images.device)


def _box(spatial: Sequence[int], side: float, rng: np.random.Generator) -> tuple[slice, ...]:
    """A box with its centre anywhere in the image, cut off at its edge; `side` is a share of the image's."""
    box = []
    for size in spatial:
        half, centre = side * size / 2, rng.uniform(0, size)
        box.append(slice(round(max(0.0, centre - half)), round(min(float(size), centre + half))))
    return tuple(box)

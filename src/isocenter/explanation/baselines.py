"""Replacements for what is taken out of a perturbed image; arrays blurred and stretched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from isocenter.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# Of an axis: a blur that leaves no structure smaller than a quarter of the image.
BLUR = 1 / 8
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def blurred(images: Tensor, share: float = BLUR) -> Tensor:
    """(batch, channels, *spatial) after a Gaussian of a standard deviation of so much of each axis; edges go on."""
    smooth = torch.nan_to_num(images)
    for axis in range(2, images.ndim):
        size = images.shape[axis]
        if size > 1:
            smooth = torch.movedim(torch.movedim(smooth, axis, -1) @ _gaussian(size, share * size, images), -1, axis)
    return smooth.where(~torch.isnan(images), images)


def _gaussian(size: int, deviation: float, like: Tensor) -> Tensor:
    """(size, size) weights of each voxel, by row, in each blurred one; what would lie outside counts as the edge."""
    places = torch.arange(size, device=like.device, dtype=like.dtype)
    reach = int(4 * deviation) + 1
    wide = torch.arange(-reach, size + reach, device=like.device, dtype=like.dtype)
    weights = torch.exp(-0.5 * ((wide[:, None] - places[None]) / max(deviation, 1e-3)) ** 2)
    weights = weights / weights.sum(dim=0, keepdim=True)
    inside = wide.clamp(0, size - 1).long()
    return torch.zeros(size, size, device=like.device, dtype=like.dtype).index_add_(0, inside, weights)


def stretched(maps: Tensor, spatial: Sequence[int]) -> Tensor:
    """(batch, channels, *coarse) to (batch, channels, *spatial), linear along each axis."""
    mode = LINEAR[len(spatial)]
    return torch.nn.functional.interpolate(maps, size=tuple(spatial), mode=mode, align_corners=False)

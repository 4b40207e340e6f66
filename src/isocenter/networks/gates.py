"""Gates by which a block weighs its maps, and its voxels, before they go on.

Hu et al., CVPR 2018, arXiv:1709.01507; Woo et al., ECCV 2018, arXiv:1807.06521. This file needs torch alone, so that a
copy of it travels with a model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

# By number of axes; typed loosely because torch types sizes by the number of axes.
CONVOLUTION: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
REDUCTION = 16  # maps for each of the narrow layer that weighs them, in both papers
NARROWEST = 4  # that layer has at least so many, or it may be silent for all images
LOOK = 7  # voxels an axis by which CBAM weighs a voxel


def gate(kind: str | None, ndim: int, maps: int) -> nn.Module | None:
    """ "se" weighs maps, "cbam" maps and then voxels; none for None. Raises ValueError for another."""
    if kind not in (None, "se", "cbam"):
        raise ValueError(f"attention {kind!r} is none of se, cbam and null")
    if kind is None:
        return None
    return Excitation(maps) if kind == "se" else BlockAttention(ndim, maps)


class Excitation(nn.Module):
    """Each map is weighed by what the means of all of them say (squeeze and excitation)."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(*_narrow(maps), nn.Sigmoid())

    def forward(self, images: Tensor) -> Tensor:
        """Return maps of the same shape."""
        weights: Tensor = self.weigh(images.flatten(2).mean(dim=2))
        return images * weights.reshape(*weights.shape, *[1] * (images.ndim - 2))


class BlockAttention(nn.Module):
    """Maps are weighed by their means and their largest voxels, then voxels by the mean and largest of their maps."""

    def __init__(self, ndim: int, maps: int) -> None:
        super().__init__()
        self.maps = nn.Sequential(*_narrow(maps))
        self.voxels = CONVOLUTION[ndim](2, 1, LOOK, padding=LOOK // 2)

    def forward(self, images: Tensor) -> Tensor:
        """Return maps of the same shape."""
        flat = images.flatten(2)
        weights = torch.sigmoid(self.maps(flat.mean(dim=2)) + self.maps(flat.amax(dim=2)))
        images = images * weights.reshape(*weights.shape, *[1] * (images.ndim - 2))
        seen = torch.cat([images.mean(dim=1, keepdim=True), images.amax(dim=1, keepdim=True)], dim=1)
        return images * torch.sigmoid(self.voxels(seen))


def _narrow(maps: int) -> list[nn.Module]:
    narrow = max(maps // REDUCTION, NARROWEST)
    return [nn.Linear(maps, narrow), nn.ReLU(), nn.Linear(narrow, maps)]

"""Attention gates of a block: squeeze and excitation over maps, and CBAM over maps and voxels.

Hu et al., CVPR 2018, arXiv:1709.01507; Woo et al., ECCV 2018, arXiv:1807.06521.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isocenter.networks.layers import CONVOLUTION

REDUCTION = 16  # reduction ratio r of both papers: maps for each of the hidden layer
NARROWEST = 4  # hidden layers of fewer features may be 0 for all images
LOOK = 7  # voxels an axis of CBAM's spatial convolution


def gate(kind: str | None, ndim: int, maps: int) -> nn.Module | None:
    """The gate of this kind: "se" for maps, "cbam" for maps and then voxels, or none. Raises ValueError for another."""
    if kind not in (None, "se", "cbam"):
        raise ValueError(f"attention {kind!r} is none of se, cbam and null")
    if kind is None:
        return None
    return Excitation(maps, hidden_features(maps)) if kind == "se" else BlockAttention(ndim, maps)


class Excitation(nn.Module):
    """Squeeze and excitation: each map is multiplied by a weight that follows from the means of all maps."""

    def __init__(self, maps: int, squeezed: int, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.weigh = nn.Sequential(*_narrow(maps, squeezed, activation), nn.Sigmoid())

    def forward(self, images: Tensor) -> Tensor:
        """Return maps of the same shape."""
        weights: Tensor = self.weigh(images.flatten(2).mean(dim=2))
        return images * weights.reshape(*weights.shape, *[1] * (images.ndim - 2))


class BlockAttention(nn.Module):
    """CBAM: weights of maps from their means and maxima, then weights of voxels from those over the maps."""

    def __init__(self, ndim: int, maps: int) -> None:
        super().__init__()
        self.maps = nn.Sequential(*_narrow(maps, hidden_features(maps)))
        self.voxels = CONVOLUTION[ndim](2, 1, LOOK, padding=LOOK // 2)

    def forward(self, images: Tensor) -> Tensor:
        """Return maps of the same shape."""
        flat = images.flatten(2)
        weights = torch.sigmoid(self.maps(flat.mean(dim=2)) + self.maps(flat.amax(dim=2)))
        images = images * weights.reshape(*weights.shape, *[1] * (images.ndim - 2))
        extremes = torch.cat([images.mean(dim=1, keepdim=True), images.amax(dim=1, keepdim=True)], dim=1)
        return images * torch.sigmoid(self.voxels(extremes))


def hidden_features(maps: int) -> int:
    """The hidden features of the layer that weighs so many maps."""
    return max(maps // REDUCTION, NARROWEST)


def _narrow(maps: int, hidden: int, activation: nn.Module | None = None) -> list[nn.Module]:
    return [nn.Linear(maps, hidden), activation or nn.ReLU(), nn.Linear(hidden, maps)]

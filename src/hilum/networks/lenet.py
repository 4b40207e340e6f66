"""LeNet-5 for whole-image outputs, in one, two or three dimensions: for teaching, and as a baseline.

LeCun et al., Proc IEEE 1998, doi:10.1109/5.726791, section II B, with its scaled tangent and average pooling. Different
from the paper: the second convolution sees all maps, pooling has no weights, and the last layer is linear. Images of
any size are averaged in its 5 x 5 cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hilum.networks import common_layers, context_fusion
from hilum.networks.common_layers import AVERAGE_POOL, CONVOLUTION
from hilum.networks.context_fusion import PooledHead
from hilum.networks.network_family import Sized, Strides

PAPER = "doi:10.1109/5.726791"
FIELD = 32  # voxels an axis of the paper's input, around a digit of 28 x 28
CELLS = 5  # of the first fully connected layer, along each axis


class Squash(nn.Module):
    """1.7159 tanh(2 x / 3), which is 1 at 1 and -1 at -1 (appendix A)."""

    def forward(self, images: Tensor) -> Tensor:
        """Return numbers between -1.7159 and 1.7159."""
        return 1.7159 * torch.tanh(images * (2 / 3))


class LeNet(PooledHead):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    maps:    feature maps of the two convolutions, C1 and C3
    hidden:  features of the two fully connected layers, C5 and F6
    dropout: before the heads
    context: number of covariates
    fusion:  settings of `ContextFusion`; without them covariates are concatenated to the features
    """

    def make_layers(
        self,
        channels: int,
        spatial_dims: int,
        maps: Sequence[int] = (6, 16),
        hidden: Sequence[int] = (120, 84),
        dropout: float = 0.0,
    ) -> tuple[int, float]:
        """Make the layers; the number of pooled features, and dropout before the heads."""
        convolution = CONVOLUTION[spatial_dims]
        pooling = AVERAGE_POOL[spatial_dims]
        first, second = maps
        wide, narrow = hidden
        self.body = nn.Sequential(
            convolution(channels, first, 5), Squash(), pooling(2), convolution(first, second, 5), Squash(), pooling(2)
        )
        self.connected = nn.Sequential(
            nn.Linear(second * CELLS**spatial_dims, wide), Squash(), nn.Linear(wide, narrow), Squash()
        )
        return narrow, dropout

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return {head: (batch, size)}; context: (batch, covariates)."""
        cells = common_layers.pool_cells(self.body(pad_to_field(images)), CELLS)
        features = self.dropout(self.connected(cells.flatten(1)))
        return self.answers_of(features, context)


def pad_to_field(images: Tensor) -> Tensor:
    """Images of fewer than 32 voxels an axis in the middle of a field of zeros; larger ones as they are."""
    lacking = [max(FIELD - int(n), 0) for n in images.shape[:1:-1]]  # the last axis first, as torch pads
    sides = [side for n in lacking for side in (n // 2, n - n // 2)]
    return nn.functional.pad(images, sides) if any(sides) else images


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """The paper's widths on every device: they are small enough for a processor."""
    del strides, device
    size = {"maps": [6, 16], "hidden": [120, 84]}
    return size, f"images of {tuple(patch)}: LeNet-5 as published, its maps averaged in {CELLS} parts an axis", PAPER


LENET = context_fusion.pooled_family(LeNet, size_for, PAPER, blocks=None)

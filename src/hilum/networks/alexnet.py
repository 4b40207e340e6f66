"""AlexNet for whole-image outputs, in one, two or three dimensions.

Krizhevsky et al., NIPS 2012, reprinted in Comm ACM 2017, doi:10.1145/3065386, in the widths for one processor
(Krizhevsky, arXiv:1404.5997), where no convolution is split in two. There is no local response normalisation; batch
normalisation (arXiv:1502.03167) follows each convolution unless it is switched off. Images of any size are averaged in
the 6 x 6 cells of the fully connected layers.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from hilum.networks import common_layers, context_fusion
from hilum.networks.common_layers import BATCH_NORM, CONVOLUTION, OverlappingPool
from hilum.networks.context_fusion import PooledHead
from hilum.networks.network_family import Sized, Strides

PAPER = "doi:10.1145/3065386"
KERNELS = (5, 3, 3, 3)  # of the second to the fifth convolution
POOLED = (0, 1, 4)  # after which convolutions


class AlexNet(PooledHead):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    widths:      feature maps of the five convolutions
    hidden:      features of the two fully connected layers
    cells:       of the first of them, along each axis
    stem_stride: of the first convolution, whose kernel is that of the paper, 11, for 4 and 5 for 1
    normalise:   batch normalisation after each convolution
    dropout:     before each fully connected layer
    context:     number of covariates
    fusion:      settings of `ContextFusion`; without them covariates are concatenated to the features
    """

    def make_layers(
        self,
        channels: int,
        spatial_dims: int,
        widths: Sequence[int] = (64, 192, 384, 256, 256),
        hidden: int = 4096,
        cells: int = 6,
        stem_stride: int = 4,
        normalise: bool = True,
        dropout: float = 0.5,
    ) -> tuple[int, float]:
        """Make the layers; the number of pooled features, and dropout before the heads."""
        if len(widths) != len(KERNELS) + 1 or cells < 1:
            raise ValueError(f"AlexNet has five convolutions and at least one cell, not widths {widths}, cells {cells}")
        layers: list[nn.Module] = []
        inside = channels
        for n, (outside, kernel) in enumerate(zip(widths, (3 + 2 * stem_stride, *KERNELS), strict=True)):
            step, padding = (stem_stride, 2) if n == 0 else (1, kernel // 2)
            layers.append(CONVOLUTION[spatial_dims](inside, outside, kernel, step, padding, bias=not normalise))
            layers += [BATCH_NORM[spatial_dims](outside)] if normalise else []
            layers += [nn.ReLU(inplace=True), *([OverlappingPool()] if n in POOLED else [])]
            inside = outside
        self.cells = cells
        self.body = nn.Sequential(*layers)
        self.connected = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(inside * cells**spatial_dims, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
        )
        return hidden, 0.0

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return {head: (batch, size)}; context: (batch, covariates)."""
        features = self.connected(common_layers.pool_cells(self.body(images), self.cells).flatten(1))
        return self.answers_of(features, context)


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """The paper's widths for large pictures on a GPU; narrower, with fewer cells, on a processor or for volumes."""
    del strides
    slow = device == "cpu"
    volume = len(patch) > 2
    small = max(patch) <= 64
    share = 4 if volume else 2 if slow else 1
    size = {
        "widths": [width // share for width in (64, 192, 384, 256, 256)],
        "hidden": 256 if slow else 1024 if volume else 4096,
        "cells": 3 if small or volume else 6,
        "stem_stride": 1 if small and not (slow and volume) else 2 if small or volume else 4,
        "dropout": 0.2 if slow else 0.5,
    }
    stem = f"the first convolution makes steps of {size['stem_stride']}"
    because = f"images of {tuple(patch)}: {stem}, {size['cells']} cells an axis; width for the {device}"
    return size, because, PAPER


ALEXNET = context_fusion.pooled_family(AlexNet, size_for, PAPER)

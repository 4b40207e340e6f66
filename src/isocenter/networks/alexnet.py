"""AlexNet for whole-image outputs, in one, two or three dimensions.

Krizhevsky et al., NIPS 2012, reprinted in Comm ACM 2017, doi:10.1145/3065386, in the widths for one processor
(Krizhevsky, arXiv:1404.5997), where no convolution is cut in two halves. Local response normalisation is left out;
batch normalisation (arXiv:1502.03167) stands behind each convolution unless it is switched off. Images of any size are
brought to the 6 x 6 cells of its fully connected layers by averaging. This file needs torch and `telling` beside it, so
that a copy of it travels with a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isocenter.networks.family import Family
from isocenter.networks.pooled_head import PooledHead

PAPER = "doi:10.1145/3065386"
# By number of axes; typed loosely because torch types sizes by the number of axes.
CONVOLUTION: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMALISATION: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOLING: dict[int, Any] = {
    1: nn.functional.max_pool1d,
    2: nn.functional.max_pool2d,
    3: nn.functional.max_pool3d,
}
KERNELS = (5, 3, 3, 3)  # of the second convolution to the fifth
POOLED = (0, 1, 4)  # behind which convolutions


class Pool(nn.Module):
    """The largest of three voxels an axis, every second one; along an axis that has fewer, of what there is."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of half the size, rounded up."""
        kernel = [min(3, int(n)) for n in maps.shape[2:]]
        return POOLING[maps.ndim - 2](maps, kernel, 2, ceil_mode=True)


class AlexNet(PooledHead):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    widths:      feature maps of the five convolutions
    hidden:      features of the two fully connected layers
    cells:       an axis, that the first of them sees
    stem_stride: of the first convolution, whose kernel is that of the paper, 11, for 4 and 5 for 1
    normalise:   by the batch, behind each convolution
    dropout:     before each fully connected layer
    context:     numbers beside each image
    fusion:      how they are used (`ContextFusion`); without it they join its features before the last layer
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        vectors: Mapping[str, int],
        widths: Sequence[int] = (64, 192, 384, 256, 256),
        hidden: int = 4096,
        cells: int = 6,
        stem_stride: int = 4,
        normalise: bool = True,
        dropout: float = 0.5,
        context: int = 0,
        fusion: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if len(widths) != len(KERNELS) + 1 or cells < 1:
            raise ValueError(f"AlexNet has five convolutions and at least one cell, not widths {widths}, cells {cells}")
        layers: list[nn.Module] = []
        inside = channels
        for n, (outside, kernel) in enumerate(zip(widths, (3 + 2 * stem_stride, *KERNELS), strict=True)):
            step, padding = (stem_stride, 2) if n == 0 else (1, kernel // 2)
            layers.append(CONVOLUTION[spatial_dims](inside, outside, kernel, step, padding, bias=not normalise))
            layers += [NORMALISATION[spatial_dims](outside)] if normalise else []
            layers += [nn.ReLU(inplace=True), *([Pool()] if n in POOLED else [])]
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
        self.end(hidden, vectors, 0.0, context, fusion)

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the answers by head; context: (batch, covariates), for a network that takes them."""
        features = self.connected(in_cells(self.body(images), self.cells).flatten(1))
        return self.answers_of(features, context)


def in_cells(maps: Tensor, cells: int) -> Tensor:
    """The mean over each of `cells` parts an axis: torch's adaptive pooling, which ONNX lacks for uneven parts."""
    for axis in range(2, maps.ndim):
        n = int(maps.shape[axis])
        edges = [(i * n // cells, -(-(i + 1) * n // cells)) for i in range(cells)]
        maps = torch.stack([maps.narrow(axis, low, high - low).mean(dim=axis) for low, high in edges], dim=axis)
    return maps


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """The paper's for large pictures on a GPU; narrower, with fewer cells, on a processor or for volumes."""
    del strides
    slow, volume, small = device == "cpu", len(patch) > 2, max(patch) <= 64
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


ALEXNET = Family(
    build=AlexNet,
    size_for=size_for,
    paper=PAPER,
    answers=frozenset({"vector"}),
    takes_context=("concatenate", "film", "attention"),
)

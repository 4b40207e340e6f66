"""GoogLeNet, the first network of inception blocks, for whole-image outputs, in one, two or three dimensions.

Szegedy et al., CVPR 2015, arXiv:1409.4842, table 1, with batch normalisation behind each convolution (Ioffe and
Szegedy, arXiv:1502.03167); the two auxiliary classifiers are left out. This file needs torch and `telling` beside it,
so that a copy of it travels with a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isocenter.networks.family import Family
from isocenter.networks.pooled_head import PooledHead

PAPER = "arXiv:1409.4842"
# By number of axes; typed loosely because torch types sizes by the number of axes.
CONVOLUTION: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMALISATION: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOLING: dict[int, Any] = {
    1: nn.functional.max_pool1d,
    2: nn.functional.max_pool2d,
    3: nn.functional.max_pool3d,
}
WIDTH = 64  # feature maps of the paper's stem, to which those of its blocks are said here
# Of each block, by stage: 1 x 1; before the 3 x 3 and of it; before the 5 x 5 and of it; behind the pooling.
STAGES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)


class Pool(nn.Module):
    """The largest of three voxels an axis, every second one; along an axis that has fewer, of what there is."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of half the size, rounded up."""
        kernel = [min(3, int(n)) for n in maps.shape[2:]]
        return POOLING[maps.ndim - 2](maps, kernel, 2, ceil_mode=True)


class Largest(nn.Module):
    """The largest of three voxels an axis around each."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of the same shape."""
        return POOLING[maps.ndim - 2](maps, 3, 1, 1)


class Inception(nn.Module):
    """Kernels of 1, 3 and 5 voxels and the largest of three, side by side; what they find is joined."""

    def __init__(self, ndim: int, inside: int, widths: Sequence[int]) -> None:
        super().__init__()
        one, before_three, three, before_five, five, behind = widths
        self.paths = nn.ModuleList(
            [
                convolved(ndim, inside, one, 1),
                nn.Sequential(convolved(ndim, inside, before_three, 1), convolved(ndim, before_three, three, 3)),
                nn.Sequential(convolved(ndim, inside, before_five, 1), convolved(ndim, before_five, five, 5)),
                nn.Sequential(Largest(), convolved(ndim, inside, behind, 1)),
            ]
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps of all paths, joined."""
        return torch.cat([path(maps) for path in self.paths], dim=1)


def convolved(ndim: int, inside: int, outside: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution, its normalisation and its activation."""
    convolution = CONVOLUTION[ndim](inside, outside, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, NORMALISATION[ndim](outside), nn.ReLU(inplace=True))


class GoogLeNet(PooledHead):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    blocks:      inception blocks of each of three stages; each stage but the first halves the resolution
    width:       feature maps of the stem; those of the blocks are the paper's times width / 64
    stem_stride: by how much the stem reduces each axis, 1, 2, 4 or 8; the paper's reduces it by 8
    dropout:     before the heads
    context:     numbers beside each image
    fusion:      how they are used (`ContextFusion`); without it they join its pooled maps before the last layer
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        vectors: Mapping[str, int],
        blocks: Sequence[int] = (2, 5, 2),
        width: int = 64,
        stem_stride: int = 8,
        dropout: float = 0.4,
        context: int = 0,
        fusion: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if stem_stride not in (1, 2, 4, 8) or any(n > len(one) for n, one in zip(blocks, STAGES, strict=True)):
            raise ValueError(f"the stem reduces by 1, 2, 4 or 8, and stages have up to 2, 5 and 2 blocks, not {blocks}")
        layers: list[nn.Module] = [
            convolved(spatial_dims, channels, width, 3 if stem_stride == 1 else 7, min(stem_stride, 2)),
            *([Pool()] if stem_stride >= 4 else []),
            convolved(spatial_dims, width, width, 1),
            convolved(spatial_dims, width, 3 * width, 3),
            *([Pool()] if stem_stride == 8 else []),
        ]
        inside = 3 * width
        for stage, (count, table) in enumerate(zip(blocks, STAGES, strict=True)):
            layers += [Pool()] if stage > 0 else []
            for published in table[:count]:
                widths = [max(1, maps * width // WIDTH) for maps in published]
                layers.append(Inception(spatial_dims, inside, widths))
                inside = widths[0] + widths[2] + widths[4] + widths[5]
        self.body = nn.Sequential(*layers)
        self.end(inside, vectors, dropout, context, fusion)


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """The paper's on a GPU, a fourth as wide on a processor, half as wide for volumes; the stem keeps small images."""
    del strides
    slow, volume = device == "cpu", len(patch) > 2
    if max(patch) <= 64:
        stride = 2 if slow and volume else 1
    else:
        stride = 4 if volume else 8
    size = {
        "blocks": [2, 2, 2] if slow else [2, 5, 2],
        "width": WIDTH // ((4 if slow else 1) * (2 if volume else 1)),
        "stem_stride": stride,
        "dropout": 0.1 if slow else 0.4,
    }
    stem = "the stem keeps the resolution" if stride == 1 else f"the stem reduces it by {stride}"
    return size, f"images of {tuple(patch)}: {stem}; width and blocks for the {device}", PAPER


INCEPTION = Family(
    build=GoogLeNet,
    size_for=size_for,
    paper=PAPER,
    answers=frozenset({"vector"}),
    takes_context=("concatenate", "film", "attention"),
)

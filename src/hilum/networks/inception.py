"""GoogLeNet (Inception v1) for whole-image outputs, in one, two or three dimensions.

Szegedy et al., CVPR 2015, arXiv:1409.4842, table 1, with batch normalisation after each convolution (Ioffe and
Szegedy, arXiv:1502.03167) and without the two auxiliary classifiers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hilum.networks import common_layers, context_fusion
from hilum.networks.common_layers import MAX_POOL, OverlappingPool
from hilum.networks.context_fusion import PooledHead
from hilum.networks.network_family import Sized, SizeValue, Strides

PAPER = "arXiv:1409.4842"
WIDTH = 64  # feature maps of the paper's stem; STAGES has those of its blocks for it
# Feature maps of each block, by stage: 1 x 1; before the 3 x 3 and of it; before the 5 x 5 and of it; after pooling.
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


class Inception(nn.Module):
    """Four paths side by side, convolutions of 1, 3 and 5 voxels an axis and max pooling, whose maps are concatenated.

    widths: of the convolutions, as in STAGES
    """

    def __init__(self, ndim: int, inside: int, widths: Sequence[int]) -> None:
        super().__init__()
        single, before_three, three, before_five, five, pooled = widths
        self.paths = nn.ModuleList(
            [
                common_layers.normed_convolution(ndim, inside, single, 1),
                nn.Sequential(
                    common_layers.normed_convolution(ndim, inside, before_three, 1),
                    common_layers.normed_convolution(ndim, before_three, three, 3),
                ),
                nn.Sequential(
                    common_layers.normed_convolution(ndim, inside, before_five, 1),
                    common_layers.normed_convolution(ndim, before_five, five, 5),
                ),
                nn.Sequential(MAX_POOL[ndim](3, 1, 1), common_layers.normed_convolution(ndim, inside, pooled, 1)),
            ]
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps of all paths, concatenated."""
        return torch.cat([path(maps) for path in self.paths], dim=1)


class GoogLeNet(PooledHead):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    blocks:      inception blocks of each of three stages; each stage but the first halves the resolution
    width:       feature maps of the stem; the blocks have the paper's times width / 64
    stem_stride: factor by which the stem reduces each axis, 1, 2, 4 or 8; 8 in the paper
    dropout:     before the heads
    context:     number of covariates
    fusion:      settings of `ContextFusion`; without them covariates are concatenated to the pooled maps
    """

    def make_layers(
        self,
        channels: int,
        spatial_dims: int,
        blocks: Sequence[int] = (2, 5, 2),
        width: int = 64,
        stem_stride: int = 8,
        dropout: float = 0.4,
    ) -> tuple[int, float]:
        """Make the layers; the number of pooled features, and dropout before the heads."""
        if stem_stride not in (1, 2, 4, 8) or any(n > len(table) for n, table in zip(blocks, STAGES, strict=True)):
            raise ValueError(f"the stem reduces by 1, 2, 4 or 8, and stages have up to 2, 5 and 2 blocks, not {blocks}")
        layers: list[nn.Module] = [
            common_layers.normed_convolution(
                spatial_dims, channels, width, 3 if stem_stride == 1 else 7, min(stem_stride, 2)
            ),
            *([OverlappingPool()] if stem_stride >= 4 else []),
            common_layers.normed_convolution(spatial_dims, width, width, 1),
            common_layers.normed_convolution(spatial_dims, width, 3 * width, 3),
            *([OverlappingPool()] if stem_stride == 8 else []),
        ]
        inside = 3 * width
        for stage, (count, table) in enumerate(zip(blocks, STAGES, strict=True)):
            layers += [OverlappingPool()] if stage > 0 else []
            for published in table[:count]:
                widths = [max(1, maps * width // WIDTH) for maps in published]
                layers.append(Inception(spatial_dims, inside, widths))
                inside = widths[0] + widths[2] + widths[4] + widths[5]
        self.body = nn.Sequential(*layers)
        return inside, dropout


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """The paper's widths on a GPU, a quarter on a processor, half for volumes; smaller strides for small images."""
    del strides
    slow = device == "cpu"
    volume = len(patch) > 2
    if max(patch) <= 64:
        stride = 2 if slow and volume else 1
    else:
        stride = 4 if volume else 8
    size: dict[str, SizeValue] = {
        "blocks": [2, 2, 2] if slow else [2, 5, 2],
        "width": WIDTH // ((4 if slow else 1) * (2 if volume else 1)),
        "stem_stride": stride,
        "dropout": 0.1 if slow else 0.4,
    }
    stem = "the stem keeps the resolution" if stride == 1 else f"the stem reduces the resolution by {stride}"
    return size, f"images of {tuple(patch)}: {stem}; width and blocks for the {device}", PAPER


INCEPTION = context_fusion.pooled_family(GoogLeNet, size_for, PAPER)

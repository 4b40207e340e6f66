"""VGG for whole-image outputs, in one, two or three dimensions: stacked convolutions of 3 voxels an axis.

Simonyan and Zisserman, ICLR 2015, arXiv:1409.1556, with batch normalisation (arXiv:1502.03167). The mean over the image
replaces the last pooling and the two fully connected layers, which hold nine tenths of the original's weights and fix
the size of its images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from hilum.networks import context_fusion
from hilum.networks.common_layers import BATCH_NORM, CONVOLUTION, MAX_POOL
from hilum.networks.context_fusion import PooledHead
from hilum.networks.network_family import Sized, SizeValue, Strides

PAPER = "arXiv:1409.1556"
WIDEST = 8  # times the width of the first stage
# the paper's configurations A and D
VGG_11 = (1, 1, 2, 2, 2)
VGG_16 = (2, 2, 3, 3, 3)


class Vgg(PooledHead):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    convolutions: of each stage; max pooling of two voxels an axis precedes each stage but the first
    width:        feature maps of the first stage; doubled by each stage, up to eight times
    dropout:      before the heads
    context:      number of covariates
    fusion:       settings of `ContextFusion`; without them covariates are concatenated to the pooled maps
    """

    def make_layers(
        self,
        channels: int,
        spatial_dims: int,
        convolutions: Sequence[int] = VGG_16,
        width: int = 64,
        dropout: float = 0.5,
    ) -> tuple[int, float]:
        """Make the layers; the number of pooled features, and dropout before the heads."""
        layers: list[nn.Module] = []
        inside = channels
        for stage, count in enumerate(convolutions):
            outside = width * min(2**stage, WIDEST)
            if stage > 0:  # an odd voxel at the edge stays, so that images of any size can be halved
                layers.append(MAX_POOL[spatial_dims](2, ceil_mode=True))
            for _ in range(count):
                convolution = CONVOLUTION[spatial_dims](inside, outside, 3, padding=1, bias=False)
                layers += [convolution, BATCH_NORM[spatial_dims](outside), nn.ReLU(inplace=True)]
                inside = outside
        self.body = nn.Sequential(*layers)
        return inside, dropout


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """VGG-16 for pictures on a GPU, a narrower VGG-11 for volumes and on a processor; fewer stages for small images."""
    del strides
    slow = device == "cpu"
    volume = len(patch) > 2
    stages = min(5, 1 + int(math.log2(max(max(patch) / 4, 1))))  # halved while at least 4 voxels are left
    full = VGG_11 if slow or volume else VGG_16
    width = 32 if volume else 64
    if slow:
        width //= 2 if max(patch) <= 64 else 4
    size: dict[str, SizeValue] = {"convolutions": list(full[:stages]), "width": width, "dropout": 0.1 if slow else 0.5}
    because = f"images of {tuple(patch)}: {stages} stages of VGG-{11 if full == VGG_11 else 16}; width for the {device}"
    return size, because, PAPER


VGG = context_fusion.pooled_family(Vgg, size_for, PAPER)

"""ConvNeXt for whole-image outputs, in one, two or three dimensions: convolutional, but designed like a transformer.

Liu et al., CVPR 2022, arXiv:2201.03545: large depthwise kernels, layer normalisation over the maps of each voxel, layer
scale and, optionally, stochastic depth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from hilum.networks import common_layers, context_fusion
from hilum.networks.common_layers import CONVOLUTION
from hilum.networks.context_fusion import PooledHead
from hilum.networks.network_family import Sized, Strides

if TYPE_CHECKING:
    from hilum.networks.network_family import FusionSettings

PAPER = "arXiv:2201.03545"
WIDER = 4  # times the maps between the two 1 x 1 convolutions of a block
LAYER_SCALE = 1e-6  # initial weight of a block's output (appendix A.1)
SPREAD = 0.02  # standard deviation of initial weights (appendix A.1)


class MapNormalisation(nn.LayerNorm):
    """Layer normalisation over the maps of each voxel of (batch, maps, *spatial)."""

    def __init__(self, maps: int) -> None:
        super().__init__(maps, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """Return maps of the same shape."""
        return super().forward(images.movedim(1, -1)).movedim(images.ndim - 1, 1)


class Reduction(nn.Module):
    """A convolution whose kernel is as long as its stride; images are padded with zeros to a multiple of it."""

    def __init__(self, ndim: int, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.convolution = CONVOLUTION[ndim](inside, outside, stride, stride)

    def forward(self, images: Tensor) -> Tensor:
        """Return maps that are reduced by the stride."""
        lacking = [-int(n) % self.stride for n in images.shape[:1:-1]]  # the last axis first, as torch pads
        if any(lacking):
            images = nn.functional.pad(images, [side for n in lacking for side in (0, n)])
        return cast("Tensor", self.convolution(images))


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution with a large kernel, two layers over the maps of each voxel, and a shortcut.

    left_out: share of samples that skip the block in training (stochastic depth, arXiv:1603.09382)
    """

    def __init__(self, ndim: int, maps: int, kernel: int, left_out: float) -> None:
        super().__init__()
        self.across = CONVOLUTION[ndim](maps, maps, kernel, padding=kernel // 2, groups=maps)
        self.norm = nn.LayerNorm(maps, eps=1e-6)
        self.inside = nn.Sequential(nn.Linear(maps, WIDER * maps), nn.GELU(), nn.Linear(WIDER * maps, maps))
        self.scale = nn.Parameter(torch.full((maps,), LAYER_SCALE))
        self.left_out = left_out

    def forward(self, images: Tensor) -> Tensor:
        """Return maps of the same shape."""
        change = self.scale * self.inside(self.norm(self.across(images).movedim(1, -1)))
        return images + common_layers.stochastic_depth(change, self.left_out, self.training).movedim(images.ndim - 1, 1)


class ConvNeXt(PooledHead):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    blocks:      of each stage; each stage but the first halves the resolution
    width:       feature maps of the first stage; doubled by each stage
    kernel:      voxels an axis of a block's depthwise convolution, odd
    stem_stride: of the first convolution
    dropout:     before the heads
    left_out:    share of samples that skip the last block in training; it grows linearly from 0 at the first
    context:     number of covariates
    fusion:      settings of `ContextFusion`; without them covariates are concatenated to the pooled maps
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        vectors: Mapping[str, int],
        blocks: Sequence[int] = (3, 3, 9, 3),
        width: int = 96,
        kernel: int = 7,
        stem_stride: int = 4,
        dropout: float = 0.0,
        left_out: float = 0.0,
        context: int = 0,
        fusion: FusionSettings | None = None,
    ) -> None:
        nn.Module.__init__(self)
        if not 0 <= left_out < 1:
            raise ValueError(f"left_out {left_out}: give a share of the samples, from 0 to below 1")
        if kernel % 2 != 1:
            raise ValueError(f"kernel {kernel} has no voxel in its middle: give an odd one")
        layers: list[nn.Module] = [Reduction(spatial_dims, channels, width, stem_stride), MapNormalisation(width)]
        shares = iter(torch.linspace(0, left_out, sum(blocks), device="cpu").tolist())
        for stage, count in enumerate(blocks):
            maps = width * 2**stage
            if stage > 0:
                layers += [MapNormalisation(maps // 2), Reduction(spatial_dims, maps // 2, maps, 2)]
            layers += [ConvNeXtBlock(spatial_dims, maps, kernel, next(shares)) for _ in range(count)]
        self.body = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(maps, eps=1e-6)
        self.end(maps, vectors, dropout, context, fusion)
        for part in (self.body, self.vectors):  # the layers for covariates initialise themselves
            part.apply(_initialise)

    def pool(self, maps: Tensor) -> Tensor:
        """(batch, maps) of (batch, maps, *spatial): their normalised mean."""
        return cast("Tensor", self.norm(super().pool(maps)))


def _initialise(part: nn.Module) -> None:
    if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        nn.init.trunc_normal_(part.weight, std=SPREAD)
        if part.bias is not None:
            nn.init.zeros_(part.bias)


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """ConvNeXt-T for pictures on a GPU; narrower with fewer blocks on a processor, and smaller kernels in volumes."""
    del strides
    slow = device == "cpu"
    volume = len(patch) > 2
    small = max(patch) <= 64
    size = {
        "blocks": ([2, 2, 2] if small else [2, 2, 2, 2]) if slow else ([3, 3, 9] if small else [3, 3, 9, 3]),
        "width": (16 if volume else 32) if slow else (48 if volume else 96),
        "kernel": (3 if slow else 5) if volume else 7,
        "stem_stride": 2 if small else 4,
    }
    stem = f"{size['stem_stride']} voxels an axis become one at first"
    because = f"images of {tuple(patch)}: {stem}, kernels of {size['kernel']}; width and blocks for the {device}"
    return size, because, PAPER


CONVNEXT = context_fusion.pooled_family(ConvNeXt, size_for, PAPER, search_order=8, blocks=("ConvNeXtBlock",))

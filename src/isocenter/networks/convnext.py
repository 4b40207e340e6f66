"""ConvNeXt for whole-image outputs, in one, two or three dimensions: convolutions in the manner of transformers.

Liu et al., CVPR 2022, arXiv:2201.03545: large kernels that look at each map alone, normalisation over the maps of each
voxel, layer scale and, where it is asked for, stochastic depth. This file needs torch and `telling` beside it, so that
a copy of it travels with a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isocenter.networks.family import Family
from isocenter.networks.pooled_head import PooledHead

PAPER = "arXiv:2201.03545"
# By number of axes; typed loosely because torch types sizes by the number of axes.
CONVOLUTION: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
WIDER = 4  # times the maps between the two 1 x 1 convolutions of a block
LAYER_SCALE = 1e-6  # what a block's answer counts at first (appendix A.1)
SPREAD = 0.02  # standard deviation of fresh weights (appendix A.1)


class Normalisation(nn.LayerNorm):
    """Over the maps of each voxel, (batch, maps, *spatial), each voxel alone."""

    def __init__(self, maps: int) -> None:
        super().__init__(maps, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """Return maps of the same shape."""
        return super().forward(images.movedim(1, -1)).movedim(images.ndim - 1, 1)


class Reduction(nn.Module):
    """Neighbouring voxels, `stride` an axis, become one; an image is filled up with zeros to fit."""

    def __init__(self, ndim: int, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.convolution = CONVOLUTION[ndim](inside, outside, stride, stride)

    def forward(self, images: Tensor) -> Tensor:
        """Return maps that are reduced by the stride."""
        lacking = [-int(n) % self.stride for n in images.shape[:1:-1]]  # the last axis first, as torch pads
        if any(lacking):
            images = nn.functional.pad(images, [side for n in lacking for side in (0, n)])
        return self.convolution(images)


class Block(nn.Module):
    """A large kernel over each map alone, then two layers over the maps of each voxel, beside a shortcut.

    left_out: the share of samples that skip the block while training (stochastic depth, arXiv:1603.09382)
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
        found = self.scale * self.inside(self.norm(self.across(images).movedim(1, -1)))
        if self.training and self.left_out > 0:
            kept = torch.empty_like(found[(slice(None), *[slice(1)] * (found.ndim - 1))]).bernoulli_(1 - self.left_out)
            found = found * kept / (1 - self.left_out)
        return images + found.movedim(images.ndim - 1, 1)


class ConvNeXt(PooledHead):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    blocks:      of each stage; each stage but the first halves the resolution
    width:       feature maps of the first stage; doubled by each stage
    kernel:      voxels an axis that a block looks across, odd
    stem_stride: voxels an axis that become one at first
    dropout:     before the heads
    left_out:    the share of samples that skip the last block while training, and less of each before
    context:     numbers beside each image
    fusion:      how they are used (`ContextFusion`); without it they join its pooled maps before the last layer
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
        fusion: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= left_out < 1:
            raise ValueError(f"left_out {left_out} is no share below 1 of the samples")
        if kernel % 2 != 1:
            raise ValueError(f"kernel {kernel} has no voxel in its middle: give an odd one")
        layers: list[nn.Module] = [Reduction(spatial_dims, channels, width, stem_stride), Normalisation(width)]
        shares = iter(torch.linspace(0, left_out, sum(blocks), device="cpu").tolist())
        for stage, count in enumerate(blocks):
            maps = width * 2**stage
            if stage > 0:
                layers += [Normalisation(maps // 2), Reduction(spatial_dims, maps // 2, maps, 2)]
            layers += [Block(spatial_dims, maps, kernel, next(shares)) for _ in range(count)]
        self.body = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(maps, eps=1e-6)
        self.end(maps, vectors, dropout, context, fusion)
        for part in (self.body, self.vectors):  # those of the covariates have their own
            part.apply(_initialise)

    def pool(self, maps: Tensor) -> Tensor:
        """Their normalised mean."""
        return self.norm(super().pool(maps))


def _initialise(part: nn.Module) -> None:
    if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        nn.init.trunc_normal_(part.weight, std=SPREAD)
        if part.bias is not None:
            nn.init.zeros_(part.bias)


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """ConvNeXt-T for pictures on a GPU; narrower with fewer blocks on a processor, and smaller kernels in volumes."""
    del strides
    slow, volume = device == "cpu", len(patch) > 2
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


CONVNEXT = Family(
    build=ConvNeXt,
    size_for=size_for,
    paper=PAPER,
    answers=frozenset({"vector"}),
    takes_context=("concatenate", "film", "attention"),
    search_order=8,
)

"""A feature pyramid with a decoupled head, for boxes: answers on a grid coarser than the image, where boxes are large.

Residual stages (He et al., CVPR 2016, arXiv:1512.03385), whose coarse features are added to the finer ones on the way
back (Lin et al., CVPR 2017, arXiv:1612.03144); what a box holds and where it ends are told by convolutions of their own
(Tian et al., ICCV 2019, arXiv:1904.01355; Ge et al., arXiv:2107.08430). In two and three dimensions. This file needs
torch alone, so that a copy of it travels with a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

PAPER = "arXiv:1612.03144"
# By number of axes; typed loosely because torch types sizes by the number of axes.
CONVOLUTION: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
NORMALISATION: dict[int, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
LINEAR = {2: "bilinear", 3: "trilinear"}


class Unit(nn.Sequential):
    """A convolution, normalised and activated."""

    def __init__(self, ndim: int, inside: int, outside: int, kernel: int = 3, stride: Sequence[int] | int = 1) -> None:
        step = stride if isinstance(stride, int) else tuple(stride)
        convolution = CONVOLUTION[ndim](inside, outside, kernel, step, kernel // 2, bias=False)
        super().__init__(convolution, NORMALISATION[ndim](outside), nn.ReLU(inplace=True))


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, ndim: int, width: int) -> None:
        super().__init__()
        self.first = Unit(ndim, width, width)
        self.second = CONVOLUTION[ndim](width, width, 3, 1, 1, bias=False)
        self.norm = NORMALISATION[ndim](width)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.activation(self.norm(self.second(self.first(images))) + images)


class Pyramid(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, classes + 2 * axes, *spatial)}: centres, lengths and offsets.

    In training the answers are on the grid on which they are computed, of which a voxel is as long as the strides up
    to `finest` make it; lengths and offsets are then in voxels of that grid. Afterwards they are brought to the
    image's own grid, linearly: offsets from there to a centre so stay true in between.

    dense:   heads by name with their number of channels, of which the last are lengths and offsets, one an axis each
    strides: one entry a stage and axis; the first has stride 1. The input's size per axis is a multiple of their product
    finest:  the stage whose grid the answers are on
    width:   feature maps of the stage after the first; doubled by each up to `widest`
    blocks:  residual blocks of each stage from the third on
    inside:  feature maps of the pyramid and of the head
    head:    convolutions of each branch of the head
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        dense: Mapping[str, int],
        strides: Sequence[Sequence[int]],
        finest: int = 2,
        width: int = 16,
        widest: int = 128,
        blocks: int = 1,
        inside: int = 48,
        head: int = 1,
    ) -> None:
        super().__init__()
        if max(strides[0]) > 1 or any(len(stride) != spatial_dims for stride in strides):
            raise ValueError(f"strides need {spatial_dims} numbers a stage, and 1 in the first, not {strides}")
        if not 1 <= finest < len(strides):
            raise ValueError(f"{len(strides)} stages have no finest {finest} beside the first")
        if any(count <= 2 * spatial_dims for count in dense.values()):
            raise ValueError(f"a pyramid answers with boxes, of which {spatial_dims} lengths and offsets are a part")
        ndim, self.finest = spatial_dims, finest
        self.step = [math.prod(stride[axis] for stride in strides[: finest + 1]) for axis in range(ndim)]
        widths = [min(width * 2**stage, widest) for stage in range(len(strides) - 1)]
        self.stages = nn.ModuleList()
        before = channels
        for stage, (outside, stride) in enumerate(zip(widths, strides[1:], strict=True), start=1):
            deep = [Block(ndim, outside) for _ in range(blocks if stage > 1 else 0)]
            self.stages.append(nn.Sequential(Unit(ndim, before, outside, 3, stride), *deep))
            before = outside
        self.across = nn.ModuleList(CONVOLUTION[ndim](one, inside, 1) for one in widths[finest - 1 :])
        self.smooth = Unit(ndim, inside, inside)
        self.kinds = nn.Sequential(*(Unit(ndim, inside, inside) for _ in range(head)))
        self.places = nn.Sequential(*(Unit(ndim, inside, inside) for _ in range(head)))
        last = CONVOLUTION[ndim]
        self.centres = nn.ModuleDict({name: last(inside, count - 2 * ndim, 1) for name, count in dense.items()})
        self.lengths = nn.ModuleDict({name: last(inside, 2 * ndim, 1) for name in dense})
        self.linear = LINEAR[ndim]

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        size = images.shape[2:]
        features = self.features(images)
        kinds, places = self.kinds(features), self.places(features)
        made = {name: (layer(kinds), self.lengths[name](places)) for name, layer in self.centres.items()}
        if self.training:
            return {name: torch.cat([one, self._in_steps(other)], dim=1) for name, (one, other) in made.items()}
        return {
            name: interpolate(torch.cat(one, dim=1).float(), size=size, mode=self.linear, align_corners=False)
            for name, one in made.items()
        }

    def features(self, images: Tensor) -> Tensor:
        """(batch, inside, *coarse) of the finest stage, with what the coarser ones know."""
        found = []
        for number, stage in enumerate(self.stages, start=1):
            images = stage(images)
            if number >= self.finest:
                found.append(images)
        answer = self.across[-1](found[-1])
        for layer, one in zip(reversed(self.across[:-1]), reversed(found[:-1]), strict=True):
            answer = layer(one) + interpolate(answer, size=one.shape[2:], mode="nearest")
        return self.smooth(answer)

    def _in_steps(self, places: Tensor) -> Tensor:
        """Lengths and offsets in voxels of the coarse grid, as the boxes are counted that they are compared with."""
        return places / places.new_tensor([*self.step, *self.step]).reshape(1, -1, *[1] * (places.ndim - 2))


def build(
    channels: int, spatial_dims: int, dense: Mapping[str, int], vectors: Mapping[str, int], size: Mapping[str, Any]
) -> Pyramid:
    if vectors:
        raise ValueError("a pyramid answers with boxes alone: choose resnet for whole images")
    return Pyramid(channels, spatial_dims, dense, **size)


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """A width that the device goes through quickly; the reason and its source."""
    slow = device == "cpu"
    size = {
        "width": 24 if slow else 48,
        "widest": 160 if slow else 320,
        "inside": 64 if slow else 128,
        "finest": min(2, len(strides) - 1),
        "strides": [list(one) for one in strides],
    }
    because = f"patch {tuple(patch)}: answers a fourth as fine, axes are halved while at least 4 voxels are left"
    return size, f"{because}; width for the {device}", PAPER

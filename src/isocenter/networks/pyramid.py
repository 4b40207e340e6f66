"""A feature pyramid with decoupled heads, for boxes in two and three dimensions, on one grid coarser than the image.

Residual stages (He et al., CVPR 2016, arXiv:1512.03385) with a top-down pathway (Lin et al., CVPR 2017,
arXiv:1612.03144), and separate branches for the class and for the extent of a box (Tian et al., ICCV 2019,
arXiv:1904.01355; Ge et al., arXiv:2107.08430). The task has the loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from isocenter.networks.family import Family, Sized, Strides
from isocenter.networks.layers import BATCH_NORM, CONVOLUTION, LINEAR, after_each, convolved

PAPER = "arXiv:1612.03144"
# What decoding adds to the logits of classes: an untrained network then calls one voxel in ten.
ADDED = -math.log(9.0)


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, ndim: int, width: int) -> None:
        super().__init__()
        self.first = convolved(ndim, width, width, 3)
        self.second = CONVOLUTION[ndim](width, width, 3, 1, 1, bias=False)
        self.norm = BATCH_NORM[ndim](width)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        """Return maps of the same shape."""
        return self.activation(self.norm(self.second(self.first(images))) + images)


class Features(nn.Module):
    """(batch, channels, *spatial) to (batch, inside, *coarse) of each stage from `finest` on, finest first.

    strides: one entry a stage and axis; the first has stride 1. The input's size is a multiple of their product
    finest:  the first stage that is a level
    width:   feature maps of the stage after the first; doubled by each up to `widest`
    blocks:  residual blocks of each stage from the third on
    inside:  feature maps of the pyramid
    levels:  number of stages from `finest` on; all if left out
    """

    def __init__(
        self,
        channels: int,
        ndim: int,
        strides: Sequence[Sequence[int]],
        finest: int = 2,
        width: int = 16,
        widest: int = 128,
        blocks: int = 1,
        inside: int = 48,
        levels: int | None = None,
    ) -> None:
        super().__init__()
        strides = strides if levels is None else strides[: finest + levels]
        if max(strides[0]) > 1 or any(len(stride) != ndim for stride in strides):
            raise ValueError(f"strides need {ndim} numbers a stage, and 1 in the first, not {strides}")
        if not 1 <= finest < len(strides):
            raise ValueError(f"{len(strides)} stages have no finest level {finest} after the first")
        self.finest, self.inside = finest, inside
        self.steps = [
            [math.prod(stride[axis] for stride in strides[: stage + 1]) for axis in range(ndim)]
            for stage in range(finest, len(strides))
        ]
        widths = [min(width * 2**stage, widest) for stage in range(len(strides) - 1)]
        self.stages = nn.ModuleList()
        for stage, (outside, stride) in enumerate(zip(widths, strides[1:], strict=True), start=1):
            deep = [Block(ndim, outside) for _ in range(blocks if stage > 1 else 0)]
            before = channels if stage == 1 else widths[stage - 2]
            self.stages.append(nn.Sequential(convolved(ndim, before, outside, 3, stride), *deep))
        self.across = nn.ModuleList(CONVOLUTION[ndim](maps, inside, 1) for maps in widths[finest - 1 :])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return (batch, inside, *coarse) of each level, finest first."""
        *finer, coarsest = after_each(self.stages, images)[self.finest - 1 :]
        levels = [self.across[-1](coarsest)]
        for layer, maps in zip(reversed(self.across[:-1]), reversed(finer), strict=True):
            levels.append(layer(maps) + interpolate(levels[-1], size=maps.shape[2:], mode="nearest"))
        return levels[::-1]


class Pyramid(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, classes + 2 * axes, *spatial)}: centres, lengths and offsets.

    In training outputs are on the grid of the finest level, with lengths and offsets in voxels of that grid. In
    prediction they are interpolated linearly to the image's grid, where offsets stay true.

    dense: heads by name with their number of channels, of which the last are lengths and offsets, one an axis each
    head:  convolutions of each branch of the head
    size:  the other settings, those of `Features`
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        dense: Mapping[str, int],
        head: int = 1,
        **size: Any,
    ) -> None:
        super().__init__()
        ndim, classes = spatial_dims, classes_of(dense, spatial_dims)
        self.body = Features(channels, ndim, **size)
        inside = self.body.inside
        self.smooth = convolved(ndim, inside, inside, 3)
        self.kinds = nn.Sequential(*(convolved(ndim, inside, inside, 3) for _ in range(head)))
        self.places = nn.Sequential(*(convolved(ndim, inside, inside, 3) for _ in range(head)))
        last = CONVOLUTION[ndim]
        self.centres = nn.ModuleDict({name: last(inside, count, 1) for name, count in classes.items()})
        self.lengths = nn.ModuleDict({name: last(inside, 2 * ndim, 1) for name in classes})
        self.linear = LINEAR[ndim]

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the outputs by head; `context` is not used."""
        features = self.smooth(self.body(images)[0])
        kinds, places = self.kinds(features), self.places(features)
        outputs = {name: (layer(kinds), self.lengths[name](places)) for name, layer in self.centres.items()}
        if self.training:
            return {
                name: torch.cat([logits, self._in_steps(extent)], dim=1) for name, (logits, extent) in outputs.items()
            }
        size = images.shape[2:]
        return {
            name: interpolate(torch.cat(parts, dim=1).float(), size=size, mode=self.linear, align_corners=False)
            for name, parts in outputs.items()
        }

    def _in_steps(self, places: Tensor) -> Tensor:
        """Lengths and offsets in voxels of the coarse grid, the unit of the boxes in the loss."""
        return places / along_axes(places.new_tensor(self.body.steps[0] * 2), places)


def along_axes(numbers: Tensor, output: Tensor) -> Tensor:
    """(n,) numbers, one a channel, in a shape that broadcasts with an output."""
    return numbers.reshape(1, -1, *[1] * (output.ndim - 2))


def classes_of(dense: Mapping[str, int], axes: int) -> dict[str, int]:
    """{head: classes} of heads with lengths and offsets."""
    if axes == 1:
        raise ValueError("boxes lie in two or three dimensions")
    if any(count <= 2 * axes for count in dense.values()):
        raise ValueError(f"a head of boxes has {2 * axes} channels of lengths and offsets, and at least one class")
    return {name: count - 2 * axes for name, count in dense.items()}


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """A width for the device, and outputs at a quarter of the image's resolution."""
    slow = device == "cpu"
    size = {
        "width": 24 if slow else 48,
        "widest": 160 if slow else 320,
        "inside": 64 if slow else 128,
        "finest": min(2, len(strides) - 1),
        "strides": [list(one) for one in strides],
    }
    because = f"patch {tuple(patch)}: outputs at a quarter of the resolution, axes halved while 4 voxels are left"
    return size, f"{because}; width for the {device}", PAPER


PYRAMID = Family(
    Pyramid,
    size_for,
    PAPER,
    axes=(2, 3),
    otherwise="Boxes lie in two or three dimensions",
    answers=frozenset({"boxes"}),
    features="body",
)

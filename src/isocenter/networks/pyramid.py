"""Feature pyramids with decoupled heads, for boxes: answers on grids coarser than the image, where boxes are large.

Residual stages (He et al., CVPR 2016, arXiv:1512.03385), whose coarse features are added to the finer ones on the way
back (Lin et al., CVPR 2017, arXiv:1612.03144); what a box holds and where it ends are told by convolutions of their own
(Tian et al., ICCV 2019, arXiv:1904.01355; Ge et al., arXiv:2107.08430). In two and three dimensions. This file needs
torch alone, so that a copy of it travels with a model.

`pyramid` answers on one grid and is taught by its task. `yolox` answers on several, and is defined by its loss: which
answers are to speak of which box is found anew at every step, by those that come closest to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from isocenter.networks.family import Family

PAPER = "arXiv:1612.03144"
# By number of axes; typed loosely because torch types sizes by the number of axes.
CONVOLUTION: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
NORMALISATION: dict[int, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
LINEAR = {2: "bilinear", 3: "trilinear"}
# Who decodes a map adds so much to what it says of classes: a fresh one is to call one voxel in ten.
ADDED = -math.log(9.0)


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
        """Return the block's maps, reduced by its stride."""
        return self.activation(self.norm(self.second(self.first(images))) + images)


class Features(nn.Module):
    """(batch, channels, *spatial) to (batch, inside, *coarse) of each stage from `finest` on, the finest first.

    strides: one entry a stage and axis; the first has stride 1. The input's size is a multiple of their product
    finest:  the first stage whose grid is answered on
    width:   feature maps of the stage after the first; doubled by each up to `widest`
    blocks:  residual blocks of each stage from the third on
    inside:  feature maps of the pyramid
    levels:  how many stages from `finest` on, where not all that there are strides for
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
            raise ValueError(f"{len(strides)} stages have no finest {finest} beside the first")
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
            self.stages.append(nn.Sequential(Unit(ndim, before, outside, 3, stride), *deep))
        self.across = nn.ModuleList(CONVOLUTION[ndim](one, inside, 1) for one in widths[finest - 1 :])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return (batch, inside, *coarse) of each level, finest first."""
        found = []
        for number, stage in enumerate(self.stages, start=1):
            images = stage(images)
            if number >= self.finest:
                found.append(images)
        made = [self.across[-1](found[-1])]
        for layer, one in zip(reversed(self.across[:-1]), reversed(found[:-1]), strict=True):
            made.append(layer(one) + interpolate(made[-1], size=one.shape[2:], mode="nearest"))
        return made[::-1]


class Pyramid(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, classes + 2 * axes, *spatial)}: centres, lengths and offsets.

    In training the answers are on the grid on which they are computed, of which a voxel is as long as the strides up
    to `finest` make it; lengths and offsets are then in voxels of that grid. Afterwards they are brought to the
    image's own grid, linearly: offsets from there to a centre so stay true in between.

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
        self.smooth = Unit(ndim, inside, inside)
        self.kinds = nn.Sequential(*(Unit(ndim, inside, inside) for _ in range(head)))
        self.places = nn.Sequential(*(Unit(ndim, inside, inside) for _ in range(head)))
        last = CONVOLUTION[ndim]
        self.centres = nn.ModuleDict({name: last(inside, count, 1) for name, count in classes.items()})
        self.lengths = nn.ModuleDict({name: last(inside, 2 * ndim, 1) for name in classes})
        self.linear = LINEAR[ndim]

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the answers by head; context: (batch, covariates), for a network that takes them."""
        features = self.smooth(self.body(images)[0])
        kinds, places = self.kinds(features), self.places(features)
        made = {name: (layer(kinds), self.lengths[name](places)) for name, layer in self.centres.items()}
        if self.training:
            return {name: torch.cat([one, self._in_steps(other)], dim=1) for name, (one, other) in made.items()}
        size = images.shape[2:]
        return {
            name: interpolate(torch.cat(one, dim=1).float(), size=size, mode=self.linear, align_corners=False)
            for name, one in made.items()
        }

    def _in_steps(self, places: Tensor) -> Tensor:
        """Lengths and offsets in voxels of the coarse grid, as the boxes are counted that they are compared with."""
        return places / along_axes(places.new_tensor(self.body.steps[0] * 2), places)


def along_axes(numbers: Tensor, output: Tensor) -> Tensor:
    """(n,) numbers so that each is of one channel of an output."""
    return numbers.reshape(1, -1, *[1] * (output.ndim - 2))


def classes_of(dense: Mapping[str, int], axes: int) -> dict[str, int]:
    """{head: classes} of heads with lengths and offsets."""
    if axes == 1:
        raise ValueError("boxes lie in two or three dimensions")
    if any(count <= 2 * axes for count in dense.values()):
        raise ValueError(f"boxes are answered: of the channels {2 * axes} are lengths and offsets, and some classes")
    return {name: count - 2 * axes for name, count in dense.items()}


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


# Of the channels of boxes the last are lengths and offsets, one an axis each.
PYRAMID = Family(
    Pyramid,
    size_for,
    PAPER,
    axes=(2, 3),
    otherwise="Boxes lie in two or three dimensions",
    answers=frozenset({"boxes"}),
)

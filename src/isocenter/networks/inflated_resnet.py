"""Residual networks as torchvision publishes them, inflated for volumes: their kernels get the axis that they lack.

He et al., CVPR 2016, arXiv:1512.03385; Carreira and Zisserman, CVPR 2017, arXiv:1705.07750. The first parts may stay in
the plane, so that the network is one for volumes in its deeper parts alone (Xie et al., ECCV 2018, arXiv:1712.04851).
The layers, and their names, are those of torchvision's ResNet. This file needs torch alone, so that a copy of it
travels with a model. Building a network never asks for weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from isocenter.networks.family import OWN, Family, Published

PAPER = "arXiv:1705.07750"
# By number of axes; typed loosely because torch types sizes by the number of axes.
CONVOLUTION: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMALISATION: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOLING: dict[int, Any] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
# Blocks of each stage, and whether they have a narrow middle (table 1 of the paper).
MODELS = {
    "resnet18": ([2, 2, 2, 2], False),
    "resnet34": ([3, 4, 6, 3], False),
    "resnet50": ([3, 4, 6, 3], True),
    "resnet101": ([3, 4, 23, 3], True),
}
WIDTH, WIDENING = 64, 4  # feature maps of the first stage, and how many times as many a block with a narrow middle has
# Where torchvision's weights lie, learnt from the pictures of ImageNet; the end of each name is that of its SHA-256.
PUBLISHED_AT = "https://download.pytorch.org"
FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-11ad3fa6.pth",
    "resnet101": "resnet101-cd907fc2.pth",
}
# The parts that reduce the image: first convolution, pooling, and three of the four stages.
PARTS, FEWEST_VOXELS = 5, 2
IN_PLANE = 2  # parts that look at the plane alone on a processor: at full resolution depth costs it most


class Look(NamedTuple):
    """What a part sees.

    axis: along which volumes are continued by their outermost slices, None for pictures. A volume of equal slices then
          stays one, and gets the answer of its slice
    deep: whether kernels are as long along that axis as along the others, else 1
    """

    axes: int
    axis: int | None = None
    deep: bool = True

    def kernel(self, length: int) -> list[int]:
        """Voxels per axis of a kernel that is so long where the part sees an axis."""
        return [1 if n == self.axis and not self.deep else length for n in range(self.axes)]

    def convolution(
        self, inside: int, outside: int, length: int, stride: Sequence[int], dilation: Sequence[int]
    ) -> nn.Module:
        """A convolution that sees the axes of the part."""
        kernel = self.kernel(length)
        pad = [0 if n == self.axis else k // 2 * d for n, (k, d) in enumerate(zip(kernel, dilation, strict=True))]
        made: nn.Module = CONVOLUTION[self.axes](
            inside, outside, kernel, tuple(stride), pad, dilation=tuple(dilation), bias=False
        )
        return made

    def ends(self, length: int, dilation: Sequence[int]) -> nn.Module:
        """What goes before a convolution: the slices beyond the ends."""
        if self.axis is None or not self.deep:
            return nn.Identity()
        return Ends(self.axis, length // 2 * dilation[self.axis])

    def pooling(self, stride: Sequence[int]) -> nn.Module:
        """The pooling of the stem along the axes of the part."""
        kernel = self.kernel(3)
        made: nn.Module = POOLING[self.axes](kernel, tuple(stride), [k // 2 for k in kernel])
        return made


class Ends(nn.Module):
    """Images continued by their outermost slices, so many at each end of an axis."""

    def __init__(self, axis: int, count: int) -> None:
        super().__init__()
        self.axis, self.count = axis + 2, count

    def forward(self, images: Tensor) -> Tensor:
        """Return the longer images."""
        first, last = images.narrow(self.axis, 0, 1), images.narrow(self.axis, images.shape[self.axis] - 1, 1)
        return torch.cat([first] * self.count + [images] + [last] * self.count, dim=self.axis)


class Block(nn.Module):
    """Two convolutions beside a shortcut; the first takes the stride."""

    def __init__(self, look: Look, inside: int, outside: int, stride: Sequence[int], dilation: Sequence[int]) -> None:
        super().__init__()
        one = [1] * look.axes
        self.ends1, self.ends2 = look.ends(3, dilation), look.ends(3, dilation)
        self.conv1 = look.convolution(inside, outside, 3, stride, dilation)
        self.bn1 = NORMALISATION[look.axes](outside)
        self.conv2 = look.convolution(outside, outside, 3, one, dilation)
        self.bn2 = NORMALISATION[look.axes](outside)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(look, inside, outside, stride)

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's maps, reduced by its stride."""
        found = self.relu(self.bn1(self.conv1(self.ends1(images))))
        found = self.bn2(self.conv2(self.ends2(found)))
        return self.relu(found + (images if self.downsample is None else self.downsample(images)))


class NarrowBlock(nn.Module):
    """A convolution between two of single voxels, beside a shortcut; it takes the stride, as in torchvision."""

    def __init__(self, look: Look, inside: int, outside: int, stride: Sequence[int], dilation: Sequence[int]) -> None:
        super().__init__()
        one, middle = [1] * look.axes, outside // WIDENING
        flat = look._replace(deep=False)
        self.ends2 = look.ends(3, dilation)
        self.conv1 = flat.convolution(inside, middle, 1, one, one)
        self.bn1 = NORMALISATION[look.axes](middle)
        self.conv2 = look.convolution(middle, middle, 3, stride, dilation)
        self.bn2 = NORMALISATION[look.axes](middle)
        self.conv3 = flat.convolution(middle, outside, 1, one, one)
        self.bn3 = NORMALISATION[look.axes](outside)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(look, inside, outside, stride)

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's maps, reduced by its stride."""
        found = self.relu(self.bn1(self.conv1(images)))
        found = self.relu(self.bn2(self.conv2(self.ends2(found))))
        found = self.bn3(self.conv3(found))
        return self.relu(found + (images if self.downsample is None else self.downsample(images)))


def shortcut(look: Look, inside: int, outside: int, stride: Sequence[int]) -> nn.Module | None:
    """What a block's input goes through where its output has another shape."""
    if inside == outside and max(stride) == 1:
        return None
    narrow = look.convolution(inside, outside, 1, stride, [1] * look.axes)
    return nn.Sequential(narrow, NORMALISATION[look.axes](outside))


class Encoder(nn.Module):
    """(batch, channels, *spatial) to the maps of each of the four stages, finest first.

    model:   of `MODELS`
    width:   feature maps of the first stage; published weights have 64
    strides: one entry for each of the first convolution, the pooling behind it, and the stages from the second on, and
             for each axis; 2 for all if left out
    axis:    of a volume, that the kernels of pictures lack
    planar:  how many of the five parts (first convolution, four stages) look at the plane across that axis alone
    dilated: how many of the last stages look that much further apart instead of reducing the image (arXiv:1706.05587)
    `finest` and `features` are the feature maps of the first and the last stage.
    """

    def __init__(
        self,
        channels: int,
        axes: int,
        model: str = "resnet18",
        width: int = WIDTH,
        strides: Sequence[Sequence[int]] | None = None,
        axis: int = -1,
        planar: int = 0,
        dilated: int = 0,
    ) -> None:
        super().__init__()
        steps = [[2] * axes] * PARTS if strides is None else [list(one) for one in strides]
        _refuse(axes, model, steps, axis, planar, dilated)
        blocks, narrow = MODELS[model]
        new = axis % axes if axes == 3 else None
        looks = [Look(axes, new, deep=part >= planar) for part in range(PARTS)]
        one = [1] * axes
        self.ends1 = looks[0].ends(7, one)
        self.conv1 = looks[0].convolution(channels, width, 7, steps[0], one)
        self.bn1, self.relu = NORMALISATION[axes](width), nn.ReLU(inplace=True)
        self.maxpool = looks[0].pooling(steps[1])
        inside, apart = width, one
        for stage, count in enumerate(blocks):
            outside = width * 2**stage * (WIDENING if narrow else 1)
            stride, before = steps[stage + 1] if stage else one, apart
            if stage >= len(blocks) - dilated:
                apart, stride = [a * b for a, b in zip(apart, stride, strict=True)], one
            block, look = NarrowBlock if narrow else Block, looks[stage + 1]
            made = [block(look, inside, outside, stride, before)]
            made += [block(look, outside, outside, one, apart) for _ in range(count - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*made))
            inside = outside
        self.finest, self.features = inside // 2 ** (len(blocks) - 1), inside
        for weight in self.parameters():
            if weight.ndim > 1:
                nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of each stage, finest first."""
        images = self.maxpool(self.relu(self.bn1(self.conv1(self.ends1(images)))))
        found = []
        for stage in range(1, PARTS):
            images = self.get_submodule(f"layer{stage}")(images)
            found.append(images)
        return found


def _refuse(axes: int, model: str, strides: Sequence[Sequence[int]], axis: int, planar: int, dilated: int) -> None:
    """ValueError for what is no such network."""
    if model not in MODELS:
        raise ValueError(f"there is no model {model!r}: choose one of {', '.join(MODELS)}")
    if len(strides) != PARTS or any(len(one) != axes or min(one) < 1 for one in strides):
        raise ValueError(f"strides need {PARTS} entries of {axes} numbers from 1, not {strides}")
    if not -axes <= axis < axes or not 0 <= planar <= PARTS or not 0 <= dilated < PARTS - 1:
        raise ValueError(f"axis {axis}, planar {planar} or dilated {dilated} is beyond {axes} axes and {PARTS} parts")


class InflatedResNet(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    dropout: before the heads
    context: numbers beside each image, which join its pooled maps before the last layer
    `size`:  the settings of the encoder
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        vectors: Mapping[str, int],
        dropout: float = 0.1,
        context: int = 0,
        **size: Any,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(channels, spatial_dims, **size)
        self.dropout = nn.Dropout(dropout)
        inside = self.encoder.features + context
        self.vectors = nn.ModuleDict({name: nn.Linear(inside, count) for name, count in vectors.items()})

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the answers by head; context: (batch, covariates), for a network that takes them."""
        pooled = self.dropout(self.encoder(images)[-1].flatten(2).mean(dim=2))
        told = pooled if context is None else torch.cat([pooled, context], dim=1)
        return {name: layer(told) for name, layer in self.vectors.items()}


def published(channels: int, size: Mapping[str, Any]) -> dict[str, Tensor]:
    """What torchvision's network learnt from coloured pictures, fetched; the rest is adapted to ours."""
    del channels
    model = size.get("model", "resnet18")
    if model not in FILES or size.get("width", WIDTH) != WIDTH:
        raise ValueError(f"there are published weights of {', '.join(FILES)} with a width of {WIDTH} alone")
    address = f"{PUBLISHED_AT}/models/{FILES[model]}"
    fetched: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
        address, map_location="cpu", check_hash=True, progress=False, weights_only=True
    )
    return {translated(name): value for name, value in fetched.items()}


def translated(name: str) -> str:
    """A tensor of torchvision's network by our name."""
    return name if name.startswith("encoder.") else f"encoder.{name}"


def strides_for(patch: Sequence[int], *, early: bool) -> list[list[int]]:
    """Five entries: each axis is reduced while two voxels are left, and one that is reduced less is so later.

    early: small images are reduced by the first parts, which costs less, and else by the last, which sees more
    """
    often = [max(0, min(PARTS, int(math.log2(max(1, n / FEWEST_VOXELS))))) for n in patch]
    end = max(often) if early else PARTS
    return [[2 if end - count <= part < end else 1 for count in often] for part in range(PARTS)]


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """A network that weights are published for; in volumes the plane alone while voxels are long across it."""
    del strides
    model, steps = "resnet18" if device == "cpu" else "resnet50", strides_for(patch, early=len(patch) == 3)
    size: dict[str, Any] = {"model": model, "strides": steps}
    because = f"{model} for the {device}, as weights are published for it; images of {tuple(patch)}"
    if len(patch) < 3:
        return size, because, PAPER
    factors = [math.prod(along) for along in zip(*steps, strict=True)]
    axis = max(n for n, by in enumerate(factors) if by == min(factors))
    late = next((part for part, step in enumerate(steps) if step[axis] == 2), 0)
    planar = max(late, IN_PLANE if device == "cpu" else 0)
    thick = f"it is reduced {late} parts later than the plane"
    why = thick if late else f"depth costs the {device} most there"
    seen = f"the first {planar} of {PARTS} parts look at the plane across axis {axis}, because {why}"
    more = seen if planar else f"all parts look along axis {axis} too"
    return {**size, "axis": axis, "planar": planar}, f"{because}; {more}", PAPER


PUBLISHED = Published(published, PUBLISHED_AT)
INFLATED_RESNET = Family(
    build=InflatedResNet,
    size_for=size_for,
    paper=PAPER,
    answers=frozenset({"vector"}),
    takes_context=(OWN,),
    published=PUBLISHED,
    translated=translated,
)

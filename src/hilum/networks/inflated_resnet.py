"""torchvision's residual networks, inflated for volumes: kernels of pictures get the third axis.

He et al., CVPR 2016, arXiv:1512.03385; Carreira and Zisserman, CVPR 2017, arXiv:1705.07750. The first parts can stay
two-dimensional (Xie et al., ECCV 2018, arXiv:1712.04851). The layers, and their names, are those of torchvision's
ResNet. Building a network never downloads weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from hilum.networks import common_layers
from hilum.networks.common_layers import BATCH_NORM, CONVOLUTION, MAX_POOL
from hilum.networks.network_family import OWN, Family, NetworkSize, PublishedWeights, Sized, SizeValue, Strides

PAPER = "arXiv:1705.07750"
# Blocks of each stage, and whether they are bottlenecks (table 1 of the paper).
MODELS = {
    "resnet18": ([2, 2, 2, 2], False),
    "resnet34": ([3, 4, 6, 3], False),
    "resnet50": ([3, 4, 6, 3], True),
    "resnet101": ([3, 4, 23, 3], True),
}
# feature maps of the first stage, and expansion of a bottleneck
WIDTH = 64
WIDENING = 4
# Address of torchvision's weights from ImageNet; each file name ends with the start of its SHA-256.
PUBLISHED_AT = "https://download.pytorch.org"
FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-11ad3fa6.pth",
    "resnet101": "resnet101-cd907fc2.pth",
}
# The parts that reduce the image: first convolution, pooling, and three of the four stages.
PARTS = 5
FEWEST_VOXELS = 2
IN_PLANE = 2  # parts that stay two-dimensional on a processor: at full resolution depth takes most time


class PartKernels(NamedTuple):
    """Kernels of a part of the network.

    axis: that kernels of pictures lack, None for pictures. Volumes are padded along it by their outermost slices, so
          that a volume of equal slices has the output of its slice
    deep: whether kernels are as long along that axis as along the others, else 1
    """

    axes: int
    axis: int | None = None
    deep: bool = True

    def kernel(self, length: int) -> list[int]:
        """Voxels per axis of a kernel of this length."""
        return [1 if n == self.axis and not self.deep else length for n in range(self.axes)]

    def convolution(
        self, inside: int, outside: int, length: int, stride: Sequence[int], dilation: Sequence[int]
    ) -> nn.Module:
        """A convolution with a kernel of this length."""
        kernel = self.kernel(length)
        pad = [0 if n == self.axis else k // 2 * d for n, (k, d) in enumerate(zip(kernel, dilation, strict=True))]
        layer: nn.Module = CONVOLUTION[self.axes](
            inside, outside, kernel, tuple(stride), pad, dilation=tuple(dilation), bias=False
        )
        return layer

    def ends(self, length: int, dilation: Sequence[int]) -> nn.Module:
        """The padding before a convolution, along the axis that pictures lack."""
        if self.axis is None or not self.deep:
            return nn.Identity()
        return EndPadding(self.axis, length // 2 * dilation[self.axis])

    def pooling(self, stride: Sequence[int]) -> nn.Module:
        """The stem's max pooling."""
        kernel = self.kernel(3)
        layer: nn.Module = MAX_POOL[self.axes](kernel, tuple(stride), [k // 2 for k in kernel])
        return layer


class EndPadding(nn.Module):
    """Padding by the outermost slices, so many at each end of an axis."""

    def __init__(self, axis: int, count: int) -> None:
        super().__init__()
        self.axis = axis + 2
        self.count = count

    def forward(self, images: Tensor) -> Tensor:
        """Return the longer images."""
        first, last = images.narrow(self.axis, 0, 1), images.narrow(self.axis, images.shape[self.axis] - 1, 1)
        return torch.cat([first] * self.count + [images] + [last] * self.count, dim=self.axis)


class InflatedBlock(nn.Module):
    """Two convolutions and a shortcut; the first takes the stride."""

    def __init__(
        self, look: PartKernels, inside: int, outside: int, stride: Sequence[int], dilation: Sequence[int]
    ) -> None:
        super().__init__()
        ones = [1] * look.axes
        self.ends1 = look.ends(3, dilation)
        self.ends2 = look.ends(3, dilation)
        self.conv1 = look.convolution(inside, outside, 3, stride, dilation)
        self.bn1 = BATCH_NORM[look.axes](outside)
        self.conv2 = look.convolution(outside, outside, 3, ones, dilation)
        self.bn2 = BATCH_NORM[look.axes](outside)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = project_shortcut(look, inside, outside, stride)

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's maps, reduced by its stride."""
        maps = self.relu(self.bn1(self.conv1(self.ends1(images))))
        maps = self.bn2(self.conv2(self.ends2(maps)))
        return cast("Tensor", self.relu(maps + (images if self.downsample is None else self.downsample(images))))


class NarrowBlock(nn.Module):
    """A bottleneck: a convolution, which takes the stride, between two of single voxels, and a shortcut."""

    def __init__(
        self, look: PartKernels, inside: int, outside: int, stride: Sequence[int], dilation: Sequence[int]
    ) -> None:
        super().__init__()
        ones = [1] * look.axes
        middle = outside // WIDENING
        flat = look._replace(deep=False)
        self.ends2 = look.ends(3, dilation)
        self.conv1 = flat.convolution(inside, middle, 1, ones, ones)
        self.bn1 = BATCH_NORM[look.axes](middle)
        self.conv2 = look.convolution(middle, middle, 3, stride, dilation)
        self.bn2 = BATCH_NORM[look.axes](middle)
        self.conv3 = flat.convolution(middle, outside, 1, ones, ones)
        self.bn3 = BATCH_NORM[look.axes](outside)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = project_shortcut(look, inside, outside, stride)

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's maps, reduced by its stride."""
        maps = self.relu(self.bn1(self.conv1(images)))
        maps = self.relu(self.bn2(self.conv2(self.ends2(maps))))
        maps = self.bn3(self.conv3(maps))
        return cast("Tensor", self.relu(maps + (images if self.downsample is None else self.downsample(images))))


def project_shortcut(look: PartKernels, inside: int, outside: int, stride: Sequence[int]) -> nn.Module | None:
    """The projection of a block's input where its output has another shape; None else."""
    if inside == outside and max(stride) == 1:
        return None
    narrow = look.convolution(inside, outside, 1, stride, [1] * look.axes)
    return nn.Sequential(narrow, BATCH_NORM[look.axes](outside))


class InflatedEncoder(nn.Module):
    """(batch, channels, *spatial) to the maps of each of the four stages, finest first.

    model:   of `MODELS`
    width:   feature maps of the first stage; published weights have 64
    strides: one entry for each of the first convolution, the pooling after it, and the stages from the second on, and
             for each axis; 2 for all if left out
    axis:    of a volume, that the kernels of pictures lack
    planar:  how many of the five parts (first convolution, four stages) are two-dimensional, across that axis
    dilated: how many of the last stages have dilated kernels instead of strides (arXiv:1706.05587)
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
        looks = [PartKernels(axes, new, deep=part >= planar) for part in range(PARTS)]
        ones = [1] * axes
        self.ends1 = looks[0].ends(7, ones)
        self.conv1 = looks[0].convolution(channels, width, 7, steps[0], ones)
        self.bn1 = BATCH_NORM[axes](width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = looks[0].pooling(steps[1])
        inside = width
        apart = ones
        for stage, count in enumerate(blocks):
            outside = width * 2**stage * (WIDENING if narrow else 1)
            stride = steps[stage + 1] if stage else ones
            before = apart
            if stage >= len(blocks) - dilated:
                apart = [a * b for a, b in zip(apart, stride, strict=True)]
                stride = ones
            block = NarrowBlock if narrow else InflatedBlock
            look = looks[stage + 1]
            blocks_of_stage = [block(look, inside, outside, stride, before)]
            blocks_of_stage += [block(look, outside, outside, ones, apart) for _ in range(count - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks_of_stage))
            inside = outside
        self.finest = inside // 2 ** (len(blocks) - 1)
        self.features = inside
        for weight in self.parameters():
            if weight.ndim > 1:
                nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of each stage, finest first."""
        images = self.maxpool(self.relu(self.bn1(self.conv1(self.ends1(images)))))
        return common_layers.stage_maps([self.get_submodule(f"layer{stage}") for stage in range(1, PARTS)], images)


def _refuse(axes: int, model: str, strides: Sequence[Sequence[int]], axis: int, planar: int, dilated: int) -> None:
    """ValueError for settings that make no network."""
    if model not in MODELS:
        raise ValueError(f"there is no model {model!r}: choose one of {', '.join(MODELS)}")
    if len(strides) != PARTS or any(len(one) != axes or min(one) < 1 for one in strides):
        raise ValueError(f"strides need {PARTS} entries of {axes} numbers from 1, not {strides}")
    if not -axes <= axis < axes or not 0 <= planar <= PARTS or not 0 <= dilated < PARTS - 1:
        raise ValueError(f"axis {axis}, planar {planar} or dilated {dilated} is beyond {axes} axes and {PARTS} parts")


class InflatedResNet(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    dropout: before the heads
    context: number of covariates, which are concatenated to the pooled maps
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
        self.encoder = InflatedEncoder(channels, spatial_dims, **size)
        self.dropout = nn.Dropout(dropout)
        inside = self.encoder.features + context
        self.vectors = nn.ModuleDict({name: nn.Linear(inside, count) for name, count in vectors.items()})

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return {head: (batch, size)}; context: (batch, covariates)."""
        pooled = self.dropout(self.encoder(images)[-1].flatten(2).mean(dim=2))
        features = common_layers.join_covariates(pooled, context)
        return {name: layer(features) for name, layer in self.vectors.items()}


def published(channels: int, size: NetworkSize) -> dict[str, Tensor]:
    """torchvision's weights from ImageNet, downloaded, under our names."""
    del channels
    model = size.get("model", "resnet18")
    if model not in FILES or size.get("width", WIDTH) != WIDTH:
        raise ValueError(f"weights are published only of {', '.join(FILES)} with a width of {WIDTH}")
    address = f"{PUBLISHED_AT}/models/{FILES[model]}"
    fetched: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
        address, map_location="cpu", check_hash=True, progress=False, weights_only=True
    )
    return {resnet_tensor_name(name): value for name, value in fetched.items()}


def resnet_tensor_name(name: str) -> str:
    """A tensor of torchvision's network by our name."""
    return name if name.startswith("encoder.") else f"encoder.{name}"


def strides_for(patch: Sequence[int], *, early: bool) -> list[list[int]]:
    """Five entries: each axis is halved while two voxels are left, and an axis that is halved less often is so later.

    early: whether small images are halved by the first parts, which is faster, or by the last, which keeps more detail
    """
    often = [max(0, min(PARTS, int(math.log2(max(1, n / FEWEST_VOXELS))))) for n in patch]
    end = max(often) if early else PARTS
    return [[2 if end - count <= part < end else 1 for count in often] for part in range(PARTS)]


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """A network with published weights; for volumes two-dimensional parts while voxels are long in depth."""
    del strides
    model = "resnet18" if device == "cpu" else "resnet50"
    steps = strides_for(patch, early=len(patch) == 3)
    size: dict[str, SizeValue] = {"model": model, "strides": steps}
    because = f"{model} for the {device}, as weights are published for it; images of {tuple(patch)}"
    if len(patch) < 3:
        return size, because, PAPER
    factors = [math.prod(along) for along in zip(*steps, strict=True)]
    axis = max(n for n, by in enumerate(factors) if by == min(factors))
    late = next((part for part, step in enumerate(steps) if step[axis] == 2), 0)
    planar = max(late, IN_PLANE if device == "cpu" else 0)
    thick = f"it is reduced {late} parts later than the plane"
    why = thick if late else f"depth takes the {device} most time there"
    planes = f"the first {planar} of {PARTS} parts are two-dimensional, across axis {axis}, because {why}"
    more = planes if planar else f"all parts are three-dimensional, along axis {axis} too"
    return {**size, "axis": axis, "planar": planar}, f"{because}; {more}", PAPER


PUBLISHED = PublishedWeights(published, PUBLISHED_AT)
INFLATED_RESNET = Family(
    build=InflatedResNet,
    size_for=size_for,
    paper=PAPER,
    answers=frozenset({"vector"}),
    takes_context=(OWN,),
    published=PUBLISHED,
    translated=resnet_tensor_name,
    features="encoder.layer4",
    blocks=("InflatedBlock", "NarrowBlock"),
)

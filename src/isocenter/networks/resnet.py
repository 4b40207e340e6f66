"""Residual network for whole-image outputs, in one, two or three dimensions.

He et al., CVPR 2016, arXiv:1512.03385, with pre-activation (arXiv:1603.05027). The stem keeps the resolution of small
images, where the original would halve it twice before the first block. Blocks can weigh their maps (SE-ResNet,
arXiv:1709.01507), and then their voxels (CBAM, arXiv:1807.06521), go many narrow paths (ResNeXt, arXiv:1611.05431), or
take their convolutions apart (arXiv:1711.10305, arXiv:1711.11248). This file needs torch, and `gates` and `telling`
beside it, so that copies travel with a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor, nn

from isocenter.networks.family import Family
from isocenter.networks.gates import gate
from isocenter.networks.pooled_head import PooledHead

PAPER = "arXiv:1603.05027"
# By number of axes; typed loosely because torch types sizes by the number of axes.
CONVOLUTION: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMALISATION: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Convolving(NamedTuple):
    """How the blocks of a network convolve; the settings of a ResNet, where they are told."""

    attention: str | None = None
    groups: int = 1
    factorised: str | None = None
    axis: int = -1
    kernel: tuple[int, ...] | None = None

    def three(self, ndim: int, inside: int, outside: int, stride: int | Sequence[int]) -> nn.Module:
        """A convolution of `kernel`, 3 voxels an axis if not told, whole or as the two that take its place."""
        if self.factorised not in (None, "axes", "maps"):
            raise ValueError(f"factorised {self.factorised!r} is none of axes, maps and null")
        if self.factorised is not None and self.groups > 1:
            raise ValueError("paths in groups are narrow as they are: choose either groups or factorised")
        whole, normalisation = CONVOLUTION[ndim], NORMALISATION[ndim]
        kernel = self.kernel or (3,) * ndim
        steps, pad = ((stride,) * ndim if isinstance(stride, int) else tuple(stride)), tuple(n // 2 for n in kernel)
        if self.factorised == "maps":  # each map alone, then all maps of each voxel (arXiv:1610.02357)
            alone = whole(inside, inside, kernel, steps, pad, groups=inside, bias=False)
            return nn.Sequential(alone, whole(inside, outside, 1, bias=False))
        if self.factorised == "axes" and (ndim == 1 or not -ndim <= self.axis < ndim):
            raise ValueError(f"axis {self.axis} cannot be taken apart from {ndim} axes: choose resnet, or another axis")
        if self.factorised is None or kernel[self.axis] == 1:
            convolution: nn.Module = whole(inside, outside, kernel, steps, pad, groups=self.groups, bias=False)
            return convolution
        plane = [1 if n == self.axis % ndim else 3 for n in range(ndim)]
        line = [4 - kernel for kernel in plane]
        # As many weights as the whole convolution has (arXiv:1711.11248, section 3.5).
        middle = max(1, 3**ndim * inside * outside // (3 ** (ndim - 1) * inside + 3 * outside))
        return nn.Sequential(
            whole(inside, middle, plane, _strides(plane, steps), [n // 2 for n in plane], bias=False),
            normalisation(middle),
            nn.ReLU(inplace=True),
            whole(middle, outside, line, _strides(line, steps), [n // 2 for n in line], bias=False),
        )

    def weighed(self, ndim: int, maps: int) -> nn.Module | None:
        """What a block's answer goes through before its shortcut is added."""
        return gate(self.attention, ndim, maps)


def _strides(kernel: Sequence[int], steps: Sequence[int]) -> list[int]:
    """Each axis is reduced by the convolution that looks along it."""
    return [step if n == 3 else 1 for n, step in zip(kernel, steps, strict=True)]


class Block(nn.Module):
    """Normalise, activate, convolve, twice, beside a shortcut; the first convolution takes the stride."""

    def __init__(self, ndim: int, inside: int, outside: int, stride: Sequence[int], how: Convolving) -> None:
        super().__init__()
        convolution, normalisation = CONVOLUTION[ndim], NORMALISATION[ndim]
        self.first_norm = normalisation(inside)
        self.first = how.three(ndim, inside, outside, stride)
        self.second_norm = normalisation(outside)
        self.second = how.three(ndim, outside, outside, 1)
        self.shortcut: nn.Module | None = None
        if inside != outside or max(stride) > 1:
            self.shortcut = convolution(inside, outside, 1, tuple(stride), bias=False)
        self.attention = how.weighed(ndim, outside)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's maps, reduced by its stride."""
        active = self.activation(self.first_norm(images))
        shortcut = images if self.shortcut is None else self.shortcut(active)
        found = self.second(self.activation(self.second_norm(self.first(active))))
        return (found if self.attention is None else self.attention(found)) + shortcut


class Paths(nn.Module):
    """As a block, with many narrow paths side by side: a 1 x 1 convolution, one in groups, a 1 x 1 that joins them."""

    def __init__(self, ndim: int, inside: int, outside: int, stride: Sequence[int], how: Convolving) -> None:
        super().__init__()
        convolution, normalisation = CONVOLUTION[ndim], NORMALISATION[ndim]
        middle = outside // 2  # as in ResNeXt-50 (32 x 4d)
        self.first_norm, self.first = normalisation(inside), convolution(inside, middle, 1, bias=False)
        self.second_norm, self.second = normalisation(middle), how.three(ndim, middle, middle, stride)
        self.third_norm, self.third = normalisation(middle), convolution(middle, outside, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if inside != outside or max(stride) > 1:
            self.shortcut = convolution(inside, outside, 1, tuple(stride), bias=False)
        self.attention = how.weighed(ndim, outside)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's maps, reduced by its stride."""
        active = self.activation(self.first_norm(images))
        shortcut = images if self.shortcut is None else self.shortcut(active)
        paths = self.second(self.activation(self.second_norm(self.first(active))))
        found = self.third(self.activation(self.third_norm(paths)))
        return (found if self.attention is None else self.attention(found)) + shortcut


class ResNet(PooledHead):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    blocks:      residual blocks of each stage; each stage but the first halves the resolution
    width:       feature maps of the first stage; doubled by each stage
    stem_stride: of the first convolution; 1 keeps small images whole
    dropout:     before the heads
    context:     numbers beside each image
    fusion:      how they are used (`ContextFusion`); without it they join its pooled maps before the last layer
    attention:   "se" weighs the maps of each block, "cbam" its maps and then its voxels
    groups:      paths of each block; with more than one the block has a narrow middle, the stem a fourth of the width
    factorised:  "axes" convolves in the plane across `axis` and then along it, "maps" each map alone and then all maps
    axis:        that "axes" takes apart
    late:        for each axis, how many halvings of the others are to be waited for before it is looked along and
                 halved itself, because its voxels are longer until then; none if left out
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        vectors: Mapping[str, int],
        blocks: Sequence[int] = (2, 2, 2, 2),
        width: int = 32,
        stem_stride: int = 1,
        dropout: float = 0.1,
        context: int = 0,
        fusion: Mapping[str, Any] | None = None,
        attention: str | None = None,
        groups: int = 1,
        factorised: str | None = None,
        axis: int = -1,
        late: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        block, waits = Block if groups == 1 else Paths, _waits(late, spatial_dims)
        kernel, step = _along(waits, 0, 3 if stem_stride == 1 else 7), _along(waits, 0, stem_stride)
        inside = width if groups == 1 else width // 4
        pad = tuple(n // 2 for n in kernel)
        stem = CONVOLUTION[spatial_dims](channels, inside, kernel, step, pad, bias=False)
        layers: list[nn.Module] = [stem]
        halved = int(math.log2(stem_stride))
        for stage, count in enumerate(blocks):
            outside = width * 2**stage
            how = Convolving(attention, groups, factorised, axis, _along(waits, halved, 3))
            for n in range(count):
                stride = _along(waits, halved, 2 if stage > 0 and n == 0 else 1)
                layers.append(block(spatial_dims, inside, outside, stride, how))
                inside = outside
            halved += stage > 0
        self.features = inside
        self.body = nn.Sequential(*layers, NORMALISATION[spatial_dims](inside), nn.ReLU(inplace=True))
        self.end(inside, vectors, dropout, context, fusion)


def _waits(late: Sequence[int] | None, axes: int) -> list[int]:
    """How long each axis waits; ValueError for what cannot be."""
    waits = [0] * axes if late is None else list(late)
    if len(waits) != axes or min(waits) != 0:
        raise ValueError(f"late needs {axes} numbers from 0, one of them 0, not {late}")
    return waits


def _along(waits: Sequence[int], halved: int, size: int) -> tuple[int, ...]:
    """A kernel or stride of that size, and 1 along axes that wait for more halvings of the others."""
    return tuple(1 if wait > halved else size for wait in waits)


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """Fewer stages for small images, whose resolution the stem keeps; the reason and its source."""
    small = max(patch) <= 64
    blocks = [2, 2, 2] if small else [2, 2, 2, 2]
    stem = "the stem keeps the resolution" if small else "the stem halves it"
    # A volume costs a processor some thirty pictures: at half the width it sees three times as many in the time.
    width = 16 if device == "cpu" and len(patch) == 3 else 32
    size: dict[str, Any] = {"width": width, "blocks": blocks, "stem_stride": 1 if small else 2}
    because = f"images of {tuple(patch)}: {len(blocks)} stages, {stem}; width for the {device}"
    late = late_for(strides, len(blocks) - 2 if small else len(blocks) - 1)
    if max(late) == 0:
        return size, because, "arXiv:1512.03385"
    waits = " and ".join(f"axis {n} waits for {wait} halvings of the others" for n, wait in enumerate(late) if wait)
    why = f"{waits} before it is looked along and halved, because its voxels are longer"
    return {**size, "late": late}, f"{because}; {why}", "arXiv:1512.03385"


def late_for(strides: Sequence[Sequence[int]], most: int) -> list[int]:
    """For each axis, how many stages halve others before it is halved, at the most so many; 0 for one that never is.

    An axis that has as few voxels as never to be halved may have as short ones.
    """
    waits = []
    for along in zip(*strides[1:], strict=True):
        first = next((stage for stage, step in enumerate(along) if step > 1), 0)
        waits.append(min(first, most))
    return waits or [0] * len(strides[0])


def size_for_costly(
    patch: Sequence[int], strides: Sequence[Sequence[int]], device: str
) -> tuple[Mapping[str, Any], str, str]:
    """As a ResNet, but on a processor the stem halves volumes: what blocks do more costs most at full resolution."""
    size, because, source = size_for(patch, strides, device)
    if device != "cpu" or len(patch) < 3 or size["stem_stride"] > 1:
        return size, because, source
    return {**size, "stem_stride": 2}, because.replace("the stem keeps the resolution", "the stem halves it"), source


def size_for_resnext(
    patch: Sequence[int], strides: Sequence[Sequence[int]], device: str
) -> tuple[Mapping[str, Any], str, str]:
    """ResNeXt-50 (32 x 4d) for pictures on a GPU, half as wide for volumes; 8 paths and fewer blocks on a processor."""
    del strides
    slow, volume, small = device == "cpu", len(patch) > 2, max(patch) <= 64
    stages = 3 if small else 4
    groups = 8 if slow else 16 if volume else 32
    stride = (2 if slow and volume else 1) if small else 4  # 4: its first convolution and the pooling behind it
    size = {
        "width": 4 * groups if slow and volume else 8 * groups,
        "blocks": ([2, 2, 2, 2] if slow else [3, 4, 6, 3])[:stages],
        "stem_stride": stride,
        "groups": groups,
    }
    stem = "the stem keeps the resolution" if stride == 1 else f"the stem reduces it by {stride}"
    because = f"images of {tuple(patch)}: {stages} stages, {stem}; {groups} paths a block for the {device}"
    return size, because, RESNEXT.paper


def size_for_pseudo3d(
    patch: Sequence[int], strides: Sequence[Sequence[int]], device: str
) -> tuple[Mapping[str, Any], str, str]:
    """As a ResNet, which looks along the axis that can be reduced least, that of the longest voxels, by itself."""
    size, because, source = size_for_costly(patch, strides, device)
    reduced = [math.prod(stages) for stages in zip(*strides, strict=True)]
    axis = max(n for n, by in enumerate(reduced) if by == min(reduced))
    more = {"factorised": "axes", "axis": axis}
    return {**size, **more}, f"{because}; axis {axis} is convolved along after the others", source


RESNET = Family(
    ResNet,
    size_for,
    PAPER,
    answers=frozenset({"vector"}),
    takes_context=("concatenate", "film", "attention"),
    search_order=4,
)
CBAM_RESNET = replace(
    RESNET,
    size_for=size_for_costly,
    paper="arXiv:1807.06521",
    preset={"attention": "cbam"},
    preset_reason="the maps of each block are weighed, then its voxels",
    search_order=0,
)
PSEUDO3D_RESNET = replace(
    RESNET, size_for=size_for_pseudo3d, paper="arXiv:1711.11248", preset={"factorised": "axes"}, search_order=0
)
RESNEXT = replace(RESNET, size_for=size_for_resnext, paper="arXiv:1611.05431", preset={"groups": 32}, search_order=0)
SE_RESNET = replace(
    RESNET,
    paper="arXiv:1709.01507",
    preset={"attention": "se"},
    preset_reason="the maps of each block are weighed",
    search_order=6,
)

"""Residual networks for whole-image outputs, in one, two or three dimensions.

He et al., CVPR 2016, arXiv:1512.03385, with pre-activation (arXiv:1603.05027). The stem keeps the resolution of small
images, where the original would halve it twice before the first block. Blocks can have gates for maps (SE-ResNet,
arXiv:1709.01507) and voxels (CBAM, arXiv:1807.06521), convolutions in groups (ResNeXt, arXiv:1611.05431) or factorised
convolutions (arXiv:1711.10305, arXiv:1711.11248).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from torch import Tensor, nn

from hilum.networks import common_layers, context_fusion
from hilum.networks.common_layers import CONVOLUTION, NORMALISATION
from hilum.networks.context_fusion import PooledHead
from hilum.networks.network_family import NetworkSize, Sized, Strides

if TYPE_CHECKING:
    from hilum.networks.network_family import FusionSettings, SizeValue

PAPER = "arXiv:1603.05027"


class ResNetConvolutions(NamedTuple):
    """The convolutions and gates of a network's blocks; settings of a ResNet."""

    attention: str | None = None
    groups: int = 1
    factorised: str | None = None
    axis: int = -1
    kernel: tuple[int, ...] | None = None
    norm: str = "batch"

    def normalisation(self, ndim: int, maps: int) -> nn.Module:
        """The normalisation of so many maps. Raises ValueError for an unknown one."""
        if self.norm not in NORMALISATION:
            raise ValueError(f"norm {self.norm!r} is none of {', '.join(NORMALISATION)}")
        return NORMALISATION[self.norm](ndim, maps)

    def three(self, ndim: int, inside: int, outside: int, stride: int | Sequence[int]) -> nn.Module:
        """A convolution of `kernel`, by default 3 voxels an axis, or the two that it is factorised into.

        Raises ValueError for a factorisation that does not exist or does not fit.
        """
        if self.factorised not in (None, "axes", "maps"):
            raise ValueError(f"factorised {self.factorised!r} is none of axes, maps and null")
        if self.factorised is not None and self.groups > 1:
            raise ValueError("paths in groups are narrow as they are: choose either groups or factorised")
        layer_of = CONVOLUTION[ndim]
        kernel = self.kernel or (3,) * ndim
        steps = (stride,) * ndim if isinstance(stride, int) else tuple(stride)
        pad = tuple(n // 2 for n in kernel)
        if self.factorised == "maps":  # depthwise, then pointwise (arXiv:1610.02357)
            depthwise = layer_of(inside, inside, kernel, steps, pad, groups=inside, bias=False)
            return nn.Sequential(depthwise, layer_of(inside, outside, 1, bias=False))
        if self.factorised == "axes" and (ndim == 1 or not -ndim <= self.axis < ndim):
            raise ValueError(f"axis {self.axis} cannot be taken apart from {ndim} axes: choose resnet, or another axis")
        if self.factorised is None or kernel[self.axis] == 1:
            convolution: nn.Module = layer_of(inside, outside, kernel, steps, pad, groups=self.groups, bias=False)
            return convolution
        plane = [1 if n == self.axis % ndim else 3 for n in range(ndim)]
        line = [4 - kernel for kernel in plane]
        # As many weights as the whole convolution has (arXiv:1711.11248, section 3.5).
        middle = max(1, 3**ndim * inside * outside // (3 ** (ndim - 1) * inside + 3 * outside))
        return nn.Sequential(
            layer_of(inside, middle, plane, _strides(plane, steps), [n // 2 for n in plane], bias=False),
            self.normalisation(ndim, middle),
            nn.ReLU(inplace=True),
            layer_of(middle, outside, line, _strides(line, steps), [n // 2 for n in line], bias=False),
        )

    def gate_for(self, ndim: int, maps: int) -> nn.Module | None:
        """The gate for a block's maps, before its shortcut is added; None without attention."""
        return common_layers.build_gate(self.attention, ndim, maps)


def _strides(kernel: Sequence[int], steps: Sequence[int]) -> list[int]:
    """The strides along the axes of this kernel: each axis is reduced by the convolution along it."""
    return [step if n == 3 else 1 for n, step in zip(kernel, steps, strict=True)]


class Residual(nn.Module):
    """The common base of both kinds of block: activation first, a shortcut, and perhaps a gate."""

    first_norm: nn.Module

    def inner(self, active: Tensor) -> Tensor:
        """The block's maps before gate and shortcut, from its input after the first normalisation and activation."""
        raise NotImplementedError

    def end(self, ndim: int, inside: int, outside: int, stride: Sequence[int], how: ResNetConvolutions) -> None:
        """Make shortcut, gate and activation, after the block's own layers."""
        self.shortcut: nn.Module | None = None
        if inside != outside or max(stride) > 1:
            self.shortcut = CONVOLUTION[ndim](inside, outside, 1, tuple(stride), bias=False)
        self.attention = how.gate_for(ndim, outside)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's maps, reduced by its stride."""
        active = self.activation(self.first_norm(images))
        shortcut = images if self.shortcut is None else self.shortcut(active)
        maps = self.inner(active)
        return (maps if self.attention is None else self.attention(maps)) + shortcut


class ResNetBlock(Residual):
    """Two convolutions, each after normalisation and activation; the first takes the stride."""

    def __init__(self, ndim: int, inside: int, outside: int, stride: Sequence[int], how: ResNetConvolutions) -> None:
        super().__init__()
        self.first_norm = how.normalisation(ndim, inside)
        self.first = how.three(ndim, inside, outside, stride)
        self.second_norm = how.normalisation(ndim, outside)
        self.second = how.three(ndim, outside, outside, 1)
        self.end(ndim, inside, outside, stride, how)

    def inner(self, active: Tensor) -> Tensor:
        """The block's maps before gate and shortcut."""
        return cast("Tensor", self.second(self.activation(self.second_norm(self.first(active)))))


class GroupedPaths(Residual):
    """A bottleneck of many narrow paths: a convolution in groups between two of single voxels."""

    def __init__(self, ndim: int, inside: int, outside: int, stride: Sequence[int], how: ResNetConvolutions) -> None:
        super().__init__()
        convolution = CONVOLUTION[ndim]
        normalisation = how.normalisation
        middle = outside // 2  # as in ResNeXt-50 (32 x 4d)
        self.first_norm = normalisation(ndim, inside)
        self.first = convolution(inside, middle, 1, bias=False)
        self.second_norm = normalisation(ndim, middle)
        self.second = how.three(ndim, middle, middle, stride)
        self.third_norm = normalisation(ndim, middle)
        self.third = convolution(middle, outside, 1, bias=False)
        self.end(ndim, inside, outside, stride, how)

    def inner(self, active: Tensor) -> Tensor:
        """The block's maps before gate and shortcut."""
        paths = self.second(self.activation(self.second_norm(self.first(active))))
        return cast("Tensor", self.third(self.activation(self.third_norm(paths))))


class ResNet(PooledHead):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    blocks:      residual blocks of each stage; each stage but the first halves the resolution
    width:       feature maps of the first stage; doubled by each stage
    stem_stride: of the first convolution; 1 for small images
    dropout:     before the heads
    context:     number of covariates
    fusion:      settings of `ContextFusion`; without them covariates are concatenated to the pooled maps
    attention:   gates of each block: "se" for its maps, "cbam" for its maps and then its voxels
    groups:      of each block's convolution; with several the block is a bottleneck, and the stem a quarter as wide
    factorised:  "axes" convolves in the plane across `axis` and then along it, "maps" depthwise and then pointwise
    axis:        that "axes" convolves along by itself
    late:        for each axis, how many halvings of the other axes come before the first convolution along it and its
                 own first halving, because its voxels are longer until then; 0 for each axis if left out
    norm:        what normalises maps: "batch", or "group", which sees no other image of the batch
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
        fusion: FusionSettings | None = None,
        attention: str | None = None,
        groups: int = 1,
        factorised: str | None = None,
        axis: int = -1,
        late: Sequence[int] | None = None,
        norm: str = "batch",
    ) -> None:
        nn.Module.__init__(self)
        block = ResNetBlock if groups == 1 else GroupedPaths
        waits = _waits(late, spatial_dims)
        kernel = _along(waits, 0, 3 if stem_stride == 1 else 7)
        step = _along(waits, 0, stem_stride)
        inside = width if groups == 1 else width // 4
        pad = tuple(n // 2 for n in kernel)
        stem = CONVOLUTION[spatial_dims](channels, inside, kernel, step, pad, bias=False)
        layers: list[nn.Module] = [stem]
        halved = int(math.log2(stem_stride))
        for stage, count in enumerate(blocks):
            outside = width * 2**stage
            how = ResNetConvolutions(attention, groups, factorised, axis, _along(waits, halved, 3), norm)
            for n in range(count):
                stride = _along(waits, halved, 2 if stage > 0 and n == 0 else 1)
                layers.append(block(spatial_dims, inside, outside, stride, how))
                inside = outside
            halved += stage > 0
        self.features = inside
        self.body = nn.Sequential(*layers, how.normalisation(spatial_dims, inside), nn.ReLU(inplace=True))
        self.end(inside, vectors, dropout, context, fusion)


def _waits(late: Sequence[int] | None, axes: int) -> list[int]:
    """The number of halvings of the others that each axis waits for; ValueError for numbers that do not fit."""
    waits = [0] * axes if late is None else list(late)
    if len(waits) != axes or min(waits) != 0:
        raise ValueError(f"late needs {axes} numbers from 0, one of them 0, not {late}")
    return waits


def _along(waits: Sequence[int], halved: int, size: int) -> tuple[int, ...]:
    """A kernel or stride of this size, and 1 along axes that wait for more halvings of the others."""
    return tuple(1 if wait > halved else size for wait in waits)


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """Fewer stages and a stem without stride for small images; axes with longer voxels are halved later."""
    small = max(patch) <= 64
    blocks = [2, 2, 2] if small else [2, 2, 2, 2]
    stem = "the stem keeps the resolution" if small else "the stem halves the resolution"
    # On a processor a volume takes as long as thirty pictures; at half the width, three times as many fit in the time.
    width = 16 if device == "cpu" and len(patch) == 3 else 32
    size: NetworkSize = {"width": width, "blocks": blocks, "stem_stride": 1 if small else 2}
    because = f"images of {tuple(patch)}: {len(blocks)} stages, {stem}; width for the {device}"
    late = late_for(strides, len(blocks) - 2 if small else len(blocks) - 1)
    if max(late) == 0:
        return size, because, "arXiv:1512.03385"
    waits = " and ".join(f"axis {n} waits for {wait} halvings of the others" for n, wait in enumerate(late) if wait)
    why = f"{waits} before it is convolved and halved, because its voxels are longer"
    return {**size, "late": late}, f"{because}; {why}", "arXiv:1512.03385"


def late_for(strides: Sequence[Sequence[int]], most: int) -> list[int]:
    """The number of stages that halve other axes first, for each axis, at the most so many.

    0 for an axis that is never halved: it has few voxels, which may be as short as those of the others.
    """
    waits = []
    for along in zip(*strides[1:], strict=True):
        first = next((stage for stage, step in enumerate(along) if step > 1), 0)
        waits.append(min(first, most))
    return waits or [0] * len(strides[0])


def size_for_costly(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """The settings of a ResNet; on a processor the stem halves volumes: these blocks take long at full resolution."""
    size, because, source = size_for(patch, strides, device)
    if device != "cpu" or len(patch) < 3 or cast("int", size["stem_stride"]) > 1:
        return size, because, source
    return (
        {**size, "stem_stride": 2},
        because.replace("the stem keeps the resolution", "the stem halves the resolution"),
        source,
    )


def size_for_resnext(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """ResNeXt-50 (32 x 4d) for pictures on a GPU, half as wide for volumes; 8 groups, fewer blocks on a processor."""
    del strides
    slow = device == "cpu"
    volume = len(patch) > 2
    small = max(patch) <= 64
    stages = 3 if small else 4
    groups = 8 if slow else 16 if volume else 32
    stride = (2 if slow and volume else 1) if small else 4  # 4 in the paper: convolution and pooling
    size: dict[str, SizeValue] = {
        "width": 4 * groups if slow and volume else 8 * groups,
        "blocks": ([2, 2, 2, 2] if slow else [3, 4, 6, 3])[:stages],
        "stem_stride": stride,
        "groups": groups,
    }
    stem = "the stem keeps the resolution" if stride == 1 else f"the stem reduces the resolution by {stride}"
    because = f"images of {tuple(patch)}: {stages} stages, {stem}; {groups} paths a block for the {device}"
    return size, because, RESNEXT.paper


def size_for_pseudo3d(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """The settings of a ResNet that convolves separately along the axis of the longest voxels, halved least often."""
    size, because, source = size_for_costly(patch, strides, device)
    reduced = [math.prod(stages) for stages in zip(*strides, strict=True)]
    axis = max(n for n, by in enumerate(reduced) if by == min(reduced))
    return (
        {**size, "factorised": "axes", "axis": axis},
        f"{because}; axis {axis} is convolved along after the others",
        source,
    )


RESNET = context_fusion.pooled_family(ResNet, size_for, PAPER, search_order=4, blocks=("ResNetBlock", "GroupedPaths"))
CBAM_RESNET = RESNET.variant(
    "arXiv:1807.06521",
    {"attention": "cbam"},
    "the maps of each block are weighed, then its voxels",
    size_for=size_for_costly,
)
PSEUDO3D_RESNET = RESNET.variant("arXiv:1711.11248", {"factorised": "axes"}, size_for=size_for_pseudo3d)
RESNEXT = RESNET.variant("arXiv:1611.05431", {"groups": 32}, size_for=size_for_resnext)
SE_RESNET = RESNET.variant(
    "arXiv:1709.01507", {"attention": "se"}, "the maps of each block are weighed", search_order=6
)

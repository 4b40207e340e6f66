"""MobileNetV2 for whole-image outputs, in one, two or three dimensions: little work for each voxel.

Sandler et al., CVPR 2018, arXiv:1801.04381: inverted residuals, which widen by 1 x 1 convolutions, look at each map
alone, and narrow again without an activation. This file needs torch and `telling` beside it, so that a copy of it
travels with a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from isocenter.networks.family import Family
from isocenter.networks.pooled_head import PooledHead

PAPER = "arXiv:1801.04381"
# By number of axes; typed loosely because torch types sizes by the number of axes.
CONVOLUTION: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMALISATION: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
# Table 2: of each stage how much its blocks widen, its feature maps, blocks and stride.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEM, LAST = 32, 1280


class InvertedResidual(nn.Module):
    """Widen, convolve each map alone, narrow; beside a shortcut where nothing changes in shape."""

    def __init__(self, ndim: int, inside: int, outside: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = expansion * inside
        self.body = nn.Sequential(
            *([convolved(ndim, inside, middle, 1)] if expansion > 1 else []),
            convolved(ndim, middle, middle, 3, stride, groups=middle),
            CONVOLUTION[ndim](middle, outside, 1, bias=False),
            NORMALISATION[ndim](outside),
        )
        self.has_shortcut = stride == 1 and inside == outside

    def forward(self, images: Tensor) -> Tensor:
        """Return (batch, outside, *spatial), reduced by the stride."""
        found: Tensor = self.body(images)
        return images + found if self.has_shortcut else found


def convolved(ndim: int, inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution, its normalisation and its activation."""
    convolution = CONVOLUTION[ndim](inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, NORMALISATION[ndim](outside), nn.ReLU6(inplace=True))


def scaled(maps: int, width: float) -> int:
    """Feature maps times the width, in eights, never less than nine tenths of it."""
    eights = max(8, int(maps * width + 4) // 8 * 8)
    return eights if eights >= 0.9 * maps * width else eights + 8


class MobileNet(PooledHead):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    stages:      of each how much its blocks widen, its feature maps at width 1, its blocks and its stride
    width:       times the feature maps of stem and stages
    last:        feature maps of the last convolution
    stem_stride: of the first convolution; 1 keeps small images whole
    dropout:     before the heads
    context:     numbers beside each image
    fusion:      how they are used (`ContextFusion`); without it they join its pooled maps before the last layer
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        vectors: Mapping[str, int],
        stages: Sequence[Sequence[int]] = STAGES,
        width: float = 1.0,
        last: int = LAST,
        stem_stride: int = 2,
        dropout: float = 0.2,
        context: int = 0,
        fusion: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        inside = scaled(STEM, width)
        layers: list[nn.Module] = [convolved(spatial_dims, channels, inside, 3, stem_stride)]
        for expansion, maps, count, stride in stages:
            for n in range(count):
                outside = scaled(maps, width)
                layers.append(InvertedResidual(spatial_dims, inside, outside, stride if n == 0 else 1, expansion))
                inside = outside
        self.body = nn.Sequential(*layers, convolved(spatial_dims, inside, last, 1))
        self.end(last, vectors, dropout, context, fusion)


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """The paper's on a GPU; half or a third as wide on a processor, where the stem keeps small pictures whole."""
    del strides
    slow, volume = device == "cpu", len(patch) > 2
    stride = 1 if max(patch) <= 64 and not (slow and volume) else 2
    width = (0.35 if volume else 0.5) if slow else 1.0
    size = {"width": width, "last": 320 if slow else LAST, "stem_stride": stride, "dropout": 0.1 if slow else 0.2}
    stem = "the stem keeps the resolution" if stride == 1 else "the stem halves it"
    return size, f"images of {tuple(patch)}: {stem}; width {width} for the {device}", PAPER


MOBILENET = Family(
    build=MobileNet,
    size_for=size_for,
    paper=PAPER,
    answers=frozenset({"vector"}),
    takes_context=("concatenate", "film", "attention"),
)

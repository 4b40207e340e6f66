"""EfficientNet for whole-image outputs, in one, two or three dimensions: width and depth grow together.

Tan and Le, ICML 2019, arXiv:1905.11946: the inverted residuals of MobileNetV2 (arXiv:1801.04381) with squeeze and
excitation (arXiv:1709.01507) in them. Different from the authors' code: padding is the same on both sides, and running
means follow by torch's tenth instead of a hundredth, which short trainings never reach. This file needs torch and
`telling` beside it, so that a copy of it travels with a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isocenter.networks.family import Family
from isocenter.networks.pooled_head import PooledHead

PAPER = "arXiv:1905.11946"
# By number of axes; typed loosely because torch types sizes by the number of axes.
CONVOLUTION: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMALISATION: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
# Table 1, EfficientNet-B0: of each stage how much its blocks widen, its kernel, feature maps, blocks and stride.
STAGES = (
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)
STEM, LAST = 32, 1280
SQUEEZED = 4  # a block's input maps for each map of its squeeze


class Excitation(nn.Module):
    """Each map is weighed by what the means of all of them say."""

    def __init__(self, maps: int, squeezed: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(nn.Linear(maps, squeezed), nn.SiLU(), nn.Linear(squeezed, maps), nn.Sigmoid())

    def forward(self, images: Tensor) -> Tensor:
        """Return maps of the same shape."""
        weights: Tensor = self.weigh(images.flatten(2).mean(dim=2))
        return images * weights.reshape(*weights.shape, *[1] * (images.ndim - 2))


class Block(nn.Module):
    """Widen, convolve each map alone, weigh the maps, narrow; beside a shortcut where nothing changes in shape.

    left_out: the share of samples that skip the block while training (stochastic depth, arXiv:1603.09382)
    """

    def __init__(
        self, ndim: int, inside: int, outside: int, kernel: int, stride: int, expansion: int, left_out: float
    ) -> None:
        super().__init__()
        middle = expansion * inside
        self.body = nn.Sequential(
            *([convolved(ndim, inside, middle, 1)] if expansion > 1 else []),
            convolved(ndim, middle, middle, kernel, stride, groups=middle),
            Excitation(middle, max(1, inside // SQUEEZED)),
            CONVOLUTION[ndim](middle, outside, 1, bias=False),
            NORMALISATION[ndim](outside),
        )
        self.has_shortcut, self.left_out = stride == 1 and inside == outside, left_out

    def forward(self, images: Tensor) -> Tensor:
        """Return (batch, outside, *spatial), reduced by the stride."""
        found: Tensor = self.body(images)
        if not self.has_shortcut:
            return found
        if self.training and self.left_out > 0:
            kept = torch.empty_like(found[(slice(None), *[slice(1)] * (found.ndim - 1))]).bernoulli_(1 - self.left_out)
            found = found * kept / (1 - self.left_out)
        return images + found


def convolved(ndim: int, inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution, its normalisation and its activation."""
    convolution = CONVOLUTION[ndim](inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, NORMALISATION[ndim](outside), nn.SiLU(inplace=True))


def scaled(maps: int, width: float) -> int:
    """Feature maps times the width, in eights, never less than nine tenths of it."""
    eights = max(8, int(maps * width + 4) // 8 * 8)
    return eights if eights >= 0.9 * maps * width else eights + 8


class EfficientNet(PooledHead):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    stages:      of each how much its blocks widen, kernel, feature maps at width 1, blocks at depth 1, stride
    width:       times the feature maps; 1.0 for B0 and B1, 1.1 for B2, 1.2 for B3, 1.4 for B4
    depth:       times the blocks; 1.0 for B0, 1.1 for B1, 1.2 for B2, 1.4 for B3, 1.8 for B4
    stem_stride: of the first convolution; 1 keeps small images whole
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
        stages: Sequence[Sequence[int]] = STAGES,
        width: float = 1.0,
        depth: float = 1.0,
        last: int = LAST,
        stem_stride: int = 2,
        dropout: float = 0.2,
        left_out: float = 0.0,
        context: int = 0,
        fusion: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= left_out < 1:
            raise ValueError(f"left_out {left_out} is no share below 1 of the samples")
        inside = scaled(STEM, width)
        layers: list[nn.Module] = [convolved(spatial_dims, channels, inside, 3, stem_stride)]
        counts = [math.ceil(count * depth) for *_, count, _ in stages]
        for (expansion, kernel, maps, _, stride), count in zip(stages, counts, strict=True):
            for n in range(count):
                outside, share = scaled(maps, width), left_out * (len(layers) - 1) / sum(counts)
                step = stride if n == 0 else 1
                layers.append(Block(spatial_dims, inside, outside, kernel, step, expansion, share))
                inside = outside
        features = scaled(last, width)
        self.body = nn.Sequential(*layers, convolved(spatial_dims, inside, features, 1))
        self.end(features, vectors, dropout, context, fusion)


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """EfficientNet-B0 on a GPU; narrower and half as deep on a processor, where the stem keeps small pictures whole."""
    del strides
    slow, volume = device == "cpu", len(patch) > 2
    stride = 1 if max(patch) <= 64 and not (slow and volume) else 2
    width, depth = ((0.35 if volume else 0.5), 0.5) if slow else (1.0, 1.0)
    size = {
        "width": width,
        "depth": depth,
        "last": 640 if slow else LAST,
        "stem_stride": stride,
        "dropout": 0.1 if slow else 0.2,
    }
    stem = "the stem keeps the resolution" if stride == 1 else "the stem halves it"
    return size, f"images of {tuple(patch)}: {stem}; width {width} and depth {depth} for the {device}", PAPER


EFFICIENTNET = Family(
    build=EfficientNet,
    size_for=size_for,
    paper=PAPER,
    answers=frozenset({"vector"}),
    takes_context=("concatenate", "film", "attention"),
    search_order=7,
)

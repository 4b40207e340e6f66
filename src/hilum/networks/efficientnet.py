"""EfficientNet for whole-image outputs, in one, two or three dimensions: width and depth are scaled together.

Tan and Le, ICML 2019, arXiv:1905.11946: the inverted residuals of MobileNetV2 (arXiv:1801.04381) with squeeze and
excitation (arXiv:1709.01507). Different from the authors' code: padding is symmetric, and running means have torch's
momentum of 0.1 instead of 0.01, with which they lag behind in short trainings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from hilum.networks import common_layers, context_fusion, mobilenet
from hilum.networks.context_fusion import PooledHead
from hilum.networks.mobilenet import InvertedResidual
from hilum.networks.network_family import Sized, Strides

PAPER = "arXiv:1905.11946"
# Table 1, EfficientNet-B0; of each stage the expansion of its blocks, its kernel, feature maps, blocks and stride.
STAGES = (
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)
STEM = 32
LAST = 1280
SQUEEZED = 4  # a block's input maps for each map of its squeeze


class EfficientNet(PooledHead):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    stages:      of each the expansion of its blocks, kernel, feature maps at width 1, blocks at depth 1, stride
    width:       factor of the feature maps; 1.0 for B0 and B1, 1.1 for B2, 1.2 for B3, 1.4 for B4
    depth:       factor of the blocks; 1.0 for B0, 1.1 for B1, 1.2 for B2, 1.4 for B3, 1.8 for B4
    stem_stride: of the first convolution; 1 for small images
    dropout:     before the heads
    left_out:    share of samples that skip the last block in training; it grows linearly from 0 at the first
    context:     number of covariates
    fusion:      settings of `ContextFusion`; without them covariates are concatenated to the pooled maps
    """

    def make_layers(
        self,
        channels: int,
        spatial_dims: int,
        stages: Sequence[Sequence[int]] = STAGES,
        width: float = 1.0,
        depth: float = 1.0,
        last: int = LAST,
        stem_stride: int = 2,
        dropout: float = 0.2,
        left_out: float = 0.0,
    ) -> tuple[int, float]:
        """Make the layers; the number of pooled features, and dropout before the heads."""
        if not 0 <= left_out < 1:
            raise ValueError(f"left_out {left_out}: give a share of the samples, from 0 to below 1")
        inside = mobilenet.scale_maps(STEM, width)
        layers: list[nn.Module] = [
            common_layers.normed_convolution(spatial_dims, channels, inside, 3, stem_stride, activation=nn.SiLU)
        ]
        counts = [math.ceil(count * depth) for *_, count, _ in stages]
        for (expansion, kernel, maps, _, stride), count in zip(stages, counts, strict=True):
            for n in range(count):
                outside = mobilenet.scale_maps(maps, width)
                share = left_out * (len(layers) - 1) / sum(counts)
                step = stride if n == 0 else 1
                squeezed = max(1, inside // SQUEEZED)
                block = InvertedResidual(
                    spatial_dims, inside, outside, step, expansion, kernel, nn.SiLU, squeezed, share
                )
                layers.append(block)
                inside = outside
        features = mobilenet.scale_maps(last, width)
        self.body = nn.Sequential(
            *layers, common_layers.normed_convolution(spatial_dims, inside, features, 1, activation=nn.SiLU)
        )
        return features, dropout


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """EfficientNet-B0 on a GPU; narrower and half as deep on a processor; a stem without stride for small images."""
    del strides
    slow = device == "cpu"
    volume = len(patch) > 2
    stride = 1 if max(patch) <= 64 and not (slow and volume) else 2
    width, depth = ((0.35 if volume else 0.5), 0.5) if slow else (1.0, 1.0)
    size = {
        "width": width,
        "depth": depth,
        "last": 640 if slow else LAST,
        "stem_stride": stride,
        "dropout": 0.1 if slow else 0.2,
    }
    stem = "the stem keeps the resolution" if stride == 1 else "the stem halves the resolution"
    return size, f"images of {tuple(patch)}: {stem}; width {width} and depth {depth} for the {device}", PAPER


EFFICIENTNET = context_fusion.pooled_family(EfficientNet, size_for, PAPER, search_order=7)

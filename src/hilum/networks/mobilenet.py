"""MobileNetV2 for whole-image outputs, in one, two or three dimensions: few operations a voxel.

Sandler et al., CVPR 2018, arXiv:1801.04381: inverted residuals, which widen by a 1 x 1 convolution, convolve each map
separately (depthwise), and narrow again without an activation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from hilum.networks import common_layers, context_fusion
from hilum.networks.common_layers import BATCH_NORM, CONVOLUTION, Excitation
from hilum.networks.context_fusion import PooledHead
from hilum.networks.network_family import Sized, Strides

PAPER = "arXiv:1801.04381"
# Table 2; of each stage the expansion of its blocks, its feature maps, blocks and stride.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEM = 32
LAST = 1280


class InvertedResidual(nn.Module):
    """Widen, convolve each map separately, narrow; with a shortcut where the shape stays the same.

    squeezed: maps of the squeeze and excitation before the block narrows (arXiv:1709.01507); 0 for none
    left_out: share of samples that skip the block in training (stochastic depth, arXiv:1603.09382)
    """

    def __init__(
        self,
        ndim: int,
        inside: int,
        outside: int,
        stride: int,
        expansion: int,
        kernel: int = 3,
        activation: Callable[..., nn.Module] = nn.ReLU6,
        squeezed: int = 0,
        left_out: float = 0.0,
    ) -> None:
        super().__init__()
        middle = expansion * inside
        self.body = nn.Sequential(
            *(
                [common_layers.normed_convolution(ndim, inside, middle, 1, activation=activation)]
                if expansion > 1
                else []
            ),
            common_layers.normed_convolution(
                ndim, middle, middle, kernel, stride, groups=middle, activation=activation
            ),
            *([Excitation(middle, squeezed, activation())] if squeezed else []),
            CONVOLUTION[ndim](middle, outside, 1, bias=False),
            BATCH_NORM[ndim](outside),
        )
        self.has_shortcut = stride == 1 and inside == outside
        self.left_out = left_out

    def forward(self, images: Tensor) -> Tensor:
        """Return (batch, outside, *spatial), reduced by the stride."""
        change: Tensor = self.body(images)
        if self.has_shortcut:
            return images + common_layers.stochastic_depth(change, self.left_out, self.training)
        return change


def scale_maps(maps: int, width: float) -> int:
    """Feature maps times the width, rounded to a multiple of 8 that is at least nine tenths of it."""
    eights = max(8, int(maps * width + 4) // 8 * 8)
    return eights if eights >= 0.9 * maps * width else eights + 8


class MobileNet(PooledHead):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    stages:      of each the expansion of its blocks, its feature maps at width 1, its blocks and its stride
    width:       factor of the feature maps of stem and stages
    last:        feature maps of the last convolution
    stem_stride: of the first convolution; 1 for small images
    dropout:     before the heads
    context:     number of covariates
    fusion:      settings of `ContextFusion`; without them covariates are concatenated to the pooled maps
    """

    def make_layers(
        self,
        channels: int,
        spatial_dims: int,
        stages: Sequence[Sequence[int]] = STAGES,
        width: float = 1.0,
        last: int = LAST,
        stem_stride: int = 2,
        dropout: float = 0.2,
    ) -> tuple[int, float]:
        """Make the layers; the number of pooled features, and dropout before the heads."""
        inside = scale_maps(STEM, width)
        layers: list[nn.Module] = [
            common_layers.normed_convolution(spatial_dims, channels, inside, 3, stem_stride, activation=nn.ReLU6)
        ]
        for expansion, maps, count, stride in stages:
            for n in range(count):
                outside = scale_maps(maps, width)
                layers.append(InvertedResidual(spatial_dims, inside, outside, stride if n == 0 else 1, expansion))
                inside = outside
        self.body = nn.Sequential(
            *layers, common_layers.normed_convolution(spatial_dims, inside, last, 1, activation=nn.ReLU6)
        )
        return last, dropout


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """The paper's widths on a GPU; half or a third on a processor; a stem without stride for small images."""
    del strides
    slow = device == "cpu"
    volume = len(patch) > 2
    stride = 1 if max(patch) <= 64 and not (slow and volume) else 2
    width = (0.35 if volume else 0.5) if slow else 1.0
    size = {"width": width, "last": 320 if slow else LAST, "stem_stride": stride, "dropout": 0.1 if slow else 0.2}
    stem = "the stem keeps the resolution" if stride == 1 else "the stem halves the resolution"
    return size, f"images of {tuple(patch)}: {stem}; width {width} for the {device}", PAPER


MOBILENET = context_fusion.pooled_family(MobileNet, size_for, PAPER)

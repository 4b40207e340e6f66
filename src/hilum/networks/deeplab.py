"""DeepLabv3+: a pyramid of dilated convolutions over the coarsest maps, and a decoder with finer ones.

Chen et al., arXiv:1706.05587 (the pyramid), and ECCV 2018, arXiv:1802.02611 (the decoder). The encoder is torchvision's
ResNet, for which weights are published; the pyramid has torchvision's names too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, interpolate

from hilum.networks import common_layers, inflated_resnet
from hilum.networks.common_layers import CONVOLUTION, LINEAR
from hilum.networks.inflated_resnet import InflatedEncoder
from hilum.networks.network_family import Family, Sized, Strides

PAPER = "arXiv:1802.02611"
POOLING: dict[int, Any] = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
# Section 4.1 of arXiv:1706.05587: rates for maps a sixteenth as fine as the image, of which the last stage is dilated
# instead of strided. A third of the width on a processor.
RATES = (6, 12, 18)
DILATED = 1
INSIDE = 256
SLOW_INSIDE = 96
OUTLINE = 48  # feature maps of the finer level: section 4.1 of arXiv:1802.02611
DROPOUT = 0.5  # torchvision's, after the pyramid


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling, (batch, maps, *coarse) to (batch, inside, *coarse).

    rates: of dilation, in voxels of the map, one number or one for each axis
    """

    def __init__(self, axes: int, maps: int, inside: int, rates: Sequence[int | Sequence[int]], dropout: float) -> None:
        super().__init__()
        branches = [common_layers.normed_convolution(axes, maps, inside, 1)]
        branches += [common_layers.normed_convolution(axes, maps, inside, 3, dilation=rate) for rate in rates]
        branches += [WholeMean(POOLING[axes](1), *common_layers.normed_convolution(axes, maps, inside, 1))]
        self.convs = nn.ModuleList(branches)
        self.project = common_layers.normed_convolution(axes, inside * len(branches), inside, 1).append(
            nn.Dropout(dropout)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return (batch, inside, *coarse)."""
        maps: Tensor = self.project(torch.cat([each(images) for each in self.convs], dim=1))
        return maps


class WholeMean(nn.Sequential):
    """The mean over all voxels through a layer, at every voxel."""

    def forward(self, images: Tensor) -> Tensor:
        """Return maps of the same shape."""
        parts: list[Any] = list(self)
        pool, convolution, norm, active = parts
        maps = convolution(pool(images))
        if self.training and maps.shape[0] == 1:  # a single value has no variance: normalise as in prediction
            statistics = norm.running_mean, norm.running_var, norm.weight, norm.bias
            maps = batch_norm(maps, *statistics, training=False, eps=norm.eps)
        else:
            maps = norm(maps)
        spread: Tensor = active(maps).expand(-1, -1, *images.shape[2:])
        return spread


class DeepLab(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, channels of the head, *spatial) or (batch, size)}.

    rates:   of dilation in the pyramid, in voxels of the coarsest maps
    inside:  feature maps of pyramid and decoder
    dilated: how many of the encoder's last stages are dilated instead of strided
    dropout: after the pyramid
    `size`:  the other settings of the encoder
    Images have any size; outputs have the grid of the encoder's first stage, and are interpolated.
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        dense: Mapping[str, int],
        vectors: Mapping[str, int],
        rates: Sequence[int | Sequence[int]] = RATES,
        inside: int = INSIDE,
        dilated: int = DILATED,
        dropout: float = DROPOUT,
        **size: Any,
    ) -> None:
        super().__init__()
        _refuse(rates, spatial_dims)
        self.encoder = InflatedEncoder(channels, spatial_dims, dilated=dilated, **size)
        self.dense = nn.ModuleDict({name: CONVOLUTION[spatial_dims](inside, n, 1) for name, n in dense.items()})
        self.vectors = nn.ModuleDict({name: nn.Linear(self.encoder.features, n) for name, n in vectors.items()})
        if dense:
            self.pyramid = AtrousPyramid(spatial_dims, self.encoder.features, inside, rates, dropout)
            self.outline = common_layers.normed_convolution(spatial_dims, self.encoder.finest, OUTLINE, 1)
            first = common_layers.normed_convolution(spatial_dims, inside + OUTLINE, inside, 3)
            self.decoder = nn.Sequential(first, common_layers.normed_convolution(spatial_dims, inside, inside, 3))

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the outputs by head; `context` is not used."""
        features = self.encoder(images)
        pooled = features[-1].flatten(2).mean(dim=2)
        outputs = {name: last(pooled) for name, last in self.vectors.items()}
        if self.dense:
            fine = features[0]
            maps = _as_fine_as(fine, self.pyramid(features[-1]))
            decoded = self.decoder(torch.cat([maps, self.outline(fine)], dim=1))
            outputs |= {name: _as_fine_as(images, last(decoded)) for name, last in self.dense.items()}
        return outputs


def _as_fine_as(images: Tensor, maps: Tensor) -> Tensor:
    size = [int(n) for n in images.shape[2:]]  # plain numbers, which an export keeps as constants
    return interpolate(maps, size=size, mode=LINEAR[len(size)], align_corners=False)


def _refuse(rates: Sequence[int | Sequence[int]], axes: int) -> None:
    along_axes = [[rate] * axes if isinstance(rate, int) else list(rate) for rate in rates]
    if not along_axes or any(len(rate) != axes or min(rate) < 1 for rate in along_axes):
        raise ValueError(f"rates are numbers from 1, one or {axes} for each, not {list(rates)}")


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """The published encoder, and rates of dilation at which kernels stay within the maps."""
    size, because, _ = inflated_resnet.size_for(patch, strides, device)
    stages = cast("Strides", size["strides"])
    strides_kept = [math.prod(along) for along in zip(*stages[:-DILATED], strict=True)]
    coarse = [-(-n // factor) for n, factor in zip(patch, strides_kept, strict=True)]
    rates = [[_rate(share, n) for n in coarse] for share in RATES]
    inside = SLOW_INSIDE if device == "cpu" else INSIDE
    reach = f"rates {rates} for maps of {tuple(coarse)}, beyond which a kernel would have only its centre in the map"
    return {**size, "rates": rates, "inside": inside}, f"{because}; {reach}", PAPER


def _rate(share: int, length: int) -> int:
    """The paper's rate, or as much less as the largest rate needs to stay within the map."""
    return max(1, min(share, share * (length - 1) // (2 * max(RATES))))


DEEPLAB = Family(
    build=DeepLab,
    size_for=size_for,
    paper=PAPER,
    published=inflated_resnet.PUBLISHED,
    translated=inflated_resnet.resnet_tensor_name,
    features="encoder.layer4",
)

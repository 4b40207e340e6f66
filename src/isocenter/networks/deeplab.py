"""DeepLabv3+: convolutions whose kernels are spread look at a coarse map at several scales; a finer one gives outlines.

Chen et al., arXiv:1706.05587 (the pyramid of dilated convolutions), and ECCV 2018, arXiv:1802.02611 (the decoder). The
encoder is the ResNet of torchvision's names, for which weights are published; the pyramid has torchvision's names too.
This file needs torch, and `inflated_resnet` beside it, so that copies travel with a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, interpolate

from isocenter.networks import inflated_resnet
from isocenter.networks.family import Family
from isocenter.networks.inflated_resnet import CONVOLUTION, NORMALISATION, Encoder

PAPER = "arXiv:1802.02611"
POOLING: dict[int, Any] = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
# Section 4.1 of arXiv:1706.05587: rates for maps a sixteenth as fine as the image, of which the last stage is dilated
# instead of reduced. A third of the width on a processor.
RATES, DILATED, INSIDE, SLOW_INSIDE = (6, 12, 18), 1, 256, 96
OUTLINE = 48  # feature maps of the finer map: section 4.1 of arXiv:1802.02611
DROPOUT = 0.5  # torchvision's, behind the pyramid


class Pyramid(nn.Module):
    """(batch, maps, *coarse) to (batch, inside, *coarse): what is seen at each rate, and in the map as a whole.

    rates: how many voxels of the map the three of a kernel lie apart, one number or one for each axis
    """

    def __init__(self, axes: int, maps: int, inside: int, rates: Sequence[int | Sequence[int]], dropout: float) -> None:
        super().__init__()
        made: list[nn.Module] = [layer(axes, maps, inside)]
        for rate in rates:
            made.append(layer(axes, maps, inside, [rate] * axes if isinstance(rate, int) else list(rate)))
        self.convs = nn.ModuleList([*made, Whole(POOLING[axes](1), *layer(axes, maps, inside))])
        self.project = layer(axes, inside * len(self.convs), inside).append(nn.Dropout(dropout))

    def forward(self, images: Tensor) -> Tensor:
        """Return (batch, inside, *coarse)."""
        seen: Tensor = self.project(torch.cat([each(images) for each in self.convs], dim=1))
        return seen


class Whole(nn.Sequential):
    """The mean of a map, led through a layer, at every voxel."""

    def forward(self, images: Tensor) -> Tensor:
        """Return maps of the same shape."""
        parts: list[Any] = list(self)
        pool, convolution, norm, active = parts
        seen = convolution(pool(images))
        if self.training and seen.shape[0] == 1:  # one value has no spread: as in prediction
            kept = norm.running_mean, norm.running_var, norm.weight, norm.bias
            seen = batch_norm(seen, *kept, training=False, eps=norm.eps)
        else:
            seen = norm(seen)
        spread: Tensor = active(seen).expand(-1, -1, *images.shape[2:])
        return spread


def layer(axes: int, inside: int, outside: int, rate: Sequence[int] | None = None) -> nn.Sequential:
    """A convolution of single voxels, or of three so far apart, normalised and activated."""
    kernel, pad, apart = (1, 0, 1) if rate is None else (3, tuple(rate), tuple(rate))
    convolution = CONVOLUTION[axes](inside, outside, kernel, 1, pad, apart, bias=False)
    return nn.Sequential(convolution, NORMALISATION[axes](outside), nn.ReLU(inplace=True))


class DeepLab(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, channels of the head, *spatial) or (batch, size)}.

    rates:   of the pyramid, in voxels of the coarsest map
    inside:  feature maps of pyramid and decoder
    dilated: how many of the encoder's last stages are dilated instead of reduced
    dropout: behind the pyramid
    `size`:  the other settings of the encoder
    Images of any size are taken; answers are made as fine as the encoder's first stage, and interpolated.
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
        self.encoder = Encoder(channels, spatial_dims, dilated=dilated, **size)
        self.dense = nn.ModuleDict({name: CONVOLUTION[spatial_dims](inside, n, 1) for name, n in dense.items()})
        self.vectors = nn.ModuleDict({name: nn.Linear(self.encoder.features, n) for name, n in vectors.items()})
        if dense:
            self.pyramid = Pyramid(spatial_dims, self.encoder.features, inside, rates, dropout)
            self.outline = layer(spatial_dims, self.encoder.finest, OUTLINE)
            one = [1] * spatial_dims
            joined = layer(spatial_dims, inside + OUTLINE, inside, one)
            self.decoder = nn.Sequential(joined, layer(spatial_dims, inside, inside, one))

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the answers by head; context: (batch, covariates), for a network that takes them."""
        features = self.encoder(images)
        pooled = features[-1].flatten(2).mean(dim=2)
        outputs = {name: last(pooled) for name, last in self.vectors.items()}
        if self.dense:
            fine = features[0]
            seen = _as_fine_as(fine, self.pyramid(features[-1]))
            decoded = self.decoder(torch.cat([seen, self.outline(fine)], dim=1))
            outputs |= {name: _as_fine_as(images, last(decoded)) for name, last in self.dense.items()}
        return outputs


def _as_fine_as(images: Tensor, maps: Tensor) -> Tensor:
    size = [int(n) for n in images.shape[2:]]  # plain numbers: an export writes them, and not how they came about
    return interpolate(maps, size=size, mode=LINEAR[len(size)], align_corners=False)


def _refuse(rates: Sequence[int | Sequence[int]], axes: int) -> None:
    each = [[rate] * axes if isinstance(rate, int) else list(rate) for rate in rates]
    if not each or any(len(rate) != axes or min(rate) < 1 for rate in each):
        raise ValueError(f"rates are numbers from 1, one or {axes} for each, not {list(rates)}")


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """The published encoder, and rates at which no kernel reaches beyond the map; the reason and its source."""
    size, because, _ = inflated_resnet.size_for(patch, strides, device)
    kept = [math.prod(along) for along in zip(*size["strides"][:-DILATED], strict=True)]
    coarse = [-(-n // factor) for n, factor in zip(patch, kept, strict=True)]
    rates = [[_rate(share, n) for n in coarse] for share in RATES]
    inside = SLOW_INSIDE if device == "cpu" else INSIDE
    seen = f"rates {rates} for maps of {tuple(coarse)}, beyond which a kernel would see nothing but its middle"
    return {**size, "rates": rates, "inside": inside}, f"{because}; {seen}", PAPER


def _rate(share: int, length: int) -> int:
    """That of the paper, or as much less as the largest needs to stay within the map."""
    return max(1, min(share, share * (length - 1) // (2 * max(RATES))))


DEEPLAB = Family(
    build=DeepLab,
    size_for=size_for,
    paper=PAPER,
    published=inflated_resnet.PUBLISHED,
    translated=inflated_resnet.translated,
)

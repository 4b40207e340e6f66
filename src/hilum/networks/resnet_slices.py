"""A 2.5D ResNet for whole volumes: features of each slice, weighted by attention (multiple-instance learning).

Each slice has its neighbours as further channels. The network is the ResNet under torchvision's names, for which
weights are published (He et al., CVPR 2016, arXiv:1512.03385); slices are the instances of a bag as in Ilse et al.,
ICML 2018, arXiv:1802.04712.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from hilum.networks import common_layers, inflated_resnet
from hilum.networks.bag_pooling import AttentionPooling
from hilum.networks.inflated_resnet import InflatedEncoder
from hilum.networks.network_family import OWN, Family, Sized, SizeValue, Strides

PAPER = "arXiv:1802.04712"
POOLING = ("attention", "mean")


class SliceResNet(nn.Module):
    """(batch, channels, i, j, k) to {head: (batch, size of the head)}.

    axis:       along which the volume is cut, that of the longest voxels
    neighbours: slices on each side that are further channels; the outermost slice replaces missing ones
    pooling:    "attention" for weights that follow from the slices' features, "mean" for equal ones
    dropout:    before the heads
    context:    number of covariates, which are concatenated to the pooled features
    `size`:     the settings of the encoder, `strides` for the two axes of the plane
    """

    def __init__(
        self,
        channels: int,
        vectors: Mapping[str, int],
        axis: int = 2,
        neighbours: int = 1,
        pooling: str = "attention",
        dropout: float = 0.1,
        context: int = 0,
        **size: Any,
    ) -> None:
        super().__init__()
        common_layers.check_slices(axis, neighbours)
        if pooling not in POOLING:
            raise ValueError(f"pooling {pooling!r} is none of {', '.join(POOLING)}")
        self.axis = axis
        self.neighbours = neighbours
        self.encoder = InflatedEncoder(channels * (2 * neighbours + 1), 2, **size)
        inside = self.encoder.features
        self.weigh = AttentionPooling(inside) if pooling == "attention" else None
        self.dropout = nn.Dropout(dropout)
        self.vectors = nn.ModuleDict({name: nn.Linear(inside + context, count) for name, count in vectors.items()})

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return {head: (batch, size)}; context: (batch, covariates)."""
        of_slices = self._features(images)
        pooled = self.dropout((self._weights(of_slices)[..., None] * of_slices).sum(dim=1))
        features = common_layers.join_covariates(pooled, context)
        return {name: layer(features) for name, layer in self.vectors.items()}

    @torch.no_grad()
    def attention(self, images: Tensor) -> Tensor:
        """(batch, slices) weight of each slice; they sum to 1."""
        return self._weights(self._features(images))

    def _features(self, images: Tensor) -> Tensor:
        """(batch, slices, features)"""
        maps = self.encoder(common_layers.slices_with_neighbours(images, self.axis, self.neighbours))[-1]
        return cast("Tensor", maps.flatten(2).mean(dim=2).unflatten(0, (-1, images.shape[self.axis + 2])))

    def _weights(self, of_slices: Tensor) -> Tensor:
        if self.weigh is None:
            return torch.full_like(of_slices[..., 0], 1 / of_slices.shape[1])
        weights: Tensor = self.weigh(of_slices)
        return weights


def build(channels: int, spatial_dims: int, vectors: Mapping[str, int], **size: Any) -> SliceResNet:
    """A network for volumes."""
    del spatial_dims
    return SliceResNet(channels, vectors, **size)


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """Slices across the axis that is halved least often, because its voxels are the longest."""
    if len(patch) != 3:
        return inflated_resnet.size_for(patch, strides, device)
    factors = [math.prod(along) for along in zip(*strides, strict=True)]
    axis = min(range(3), key=lambda n: (factors[n], patch[n], -n))
    plane = [size for n, size in enumerate(patch) if n != axis]
    model = "resnet18" if device == "cpu" else "resnet50"
    size: dict[str, SizeValue] = {
        "axis": axis,
        "neighbours": 1,
        "model": model,
        "strides": inflated_resnet.strides_for(plane, early=True),
    }
    cut = f"volumes of {tuple(patch)} cut along axis {axis}, that of the longest or fewest voxels"
    return size, f"{cut}, one neighbour on each side; {model} for the {device}, as weights are published for it", PAPER


RESNET_SLICES = Family(
    build=build,
    size_for=size_for,
    paper=PAPER,
    answers=frozenset({"vector"}),
    axes=(3,),
    otherwise="Only a volume has slices: choose inflated_resnet or timm for pictures",
    takes_context=(OWN,),
    published=inflated_resnet.PUBLISHED,
    translated=inflated_resnet.resnet_tensor_name,
    features="encoder.layer4",
    blocks=("InflatedBlock", "NarrowBlock"),
)

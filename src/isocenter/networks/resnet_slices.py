"""One answer for a volume from its slices: a network for pictures looks at each, and attention weighs what it finds.

Each slice has its neighbours as further channels (2.5D). The network is the ResNet of torchvision's names, for which
weights are published (He et al., CVPR 2016, arXiv:1512.03385); slices are weighed as instances of a bag are in Ilse et
al., ICML 2018, arXiv:1802.04712. This file needs torch, and `inflated_resnet` and `slices` beside it, so that copies
travel with a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isocenter.networks import inflated_resnet
from isocenter.networks.family import OWN, Family
from isocenter.networks.inflated_resnet import Encoder, strides_for
from isocenter.networks.slices import beside, check

PAPER = "arXiv:1802.04712"
POOLING = ("attention", "mean")
HIDDEN = 128  # numbers from which the weight of a slice is made: section 4 of the paper


class SliceResNet(nn.Module):
    """(batch, channels, i, j, k) to {head: (batch, size of the head)}.

    axis:       along which the volume is cut, that of the longest voxels
    neighbours: slices on each side that are given as further channels; the outermost slice stands for those missing
    pooling:    "attention" weighs slices by what is found in them, "mean" all alike
    dropout:    before the heads
    context:    numbers beside each volume, which join its pooled features before the last layer
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
        check(axis, neighbours)
        if pooling not in POOLING:
            raise ValueError(f"pooling {pooling!r} is none of {', '.join(POOLING)}")
        self.axis, self.neighbours = axis, neighbours
        self.encoder = Encoder(channels * (2 * neighbours + 1), 2, **size)
        inside = self.encoder.features
        weigh = nn.Sequential(nn.Linear(inside, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1, bias=False))
        self.weigh = weigh if pooling == "attention" else None
        self.dropout = nn.Dropout(dropout)
        self.vectors = nn.ModuleDict({name: nn.Linear(inside + context, count) for name, count in vectors.items()})

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the answers by head; context: (batch, covariates), for a network that takes them."""
        found = self._found(images)
        pooled = self.dropout((self._weights(found)[..., None] * found).sum(dim=1))
        told = pooled if context is None else torch.cat([pooled, context], dim=1)
        return {name: layer(told) for name, layer in self.vectors.items()}

    @torch.no_grad()
    def attention(self, images: Tensor) -> Tensor:
        """(batch, slices) how much each slice counts; they sum to 1."""
        return self._weights(self._found(images))

    def _found(self, images: Tensor) -> Tensor:
        """(batch, slices, features)"""
        maps = self.encoder(beside(images, self.axis, self.neighbours))[-1]
        return maps.flatten(2).mean(dim=2).unflatten(0, (-1, images.shape[self.axis + 2]))

    def _weights(self, found: Tensor) -> Tensor:
        if self.weigh is None:
            return torch.full_like(found[..., 0], 1 / found.shape[1])
        weights: Tensor = self.weigh(found)[..., 0].softmax(dim=1)
        return weights


def build(channels: int, spatial_dims: int, vectors: Mapping[str, int], **size: Any) -> SliceResNet:
    """A network for volumes."""
    del spatial_dims
    return SliceResNet(channels, vectors, **size)


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """Cut along the axis that is halved least, because its voxels are the longest; the reason and its source."""
    if len(patch) != 3:
        return inflated_resnet.size_for(patch, strides, device)
    factors = [math.prod(along) for along in zip(*strides, strict=True)]
    axis = min(range(3), key=lambda one: (factors[one], patch[one], -one))
    plane = [n for one, n in enumerate(patch) if one != axis]
    model = "resnet18" if device == "cpu" else "resnet50"
    size = {"axis": axis, "neighbours": 1, "model": model, "strides": strides_for(plane, early=True)}
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
    translated=inflated_resnet.translated,
)

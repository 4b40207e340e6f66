"""Multiple-instance learning: one label for a bag of tiles, by attention or by its highest tiles.

Ilse et al., ICML 2018, arXiv:1802.04712. The mean of the highest scores is the pooling that the slides' labels alone
teach in Campanella et al., Nature Medicine 2019, doi:10.1038/s41591-019-0508-1, with two tiles in place of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hilum.networks import bag_pooling, tile_encoders
from hilum.networks.bag_pooling import AttentionPooling, TileBag, WeighedBag
from hilum.networks.network_family import FROZEN, Family, Sized, SizeValue, Strides
from hilum.networks.tile_encoders import TileEncoder

PAPER = "arXiv:1802.04712"
HIGHEST = "doi:10.1038/s41591-019-0508-1"
# Tiles whose scores answer, and their features before they are weighed.
TOP = 2
INSIDE = 128
MAPS = {"cpu": 16, "gpu": 32}


class AttentionBag(WeighedBag):
    """(batch, channels, tiles, rows, columns) to {head: (batch, numbers)}, by gated attention.

    dropout: before the tiles are weighed
    size:    the settings of `TileEncoder`
    """

    def __init__(self, channels: int, vectors: Mapping[str, int], dropout: float = 0.25, **size: Any) -> None:
        encoder = TileEncoder(channels, **size)
        super().__init__(encoder, vectors, INSIDE, dropout)
        self.project = nn.Sequential(nn.Linear(encoder.features, INSIDE), nn.ReLU())
        self.weigh = AttentionPooling(INSIDE, gated=True)

    def _weigh(self, features: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.project(features)
        present = bag_pooling.present_tiles(places)
        return self.weigh(tokens, present).masked_fill(~present, 0.0), tokens


class TopBag(TileBag):
    """(batch, channels, tiles, rows, columns) to {head: (batch, numbers)}: the mean of each number's two highest tiles.

    dropout: before the tiles are scored
    size:    the settings of `TileEncoder`
    """

    def __init__(self, channels: int, vectors: Mapping[str, int], dropout: float = 0.25, **size: Any) -> None:
        encoder = TileEncoder(channels, **size)
        super().__init__(encoder, vectors, encoder.features, dropout)

    def pooled(self, features: Tensor, places: Tensor) -> dict[str, Tensor]:
        """The means of the highest scores."""
        features = self.dropout(features)
        present = bag_pooling.present_tiles(places)
        self.summary((features * present[..., None]).sum(dim=1) / present.sum(dim=1, keepdim=True).clamp(min=1))
        scores = {name: layer(features) for name, layer in self.vectors.items()}
        return {name: (one * _highest(one, present)).sum(dim=1) for name, one in scores.items()}

    def attention(self, features: Tensor, places: Tensor) -> Tensor:
        """The share of each tile in the numbers of all heads."""
        present = bag_pooling.present_tiles(places)
        shares = [_highest(layer(features), present) for layer in self.vectors.values()]
        return torch.cat(shares, dim=2).mean(dim=2)


def _highest(scores: Tensor, present: Tensor) -> Tensor:
    """(batch, tiles, numbers): the weight of each tile, equal for the highest of each number and 0 for the others."""
    hidden = bag_pooling.hide_absent(scores.detach(), present[..., None])
    places = hidden.topk(min(TOP, int(scores.shape[1])), dim=1).indices
    chosen = (
        torch.zeros_like(scores).scatter(1, places, torch.ones_like(places, dtype=scores.dtype)) * present[..., None]
    )
    return chosen / chosen.sum(dim=1, keepdim=True).clamp(min=1)


def build_attention(channels: int, spatial_dims: int, vectors: Mapping[str, int], **size: Any) -> AttentionBag:
    """A network for bags, whose first axis is that of the tiles."""
    del spatial_dims
    return AttentionBag(channels, vectors, **size)


def build_top(channels: int, spatial_dims: int, vectors: Mapping[str, int], **size: Any) -> TopBag:
    """The same by the highest tiles."""
    del spatial_dims
    return TopBag(channels, vectors, **size)


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """Colours and a small network that learns, as wide as the device takes."""
    del strides
    kind = "cpu" if device == "cpu" else "gpu"
    size: dict[str, SizeValue] = {"encoder": [tile_encoders.COLOUR, tile_encoders.TRAINED], "maps": MAPS[kind]}
    because = f"of tiles in {tuple(patch)}, shares of colours, and what a network finds that learns"
    return size, f"{because}; {MAPS[kind]} maps for the {kind}", PAPER


def still_tensor_name(name: str) -> str:
    """A tensor of one of timm's models by our name."""
    return f"encoder.{FROZEN}.body.{name}"


def bag_family(build: Any, paper: str) -> Family:
    """A family for bags of tiles."""
    return Family(
        build=build,
        size_for=size_for,
        paper=paper,
        answers=frozenset({"vector"}),
        axes=(3,),
        otherwise="Only a slide or a volume is a bag of tiles: choose resnet or timm for pictures",
        pools=True,
        translated=still_tensor_name,
        features="summary",
        blocks=(),
    )


MIL_ATTENTION = bag_family(build_attention, PAPER)
MIL_TOP = bag_family(build_top, HIGHEST)

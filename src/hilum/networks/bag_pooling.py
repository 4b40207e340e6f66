"""Many tiles, one answer: features of each tile, their places, and how a bag of them is pooled.

A bag is (batch, channels, tiles, rows, columns); places are (batch, tiles, 2), the row and column of each tile on the
grid of tiles, negative where there is no tile. Attention is that of Ilse et al., ICML 2018, arXiv:1802.04712.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

# Features from which the weight of a tile follows: section 4 of the paper.
HIDDEN = 128


class AttentionPooling(nn.Module):
    """(batch, tiles, features) to (batch, tiles): weights that follow from the features, and sum to 1.

    gated: whether a second layer lets hidden features pass or not (equation 9 of the paper)
    """

    def __init__(self, inside: int, hidden: int = HIDDEN, *, gated: bool = False) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(inside, hidden), nn.Tanh())
        self.gate = nn.Sequential(nn.Linear(inside, hidden), nn.Sigmoid()) if gated else None
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, features: Tensor, present: Tensor | None = None) -> Tensor:
        """Return the weights; present: (batch, tiles), those that count, of which each bag has one at least."""
        hidden = self.hidden(features)
        scores: Tensor = self.score(hidden if self.gate is None else hidden * self.gate(features))[..., 0]
        return (scores if present is None else hide_absent(scores, present)).softmax(dim=1)


def hide_absent(scores: Tensor, present: Tensor) -> Tensor:
    """Scores that no other is below where there is no tile; finite, so that a bag without tiles has an answer."""
    return scores.masked_fill(~present, torch.finfo(scores.dtype).min)


class TileBag(nn.Module):
    """A network of bags: `encoded` of each tile by itself, `pooled` of all tiles of a bag, `forward` both.

    encoder: (n, channels, rows, columns) to (n, `features`)
    vectors: {head: numbers}
    dropout: share of a tile's features that are left out before they are pooled
    """

    def __init__(self, encoder: nn.Module, vectors: Mapping[str, int], inside: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.summary = nn.Identity()
        self.vectors = nn.ModuleDict({name: nn.Linear(inside, count) for name, count in vectors.items()})

    @property
    def features(self) -> int:
        """Features of a tile."""
        return cast("int", self.encoder.features)

    def forward(self, images: Tensor, places: Tensor | None = None) -> dict[str, Tensor]:
        """Return {head: (batch, numbers)}; without places the tiles lie in order in a square."""
        batch, _, count = images.shape[:3]
        places = square_places(images) if places is None else places.long()
        features = self.encoded(images.transpose(1, 2).flatten(0, 1))
        return self.pooled(features.reshape(batch, count, -1), places)

    def encoded(self, tiles: Tensor) -> Tensor:
        """(n, features) of (n, channels, rows, columns)."""
        features: Tensor = self.encoder(tiles)
        return features

    def pooled(self, features: Tensor, places: Tensor) -> dict[str, Tensor]:
        """{head: (batch, numbers)} of features (batch, tiles, features) at places (batch, tiles, 2)."""
        raise NotImplementedError

    def attention(self, features: Tensor, places: Tensor) -> Tensor:
        """(batch, tiles) share of each tile in the answer; absent ones have none, and the others' sum is 1."""
        raise NotImplementedError


class WeighedBag(TileBag):
    """A bag whose answer is that of the weighted mean of its tiles' features."""

    def pooled(self, features: Tensor, places: Tensor) -> dict[str, Tensor]:
        """The answers of the weighted mean."""
        weights, tokens = self._weigh(self.dropout(features), places)
        bag = self.summary((weights[..., None] * tokens).sum(dim=1))
        return {name: layer(bag) for name, layer in self.vectors.items()}

    def attention(self, features: Tensor, places: Tensor) -> Tensor:
        """The weight of each tile."""
        return self._weigh(self.dropout(features), places)[0]

    def _weigh(self, features: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """(weights, what they weigh): (batch, tiles) and (batch, tiles, features)."""
        raise NotImplementedError


def present_tiles(places: Tensor) -> Tensor:
    """(batch, tiles): whether there is a tile."""
    return places[..., 0] >= 0


def square_places(images: Tensor) -> Tensor:
    """(batch, tiles, 2) places of the tiles of a bag in order, row by row, in a square."""
    count = int(images.shape[2])
    numbers = torch.arange(count, device=images.device)
    side = math.isqrt(max(count - 1, 0)) + 1
    of_one = torch.stack([numbers // side, numbers % side], dim=1)
    return of_one + torch.zeros_like(images[:, :1, 0, 0, :1], dtype=torch.long)

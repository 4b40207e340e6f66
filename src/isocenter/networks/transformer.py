"""Blocks of a transformer, normalised before each part (arXiv:2010.11929), and a last layer with uncertain weights.

Parts of several families, which travel with each. This file needs torch alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

# Of the published networks: their weights are drawn with this deviation, and this is added to a variance.
DEVIATION, EPSILON = 0.02, 1e-6
# Of a prior's deviation, that of a weight before anything was learnt: small, so that first steps are hardly disturbed.
FIRST_DEVIATION = 0.1


class Attention(nn.Module):
    """(batch, tokens, width) to the same: what each token takes from all of them, by several heads.

    there: (batch, tokens), from which anything is taken; from all without it
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)

    def forward(self, tokens: Tensor, there: Tensor | None = None) -> Tensor:
        """Return (batch, tokens, width); there: (batch, tokens), above 0 for a token that exists."""
        dropout = self.dropout if self.training else 0.0
        queries, keys, values = self._split(tokens)
        mask = None if there is None else there[:, None, None]
        taken = scaled_dot_product_attention(queries, keys, values, mask, dropout_p=dropout)
        return self.projection(taken.transpose(1, 2).flatten(2))

    def weights(self, tokens: Tensor) -> Tensor:
        """(batch, heads, tokens, tokens): how much each token, by row, takes from each; a row sums to 1."""
        queries, keys, _ = self._split(tokens)
        return (queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[-1])).softmax(dim=-1)

    def _split(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values: (batch, heads, tokens, width of a head) each."""
        batch, count, _ = tokens.shape
        return self.qkv(tokens).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


class Block(nn.Module):
    """Attention, then a layer for each token alone, both normalised first and beside a shortcut.

    skipped: how likely a sample passes by a part while training; Huang et al., arXiv:1603.09382
    """

    def __init__(self, width: int, heads: int, expansion: int, dropout: float, skipped: float) -> None:
        super().__init__()
        self.skipped = skipped
        self.attention_norm, self.feed_forward_norm = (nn.LayerNorm(width, eps=EPSILON) for _ in range(2))
        self.attention = Attention(width, heads, dropout)
        self.dropout = nn.Dropout(dropout)
        wide = expansion * width
        layers = (nn.Linear(width, wide), nn.GELU(), nn.Dropout(dropout), nn.Linear(wide, width), nn.Dropout(dropout))
        self.feed_forward = nn.Sequential(*layers)

    def forward(self, tokens: Tensor, there: Tensor | None = None) -> Tensor:
        """Return (batch, tokens, width); there: as for `Attention`."""
        tokens = tokens + self._kept(self.dropout(self.attention(self.attention_norm(tokens), there)))
        return tokens + self._kept(self.feed_forward(self.feed_forward_norm(tokens)))

    def _kept(self, change: Tensor) -> Tensor:
        if not self.training or self.skipped == 0:
            return change
        drawn = torch.rand(change.shape[0], 1, 1, device=change.device) >= self.skipped
        return change * drawn / (1 - self.skipped)


class VariationalLinear(nn.Module):
    """(batch, inside) to (batch, outside) by weights that are normal distributions: drawn in training, else the means.

    Blundell et al., arXiv:1505.05424. Instead of the weights their sums are drawn, for each image anew: Kingma et al.,
    arXiv:1506.02557. Each weight's prior is normal around 0 with a variance of 1 / inside, so that an output for
    normalised features has one of about 1. A bias is a number.
    log_ratio: logarithm of a weight's deviation, of that of its prior
    """

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.prior = inside**-0.5
        self.weight, self.bias = nn.Parameter(torch.empty(outside, inside)), nn.Parameter(torch.zeros(outside))
        self.log_ratio = nn.Parameter(torch.full((outside, inside), math.log(FIRST_DEVIATION)))

    def forward(self, features: Tensor) -> Tensor:
        """Return (batch, outside), by drawn weights in training and by their means otherwise."""
        return self.drawn(features) if self.training else linear(features, self.weight, self.bias)

    def drawn(self, features: Tensor) -> Tensor:
        """Return (batch, outside) by weights that are drawn."""
        mean = linear(features, self.weight, self.bias)
        variance = linear(features.square(), (self.prior * self.log_ratio.exp()).square())
        return mean + variance.sqrt() * torch.randn_like(mean)

    def divergence(self) -> Tensor:
        """Of the weights' distributions from their prior (Kullback-Leibler), in nats."""
        each = (2 * self.log_ratio).exp() + (self.weight / self.prior).square() - 1 - 2 * self.log_ratio
        return each.sum() / 2

"""Attention among the tiles of a slide within shifted windows of its grid, merged two by two: cost linear in tiles.

Liu et al., ICCV 2021, arXiv:2103.14030. Tiles lie where there is tissue, and windows without any are never computed:
tiles are sorted by their window, and blocks of as many tiles as a window has places attend to themselves and to the
blocks on both sides, in which all of a window lies.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from hilum.networks import bag_pooling, mil, transformer_blocks
from hilum.networks.bag_pooling import AttentionPooling, WeighedBag
from hilum.networks.tile_encoders import TileEncoder

PAPER = "arXiv:2103.14030"
# Tiles along a side of a window, and those that it is moved by in every second block.
WINDOW = 8
SHIFT = WINDOW // 2
PLACES = WINDOW**2
# Blocks whose scores are held at once.
TOGETHER = 32
# More windows along a side than any slide has: 2 million pixels are 8,192 tiles of 256.
FAR = 2**20


class WindowAttention(nn.Module):
    """(batch, tiles, width) to the same: each tile attends to those of its window, by features and relative place."""

    def __init__(self, width: int, heads: int, shift: int) -> None:
        super().__init__()
        self.heads = heads
        self.shift = shift
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(heads, (2 * WINDOW - 1) ** 2))

    def forward(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Return what each tile takes from its window; at absent tiles it means nothing."""
        beyond = -int(tokens.shape[1]) % PLACES
        windows = torch.div(places + self.shift, WINDOW, rounding_mode="floor")
        window = (windows[..., 0] * FAR + windows[..., 1]).masked_fill(~bag_pooling.present_tiles(places), -1)
        order = window.argsort(dim=1)
        window, rows, columns = (
            pad(one.gather(1, order), (0, beyond), value=-1) for one in (window, places[..., 0], places[..., 1])
        )
        taken = tokens.gather(1, order[..., None].expand_as(tokens))
        queries, keys, values = pad(self.qkv(taken), (0, 0, 0, beyond)).chunk(3, dim=2)
        blocks = [
            self._heads(queries, near=False),
            *(self._heads(one, near=True) for one in (keys, values)),
            *(_blocks(one, near=near).flatten(0, 1) for near in (False, True) for one in (window, rows, columns)),
        ]
        attended = torch.cat([self._attend(*some) for some in _in_parts(blocks)]).transpose(1, 2)
        attended = attended.reshape(len(tokens), -1, tokens.shape[2])[:, : tokens.shape[1]]
        back = order.argsort(dim=1)
        found: Tensor = self.projection(attended.gather(1, back[..., None].expand_as(tokens)))
        return found

    def _heads(self, numbers: Tensor, *, near: bool) -> Tensor:
        """(batch * blocks, heads, tiles of a block, width of a head); near: with those of the blocks on both sides."""
        return _blocks(numbers.unflatten(2, (self.heads, -1)), near=near).flatten(0, 1).transpose(1, 2)

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, *places: Tensor) -> Tensor:
        """(blocks, heads, tiles, width of a head); places: window, row and column of tiles, then those of keys.

        Scores have the bias of two places of a window, and none of another window counts.
        """
        pairs = zip(places[:3], places[3:], strict=True)
        window, *apart = (one[:, :, None] - other[:, None] for one, other in pairs)
        down, right = (one.clamp(1 - WINDOW, WINDOW - 1) + WINDOW - 1 for one in apart)
        bias = self.bias[:, (2 * WINDOW - 1) * down + right].transpose(0, 1)
        scores = queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[3]) + bias
        return bag_pooling.hide_absent(scores, (window == 0)[:, None]).softmax(dim=3) @ values


def _in_parts(blocks: Sequence[Tensor]) -> Iterable[tuple[Tensor, ...]]:
    """So many blocks at once as a processor's caches hold; an export, whose graph has no loops, takes all."""
    if torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export():
        return [tuple(blocks)]
    return zip(*(one.split(TOGETHER) for one in blocks), strict=True)


def _blocks(numbers: Tensor, *, near: bool) -> Tensor:
    """(batch, tiles, ...) to (batch, blocks, tiles of a block, ...); near: with the tiles of the blocks on both sides.

    Beyond the first and the last block all is -2, as is no window.
    """
    blocks = numbers.unflatten(1, (-1, PLACES))
    if not near:
        return cast("Tensor", blocks)
    missing = torch.full_like(blocks[:, :1], -2)
    count = blocks.shape[1]
    enclosed = torch.cat([missing, blocks, missing], dim=1)
    return torch.cat([enclosed.narrow(1, start, count) for start in range(3)], dim=2)


class WindowBlock(nn.Module):
    """Attention within windows, then a feed-forward layer, each after layer normalisation and with a shortcut."""

    def __init__(self, width: int, heads: int, shift: int) -> None:
        super().__init__()
        self.attention = WindowAttention(width, heads, shift)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Return (batch, tiles, width)."""
        tokens = tokens + self.attention(self.attention_norm(tokens), places)
        merged: Tensor = tokens + self.feed_forward(self.feed_forward_norm(tokens))
        return merged


class TileMerging(nn.Module):
    """Two by two tiles become one, by a layer of their joined features, in which an absent tile is 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.reduce = nn.Linear(width, 4 * width, bias=False)

    def forward(self, tokens: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the merged tiles in front and absent ones behind, their places, and the number of each tile's own."""
        present = bag_pooling.present_tiles(places)
        parents = torch.div(places, 2, rounding_mode="floor")
        key = (parents[..., 0] * FAR + parents[..., 1]).masked_fill(~present, FAR**2)
        ordered, order = key.sort(dim=1)
        rank = pad((ordered[:, 1:] != ordered[:, :-1]).long(), (1, 0)).cumsum(dim=1)
        numbers = rank.gather(1, order.argsort(dim=1))
        corner = (2 * (places[..., 0] % 2) + places[..., 1] % 2)[..., None, None]
        every = self.reduce(self.norm(tokens)).unflatten(2, (4, -1))
        own = every.gather(2, corner.expand(-1, -1, 1, every.shape[3]))[:, :, 0] * present[..., None]
        merged = torch.zeros_like(own).scatter_add(1, numbers[..., None].expand_as(own), own)
        parents = parents.masked_fill(~present[..., None], -1)
        spots = torch.full_like(parents, -1).scatter(1, numbers[..., None].expand_as(parents), parents)
        return merged, spots, numbers


class SlideWindows(WeighedBag):
    """(batch, channels, tiles, rows, columns) to {head: (batch, numbers)}.

    Each stage is a pair of blocks, of which the second has its windows moved by half; between stages tiles are merged.
    What a tile's stages found, the coarser ones of what it became a part of, is weighed by gated attention.
    width:   features of a tile in the windows
    stages:  1 and so many mergings less one
    dropout: before the windows
    size:    the settings of `TileEncoder`
    """

    def __init__(
        self,
        channels: int,
        vectors: Mapping[str, int],
        width: int = 64,
        heads: int = 4,
        stages: int = 3,
        dropout: float = 0.25,
        **size: Any,
    ) -> None:
        encoder = TileEncoder(channels, **size)
        super().__init__(encoder, vectors, width, dropout)
        self.project = nn.Linear(encoder.features, width)
        self.stages: Any = nn.ModuleList(
            nn.ModuleList(WindowBlock(width, heads, shift) for shift in (0, SHIFT)) for _ in range(stages)
        )
        self.merges = nn.ModuleList(TileMerging(width) for _ in range(stages - 1))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(stages))
        self.weigh = AttentionPooling(width, gated=True)
        transformer_blocks.initialise_layers(self.stages.modules())

    def _weigh(self, features: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        present = bag_pooling.present_tiles(places)
        tokens = self.project(features)
        spots = places
        found = torch.zeros_like(features[..., :1])
        numbers = None
        for level, stage in enumerate(self.stages):
            if level:
                tokens, spots, merged = self.merges[level - 1](tokens, spots)
                numbers = merged if numbers is None else merged.gather(1, numbers)
                tokens, spots = _without_absent(tokens, spots)
            for block in stage:
                tokens = block(tokens, spots)
            seen = self.norms[level](tokens)
            if numbers is not None:
                seen = seen.gather(1, numbers[..., None].expand(-1, -1, seen.shape[2]))
            found = found + seen
        return self.weigh(found, present).masked_fill(~present, 0.0), found


def _without_absent(tokens: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Without the places behind those of all bags but the first, by whose number absent tiles go.

    An export, whose shapes are fixed, keeps them.
    """
    if tokens.is_meta or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export():
        return tokens, places
    count = 1 + int(bag_pooling.present_tiles(places).sum(dim=1).max())
    return tokens[:, :count], places[:, :count]


def build(channels: int, spatial_dims: int, vectors: Mapping[str, int], **size: Any) -> SlideWindows:
    """A network for bags, whose first axis is that of the tiles."""
    del spatial_dims
    return SlideWindows(channels, vectors, **size)


SLIDE_WINDOWS = mil.bag_family(build, PAPER)

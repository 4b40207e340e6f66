"""CoAtNet for whole-image outputs, in one, two or three dimensions: convolutional stages, then stages with attention.

Dai et al., NeurIPS 2021, arXiv:2106.04803: inverted residuals with squeeze and excitation (arXiv:1801.04381,
arXiv:1709.01507) on the fine grids, attention with learnt relative positions on the coarse grids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from hilum.networks import common_layers, transformer_blocks
from hilum.networks.common_layers import AVERAGE_POOL, BATCH_NORM, CONVOLUTION, Excitation
from hilum.networks.network_family import OWN, Family, Sized, SizeValue, Strides
from hilum.networks.transformer_blocks import AttendedGroups

PAPER = "arXiv:2106.04803"
WIDER = 4  # expansion of a block, of either kind (appendix A.1)
SQUEEZED = 4  # a block's maps for each map of its squeeze
HEAD = 32  # maps of one head (appendix A.2)
SPREAD = 0.02  # standard deviation of the attention's initial weights
# Voxels an axis of images whose offsets are learnt, where the settings have no `patch`.
USUAL = 224
# Work grows with the square of the number of tokens; a choice, with no paper behind it.
MOST_TOKENS = {"cpu": 512, "gpu": 1024}


class CoAtConvolution(nn.Module):
    """An inverted residual that is normalised first: widen, convolve depthwise, squeeze and excite, narrow.

    halved:   whether the block halves the grid, as the first of a stage does
    left_out: share of samples that skip the block in training (stochastic depth, arXiv:1603.09382)
    """

    def __init__(self, ndim: int, inside: int, outside: int, halved: bool, left_out: float) -> None:
        super().__init__()
        convolution = CONVOLUTION[ndim]
        normalisation = BATCH_NORM[ndim]
        wide = WIDER * outside
        self.pool: nn.Module = AVERAGE_POOL[ndim](2) if halved else nn.Identity()
        self.shortcut: nn.Module = convolution(inside, outside, 1) if inside != outside else nn.Identity()
        self.body = nn.Sequential(
            normalisation(inside),
            convolution(inside, wide, 1, bias=False),
            normalisation(wide),
            nn.GELU(),
            convolution(wide, wide, 3, 2 if halved else 1, 1, groups=wide, bias=False),
            normalisation(wide),
            nn.GELU(),
            Excitation(wide, max(1, outside // SQUEEZED), nn.SiLU()),
            convolution(wide, outside, 1),
        )
        self.left_out = left_out

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's maps, reduced by its stride."""
        return cast(
            "Tensor",
            self.shortcut(self.pool(images))
            + transformer_blocks.drop_path(self.body(images), self.left_out, self.training),
        )


class GridAttention(nn.Module):
    """Attention among all voxels with learnt relative positions, then a feed-forward layer.

    Weights are softmax_j(q_i k_j / sqrt(maps of a head) + w_(i-j)); equation 3. `w` is learnt for the offsets of one
    grid, and interpolated for others.
    grid: voxels an axis of this grid
    """

    def __init__(
        self, ndim: int, inside: int, outside: int, grid: Sequence[int], head: int, halved: bool, left_out: float
    ) -> None:
        super().__init__()
        self.heads = outside // head
        self.left_out = left_out
        self.kept: list[AttendedGroups] | None = None  # a list gets the attention of every pass
        self.pool: nn.Module = AVERAGE_POOL[ndim](2) if halved else nn.Identity()
        self.shortcut: nn.Module = CONVOLUTION[ndim](inside, outside, 1) if inside != outside else nn.Identity()
        self.attention_norm = nn.LayerNorm(inside, eps=1e-6)
        self.qkv = nn.Linear(inside, 3 * outside)
        self.offsets = nn.Parameter(torch.empty(self.heads, *(2 * n - 1 for n in grid)))
        self.projection = nn.Linear(outside, outside)
        self.feed_forward_norm = nn.LayerNorm(outside, eps=1e-6)
        wide = WIDER * outside
        self.feed_forward = nn.Sequential(nn.Linear(outside, wide), nn.GELU(), nn.Linear(wide, outside))
        for weight in (self.qkv.weight, self.projection.weight, self.offsets):
            nn.init.trunc_normal_(weight, std=SPREAD)

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's maps, reduced by its stride."""
        axes = tuple(range(2, images.ndim))
        last = images.ndim - 1
        normed = self.pool(self.attention_norm(images.movedim(1, last)).movedim(last, 1))
        grid = common_layers.spatial_sizes(normed)
        taken = self._attend(normed.flatten(2).transpose(1, 2), grid).transpose(1, 2).unflatten(2, grid)
        images = self.shortcut(self.pool(images)) + transformer_blocks.drop_path(taken, self.left_out, self.training)
        tokens = self.feed_forward(self.feed_forward_norm(images.permute(0, *axes, 1))).movedim(last, 1)
        return images + transformer_blocks.drop_path(tokens, self.left_out, self.training)

    def bias(self, grid: Sequence[int]) -> Tensor:
        """(heads, voxels, voxels): the bias for the offset between each two voxels of a grid, in row order."""
        table: Tensor = self.offsets
        for axis, count in enumerate(grid):
            table = common_layers.offsets_to_pairs(table, 1 + 2 * axis, count)
        firsts, seconds = (range(start, 1 + 2 * len(grid), 2) for start in (1, 2))
        return table.permute(0, *firsts, *seconds).reshape(-1, math.prod(grid), math.prod(grid))

    def _attend(self, tokens: Tensor, grid: Sequence[int]) -> Tensor:
        """(batch, voxels, inside) to (batch, voxels, outside)."""
        split = self.qkv(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
        queries, keys, values = split.chunk(3, dim=3)
        if self.kept is not None:
            weights = (queries @ keys.mT * queries.shape[-1] ** -0.5 + self.bias(grid)).softmax(dim=-1)
            places = torch.arange(1, 1 + tokens.shape[1], device=tokens.device)[None]
            self.kept.append(AttendedGroups(grid, places, weights.mean(dim=1, keepdim=True)))
        taken = scaled_dot_product_attention(queries, keys, values, attn_mask=self.bias(grid))
        return cast("Tensor", self.projection(taken.transpose(1, 2).flatten(2)))


class CoAtNet(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    blocks:      of each stage; each stage halves the grid
    convolved:   number of convolutional stages, the first ones; the others have attention
    width:       feature maps of the first stage; doubled by each stage
    stem:        feature maps of the two convolutions before
    stem_stride: of the first of them; 1 for small images
    head:        maps of one head of the attention
    patch:       (*spatial) of images whose offsets are learnt; for images of another size these are interpolated
    dropout:     before the heads
    left_out:    share of samples that skip the last block in training; it grows linearly from 0 at the first
    context:     number of covariates, which are concatenated to the pooled maps
    Images of any size are padded, by their last voxels, to whole cells of the coarsest grid.
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        vectors: Mapping[str, int],
        blocks: Sequence[int] = (2, 3, 5, 2),
        convolved: int = 2,
        width: int = 96,
        stem: int = 64,
        stem_stride: int = 2,
        head: int = HEAD,
        patch: Sequence[int] | None = None,
        dropout: float = 0.0,
        left_out: float = 0.0,
        context: int = 0,
    ) -> None:
        super().__init__()
        patch = [USUAL] * spatial_dims if patch is None else list(patch)
        _refuse(spatial_dims, blocks, convolved, width, head, patch, left_out)
        self.multiple = [stem_stride * 2 ** len(blocks)] * spatial_dims
        convolution = CONVOLUTION[spatial_dims]
        layers: list[nn.Module] = [
            convolution(channels, stem, 3, stem_stride, 1, bias=False),
            BATCH_NORM[spatial_dims](stem),
            nn.GELU(),
            convolution(stem, stem, 3, padding=1, bias=False),
        ]
        shares = iter(torch.linspace(0, left_out, sum(blocks), device="cpu").tolist())
        inside = stem
        for stage, count in enumerate(blocks):
            maps = width * 2**stage
            step = stem_stride * 2 ** (stage + 1)
            grid = [-(-n // step) for n in patch]
            for halved in [True, *[False] * (count - 1)]:
                if stage < convolved:
                    layers.append(CoAtConvolution(spatial_dims, inside, maps, halved, next(shares)))
                else:
                    layers.append(GridAttention(spatial_dims, inside, maps, grid, head, halved, next(shares)))
                inside = maps
        self.body = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(inside, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.vectors = nn.ModuleDict({name: nn.Linear(inside + context, size) for name, size in vectors.items()})

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return {head: (batch, size)}; context: (batch, covariates)."""
        maps = self.body(common_layers.pad_to_cells(images, self.multiple))
        features = common_layers.join_covariates(self.dropout(self.norm(maps.flatten(2).mean(dim=2))), context)
        return {name: layer(features) for name, layer in self.vectors.items()}


def _refuse(
    ndim: int, blocks: Sequence[int], convolved: int, width: int, head: int, patch: Sequence[int], left_out: float
) -> None:
    """ValueError for settings that make no network."""
    if min(blocks) < 1 or not 0 <= convolved <= len(blocks):
        raise ValueError(
            f"blocks {list(blocks)} with convolved {convolved}: 1 or more a stage, and convolved is a number of stages"
        )
    if head < 1 or any(width * 2**stage % head for stage in range(convolved, len(blocks))):
        raise ValueError(f"a head of {head} maps: a stage with attention has a multiple of them (width {width})")
    if len(patch) != ndim or min(patch) < 1:
        raise ValueError(f"patch needs {ndim} sizes from 1, not {patch}")
    if not 0 <= left_out < 1:
        raise ValueError(f"left_out {left_out}: give a share of the samples, from 0 to below 1")


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """CoAtNet-0 for pictures on a GPU, narrower else; attention on the finest grid with few enough voxels."""
    del strides  # all axes are halved equally
    slow = device == "cpu"
    volume = len(patch) > 2
    stem_stride = 1 if max(patch) <= 32 else 2
    blocks = ([2, 2, 2] if slow else [2, 3, 5]) if max(patch) <= 64 else ([2, 2, 2, 2] if slow else [2, 3, 5, 2])
    convolved = len(blocks) - 2
    most = MOST_TOKENS["cpu" if slow else "gpu"]
    while convolved < len(blocks) - 1 and _tokens(patch, stem_stride * 2 ** (convolved + 1)) > most:
        convolved += 1
    width = (16 if volume else 32) if slow else (48 if volume else 96)
    size: dict[str, SizeValue] = {
        "blocks": blocks,
        "convolved": convolved,
        "width": width,
        "stem": max(16, 2 * width // 3),
        "stem_stride": stem_stride,
        "patch": list(patch),
    }
    tokens = _tokens(patch, stem_stride * 2 ** (convolved + 1))
    because = f"images of {tuple(patch)}: {convolved} convolutional stages, then attention among {tokens} voxels"
    return size, f"{because}; width and blocks for the {device}", PAPER


def _tokens(patch: Sequence[int], step: int) -> int:
    return math.prod(-(-n // step) for n in patch)


COATNET = Family(
    build=CoAtNet,
    size_for=size_for,
    paper=PAPER,
    answers=frozenset({"vector"}),
    takes_context=(OWN,),
    features="body",
    attention="body",
    blocks=("CoAtConvolution", "GridAttention"),
)

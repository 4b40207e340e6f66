"""Blocks of a pre-norm transformer (arXiv:2010.11929), and their attention as it passes, for explanations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, scaled_dot_product_attention

from hilum.networks import common_layers, network_parts

# Of the published networks: standard deviation of initial weights, and the epsilon of layer normalisation.
DEVIATION = 0.02
EPSILON = 1e-6


class SelfAttention(nn.Module):
    """(batch, tokens, width) to the same: multi-head self-attention."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.kept: list[Tensor] | None = None  # a list gets the weights of every pass, with their gradients
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)

    def forward(self, tokens: Tensor, present: Tensor | None = None) -> Tensor:
        """Return (batch, tokens, width); present: (batch, tokens), which tokens exist and can be attended to."""
        dropout = self.dropout if self.training else 0.0
        queries, keys, values = self._split_heads(tokens)
        mask = None if present is None else present[:, None, None]
        if self.kept is not None and mask is None:
            self.kept.append(self.weights(tokens))
            return cast("Tensor", self.projection((self.kept[-1] @ values).transpose(1, 2).flatten(2)))
        taken = scaled_dot_product_attention(queries, keys, values, mask, dropout_p=dropout)
        return cast("Tensor", self.projection(taken.transpose(1, 2).flatten(2)))

    def weights(self, tokens: Tensor) -> Tensor:
        """(batch, heads, tokens, tokens): how much each token, by row, takes from each; a row sums to 1."""
        queries, keys, _ = self._split_heads(tokens)
        return (queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[-1])).softmax(dim=-1)

    def _split_heads(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values: (batch, heads, tokens, width of a head) each."""
        batch, count, _ = tokens.shape
        return cast(
            "tuple[Tensor, ...]",
            self.qkv(tokens).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0),
        )


class TransformerBlock(nn.Module):
    """Attention, then a feed-forward layer, each after layer normalisation and with a shortcut.

    skipped: probability that a sample skips a part in training (stochastic depth, arXiv:1603.09382)
    """

    def __init__(self, width: int, heads: int, expansion: int, dropout: float, skipped: float) -> None:
        super().__init__()
        self.skipped = skipped
        self.attention_norm, self.feed_forward_norm = (nn.LayerNorm(width, eps=EPSILON) for _ in range(2))
        self.attention = SelfAttention(width, heads, dropout)
        self.dropout = nn.Dropout(dropout)
        wide = expansion * width
        layers = (nn.Linear(width, wide), nn.GELU(), nn.Dropout(dropout), nn.Linear(wide, width), nn.Dropout(dropout))
        self.feed_forward = nn.Sequential(*layers)

    def forward(self, tokens: Tensor, present: Tensor | None = None) -> Tensor:
        """Return (batch, tokens, width); present: as for `SelfAttention`."""
        attended = self.dropout(self.attention(self.attention_norm(tokens), present))
        tokens = tokens + drop_path(attended, self.skipped, self.training)
        return tokens + drop_path(self.feed_forward(self.feed_forward_norm(tokens)), self.skipped, self.training)


def spread_evenly(shares: Tensor, patch: Sequence[int], spatial: Sequence[int]) -> Tensor:
    """The share of each patch, (batch, 1, *grid), spread evenly over its voxels: (batch, 1, *spatial)."""
    shares = shares / math.prod(patch)
    for axis, (step, count) in enumerate(zip(patch, spatial, strict=True), start=2):
        shares = shares.repeat_interleave(step, dim=axis).narrow(axis, 0, count)
    return shares


def spread_of_mean(flow: Tensor, images: Tensor, patch: Sequence[int]) -> Tensor:
    """(batch, 1, *spatial) of a rollout, (batch, tokens, tokens), where the mean of the patches' tokens answers.

    The tokens of the images' patches come first: images are padded to whole patches.
    """
    grid = common_layers.cells_per_axis(images, patch)
    count = math.prod(grid)
    spatial = common_layers.spatial_sizes(images)
    return spread_evenly(flow[:, :count, :count].mean(dim=1).reshape(-1, 1, *grid), patch, spatial)


def drop_path(change: Tensor, skipped: float, training: bool) -> Tensor:
    """The change that a block adds: in training nothing for a share of samples, and more for the others."""
    if not training or skipped == 0:
        return change
    mask = torch.rand(change.shape[0], *[1] * (change.ndim - 1), device=change.device) >= skipped
    return change * mask / (1 - skipped)


def initialise_layers(layers: Iterable[nn.Module], parameters: Iterable[Tensor | None] = ()) -> None:
    """Sample weights of linear layers and further parameters from a truncated normal distribution; biases are 0."""
    for part in layers:
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=DEVIATION)
            nn.init.zeros_(part.bias)
    for parameter in parameters:
        if parameter is not None:
            nn.init.trunc_normal_(parameter, std=DEVIATION)


class AttendedGroups(NamedTuple):
    """The attention of a layer whose voxels attend in groups: windows, lines, or all of a grid.

    grid:    voxels of its maps along each axis
    places:  (groups, n) of the voxels in row order, from 1 on; 0 lies beyond the grid
    weights: (batch, groups, n, n), the mean of the heads; a voxel's row sums to 1
    """

    grid: Sequence[int]
    places: Tensor
    weights: Tensor


def places_in_windows(grid: Sequence[int], window: Sequence[int], shift: Sequence[int], *, pads_first: bool) -> Tensor:
    """(windows, n) places of the voxels of a grid in shifted windows, as in Liu et al., arXiv:2103.14030."""
    places = torch.arange(1, 1 + math.prod(grid)).reshape(*grid)
    axes = tuple(range(len(grid)))
    missing = [side for n, step in zip(reversed(grid), reversed(window), strict=True) for side in (0, -n % step)]
    back = [-step for step in shift]
    places = pad(places, missing).roll(back, axes) if pads_first else pad(places.roll(back, axes), missing)
    for axis in axes:
        places = places.unflatten(2 * axis, (-1, window[axis]))
    return places.permute(*range(0, 2 * len(axes), 2), *range(1, 2 * len(axes), 2)).reshape(-1, math.prod(window))


def roll_out_groups(layers: Sequence[AttendedGroups], spatial: Sequence[int], multiple: Sequence[int]) -> Tensor:
    """(batch, 1, *spatial) share of each voxel in the mean of the last layer's maps, by attention rollout.

    Between layers a coarser grid's shares spread evenly, and convolutions count as staying in place. multiple: voxels
    of a cell to which the network fills images up
    """
    shares = layers[-1].weights.new_ones(len(layers[-1].weights), *[1] * (1 + len(spatial)))
    for layer in reversed(layers):
        shares = _on_grid(shares, layer.grid)
        flat = pad(shares.flatten(1), (1, 0))
        taken = torch.einsum("bgi,bgij->bgj", flat[:, layer.places], layer.weights)
        moved = torch.zeros_like(flat).index_add(1, layer.places.flatten(), taken.flatten(1))
        shares = (shares + moved[:, 1:].reshape(shares.shape)) / 2
    filled = [max(2 if step > 1 else 1, -(-n // step)) * step for n, step in zip(spatial, multiple, strict=True)]
    return _on_grid(shares, filled)[(slice(None), slice(None), *(slice(n) for n in spatial))]


def _on_grid(shares: Tensor, grid: Sequence[int]) -> Tensor:
    """Shares on a finer grid, spread evenly, with the same sum."""
    return interpolate(shares, size=tuple(grid)) * (math.prod(shares.shape[2:]) / math.prod(grid))


@dataclass(frozen=True, eq=False)
class AttendedOutputs:
    """The answers of a transformer for a batch, and the attention of its tokens.

    outputs: {head: tensor}, as `forward` gives them
    weights: of each layer, (batch, heads, tokens, tokens); a token's row sums to 1. Outputs have gradients by them
    groups:  of layers that attend in groups, in their place
    images:  (batch, channels, *spatial)
    """

    outputs: Mapping[str, Tensor]
    weights: Sequence[Tensor]
    groups: Sequence[AttendedGroups]
    images: Tensor
    module: nn.Module

    def spread_rollout(self, flow: Tensor) -> Tensor:
        """(batch, 1, *spatial) of a rollout, (batch, tokens, tokens)."""
        return cast("Tensor", cast("Any", self.module).spread_rollout(flow, self.images))


def without_rollout(module: nn.Module, at: str) -> str:
    """Why the attention of a module of `build` cannot be rolled out; empty where it can; at: `Family.attention`."""
    return str(getattr(network_parts.unwrap(module, at), "without_rollout", ""))


def compute_attention(module: nn.Module, images: Tensor, context: Tensor | None = None, *, at: str) -> AttendedOutputs:
    """The outputs of a module of `build`, and its attention weights; at: `Family.attention`."""
    parts = list(network_parts.deepest_part(module, at).modules())
    layers: list[Any] = [one for one in parts if hasattr(one, "kept")]
    recorded: list[Any] = []
    with ExitStack() as hooks:
        for layer in layers:
            layer.kept = recorded
            hooks.callback(setattr, layer, "kept", None)
        for other in parts:
            if hasattr(other, "fused_attn"):  # timm's, which has no weights where it is computed in one piece
                hooks.callback(setattr, other, "fused_attn", other.fused_attn)
                vars(other)["fused_attn"] = False
            if hasattr(other, "shift_size") and "attn" in other._modules:
                hooks.enter_context(network_parts.hook_part(other, partial(_note_windows, other, recorded)))
            in_one = hasattr(other, "fused_attn") or hasattr(other, "relative_position_bias_table")
            weighed = other._modules.get("attn_drop" if in_one else "drop_weights")
            if weighed is not None:
                hooks.enter_context(network_parts.hook_part(weighed, lambda _, weights: recorded.append(weights)))
        outputs = module(images) if context is None else module(images, context)
    groups = [one for one in recorded if isinstance(one, AttendedGroups)]
    return AttendedOutputs(outputs, [] if groups else recorded, groups, images, network_parts.unwrap(module, at))


def _note_windows(block: Any, recorded: list[Any], given: tuple[Any, ...], _: Any) -> None:
    """Put the attention of a Swin block, which has just been recorded, into its shifted windows."""
    grid = [int(n) for n in given[0].shape[1:-1]]
    weights = recorded.pop()
    of_timm = hasattr(block, "window_area")
    window = list(block.window_size)
    shift = list(block.shift_size)
    if not of_timm:  # MONAI's windows are no larger than the grid, and do not move along an axis that they fill
        shift = [0 if n <= step else by for n, step, by in zip(grid, window, shift, strict=True)]
        window = [min(pair) for pair in zip(grid, window, strict=True)]
    places = places_in_windows(grid, window, shift, pads_first=not of_timm).to(weights.device)
    recorded.append(AttendedGroups(grid, places, weights.mean(dim=1).unflatten(0, (len(given[0]), -1))))

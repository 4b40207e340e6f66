"""The attention of a transformer as it passes, without a change of its `forward`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from isocenter.networks.deepest_map import deepest_part, unwrapped
from isocenter.networks.transformer import Attention


@dataclass(frozen=True, eq=False)
class Attended:
    """What a transformer says of a batch, and to what its tokens attended.

    outputs: {head: tensor}, as `forward` gives them
    weights: of each layer, (batch, heads, tokens, tokens); a token's row sums to 1. Outputs have gradients by them
    images:  (batch, channels, *spatial)
    """

    outputs: Mapping[str, Tensor]
    weights: Sequence[Tensor]
    images: Tensor
    module: nn.Module

    def spread(self, flow: Tensor) -> Tensor:
        """(batch, 1, *spatial) of a rollout, (batch, tokens, tokens)."""
        made: Tensor = self.module.spread(flow, self.images)  # type: ignore[operator]
        return made


def attention(module: nn.Module, images: Tensor, context: Tensor | None = None, *, at: str) -> Attended:
    """The outputs of a module of `build`, and its attention weights; at: `Family.attention`."""
    layers = [one for one in deepest_part(module, at).modules() if isinstance(one, Attention)]
    kept: list[Tensor] = []
    try:
        for layer in layers:
            layer.kept = kept
        outputs = module(images) if context is None else module(images, context)
    finally:
        for layer in layers:
            layer.kept = None
    return Attended(outputs, kept, images, unwrapped(module, at))

"""The attention of a transformer as it passes, without a change of its `forward`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from monai.networks.blocks.selfattention import SABlock
from torch import Tensor, nn

from isocenter.networks.deepest_map import deepest_part, hooked, unwrapped
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
    parts = list(deepest_part(module, at).modules())
    layers = [one for one in parts if isinstance(one, Attention)]
    kept: list[Tensor] = []
    with ExitStack() as hooks:
        for layer in layers:
            layer.kept = kept
            hooks.callback(setattr, layer, "kept", None)
        for other in parts:
            if isinstance(other, SABlock):
                hooks.enter_context(hooked(other.drop_weights, lambda _, weights: kept.append(weights)))
        outputs = module(images) if context is None else module(images, context)
    return Attended(outputs, kept, images, unwrapped(module, at))

"""The attention of a transformer as it passes, without a change of its `forward`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from torch import Tensor, nn

from isocenter.networks.deepest_map import deepest_part, hooked, unwrapped
from isocenter.networks.transformer import Attention


@dataclass(frozen=True, eq=False)
class Attended:
    """The answers of a transformer for a batch, and the attention of its tokens.

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
        maps: Tensor = self.module.spread(flow, self.images)  # type: ignore[operator]
        return maps


def without_rollout(module: nn.Module, at: str) -> str:
    """Why the attention of a module of `build` cannot be rolled out; empty where it can; at: `Family.attention`."""
    return str(getattr(unwrapped(module, at), "without_rollout", ""))


def attention(module: nn.Module, images: Tensor, context: Tensor | None = None, *, at: str) -> Attended:
    """The outputs of a module of `build`, and its attention weights; at: `Family.attention`."""
    parts = list(deepest_part(module, at).modules())
    layers = [one for one in parts if isinstance(one, Attention)]
    recorded: list[Tensor] = []
    with ExitStack() as hooks:
        for layer in layers:
            layer.kept = recorded
            hooks.callback(setattr, layer, "kept", None)
        for other in parts:
            if hasattr(other, "fused_attn"):  # timm's, which has no weights where it is computed in one piece
                hooks.callback(setattr, other, "fused_attn", other.fused_attn)
                other.fused_attn = False  # type: ignore[assignment]
            weighed = other._modules.get("attn_drop" if hasattr(other, "fused_attn") else "drop_weights")
            if weighed is not None:
                hooks.enter_context(hooked(weighed, lambda _, weights: recorded.append(weights)))
        outputs = module(images) if context is None else module(images, context)
    return Attended(outputs, recorded, images, unwrapped(module, at))

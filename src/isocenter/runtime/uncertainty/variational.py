"""Draws from last layers whose weights are distributions that training has learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isocenter.lazy import torch
from isocenter.runtime.uncertainty.laplace import paired_noise

if TYPE_CHECKING:
    from torch import Tensor

    from isocenter.networks import Features, VariationalLinear


@dataclass(frozen=True, eq=False)
class LearntWeights:
    """The distributions of a network's last layers: {head: its layer}.

    As in training not weights are drawn, but outputs: Kingma et al., arXiv:1506.02557.
    """

    layers: Mapping[str, VariationalLinear]

    @property
    def heads(self) -> tuple[str, ...]:
        """Those whose last layers are distributions."""
        return tuple(self.layers)

    def views(self, seen: Features, count: int) -> list[dict[str, Tensor]]:
        """The outputs of so many draws, the same for every image."""
        made: list[dict[str, Tensor]] = [{} for _ in range(count)]
        for head, layer in self.layers.items():
            outputs, deviations = seen.outputs[head], layer.variances(seen.inputs[head]).sqrt()
            noise = torch.as_tensor(paired_noise(count, outputs.shape[1]), dtype=outputs.dtype, device=outputs.device)
            for view, drawn in zip(made, noise, strict=True):
                view[head] = outputs + deviations * drawn
        return made

"""Uncertainty by the distributions that a network's last layers have learnt in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isocenter import networks
from isocenter.lazy import torch
from isocenter.runtime import bundle
from isocenter.runtime.inference import VARIATIONAL
from isocenter.runtime.torch_network import TorchNetwork
from isocenter.runtime.uncertainty.drawing import drawn, paired_noise
from isocenter.runtime.uncertainty.method import Basis, Without

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from isocenter.networks import Features, VariationalLinear
    from isocenter.runtime.bundle import NoisyLogits
    from isocenter.runtime.networks import Networks


@dataclass(frozen=True, eq=False)
class LearntWeights:
    """The distributions of a network's last layers: {head: its layer}.

    As in training not weights are drawn, but outputs: Kingma et al., arXiv:1506.02557.
    """

    heads: Mapping[str, VariationalLinear]

    def views(self, seen: Features, count: int) -> list[dict[str, Tensor]]:
        """The outputs of so many draws, the same for every image."""
        made: list[dict[str, Tensor]] = [{} for _ in range(count)]
        for head, layer in self.heads.items():
            outputs, deviations = seen.outputs[head], layer.variances(seen.inputs[head]).sqrt()
            noise = torch.as_tensor(paired_noise(count, outputs.shape[1]), dtype=outputs.dtype, device=outputs.device)
            for view, one in zip(made, noise, strict=True):
                view[head] = outputs + deviations * one
        return made


def noise_of(module: Module) -> NoisyLogits | None:
    """The module after the last layers of a network that states the noise of its logits; no posterior knows of it."""
    return next((part for part in module.modules() if isinstance(part, bundle.NoisyLogits)), None)


def learnt_weights(found: Networks) -> LearntWeights | None:
    """The distributions of last layers that training has learnt; None where it has learnt numbers."""
    if not isinstance(found.run, TorchNetwork) or not (at := found.deepest):
        return None
    layers = networks.last_layers(found.run.module, at)
    known = {head: layer for head, layer in layers.items() if isinstance(layer, networks.VariationalLinear)}
    return LearntWeights(known) if known and not noise_of(found.run.module) else None


class Variational(Without):
    """Draws from the distributions of the last layers."""

    def suits(self, basis: Basis) -> bool:
        """Whether its last layers are distributions."""
        return learnt_weights(basis.networks) is not None

    def lacking(self, basis: Basis) -> str:
        """Why there is nothing to draw from; empty where there is."""
        if self.suits(basis):
            return basis.silent
        return (
            basis.silent
            or "the weights of its last layer are not distributions (network.name vit, bayesian in network.size)"
        )

    def networks(self, basis: Basis) -> Networks:
        """The network, with how draws differ."""
        learnt = learnt_weights(basis.networks)
        assert learnt is not None  # noqa: S101 - else it would be lacking
        return drawn(basis, learnt)


METHOD = Variational(VARIATIONAL)

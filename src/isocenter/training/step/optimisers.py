"""The optimiser that moves the weights, and their average."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from isocenter.lazy import torch
from isocenter.planning import Training

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

# nnU-Net's: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z
MOMENTUM = 0.99


# Fused: one pass over all weights, which a step of a small network notices.
OPTIMISERS: Mapping[str, Callable[[Any, float], Any]] = {
    "adamw": lambda groups, rate: torch.optim.AdamW(groups, lr=rate, fused=True),
    "sgd": lambda groups, rate: torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM, nesterov=True, fused=True),
}


def make_optimiser(module: Module, chosen: Training, others: Iterable[Tensor] = ()) -> Any:
    """AdamW, or SGD with Nesterov's momentum; what only scales or shifts is not drawn towards zero.

    others: weights that are learnt with those of the module
    """
    trained = [p for p in (*module.parameters(), *others) if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": chosen.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return OPTIMISERS[chosen.optimiser](groups, chosen.learning_rate)


def laid_as_weights(optimiser: Any) -> None:
    """Bring what an optimiser keeps of each weight into that weight's order in memory.

    torch's fused steps go through both from end to end, and would mix up elements that lie in another order.
    """
    for weight, kept in optimiser.state.items():
        for name, value in kept.items():
            if value.shape == weight.shape and value.stride() != weight.stride():
                kept[name] = torch.empty_like(weight).copy_(value)


class Average:
    """The mean of the weights of many steps, kept in a module like the one that is trained."""

    def __init__(self, averaged: Module, module: Module) -> None:
        pairs = list(zip(_tensors(averaged), _tensors(module), strict=True))
        floating = [(mean, value) for mean, value in pairs if mean.dtype.is_floating_point]
        self.means, self.values = [mean for mean, _ in floating], [value for _, value in floating]
        self.counters = [(mean, value) for mean, value in pairs if not mean.dtype.is_floating_point]

    def move(self, decay: float) -> None:
        """Towards the weights of the step; counters are taken over."""
        with torch.no_grad():
            torch._foreach_lerp_(self.means, self.values, 1 - decay)
            for mean, value in self.counters:
                mean.copy_(value)


def _tensors(module: Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]

"""The optimiser that moves the weights, and their average."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from isocenter.lazy import torch
from isocenter.planning import Training
from isocenter.training.step.low_rank import is_low_rank, merged

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


class Pace(NamedTuple):
    """Pace at which a weight learns: its share of the learning rate, and the share of training after which it moves."""

    share: float = 1.0
    start: float = 0.0


AT_ONCE = Pace()


def make_optimiser(
    module: Module,
    chosen: Training,
    others: Iterable[Tensor] = (),
    pace: Callable[[str], Pace] = lambda name: AT_ONCE,
) -> Any:
    """AdamW, or SGD with Nesterov's momentum; what only scales or shifts is not drawn towards zero.

    others: weights that are learnt with those of the module
    pace:   of the weight of a name; the learner follows it
    """
    named = [*((pace(name), p) for name, p in module.named_parameters()), *((AT_ONCE, p) for p in others)]
    trained = [(how, p) for how, p in named if p.requires_grad]
    groups = []
    for how in sorted({how for how, _ in trained}):
        parameters = [p for other, p in trained if other == how]
        groups += [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": chosen.weight_decay, **how._asdict()},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, **how._asdict()},
        ]
    return OPTIMISERS[chosen.optimiser](groups, chosen.learning_rate)


def laid_as_weights(optimiser: Any) -> None:
    """Bring what an optimiser keeps of each weight into that weight's order in memory.

    torch's fused steps go through both from end to end, and would mix up elements that lie in another order.
    """
    for weight, moments in optimiser.state.items():
        for name, value in moments.items():
            if value.shape == weight.shape and value.stride() != weight.stride():
                moments[name] = torch.empty_like(weight).copy_(value)


class Average:
    """The mean of the weights of many steps, kept in a module like the one that is trained.

    Of a module with differences of low rank it is the mean of the weights that these come to.
    """

    def __init__(self, averaged: Module, module: Module) -> None:
        self.module, self.is_low_rank = module, is_low_rank(module)
        self.names = [name for name, _ in [*averaged.named_parameters(), *averaged.named_buffers()]]
        pairs = list(zip(_tensors(averaged), self._current(), strict=True))
        floating = [(mean, value) for mean, value in pairs if mean.dtype.is_floating_point]
        self.means, self.values = [mean for mean, _ in floating], [value for _, value in floating]
        self.counters = [(mean, value) for mean, value in pairs if not mean.dtype.is_floating_point]

    def move(self, decay: float) -> None:
        """Towards the weights of the step; counters are taken over."""
        with torch.no_grad():
            if self.is_low_rank:
                self.values = [value for value in self._current() if value.dtype.is_floating_point]
            torch._foreach_lerp_(self.means, self.values, 1 - decay)
            for mean, value in self.counters:
                mean.copy_(value)

    def _current(self) -> list[Tensor]:
        return [merged(self.module, name) for name in self.names] if self.is_low_rank else _tensors(self.module)


def _tensors(module: Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]

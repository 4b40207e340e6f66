"""The optimiser that moves the weights, in full or by low rank, their average, and its batch statistics."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from hilum.lazy import torch
from hilum.planning import PlanSettings
from hilum.planning.plan_sections import TrainingSettings
from hilum.training.data.batch_loading import Batch
from hilum.training.step import batch_loss
from hilum.training.step.computation import Compute

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


class WeightPace(NamedTuple):
    """Pace at which a weight learns: its share of the learning rate, and the share of training after which it moves."""

    share: float = 1.0
    start: float = 0.0


AT_ONCE = WeightPace()


def make_optimiser(
    module: Module,
    chosen: TrainingSettings,
    others: Iterable[Tensor] = (),
    pace: Callable[[str], WeightPace] = lambda name: AT_ONCE,
) -> Any:
    """AdamW, or SGD with Nesterov's momentum; what only scales or shifts is not pulled towards zero.

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


def match_weight_layout(optimiser: Any) -> None:
    """Bring what an optimiser keeps of each weight into that weight's order in memory.

    torch's fused steps go through both from end to end, and would mix up elements that lie in another order.
    """
    for weight, moments in optimiser.state.items():
        for name, value in moments.items():
            if value.shape == weight.shape and value.stride() != weight.stride():
                moments[name] = torch.empty_like(weight).copy_(value)


class WeightAverage:
    """The mean of the weights of many steps, kept in a module like the one that is trained.

    Of a module with differences of low rank it is the mean of the weights that these come to.
    """

    def __init__(self, averaged: Module, module: Module) -> None:
        self.module = module
        self.is_low_rank = is_low_rank(module)
        self.names = [name for name, _ in [*averaged.named_parameters(), *averaged.named_buffers()]]
        pairs = list(zip(_tensors(averaged), self._current(), strict=True))
        floating = [(mean, value) for mean, value in pairs if mean.dtype.is_floating_point]
        self.means = [mean for mean, _ in floating]
        self.values = [value for _, value in floating]
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
        return [merge_low_rank(self.module, name) for name in self.names] if self.is_low_rank else _tensors(self.module)


def _tensors(module: Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


WEIGHT = "weight"
# What torch puts into the names of a weight and of its difference.
DIFFERENCE = re.compile(r"parametrizations\.(\w+)\.(?:original|0\.\w+)$")


def with_low_rank(module: Module, names: Collection[str], rank: int) -> None:
    """Let the weights of these names stand still, and add to each a difference that is learnt and is nothing yet.

    names: of weights; only those of linear layers and convolutions are changed
    Names of tensors change: `merge_low_rank` has them as they were.
    """
    convolutions = torch.nn.modules.conv._ConvNd
    for name, part in [*module.named_modules()]:
        if f"{name}.{WEIGHT}".lstrip(".") not in names or not isinstance(part, torch.nn.Linear | convolutions):
            continue
        part.weight.requires_grad_(False)
        difference = _difference()(part.weight, rank)
        # Not asked for its values once more: the difference is zero.
        torch.nn.utils.parametrize.register_parametrization(part, WEIGHT, difference, unsafe=True)


def base_weight_name(name: str) -> str:
    """The name of a weight in the network without differences, from that of the weight or of its difference."""
    return DIFFERENCE.sub(r"\1", name)


def is_low_rank(module: Module) -> bool:
    """Whether some of its weights are sums with a difference of low rank."""
    return any(torch.nn.utils.parametrize.is_parametrized(part) for part in module.modules())


def merge_low_rank(module: Module, name: str) -> Tensor:
    """The tensor of this name in the network without differences: the weight with its difference added."""
    parent, _, tensor = name.rpartition(".")
    value: Tensor = getattr(module.get_submodule(parent), tensor)
    return value.detach()


@functools.cache
def _difference() -> Any:
    """The class of differences; made on first use, because torch loads late."""

    class Difference(torch.nn.Module):
        """(out, rank) times (rank, in times kernel), added to a weight of that shape.

        The first factor is zero at the start, and the second random as torch's weights are.
        """

        def __init__(self, weight: Tensor, rank: int) -> None:
            super().__init__()
            rows, columns = len(weight), weight[0].numel()
            rank = min(rank, rows, columns)
            self.left = torch.nn.Parameter(weight.new_zeros(rows, rank))
            self.right = torch.nn.Parameter(weight.new_empty(rank, columns))
            torch.nn.init.kaiming_uniform_(self.right, a=math.sqrt(5))

        def forward(self, weight: Tensor) -> Tensor:
            """Return the weight with its difference, in the weight's own precision."""
            with torch.autocast(weight.device.type, enabled=False):
                return weight + (self.left @ self.right).reshape(weight.shape)

    return Difference


# Running statistics of batch normalisation, measured anew for averaged weights.
#
# Running means follow the weights of each step and lag behind them, and averaged weights have never seen a batch. So
# they are measured with the averaged weights themselves: Wu and Johnson, "Rethinking 'Batch' in BatchNorm",
# arXiv:2105.07576.

# Cases are seen by so many, in whole batches: most of what four times as many bring (bench/findings/training.md).
CASES = 64


def measure_batch_statistics(
    module: Module, of_step: Callable[[int], Batch], settings: PlanSettings, device: Any, compute: Compute
) -> None:
    """Over the first batches of the training, always the same; nothing where the network has no such layers."""
    layers = [layer for layer in _layers(module) if layer.track_running_stats]
    if not layers:
        return
    module.eval()
    before = [(layer.momentum, layer.num_batches_tracked.clone()) for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean of all batches
        layer.train()
    for step in range(max(1, CASES // settings.training.batch)):
        varied = batch_loss.augment_batch(of_step(step), settings, device)
        with torch.inference_mode(), compute.autocast(device):
            module(compute.order_images(module, varied.images), *varied.context)
    for layer, (momentum, count) in zip(layers, before, strict=True):
        layer.momentum = momentum
        layer.num_batches_tracked.copy_(count)
        layer.eval()


def normalises_over_batch(module: Module) -> bool:
    """Whether what a sample comes to depends on the others of its batch."""
    return bool(_layers(module))


def _layers(module: Module) -> list[Any]:
    kind = torch.nn.modules.batchnorm._BatchNorm
    return [layer for layer in module.modules() if isinstance(layer, kind)]

"""Running statistics of batch normalisation, measured anew for averaged weights.

Running means follow the weights of each step and lag behind them, and averaged weights have never seen a batch. So they
are measured with the averaged weights themselves: Wu and Johnson, "Rethinking 'Batch' in BatchNorm", arXiv:2105.07576.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from isocenter.lazy import torch
from isocenter.planning import Settings
from isocenter.training.data.loader import Batch
from isocenter.training.step.compute import Compute
from isocenter.training.step.loss import augmented

if TYPE_CHECKING:
    from torch.nn import Module

# Cases are seen by so many, in whole batches: most of what four times as many bring (bench/batch_statistics.py).
CASES = 64


def measure_batch_statistics(
    module: Module, of_step: Callable[[int], Batch], settings: Settings, device: Any, compute: Compute
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
        varied = augmented(of_step(step), settings, device)
        with torch.inference_mode(), compute.autocast(device):
            module(compute.ordered(module, varied.images), *varied.context)
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

"""What moves the weights, and the average that is kept of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isocenter.lazy import torch
from isocenter.planning import Training

if TYPE_CHECKING:
    from torch.nn import Module

# nnU-Net's: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z
MOMENTUM = 0.99


def make_optimiser(module: Module, chosen: Training) -> Any:
    """AdamW, or SGD with Nesterov's momentum; what only scales or shifts is not drawn towards zero."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": chosen.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if chosen.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=chosen.learning_rate, momentum=MOMENTUM, nesterov=True)
    return torch.optim.AdamW(groups, lr=chosen.learning_rate)


def average(averaged: Module, module: Module, decay: float) -> None:
    """Move the averaged weights towards those of the step; counters are taken over."""
    with torch.no_grad():
        for mean, value in zip(averaged.state_dict().values(), module.state_dict().values(), strict=True):
            if mean.dtype.is_floating_point:
                mean.lerp_(value.to(mean.dtype), 1 - decay)
            else:
                mean.copy_(value)

"""Layers after the pooled features, which learn with an objective and go into no package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isocenter.lazy import torch
from isocenter.objectives.objective import Embedded

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

# The head of a network that gives numbers for the whole image, and how many these are.
EMBEDDING, NUMBERS = "embedding", 128


def projection(features: int, outputs: int) -> Module:
    """Two layers from pooled features; the embedding of a network that has one takes the place of the first.

    Without them features would keep only what the objective needs: Chen et al., arXiv:2002.05709, section 4.2
    """
    first, last = torch.nn.Linear(features, NUMBERS), torch.nn.Linear(NUMBERS, outputs)
    return torch.nn.ModuleDict({"first": first, "last": last})


def projected(layers: Any, seen: Embedded) -> Tensor:
    """(batch, outputs) of what a network gave for a batch."""
    outputs, features = seen
    hidden = outputs[EMBEDDING] if EMBEDDING in outputs else layers["first"](features)
    return layers["last"](torch.relu(hidden.float()))

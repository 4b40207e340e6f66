"""Differences of low rank from the weights of matrices and kernels: Hu et al., LoRA, ICLR 2022, arXiv:2106.09685."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from isocenter.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

WEIGHT = "weight"
# What torch puts into the names of a weight and of its difference.
DIFFERENCE = re.compile(r"parametrizations\.(\w+)\.(?:original|0\.\w+)$")


def with_low_rank(module: Module, names: Collection[str], rank: int) -> None:
    """Let the weights of these names stand still, and add to each a difference that is learnt and is nothing yet.

    names: of weights; only those of linear layers and convolutions are changed
    Names of tensors change: `merged` has them as they were.
    """
    convolutions = torch.nn.modules.conv._ConvNd
    for name, part in [*module.named_modules()]:
        if f"{name}.{WEIGHT}".lstrip(".") not in names or not isinstance(part, torch.nn.Linear | convolutions):
            continue
        part.weight.requires_grad_(False)
        difference = _difference()(part.weight, rank)
        # Not asked for its values once more: the difference is zero.
        torch.nn.utils.parametrize.register_parametrization(part, WEIGHT, difference, unsafe=True)


def plain_name(name: str) -> str:
    """The name of a weight in the network without differences, from that of the weight or of its difference."""
    return DIFFERENCE.sub(r"\1", name)


def is_low_rank(module: Module) -> bool:
    """Whether some of its weights are sums with a difference of low rank."""
    return any(torch.nn.utils.parametrize.is_parametrized(part) for part in module.modules())


def merged(module: Module, name: str) -> Tensor:
    """The tensor of this name in the network without differences: the weight with its difference added."""
    parent, _, tensor = name.rpartition(".")
    value: Tensor = getattr(module.get_submodule(parent), tensor)
    return value.detach()


@functools.cache
def _difference() -> Any:
    """The class of differences; made on first use, because torch loads late."""

    class Difference(torch.nn.Module):
        """(out, rank) times (rank, in times kernel), added to a weight of that shape.

        The first factor is zero at the start, and the second drawn as torch draws weights.
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

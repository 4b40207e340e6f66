"""Dropout while a model predicts: the same channels for every image and every window.

Gal and Ghahramani, ICML 2016, arXiv:1506.02142, for the last layers alone, so that a draw is no further pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isocenter.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from isocenter.networks import Features

# Where a network was trained without dropout.
USUAL_RATE = 0.1


@dataclass(frozen=True, eq=False)
class Masks:
    """Tables of the channels that last layers take, of which each draw leaves out some.

    heads: {head: its last layer}
    rate:  share of the channels that is left out
    """

    heads: Mapping[str, Module]
    rate: float = USUAL_RATE

    def views(self, seen: Features, count: int) -> list[dict[str, Tensor]]:
        """The outputs by so many masks, which a fixed seed draws."""
        made: list[dict[str, Tensor]] = [{} for _ in range(count)]
        for head, layer in self.heads.items():
            inputs = seen.inputs[head]
            kept = np.random.default_rng(0).random((count, inputs.shape[1])) >= self.rate
            factors = torch.as_tensor(kept / (1 - self.rate), dtype=inputs.dtype, device=inputs.device)
            for view, mask in zip(made, factors, strict=True):
                view[head] = layer(inputs * mask.reshape(1, -1, *[1] * (inputs.ndim - 2)))
        return made

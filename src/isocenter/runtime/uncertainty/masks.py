"""Dropout while a model predicts: the same channels for every image and every window.

Gal and Ghahramani, ICML 2016, arXiv:1506.02142, for the last layers alone, so that a draw is no further pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

from isocenter.lazy import torch
from isocenter.values import Floats

if TYPE_CHECKING:
    from torch import Tensor

    from isocenter.networks import Features

# Where a network was trained without dropout.
USUAL_RATE = 0.1


@dataclass(frozen=True, eq=False)
class Masks:
    """Tables of the channels that last layers take, of which each draw leaves out some.

    tables: {head: (draws, channels) 0 for what is left out, else by what the channel is multiplied}
    layers: {head: its last layer, and what follows}, where a network is there
    """

    tables: Mapping[str, Floats]
    layers: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)

    @classmethod
    def drawn(cls, channels: Mapping[str, int], share: float, draws: int, seed: int) -> Masks:
        """Masks that leave out this share on average; channels: {head: how many its last layer takes}"""
        random = np.random.default_rng(seed)
        kept = {head: random.random((draws, count)) >= share for head, count in channels.items()}
        return cls({head: (table / (1 - share)).astype(np.float32) for head, table in kept.items()})

    @property
    def heads(self) -> tuple[str, ...]:
        """Those whose last layers have masks."""
        return tuple(self.tables)

    def views(self, seen: Features, count: int) -> list[dict[str, Tensor]]:
        """The outputs by so many masks, or by all where there are fewer."""
        made: list[dict[str, Tensor]] = [{} for _ in range(min(count, *map(len, self.tables.values())))]
        for head, table in self.tables.items():
            inputs = seen.inputs[head]
            factors = torch.as_tensor(table, dtype=inputs.dtype, device=inputs.device)
            for view, mask in zip(made, factors, strict=False):
                view[head] = self.layers[head](inputs * mask.reshape(1, -1, *[1] * (inputs.ndim - 2)))
        return made

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values for `model.json`: the SHA-256 of the file with its arrays."""
        return {"sha256": hashlib.sha256(self.content).hexdigest()}

    @cached_property
    def content(self) -> bytes:
        """The arrays as safetensors."""
        return save(dict(self.tables))

    @classmethod
    def of(cls, settings: Mapping[str, Any], arrays: Mapping[str, Floats]) -> Masks:
        """From what `settings` and `content` gave."""
        return cls(arrays)

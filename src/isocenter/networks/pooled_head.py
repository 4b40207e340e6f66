"""The end of networks for whole-image outputs: maps are pooled, take in covariates, and each head weighs the result.

A part of many families, which travels with each. This file needs torch, and `context_fusion` with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from isocenter.networks.context_fusion import ContextFusion


class PooledHead(nn.Module):
    """A network that ends in pooled features: its layers lie beside those of its end, as published weights name them.

    A family's class makes its own layers, then calls `end`; where `body` is all of them, `forward` is done here.
    """

    body: nn.Module

    def end(
        self, features: int, vectors: Mapping[str, int], dropout: float, context: int, fusion: Mapping[str, Any] | None
    ) -> None:
        """Make the last layers, for so many features; without `fusion` covariates join them before the last layer."""
        self.dropout = nn.Dropout(dropout)
        self.telling = ContextFusion(context, {0: features}, **(fusion or {}))
        inputs = features + self.telling.joining
        self.vectors = nn.ModuleDict({name: nn.Linear(inputs, size) for name, size in vectors.items()})

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """(batch, channels, *spatial) images, and (batch, context) covariates, to {head: (batch, size)}."""
        return self.answers(self.body(images), context)

    def answers(self, maps: Tensor, context: Tensor | None) -> dict[str, Tensor]:
        """{head: (batch, size)} of (batch, maps, *spatial)."""
        covariates = self.telling(context)
        pooled = self.pool(self.telling.shaped(maps, covariates))
        return self.telling.answers(self.vectors, self.dropout(pooled), covariates)

    def answers_of(self, features: Tensor, context: Tensor | None) -> dict[str, Tensor]:
        """{head: (batch, size)} of (batch, features) that are pooled, and dropped out, before covariates shape them."""
        covariates = self.telling(context)
        return self.telling.answers(self.vectors, self.telling.shaped(features, covariates), covariates)

    def pool(self, maps: Tensor) -> Tensor:
        """(batch, maps) of (batch, maps, *spatial): their mean."""
        return maps.flatten(2).mean(dim=2)

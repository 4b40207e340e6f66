"""The end of networks for whole-image outputs: pooled features, covariates and a linear layer for each head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from isocenter.networks.context_fusion import ContextFusion
from isocenter.networks.family import Family, SizeFor


class PooledHead(nn.Module):
    """A network that ends in pooled features; its layers and its last ones are attributes of one module.

    A family's class makes its own layers, then calls `end`. Where `body` is all of them, this `forward` does.
    """

    body: nn.Module

    def end(
        self, features: int, vectors: Mapping[str, int], dropout: float, context: int, fusion: Mapping[str, Any] | None
    ) -> None:
        """Make the last layers, for so many features.

        context: number of covariates
        fusion:  settings of `ContextFusion`; without them covariates are concatenated before the last layer
        """
        self.dropout = nn.Dropout(dropout)
        self.telling = ContextFusion(context, {0: features}, **(fusion or {}))
        inputs = features + self.telling.joining
        self.vectors = nn.ModuleDict({name: nn.Linear(inputs, size) for name, size in vectors.items()})

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return {head: (batch, size)} of (batch, channels, *spatial) images and (batch, context) covariates."""
        return self.answers(self.body(images), context)

    def answers(self, maps: Tensor, context: Tensor | None) -> dict[str, Tensor]:
        """{head: (batch, size)} of (batch, maps, *spatial)."""
        covariates = self.telling(context)
        pooled = self.pool(self.telling.shaped(maps, covariates))
        return self.telling.answers(self.vectors, self.dropout(pooled), covariates)

    def answers_of(self, features: Tensor, context: Tensor | None) -> dict[str, Tensor]:
        """{head: (batch, size)} of (batch, features), pooled and after dropout; covariates then modulate them."""
        covariates = self.telling(context)
        return self.telling.answers(self.vectors, self.telling.shaped(features, covariates), covariates)

    def pool(self, maps: Tensor) -> Tensor:
        """(batch, maps) of (batch, maps, *spatial): their mean."""
        return maps.flatten(2).mean(dim=2)


def pooled_family(build: Callable[..., nn.Module], size_for: SizeFor, paper: str, **more: Any) -> Family:
    """A family of networks that end in a `PooledHead`; more: further fields of the family."""
    methods = ("concatenate", "film", "attention")
    settings: dict[str, Any] = {"features": "body", **more}
    return Family(build, size_for, paper, answers=frozenset({"vector"}), takes_context=methods, **settings)

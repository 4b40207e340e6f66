"""A network as it is exported, with the features at which a gate looks."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from isocenter import networks
from isocenter.runtime.package.contents import each_head


class WithFeatures(nn.Module):
    """(batch, channels, *patch) to a tensor for each head, and (batch, features) of the first of its networks.

    network: as `every_head` makes it
    at:      the part of that first network whose output is the deepest map
    """

    def __init__(self, network: nn.Module, at: str) -> None:
        super().__init__()
        self.network: Any = network
        self.at = at

    def forward(self, images: Tensor, context: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the heads' outputs, then the features."""
        seen = networks.features(self.network, images, context, at=self.at, within=self.network.networks[0])
        return (*each_head(seen.outputs), seen.pooled)

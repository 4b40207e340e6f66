"""MONAI's networks in the form of ours: one named output, the mask."""

from __future__ import annotations

from torch import Tensor, nn


class MaskNetwork(nn.Module):
    """(batch, channels, *patch) to {"mask": (batch, outputs, *patch)}; of several resolutions the finest."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(batch, channels, *patch) to {"mask": (batch, outputs, *patch)}."""
        outputs = self.network(images)
        return {"mask": outputs[0] if isinstance(outputs, list | tuple) else outputs}

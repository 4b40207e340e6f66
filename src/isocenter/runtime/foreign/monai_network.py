"""MONAI's networks in the form of ours: one named output, the mask."""

from __future__ import annotations

from torch import Tensor, nn

from isocenter.errors import FormatError


class MaskNetwork(nn.Module):
    """(batch, channels, *patch) to {"mask": (batch, outputs, *patch)}; of several resolutions the finest.

    count: of the outputs that are described
    where: the description
    """

    def __init__(self, network: nn.Module, count: int, where: str) -> None:
        super().__init__()
        self.network = network
        self.count = count
        self.where = where

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(batch, channels, *patch) to {"mask": (batch, outputs, *patch)}; FormatError for another number of them."""
        outputs = self.network(images)
        mask: Tensor = outputs[0] if isinstance(outputs, list | tuple) else outputs
        if mask.shape[1] != self.count:
            problem = f"names {self.count} outputs, the network gives {mask.shape[1]}"
            raise FormatError(problem, self.where, "Name each channel of its output in channel_def")
        return {"mask": mask}

"""The light network of bench/bounded_memory.py: two convolutions, the same weights on every side."""

from typing import Any

import torch

WIDTH = 8


class Light(torch.nn.Module):
    """(batch, 1, *patch) to (batch, classes + 1, *patch)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv3d(1, WIDTH, 3, padding=1)
        self.last = torch.nn.Conv3d(WIDTH, classes + 1, 1)

    def forward(self, images: torch.Tensor) -> Any:
        return self.last(torch.relu(self.first(images)))

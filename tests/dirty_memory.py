"""Memory that holds what nobody should read."""

from __future__ import annotations

import torch


def dirty_memory(value: float) -> None:
    """Memory of many sizes is given back with this number in it; who is next given some of it finds it there."""
    held = [torch.full((2**power,), value) for power in range(4, 22) for _ in range(4)]
    del held

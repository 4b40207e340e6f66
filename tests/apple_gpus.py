"""Tensors as on Apple's GPUs, which have no float64, on a machine without one."""

from __future__ import annotations

from typing import Any

import torch


class OnApple(torch.Tensor):
    """A tensor, and all that is computed of it, that refuses float64 until it is on the processor."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.Tensor.double or (kwargs or {}).get("dtype") is torch.float64:
            raise TypeError("the MPS framework doesn't support float64")
        made = super().__torch_function__(function, types, args, kwargs or {})
        return made.as_subclass(torch.Tensor) if function is torch.Tensor.cpu else made


def on_apple(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor there."""
    return tensor.as_subclass(OnApple)

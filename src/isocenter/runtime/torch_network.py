"""A torch module as a function of NumPy arrays. A copy of this file travels with a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isocenter.lazy import torch

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True)
class TorchNetwork:
    """A torch module as a function of NumPy arrays: images, and a context beside them if it has one."""

    module: Module
    device: str = "cpu"

    def __call__(self, *batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        with torch.inference_mode():
            outputs = self.module(*(torch.from_numpy(one).to(self.device) for one in batch))
        return {name: output.float().cpu().numpy() for name, output in outputs.items()}

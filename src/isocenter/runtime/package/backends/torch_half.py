"""torch with convolutions and matrix products in bfloat16, where the processor or the GPU computes it itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isocenter.lazy import torch
from isocenter.networks import channels_last, memory_order, ordered
from isocenter.runtime.device import MPS, bf16_pays
from isocenter.runtime.package.backends.torch_eager import averaged
from isocenter.runtime.package.contents import package_record, weights_files
from isocenter.runtime.windows.slide import Network

if TYPE_CHECKING:
    from torch.nn import Module


class HalfNetwork:
    """A torch module as a function of NumPy arrays, its channels side by side in memory."""

    def __init__(self, module: Module, device: str) -> None:
        self.module, self.device = channels_last(module), device

    def __call__(self, batch: NDArray[np.float32], *context: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        images = torch.from_numpy(batch).to(self.device)
        if memory_order(self.module) is not None:
            images = ordered(images)
        with torch.inference_mode(), torch.autocast(torch.device(self.device).type, torch.bfloat16):
            outputs = self.module(images, *(torch.from_numpy(one).to(self.device) for one in context))
        return {name: output.float().cpu().contiguous().numpy() for name, output in outputs.items()}


@dataclass(frozen=True)
class TorchHalf:
    """The arithmetic in which most models are trained; twice as fast as float32, and a little beside it."""

    name: str = "torch-bf16"
    packages: tuple[str, ...] = ("torch",)
    precision: str = "bfloat16"

    def lacking(self, device: str) -> str | None:
        """Why it cannot compute on this device, with the remedy; None where it can."""
        if device == MPS or not bf16_pays(device):
            return f"{device} does not compute in bfloat16 itself: choose --backend torch"
        return None

    def files(self, record: Mapping[str, Any]) -> tuple[str, ...]:
        """The files of a package that it reads."""
        return weights_files(record)

    def network(self, folder: Path, device: str, threads: int | None) -> Network:
        """The network of a verified package."""
        record = package_record(folder)
        return averaged(record, [folder / name for name in self.files(record)], device, threads, HalfNetwork)


BACKEND = TorchHalf()

"""torch as it is, with which every other backend is compared, and torch in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isocenter import tasks
from isocenter.lazy import torch
from isocenter.networks import channels_last, memory_order, ordered
from isocenter.runtime.device import MPS, bf16_pays, use_threads
from isocenter.runtime.networks import TorchNetwork
from isocenter.runtime.package.certificate import BFLOAT16, FLOAT32
from isocenter.runtime.package.contents import package_record, read_modules, shares_in, weights_files
from isocenter.runtime.windows.averaging import Averaged
from isocenter.runtime.windows.slide import Network

if TYPE_CHECKING:
    from torch.nn import Module


class HalfNetwork:
    """A torch module as a function of NumPy arrays, in bfloat16, its channels side by side in memory."""

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
class TorchEager:
    """One operation after the other.

    computing: makes a network of a module and its device
    """

    name: str = "torch"
    packages: tuple[str, ...] = ("torch",)
    precision: str = FLOAT32
    computing: Callable[[Module, str], Network] = TorchNetwork

    def lacking(self, device: str) -> str | None:
        """Why it cannot compute on this device, with the remedy; None where it can."""
        if self.precision == BFLOAT16 and (device == MPS or not bf16_pays(device)):
            return f"{device} does not compute in bfloat16 itself: choose --backend torch"
        return None

    def files(self, record: Mapping[str, Any]) -> tuple[str, ...]:
        """The files of a package that it reads."""
        return weights_files(record)

    def network(self, folder: Path, device: str, threads: int | None) -> Network:
        """The network of a verified package."""
        record = package_record(folder)
        return averaged(record, [folder / name for name in self.files(record)], device, threads, self.computing)


def averaged(
    record: Mapping[str, Any],
    weights: Sequence[Path],
    device: str,
    threads: int | None,
    computing: Callable[[Module, str], Network] = TorchNetwork,
) -> Network:
    """The network of these weights; of several the mean, as the task has it.

    computing: makes a network of a module and its device
    """
    if threads is not None:
        use_threads(threads)
    task = tasks.build(record["task"])
    networks = tuple(computing(one.to(device), device) for one in read_modules(record, task, weights))
    return networks[0] if len(networks) == 1 else Averaged(networks, task.average, shares_in(record), each=task.crossed)


BACKEND = TorchEager()
# The arithmetic in which most models are trained; twice as fast as float32, and a little beside it.
HALF = TorchEager("torch-bf16", precision=BFLOAT16, computing=HalfNetwork)

"""torch as it is, with which every other backend is compared, and torch in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hilum.lazy import torch
from hilum.networks import quick_convolutions
from hilum.runtime import hardware
from hilum.runtime.hardware import MPS
from hilum.runtime.model_schema import ModelRecord
from hilum.runtime.package import package_contents
from hilum.runtime.package.backend_certificate import BFLOAT16, FLOAT32
from hilum.runtime.torch_networks import TorchNetwork
from hilum.runtime.windows.averaging import AveragedNetwork
from hilum.runtime.windows.slide import Network
from hilum.tasks import task_catalogue
from hilum.values import Array

if TYPE_CHECKING:
    from torch.nn import Module


class HalfNetwork:
    """A torch module as a function of NumPy arrays, in bfloat16, its channels side by side in memory."""

    def __init__(self, module: Module, device: str) -> None:
        self.module, self.device = quick_convolutions.to_channels_last(module), device

    def __call__(self, batch: NDArray[np.float32], *context: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        images = torch.from_numpy(batch).to(self.device)
        if quick_convolutions.batch_memory_order(self.module) is not None:
            images = quick_convolutions.order_channels_last(images)
        with torch.inference_mode(), torch.autocast(torch.device(self.device).type, torch.bfloat16):
            outputs = self.module(images, *(torch.from_numpy(one).to(self.device) for one in context))
        return {name: output.float().cpu().contiguous().numpy() for name, output in outputs.items()}

    def encoded(self, tiles: NDArray[np.float32]) -> tuple[Array, ...]:
        """Features of tiles, of a network of bags."""
        with torch.autocast(torch.device(self.device).type, torch.bfloat16):
            return TorchNetwork(self.module, self.device).encoded(tiles)

    def pooled(self, features: Sequence[Array], places: NDArray[np.int64]) -> Mapping[str, Array]:
        """The answer of a bag, whose few features pass in float32."""
        return TorchNetwork(self.module, self.device).pooled(features, places)


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
        if self.precision == BFLOAT16 and (device == MPS or not hardware.computes_bfloat16(device)):
            return f"{device} does not compute in bfloat16 itself: choose --backend torch"
        return None

    def files(self, record: ModelRecord) -> tuple[str, ...]:
        """The files of a package that it reads."""
        return package_contents.weights_files(record)

    def network(self, folder: Path, device: str, threads: int | None) -> Network:
        """The network of a verified package."""
        record = package_contents.package_record(folder)
        return build_average(record, [folder / name for name in self.files(record)], device, threads, self.computing)


def build_average(
    record: ModelRecord,
    weights: Sequence[Path],
    device: str,
    threads: int | None,
    computing: Callable[[Module, str], Network] = TorchNetwork,
) -> Network:
    """The network of these weights; of several the mean, as the task has it.

    computing: makes a network of a module and its device
    """
    if threads is not None:
        hardware.use_threads(threads)
    task = task_catalogue.build_task(record["task"])
    networks = tuple(computing(one.to(device), device) for one in package_contents.read_modules(record, task, weights))
    if len(networks) == 1:
        return networks[0]
    return AveragedNetwork(networks, task.average, package_contents.recorded_shares(record), each=task.folds_by_head)


BACKEND = TorchEager()
# The arithmetic in which most models are trained; twice as fast as float32, and a little beside it.
HALF = TorchEager("torch-bf16", precision=BFLOAT16, computing=HalfNetwork)

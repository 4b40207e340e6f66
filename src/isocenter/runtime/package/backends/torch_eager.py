"""torch as it is: what the model was trained and measured with, and what every other backend is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isocenter import tasks
from isocenter.runtime.device import use_threads
from isocenter.runtime.package.contents import package_record, read_modules, shares_in, weights_files
from isocenter.runtime.torch_network import TorchNetwork
from isocenter.runtime.windows import Averaged
from isocenter.runtime.windows.slide import Network

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True)
class TorchEager:
    """One operation after the other."""

    name: str = "torch"
    packages: tuple[str, ...] = ("torch",)
    precision: str = "float32"

    def lacking(self, device: str) -> str | None:
        """Why it cannot compute on this device, with the remedy; None where it can."""
        return None

    def files(self, record: Mapping[str, Any]) -> tuple[str, ...]:
        """The files of a package that it reads."""
        return weights_files(record)

    def network(self, folder: Path, device: str, threads: int | None) -> Network:
        """The network of a verified package."""
        record = package_record(folder)
        return averaged(record, [folder / name for name in self.files(record)], device, threads)


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
    how = task.decoding
    return networks[0] if len(networks) == 1 else Averaged(networks, how.average, shares_in(record), each=how.crossed)


BACKEND = TorchEager()

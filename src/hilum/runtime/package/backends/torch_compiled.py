"""torch compiled ahead of time (AOTInductor): once for a model and a machine, in a minute, and kept in the cache."""

from __future__ import annotations

import hashlib
import platform
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hilum.files.storage import cache
from hilum.lazy import torch
from hilum.runtime import hardware, record_files
from hilum.runtime.covariate_encoding import Context
from hilum.runtime.hardware import CUDA, MPS, WINDOWS
from hilum.runtime.model_schema import ModelRecord
from hilum.runtime.package import onnx_export, package_contents
from hilum.runtime.package.backends import onnx
from hilum.runtime.windows.slide import Network
from hilum.tasks import task_catalogue

# A batch of more windows than this is not foreseen by what is compiled.
LARGEST_BATCH = 64
# The file of an entry of the cache.
COMPILED = "network.pt2"


@dataclass(frozen=True, eq=False)
class CompiledNetwork:
    """A compiled network, (batch, channels, *patch) to a tensor for each head, as a function of NumPy arrays."""

    compiled: Any
    heads: tuple[str, ...]
    device: str

    def __call__(self, *batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        parts = []
        with torch.inference_mode():
            for first in range(0, len(batch[0]), LARGEST_BATCH):
                parts.append(self._outputs(*(one[first : first + LARGEST_BATCH] for one in batch)))
        return {head: torch.cat([one[n] for one in parts]).numpy() for n, head in enumerate(self.heads)}

    def _outputs(self, *batch: NDArray[np.float32]) -> list[Any]:
        tensors = self.compiled(*(torch.from_numpy(one).to(self.device) for one in batch))
        return [one.float().cpu() for one in package_contents.tensors_by_head(tensors)]


@dataclass(frozen=True)
class TorchCompiled:
    """Operations that follow one another become one, written in C++ for this processor or in Triton for this GPU."""

    name: str = "compiled"
    packages: tuple[str, ...] = ("torch",)
    precision: str = "float32"

    def lacking(self, device: str) -> str | None:
        """Why it cannot compute on this device, with the remedy; None where it can."""
        if device == MPS:
            return "torch compiles nothing ahead of time for Apple's GPUs: use --device cpu"
        if WINDOWS:
            return "compiling ahead of time is not tried on Windows: choose --backend onnx"
        if hardware.compiler_path() is None:
            return "there is no C++ compiler (g++): install one, or choose --backend onnx"
        return None

    def files(self, record: ModelRecord) -> tuple[str, ...]:
        """The files of a package that it reads."""
        onnx.refuse_halves(record)
        return package_contents.weights_files(record)

    def network(self, folder: Path, device: str, threads: int | None) -> Network:
        """The network of a verified package."""
        if threads is not None:
            hardware.use_threads(threads)
        record = package_contents.package_record(folder)
        key = _key(record, [folder / one for one in self.files(record)], device)
        entry = record_files.sealed_entry(
            cache.cache_folder() / "compiled" / key, partial(_compile, folder, record, device)
        )
        number = onnx.gpu_number(device) if device.startswith(CUDA) else -1  # else the weights go to the first GPU
        loaded = torch._inductor.aoti_load_package(str(entry / COMPILED), device_index=number)
        return CompiledNetwork(loaded, tuple(task_catalogue.build_task(record["task"]).heads), device)


def _key(record: ModelRecord, weights: list[Path], device: str) -> str:
    """The digest of what decides the code that is made: weights, network, windows, torch and the processor or GPU."""
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    decisive = [
        *(record_files.file_digest(one) for one in weights),
        *(str(record.get(key)) for key in ("network", "architectures", "shares", "task", "own_scales")),
        str(record["inference"]["patch"]),
        version("torch"),
        f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {device} {gpu}",
    ]
    return hashlib.sha256("\n".join(decisive).encode()).hexdigest()[:32]


def _compile(folder: Path, record: ModelRecord, device: str, entry: Path) -> None:
    """Compile the network of the package in `folder` into the folder `entry`."""
    task = task_catalogue.build_task(record["task"])
    modules = package_contents.read_modules(
        record, task, [folder / name for name in package_contents.weights_files(record)]
    )
    network = onnx_export.rename_keyword_heads(
        package_contents.every_head_network(task, modules, package_contents.recorded_shares(record)).eval()
    ).to(device)
    shape = (2, int(record["network"]["channels"]), *cast("Sequence[int]", record["inference"]["patch"]))
    context = Context.from_settings(record["network"].get("context"))
    shapes = (shape, (2, len(context))) if len(context) else (shape,)
    count = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    examples = tuple(torch.zeros(own, device=device) for own in shapes)
    sizes = tuple({0: count} for _ in shapes)
    silent = StringIO()  # the compiler reports its steps
    with warnings.catch_warnings(), redirect_stdout(silent), redirect_stderr(silent), torch.no_grad():
        warnings.simplefilter("ignore")
        exported = torch.export.export(network, examples, dynamic_shapes=sizes)
        torch._inductor.aoti_compile_and_package(exported, package_path=str(entry / COMPILED))


BACKEND = TorchCompiled()

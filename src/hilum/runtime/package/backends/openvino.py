"""OpenVINO, which knows Intel's processors well. An extra: `openvino`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum import installation
from hilum.errors import IntegrityError
from hilum.runtime.hardware import CPU
from hilum.runtime.model_schema import ModelRecord
from hilum.runtime.package import package_contents
from hilum.runtime.package.backends import onnx
from hilum.runtime.package.package_contents import ONNX, OPENVINO_INT8
from hilum.runtime.windows.slide import Network
from hilum.values.plain_values import PlainValue

# What OpenVINO calls a precision when it is asked for, and when a processor has it.
PRECISIONS = {"float32": ("f32", "FP32"), "bfloat16": ("bf16", "BF16"), "int8": ("f32", "INT8")}


@dataclass(frozen=True, eq=False)
class OpenVinoNetwork:
    """A model, compiled anew for each size of batch: shapes that are known are computed faster.

    compiled: {batch size: what was compiled for it}
    lock:     held while one thread computes: what was compiled has one place for its results, whoever asked for them
    """

    core: Any
    model: Any
    heads: tuple[str, ...]
    settings: Mapping[str, PlainValue]
    compiled: dict[int, Any] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def __call__(self, batch: NDArray[np.float32], *context: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        with self.lock:
            if len(batch) not in self.compiled:
                sized = self.model.clone()
                sized.reshape({number: list(one.shape) for number, one in enumerate((batch, *context))})
                self.compiled[len(batch)] = self.core.compile_model(sized, "CPU", dict(self.settings))
            result = self.compiled[len(batch)]([np.ascontiguousarray(one) for one in (batch, *context)])
            # Its own arrays are written again by the next call.
            return {head: np.array(result[n], dtype=np.float32) for n, head in enumerate(self.heads)}


@dataclass(frozen=True)
class OpenVino:
    """OpenVINO on the CPU, in the named precision: left to itself it would choose, and answer otherwise than torch."""

    name: str = "openvino"
    packages: tuple[str, ...] = ("openvino",)
    precision: str = "float32"
    graph: str = ONNX

    def lacking(self, device: str) -> str | None:
        """Why it cannot compute on this device, with the remedy; None where it can."""
        if find_spec("openvino") is None:
            return f"OpenVINO is not installed: {installation.install_line('openvino')}"
        if device != CPU:
            return "OpenVINO is used on the CPU alone: use --device cpu"
        if PRECISIONS[self.precision][1] not in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            return f"this processor does not compute in {self.precision} itself: choose --backend openvino"
        return None

    def files(self, record: ModelRecord) -> tuple[str, ...]:
        """The files of a package that it reads."""
        return onnx.single_graph_files(record)

    def network(self, folder: Path, device: str, threads: int | None) -> Network:
        """The network of a verified package."""
        core = _core()
        try:
            model = core.read_model(folder / self.graph)
        except RuntimeError as error:
            reason = str(error).strip().rpartition("\n")[2]
            raise IntegrityError(
                f"cannot be opened by OpenVINO ({reason})", str(folder / self.graph), "Get the package again"
            ) from error
        settings: Mapping[str, PlainValue] = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[self.precision][0],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads or onnx.usable_cores(),
            "ENABLE_CPU_PINNING": False,  # a core that it clings to may be busy with something else
        }
        return OpenVinoNetwork(core, model, onnx.output_heads(folder), settings)


def _core() -> Any:
    import openvino  # 0.2 s, and only this backend needs it

    return openvino.Core()


@dataclass(frozen=True)
class OpenVinoQuantised(OpenVino):
    """With 8-bit numbers: the graph that `compress` quantised with NNCF. What stays in float is float32."""

    def files(self, record: ModelRecord) -> tuple[str, ...]:
        """The files of a package that it reads."""
        return package_contents.quantised_files(record, self.name, OPENVINO_INT8)


BACKEND = OpenVino()
HALF = OpenVino("openvino-bf16", precision="bfloat16")
INT8 = OpenVinoQuantised("openvino-int8", precision="int8", graph=OPENVINO_INT8[0])

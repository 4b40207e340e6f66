"""TensorRT on NVIDIA's GPUs, through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isocenter.files import cache_folder
from isocenter.lazy import onnxruntime
from isocenter.runtime.package.backends.onnx import Provider, heads_of, number_of, onnx_files, open_onnx
from isocenter.runtime.package.contents import ONNX, package_record
from isocenter.runtime.record_files import digest, joined
from isocenter.runtime.windows.slide import Network

PROVIDER = "TensorrtExecutionProvider"


@dataclass(frozen=True)
class TensorRt:
    """An engine is built once for a GPU and a package, in minutes, and kept in the cache."""

    name: str = "tensorrt"
    packages: tuple[str, ...] = ("onnxruntime-gpu", "tensorrt")
    precision: str = "float32"

    def lacking(self, device: str) -> str | None:
        """Why it cannot compute on this device, with the remedy; None where it can."""
        if not device.startswith("cuda"):
            return "TensorRT needs one of NVIDIA's GPUs: use one with --device cuda:0"
        if PROVIDER not in onnxruntime.get_available_providers():
            return "this ONNX Runtime has no TensorRT: pip install onnxruntime-gpu tensorrt in place of onnxruntime"
        return None

    def files(self, record: Mapping[str, Any]) -> tuple[str, ...]:
        """The files of a package that it reads."""
        return onnx_files(record)

    def network(self, folder: Path, device: str, threads: int | None) -> Network:
        """The network of a verified package."""
        # ONNX Runtime finds an engine again by the names in the graph, not by its weights: in one folder the next model
        # of the same architecture would answer with the weights of the first.
        weights = joined([digest(folder / name) for name in self.files(package_record(folder))])
        engines = cache_folder() / "tensorrt" / weights
        engines.mkdir(parents=True, exist_ok=True)
        number = number_of(device)
        engine = {"device_id": number, "trt_engine_cache_enable": True, "trt_engine_cache_path": str(engines)}
        providers: list[Provider] = [(PROVIDER, engine), ("CUDAExecutionProvider", {"device_id": number})]
        return open_onnx(folder / ONNX, heads_of(folder), [*providers, "CPUExecutionProvider"], threads)


BACKEND = TensorRt()

"""ONNX Runtime. Nothing here imports torch, so that a prediction starts in a fraction of the time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import IntegrityError, ResourceError, UsageError
from hilum.files.storage import cache
from hilum.lazy import onnxruntime
from hilum.runtime import record_files
from hilum.runtime.hardware import CPU, CUDA
from hilum.runtime.model_schema import ModelRecord
from hilum.runtime.package import package_contents
from hilum.runtime.package.package_contents import (
    CONTEXT,
    FEATURES,
    ONNX,
    ONNX_TILES,
    PACKAGED,
    PLACES,
    RECORD,
    TILES_OF_BLOCK,
)
from hilum.runtime.preprocessing.slide_tiles import ABSENT
from hilum.runtime.windows.averaging import ATTENTION, POOLED
from hilum.runtime.windows.slide import Network
from hilum.tasks import task_catalogue
from hilum.tasks.shared.averages import BETWEEN, EACH, WITHIN

# Kinds of numbers that graphs take, as ONNX Runtime calls them.
INPUTS: Mapping[str, type[np.generic]] = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(uint16)": np.uint16,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
# A provider's name, alone or with its options.
Provider = str | tuple[str, dict[str, str | int]]


@dataclass(frozen=True, eq=False)
class OnnxNetwork:
    """A session as a function of NumPy arrays: images, and a context beside them if it has one.

    heads: what the outputs are called by the task
    taken: names of these outputs in the graph; empty for all that it has
    """

    session: Any
    heads: tuple[str, ...]
    taken: tuple[str, ...] = ()

    def __call__(self, *batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        inputs = zip(self.session.get_inputs(), batch, strict=True)
        try:
            outputs = self.session.run(
                list(self.taken) or None, {one.name: _cast(array, one.type) for one, array in inputs}
            )
        except onnx_errors() as error:
            if errors.is_out_of_memory(error):
                raise MemoryError(str(error)) from error
            raise
        return {head: np.asarray(one, dtype=np.float32) for head, one in zip(self.heads, outputs, strict=True)}

    @property
    def batch(self) -> int | None:
        """Number of windows that it takes at once; None for any number."""
        first = (self.session.get_inputs()[0].shape or [None])[0]
        return first if isinstance(first, int) else None

    @property
    def whole_numbers(self) -> np.iinfo[Any] | None:
        """Bounds of the whole numbers that it takes; None for a network that takes any numbers."""
        kind = np.dtype(INPUTS.get(self.session.get_inputs()[0].type, np.float32))
        return np.iinfo(kind) if kind.kind in "iu" else None


@dataclass(frozen=True, eq=False)
class OnnxBags(OnnxNetwork):
    """The two graphs of a network of bags: `session` pools what `tiles` finds in each tile.

    tiles: a session
    """

    tiles: Any = None

    def encoded(self, tiles: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """(n, features) of (n, channels, rows, columns); of several networks joined."""
        return tuple(OnnxNetwork(self.tiles, (FEATURES,))(tiles).values())

    def pooled(
        self, features: Sequence[NDArray[np.float32]], places: NDArray[np.int64]
    ) -> Mapping[str, NDArray[np.float32]]:
        """{head: (batch, numbers)} and the attention of each tile, of features (batch, tiles, features)."""
        count, beyond = places.shape[1], ((0, 0), (0, -places.shape[1] % TILES_OF_BLOCK), (0, 0))
        outputs = self(*(np.pad(one, beyond) for one in features), np.pad(places, beyond, constant_values=ABSENT))
        return {**outputs, ATTENTION: outputs[ATTENTION][:, :count]}


def _cast(array: NDArray[np.float32], kind: str) -> NDArray[Any]:
    """Numbers as a graph takes them; whole ones are rounded and held within their bounds."""
    dtype = np.dtype(INPUTS.get(kind, np.float32))
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        array = np.clip(np.rint(array), bounds.min, bounds.max)
    with np.errstate(over="ignore"):  # what is too large for float16 becomes infinite, and so do the outputs
        return np.ascontiguousarray(array, dtype=dtype)


def open_onnx(
    path: Path, heads: Sequence[str], providers: Sequence[Provider], threads: int | None = None
) -> OnnxNetwork:
    """The network of an ONNX file: an input (batch, channels, *patch), perhaps `context` beside it, an output a head.

    heads:     in the order of the outputs; empty for outputs that keep the names of the graph
    providers: of ONNX Runtime; the first has to be the one that computes
    Raises IntegrityError for a file that is none, ResourceError where the provider cannot be had.
    """
    session = _open_session(path, providers, threads)
    others = [one.name for one in session.get_inputs()[1:]]
    heads = heads or [one.name for one in session.get_outputs()]
    if others not in ([], [CONTEXT], [PLACES]) or len(session.get_outputs()) != len(heads):
        outputs = "one output" if len(heads) == 1 else f"{len(heads)} outputs"
        raise IntegrityError(f"has not one input and {outputs}", str(path), "Export the network alone")
    if others != [PLACES]:
        return OnnxNetwork(session, tuple(heads))
    tiles = _open_session(path.with_name(PurePosixPath(ONNX_TILES).name), providers, threads)
    return OnnxBags(session, tuple(heads), tiles=tiles)


def _open_session(path: Path, providers: Sequence[Provider], threads: int | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    options.log_severity_level = 3  # its warnings are about graphs that run well
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=list(providers))
    except onnx_errors() as error:
        reason = str(error).strip().partition("\n")[0]
        raise IntegrityError(f"cannot be opened by ONNX Runtime ({reason})", str(path), "Get the file again") from error
    provider = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if session.get_providers()[0] != provider:  # it goes on without a word on the next one of the list
        raise ResourceError(
            f"{provider} could not be started", str(path), "Choose --backend torch, or repair its libraries"
        )
    return session


def onnx_errors() -> tuple[type[Exception], ...]:
    """The classes that ONNX Runtime raises: its own have no common base, and differ between versions."""
    kinds = vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
    error_types = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*error_types, RuntimeError, ValueError)


def usable_cores() -> int:
    """Cores that this process may use: as OMP_NUM_THREADS says, else all that the system grants."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads):
        return int(threads)
    granted = getattr(os, "sched_getaffinity", None)
    return len(granted(0)) if granted is not None else os.cpu_count() or 1


def onnx_files(record: ModelRecord) -> tuple[str, ...]:
    """The ONNX file of a package and what lies beside it; UsageError where the network could not be written as one."""
    export = record["onnx"]
    if not export["exported"]:
        problem = f"the package holds no ONNX file ({export.get('because', 'none was written')})"
        raise UsageError(problem, f"{PACKAGED}/{RECORD}", "Choose --backend torch")
    return (ONNX, *export.get("beside", ()))


def refuse_halves(record: ModelRecord) -> None:
    """UsageError for a network of bags, which is two graphs, where one has to be the whole network."""
    if record["onnx"].get("halves"):
        problem = "the package has a graph for tiles and one that pools them"
        raise UsageError(problem, f"{PACKAGED}/{RECORD}", "Choose --backend onnx or torch")


def single_graph_files(record: ModelRecord) -> tuple[str, ...]:
    """The same where one graph is the whole network; UsageError for a network of bags, which are two."""
    refuse_halves(record)
    return onnx_files(record)


def output_heads(folder: Path) -> tuple[str, ...]:
    """Names of the outputs of a package's ONNX file: by its task, of uncertainty, and features for its gate."""
    record = package_contents.package_record(folder)
    heads = tuple(task_catalogue.build_task(record["task"]).heads)
    uncertain = record["onnx"].get("uncertainty", {}).get("heads", ())
    further = [f"{head}{end}" for head in uncertain for end in (WITHIN, BETWEEN)]
    further += [f"{head}{EACH}" for head in record["onnx"].get("each", ())]
    further += [POOLED] * bool(record["onnx"].get("features")) + [ATTENTION] * bool(record["onnx"].get("halves"))
    return (*heads, *further)


def gpu_number(device: str) -> int:
    """Number of a GPU: "cuda:1" is 1."""
    return int(device.partition(":")[2] or 0)


@dataclass(frozen=True)
class Onnx:
    """ONNX Runtime on the CPU, or on a GPU where the installed one can."""

    name: str = "onnx"
    packages: tuple[str, ...] = ("onnxruntime",)
    precision: str = "float32"
    graph: str = ONNX

    def lacking(self, device: str) -> str | None:
        """Why it cannot compute on this device, with the remedy; None where it can."""
        kind = device.partition(":")[0]
        if kind == CPU or (kind == CUDA and "CUDAExecutionProvider" in onnxruntime.get_available_providers()):
            return None
        if kind == CUDA:
            return "this ONNX Runtime has no CUDA: pip install onnxruntime-gpu in place of onnxruntime"
        return f"ONNX Runtime does not compute on {device} here: use --device cpu"

    def files(self, record: ModelRecord) -> tuple[str, ...]:
        """The files of a package that it reads."""
        return onnx_files(record)

    def network(self, folder: Path, device: str, threads: int | None) -> Network:
        """The network of a verified package."""
        cpu: Provider = "CPUExecutionProvider"
        on_gpu: list[Provider] = [("CUDAExecutionProvider", {"device_id": gpu_number(device)}), cpu]
        return open_onnx(folder / self.graph, output_heads(folder), [cpu] if device == CPU else on_gpu, threads)


@dataclass(frozen=True)
class OnnxQuantised(Onnx):
    """8-bit or 4-bit numbers: a graph that `compress` made, for the CPU alone."""

    def lacking(self, device: str) -> str | None:
        """Why it cannot compute on this device, with the remedy; None where it can."""
        return None if device == CPU else "quantised networks are used on the CPU alone: use --device cpu"

    def files(self, record: ModelRecord) -> tuple[str, ...]:
        """The files of a package that it reads."""
        return package_contents.quantised_files(record, self.name, (self.graph,))


BACKEND = Onnx()
INT8 = OnnxQuantised("onnx-int8", precision="int8", graph=package_contents.ONNX_INT8)
INT4 = OnnxQuantised("onnx-int4", precision="int4", graph=package_contents.ONNX_INT4)
TENSORRT_PROVIDER = "TensorrtExecutionProvider"


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
        if TENSORRT_PROVIDER not in onnxruntime.get_available_providers():
            return "this ONNX Runtime has no TensorRT: pip install onnxruntime-gpu tensorrt in place of onnxruntime"
        return None

    def files(self, record: ModelRecord) -> tuple[str, ...]:
        """The files of a package that it reads."""
        return onnx_files(record)

    def network(self, folder: Path, device: str, threads: int | None) -> Network:
        """The network of a verified package."""
        # ONNX Runtime finds an engine again by the names in the graph, not by its weights: in one folder the next model
        # of the same architecture would answer with the weights of the first.
        weights = record_files.join_digests(
            [record_files.file_digest(folder / name) for name in self.files(package_contents.package_record(folder))]
        )
        engines = cache.cache_folder() / "tensorrt" / weights
        engines.mkdir(parents=True, exist_ok=True)
        number = gpu_number(device)
        kept: dict[str, str | int] = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(engines)}
        tensorrt: Provider = (TENSORRT_PROVIDER, {"device_id": number, **kept})
        providers: list[Provider] = [tensorrt, ("CUDAExecutionProvider", {"device_id": number})]
        return open_onnx(folder / ONNX, output_heads(folder), [*providers, "CPUExecutionProvider"], threads)


TENSORRT = TensorRt()

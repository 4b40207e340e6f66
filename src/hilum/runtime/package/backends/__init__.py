"""Ways to compute a packaged network. A new one is one file beside this one and its line in `BACKENDS`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from hilum import plugins
from hilum.errors import UsageError
from hilum.runtime.model_schema import ModelRecord
from hilum.runtime.windows.slide import Network

BACKENDS = {
    "compiled": "hilum.runtime.package.backends.torch_compiled:BACKEND",
    "onnx": "hilum.runtime.package.backends.onnx:BACKEND",
    "onnx-int4": "hilum.runtime.package.backends.onnx:INT4",
    "onnx-int8": "hilum.runtime.package.backends.onnx:INT8",
    "openvino": "hilum.runtime.package.backends.openvino:BACKEND",
    "openvino-bf16": "hilum.runtime.package.backends.openvino:HALF",
    "openvino-int8": "hilum.runtime.package.backends.openvino:INT8",
    "tensorrt": "hilum.runtime.package.backends.onnx:TENSORRT",
    "torch": "hilum.runtime.package.backends.torch_eager:BACKEND",
    "torch-bf16": "hilum.runtime.package.backends.torch_eager:HALF",
}
# Their first result takes minutes, so that `predict`, which counts ten images, never takes them by itself.
SLOW_TO_START = frozenset({"compiled", "tensorrt"})


class Backend(Protocol):
    """One way to compute the network of a package.

    name:     as `--backend` calls it
    packages: distributions whose versions decide what it computes, for the certificate
    precision: "float32", "bfloat16", "int8" or "int4", which decides the tolerances that it is held to
    """

    name: str
    packages: tuple[str, ...]
    precision: str

    def lacking(self, device: str) -> str | None:
        """Why it cannot compute on this device here, with the remedy; None where it can."""

    def files(self, record: ModelRecord) -> tuple[str, ...]:
        """The files of a package that it reads, which the manifest has to list.

        record: `hilum/model.json`
        Raises UsageError for a package without them.
        """

    def network(self, folder: Path, device: str, threads: int | None) -> Network:
        """The network of a package that is verified; of several the mean.

        threads: cores to use; all that this process may use if none is given
        """


def backend_names() -> tuple[str, ...]:
    """Ours, and those that other packages add under the entry point `hilum.backends`."""
    return tuple(sorted(plugins.targets_of(BACKENDS, "hilum.backends")))


def quick_backends() -> list[str]:
    """Names of backends that `predict` may take by itself; likely fast ones first: they set the time for the others."""
    likely = {name: place for place, name in enumerate(("openvino-int8", "openvino-bf16", "openvino", "onnx"))}
    return sorted(set(backend_names()) - SLOW_TO_START, key=lambda name: (likely.get(name, len(likely)), name))


def refuse_unknown_backends(chosen: Iterable[str], where: str = "--backend") -> None:
    """UsageError for a name that no backend has."""
    choices = backend_names()
    for name in chosen:
        if name not in choices:
            raise UsageError(f"there is no backend {name!r}", where, f"Choose from {', '.join(choices)}")


def find_backend(name: str) -> Backend:
    """The backend of this name; UsageError where there is none. Only its own file is imported."""
    refuse_unknown_backends([name])
    chosen: Backend = plugins.load_target(plugins.targets_of(BACKENDS, "hilum.backends")[name])
    return chosen

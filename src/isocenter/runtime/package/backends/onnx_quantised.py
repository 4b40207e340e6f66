"""ONNX Runtime with 8-bit or 4-bit numbers: files that `compress` made. They run wherever ONNX Runtime does."""

from __future__ import annotations

from dataclasses import dataclass

from isocenter.runtime.hardware import CPU
from isocenter.runtime.model_schema import ModelRecord
from isocenter.runtime.package import package_contents
from isocenter.runtime.package.backend_certificate import INT4 as FOUR_BITS
from isocenter.runtime.package.backend_certificate import INT8 as EIGHT_BITS
from isocenter.runtime.package.backends.onnx import Onnx
from isocenter.runtime.package.package_contents import ONNX_INT4, ONNX_INT8


@dataclass(frozen=True)
class OnnxQuantised(Onnx):
    """A graph of its own, which a package has after `compress`; on the CPU alone, for which it is made."""

    def lacking(self, device: str) -> str | None:
        """Why it cannot compute on this device, with the remedy; None where it can."""
        return None if device == CPU else "quantised networks are used on the CPU alone: use --device cpu"

    def files(self, record: ModelRecord) -> tuple[str, ...]:
        """The files of a package that it reads."""
        return package_contents.quantised_files(record, self.name, (self.graph,))


INT8 = OnnxQuantised("onnx-int8", precision=EIGHT_BITS, graph=ONNX_INT8)
INT4 = OnnxQuantised("onnx-int4", precision=FOUR_BITS, graph=ONNX_INT4)

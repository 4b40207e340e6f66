"""OpenVINO with 8-bit numbers: the graph that `compress` quantised with NNCF. What stays in float is float32."""

from __future__ import annotations

from dataclasses import dataclass

from isocenter.runtime.model_schema import ModelRecord
from isocenter.runtime.package import package_contents
from isocenter.runtime.package.backend_certificate import INT8
from isocenter.runtime.package.backends.openvino import OpenVino
from isocenter.runtime.package.package_contents import OPENVINO_INT8


@dataclass(frozen=True)
class OpenVinoInt8(OpenVino):
    """A graph of its own, which a package has after `compress`."""

    name: str = "openvino-int8"
    precision: str = INT8
    graph: str = OPENVINO_INT8[0]

    def files(self, record: ModelRecord) -> tuple[str, ...]:
        """The files of a package that it reads."""
        return package_contents.quantised_files(record, self.name, OPENVINO_INT8)


BACKEND = OpenVinoInt8()

"""ONNX files of a few operations, with their description."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

KINDS = {"float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE, "uint8": TensorProto.UINT8}
DESCRIBED = {
    "labels": {"bright": 1},
    "outputs": "regions",
    "channels": ["CT"],
    "patch": [4, 4, 4],
    "normalisation": [{"method": "window", "low": -1000, "high": 1000}],
}


def network(
    folder: Path,
    steps: Sequence[tuple[Any, ...]],
    weights: Mapping[str, Any] | None = None,
    takes: str = "float32",
    **changes: Any,
) -> Path:
    """A network of these steps (operation, inputs, output, attributes) from "x" to "o", in float32 inside.

    takes: the numbers of its input
    """
    made = [helper.make_node("Cast", ["given"], ["x"], to=TensorProto.FLOAT)]
    for operation, inputs, output, *given in steps:
        made.append(helper.make_node(operation, inputs.split(), [output], **(given[0] if given else {})))
    graph = helper.make_graph(
        made,
        "network",
        [helper.make_tensor_value_info("given", KINDS.get(takes, TensorProto.FLOAT), None)],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)],
        [_weights(name, values) for name, values in (weights or {}).items()],
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "network.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    path.with_suffix(".json").write_text(json.dumps({**DESCRIBED, **changes}))
    return path


def _weights(name: str, values: Any) -> onnx.TensorProto:
    array = np.asarray(values)
    return numpy_helper.from_array(array.astype(np.float32 if array.dtype.kind == "f" else np.int64), name)

"""A model that thresholds, so that every voxel of its answer is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper


def threshold_model(
    folder: Path, level: float, modality: str = "unknown", name: str = "threshold", axes: int = 3
) -> Path:
    """An ONNX file that calls what lies above a level "bright"; nothing of it needs torch."""
    scale = np.array([0, 1], np.float32).reshape(2, 1, *(1,) * axes)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "scale"], ["pred"])],
        "threshold",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, *"xyz"[:axes]])],
        [helper.make_tensor_value_info("pred", TensorProto.FLOAT, None)],
        [helper.make_tensor("scale", TensorProto.FLOAT, scale.shape, scale.ravel())],
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    shifted = {"method": "window", "low": -1e6, "high": 1e6, "mean": level, "deviation": 1}
    described = {
        "labels": {"background": 0, "bright": 1},
        "channels": ["image"],
        "patch": [64, 64, 16][:axes],
        "batch": 4,
        "overlap": 0,
        "normalisation": [shifted],
        "modality": modality,
    }
    path.with_suffix(".json").write_text(json.dumps(described))
    return path

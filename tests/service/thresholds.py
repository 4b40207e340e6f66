"""A model that thresholds, so that every voxel of its answer is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper


def class_model(folder: Path) -> Path:
    """An ONNX file of two classes of the whole image, "calm" with a logit of 0 and "odd" with one of 1."""
    ends = helper.make_tensor("logits", TensorProto.FLOAT, [1, 2], [0.0, 1.0])
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3, 4], keepdims=0),
        helper.make_node("Sub", ["mean", "mean"], ["none"]),
        helper.make_node("Add", ["none", "logits"], ["pred"]),
    ]
    given = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, "x", "y", "z"])]
    made = [helper.make_tensor_value_info("pred", TensorProto.FLOAT, ["batch", 2])]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "classes.onnx"
    graph = helper.make_graph(nodes, "classes", given, made, [ends])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    described = {"labels": ["calm", "odd"], "channels": ["image"], "patch": [16, 16, 8], "modality": "unknown"}
    path.with_suffix(".json").write_text(json.dumps({**described, "normalisation": [{"method": "zscore"}]}))
    return path


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

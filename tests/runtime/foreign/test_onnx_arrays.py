"""ONNX networks whose arrays lie in other ways than ours: axes, sides, channels, batches, outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import hilum
from hilum.errors import FormatError
from hilum.values import Geometry, Image

CLASSES = {"labels": {"background": 0, "bright": 1}, "channels": ["CT"], "patch": [8, 8, 8], "activation": "none"}
BRIGHT = {"kernel": np.reshape([0.0, 1], (2, 1, 1, 1, 1)), "bias": [0.0, -0.5]}
ONE = {"kernel": np.reshape([1.0], (1, 1, 1, 1, 1)), "bias": [-0.5]}
CONV = helper.make_node("Conv", ["image", "kernel", "bias"], ["logits"])


def network(
    folder: Path,
    nodes: Sequence[Any],
    weights: Mapping[str, Any],
    given: Sequence[Any] = ("n", 1, 8, 8, 8),
    outputs: Sequence[str] = ("logits",),
    **changes: Any,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [
            numpy_helper.from_array(np.asarray(one, np.float32 if np.asarray(one).dtype.kind == "f" else np.int64), key)
            for key, one in weights.items()
        ],
    )
    path = folder / "network.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    description = {**CLASSES, "normalisation": [{"method": "window", "low": 0, "high": 1}], **changes}
    path.with_suffix(".json").write_text(json.dumps(description))
    return path


def box() -> tuple[Image, tuple[slice, ...]]:
    """1 in a box whose sides along x, y and z all differ, in RAS+."""
    data, place = np.zeros((1, 11, 12, 9), np.float32), (slice(2, 5), slice(3, 9), slice(1, 6))
    data[0][place] = 1
    return Image(data, Geometry(data.shape[1:], np.eye(4)), modality="CT"), place


def marked(path: Path, image: Image) -> Any:
    return np.asarray(hilum.load(path).predict(image).data)


def edge(axis: int) -> dict[str, Any]:
    """A network that marks the last bright voxel along one of its axes of space."""
    kernel = np.zeros((2, 1, 3, 3, 3))
    kernel[1, 0, 1, 1, 1], index = 1, [1, 1, 1]
    index[axis] = 2
    kernel[(1, 0, *index)] = -1
    return {"kernel": kernel, "bias": [0.0, -0.5]}


@pytest.mark.parametrize(
    ("entries", "network_axis", "axis", "last"),
    [
        ({}, 0, 0, True),
        ({"axes": "zyx"}, 0, 2, True),
        ({"axes": "zyx"}, 2, 0, True),
        ({"axes": "zyx", "orientation": "LPS"}, 0, 2, True),
        ({"axes": "zyx", "orientation": "LPS"}, 1, 1, False),
        ({"axes": "xyz", "orientation": "LPS"}, 0, 0, False),
        ({"axes": "zyx", "patch": [8, 6, 4], "spacing": [1, 1, 1]}, 0, 2, True),
    ],
)
def test_axes_and_sides_of_a_network_are_those_of_its_description(tmp_path, entries, network_axis, axis, last):
    image, place = box()
    padded = helper.make_node("Conv", ["image", "kernel", "bias"], ["logits"], pads=[1] * 6)
    found = marked(network(tmp_path, [padded], edge(network_axis), ("n", 1, "a", "b", "c"), **entries), image)
    expected = np.zeros(found.shape)
    face = list(place)
    face[axis] = place[axis].stop - 1 if last else place[axis].start
    expected[tuple(face)] = 1
    assert np.array_equal(found, expected)


def test_a_patch_that_fits_both_ways_gets_a_warning_with_both_readings(tmp_path, caplog):
    hilum.load(network(tmp_path, [CONV], BRIGHT))
    assert '"axes": "xyz"' in caplog.text and '"axes": "zyx"' in caplog.text
    caplog.clear()
    for entries in ({"axes": "xyz"}, {"patch": [8, 8, 4]}, {"patch": [8, 8]}):
        hilum.load(network(tmp_path, [CONV], BRIGHT, ("n", 1, "a", "b", "c"), **entries))
    assert "axes" not in caplog.text


@pytest.mark.parametrize(
    "entries", [{"axes": "yzx"}, {"axes": "zyx", "patch": [8, 8]}, {"orientation": "LAS"}, {"axes": 3}]
)
def test_axes_that_cannot_be_are_refused(tmp_path, entries):
    with pytest.raises(FormatError, match=r"network\.json: .*Write one of"):
        hilum.load(network(tmp_path, [CONV], BRIGHT, **entries))


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_a_batch_that_the_export_fixed_is_filled_up(tmp_path, batch):
    image, place = box()
    found = marked(network(tmp_path, [CONV], BRIGHT, (batch, 1, 8, 8, 8), axes="xyz"), image)
    assert found[place].all() and found.sum() == found[place].size


def moved(*steps: Any) -> list[Any]:
    """The network between steps that change how arrays lie."""
    before = helper.make_node("Transpose", ["image"], ["first"], perm=[0, 4, 1, 2, 3])
    return [before, helper.make_node("Conv", ["first", "kernel", "bias"], ["seen"]), *steps]


LAST = helper.make_node("Transpose", ["seen"], ["logits"], perm=[0, 2, 3, 4, 1])
WITHOUT = helper.make_node("Squeeze", ["seen", "one"], ["logits"])
SIGMOID = helper.make_node("Sigmoid", ["logits"], ["p"])
SOFTMAX = helper.make_node("Softmax", ["logits"], ["p"], axis=-1)
LAST_GIVEN = ("n", 8, 8, 8, 1)
SHAPES = {
    "channels last": (moved(LAST), BRIGHT, LAST_GIVEN, ("logits",), "none"),
    "channels last, softmax": ([*moved(LAST), SOFTMAX], BRIGHT, LAST_GIVEN, ("p",), None),
    "channels last, one output": (moved(LAST), ONE, LAST_GIVEN, ("logits",), "none"),
    "one output": ([CONV], ONE, ("n", 1, 8, 8, 8), ("logits",), "none"),
    "one sigmoid": ([CONV, SIGMOID], ONE, ("n", 1, 8, 8, 8), ("p",), None),
    "no axis of channels": (moved(WITHOUT), {**ONE, "one": [1]}, LAST_GIVEN, ("logits",), "none"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_mask_is_the_same_however_the_network_lays_its_arrays(tmp_path, shape):
    nodes, weights, given, outputs, activation = SHAPES[shape]
    image, place = box()
    found = marked(network(tmp_path, nodes, weights, given, outputs, axes="xyz", activation=activation), image)
    assert found[place].all() and found.sum() == found[place].size


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("ends", ["none", "sigmoid"])
def test_one_output_for_two_classes_is_the_second(tmp_path, keepdims, ends):
    pooled = helper.make_node("ReduceMean", ["logits"], ["mean"], axes=[1, 2, 3, 4], keepdims=keepdims)
    last = helper.make_node("Sigmoid" if ends == "sigmoid" else "Identity", ["mean"], ["p"])
    path = network(
        tmp_path, [CONV, pooled, last], ONE, outputs=("p",), labels=["dark", "bright"], axes="xyz", activation=ends
    )
    image = Image(np.full((1, 8, 8, 8), 0.9, np.float32), Geometry((8, 8, 8), np.eye(4)), modality="CT")
    found = hilum.load(path).predict(image).probabilities
    assert found is not None and found["bright"] == pytest.approx(1 / (1 + np.exp(-0.4)), abs=1e-5)


def test_a_softmax_of_one_output_is_refused_because_it_is_always_1(tmp_path):
    ended = helper.make_node("Softmax", ["logits"], ["p"], axis=1)
    with pytest.raises(FormatError, match=r"outputs of \(2, 8, 8, 8\).*gives \(1, 8, 8, 8\).*a label for each channel"):
        marked(network(tmp_path, [CONV, ended], ONE, outputs=("p",), activation=None, axes="xyz"), box()[0])


def pooled(size: int, name: str) -> Any:
    return helper.make_node("AveragePool", ["logits"], [name], kernel_shape=[size] * 3, strides=[size] * 3)


def test_of_several_outputs_that_of_the_windows_shape_is_taken_with_a_note(tmp_path, caplog):
    image, place = box()
    nodes = [CONV, pooled(2, "half"), pooled(4, "quarter")]
    found = marked(network(tmp_path, nodes, BRIGHT, outputs=("quarter", "logits", "half"), axes="xyz"), image)
    assert found[place].all() and found.sum() == found[place].size
    assert "of its outputs (quarter, logits, half) logits is taken" in caplog.text


@pytest.mark.parametrize(("entries", "says"), [({}, "2 are what is described"), ({"output": "c"}, "none are")])
def test_outputs_of_which_no_single_one_is_meant_are_refused(tmp_path, entries, says):
    nodes = [CONV, helper.make_node("Neg", ["logits"], ["other"])]
    with pytest.raises(FormatError, match=says):
        hilum.load(network(tmp_path, nodes, BRIGHT, outputs=("other", "logits"), axes="xyz", **entries))


def test_the_output_that_the_description_names_is_taken(tmp_path):
    image, place = box()
    nodes = [CONV, helper.make_node("Neg", ["logits"], ["other"])]
    path = network(tmp_path, nodes, BRIGHT, outputs=("other", "logits"), axes="xyz", output="logits")
    assert marked(path, image)[place].all()

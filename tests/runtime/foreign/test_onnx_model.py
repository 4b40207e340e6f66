from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import hilum
from hilum.errors import FormatError, IntegrityError, UsageError
from hilum.values import Geometry, Image

GIVEN = {
    "labels": {"background": 0, "bright": 1, "brighter": 2},
    "channels": ["CT"],
    "patch": [4, 4, 4],
    "normalisation": [{"method": "window", "low": 0, "high": 100, "mean": 0, "deviation": 100}],
}


def written(folder: Path, maps: int = 3, vector: bool = False, last: str = "Identity", **changes: Any) -> Path:
    """A network whose output n is n times the image, less what makes a class win in its third of the window."""
    scale = np.arange(maps, dtype=np.float32).reshape(maps, 1, 1, 1, 1)
    bias = np.array([0, -1 / 3, -1, -3], dtype=np.float32)[:maps]
    nodes = [helper.make_node("Conv", ["image", "scale", "bias"], ["seen"])]
    nodes.append(
        helper.make_node("ReduceMean", ["seen"], ["logits"], axes=[2, 3, 4], keepdims=0)
        if vector
        else helper.make_node("Identity", ["seen"], ["logits"])
    )
    nodes.append(helper.make_node(last, ["logits"], ["activated"], **({"axis": 1} if last == "Softmax" else {})))
    nodes.append(helper.make_node("Identity", ["activated"], ["pred"]))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, "x", "y", "z"])],
        [helper.make_tensor_value_info("pred", TensorProto.FLOAT, None)],
        [
            helper.make_tensor("scale", TensorProto.FLOAT, scale.shape, scale.ravel()),
            helper.make_tensor("bias", TensorProto.FLOAT, bias.shape, bias),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = folder / "network.onnx"
    onnx.save(model, path)
    described = {key: value for key, value in {**GIVEN, **changes}.items() if value is not None}
    path.with_suffix(".json").write_text(json.dumps(described))
    return path


def image() -> Image:
    """0 to 100 HU along an axis that runs from left to right backwards."""
    data = np.broadcast_to(np.linspace(100, 0, 13, dtype=np.float32)[None, :, None, None], (1, 13, 6, 5))
    return Image(np.ascontiguousarray(data), Geometry((13, 6, 5), np.diag([-1.0, 1, 1, 1])), modality="CT")


def test_the_class_with_the_largest_output_wins_on_the_images_own_grid(tmp_path):
    found = hilum.load(written(tmp_path)).predict(image())
    # Class 1 is larger than 0 from a third of the window, class 2 than 1 from two thirds.
    expected = np.digitize(image().data[0, :, 0, 0], [100 / 3 + 1e-3, 200 / 3 + 1e-3])
    assert np.asarray(found.data)[:, 2, 2].tolist() == expected.tolist()
    assert [label.name for label in found.labels] == ["bright", "brighter"]


def test_regions_are_each_likelier_than_not_and_the_later_is_written_over(tmp_path):
    regions = {"labels": {"never": 3, "bright": 1, "brighter": 2}, "outputs": "regions"}
    found = np.asarray(hilum.load(written(tmp_path, **regions)).predict(image()).data)[:, 0, 0]
    # Outputs: 0 nowhere above 0; x - 1/3; 2x - 1.
    assert found.tolist() == np.digitize(image().data[0, :, 0, 0], [100 / 3 + 1e-3, 50 + 1e-3]).tolist()


def test_the_probabilities_of_regions_are_called_by_their_outputs(tmp_path):
    regions = {"labels": {"never": 3, "bright": 1, "brighter": 2}, "outputs": "regions"}
    hilum.write(image(), tmp_path / "x.nii.gz")
    done = hilum.predict(
        written(tmp_path, **regions), tmp_path / "x.nii.gz", out=tmp_path / "out", save_probabilities=True
    )
    named = (tmp_path / "out" / "x_probabilities.labels.csv").read_text().split()[1:]
    assert [line.split(",")[1] for line in named] == ["never", "bright", "brighter"]
    found = hilum.read(tmp_path / "out" / "x_probabilities.nii.gz").data[0] > 0.5
    assert found.sum(axis=(1, 2, 3)).tolist() == [0, 8 * 30, 6 * 30]
    assert ["bright overlaps regions" in problem.what for problem in done.problems] == [True]


def test_classes_of_the_whole_image_are_probabilities(tmp_path):
    model = hilum.load(written(tmp_path, 2, vector=True, labels=["dark", "bright"]))
    found = model.predict(image()).probabilities
    assert found is not None
    mean = 0.5 - 1 / 3
    assert found["bright"] == pytest.approx(1 / (1 + np.exp(-mean)), abs=1e-3)


@pytest.mark.parametrize(
    ("last", "changes"),
    [
        ("Softmax", {"labels": ["dark", "bright"], "maps": 2, "vector": True}),
        ("Sigmoid", {"labels": {"never": 3, "bright": 1, "brighter": 2}, "outputs": "regions"}),
        ("Softmax", {}),
    ],
)
def test_a_network_that_ends_in_its_own_softmax_or_sigmoid_says_what_it_says_without(tmp_path, last, changes):
    plain, ended = (
        hilum.load(_in(tmp_path / name, last=name, **changes)).predict(image()) for name in ("Identity", last)
    )
    if plain.probabilities is not None:
        assert ended.probabilities == pytest.approx(plain.probabilities, abs=1e-5)
    else:
        assert np.array_equal(np.asarray(ended.data), np.asarray(plain.data))


def test_regions_that_are_a_softmax_are_refused(tmp_path):
    with pytest.raises(UsageError, match="ends in a softmax"):
        hilum.load(written(tmp_path, last="Softmax", outputs="regions", labels={"a": 1, "b": 2, "c": 3}))


def _in(folder: Path, **given: Any) -> Path:
    folder.mkdir()
    return written(folder, **given)


def test_a_model_says_where_it_computes_and_refuses_what_is_no_device_of_it(tmp_path):
    path = written(tmp_path)
    assert [hilum.load(path, device).networks.computing.value for device in ("auto", "cpu")] == ["cpu with onnx"] * 2
    for device in ("mps", "abacus", "cuda:first"):
        with pytest.raises(UsageError, match=r"network\.onnx: .*Choose --device cpu, or cuda:0"):
            hilum.load(path, device)


def test_torch_is_not_imported_for_it(tmp_path):
    code = f"import hilum, sys; hilum.load({str(written(tmp_path))!r}, 'cpu'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"patch": None}, "lacks patch"),
        ({"patches": [4]}, "has the unknown entries patches"),
        ({"outputs": "logits"}, "Write classes or regions"),
        ({"normalisation": [{"method": "zscore", "of": 1}]}, "of"),
        ({"labels": {"a": "one"}}, "network.json: .*'a' is 'one', not one whole number"),
        ({"labels": {"a": 1.5, "b": 2}}, "'a' is 1.5, not one whole number"),
        ({"labels": {"a": True, "b": 2}}, "'a' is True, not one whole number"),
        ({"labels": {"a": 1, "b": 1}}, "the value 1 is both 'a' and 'b'"),
        ({"labels": {"a": -1, "b": 1}}, "'a' has the value -1"),
        ({"labels": {"a": 2**40, "b": 1}}, "a label map holds 0 to"),
        ({"labels": ["a", "b", "a"]}, "'a' is both the value 0 and 2"),
        ({"overlap": "half", "patch": 3}, "network.json"),
        ({"normalisation": [{"method": "minmax"}]}, r"network\.json.*minmax.*zscore, window, range"),
        ({"normalisation": [{"method": "window", "low": 5, "high": 5}]}, r"network\.json.*low and a higher high"),
        ({"normalisation": [{"method": "zscore"}] * 2}, r"network\.json.*2 normalisations.*1 channel"),
        ({"normalisation": "zscore"}, r"network\.json"),
    ],
)
def test_a_description_that_cannot_be_is_refused(tmp_path, changes, says):
    with pytest.raises((UsageError, FormatError), match=says):
        hilum.load(written(tmp_path, **changes))


@pytest.mark.parametrize(
    ("maps", "vector", "changes"),
    [
        (3, False, {"labels": {"bright": 1}}),
        (3, False, {"labels": {"a": 1, "b": 2, "c": 3}}),  # which would name what the network never says
        (3, False, {"outputs": "regions", "labels": {"a": 1, "b": 2}}),
        (3, False, {"labels": ["dark", "bright"]}),
        (2, True, {"labels": {"bright": 1}}),
    ],
)
def test_outputs_that_the_description_does_not_name_are_refused(tmp_path, maps, vector, changes):
    model = hilum.load(written(tmp_path, maps, vector, **changes))
    with pytest.raises(FormatError, match=r"network\.json: .*the network gives .* Correct labels and outputs"):
        model.predict(image())


def test_a_window_that_the_network_cannot_take_is_refused(tmp_path):
    path = written(tmp_path, channels=["T1", "T2"], normalisation=[{"method": "zscore"}] * 2)
    two = Image(np.zeros((2, 6, 6, 6), np.float32), Geometry((6, 6, 6), np.eye(4)), channels=("T1", "T2"))
    with pytest.raises(FormatError, match=r"network\.json: .*\(2, 4, 4, 4\).* Correct channels and patch"):
        hilum.load(path).predict(two)


def test_an_onnx_file_without_a_description_says_what_to_write(tmp_path):
    path = written(tmp_path)
    with pytest.raises(UsageError, match="no folds"):
        hilum.load(path, fold=0)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(FormatError, match="not JSON"):
        hilum.load(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(UsageError, match="labels, channels, patch, normalisation"):
        hilum.load(path)


def test_a_file_that_is_no_onnx_is_refused(tmp_path):
    path = written(tmp_path)
    path.write_bytes(b"text")
    with pytest.raises(IntegrityError, match=r"network\.onnx"):
        hilum.load(path)

"""What the outputs of an ONNX network are: by its graph where that shows it, else by windows of noise."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hilum
from hilum.errors import FormatError, OutputError, UsageError
from hilum.values import Geometry, Image
from small_onnx import network

# One output: above 0 where an image is above 140.
LOGIT = [("Conv", "x w", "c"), ("Add", "c b", "y")]
ONE = {"w": np.full((1, 1, 1, 1, 1), 0.1), "b": -14.0, "one": 1.0, "half": 0.5, "scale": 255.0, "low": 0.0, "high": 1.0}
ONE |= {"sixth": 1 / 6, "wide": 10.0, "narrow": -10.0, "first": [0], "second": [1], "end": [2], "axis": [1]}
# Two classes: the second where an image is above 140.
TWO = {**ONE, "w": np.reshape([0.0, 0.1], (2, 1, 1, 1, 1)), "b": np.reshape([0.0, -14.0], (2, 1, 1, 1))}
BOTH = {"labels": {"background": 0, "bright": 1}, "outputs": "classes"}
SIGMOID = [*LOGIT, ("Sigmoid", "y", "p")]
SOFTMAX = [*LOGIT, ("Softmax", "y", "p", {"axis": 1})]
ORDER = {"perm": [0, 1, 4, 3, 2]}


def image(low: float = 100, high: float = 200, between: float = 125) -> Image:
    """Most is low, 8 voxels are high, and as many between."""
    data = np.full((1, 4, 4, 4), low, np.float32)
    data[0, :2, :2, :2], data[0, 2:, 2:, 2:] = high, between
    return Image(data, Geometry((4, 4, 4), np.eye(4)), modality="CT")


def activation(path: Path, **how: Any) -> tuple[str, str, int]:
    """What was found, why, and how many voxels of `image` are bright."""
    model = hilum.load(path, "cpu", **how)
    found = model.record["activation"]
    return found["value"], found["because"], int(np.asarray(model.predict(image()).data).sum())


@pytest.mark.parametrize(
    "last",
    [
        [("Clip", "p low high", "o")],
        [("Transpose", "p", "q", ORDER), ("Transpose", "q", "o", ORDER)],
        [("Unsqueeze", "p axis", "q"), ("Squeeze", "q axis", "o")],
        [("Concat", "p p", "q", {"axis": 1}), ("Slice", "q first second axis", "o")],
        [("Cast", "p", "q", {"to": 10}), ("Cast", "q", "o", {"to": 1})],
        [("AveragePool", "p", "o", {"kernel_shape": [1, 1, 1]})],
        [("Mean", "p p", "o")],
    ],
)
def test_a_sigmoid_is_found_through_steps_that_keep_values(tmp_path, last):
    found, because, bright = activation(network(tmp_path, [*SIGMOID, *last], ONE))
    assert (found, bright) == ("sigmoid", 8)
    assert because.startswith("the graph shows a sigmoid, then")


@pytest.mark.parametrize(
    "last",
    [
        [("Neg", "y", "n"), ("Exp", "n", "e"), ("Add", "e one", "d"), ("Div", "one d", "o")],
        [("Neg", "y", "n"), ("Exp", "n", "e"), ("Add", "e one", "d"), ("Reciprocal", "d", "o")],
        [("Mul", "y half", "h"), ("Tanh", "h", "t"), ("Add", "t one", "u"), ("Mul", "u half", "o")],
        [("Sigmoid", "y", "p"), ("Mul", "p half", "h"), ("Add", "h h", "o")],
        [("Mul", "y sixth", "s"), ("Add", "s half", "t"), ("Clip", "t low high", "o")],
        [("Sigmoid", "y", "p"), ("Greater", "p half", "g"), ("Cast", "g", "o", {"to": 1})],
    ],
)
def test_a_sigmoid_in_other_words_is_measured(tmp_path, last):
    found, because, bright = activation(network(tmp_path, [*LOGIT, *last], ONE))
    assert (found, bright) == ("sigmoid", 8)
    assert because == "measured: outputs for noise lie within 0 and 1"


@pytest.mark.parametrize(
    ("last", "because"),
    [
        ([("Softmax", "y", "p", {"axis": 1}), ("Transpose", "p", "q", ORDER), ("Transpose", "q", "o", ORDER)],
         "then Transpose, Transpose; outputs for noise add up to 1"),
        ([("Transpose", "y", "t", {"perm": [0, 2, 3, 4, 1]}), ("Softmax", "t", "p", {"axis": -1}),
          ("Transpose", "p", "o", {"perm": [0, 4, 1, 2, 3]})], "then Transpose; outputs for noise add up to 1"),
        ([("Exp", "y", "e"), ("ReduceSum", "e axis", "s"), ("Div", "e s", "o")], "measured: .* add up to 1"),
        ([("Softmax", "y", "p", {"axis": 1}), ("Add", "p p", "d"), ("Mul", "d half", "o")], "measured: .* add up to 1"),
    ],
)  # fmt: skip
def test_a_softmax_is_found_as_the_probabilities_of_all_classes(tmp_path, last, because):
    model = hilum.load(network(tmp_path, [*LOGIT, *last], TWO, **BOTH), "cpu")
    assert model.record["activation"]["value"] == "softmax"
    assert re.search(because, model.record["activation"]["because"])
    stated: dict[str, Any] = {}
    model.predict(image(), receiver=lambda region, arrays: stated.update(arrays))
    bright = np.asarray(stated["mask"])[1]
    assert bright[0, 0, 0] == pytest.approx(1 / (1 + np.exp(-6)), abs=1e-4)
    assert (bright > 0.5).sum() == 8


def test_a_class_that_a_slice_leaves_of_a_softmax_is_a_probability_by_itself(tmp_path):
    path = network(tmp_path, [*SOFTMAX, ("Slice", "p second end axis", "o")], TWO)
    found, because, bright = activation(path)
    assert (found, bright) == ("sigmoid", 8)
    assert because == "the graph shows a softmax, then Slice; a part of it is left"


def test_a_hard_sigmoid_is_a_sigmoid(tmp_path):
    path = network(tmp_path, [*LOGIT, ("HardSigmoid", "y", "o")], ONE)
    assert activation(path) == ("sigmoid", "the graph shows a sigmoid", 8)


def test_the_logarithm_of_a_sigmoid_is_called_from_a_half_on(tmp_path):
    found, because, bright = activation(network(tmp_path, [*SIGMOID, ("Log", "p", "o")], ONE))
    assert (found, bright) == ("logarithm of a sigmoid", 8)
    assert because == "the graph shows a logarithm of a sigmoid"


def test_a_probability_of_0_whose_logarithm_is_infinite_is_an_answer(tmp_path):
    sure = {**TWO, "w": np.reshape([0.0, 10.0], (2, 1, 1, 1, 1)), "b": np.reshape([0.0, -1400.0], (2, 1, 1, 1))}
    for last in ([("Softmax", "y", "p", {"axis": 1}), ("Log", "p", "o")], [("LogSoftmax", "y", "o", {"axis": 1})]):
        assert activation(network(tmp_path, [*LOGIT, *last], sure, **BOTH))[::2] == ("logarithm of a softmax", 8)


def test_an_infinite_probability_is_no_answer(tmp_path):
    path = network(tmp_path, [("Reciprocal", "x", "o")], activation="sigmoid")  # of 0
    with pytest.raises(OutputError, match="not finite"):
        hilum.load(path, "cpu").predict(image(0, 200))


@pytest.mark.parametrize(
    "last",
    [
        [("Identity", "y", "o")],
        [("Transpose", "y", "q", ORDER), ("Transpose", "q", "o", ORDER)],
        [("Clip", "y narrow wide", "o")],
        [("Mul", "y half", "h"), ("Add", "h h", "o")],
        [("Sigmoid", "y", "p"), ("Mul", "y p", "o")],
    ],
)
def test_outputs_that_leave_0_to_1_are_logits(tmp_path, last):
    found, _, bright = activation(network(tmp_path, [*LOGIT, *last], ONE))
    assert (found, bright) == ("none", 8)


def test_probabilities_that_are_computed_on_are_refused_until_a_person_says_what_they_are(tmp_path):
    path = network(tmp_path, [*SIGMOID, ("Mul", "p scale", "o")], ONE)  # 0 to 255: a picture
    with pytest.raises(UsageError, match=r"network\.onnx: .*sigmoid, then Mul.*--activation none, softmax or sigmoid"):
        hilum.load(path, "cpu")
    assert activation(path, activation="none")[:2] == ("none", "asked for")


def test_what_a_person_says_goes_before_the_description_and_that_before_the_graph(tmp_path):
    path = network(tmp_path, [*SIGMOID, ("Identity", "p", "o")], ONE, activation="none")
    assert activation(path) == ("none", "asked for", 64)
    assert activation(path, activation="sigmoid") == ("sigmoid", "asked for", 8)
    with pytest.raises(UsageError, match="no activation is called 'tanh'"):
        hilum.load(path, "cpu", activation="tanh")
    with pytest.raises(UsageError, match="ends in a softmax"):
        hilum.load(path, "cpu", activation="softmax")


def test_a_model_that_is_no_onnx_file_has_no_activation_to_choose(tmp_path):
    with pytest.raises(UsageError, match="Leave --activation out"):
        hilum.load(tmp_path, activation="sigmoid")


@pytest.mark.parametrize("takes", ["float16", "float64"])
def test_images_become_the_numbers_that_a_network_takes(tmp_path, takes):
    assert activation(network(tmp_path, [*LOGIT, ("Sigmoid", "y", "o")], ONE, takes))[2] == 8


def test_whole_numbers_keep_the_unit_of_the_file_or_the_description_is_refused(tmp_path):
    steps, kept = [*LOGIT, ("Sigmoid", "y", "o")], {"method": "window", "low": 0, "high": 255}
    path = network(tmp_path, steps, ONE, "uint8", normalisation=[kept])
    assert np.asarray(hilum.load(path, "cpu").predict(image(-20, 300, 139.4)).data).sum() == 8
    for other in ({"method": "zscore"}, {**kept, "method": "range"}, {**kept, "low": -1000, "high": 1000}):
        path = network(tmp_path, steps, ONE, "uint8", normalisation=[other])
        with pytest.raises(FormatError, match=r"network\.json: .*whole numbers \(uint8\).*Keep the values"):
            hilum.load(path, "cpu")


def test_what_was_found_is_in_the_summary_of_a_prediction(tmp_path, cli):
    path = network(tmp_path, [*SIGMOID, ("Identity", "p", "o")], ONE)
    hilum.write(image(), tmp_path / "scan.nii.gz")
    for name, flags in {"found": [], "asked": ["--activation", "sigmoid"]}.items():
        done = cli("predict", path, tmp_path / "scan.nii.gz", "--out", tmp_path / name, *flags)
        assert done.code == 0, done.err
        record = json.loads((tmp_path / name / "summary.json").read_text())
        assert record["model"]["activation"]["value"] == "sigmoid"
        assert record["rows"][0]["bright_ml"] == pytest.approx(0.008)

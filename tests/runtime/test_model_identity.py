from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import hilum
from hilum.prediction import result_files
from hilum.service.configuration import ModelSection
from hilum.service.work.warm_models import WarmModels

BESIDE = "network.onnx.data"
DESCRIPTION = {
    "labels": {"background": 0, "bright": 1},
    "channels": ["CT"],
    "patch": [4, 5, 6],
    "normalisation": [{"method": "window", "low": 0, "high": 255}],
    "activation": "none",
}


def network(folder: Path, limit: float = 0.5, **changes: Any) -> Path:
    """A network that marks what is brighter than a limit, which lies in a file beside it."""
    folder.mkdir()
    weights = {
        "scale": np.array([0, 1], np.float32).reshape(2, 1, 1, 1, 1),
        "limit": np.array([0, -limit], np.float32),
    }
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "scale", "limit"], ["pred"])],
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, "x", "y", "z"])],
        [helper.make_tensor_value_info("pred", TensorProto.FLOAT, ["n", 2, "x", "y", "z"])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = folder / "network.onnx"
    onnx.save(model, path, save_as_external_data=True, location=BESIDE, size_threshold=0)
    path.with_suffix(".json").write_text(json.dumps({**DESCRIPTION, **changes}))
    return path


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return hilum.load(network(tmp_path_factory.mktemp("model") / "first"))


def test_weights_beside_an_onnx_file_are_weights_of_the_model(first, tmp_path):
    second = network(tmp_path / "second", limit=0.7)
    assert hilum.load(second).record["weights_sha256"] != first.record["weights_sha256"]
    (second.parent / BESIDE).write_bytes((network(tmp_path / "same").parent / BESIDE).read_bytes())
    assert hilum.load(second).sha256 == first.sha256


@pytest.mark.parametrize(
    "changes",
    [
        {"orientation": "LPS"},
        {"axes": "zyx"},
        {"activation": "softmax"},
        {"labels": {"background": 0, "dark": 1}},
        {"outputs": "regions", "labels": {"dark": 2, "bright": 1}},
        {"overlap": 0.25},
        {"modality": "CT"},
    ],
)
def test_what_a_description_says_of_a_network_makes_another_model_of_the_same_weights(first, tmp_path, changes):
    other = hilum.load(network(tmp_path / "other", **changes))
    assert other.record["weights_sha256"] == first.record["weights_sha256"]
    assert other.sha256 != first.sha256


def test_an_activation_that_is_asked_for_makes_another_model(first, tmp_path):
    asked = hilum.load(network(tmp_path / "other"), activation="sigmoid")
    assert asked.sha256 != first.sha256


def test_the_windows_that_fit_into_a_machine_make_no_other_model(first):
    smaller = replace(first, inference=replace(first.inference, batch=first.inference.batch + 1))
    assert smaller.sha256 == first.sha256


def test_a_first_stage_and_members_are_parts_of_a_models_identity(first, tmp_path):
    other = hilum.load(network(tmp_path / "other", limit=0.7))
    digests = {
        model.sha256
        for model in (
            first,
            replace(first, first=first),
            replace(first, first=other),
            replace(first, members=(first, other)),
            replace(first, members=(other, first)),
            replace(first, members=(first, other), shares=(0.9, 0.1)),
        )
    }
    assert len(digests) == 6


def test_codes_and_gate_make_another_model_and_a_name_does_not(first):
    coded = replace(first, record={**first.record, "codes": {"bright": {"codes": [], "source": ""}}})
    named = replace(first, record={**first.record, "name": "lesions"})
    assert coded.sha256 != first.sha256 == named.sha256


def test_results_state_the_identity_and_begin_the_version_with_it(first):
    stated = result_files.model_identity(first)
    assert stated["sha256"] == first.sha256
    assert first.sha256.startswith(stated["version"])


def test_a_node_knows_an_exchanged_model_by_its_hash(tmp_path):
    path = network(tmp_path / "model")
    before = WarmModels({"m": ModelSection(path=path)}, 8)["m"][1].hash
    path.with_suffix(".json").write_text(json.dumps({**DESCRIPTION, "orientation": "LPS"}))
    turned = WarmModels({"m": ModelSection(path=path)}, 8)["m"][1].hash
    (path.parent / BESIDE).write_bytes((network(tmp_path / "better", limit=0.7).parent / BESIDE).read_bytes())
    better = WarmModels({"m": ModelSection(path=path)}, 8)["m"][1].hash
    assert len({before, turned, better}) == 3

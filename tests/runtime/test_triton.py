"""The network of a model in the layout of a Triton model repository."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import hilum
from hilum.errors import UsageError
from hilum.runtime import model_files
from hilum.runtime.package import package_writing

protobuf = pytest.importorskip("google.protobuf.text_format")
client = pytest.importorskip("tritonclient")


def configuration(path: Path):
    """A `config.pbtxt` by the client's own schema, whose package asks for gRPC only to send it."""
    name = "model_config_pb2"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(client.__file__).parent / "grpc" / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return protobuf.Parse(path.read_text(encoding="utf-8"), sys.modules[name].ModelConfig())


@pytest.fixture(scope="module")
def repository(segmented, packaged, tmp_path_factory):
    """The run on volumes as a repository, with the ONNX file of its package: to export it again takes seconds."""

    def copied(model, path):
        shutil.copy(packaged.out / "models" / "model.onnx", path)
        return packaged.onnx

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package_writing, "write_network", copied)
        made = hilum.package(segmented.out, out=tmp_path_factory.mktemp("triton") / "shells", format="triton")
    assert made.onnx["exported"] and "tritonserver --model-repository" in repr(made)
    return made.out


def test_its_configuration_is_what_the_file_takes_and_gives(repository, segmented):
    assert {str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file()} == {
        "hilum.json",
        "shells/config.pbtxt",
        "shells/1/model.onnx",
    }
    stated, model = configuration(repository / "shells" / "config.pbtxt"), model_files.load(segmented.out, "cpu")
    assert (stated.name, stated.backend, stated.max_batch_size) == ("shells", "onnxruntime", model.inference.batch)
    session = onnxruntime.InferenceSession(str(repository / "shells" / "1" / "model.onnx"))
    inputs = {one.name: np.zeros((2, *one.dims), np.float32) for one in stated.input}
    assert inputs["image"].shape == (2, 1, *model.inference.patch)
    for made, answer in zip(stated.output, session.run([one.name for one in stated.output], inputs), strict=True):
        assert answer.shape == (2, *made.dims) and answer.dtype == np.float32


def test_it_says_that_it_is_the_network_alone_and_what_surrounds_it(repository, segmented):
    stated = configuration(repository / "shells" / "config.pbtxt")
    assert stated.parameters["hilum"].string_value.startswith("This is the network alone")
    around = json.loads((repository / "hilum.json").read_text())["models"]["shells"]
    own = model_files.load(segmented.out, "cpu")
    assert around["preprocessing"].keys() == own.preprocessing.settings.keys()
    assert (around["sha256"], around["weights_sha256"]) == (own.sha256, own.record["weights_sha256"])


@pytest.mark.whole
def test_its_network_has_the_heads_alone(segmented, tmp_path):
    assert hilum.package(segmented.out, out=tmp_path / "a", format="triton").onnx["exported"]
    stated = configuration(tmp_path / "a" / "a" / "config.pbtxt")
    assert [one.name for one in stated.output] == ["pred"]
    session = onnxruntime.InferenceSession(str(tmp_path / "a" / "a" / "1" / "model.onnx"))
    assert [one.name for one in session.get_outputs()] == ["pred"]


def test_what_it_cannot_be_is_refused(segmented, repository, tmp_path):
    with pytest.raises(UsageError, match="monai or triton"):
        hilum.package(segmented.out, out=tmp_path / "out", format="torchserve")
    with pytest.raises(UsageError, match="is for whole models"):
        hilum.package(segmented.out, out=tmp_path / "out", format="triton", backends=("onnx",))
    with pytest.raises(UsageError, match="not overwritten"):
        hilum.package(segmented.out, out=segmented.out, format="triton", overwrite=True)

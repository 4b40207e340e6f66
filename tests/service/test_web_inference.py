"""The Open Inference Protocol, as its own client speaks it."""

from __future__ import annotations

import json
import multiprocessing
import resource
import time
from dataclasses import asdict
from http.client import HTTPConnection

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from hilum.runtime import model_files
from hilum.service.node_folder import MODELS
from hilum.service.work import warm_models
from hilum.values import Geometry, Image
from matrices import rarely
from service.small_node import LEVEL
from service.thresholds import class_model, threshold_model
from service.web_served import served

triton = pytest.importorskip("tritonclient.http")
errors = pytest.importorskip("tritonclient.utils")

AFFINE = np.array([[0, -2.0, 0, 10], [1.0, 0, 0, -20], [0, 0, 2.5, 5], [0, 0, 0, 1]])
SHAPE = (1, 24, 20, 8)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A node with a model that marks what is bright, and one of two classes."""
    folder = tmp_path_factory.mktemp("inference")
    paths = [threshold_model(folder, LEVEL), class_model(folder)]
    with served(folder / "node", models=paths) as web:
        web.models = {path.name: model_files.load(path, "cpu") for path in paths}
        rows = [asdict(warm_models.facts_of_model(name, model)) for name, model in web.models.items()]
        (folder / "node" / MODELS).write_text(json.dumps({"rows": rows}))
        yield web


@pytest.fixture(scope="module")
def client(node):
    """The protocol's own client."""
    with triton.InferenceServerClient(node.url.removeprefix("http://")) as made:
        yield made


@pytest.fixture
def image():
    """(1, 24, 20, 8) with a bright ball; no two voxels are alike."""
    x, y, z = np.indices(SHAPE[1:])
    ball = 200 * ((x - 11) ** 2 + (y - 9) ** 2 + 6 * (z - 4) ** 2 < 40)
    return (ball + x / 24 + y / 480 + z / 3840)[None].astype(np.float32)


def tensor(name, array, binary=True):
    """An input."""
    made = triton.InferInput(name, list(array.shape), errors.np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def outputs(*names, binary=True):
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


def test_a_client_finds_the_node_and_what_a_model_takes_and_gives(client):
    assert client.is_server_live() and client.is_model_ready("threshold.onnx")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    stated = client.get_model_metadata("threshold.onnx")
    assert stated["inputs"] == [
        {"name": "image", "datatype": "FP32", "shape": [1, -1, -1, -1]},
        {"name": "affine", "datatype": "FP64", "shape": [4, 4]},
    ]
    kinds = {one["name"]: (one["datatype"], len(one["shape"])) for one in stated["outputs"]}
    assert kinds == {"labels": ("INT32", 3), "probabilities": ("FP32", 4), "findings": ("BYTES", 1)}


@pytest.mark.parametrize("binary", [True, rarely(False)])
def test_the_answer_is_that_of_the_whole_model_however_it_is_sent(node, client, image, binary):
    inputs = [tensor("affine", AFFINE, binary), tensor("image", image, binary)]
    names = ("labels", "probabilities", "findings")
    answer = client.infer("threshold.onnx", inputs, outputs=outputs(*names, binary=binary), request_id="7")
    own = node.models["threshold.onnx"].predict(Image(image, Geometry(SHAPE[1:], AFFINE), channels=("image",)))
    assert_array_equal(answer.as_numpy("labels"), np.asarray(own.data))
    assert_array_equal(answer.as_numpy("labels"), image[0] > LEVEL)
    assert_array_equal(answer.as_numpy("probabilities")[1] > 0.5, image[0] > LEVEL)
    assert json.loads(answer.get_output("probabilities")["parameters"]["names"]) == ["background", "bright"]
    record = json.loads(answer.as_numpy("findings")[0])
    assert (record["schema"], record["outcome"], answer.get_response()["id"]) == ("hilum.findings", "answered", "7")
    row = record["rows"][0]
    assert row["concept"] == "bright" and row["value"] == pytest.approx((image > LEVEL).sum() * 5 / 1000)


def test_all_outputs_come_where_none_is_named(client, image):
    answer = client.infer("classes.onnx", [tensor("image", image), tensor("affine", AFFINE)])
    assert [one["name"] for one in answer.get_response()["outputs"]] == ["probabilities", "findings"]
    assert json.loads(answer.get_output("probabilities")["parameters"]["names"]) == ["calm", "odd"]
    assert_allclose(answer.as_numpy("probabilities"), [1 / (1 + np.e), np.e / (1 + np.e)], rtol=1e-5)


def test_the_model_says_why_it_abstains(client, image):
    answer = client.infer("threshold.onnx", [tensor("image", np.ones_like(image)), tensor("affine", AFFINE)])
    record = json.loads(answer.as_numpy("findings")[0])
    assert answer.as_numpy("labels") is None and record["outcome"] == "abstained" and record["reason"]


def refusal(client, model, *inputs, **more):
    """What is said of a request that is refused."""
    with pytest.raises(errors.InferenceServerException) as caught:
        client.infer(model, list(inputs), **more)
    return caught.value.message()


def test_what_does_not_suit_the_model_is_refused_in_words_that_the_client_shows(client, image):
    placed = tensor("affine", AFFINE)
    assert "no such model" in refusal(client, "other", tensor("image", image), placed)
    assert "[1, -1, -1, -1]" in refusal(client, "threshold.onnx", tensor("image", image[:, :, :, 0]), placed)
    assert "FP64" in refusal(client, "threshold.onnx", tensor("image", image.astype(np.float64)), placed)
    assert "no affine" in refusal(client, "threshold.onnx", tensor("image", image))
    assert "not a grid" in refusal(client, "threshold.onnx", tensor("image", image), tensor("affine", 0 * AFFINE))
    asked = {"outputs": outputs("logits")}
    assert "no logits" in refusal(client, "threshold.onnx", tensor("image", image), placed, **asked)
    ages = {"parameters": {"age": 60}}
    assert "no age" in refusal(client, "threshold.onnx", tensor("image", image), placed, **ages)


def claimed(shape, **parameters):
    """The JSON of a request that claims voxels of this shape."""
    image = {"name": "image", "datatype": "FP32", "shape": shape, **parameters}
    affine = {"name": "affine", "datatype": "FP64", "shape": [4, 4], "data": AFFINE.ravel().tolist()}
    return json.dumps({"inputs": [image, affine]}).encode()


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (claimed([1, 1000, 1000, 2500], data=[0]), {}, 422),  # 10 GB
        (claimed([1, 10**9, 10**9, 10**9], data=[0]), {}, 422),
        (claimed([1, 10, 10, 10], parameters={"binary_data_size": 4000}), {}, 422),  # and no byte of them comes
        (claimed([1, 10, 10, 10], parameters={"binary_data_size": 40}), {}, 422),
        (claimed([1, 1, 1, 2], data=[[0, "one"]]), {}, 422),
        (b"[" * 100_000, {}, 422),
        (b"{}", {"Content-Encoding": "gzip"}, 415),
        (b"{}", {"Inference-Header-Content-Length": "3"}, 422),
        (b"{}" + bytes(1 << 24), {}, 413),
    ],
)
def test_a_claim_that_is_false_or_too_large_is_refused_before_memory_is_taken(node, body, headers, status):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = node.client.post("/v2/models/threshold.onnx/infer", content=body, headers=headers)
    assert answer.status_code == status and answer.json()["error"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    assert not any((node.settings.folder / "inference").rglob("voxels*"))


def test_ten_gigabytes_are_refused_before_one_byte_of_them_comes(node):
    head = claimed([1, 1000, 1000, 2500], parameters={"binary_data_size": 10**10})
    connection = HTTPConnection(node.url.removeprefix("http://"), timeout=10)
    connection.putrequest("POST", "/v2/models/threshold.onnx/infer")
    connection.putheader("Content-Length", str(len(head) + 10**10))
    connection.putheader("Inference-Header-Content-Length", str(len(head)))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413 and "10,000 MB" in json.loads(answer.read())["error"]
    connection.close()


@pytest.mark.whole
def test_a_process_that_dies_costs_one_answer(node, client, image):
    inputs = [tensor("image", image), tensor("affine", AFFINE)]
    client.infer("threshold.onnx", inputs)
    [process] = multiprocessing.active_children()
    process.kill()
    process.join()
    assert "has ended" in refusal(client, "threshold.onnx", *inputs)
    assert client.infer("threshold.onnx", inputs).as_numpy("labels").any()
    for _ in range(100):
        if not (left := list((node.settings.folder / "inference").rglob("*.raw"))):
            break
        time.sleep(0.05)
    assert not left

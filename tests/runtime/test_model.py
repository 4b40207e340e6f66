from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.torch import save_file

from hilum.errors import DatasetError, IntegrityError, OutputError, UsageError
from hilum.files import file_formats
from hilum.runtime import Model, Preprocessing, model_files, record_files, torch_networks
from hilum.runtime.inference import Inference
from hilum.runtime.torch_networks import Networks, TorchNetwork
from hilum.runtime.windows.averaging import AveragedNetwork
from hilum.tasks import task_catalogue
from hilum.transforms.intensity import Normalisation
from hilum.values import Array, Case, Geometry, Image
from strategies import geometries

torch.set_num_threads(1)

LABELS = [{"value": 5, "name": "head", "colour": [255, 0, 0]}, {"value": 9, "name": "tail"}]
OBLIQUE = Geometry((11, 9, 7), [[0, 1.5, 0, 7], [-0.9, 0, 0.4, 3], [0, 0, -3, 40], [0, 0, 0, 1]])


def segmentation(run: object = None, **changes: object) -> Model:
    task = task_catalogue.build_task({"name": "segmentation", "labels": LABELS, "loss": "dice+ce", "tolerance": 2.0})
    preprocessing = Preprocessing(3, ("T1",), (Normalisation("window", -1000, 1000),), **changes)  # type: ignore[arg-type]
    network = {
        "name": "unet", "channels": 1, "spatial_dims": 3, "size": {"strides": [[1, 1, 1], [2, 2, 2]], "width": 4},
    }  # fmt: skip
    if run is None:
        torch.manual_seed(3)
        run = TorchNetwork(torch_networks.build_module(task, network).eval())
    return Model(
        task, preprocessing, Inference((8, 8, 4), 0.5, 2), Networks(run, network), {"data_hash": "abc", "step": 7}
    )  # type: ignore[arg-type]


def classification() -> Model:
    task = task_catalogue.build_task({"name": "classification", "classes": ["benign", "malignant"], "smoothing": 0.0})
    preprocessing = Preprocessing(2, ("0",), (Normalisation("zscore"),), shape=(12, 12))
    network = {"name": "resnet", "channels": 1, "spatial_dims": 2, "size": {"blocks": [1, 1], "width": 4}}
    torch.manual_seed(3)
    run = TorchNetwork(torch_networks.build_module(task, network).eval())
    return Model(task, preprocessing, Inference((12, 12)), Networks(run, network))


def stored(model: Model, folder: Path) -> Path:
    folder.mkdir(parents=True)
    assert isinstance(model.networks.run, TorchNetwork)
    model_files.save_model(model, model.networks.run.module.state_dict(), folder)
    record_files.seal_folder(folder)
    return folder


def volume(geometry: Geometry = OBLIQUE, seed: int = 0) -> Image:
    pixels = np.random.default_rng(seed).normal(size=(1, *geometry.shape)).astype(np.float32)
    return Image(pixels, geometry, channels=("T1",))


def picture() -> Image:
    return Image(np.random.default_rng(0).integers(0, 255, (1, 20, 16)).astype(np.uint8), Geometry.of_pixels((20, 16)))


def thresholds(batch: Array) -> Mapping[str, Array]:
    """head above 0.5, tail below -0.5, else background."""
    return {"mask": np.concatenate([np.full_like(batch, 0.5), batch, -batch], axis=1)}


@given(geometries(), st.integers(0, 99), st.sampled_from(["none", "content"]))
def test_a_segmentation_lies_voxel_by_voxel_on_the_image_it_was_made_from(geometry, seed, crop):
    image = volume(geometry, seed)
    result = segmentation(thresholds, crop=crop).predict(image)
    assert result.geometry.equals(geometry, 1e-4)
    expected = np.select([image.data[0] > 0.5, image.data[0] < -0.5], [5, 9], 0)
    if crop == "content":  # the lowest value at the border is cut away, and is background then
        cut = (np.asarray(result.data) == 0) & (image.data[0] == image.data.min())
        expected[cut] = 0
    assert_array_equal(result.data, expected)
    assert [label.name for label in result.labels] == ["head", "tail"]


def test_a_segmentation_at_another_spacing_still_lies_where_the_structure_is():
    geometry = Geometry((30, 24, 14), np.diag([-0.9, 1.2, 2.5, 1]))
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1)
    distance = np.linalg.norm(geometry.to_world(index) - geometry.to_world([14.2, 12.7, 6.4]), axis=-1)
    image = Image((10 - distance)[None].astype(np.float32), geometry, channels=("T1",))
    result = np.asarray(segmentation(thresholds, spacing=(1.5, 1.5, 1.5)).predict(image).data)
    ball = distance < 9.5
    assert (
        2 * ((result == 5) & ball).sum() / ((result == 5).sum() + ball.sum()) > 0.97
    )  # linear on the way there and back rounds a peak off


@pytest.mark.parametrize(("make", "image"), [(segmentation, volume()), (classification, picture())])
def test_a_model_that_was_saved_predicts_the_same(tmp_path, make, image):
    model = make()
    again = model_files.load(stored(model, tmp_path / "model"), device="cpu")
    ours, theirs = model.predict(image), again.predict(image)
    assert again.settings["task"] == model.settings["task"]
    assert again.preprocessing == model.preprocessing
    assert again.inference == model.inference
    if ours.data is not None:
        assert len(np.unique(ours.data)) > 1
        assert_array_equal(theirs.data, ours.data)
    assert theirs.probabilities == ours.probabilities


def test_a_model_says_where_it_comes_from(tmp_path):
    record = model_files.load(stored(segmentation(), tmp_path / "model")).record
    assert record["data_hash"] == "abc"
    assert len(record["weights_sha256"]) == 64


def test_an_image_its_case_and_its_file_give_the_same_result(tmp_path):
    model, image = segmentation(thresholds), volume()
    file_formats.write(image, tmp_path / "image.nii.gz")
    expected = model.predict(image).data
    assert_array_equal(model.predict(Case("a", "a", {"T1": image})).data, expected)
    for path in (tmp_path / "image.nii.gz", str(tmp_path / "image.nii.gz")):
        prediction = model.predict(path)
        assert_array_equal(prediction.data, expected)
        assert prediction.geometry.equals(file_formats.read(path).geometry, 1e-4)


def test_probabilities_of_a_class_sum_to_one_and_follow_the_logits():
    model = classification().with_run(lambda batch: {"class": np.array([[0.0, np.log(3)]] * len(batch))})
    assert model.predict(picture()).probabilities == pytest.approx({"benign": 0.25, "malignant": 0.75})


def test_the_result_does_not_depend_on_how_many_windows_go_together():
    model = segmentation()
    one, many = (replace(model, inference=Inference((8, 8, 4), 0.5, n)).predict(volume()).data for n in (1, 5))
    assert (np.asarray(one) != np.asarray(many)).mean() < 0.005  # a tie may fall to either side


def test_the_best_checkpoint_of_a_run_is_taken_else_the_last(tmp_path):
    model = segmentation()
    stored(replace(model, record={"step": 1}), tmp_path / "checkpoints" / "last")
    assert model_files.load(tmp_path).record["step"] == 1
    stored(replace(model, record={"step": 2}), tmp_path / "checkpoints" / "best")
    assert model_files.load(str(tmp_path)).record["step"] == 2


def test_a_path_without_a_model_is_wrong_use(tmp_path):
    with pytest.raises(UsageError, match="there is no such model"):
        model_files.load(tmp_path / "nothing")
    with pytest.raises(UsageError, match="holds no model"):
        model_files.load(tmp_path)


def test_a_changed_weight_is_refused(tmp_path):
    folder = stored(segmentation(), tmp_path / "model")
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"weights\.safetensors: is not the file that was written"):
        model_files.load(folder)


def test_weights_that_are_not_under_the_seal_are_refused(tmp_path):
    folder = stored(segmentation(), tmp_path / "model")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]["weights.safetensors"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IntegrityError, match=r"does not list .*weights\.safetensors"):
        model_files.load(folder)


def test_a_pickle_in_place_of_weights_is_refused_even_under_a_seal(tmp_path):
    folder = stored(segmentation(), tmp_path / "model")
    torch.save({"a": torch.zeros(1)}, folder / "weights.safetensors")
    record_files.seal_folder(folder)
    with pytest.raises(IntegrityError, match="holds no safetensors"):
        model_files.load(folder)


def test_weights_of_another_network_are_refused(tmp_path):
    folder = stored(segmentation(), tmp_path / "model")
    save_file({"a": torch.zeros(1)}, folder / "weights.safetensors")
    record_files.seal_folder(folder)
    with pytest.raises(IntegrityError, match="weights and record do not fit"):
        model_files.load(folder)


@pytest.mark.parametrize("part", ["task", "preprocessing", "inference", "network", "record"])
def test_a_record_that_lacks_a_part_is_refused(tmp_path, part):
    folder = stored(segmentation(), tmp_path / "model")
    record = json.loads((folder / "model.json").read_text())
    del record[part]
    (folder / "model.json").write_text(json.dumps(record))
    record_files.seal_folder(folder)
    with pytest.raises(IntegrityError, match=part):
        model_files.load(folder)


def test_a_model_of_another_version_is_refused(tmp_path):
    folder = stored(segmentation(), tmp_path / "model")
    record = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**record, "version": 99}))
    record_files.seal_folder(folder)
    with pytest.raises(IntegrityError, match="another version"):
        model_files.load(folder)


def test_an_image_of_another_kind_is_refused_by_its_name(tmp_path):
    two = Case("patient-3", "p", {"T1": volume(), "T2": volume(seed=1)})
    with pytest.raises(DatasetError, match=r"patient-3: has 2 channels"):
        segmentation(thresholds).predict(two)
    with pytest.raises(DatasetError, match="patient-4"):
        segmentation(thresholds).predict(Case("patient-4", "p", {}))


def test_an_image_that_normalisation_makes_one_value_has_no_answer_though_the_model_has_no_gate():
    pixels = np.full((1, 20, 16), 7, np.uint8)
    blank = Image(pixels, Geometry.of_pixels((20, 16)))
    assert classification().predict(blank).abstained == "it is one value everywhere once it is normalised"
    assert classification().predict(picture()).abstained is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_finite_in_one_voxel_are_an_error_that_names_the_case(value):
    def run(batch: Array) -> Mapping[str, Array]:
        outputs = np.array(thresholds(batch)["mask"])
        outputs[0, 0, 0, 0, 0] = value
        return {"mask": outputs}

    case = Case("patient-7", "p", {"T1": volume()})
    with pytest.raises(OutputError, match=r"patient-7: the network's outputs are not finite numbers \(1 of the "):
        segmentation(run).predict(case)


def test_an_infinite_logit_of_one_member_is_not_lost_in_the_mean():
    def wrong(batch: Array) -> Mapping[str, Array]:
        return {"mask": np.full_like(thresholds(batch)["mask"], np.inf)}

    task = segmentation(thresholds).task
    with pytest.raises(OutputError, match="infinite"):
        segmentation(AveragedNetwork((thresholds, wrong), task.average)).predict(volume())


def test_single_precision_leaves_the_network_whatever_it_computes_in():
    run = TorchNetwork(torch.nn.ModuleDict({"a": torch.nn.Identity()}))
    object.__setattr__(run, "module", lambda images: {"a": images.to(torch.bfloat16)})
    [output] = run(np.ones((1, 1, 2, 2), np.float32)).values()
    assert output.dtype == np.float32
    assert_allclose(output, 1)

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import hilum
from hilum.errors import HilumError, IntegrityError, UsageError
from hilum.runtime import Model, Preprocessing, model_files, record_files, torch_networks
from hilum.runtime.inference import Inference
from hilum.runtime.torch_networks import Networks, TorchNetwork
from hilum.tasks import task_catalogue
from hilum.transforms.intensity import Normalisation
from hilum.values import Geometry, Image
from matrices import thinned

torch.set_num_threads(1)

TASK = {"name": "segmentation", "labels": [{"value": 5, "name": "head"}], "loss": "dice+ce", "tolerance": 2.0}
CLASSES = {"name": "classification", "classes": ["a", "b", "c"], "smoothing": 0.0}
SHAPE = (9, 8, 7)


def made(seed: int, settings: Mapping[str, Any] = TASK, **changes: Any) -> Model:
    task, dense = task_catalogue.build_task(settings), settings is not CLASSES
    preprocessing = Preprocessing(3, ("T1",), (Normalisation("window", -10, 10),), shape=None if dense else (8, 8, 4))
    size = {"strides": [[1, 1, 1], [2, 2, 2]], "width": 4} if dense else {"blocks": [1, 1], "width": 4}
    network = {"name": "unet" if dense else "resnet", "channels": 1, "spatial_dims": 3, "size": size}
    torch.manual_seed(seed)
    run = TorchNetwork(torch_networks.build_module(task, network).eval())
    model = Model(
        task, preprocessing, Inference((8, 8, 4), 0.5, 2), Networks(run, network), {"data_hash": "abc", "step": seed}
    )
    return replace(model, **changes)


def run_of(folder: Path, models: Mapping[str, Model]) -> Path:
    """A run's folder with these models as its folds."""
    for name, model in models.items():
        best = folder / name / "checkpoints" / "best"
        best.mkdir(parents=True)
        assert isinstance(model.networks.run, TorchNetwork)
        model_files.save_model(model, model.networks.run.module.state_dict(), best)
        record_files.seal_folder(best)
    return folder


def image(seed: int = 0) -> Image:
    pixels = np.random.default_rng(seed).normal(size=(1, *SHAPE)).astype(np.float32)
    return Image(pixels, Geometry(SHAPE, np.eye(4)), channels=("T1",))


def probabilities(model: Model) -> np.ndarray:
    found = np.zeros((2, *SHAPE))

    def collect(region: tuple[slice, ...], arrays: Mapping[str, np.ndarray]) -> None:
        found[(slice(None), *region)] = arrays["mask"]

    model.predict(image(), receiver=collect)
    return found


def test_a_run_of_folds_is_the_mean_of_the_probabilities_of_its_folds(tmp_path):
    """With one window over the image the mean of the windows is the mean of the images."""
    whole = {f"fold_{n}": replace(made(n), inference=Inference((12, 8, 8))) for n in range(3)}
    joint = probabilities(model_files.load(run_of(tmp_path, whole), "cpu"))
    each = [probabilities(model) for model in whole.values()]
    assert np.abs(each[0] - each[1]).max() > 1e-3
    assert_allclose(joint, np.mean(each, axis=0), atol=1e-6)


def test_each_fold_keeps_the_window_of_its_own_training_cases(tmp_path):
    whole = {}
    for n, window in enumerate([(-1.0, 0.5), (-0.5, 1.5)]):
        model = made(n, inference=Inference((12, 8, 8)))
        own = replace(
            model.preprocessing, normalisation=(Normalisation("window", *window, mean=0.1 * n, deviation=n + 1),)
        )
        whole[f"fold_{n}"] = replace(model, preprocessing=own)
    joint = model_files.load(run_of(tmp_path, whole), "cpu")
    assert_allclose(probabilities(joint), np.mean([probabilities(one) for one in whole.values()], axis=0), atol=1e-5)
    assert joint.preprocessing.normalisation == (Normalisation("window", -1.0, 1.5, 0.0, 1),)


def test_so_it_is_for_classes_of_the_whole_image(tmp_path):
    models = {f"fold_{n}": made(n, CLASSES) for n in range(2)}
    joint = model_files.load(run_of(tmp_path, models), "cpu").predict(image()).probabilities
    each = [model.predict(image()).probabilities for model in models.values()]
    assert joint == pytest.approx({name: (each[0][name] + each[1][name]) / 2 for name in "abc"}, abs=1e-6)


def test_equal_folds_are_as_one(tmp_path):
    one = made(4)
    joint = model_files.load(run_of(tmp_path, {"fold_0": one, "fold_1": made(4)}), "cpu")
    assert_allclose(probabilities(joint), probabilities(one), atol=1e-6)
    assert_array_equal(joint.predict(image()).data, one.predict(image()).data)


def test_one_fold_can_be_picked(tmp_path):
    run = run_of(tmp_path, {"fold_0": made(0), "fold_10": made(10), "fold_2": made(2)})
    assert [model_files.load(run, "cpu", fold=n).record["step"] for n in (0, 2, 10)] == [0, 2, 10]
    assert_array_equal(model_files.load(run / "fold_2", "cpu").predict(image()).data, made(2).predict(image()).data)
    with pytest.raises(UsageError, match=r"has no fold 1\. Choose one of 0, 2, 10"):
        model_files.load(run, fold=1)
    with pytest.raises(UsageError, match=r"has no fold 0\. Leave --fold out"):
        model_files.load(run / "fold_0", fold=0)


def test_a_model_of_folds_says_what_holds_for_all_and_names_each(tmp_path):
    record = model_files.load(run_of(tmp_path, {"fold_0": made(0), "fold_1": made(1)}), "cpu").record
    assert record["data_hash"] == "abc"
    assert "step" not in record
    assert [one["step"] for one in record["members"]] == [0, 1]
    digests = {record["weights_sha256"], *(one["weights_sha256"] for one in record["members"])}
    assert {len(digest) for digest in digests} == {64}
    assert len(digests) == 3


def test_folds_that_see_images_differently_are_not_averaged(tmp_path):
    other = replace(made(1), preprocessing=replace(made(1).preprocessing, crop="content"))
    with pytest.raises(UsageError, match="preprocess images differently"):
        model_files.load(run_of(tmp_path / "a", {"fold_0": made(0), "fold_1": other}), "cpu")
    other = replace(made(1), inference=Inference((8, 8, 8)))
    with pytest.raises(UsageError, match="different window settings"):
        model_files.load(run_of(tmp_path / "b", {"fold_0": made(0), "fold_1": other}), "cpu")
    other = made(1, {**TASK, "labels": [{"value": 6, "name": "head"}]})
    with pytest.raises(UsageError, match="differ in their labels"):
        model_files.load(run_of(tmp_path / "c", {"fold_0": made(0), "fold_1": other}), "cpu")


def test_folds_whose_tuning_was_cut_short_are_no_model_yet(tmp_path):
    other = made(1, {**TASK, "postprocessing": {"head": {"largest": True, "holes": False, "smallest": 0.0}}})
    with pytest.raises(UsageError, match=r"decode .* in different ways\. Finish it with .*--resume"):
        model_files.load(run_of(tmp_path, {"fold_0": made(0), "fold_1": other}), "cpu")


def test_a_fold_that_was_changed_is_refused_with_its_name(tmp_path):
    run = run_of(tmp_path, {"fold_0": made(0), "fold_1": made(1)})
    weights = run / "fold_1" / "checkpoints" / "best" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"fold_1.*weights\.safetensors: is not the file that was written"):
        model_files.load(run, "cpu")
    assert model_files.load(run, "cpu", fold=0).record["step"] == 0


def test_a_run_whose_folds_are_not_all_trained_is_no_model_yet(tmp_path):
    run = run_of(tmp_path, {"fold_0": made(0)})
    (run / "fold_1").mkdir()
    (run / "split.csv").write_text("case,patient,split,fold\na,p,test,0\na,p,train,1\na,p,train,2\n")
    with pytest.raises(UsageError, match=r"holds no model of fold 1, 2\. Finish the run with .*--resume"):
        model_files.load(run, "cpu")
    assert model_files.load(run, "cpu", fold=0).record["step"] == 0
    with pytest.raises(UsageError, match="fold_1: holds no model"):
        model_files.load(run, "cpu", fold=1)


def test_what_is_loaded_in_python_is_a_model_that_predicts_paths(tmp_path):
    run = run_of(tmp_path / "run", {"fold_0": made(0), "fold_1": made(1)})
    hilum.write(image(), tmp_path / "image.nii.gz")
    for path in (run, run / "fold_0", run / "fold_0" / "checkpoints" / "best"):
        model = hilum.load(path, device="cpu")
        assert_array_equal(model.predict(tmp_path / "image.nii.gz").data, model.predict(image()).data)


def test_a_fold_whose_weights_are_missing_is_named(tmp_path):
    run = run_of(tmp_path, {"fold_0": made(0), "fold_1": made(1)})
    (run / "fold_1" / "checkpoints" / "best" / "weights.safetensors").unlink()
    with pytest.raises(IntegrityError, match=r"fold_1.*weights\.safetensors: is missing\. Get the folder again"):
        model_files.load(run, "cpu")


def test_a_fold_of_another_version_is_named(tmp_path):
    run = run_of(tmp_path, {"fold_0": made(0)})
    best = run / "fold_0" / "checkpoints" / "best"
    record = json.loads((best / "model.json").read_text())
    (best / "model.json").write_text(json.dumps({**record, "version": 99}))
    record_files.seal_folder(best)
    with pytest.raises(IntegrityError, match=r"fold_0.*another version .*that wrote it"):
        model_files.load(run, "cpu")


@pytest.mark.parametrize("value", thinned(2, [None, "x", {}, -1, 1e30, [{}], True]))
@pytest.mark.parametrize(
    "entry",
    [
        "task",
        "task.loss",
        "network",
        "record",
        "preprocessing",
        "preprocessing.channels",
        "inference",
        "inference.flips",
    ],
)
def test_a_record_with_an_entry_of_another_type_is_refused_even_where_its_checksums_fit(tmp_path, entry, value):
    best = run_of(tmp_path, {"fold_0": made(0)}) / "fold_0" / "checkpoints" / "best"
    record = json.loads((best / "model.json").read_text())
    section, _, name = entry.partition(".")
    (record[section] if name else record)[name or section] = value
    (best / "model.json").write_text(json.dumps(record))
    record_files.seal_folder(best)
    if (entry, value) == ("record", {}):  # names with values, of which there may be none
        assert model_files.load(best, "cpu").task == made(0).task
        return
    with pytest.raises(HilumError):
        model_files.load(best, "cpu")


OTHER_TYPES = (
    ("limits", 3),
    ("limits", [{}]),
    ("fingerprint", "x"),
    ("fingerprint", {"shape": {"max": "x"}}),
    ("fingerprint", {"spacing": 1}),
)


@pytest.mark.parametrize(("entry", "value"), OTHER_TYPES)
def test_what_a_record_says_of_its_model_has_types_too(tmp_path, entry, value):
    best = run_of(tmp_path, {"fold_0": made(0)}) / "fold_0" / "checkpoints" / "best"
    record = json.loads((best / "model.json").read_text())
    (best / "model.json").write_text(json.dumps({**record, "record": {**record["record"], entry: value}}))
    record_files.seal_folder(best)
    with pytest.raises(IntegrityError, match="its record is not that of a model"):
        model_files.load(best, "cpu")

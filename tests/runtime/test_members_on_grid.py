"""Members with grids of their own: the mean of their outputs on the image's grid."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose

import real_data
from foreign_folders import result_folder
from hilum.belief import certainties
from hilum.errors import UsageError
from hilum.files import file_formats
from hilum.runtime import (
    Model,
    ModelRequest,
    Preprocessing,
    ensemble,
    model_assembly,
    model_files,
    record_files,
    torch_networks,
)
from hilum.runtime.inference import Inference
from hilum.runtime.preprocessing import image_statistics, preprocessing
from hilum.runtime.torch_networks import Networks, TorchNetwork
from hilum.tasks import Task, task_catalogue
from hilum.tasks.detection import answering
from hilum.training import member_weighting
from hilum.transforms.intensity import Normalisation
from hilum.values import BoundingBoxes, Case, Geometry, Image
from hilum.verbs import ensemble_members
from hilum.verbs.ensemble_members import EnsembleMember
from trained import OBLIQUE

torch.set_num_threads(1)
LABELS = [{"value": 1, "name": "shell"}, {"value": 2, "name": "core"}]
MASKS: Mapping[str, Any] = {"name": "segmentation", "labels": LABELS, "loss": "dice+ce", "tolerance": 2.0}
UNET = {"width": 4, "strides": [[1, 1, 1], [2, 2, 2]]}
SLICES = {"axis": 2, "neighbours": 0, "width": 4, "strides": [[1, 1], [2, 2]]}
ZSCORE, WINDOW = Normalisation("zscore"), Normalisation("window", -50.0, 300.0, 60.0, 50.0)
# Every kind of difference: spacing, window, normalisation, crop, family, slices.
WAYS: tuple[Mapping[str, Any], ...] = (
    {"patch": (16, 16, 16)},
    {"patch": (8, 8, 8), "spacing": (2.0, 2.0, 1.7), "crop": "content", "normalisation": WINDOW},
    {"patch": (16, 16, 4), "network": "unet_slices", "size": SLICES},
)


def member(
    seed: int,
    patch: tuple[int, ...],
    *,
    task: Task | None = None,
    normalisation: Normalisation = ZSCORE,
    network: str = "unet",
    size: Mapping[str, Any] = UNET,
    **prepared: Any,
) -> Model:
    """A network with random weights, and its own way to see an image."""
    task = task or task_catalogue.build_task(MASKS)
    settings = {"name": network, "channels": 1, "spatial_dims": len(patch), "size": dict(size)}
    torch.manual_seed(seed)
    run = TorchNetwork(torch_networks.build_module(task, settings).eval())
    steps = Preprocessing(len(patch), ("0",), (normalisation,), **prepared)
    return Model(task, steps, Inference(patch, batch=2), Networks(run, settings), {"weights_sha256": str(seed)})


def members() -> list[Model]:
    return [member(seed, **way) for seed, way in enumerate(WAYS)]


def picture(shape: tuple[int, int, int] = (20, 22, 19), affine: np.ndarray = OBLIQUE) -> Image:
    """A ball in air, so that one member crops, stored obliquely and from right to left."""
    away = np.sqrt(sum((grid - n / 2) ** 2 for grid, n in zip(np.indices(shape), shape, strict=True)))
    noise = np.random.default_rng(0).normal(100, 20, shape)
    pixels = np.where(away < min(shape) / 2 - 2, noise, 0).astype(np.float32)[None]
    return Image(pixels, Geometry(shape, affine), channels=("0",))


def chances(model: Model, image: Image, **request: Any) -> np.ndarray:
    """(classes, *spatial) probabilities; where nothing comes it is background."""
    found = np.zeros((3, *image.geometry.shape), dtype=np.float32)
    found[0] = 1

    def keep(region, arrays):
        found[(slice(None), *region)] = arrays["mask"]

    np.asarray(model.predict(image, ModelRequest(**request), receiver=keep).data)
    return found


def test_members_of_unlike_grids_windows_and_families_give_the_mean_of_their_probabilities():
    image, each = picture(), members()
    joined = ensemble.joined_model(each, each[0].task)
    expected = np.mean([chances(one, image) for one in each], axis=0)
    assert np.ptp(expected[1]) > 0.05
    assert_allclose(chances(joined, image), expected, atol=1e-5)
    shares = (0.5, 0.3, 0.2)
    weighted = sum(share * chances(one, image) for share, one in zip(shares, each, strict=True))
    assert_allclose(chances(ensemble.joined_model(each, each[0].task, shares), image), weighted, atol=1e-5)
    assert repr(joined).count("in 3D") == 2


def test_their_mean_of_a_part_of_the_image_is_that_of_all_of_it():
    image, each = picture(), members()
    joined, region = ensemble.joined_model(each, each[0].task), (slice(2, 9), slice(5, 14), slice(7, 12))
    inside = (slice(None), *region)
    part = chances(joined, image, region=region)
    assert_allclose(part[inside], chances(joined, image)[inside], atol=1e-5)
    part[inside] = np.array([1, 0, 0]).reshape(3, 1, 1, 1)
    assert (part[0] == 1).all()


def test_a_mean_in_columns_is_the_same(monkeypatch):
    image, each = picture(), members()
    joined = ensemble.joined_model(each, each[0].task)
    expected = chances(joined, image)
    monkeypatch.setattr(image_statistics, "HELD_BYTES", 1)
    assert_allclose(chances(joined, image), expected, atol=1e-5)


def test_how_members_differ_is_their_mutual_information():
    image, each = picture(), members()
    joined = model_assembly.with_uncertainty(ensemble.joined_model(each, each[0].task))
    assert joined.uncertainty.name == "members"
    confidence = joined.predict(image).confidence
    alone = np.stack([chances(one, image) for one in each])

    def entropy(p):
        return -(p * np.log(np.maximum(p, 1e-30))).sum(axis=-4).mean()

    assert confidence.total == pytest.approx(entropy(alone.mean(axis=0)), abs=1e-4)
    assert confidence.aleatoric == pytest.approx(np.mean([entropy(one) for one in alone]), abs=1e-4)


def test_of_a_large_volume_several_members_hold_hardly_more_than_one(monkeypatch):
    monkeypatch.setattr(preprocessing, "STREAMED_BYTES", 1)
    for module in ("preprocessing.restore", "windows.slide"):
        monkeypatch.setattr(f"hilum.runtime.{module}.YIELDED_BYTES", 2**16)
    each = [member(0, (24, 24, 8)), member(1, (24, 24, 8), spacing=(1.0, 1.0, 1.5))]
    shape = (24, 24, 192)
    pixels = np.random.default_rng(0).normal(100, 20, (1, *shape)).astype(np.float32)
    image = Image(pixels, Geometry(shape, np.eye(4)), channels=("0",))

    def peak(model: Model) -> int:
        tracemalloc.start()
        model.predict(image)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(each[0])  # what a first call keeps
    outputs_of_all_voxels = 3 * 4 * 24 * 24 * 192
    assert peak(ensemble.joined_model(each, each[0].task)) - max(map(peak, each)) < outputs_of_all_voxels / 2


def test_classes_of_whole_images_are_averaged_as_probabilities_and_values_as_values():
    image = Image(np.random.default_rng(0).normal(size=(1, 30, 34)).astype(np.float32), Geometry.of_pixels((30, 34)))
    image = Image(image.data, image.geometry, channels=("0",))
    size = {"width": 4, "blocks": [1, 1], "stem_stride": 1}
    task = task_catalogue.build_task({"name": "classification", "classes": ["a", "b"], "loss": "ce"})
    kinds = {"network": "resnet", "size": size, "task": task}
    each = [member(0, (24, 24), shape=(24, 24), **kinds), member(1, (32, 32), shape=(32, 32), **kinds)]
    found = ensemble.joined_model(each, task, (0.25, 0.75)).predict(image).probabilities
    first, second = (one.predict(image).probabilities for one in each)
    assert found["a"] == pytest.approx(0.25 * first["a"] + 0.75 * second["a"], abs=1e-6)


def boxes_of(corners, scores, names=None) -> BoundingBoxes:
    return BoundingBoxes(np.array(corners, dtype=float), tuple(names or ["disc"] * len(scores)), np.array(scores))


def test_boxes_of_two_members_are_fused_by_their_scores_as_the_paper_has_it():
    """Solovyev et al., arXiv:1910.13302, equations 1 to 4, by hand."""
    first = boxes_of([[0, 0, 10, 10], [30, 30, 40, 40]], [0.9, 0.6])
    second = boxes_of([[1, 0, 11, 10]], [0.3])
    fused = answering.fuse_boxes([first, second])
    assert_allclose(fused.corners, [[0.25, 0, 10.25, 10], [30, 30, 40, 40]])
    assert_allclose(fused.scores, [0.6, 0.3])  # (.9 + .3) / 2, and .6 / 2: one of two has found it
    weighted = answering.fuse_boxes([first, second], (0.75, 0.25))
    assert_allclose(weighted.corners[0, 0], 0.25 * 0.3 / (0.75 * 0.9 + 0.25 * 0.3))
    assert_allclose(weighted.scores, [0.75 * 0.9 + 0.25 * 0.3, 0.75 * 0.6])


def test_boxes_of_other_classes_and_those_that_hardly_overlap_stay_apart():
    first = boxes_of([[0, 0, 10, 10]], [0.9])
    other, away = boxes_of([[0, 0, 10, 10]], [0.8], ["square"]), boxes_of([[5, 0, 15, 10]], [0.8])
    assert answering.fuse_boxes([first, other]).names == ("disc", "square")
    assert len(answering.fuse_boxes([first, away])) == 2
    assert len(answering.fuse_boxes([BoundingBoxes.none(2, scored=True)] * 2)) == 0


def test_members_with_boxes_are_fused_on_the_image_s_grid():
    settings = {"name": "detection", "classes": ["disc"], "axes": 2, "typical": 6.0, "suppression": 0.3}
    tasks = [task_catalogue.build_task({**settings, "typical": size}) for size in (6.0, 3.0)]
    noise = np.random.default_rng(0).normal(100, 20, (1, 32, 36)).astype(np.float32)
    image = Image(noise, Geometry.of_pixels((32, 36)), channels=("0",))
    size = {"size": {"width": 4, "strides": [[1, 1], [2, 2]]}}
    ways = ({"patch": (32, 40)}, {"patch": (16, 20), "shape": (16, 20)})
    each = [member(n, task=task, **size, **way) for n, (task, way) in enumerate(zip(tasks, ways, strict=True))]
    found = ensemble.joined_model(each, tasks[0]).predict(image).boxes
    expected = answering.fuse_boxes([one.predict(image).boxes for one in each])
    assert len(found) > 0
    assert_allclose(found.corners, expected.corners)
    assert_allclose(found.scores, expected.scores)


def simulated_case(number: int) -> Case:
    """A picture with its label map."""
    shown = picture()
    mask = np.zeros((1, *shown.geometry.shape), np.uint8)
    mask[0, 6:12, 6:12, 6 + number : 12] = 1
    return Case(f"case{number}", f"patient{number}", {"0": shown}, {"mask": Image(mask, shown.geometry)})


def test_weights_are_fitted_to_what_each_member_says_on_the_image_s_grid():
    each, cases = members(), [simulated_case(number) for number in range(3)]
    outputs = member_weighting.outputs_on_image_grid(each, each[0].task, cases)
    assert outputs.patients == [case.patient for case in cases]
    for of_member, one in zip(outputs.of_members, each, strict=True):
        found = certainties.softmax(of_member["mask"][1], axis=0)
        assert_allclose(found, chances(one, picture()), atol=1e-5)
    # Who says what was contoured gets the weight.
    contoured = np.stack([np.asarray(one) for one in outputs.targets])
    right = 20.0 * (contoured[:, None] == np.arange(3).reshape(1, 3, 1, 1, 1)).astype(np.float32)
    first = {"mask": right}
    shares = member_weighting.fit_shares(
        replace(outputs, of_members=[first, *outputs.of_members[1:]]), np.arange(len(cases))
    )
    assert shares[0] > 0.95


def test_members_of_other_classes_covariates_or_units_of_boxes_are_refused_with_what_differs():
    first, names = members()[0], ("fine", "coarse")
    other = task_catalogue.build_task({**MASKS, "labels": [{"value": 1, "name": "shell"}]})
    with pytest.raises(UsageError, match="coarse answers another question than fine: segmentation of shell, not"):
        ensemble_members.refuse_unlike_models(names, first, member(1, (8, 8, 8), task=other))
    context = {"columns": [{"kind": "number", "name": "age", "mean": 60.0, "deviation": 9.0}]}
    networks = replace(first.networks, architecture={**first.networks.architecture, "context": context})
    with pytest.raises(UsageError, match=r"coarse differs from fine: network\.context is .*age.*, not None"):
        ensemble_members.refuse_unlike_models(names, first, replace(members()[1], networks=networks))
    boxes = {"name": "detection", "classes": ["disc"], "axes": 2, "suppression": 0.3}
    tasks = [task_catalogue.build_task({**boxes, "typical": 6.0 - n, "in_voxels": n > 0}) for n in range(2)]
    unet = {"size": {"width": 4, "strides": [[1, 1], [2, 2]]}}
    each = [member(0, (32, 32), task=task, **unet) for task in tasks]
    with pytest.raises(UsageError, match=r"coarse differs from fine: task\.in_voxels is True, not False\. "):
        ensemble_members.refuse_unlike_models(names, *each)


def test_members_that_left_out_no_patient_in_common_are_refused():
    empty = {"run": Path("run"), "plan": None, "checkpoints": (), "models": (), "data": None}

    def run(name: str, tests: str) -> EnsembleMember:
        rows = [{"case": c, "patient": c, "split": "test" if c == tests else "train", "fold": "0"} for c in ("a", "b")]
        return EnsembleMember(name=name, split=pd.DataFrame(rows), **empty)

    with pytest.raises(UsageError, match=r"1 test patient of fine trained coarse\. Train all on the same parts"):
        ensemble_members.parts_of_all([run("fine", "a"), run("coarse", "b")])


@pytest.mark.whole
@pytest.mark.parametrize("source", ["simulated", pytest.param("nnunet_hippocampus", marks=pytest.mark.corpus)])
def test_a_folder_of_nnunet_is_a_member_beside_a_model_of_ours_and_is_kept_with_it(source, data, tmp_path):
    folder = real_data.find(source)
    if source == "simulated":
        folder = result_folder(tmp_path / "nnunet", "3d_fullres", spacing=(1.0, 1.0, 1.0))
    described = json.loads((folder / "dataset.json").read_text())["labels"]
    labels = [{"value": value, "name": name} for name, value in described.items() if value]
    ours = member(3, (16, 16, 16), task=task_catalogue.build_task({**MASKS, "labels": labels}))
    (tmp_path / "ours").mkdir()
    model_files.save_model(ours, ours.networks.run.module.state_dict(), tmp_path / "ours")
    record_files.seal_folder(tmp_path / "ours")
    each = [model_files.load(path, "cpu") for path in (tmp_path / "ours", folder)]
    ensemble_members.refuse_unlike_models(("ours", "nnU-Net"), *each)
    joined = ensemble.joined_model(each, each[0].task)
    image = file_formats.read(sorted((data / "hippocampus" / "images").iterdir())[0])
    expected = np.mean([chances(one, image) for one in each], axis=0)
    assert_allclose(chances(joined, image), expected, atol=1e-4)
    ensemble.write_members([tmp_path / "ours", folder], joined, {}, tmp_path)
    assert_allclose(chances(model_files.load(tmp_path, "cpu"), image), expected, atol=1e-4)
    with pytest.raises(UsageError, match="no member is a run"):
        ensemble_members.load_members([folder], ["nnunet"], "cpu")

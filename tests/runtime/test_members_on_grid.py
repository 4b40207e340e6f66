"""Members with grids of their own: the mean of their outputs on the image's grid."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from isocenter.runtime import Model, ModelRequest, Preprocessing, ensemble, model_assembly, torch_networks
from isocenter.runtime.inference import Inference
from isocenter.runtime.preprocessing import image_statistics, preprocessing
from isocenter.runtime.torch_networks import Networks, TorchNetwork
from isocenter.tasks import Task, task_catalogue
from isocenter.transforms.intensity import Normalisation
from isocenter.values import Geometry, Image
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
        monkeypatch.setattr(f"isocenter.runtime.{module}.YIELDED_BYTES", 2**16)
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

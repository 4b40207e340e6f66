from __future__ import annotations

import math
from typing import Any

import monai.transforms as mt
import numpy as np
import psutil
import pytest
import torch
from monai.data import MetaTensor

import hilum
from foreign_bundles import AFTER, BEFORE, bundle, image
from hilum.errors import DatasetError, MemoryShortageError
from hilum.runtime import ModelRequest, predicted_memory
from hilum.runtime.foreign import monai_transforms
from hilum.runtime.preprocessing import restore
from hilum.values import Deferred, Geometry, Image
from matrices import thinned

ORIENT = {"_target_": "Orientationd", "keys": "image", "axcodes": "LAS"}
SPACE = {"_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 0.9, 2.0], "mode": "bilinear"}
CROP = {"_target_": "CropForegroundd", "keys": "image", "source_key": "image", "allow_smaller": True}
STEPS: dict[str, list[dict[str, Any]]] = {
    "nothing": [],
    "turned": [ORIENT],
    "resampled": [SPACE],
    "turned after": [SPACE, ORIENT],
    "cropped first": [ORIENT, CROP, SPACE],
    "cropped after": [ORIENT, SPACE, CROP, {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [40, 9, 40]}],
    "to one size": [SPACE, {"_target_": "ResizeWithPadOrCropd", "keys": "image", "spatial_size": [18, 16, 40]}],
    "to whole cells": [SPACE, {"_target_": "DivisiblePadd", "keys": "image", "k": 16}],
    "the middle": [SPACE, {"_target_": "CenterSpatialCropd", "keys": "image", "roi_size": [12, 14, 9]}, ORIENT],
    "twice": [SPACE, {**SPACE, "pixdim": [1.0, 1.0, 1.0]}],
}
RESIZED = {"_target_": "Resized", "keys": "image", "spatial_size": [16, 20, 18], "mode": "trilinear"}


def within(subject: Image) -> Image:
    """With a border of nothing, for what crops."""
    data = subject.data.copy()
    data[:, :3], data[:, :, -2:], data[..., :1] = 0, 0, 0
    return Image(np.maximum(data, 0), subject.geometry)


def of_steps(folder, steps: list[dict[str, Any]], after: list[dict[str, Any]] = AFTER) -> hilum.Model:
    listed = [*BEFORE[:2], *steps, BEFORE[4]] if steps else BEFORE[:2]
    path = bundle(folder, after, preprocessing={"_target_": "Compose", "transforms": listed})
    return hilum.load(path, "cpu")


@pytest.mark.parametrize("name", thinned(4, STEPS))
def test_what_goes_back_row_by_row_is_what_monai_brings_back_whole(name):
    made = [getattr(mt, one["_target_"])(**{key: one[key] for key in one if key != "_target_"}) for one in STEPS[name]]
    transform, subject = mt.Compose(made), within(image())
    source = MetaTensor(torch.tensor(subject.data), affine=torch.tensor(subject.geometry.affine))
    prepared = transform({"image": source})["image"]
    shape = prepared.shape[1:]
    trace, _ = monai_transforms.grid_changes(
        prepared.applied_operations, prepared.affine, shape, [(1, 2)] * 3, subject.geometry
    )
    padded = np.random.default_rng(2).random((2, *(n + 3 for n in shape)), dtype=np.float32)
    there = MetaTensor(torch.tensor(padded[:, 1:-2, 1:-2, 1:-2]), affine=prepared.affine)
    there.applied_operations = prepared.applied_operations
    expected = np.asarray(transform.inverse({"image": there})["image"]) if made else np.asarray(there)
    found = np.zeros((2, *subject.shape[1:]), dtype=np.float32)
    walk = trace.slice_order
    ordered = walk.apply(padded)
    rows = [(slice(n, n + 1), *(slice(0, size) for size in ordered.shape[2:])) for n in range(ordered.shape[1])]
    slabs = [
        (walk.region_back(one, ordered.shape[1]), {"mask": walk.undo(ordered[(slice(None), *one)])}) for one in rows
    ]
    for region, arrays in restore.restore_regions(slabs, trace):
        found[(slice(None), *region)] = np.asarray(arrays["mask"])
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("outputs", ["classes", "regions"])
@pytest.mark.parametrize("name", ["resampled", "cropped first", "cropped after", "the middle"])
def test_a_label_map_made_in_parts_is_that_of_the_whole_voxel_for_voxel(tmp_path, monkeypatch, name, outputs):
    sigmoid = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
    after = AFTER if outputs == "classes" else [sigmoid, {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}]
    model, subject = of_steps(tmp_path, STEPS[name], after), within(image())
    monkeypatch.setattr("hilum.runtime.preprocessing.image_statistics.HELD_BYTES", 2**17)  # several columns
    parts = np.asarray(model.predict(subject).data)
    monkeypatch.setattr(monai_transforms, "grid_changes", lambda *given, **named: None)
    whole = np.asarray(model.predict(subject).data)
    assert len(np.unique(whole)) > 1
    assert np.array_equal(parts, whole)


@pytest.mark.parametrize("name", thinned(3, [name for name in STEPS if name[:7] != "cropped"]))
def test_what_the_network_sees_of_a_large_volume_is_made_region_by_region_as_monai_makes_it_whole(
    tmp_path, monkeypatch, name
):
    model, subject = of_steps(tmp_path, STEPS[name]), image()
    whole, _ = model.preprocessing(subject, "case")
    labels = np.asarray(model.predict(subject).data)
    monkeypatch.setattr(monai_transforms, "STREAMED_BYTES", 0)
    monkeypatch.setattr(monai_transforms, "BLOCK_VOXELS", 2000)  # a few rows at a time
    assert model.preprocessing.held_parts(subject.geometry).streamed == 0
    parts, trace = model.preprocessing.open_image(subject, "case")
    assert parts.shape == whole.shape
    assert trace.padded_shape == whole.shape[1:]
    np.testing.assert_allclose(parts[(slice(None),) * 4], whole, atol=1e-6)
    region = (slice(0, 1), slice(3, 9), slice(2, 3), slice(1, 8))
    np.testing.assert_allclose(parts[region], whole[region], atol=1e-6)
    assert np.array_equal(np.asarray(model.predict(subject).data), labels)


@pytest.mark.parametrize("kind", ["NormalizeIntensityd", "ScaleIntensityd", "CropForegroundd"])
def test_a_step_that_looks_at_all_voxels_together_prepares_the_whole_volume(tmp_path, monkeypatch, kind):
    step = {"_target_": kind, "keys": "image", **({"source_key": "image"} if kind[0] == "C" else {})}
    model = of_steps(tmp_path, [ORIENT, step])
    held = model.preprocessing.held_parts(image().geometry)
    assert (held.streamed, held.restored) == (None, True)
    monkeypatch.setattr(monai_transforms, "STREAMED_BYTES", 0)
    assert isinstance(model.preprocessing.open_image(within(image()), "case")[0], np.ndarray)


def test_of_a_part_of_the_image_only_its_windows_are_run_and_its_labels_stay(tmp_path):
    model, subject, done = of_steps(tmp_path, STEPS["resampled"]), image((40, 40, 24)), []
    whole = np.asarray(model.predict(subject, progress=lambda n, of: done.append(of)).data)
    region = (slice(2, 9), slice(0, 8), slice(3, 9))
    part = np.asarray(model.predict(subject, ModelRequest(region=region), progress=lambda n, of: done.append(of)).data)
    assert done[-1] < done[0]
    assert np.array_equal(part[region], whole[region])


def test_of_transforms_that_go_back_in_parts_no_more_is_reckoned_than_is_held(tmp_path):
    subject = header((256, 256, 600))
    parts = predicted_memory.expected_memory(of_steps(tmp_path / "a", STEPS["resampled"]), subject)
    whole = predicted_memory.expected_memory(of_steps(tmp_path / "b", [RESIZED]), subject)
    assert parts.sums < 2**31 < 4 * 3 * math.prod(subject.shape) + 2**31
    assert whole.sums > 4 * 3 * math.prod(subject.shape)


def test_a_model_whose_outputs_have_to_go_back_whole_and_would_not_fit_is_refused_with_the_figure(
    tmp_path, monkeypatch
):
    model, subject = of_steps(tmp_path, [RESIZED]), header((128, 128, 128))
    needed = predicted_memory.expected_memory(model, subject)
    free(monkeypatch, needed.total / 0.9 - 2**20)
    figure = rf"case: predicting it would take {needed.total / 2**30:.2f} GiB .* and .* GiB may be used.*whole"
    with pytest.raises(MemoryShortageError, match=figure):
        predicted_memory.fit_batch_to_memory(model, subject, "case")
    hilum.write(image(), tmp_path / "case.nii.gz")
    free(monkeypatch, 2**20)
    with pytest.raises(DatasetError, match=r"would take .* GiB .* and 0.00 GiB may be used"):
        hilum.predict(model, tmp_path / "case.nii.gz", out=tmp_path / "out")


def test_where_the_largest_piece_is_kept_the_memory_to_find_it_is_reckoned(tmp_path):
    largest = {"_target_": "KeepLargestConnectedComponentd", "keys": "pred"}
    subject = header((512, 512, 300))
    without = predicted_memory.expected_memory(of_steps(tmp_path / "a", []), subject)
    having = predicted_memory.expected_memory(of_steps(tmp_path / "b", [], [*AFTER, largest]), subject)
    assert having.result == 10 * without.result


def header(shape: tuple[int, ...]) -> Image:
    """An image of which nothing but the header may be looked at."""

    def read() -> np.ndarray:
        raise AssertionError("the voxels were read")

    return Image(Deferred((1, *shape), np.dtype(np.float32), read), Geometry(shape, np.eye(4)), "CT", ("CT",))


def free(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    """As on a machine with so many bytes free."""
    found = psutil.virtual_memory()._replace(available=int(size))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: found)

"""Labels that a network before has marked, on their way into a batch."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from hilum.runtime import Preprocessing
from hilum.tasks import task_catalogue
from hilum.training.data import prepared_store, target_kinds
from hilum.training.data.batch_loading import Loader
from hilum.training.data.prepared_store import PreparedCase
from hilum.training.data.target_kinds import KINDS, SampledMovement
from hilum.training.step import batch_loss
from hilum.transforms import random_draws
from hilum.transforms.augment import Augmentation
from hilum.transforms.intensity import Normalisation
from hilum.values import Case, Dense, Geometry, Image, Label

NO_BAGS = SimpleNamespace(tiles=None)

ROUGH = Augmentation(rotation=40, scale=0.3, shift=0.2, elastic=0.02, flips=(0, 1), probability=1.0, noise=0.5)


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (4, 6, 5)).repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
    image = torch.from_numpy(rng.normal(size=(4, 1, 24, 20)).astype(np.float32))
    targets = torch.from_numpy(labels)
    return torch.cat([image, targets[:, None].float()], dim=1), targets


def movement(mirrored=(0, 1, 2)) -> SampledMovement:
    return SampledMovement([random_draws.sample_generator(0, 0, n) for n in range(4)], (1.0, 1.0), mirrored)


def test_what_was_marked_moves_as_the_target_does_and_no_noise_befalls_it():
    images, targets = batch()
    seen, followed = target_kinds.move_batch(KINDS[Dense], ROUGH, images, targets, movement(), marked=True)
    assert seen.shape == images.shape
    assert_array_equal(seen[:, 1].numpy(), followed.numpy())
    assert (followed != targets).any()
    assert not torch.equal(seen[:, 0], images[:, 0])


def test_the_image_is_changed_as_it_is_without_marks():
    images, targets = batch()
    seen, followed = target_kinds.move_batch(KINDS[Dense], ROUGH, images, targets, movement(), marked=True)
    single, single_targets = target_kinds.move_batch(KINDS[Dense], ROUGH, images[:, :1], targets, movement())
    assert torch.equal(seen[:, :1], single)
    assert torch.equal(followed, single_targets)


def test_marks_that_name_a_side_change_with_it():
    images, targets = batch()
    mirrors = Augmentation(rotation=0, scale=0, probability=0, flips=(0,), left_right=0)
    seen, followed = target_kinds.move_batch(KINDS[Dense], mirrors, images, targets, movement((0, 2, 1)), marked=True)
    turned = [n for n in range(4) if not torch.equal(seen[n, 0], images[n, 0])]
    assert turned
    assert_array_equal(seen[:, 1].numpy(), followed.numpy())
    for n in turned:
        assert_array_equal(followed[n].flip(0).numpy(), torch.tensor([0, 2, 1])[targets[n].long()].numpy())


def test_now_and_then_labels_are_marked_worse_than_they_are_taught():
    images, targets = batch()
    still = Augmentation(rotation=0, scale=0, probability=0, marks=1.0)
    seen, followed = target_kinds.move_batch(KINDS[Dense], still, images, targets, movement(), marked=True)
    assert torch.equal(followed, targets)
    assert (seen[:, 1] != targets).any()
    assert set(seen[:, 1].unique().tolist()) <= {0.0, 1.0, 2.0}


def test_a_batch_for_a_second_stage_keeps_the_numbers_of_labels_whatever_befalls_its_images():
    images, targets = batch()
    cases = [
        PreparedCase(str(n), image[:1].numpy(), label.numpy(), (), (1.0, 1.0), marked=label.numpy())
        for n, (image, label) in enumerate(zip(images, targets, strict=True))
    ]
    labels = [{"value": value, "name": name} for value, name in ((1, "left"), (2, "right"))]
    task = task_catalogue.build_task({"name": "segmentation", "labels": labels, "loss": "ce", "tolerance": 1.0})
    rough = replace(ROUGH, left_right=0)
    given = Loader(cases, (24, 20), 4, 0.0, seed=1).of_step(0)
    seen = batch_loss.augment_batch(given, SimpleNamespace(task=task, preprocessing=NO_BAGS, augmentation=rough), "cpu")
    assert_array_equal(seen.images[:, 1].numpy(), seen.targets.numpy())
    assert (seen.targets != torch.from_numpy(given.targets)).any()
    assert not np.array_equal(seen.images[:, 0].numpy(), given.images[:, 0])
    worse = batch_loss.augment_batch(
        given, SimpleNamespace(task=task, preprocessing=NO_BAGS, augmentation=Augmentation(marks=1.0)), "cpu"
    )
    assert (worse.images[:, 1] != worse.targets).any()


@pytest.mark.parametrize("axes", [2, 3])
def test_a_prepared_case_is_seen_with_what_was_marked_in_it(axes, tmp_path, monkeypatch):
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    labels = [{"value": 1, "name": "one"}]
    task = task_catalogue.build_task({"name": "segmentation", "labels": labels, "loss": "ce", "tolerance": 1.0})
    geometry = Geometry((8,) * axes, np.diag([*(2.0,) * axes, 1.0]))
    mask = np.zeros((8,) * axes, np.uint8)
    mask[(slice(2, 6),) * axes] = 1
    image = Image(np.random.default_rng(0).normal(size=(1, *mask.shape)).astype(np.float32), geometry)
    reference = Image(mask[None], geometry, labels=(Label(1, "one"),))
    case = Case("c", "c", {"0": image}, {"mask": reference})
    preparation = Preprocessing(axes, ("0",), (Normalisation("zscore"),), (1.0,) * axes, cascade=2.0)
    found: list[PreparedCase] = []
    for marks in (mask, 1 - mask):
        prepared_store.keep_label_numbers(marks, tmp_path / "marks.b2nd")
        marked = {"c": tmp_path / "marks.b2nd"}
        found += prepared_store.prepare_all([case], preparation, task, threads=1, memory=0, marked=marked)
    for one, expected in zip(found, (mask, 1 - mask), strict=True):  # other marks are another case in the cache
        seen, target = one.cut_region((slice(0, 16),) * axes)
        assert seen.shape == (2, *(16,) * axes)
        assert_array_equal(seen[1], target if expected is mask else 1 - target)
        assert target.any()

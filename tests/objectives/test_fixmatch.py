"""FixMatch against plain formulas, and in a training."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import hilum
import trained
from hilum.objectives.fixmatch import FixMatch
from hilum.objectives.objective_terms import ObjectiveStep, SeenBatch
from hilum.planning import plan_checks, plan_file
from hilum.training.data.batch_loading import Loader
from hilum.training.data.prepared_store import PreparedCase
from hilum.training.step import batch_loss
from hilum.values import Dense, Vector

LOG9, LOG4 = math.log(9), math.log(4)


def step(weak, strong, head, uncertainty="classes"):
    """A step in which the network gives these outputs for the two views."""
    task = SimpleNamespace(name="toy", parts={}, uncertainty=uncertainty, labels=range(head.count), heads={"a": head})
    views = SeenBatch(torch.zeros(1), None, ()), SeenBatch(torch.ones(1), None, ())
    usual = {"labelled": None, "outputs": {}, "teacher": None, "judge": None, "task": task}
    return ObjectiveStep(
        **usual, weak=views[0], strong=views[1], run=lambda seen: {"a": strong if seen.images.any() else weak}
    )


def test_only_images_of_which_the_network_is_sure_count_with_the_likeliest_class():
    weak = torch.tensor([[0.0, LOG9], [LOG4, 0.0]])  # 0.9 and 0.8
    strong = torch.zeros(2, 2, requires_grad=True)
    found = FixMatch(threshold=0.85).loss(step(weak, strong, Vector(2)))
    assert found.item() == pytest.approx(math.log(2) / 2)  # of two images one counts
    found.backward()
    assert strong.grad.tolist() == [[0.25, -0.25], [0.0, 0.0]]


def test_a_finding_counts_where_it_is_surely_there_and_where_it_is_surely_not():
    weak, strong = torch.tensor([[LOG9, -LOG9, LOG4]]), torch.tensor([[LOG4, LOG4, LOG4]])
    found = FixMatch(threshold=0.85).loss(step(weak, strong, Vector(3), "labels"))
    assert found.item() == pytest.approx((-math.log(0.8) - math.log(0.2)) / 3)


def test_of_label_maps_each_voxel_counts_by_itself():
    weak, strong = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    weak[:, 2, 0] = 9.0
    found = FixMatch().loss(step(weak, strong, Dense(3)))
    assert found.item() == pytest.approx(math.log(3) / 4)


def test_numbers_without_probabilities_are_refused():
    assert "toy state none" in FixMatch().refusal(step(None, None, Vector(1), "values").task)


def test_the_weak_view_is_moved_alone_and_the_strong_one_lies_on_it(classified):
    chosen = plan_checks.checked_settings(plan_file.read_plan(classified.out / "plan.yaml"))
    images = np.random.default_rng(0).normal(size=(8, 1, 8, 8)).astype(np.float32)
    batch = Loader(
        [PreparedCase(str(n), one, np.int64(0), (), (1.0, 1.0)) for n, one in enumerate(images)], (8, 8), 8, 0, 7
    )
    moving, _ = chosen.augmentation.parts
    still = SimpleNamespace(augmentation=moving, task=chosen.task, preprocessing=chosen.preprocessing)
    [moved] = batch_loss.augmented_views(batch.of_step(0), 1, still, "cpu")
    weak, strong = batch_loss.augmented_views(batch.of_step(0), 0, chosen, "cpu", strong=True)
    assert weak.images.equal(moved.images)
    assert all(not one.equal(other) for one, other in zip(weak.images, strong.images, strict=True))


def test_a_network_learns_by_it(tmp_path):
    data, extra = trained.pictures(tmp_path / "data", 20), trained.pictures(tmp_path / "extra", 6, first=80)
    given = {"objectives.terms": ["supervised", "fixmatch"], "fixmatch.threshold": 0.0}
    trained.classifying(data, tmp_path / "run", unlabelled=[extra], assignments=given)
    log = pd.read_csv(tmp_path / "run" / "log.csv")
    assert (log["loss_fixmatch"] > 0).all()
    np.testing.assert_allclose(log["loss"], log["loss_supervised"] + log["loss_fixmatch"], rtol=1e-5)
    assert hilum.load(tmp_path / "run", "cpu").record["objectives"]["fixmatch"]["threshold"] == 0.0

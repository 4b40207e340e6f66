"""Boxes of labelled images in unlabelled ones."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

import trained
from hilum.objectives.mean_teacher import MeanTeacher, PastedBatch
from hilum.objectives.objective_terms import ObjectiveStep, SeenBatch
from hilum.values import Dense, Vector

BLACK, WHITE = torch.zeros(8, 1, 9, 9), torch.ones(3, 1, 9, 9)


def step(head=None, judge=None):
    """A step with white labelled images and black unlabelled ones, whose network gives the image as the last logit."""
    head = head or Dense(2)
    task = SimpleNamespace(name="toy", parts={}, uncertainty="classes", labels=range(2), heads={"a": head})
    labelled = SeenBatch(WHITE, torch.ones(3, 9, 9, dtype=torch.int64), ())

    def run(seen):
        return {"a": torch.cat([torch.zeros_like(seen.images), seen.images], dim=1)}

    views = SeenBatch(BLACK, None, ()), SeenBatch(BLACK, None, ())
    return ObjectiveStep(labelled, run(labelled), run, run, judge, task, unlabelled=views)


def test_half_of_the_pasted_images_have_a_box_of_two_thirds_of_each_side_and_half_all_but_one():
    torch.manual_seed(0)
    pasted = PastedBatch.from_batch(step(), step().unlabelled[0], 1.0)
    assert set(pasted.known.flatten(1).sum(dim=1).tolist()) == {36, 81 - 36}
    assert pasted.seen.images[:, 0].bool().equal(pasted.known)
    assert pasted.partner.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


def test_a_share_of_the_images_is_pasted_and_without_any_nothing_is_judged():
    torch.manual_seed(0)
    known = PastedBatch.from_batch(step(), step().unlabelled[0], 0.5).known.flatten(1).any(dim=1)
    assert 0 < known.sum() < 8
    none = PastedBatch.from_batch(step(), step().unlabelled[0], 0.0)
    assert none.judge(step(), {"a": BLACK}).item() == 0


def test_voxels_of_labelled_images_are_judged_by_the_task_and_the_others_by_the_teacher():
    seen = []

    def judge(outputs, targets):
        seen.append((outputs["a"], targets))
        return cross_entropy(outputs["a"], targets)

    given = step(judge=judge)
    loss = MeanTeacher(paste=1.0).loss(given)
    # The teacher says of black voxels what the network says, and the task judges white ones alone.
    assert loss.item() == pytest.approx(cross_entropy(given.outputs["a"][:1], torch.ones(1, 9, 9).long()).item())
    [(outputs, targets)] = seen
    assert outputs[:, 1].eq(1).all()
    assert targets.shape == (8, 9, 9)


def test_answers_for_the_whole_image_take_no_pasted_boxes():
    assert "mean_teacher.paste" in MeanTeacher(paste=0.5).refusal(step(Vector(2)).task)
    assert not MeanTeacher(paste=0.5).refusal(step().task)
    assert not MeanTeacher().refusal(step(Vector(2)).task)


@pytest.mark.whole
def test_a_segmentation_learns_by_it(tmp_path):
    data, extra = trained.blobs(tmp_path / "data", 10), trained.blobs(tmp_path / "extra", 3, first=80)
    given = {"objectives.terms": ["supervised", "mean_teacher"], "mean_teacher.paste": 1.0}
    trained.segmenting(data, tmp_path / "run", unlabelled=[extra / "images"], assignments=given)
    assert (pd.read_csv(tmp_path / "run" / "log.csv")["loss_mean_teacher"] > 0.3).all()

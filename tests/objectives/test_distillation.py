"""Distillation: distances from a teacher's answers, and trainings by a teacher that sees more."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import hilum
import trained
from hilum.errors import IntegrityError, PlanError
from hilum.objectives.distillation import Distillation
from hilum.objectives.objective_terms import ObjectiveStep, SeenBatch
from hilum.planning import plan_file
from hilum.runs import teacher_models
from hilum.runs.teacher_models import Lesson
from hilum.scoring import data_record
from hilum.tasks import task_catalogue
from hilum.transforms.augment_following import NumberMap, Warp
from hilum.values import Case, Dense, Vector

BOTH = ["supervised", "distillation"]


def apart(answers, outputs, head, uncertainty="classes", labels=None, **values):
    """The loss of a step whose teacher answered so."""
    names = range(head.count if labels is None else labels)
    task = SimpleNamespace(name="toy", parts={}, uncertainty=uncertainty, labels=names, heads={"a": head})
    seen = SeenBatch(torch.zeros(len(answers), 1), None, (), taught=torch.tensor(answers))
    usual = {"labelled": seen, "outputs": {"a": torch.tensor(outputs)}, "run": None, "teacher": None, "judge": None}
    return Distillation("t", **values).loss(ObjectiveStep(**usual, task=task)).item()


def softened(likely, temperature):
    """Probabilities whose logits are divided."""
    powers = np.asarray(likely) ** (1 / temperature)
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_of_classes_it_is_the_divergence_of_softened_probabilities(temperature):
    answers, own = np.array([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6]]), np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
    taught, learnt = softened(answers, temperature), softened(own, temperature)
    expected = temperature**2 * (taught * np.log(taught / learnt)).sum(axis=1).mean()
    found = apart(answers, np.log(own), Vector(3), temperature=temperature)
    assert found == pytest.approx(expected, abs=1e-6)
    maps = [np.repeat(one[..., None], 4, axis=-1).reshape(2, 3, 2, 2) for one in (answers, np.log(own))]
    assert apart(*maps, Dense(3), temperature=temperature) == pytest.approx(expected, abs=1e-6)


def test_of_findings_and_grades_it_is_the_mean_of_the_divergences_of_each():
    expected = (0.5 * np.log(0.5 / 0.8) + 0.5 * np.log(0.5 / 0.2)) / 2
    for uncertainty, labels in (("labels", 2), ("classes", 3)):
        found = apart([[0.5, 0.3]], [[np.log(4), np.log(0.3 / 0.7)]], Vector(2), uncertainty, labels, temperature=1.0)
        assert found == pytest.approx(expected, abs=1e-6)


def test_of_values_it_is_the_absolute_difference_in_deviations():
    assert apart([[0.5], [-1.0]], [[1.5, 9.0], [-1.0, 9.0]], Vector(2), "values", 1) == pytest.approx(0.5)


def test_answers_for_voxels_move_as_the_image_and_change_sides():
    numbers = torch.rand(2, 3, 4, 4)
    made = NumberMap(numbers, (0, 2, 1))
    assert made.flip(np.array([[True, False], [False, False]])).targets[0].equal(numbers[0].flip(1))
    crossed = made.sides_changed(torch.tensor([True, False]), (0, 2, 1)).targets
    assert crossed[0].equal(numbers[0, [0, 2, 1]])
    assert crossed[1].equal(numbers[1])
    grid = torch.nn.functional.affine_grid(torch.eye(2, 3)[None], [1, 1, 4, 4], align_corners=False)
    still = Warp([1], grid, *[None] * 4)
    assert torch.allclose(made.warp(still).targets, numbers, atol=1e-6)
    whole = NumberMap(numbers[:, :, 0, 0], (0, 1, 2))
    assert whole.turn(np.array([1, 0])).targets.equal(numbers[:, :, 0, 0])


def by(teacher, **values):
    """Assignments of a training by a teacher."""
    return {"objectives.terms": BOTH, "distillation.teacher": str(teacher), **values}


@pytest.mark.whole
def test_a_classifier_learns_its_teachers_answers_for_labelled_and_unlabelled_images(classified, tmp_path):
    data, extra = trained.pictures(tmp_path / "data", 20), trained.pictures(tmp_path / "extra", 6, first=80)
    trained.classifying(data, tmp_path / "run", unlabelled=[extra], assignments=by(classified.out))
    plan = plan_file.read_plan(tmp_path / "run" / "plan.yaml")
    assert plan["distillation.digest"] == hilum.load(classified.out, "cpu").sha256
    assert pd.read_csv(tmp_path / "run" / "log.csv")["loss_distillation"].gt(0).all()
    assert data_record.read_data_record(tmp_path / "run").inherited  # of cases that the teacher has seen


def test_a_teacher_of_other_classes_or_of_another_kind_is_refused(classified, segmented, tmp_path):
    data = trained.pictures(tmp_path / "data", 20, classes=("benign", "malign"))
    with pytest.raises(PlanError, match=r"answers classification of bright, dark, .* of benign, malign"):
        trained.classifying(data, tmp_path / "run", assignments=by(classified.out))
    with pytest.raises(PlanError, match="answers segmentation"):
        trained.classifying(data, tmp_path / "run", assignments=by(segmented.out))
    with pytest.raises(PlanError, match="no teacher is given"):
        trained.classifying(data, tmp_path / "run", assignments={"objectives.terms": BOTH})
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_has_changed_is_refused(classified):
    given = by(classified.out, **{"distillation.digest": "another"})
    made = hilum.plan(classified.data, device="cpu", threads=1, assignments=given)
    with pytest.raises(IntegrityError, match="the teacher has changed"):
        teacher_models.with_teacher(made)


def test_a_value_is_learnt_in_the_deviations_of_the_network():
    scale = {"units": {}, "mean": {"age": 50.0}, "deviation": {"age": 10.0}}
    own = task_catalogue.build_task({"name": "regression", "targets": ["age"], **scale})
    lesson = Lesson(Distillation("t"), own, "cpu")
    said = SimpleNamespace(predict=lambda case, receiver: SimpleNamespace(values={"age": 65.0}))
    vars(lesson)["teacher"] = said
    assert lesson.answer(Case("a", "a", {}, {})).tolist() == [1.5]


@pytest.mark.whole
def test_a_teacher_may_see_channels_that_the_network_lacks(tmp_path):
    both = trained.two_channels(tmp_path / "both", 10)
    teacher = trained.segmenting(both, tmp_path / "teacher").out
    shutil.copytree(both, tmp_path / "one", ignore=shutil.ignore_patterns("*_0001.nii.gz"))
    described = json.loads((tmp_path / "one" / "dataset.json").read_text())
    (tmp_path / "one" / "dataset.json").write_text(json.dumps(described | {"channel_names": {"0": "T1"}}))
    given = by(teacher, **{"distillation.images": str(both)})
    trained.segmenting(tmp_path / "one", tmp_path / "run", assignments=given)
    assert hilum.load(tmp_path / "run", "cpu").preprocessing.inputs == 1
    assert pd.read_csv(tmp_path / "run" / "log.csv")["loss_distillation"].gt(0).all()

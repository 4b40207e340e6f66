from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from torch.nn.functional import cross_entropy

import hilum
import trained
from hilum.errors import DatasetError, PlanError
from hilum.objectives import objective_catalogue
from hilum.objectives.l2_sp import L2SP
from hilum.objectives.mean_teacher import MeanTeacher
from hilum.objectives.objective_terms import Needs, Objective, ObjectiveStep, SeenBatch, Supervised
from hilum.planning import plan_changes, plan_checks, plan_file, typed_sections
from hilum.values import Dense, Vector

BOTH = ["supervised", "mean_teacher"]


def task(uncertainty="classes", count=3, labels=3, head=Vector):
    """A kind of problem with one head."""
    return SimpleNamespace(
        name="toy", parts={}, uncertainty=uncertainty, labels=range(labels), heads={"class": head(count)}
    )


def step(**values):
    """A step of which an objective sees no more than these values."""
    usual = {"labelled": None, "outputs": {}, "run": None, "teacher": None, "judge": None, "task": task()}
    return ObjectiveStep(**{**usual, **values})


def views(student, teacher, **values):
    """A step with two views of unlabelled images, whose outputs are these."""
    seen = tuple(SeenBatch(torch.zeros(len(student), 1), None, ()) for _ in range(2))
    return step(unlabelled=seen, run=lambda _: {"class": student}, teacher=lambda _: {"class": teacher}, **values)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 10))
def test_a_weight_rises_over_its_ramp_and_never_above_itself(progress, ramp, weight):
    factor = Objective(weight, ramp).factor(progress)
    assert 0 <= factor <= weight
    assert factor == weight or progress < ramp


def test_a_weight_without_a_ramp_counts_from_the_first_step_on():
    assert Objective(2.0).factor(0.0) == 2.0
    assert Objective(1.0, 0.5).factor(0.0) == pytest.approx(math.exp(-5))


def test_the_needs_of_several_are_those_of_all():
    assert objective_catalogue.joint_needs([MeanTeacher(), L2SP()]) == Needs(labels=False) | MeanTeacher.needs | Needs(
        start=True, labels=False
    )
    assert not objective_catalogue.joint_needs([L2SP()]).labels


def test_the_loss_of_mixed_images_is_that_of_both_targets_by_their_shares():
    outputs, targets = {"class": torch.randn(2, 3)}, torch.tensor([0, 2])
    seen = SeenBatch(torch.zeros(2, 1), targets, (), torch.tensor([1, 0]), 0.75)
    found = Supervised().loss(step(labelled=seen, outputs=outputs, judge=lambda o, t: cross_entropy(o["class"], t)))
    expected = 0.75 * cross_entropy(outputs["class"], targets) + 0.25 * cross_entropy(outputs["class"], targets.flip(0))
    assert found.item() == pytest.approx(expected.item())


def test_a_student_that_agrees_with_its_teacher_has_nothing_to_learn():
    logits = torch.randn(4, 3)
    assert MeanTeacher().loss(views(logits, logits + 5)).item() == pytest.approx(0, abs=1e-12)  # the same probabilities


def test_probabilities_of_classes_sum_to_one_and_those_of_findings_and_grades_do_not():
    student, teacher = torch.tensor([[0.0, math.log(3)]]), torch.zeros(1, 2)
    assert MeanTeacher().loss(views(student, teacher, task=task(count=2, labels=2))).item() == pytest.approx(
        2 * 0.25**2
    )
    for independent in (task("labels", 2, 2), task("classes", 2, 3)):
        found = MeanTeacher().loss(views(student, teacher, task=independent))
        assert found.item() == pytest.approx(0.25**2)


def test_of_label_maps_the_difference_is_the_mean_over_voxels():
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    found = MeanTeacher().loss(views(student, teacher, task=task(head=Dense)))
    assert found.item() == pytest.approx((student.softmax(1) - teacher.softmax(1)).square().sum(1).mean().item())


def test_values_without_probabilities_have_no_mean_teacher():
    assert "toy state none" in MeanTeacher().refusal(task("values"))
    assert not MeanTeacher().refusal(task())


def test_weights_are_pulled_towards_their_start_and_new_ones_towards_zero():
    weights = {"old": torch.tensor([[3.0]]), "new": torch.tensor([[2.0]]), "bias": torch.tensor([9.0])}
    found = L2SP(alpha=0.2, beta=0.5).loss(step(weights=weights, start={"old": torch.tensor([[1.0]])}))
    assert found.item() == pytest.approx(0.2 / 2 * 2**2 + 0.5 / 2 * 2**2)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures of two classes, and a plan for them."""
    root = tmp_path_factory.mktemp("pictures")
    data = trained.pictures(root / "data", 20)
    hilum.plan(data, out=root / "plan.yaml", device="cpu", threads=1)
    return SimpleNamespace(data=data, plan=root / "plan.yaml", extra=trained.pictures(root / "extra", 4, first=80))


def test_a_plan_has_a_section_for_each_objective_that_it_names_and_for_no_other(pictures):
    made = plan_file.read_plan(pictures.plan)
    assert made["objectives.terms"] == ["supervised"]
    assert "supervised" in made.sections and "mean_teacher" not in made.sections
    both = plan_changes.with_settings(made, {"objectives.terms": BOTH, "mean_teacher.weight": 0.3})
    assert (both["mean_teacher.weight"], both["mean_teacher.ramp"]) == (0.3, 0.27)
    assert "mean_teacher" not in plan_changes.with_settings(both, {"objectives.terms": ["supervised"]}).sections


def test_an_unknown_objective_is_refused_with_the_line_of_the_plan(pictures, tmp_path):
    edited = tmp_path / "plan.yaml"
    edited.write_text(pictures.plan.read_text().replace("value: [supervised]", "value: [supervised, hope]"))
    with pytest.raises(PlanError, match=r"line \d+: objectives.terms: there is no objective 'hope'"):
        plan_file.read_plan(edited)
    with pytest.raises(PlanError, match="-1"):
        typed_sections.check_value("mean_teacher.weight", -1)


def test_an_objective_that_needs_unlabelled_images_and_images_that_no_objective_sees_are_refused(pictures):
    made = plan_file.read_plan(pictures.plan)
    with pytest.raises(PlanError, match="mean_teacher needs unlabelled images"):
        plan_checks.checked_settings(plan_changes.with_settings(made, {"objectives.terms": BOTH}))
    with pytest.raises(PlanError, match="no objective sees unlabelled images"):
        plan_checks.checked_settings(plan_changes.with_settings(made, {"objectives.unlabelled": [str(pictures.extra)]}))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"objectives.terms": ["contrast"]}, "contrast alone cannot teach classification"),
        ({"objectives.terms": BOTH, "mean_teacher.paste": 0.5}, "mean_teacher cannot teach classification: boxes are"),
        ({"objectives.terms": ["supervised", "masked"]}, "masked cannot teach classification: it restores voxels"),
        ({"objectives.terms": ["supervised", "co_training"], "co_training.views": [[0]]}, "channels of two networks"),
    ],
)
def test_an_objective_that_cannot_serve_the_head_is_refused(pictures, given, said):
    unlabelled = {"objectives.unlabelled": [str(pictures.extra)]}
    with pytest.raises(PlanError, match=said):
        plan_checks.checked_settings(
            plan_changes.with_settings(plan_file.read_plan(pictures.plan), {**unlabelled, **given})
        )


def refused(pictures, tmp_path, *unlabelled, **flags):
    """The error of a training that must not begin, which leaves no folder."""
    with pytest.raises((DatasetError, PlanError)) as raised:
        trained.classifying(pictures.data, tmp_path / "run", unlabelled=unlabelled, **flags)
    assert not (tmp_path / "run").exists()
    return str(raised.value)


def test_unlabelled_images_of_other_dimensions_or_channels_are_refused(pictures, tmp_path):
    assignments = {"objectives.terms": BOTH}
    volumes = trained.blobs(tmp_path / "volumes", 1)
    said = refused(pictures, tmp_path, volumes, assignments=assignments)
    assert "has 3 dimensions, and images that train have 2" in said
    pixels = np.random.default_rng(0).integers(0, 255, (24, 24, 2), dtype=np.uint8)
    (tmp_path / "two").mkdir()
    trained.PIL.Image.fromarray(pixels, "LA").save(tmp_path / "two" / "odd.png")
    colours = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    trained.PIL.Image.fromarray(colours).save(tmp_path / "two" / "colours.png")
    said = refused(pictures, tmp_path, tmp_path / "two", assignments=assignments)
    assert "channels, and images that train have 1" in said


def test_unlabelled_images_of_which_none_is_left_are_refused(pictures, tmp_path):
    train = trained.TWO_STEPS | {"objectives.terms": BOTH}
    held = hilum.plan(pictures.data, device="cpu", threads=1, assignments={"network.size": trained.SMALL_RESNET})
    tested = [case for case in held.examination.dataset if held.parts.get(case.id) != "train"]
    folder = tmp_path / "copies"
    folder.mkdir()
    for number, case in enumerate(tested):
        (folder / f"{number}.png").write_bytes(case.files[0].read_bytes())
    assert "no unlabelled image is left" in refused(pictures, tmp_path, folder, assignments=train)


def test_l2_sp_without_weights_to_start_from_is_refused(pictures, tmp_path):
    said = refused(pictures, tmp_path, assignments={"objectives.terms": ["supervised", "l2_sp"]})
    assert "Give --from MODEL or --pretrained" in said


@pytest.mark.whole
def test_l2_sp_keeps_the_weights_that_training_took_over(classified, tmp_path):
    given = {**trained.TWO_STEPS, "objectives.terms": ["supervised", "l2_sp"]}
    trained.classifying(classified.data, tmp_path / "run", start=classified.out, assignments=given)
    kept = load_file(tmp_path / "run" / "checkpoints" / "last" / "objectives.safetensors")
    first = load_file(classified.out / "checkpoints" / "best" / "weights.safetensors")
    names = [name.removeprefix("start.") for name in kept]
    assert len(names) > 3
    assert all(np.array_equal(kept[f"start.{name}"], first[name]) for name in names)
    made = plan_file.read_plan(tmp_path / "run" / "plan.yaml")
    assert made["training.weight_decay"] == 0.0
    assert made.decision("training.weight_decay").because.startswith("l2_sp pulls")

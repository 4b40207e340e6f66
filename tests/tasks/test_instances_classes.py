"""Objects of several classes: what is learnt of them, what is answered, and how that is scored."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hilum.errors import DatasetError, PlanError
from hilum.evaluation import instances
from hilum.networks import mask_rcnn
from hilum.tasks import fitting, task_catalogue
from hilum.tasks.fitting import PredictedCases
from hilum.tasks.instances import question
from hilum.tasks.instances.answering import HEAD
from hilum.tasks.instances.question import InstanceSegmentation
from hilum.values import Case, Geometry, Image, Label

CLASSES = ("round", "long", "odd")
SPACE = Geometry.of_pixels((24, 40))
CENTRES = ((6, 8), (17, 8), (6, 20), (17, 20), (6, 32), (17, 32))
REGION = tuple(slice(0, size) for size in SPACE.shape)
KINDS = (0, 1, 2, 0, 0, 1)


def task_of(**settings: object) -> InstanceSegmentation:
    named = {"name": "instances", "steps": [1, 1], "reach": 5, "inside": 0.5, "prominence": 0.2, "classes": [*CLASSES]}
    task = task_catalogue.build_task({**named, **settings})
    assert isinstance(task, InstanceSegmentation)
    return task


def discs(count: int = 6) -> np.ndarray:
    rows, columns = np.indices(SPACE.shape)
    numbers = np.zeros(SPACE.shape, np.int32)
    for number, (row, column) in enumerate(CENTRES[:count], start=1):
        numbers[np.hypot(rows - row, columns - column) < 5] = number
    return numbers


def case_of(numbers: np.ndarray, kinds: tuple[int, ...], name: str = "a") -> Case:
    labels = tuple(Label.of_object(number, CLASSES[kind]) for number, kind in enumerate(kinds, start=1))
    image = Image(np.zeros((1, *SPACE.shape), np.float32), SPACE)
    return Case(name, name, {"image": image}, {"instances": Image(numbers[None], SPACE, labels=labels)})


def outputs_of(numbers: np.ndarray, kinds: tuple[int, ...], sure: float = 4.0) -> np.ndarray:
    """(5, rows, columns) of a network that is right about every voxel, and so sure of its class."""
    own = np.append(-1, kinds)[numbers]
    heights = question.object_heights(torch.from_numpy(numbers)[None], (1.0, 1.0), 5.0)[0].numpy()
    classes = [np.where(own == kind, sure, 0.0) for kind in range(len(CLASSES))]
    return np.stack([np.where(numbers > 0, 6.0, -6.0), *classes, heights]).astype(np.float32)


def predicted(task: InstanceSegmentation, numbers: np.ndarray, kinds: tuple[int, ...], sure: float = 4.0):
    return task.decode([(REGION, {HEAD: outputs_of(numbers, kinds, sure)})], SPACE)


def test_a_number_states_the_class_of_its_object_and_one_class_changes_nothing():
    numbers = discs()
    coded = instances.code_classes(numbers, KINDS, 3)
    assert instances.coded_classes(coded, 3).tolist() == [*KINDS]
    assert ((coded > 0) == (numbers > 0)).all()
    assert len(np.unique(coded)) == len(np.unique(numbers))
    assert (instances.code_classes(numbers, (0,) * 6, 1) == numbers).all()


def test_an_object_has_the_class_that_is_most_probable_in_the_mean_over_its_voxels():
    outputs = outputs_of(discs(), KINDS)
    outputs[1:4, 2:7, 4:13] = np.array([0.0, 5.0, 0.0])[:, None, None]  # most of the first disc looks long
    made = task_of().decode([(REGION, {HEAD: outputs})], SPACE)
    assert made.objects.kinds[0] == 1
    own = np.asarray(made.data) == 1
    chances = torch.from_numpy(outputs[1:4]).softmax(dim=0).numpy()[:, own].mean(axis=1)
    assert made.objects.probabilities[0] == pytest.approx(chances, abs=2e-3)
    assert made.objects.probabilities.sum(axis=1) == pytest.approx(1)


def test_each_object_is_a_row_with_its_number_its_class_and_the_chance_of_each():
    made = predicted(task_of(), discs(), KINDS)
    rows = task_of().outputs(made)
    assert [row["object"] for row in rows] == [1, 2, 3, 4, 5, 6]
    numbers = np.asarray(made.data)
    assert [row["label"] for row in rows] == [CLASSES[KINDS[discs()[numbers == n].max() - 1]] for n in range(1, 7)]
    assert {f"probability_{name}" for name in CLASSES} <= rows[0].keys()
    assert all(0 < row["score"] <= max(row[f"probability_{name}"] for name in CLASSES) for row in rows)
    [blank] = task_of().outputs(predicted(task_of(), np.zeros_like(discs()), ()))
    assert blank["object"] is None


def test_findings_count_each_class():
    found = {one.concept: one.value for one in task_of().results(predicted(task_of(), discs(), KINDS))}
    assert (found["number of objects"], found["number of round"], found["number of long"], found["number of odd"]) == (
        6,
        3,
        2,
        1,
    )
    assert {"number of round", "number of long"} <= set(task_of().valued_findings)


def test_probabilities_of_a_voxel_add_up_to_that_of_being_inside():
    outputs = outputs_of(discs(), KINDS)
    chances = task_of().probabilities({HEAD: outputs})[HEAD]
    assert chances.shape == (3, *SPACE.shape)
    assert chances.sum(axis=0) == pytest.approx(1 / (1 + np.exp(-outputs[0])), abs=1e-5)


def test_the_loss_of_classes_is_that_of_inside_voxels_alone_and_lowest_where_they_are_right():
    truth = torch.from_numpy(instances.code_classes(discs(), KINDS, 3).astype(np.int32))[None]
    right = torch.from_numpy(outputs_of(discs(), KINDS, 12.0))[None]
    wrong = torch.from_numpy(outputs_of(discs(), KINDS[::-1], 12.0))[None]
    costs = [float(question.class_loss(one[:, 1:-1], truth, 3)) for one in (right, torch.zeros_like(right), wrong)]
    assert costs[0] < 0.01 < costs[1] < costs[2]
    outside = right.clone()
    outside[:, 1:-1][:, :, discs() == 0] = 9.0
    assert float(question.class_loss(outside[:, 1:-1], truth, 3)) == pytest.approx(costs[0], abs=1e-6)
    # Of three equal logits each class has a third: ln 3 and what Dice leaves.
    assert costs[1] > np.log(3)
    assert float(question.class_loss(right[:, 1:-1], torch.zeros_like(truth), 3)) == 0.0


def test_one_class_has_the_loss_that_it_always_had():
    numbers = torch.from_numpy(discs())[None]
    two = torch.from_numpy(outputs_of(discs(), KINDS)[[0, -1]])[None]
    assert torch.equal(
        question.instance_loss(two, numbers, (1.0, 1.0), 5.0), question.instance_loss(two, numbers, (1.0, 1.0), 5.0, 0)
    )
    plain = task_of(classes=[])
    assert plain.heads[HEAD].count == 2
    assert [label.name for label in plain.labels] == ["object"]


def test_figures_by_class_are_those_worked_out_by_hand():
    task, numbers = task_of(), discs()
    made = predicted(task, numbers, (0, 1, 2, 1, 0, 1))  # the fourth, which is round, is called long
    table = task.score([made, made], [case_of(numbers, KINDS, "a"), case_of(numbers, KINDS, "b")])
    assert set(table["label"]) == {"all", *CLASSES}
    rows = {(row.metric, row.label): row.estimate.value for row in task.summary(table, seed=0)}
    # Of three round ones two are found; of two long ones both, and a third is called so.
    assert rows["ap50", "round"] == pytest.approx(2 / 3)
    assert rows["ap50", "long"] == pytest.approx(2 / 3)
    assert rows["ap50", "odd"] == 1
    assert rows["ap50", "all"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert rows["f1", "round"] == pytest.approx(4 / 5)
    assert rows["pq", "long"] == pytest.approx(4 / 5, abs=0.02)
    assert rows["f1_any_class", "all"] == 1
    assert rows["class_accuracy", "all"] == pytest.approx(5 / 6)
    assert rows["count_difference", "round"] == -1
    assert rows["loa_lower", "round"] == rows["loa_upper", "round"] == -1
    confusion = task.further_tables(table)["confusion"].set_index(["reference", "predicted"])["objects"]
    assert (
        confusion["round", "round"],
        confusion["round", "long"],
        confusion["long", "long"],
        confusion["odd", "odd"],
    ) == (4, 2, 4, 2)
    assert confusion.sum() == 12
    assert len(task.overview(table)) == 3
    assert task.rank(table) == ["a", "b"]


def test_a_score_is_right_where_the_class_is_too():
    task, numbers = task_of(calibration=None), discs()
    made = predicted(task, numbers, (0, 1, 2, 1, 0, 1))
    table = task.score([made], [case_of(numbers, KINDS)]).set_index("label")
    assert json.loads(table.loc["long", "right"]).count(0) == 1
    assert len(json.loads(table.loc["round", "scores"])) == 2


def test_calibration_goes_by_class_where_there_are_cases_enough():
    task, numbers, random = task_of(calibration_method="platt"), discs(), np.random.default_rng(0)
    made, cases = [], []
    for number in range(40):
        kinds = tuple(random.integers(3, size=6).tolist())
        # What is called long is round as often as not; the other classes are always right.
        true = tuple(0 if kind == 1 and random.random() < 0.5 else kind for kind in kinds)
        made.append(predicted(task, numbers, kinds, random.uniform(2, 6)))
        cases.append(case_of(numbers, true, f"c{number}"))
    fitted, decisions = fitting.with_fitted_calibration(task, PredictedCases(made, cases))
    assert set(fitted.certainty.calibration.parameters) == set(CLASSES)
    again = predicted(fitted, numbers, (0, 1, 2, 1, 0, 1))
    scores = {label.kind: again.confidence.scores[label.name] for label in again.labels}
    assert scores["long"] == pytest.approx(0.5, abs=0.15)
    assert min(scores["round"], scores["odd"]) > 0.85
    assert "task.calibration" in decisions


def test_an_object_without_a_class_or_of_one_that_was_not_trained_is_refused():
    case = case_of(discs(), KINDS)
    reference = case.references["instances"]
    bare = replace(case, references={"instances": replace(reference, labels=reference.labels[1:])})
    with pytest.raises(DatasetError, match="the objects 1 have no class"):
        task_of().target(bare)
    with pytest.raises(DatasetError, match="'odd', which is none of round, long"):
        task_of(classes=["round", "long"]).target(case)
    with pytest.raises(PlanError, match="Name two or more"):
        task_of(classes=["round"])


def test_classes_that_name_a_side_are_not_mirrored():
    assert task_of().channels_when_mirrored == (0, 1, 2, 3, 4)
    assert task_of(classes=["left eye", "right eye"]).channels_when_mirrored is None


def test_mask_rcnn_is_taught_the_class_of_each_number_and_renders_it_into_the_voxels_of_its_object():
    coded = torch.from_numpy(instances.code_classes(discs(), KINDS, 3))
    assert mask_rcnn.torchvision_targets(coded, 1, 3)["labels"].tolist() == [kind + 1 for kind in KINDS]
    assert mask_rcnn.torchvision_targets(torch.from_numpy(discs()))["labels"].tolist() == [1] * 6
    chances = torch.log_softmax(torch.eye(3)[None], dim=2)
    owner = torch.tensor([[[0, 1, 1], [2, 3, 0]]])
    maps = mask_rcnn.class_maps(chances, owner)
    assert maps.shape == (1, 3, 2, 3)
    assert maps.argmax(dim=1)[0][owner[0] > 0].tolist() == [0, 0, 1, 2]
    assert (maps[0][:, owner[0] == 0] == 0).all()


def test_mask_rcnn_has_a_map_for_each_class_in_training_as_in_prediction():
    network = mask_rcnn.MaskRCNN(1, {HEAD: 5}, inside=8, hidden=16, outline=(8,), proposals=40, objects=10, samples=16)
    images, truth = torch.rand(1, 1, 64, 64), torch.zeros(1, 64, 64, dtype=torch.int32)
    truth[0, 8:30, 8:30], truth[0, 34:60, 30:60] = 2, 6
    losses = network(images, targets=truth)
    network.loss(losses, truth, {}).backward()
    assert network.roi_heads.box_predictor.cls_score.weight.grad.abs().sum(dim=1).shape == (4,)
    with torch.inference_mode():
        assert network.eval()(images)[HEAD].shape == (1, 5, 64, 64)


def simulated_with_false_calls(task: InstanceSegmentation, count: int):
    """Cases of which every long object of a low score is none."""
    random, made, cases, numbers = np.random.default_rng(1), [], [], discs()
    for number in range(count):
        kinds, sure = tuple(random.integers(3, size=6).tolist()), random.random(6) < 0.5
        outputs = outputs_of(numbers, kinds, 6.0)
        for place in range(6):
            outputs[0, numbers == place + 1] = 6.0 if sure[place] else 0.5
        true = [place + 1 for place in range(6) if sure[place] or kinds[place] != 1]
        kept = np.where(np.isin(numbers, true), numbers, 0)
        made.append(task.decode([(REGION, {HEAD: outputs})], SPACE))
        cases.append(case_of(kept, kinds, f"c{number}"))
    return PredictedCases(made, cases)


def test_each_class_is_called_from_its_own_score_where_there_are_objects_enough_of_it():
    plain = task_of(calibration_method="none")
    task, decisions = fitting.with_fitted_calibration(plain, simulated_with_false_calls(plain, 20))
    assert task.thresholds["long"] == pytest.approx((0.62 + 1) / 2, abs=0.05)
    assert max(task.thresholds["round"], task.thresholds["odd"]) < 0.62
    assert "the highest F1 of each class" in decisions["task.thresholds"].because
    outputs = outputs_of(discs(), KINDS, 6.0)
    outputs[0, discs() == 2] = 0.5
    made = task.decode([(REGION, {HEAD: outputs})], SPACE)
    assert [label.kind for label in made.labels].count("long") == 1
    assert np.asarray(made.data).max() == len(made.labels) == 5
    few, _ = fitting.with_fitted_calibration(plain, simulated_with_false_calls(plain, 2))
    assert min(few.thresholds.values()) == 0


def test_sets_hold_the_class_of_an_object_as_often_as_they_promise():
    task, numbers, random = task_of(), discs(), np.random.default_rng(2)

    def cases_of(made_by: InstanceSegmentation, count: int):
        """Of each object the network knows the class, or is torn between it and the next."""
        made, cases = [], []
        for number in range(count):
            true = tuple(random.integers(3, size=6).tolist())
            stated = tuple((kind + (random.random() < 0.4)) % 3 for kind in true)
            outputs = outputs_of(numbers, stated, 1.0)
            for kind in range(3):
                outputs[1 + kind][np.isin(numbers, [n + 1 for n in range(6) if true[n] == kind])] += 0.8
            made.append(made_by.decode([(REGION, {HEAD: outputs})], SPACE))
            cases.append(case_of(numbers, true, f"c{number}"))
        return PredictedCases(made, cases)

    fitted, decisions = fitting.fit_task(task, cases_of(task, 20), conformal=cases_of(task, 40))
    assert "task.conformal" in decisions
    held, sizes = [], []
    unseen = cases_of(fitted, 30)
    for prediction, case in zip(unseen.predictions, unseen.cases, strict=True):
        truth = {label.value: label.kind for label in case.references["instances"].labels}
        for row in fitted.outputs(prediction):
            own = np.bincount(numbers[np.asarray(prediction.data) == row["object"]]).argmax()
            held.append(truth[own] in json.loads(row["set"]))
            sizes.append(len(json.loads(row["set"])))
    assert np.mean(held) > 0.86
    rows = {
        row.metric: row.estimate.value for row in fitted.summary(fitted.score(unseen.predictions, unseen.cases), seed=0)
    }
    assert rows["coverage"] == pytest.approx(np.mean(held), abs=1e-6)
    assert rows["set_size"] == pytest.approx(np.mean(sizes), abs=1e-6)
    assert 1 <= np.mean(sizes) < 3


def test_where_no_object_is_matched_sets_exclude_nothing_and_every_score_is_called():
    task, empty = task_of(), np.zeros_like(discs())
    nothing = PredictedCases([predicted(task, empty, ())] * 2, [case_of(discs(), KINDS, name) for name in "ab"])
    fitted, _ = fitting.fit_task(task, nothing)
    assert set(fitted.thresholds.values()) == {0.0}
    made = predicted(fitted, discs(), KINDS)
    assert json.loads(task.outputs(made)[0]["set"]) == [*CLASSES]

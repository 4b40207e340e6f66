"""Scores of boxes: how often boxes of a score and a size are right."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from hilum.belief import Certainty, box_belief
from hilum.errors import PlanError
from hilum.evaluation.calibration_fit import Calibrator
from hilum.tasks import fitting, properties, task_catalogue, task_settings
from hilum.tasks.detection.question import Detection
from hilum.tasks.fitting import PredictedCases
from hilum.values import BoundingBoxes, Case, CaseFacts, Dataset, Fingerprint, Geometry, Image, Prediction

SPACE = Geometry.of_pixels((64, 64))
CORNERS = np.array([(row, column) for row in (0, 32) for column in (0, 16, 32, 48)], float)
PLACES, COUNT = np.arange(8), 80


def stated_boxes(task, predictions) -> list[BoundingBoxes]:
    """The boxes with scores as this task calibrates them, of predictions that were made before it, too."""
    each = [
        (box_belief.boxes_of_prediction(one), box_belief.voxel_lengths(one.geometry, task.in_voxels))
        for one in predictions
    ]
    return [box_belief.calibrated_boxes(boxes, task.certainty.calibrator, sides) for boxes, sides in each]


def task_of(**settings) -> Detection:
    return task_catalogue.build_task(
        {"name": "detection", "classes": ["cell"], "axes": 2, "typical": 8.0, "suppression": 0.5, **settings}
    )


def simulated(slope: float, seed: int, *, sure: float = 1.0, count: int = COUNT) -> tuple[list[Prediction], list[Case]]:
    """Eight boxes a case, each right with the odds that it has and that its size adds.

    slope: what a size e times as large adds; sure: by what odds are multiplied before they are stated
    """
    random, predictions, cases = np.random.default_rng(seed), [], []
    image = Image(np.zeros((1, 64, 64), np.float32), SPACE)
    for number in range(count):
        odds, sides = random.normal(-0.5, 1.5, len(PLACES)), np.exp(random.uniform(np.log(2), np.log(15), len(PLACES)))
        right = random.random(len(PLACES)) < 1 / (1 + np.exp(-odds - slope * np.log(sides / 5)))
        corners = np.concatenate([CORNERS, CORNERS + sides[:, None]], axis=1)
        scores = 1 / (1 + np.exp(-sure * odds))
        given = BoundingBoxes(corners, ("cell",) * len(PLACES), scores)
        predictions.append(Prediction(SPACE, boxes=given, threshold=0.3))
        reference = BoundingBoxes(corners[right], ("cell",) * int(right.sum()))
        cases.append(Case(f"c{number}", f"p{number}", {"image": image}, {"boxes": reference}))
    return predictions, cases


def figures(task: Detection, predictions: list[Prediction], cases: list[Case]) -> dict[str, float]:
    """Metrics of these predictions as the task calibrates them."""
    stated = [
        replace(one, boxes=boxes) for one, boxes in zip(predictions, stated_boxes(task, predictions), strict=True)
    ]
    answers = task._answers(task.score(stated, cases))
    matches = answers.matches("cell", 0.5)
    rows = box_belief.box_calibration_rows("all", [(matches, answers.predicted["cell"])], answers.patients, seed=0)
    return {"ap50": float(matches.average_precision()), **{row.metric: row.estimate.value for row in rows}}


def test_where_small_boxes_are_right_less_often_the_size_makes_scores_true():
    found, new = simulated(1.5, 0), simulated(1.5, 1)
    task, decisions = fitting.with_fitted_calibration(task_of(), PredictedCases(*found))
    calibration = task.certainty.calibration
    assert calibration.method == "size"
    factor, _, slope = calibration.parameters["cell"]
    assert (factor, slope) == (pytest.approx(1, abs=0.2), pytest.approx(1.5, abs=0.5))
    assert "size scaling" in decisions["task.calibration"].because
    now = figures(task, *new)
    assert now["log_loss"] < now["log_loss_uncalibrated"] - 0.05
    assert now["brier"] < now["brier_uncalibrated"]
    by_score = figures(
        fitting.with_fitted_calibration(task_of(calibration_method="platt"), PredictedCases(*found))[0], *new
    )
    assert now["log_loss"] < by_score["log_loss"] - 0.05
    assert now["ap50"] > by_score["ap50"] == pytest.approx(figures(task_of(), *new)["ap50"])


def test_scores_that_are_too_sure_are_taken_back_and_errors_by_bins_fall():
    task, _ = fitting.with_fitted_calibration(task_of(), PredictedCases(*simulated(0.8, 2, sure=2.5)))
    now = figures(task, *simulated(0.8, 3, sure=2.5))
    assert now["ece"] < 0.5 * now["ece_uncalibrated"]
    assert now["ece_equal_mass"] < 0.5 * now["ece_equal_mass_uncalibrated"]
    assert now["log_loss"] < now["log_loss_uncalibrated"]
    assert now["temperature"] == pytest.approx(1, abs=0.25)
    assert now["temperature_uncalibrated"] > 2


def test_figures_come_from_scores_as_they_are_though_they_are_nearly_certain():
    """A wrong box with a score of 0.999997 costs 12.7 nats, and not infinitely many, and it is not the surest one."""
    predictions, cases = [], []
    for number in range(20):
        scores = np.array([0.999999 if number else 0.9999995, 0.999997 if number else 0.2, 2e-6])
        corners = np.array([[10, 10, 20, 20], [40, 40, 50, 50], [50, 10, 60, 20]], float)
        given = BoundingBoxes(corners, ("cell",) * 3, scores, uncalibrated=scores)
        predictions.append(Prediction(SPACE, boxes=given, threshold=0.3))
        reference = BoundingBoxes(corners[[0, 2]], ("cell",) * 2)
        image = Image(np.zeros((1, 64, 64), np.float32), SPACE)
        cases.append(Case(f"c{number}", f"p{number}", {"image": image}, {"boxes": reference}))
    task = task_of()
    [own] = task._answers(task.score(predictions, cases)).predicted.values()
    for one, read in zip(predictions, own, strict=True):
        assert (read.scores == one.boxes.scores).all() and (read.uncalibrated == one.boxes.uncalibrated).all()
    scores, right = np.concatenate([one.boxes.scores for one in predictions]), np.tile([True, False, True], 20)
    stated = figures(task, predictions, cases)
    assert stated["log_loss"] == pytest.approx(-np.log(np.where(right, scores, 1 - scores)).mean())
    assert stated["ap50"] == pytest.approx(51 / 101 + 50 / 101 * 2 / 3, abs=0.01)  # all right ones first, then all else


@pytest.mark.parametrize("sure", [1.0, 2.5])
def test_where_the_size_says_nothing_the_score_alone_calibrates(sure):
    task, _ = fitting.with_fitted_calibration(task_of(), PredictedCases(*simulated(0.0, 4, sure=sure)))
    assert task.certainty.calibration.method in ("temperature", "platt", "none")


def test_the_threshold_and_covering_scores_are_those_of_calibrated_scores_and_stay_with_the_task():
    found = simulated(1.5, 0)
    task, decisions = fitting.with_fitted_calibration(task_of(risk=0.3), PredictedCases(*found))
    assured, _ = fitting.with_sets(task, PredictedCases(*found), exact=True)
    again = task_catalogue.build_task(
        {"name": "detection", **json.loads(json.dumps(task_settings.settings_of(assured)))}
    )
    assert again == assured and set(decisions) == {"task.calibration", "task.threshold"}
    stated = np.concatenate([boxes.scores for boxes in stated_boxes(task, found[0])])
    called = stated >= task.threshold
    assert 0.3 < called.mean() < 0.7 and (stated != np.concatenate([one.boxes.scores for one in found[0]])).all()
    # Predictions that are calibrated already decide the same.
    calibrated = [replace(one, boxes=own) for one, own in zip(found[0], stated_boxes(task, found[0]), strict=True)]
    assert fitting.with_sets(task, PredictedCases(calibrated, found[1]), exact=True)[0] == assured


def test_without_calibration_the_same_boxes_are_called_with_the_scores_of_the_network():
    [one], _ = simulated(0.0, 5, count=1)
    shift = Calibrator("platt", {"cell": [1.0, -2.0]}, 40)
    boxes = box_belief.calibrated_boxes(one.boxes, shift, SPACE.steps)
    made, task = replace(one, boxes=boxes, threshold=0.2), task_of()
    usual, given = (
        properties.output_rows(task.outputs(made)),
        properties.output_rows(task.outputs(made.before_calibration)),
    )
    assert 0 < len(usual) == len(given) < len(one.boxes)
    assert [row["x0"] for row in usual] == [row["x0"] for row in given]
    odds = [np.log([row["score"] / (1 - row["score"]) for row in rows]) for rows in (usual, given)]
    assert odds[1] - odds[0] == pytest.approx(2.0, abs=1e-3)
    assert box_belief.calibrated_boxes(boxes, Calibrator(), SPACE.steps).scores == pytest.approx(one.boxes.scores)


def test_sizes_are_measured_in_mm_where_that_is_known():
    [one], _ = simulated(0.0, 6, count=1)
    by_size = Calibrator("size", {"cell": [1.0, 0.0, 1.0]}, 40)
    odds = [
        np.log(own.scores / (1 - own.scores))
        for step in (1.0, 2.0)
        for own in [box_belief.calibrated_boxes(one.boxes, by_size, (step, step))]
    ]
    assert odds[1] - odds[0] == pytest.approx(np.log(2))


@pytest.mark.parametrize("method", ["auto", "size", "platt", "beta", "isotonic", "temperature"])
def test_a_class_without_a_box_or_no_box_at_all_and_scores_that_are_alike_calibrate_nothing_odd(method):
    predictions, cases = simulated(1.0, 7, count=12)
    task = task_of(classes=["cell", "clump"], calibration_method=method)
    tuned, _ = fitting.with_fitted_calibration(task, PredictedCases(predictions, cases))
    clump = BoundingBoxes(np.array([[1.0, 1, 5, 5]]), ("clump",), np.array([0.6]))
    [stated] = stated_boxes(tuned, [Prediction(SPACE, boxes=clump)])
    assert 0 < stated.scores[0] < 1
    nothing = [replace(one, boxes=BoundingBoxes.none(2, scored=True)) for one in predictions]
    empty, decisions = fitting.with_fitted_calibration(task, PredictedCases(nothing, cases))
    assert "task.calibration" in decisions and empty.certainty.calibration.method in ("none", method)
    assert "log_loss" not in figures(empty, nothing, cases)
    alike = [replace(one, boxes=replace(one.boxes, scores=np.full(8, 0.5))) for one in predictions]
    assert np.isfinite(
        stated_boxes(fitting.with_fitted_calibration(task, PredictedCases(alike, cases))[0], alike)[0].scores
    ).all()


@pytest.mark.parametrize("number", [np.nan, 0.0])
def test_outputs_that_are_no_numbers_hold_no_box_and_those_that_are_all_alike_leave_scores_finite(number):
    calibration = Calibrator("size", {"cell": [1.0, -1.0, 0.5]}, 40).settings
    outputs = np.full((5, 16, 16), number, np.float32)
    boxes = task_of(calibration=calibration).decode([((slice(0, 16),) * 2, {"boxes": outputs})], SPACE).boxes
    assert np.isfinite(boxes.scores).all() and (len(boxes) > 0) == np.isfinite(number)


def test_a_calibration_that_cannot_be_is_refused_and_an_older_model_states_its_scores():
    for odd in (
        {"method": "size", "parameters": {"cell": [1.0, 2.0]}, "cases": 1},
        {"method": "width", "parameters": {}, "cases": 1},
    ):
        with pytest.raises(PlanError, match=r"task\.calibration"):
            task_of(calibration=odd)
    with pytest.raises(PlanError, match="there is no calibration 'size'"):
        task_catalogue.build_task({"name": "findings", "findings": ["mass"], "calibration_method": "size"})
    [one], [case] = simulated(1.0, 8, count=1)
    older = task_of(threshold=0.3)
    assert older.certainty == Certainty() and stated_boxes(older, [one])[0].scores is not None
    assert "uncalibrated" in (table := older.score([one], [case])) and table["uncalibrated"].isna().all()


def test_sizes_count_pixels_in_images_of_known_size_too_where_training_knew_no_size():
    by_size = Calibrator("size", {"cell": [1.0, -3.0, 1.5]}, 40).settings
    corners = np.array([[4, 4, 12, 12]], float)
    stated = []
    for in_voxels in (True, False):
        task = task_of(calibration=by_size, in_voxels=in_voxels)
        for step in (1.0, 0.1):
            grid = Geometry.of_spacing((64, 64), (step, step))
            given = Prediction(grid, boxes=BoundingBoxes(corners, ("cell",), np.array([0.8])))
            stated.append(float(stated_boxes(task, [given])[0].scores[0]))
    assert stated[0] == stated[1] == pytest.approx(stated[2])
    assert stated[3] < stated[2] / 2
    case = Case(
        "a",
        "a",
        {"image": Image(np.zeros((1, 64, 64), np.float32), SPACE)},
        {"boxes": BoundingBoxes(corners, ("cell",))},
    )
    facts = CaseFacts("a", (64, 64), (1.0, 1.0), False, False, ("0",), "unknown", (), references=case.references)
    for physical in (False, True):
        decided = Detection.settings_for(Dataset((case,)), Fingerprint((replace(facts, physical=physical),)))
        assert decided["in_voxels"].value is not physical

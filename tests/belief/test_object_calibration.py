"""Scores of single objects: how often objects of a score and a size are right."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from hilum.belief import object_belief
from hilum.errors import PlanError
from hilum.evaluation.calibration_fit import Calibrator
from hilum.tasks import fitting, task_catalogue, task_settings
from hilum.tasks.fitting import PredictedCases
from hilum.tasks.instances.answering import HEAD
from hilum.tasks.instances.question import InstanceSegmentation
from hilum.values import Case, Geometry, Image, Prediction

SPACE = Geometry.of_pixels((36, 48))
CENTRES = [(row, column) for row in (9, 27) for column in (8, 24, 40)]
ROWS, COLUMNS = np.indices(SPACE.shape)


def task_of(**settings) -> InstanceSegmentation:
    named = {"name": "instances", "steps": [1, 1], "reach": 6, "smallest": 5, "inside": 0.02, "prominence": 0.2}
    return task_catalogue.build_task({**named, **settings})


def predicted(task: InstanceSegmentation, chances: np.ndarray, radii: np.ndarray) -> tuple[Prediction, np.ndarray]:
    """What it makes of a network that shows six discs so probable and so large, and their numbers from 1 on."""
    numbers, inside, height = np.zeros(SPACE.shape, np.int32), np.full(SPACE.shape, 0.004), np.zeros(SPACE.shape)
    for number, ((row, column), chance, radius) in enumerate(zip(CENTRES, chances, radii, strict=True), start=1):
        away = np.hypot(ROWS - row, COLUMNS - column)
        numbers[away < radius], inside[away < radius] = number, chance
        height = np.maximum(height, np.clip(1 - away / radius, 0, 1))
    outputs = np.stack([np.log(inside / (1 - inside)), height]).astype(np.float32)
    return task.decode([(tuple(slice(0, size) for size in SPACE.shape), {HEAD: outputs})], SPACE), numbers


def case_of(numbers: np.ndarray, name: str) -> Case:
    image = Image(np.zeros((1, *SPACE.shape), np.float32), SPACE)
    return Case(name, name, {"image": image}, {"instances": Image(numbers[None], SPACE)})


def simulated(
    task: InstanceSegmentation, slope: float, seed: int, *, sure: float = 1.0, count: int = 60
) -> tuple[list[Prediction], list[Case]]:
    """Six discs a case, each an object with the odds that it has and that its size adds.

    slope: what a size e times as large adds; sure: by what odds are multiplied before they are stated
    """
    random, predictions, cases = np.random.default_rng(seed), [], []
    for number in range(count):
        odds, radii = random.normal(0, 1.0, 6), random.uniform(2.5, 6.9, 6)
        sizes = np.array([(np.hypot(ROWS - 9, COLUMNS - 8) < radius).sum() for radius in radii])
        right = random.random(6) < 1 / (1 + np.exp(-odds - slope * np.log(sizes / 70)))
        made, numbers = predicted(task, 1 / (1 + np.exp(-sure * odds)), radii)
        predictions.append(made)
        cases.append(case_of(np.where(np.append(False, right)[numbers], numbers, 0), f"c{number}"))
    return predictions, cases


def figures(
    task: InstanceSegmentation, slope: float, seed: int, sure: float = 1.0, count: int = 50
) -> dict[str, float]:
    """Metrics of the task's own predictions of other cases."""
    table = task.score(*simulated(task, slope, seed, sure=sure, count=count))
    return {row.metric: row.estimate.value for row in task.summary(table, seed=0) if row.label == "all"}


@pytest.mark.whole
def test_scores_that_are_too_sure_are_taken_back_and_errors_by_bins_fall():
    task, decisions = fitting.with_fitted_calibration(
        task_of(), PredictedCases(*simulated(task_of(), 0.0, 0, sure=2.5))
    )
    assert task.certainty.calibration.method in ("temperature", "platt")
    assert "scaling" in decisions["task.calibration"].because
    now = figures(task, 0.0, 1, sure=2.5, count=120)
    assert now["log_loss"] < now["log_loss_uncalibrated"] - 0.03
    assert now["ece_equal_mass"] < 0.5 * now["ece_equal_mass_uncalibrated"]  # of chance alone .03
    assert now["temperature"] == pytest.approx(1, abs=0.25)
    assert now["temperature_uncalibrated"] > 1.8


@pytest.mark.whole
def test_where_small_objects_are_right_less_often_the_size_makes_scores_true():
    found = simulated(task_of(), 1.5, 0)
    task, _ = fitting.with_fitted_calibration(task_of(), PredictedCases(*found))
    calibration = task.certainty.calibration
    assert calibration.method == "size"
    factor, _, slope = calibration.parameters["object"]
    assert (factor, slope) == (pytest.approx(1, abs=0.25), pytest.approx(1.5, abs=0.5))
    by_score, _ = fitting.with_fitted_calibration(task_of(calibration_method="platt"), PredictedCases(*found))
    assert figures(task, 1.5, 1)["log_loss"] < figures(by_score, 1.5, 1)["log_loss"] - 0.03


def test_each_object_states_how_likely_it_is_one_and_what_the_network_said_stays_beside_it():
    chances, radii = np.array([0.9, 0.8, 0.6, 0.4, 0.2, 0.1]), np.full(6, 5.0)
    plain, _ = predicted(task_of(), chances, radii)
    assert list(plain.confidence.scores) == [f"object {number}" for number in range(1, 7)]
    assert [*plain.confidence.scores.values()] == pytest.approx(chances, abs=1e-3)
    assert not plain.confidence.uncalibrated
    shift = Calibrator("platt", {"object": [1.0, -1.0]}, 40)
    task = task_of(calibration=shift.settings)
    made, _ = predicted(task, chances, radii)
    odds = np.log(chances / (1 - chances)) - 1
    assert [*made.confidence.scores.values()] == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-3)
    assert made.confidence.uncalibrated == plain.confidence.scores
    columns = task.outputs(made)
    assert json.loads(columns["scores"]) == pytest.approx([*made.confidence.scores.values()], abs=1e-5)
    before = task.outputs(made.before_calibration)
    assert json.loads(before["scores"]) == pytest.approx(chances, abs=1e-3)
    assert (before["count"], made.before_calibration.probabilities) == (6, None)


def test_figures_come_from_scores_as_they_are_though_they_are_nearly_certain():
    task, scores = task_of(), np.array([1 - 2e-7, 1 - 1e-7, 0.9, 0.5, 0.2, 0.1])
    made, numbers = predicted(task, np.full(6, 0.9), np.full(6, 5.0))
    stated = dict(zip(made.confidence.scores, scores.tolist(), strict=True))
    made = replace(made, confidence=replace(made.confidence, scores=stated))
    table = task.score([made, made], [case_of(np.where(numbers > 1, numbers, 0), name) for name in "ab"])
    assert json.loads(table["scores"][0]) == scores.tolist()
    own = {row.metric: row.estimate.value for row in object_belief.object_calibration_rows(table, seed=0)}
    assert own["log_loss"] == pytest.approx(-np.log([1 - scores[0], *scores[1:]]).mean())


def test_sizes_are_measured_in_mm_where_that_is_known():
    by_size = task_of(calibration=Calibrator("size", {"object": [1.0, 0.0, 1.0]}, 40).settings)
    odds = []
    for step in (1.0, 2.0):
        geometry = Geometry(SPACE.shape, np.diag([step, step, 1.0]))
        away = np.hypot(ROWS - 18, COLUMNS - 24)
        outputs = np.stack([np.where(away < 6, 1.0, -6.0), np.clip(1 - away / 6, 0, 1)]).astype(np.float32)
        made = by_size.decode([(tuple(slice(0, size) for size in SPACE.shape), {HEAD: outputs})], geometry)
        [score] = made.confidence.scores.values()
        odds.append(np.log(score / (1 - score)))
    assert odds[1] - odds[0] == pytest.approx(np.log(4), abs=1e-4)


def test_the_objects_that_calibrate_are_those_of_the_thresholds_that_are_chosen():
    """At the usual probability of inside nothing is found; the lower one that is chosen finds all."""
    blind = task_of(inside=None, prominence=None)
    made = [predicted(blind, np.linspace(0.31, 0.39, 6), np.full(6, 5.0)) for _ in range(12)]
    predictions, cases = [one for one, _ in made], [case_of(own, f"c{n}") for n, (_, own) in enumerate(made)]
    assert not any(one.confidence.scores for one in predictions)
    task, decisions = fitting.with_fitted_calibration(blind, PredictedCases(predictions, cases))
    assert task.inside == 0.3 and task.certainty.calibration.cases == 72
    assert set(decisions) == {"task.inside", "task.prominence", "task.calibration"}
    score = task.decode([((slice(0, 36), slice(0, 48)), {HEAD: _outputs(0.35)})], SPACE).confidence.scores
    assert score["object 1"] > 0.4  # all were right


def _outputs(chance: float) -> np.ndarray:
    away = np.hypot(ROWS - 18, COLUMNS - 24)
    inside = np.where(away < 6, chance, 0.004)
    return np.stack([np.log(inside / (1 - inside)), np.clip(1 - away / 6, 0, 1)]).astype(np.float32)


def test_a_calibration_stays_with_the_task_and_an_older_plan_states_the_scores_of_the_network():
    found = simulated(task_of(), 0.0, 2, sure=2.0, count=30)
    task, _ = fitting.with_fitted_calibration(task_of(), PredictedCases(*found))
    again = task_catalogue.build_task({"name": "instances", **json.loads(json.dumps(task_settings.settings_of(task)))})
    assert again == task and fitting.with_fitted_calibration(again, PredictedCases(*found)) == (task, {})
    older = task_of()
    table = older.score(*found)
    assert table["uncalibrated"].isna().all() and len(json.loads(table["scores"][0])) == found[0][0].data.max()
    assert task_catalogue.untuned_task(task).certainty.calibration is None
    with pytest.raises(PlanError, match=r"task\.calibration"):
        task_of(calibration={"method": "width", "parameters": {}, "cases": 1})


@pytest.mark.parametrize("method", ["auto", "size", "platt", "beta", "isotonic", "temperature"])
def test_without_an_object_with_outputs_that_are_no_numbers_or_all_alike_nothing_odd_is_calibrated(method):
    task = task_of(calibration_method=method)
    nothing = task.decode([((slice(0, 36), slice(0, 48)), {HEAD: np.full((2, 36, 48), np.nan, np.float32)})], SPACE)
    empty = case_of(np.zeros(SPACE.shape, int), "empty")
    tuned, decisions = fitting.with_fitted_calibration(
        task, PredictedCases([nothing] * 3, [replace(empty, patient=f"p{n}") for n in range(3)])
    )
    assert "task.calibration" in decisions and not nothing.confidence.scores
    rows = tuned.summary(tuned.score([nothing], [empty]), seed=0)
    assert "log_loss" not in {row.metric for row in rows}
    alike = [predicted(task, np.full(6, 0.5), np.full(6, 5.0)) for _ in range(12)]
    cases = [case_of(own, f"c{n}") for n, (_, own) in enumerate(alike)]
    tuned, _ = fitting.with_fitted_calibration(task, PredictedCases([one for one, _ in alike], cases))
    made, _ = predicted(tuned, np.full(6, 0.5), np.full(6, 5.0))
    assert np.isfinite([*made.confidence.scores.values()]).all()

"""Scores from which on boxes miss little."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hilum.belief import box_belief, covering_results
from hilum.errors import PlanError
from hilum.evaluation.conformal import Conformal
from hilum.tasks import fitting, properties, task_catalogue, task_settings
from hilum.tasks.detection.question import Detection
from hilum.tasks.fitting import PredictedCases
from hilum.values import BoundingBoxes, Case, Geometry, Image, Prediction

SPACE = Geometry.of_pixels((24, 32))
PLACES = np.array([[1.0, 1, 6, 6], [10, 10, 16, 16], [1, 20, 8, 28]])


def task_of(**settings) -> Detection:
    named = {"name": "detection", "classes": ["cell", "clump"], "axes": 2, "typical": 8.0, "suppression": 0.5}
    return task_catalogue.build_task({**named, "threshold": 0.3, "risk": 0.2, **settings})


def simulated(count: int, seed: int, lost: float = 0.02) -> tuple[list[Prediction], list[Case]]:
    """Up to three cells a case, found with scores from low to high but for a share that is lost, and false boxes."""
    rng, predictions, cases = np.random.default_rng(seed), [], []
    for number in range(count):
        true = PLACES[: rng.integers(1, 4)]
        found = true[rng.random(len(true)) >= lost]
        false = np.array([[18.0, 1, 22, 5]])
        scores = np.append(rng.beta(2, 3, len(found)), rng.beta(1, 4)).clip(0.02, 1)
        given = BoundingBoxes(np.concatenate([found, false]), ("cell",) * (len(found) + 1), scores)
        predictions.append(Prediction(SPACE, boxes=given, threshold=0.3))
        image = Image(np.zeros((1, 24, 32), np.float32), SPACE)
        reference = BoundingBoxes(true, ("cell",) * len(true))
        cases.append(Case(f"c{number}", f"p{number}", {"image": image}, {"boxes": reference}))
    return predictions, cases


def missed(task: Detection, predictions: list[Prediction], cases: list[Case]) -> float:
    """The mean share of a case's cells that the covering boxes miss."""
    pairs = [(one.boxes, case.references["boxes"]) for one, case in zip(predictions, cases, strict=True)]
    least = task.certainty.covers_from["cell"]
    return float(np.mean([(box_belief.best_box_scores(*pair, 0.5) < least).mean() for pair in pairs]))


@pytest.mark.whole
def test_covering_boxes_miss_the_share_that_was_allowed_in_new_cases_on_average():
    shares = []
    for seed in range(30):
        task, decisions = fitting.with_sets(task_of(), PredictedCases(*simulated(60, seed)), exact=True)
        shares.append(missed(task, *simulated(60, 1000 + seed)))
    assert 0.15 < np.mean(shares) <= 0.2 + 3 * np.std(shares) / np.sqrt(30)
    because = decisions["task.covering"].because
    assert "boxes from these scores on miss at most 20 % of those of a case on average" in because
    assert "decided nothing else" in because and "no score is known to do so for clump" in because
    assert task.certainty.covering.n == {"cell": 60, "clump": 0}
    again = task_catalogue.build_task({"name": "detection", **json.loads(json.dumps(task_settings.settings_of(task)))})
    assert again == task and fitting.with_sets(again, PredictedCases(*simulated(60, 0)), exact=True)[0] == task


def test_with_a_confidence_fewer_are_missed_and_where_too_many_are_lost_no_score_is_known():
    held = simulated(200, 0)
    usual, sure = (
        fitting.with_sets(task_of(risk_delta=delta), PredictedCases(*held), exact=True)[0] for delta in (None, 0.05)
    )
    assert sure.certainty.covers_from["cell"] < usual.certainty.covers_from["cell"]
    blind, decisions = fitting.with_sets(task_of(), PredictedCases(*simulated(100, 1, lost=0.4)), exact=False)
    assert blind.certainty.covers_from == {"cell": 0.0, "clump": 0.0}
    assert "approximate" in decisions["task.covering"].because


def test_of_fewer_patients_than_the_risk_asks_for_all_boxes_are_listed():
    few, enough = (
        fitting.with_sets(task_of(risk=0.1), PredictedCases(*simulated(count, 0, lost=0.0)), exact=True)[0]
        for count in (8, 9)
    )
    assert few.certainty.covers_from["cell"] == 0.0 < enough.certainty.covers_from["cell"]
    [one], _ = simulated(1, 0)
    assert len(properties.added_results(few).complete(one, None).boxes) == len(one.boxes)


def test_a_patient_with_many_cases_counts_once():
    predictions, cases = simulated(40, 2)
    many = [replace(one, patient="p0" if n < 20 else one.patient) for n, one in enumerate(cases)]
    task, _ = fitting.with_sets(task_of(), PredictedCases(predictions, many), exact=True)
    assert task.certainty.covering.n["cell"] == 21


def test_covering_boxes_are_listed_where_somebody_asks_and_figures_state_what_they_miss():
    predictions, cases = simulated(30, 3)
    task, _ = fitting.with_sets(task_of(), PredictedCases(predictions, cases), exact=True)
    least = task.certainty.covers_from["cell"]
    assert least < 0.3
    [one] = [p for p in predictions if p.boxes.scores.min() < least < 0.3 < p.boxes.scores.max()][:1]
    usual, covering = (
        properties.output_rows(task.outputs(one)),
        properties.output_rows(task.outputs(properties.added_results(task).complete(one, None))),
    )
    assert [row["score"] for row in usual] == pytest.approx([s for s in one.boxes.scores if s >= 0.3])
    assert [row["score"] for row in covering] == pytest.approx([s for s in one.boxes.scores if s >= least])
    table = task.score(predictions, cases).assign(split="test")
    rows = {(row.metric, row.label): row.estimate for row in task.summary(table, seed=0)}
    assert rows["covering_missed", "cell"].value == pytest.approx(missed(task, predictions, cases))
    false = np.mean([float(p.boxes.scores[-1] >= least) for p in predictions])
    assert rows["covering_false", "cell"].value == pytest.approx(false)


def test_figures_of_covering_boxes_count_those_that_are_called_below_the_score_of_the_covering_ones():
    """Such boxes are listed too: the score from which on few are missed may be higher than the usual one."""
    covering = Conformal("crc", 0.8, "label", {"cell": 40, "clump": 40}, {"cell": 0.5, "clump": 0.5}, True).settings
    task = task_of(covering=covering)
    corners = np.array([*PLACES[:2], [18.0, 1, 22, 5]])
    given = BoundingBoxes(corners, ("cell",) * 3, np.array([0.9, 0.4, 0.35]))
    predicted = Prediction(SPACE, boxes=given, threshold=0.3)
    image = Image(np.zeros((1, 24, 32), np.float32), SPACE)
    case = Case("c", "p", {"image": image}, {"boxes": BoundingBoxes(PLACES[:2], ("cell",) * 2)})
    assert len(properties.output_rows(task.outputs(properties.added_results(task).complete(predicted, None)))) == 3
    row = task.score([predicted], [case]).set_index("label").loc["cell"]
    assert (row["covering_missed"], row["covering_false"]) == (0.0, 1.0)


def test_covering_boxes_in_a_region_that_is_to_be_ignored_are_no_false_ones():
    region = BoundingBoxes(np.array([[0.0, 0, 90, 90]]), ("cell",), ignored=np.array([True]))
    inside = BoundingBoxes(np.array([[5.0, 5, 9, 9], [95, 95, 99, 99]]), ("cell",) * 2, np.array([0.9, 0.9]))
    assert box_belief.covering_box_columns(inside, region, 0.5, 0.2)["covering_false"] == 1


def test_without_a_risk_there_are_none_and_an_impossible_one_is_refused():
    held = simulated(60, 0)
    assert fitting.with_sets(task_of(risk=None), PredictedCases(*held), exact=True) == (task_of(risk=None), {})
    assert properties.added_results(task_of(risk=None)) is None
    older = task_catalogue.build_task(
        {"name": "detection", "classes": ["cell"], "axes": 2, "typical": 8.0, "suppression": 0.5}
    )
    assert "covering_missed" not in older.score(*held)
    with pytest.raises(PlanError, match=r"task\.risk"):
        task_of(risk=1.2)


def test_a_case_has_the_false_boxes_of_all_its_classes_and_counts_once():
    rows = [("a", "cell", 0.5, 2.0), ("a", "node", 0.0, 3.0), ("b", "cell", 1.0, 1.0), ("b", "node", float("nan"), 0.0)]
    table = pd.DataFrame(rows, columns=["case", "label", "covering_missed", "covering_false"])
    made = covering_results.covering_rows(table.assign(patient=table["case"]), ["cell", "node"], "boxes", seed=0)
    found = {(row.metric, row.label): row.estimate for row in made}
    assert (found["covering_false", "all"].value, found["covering_false", "all"].n) == (3.0, 2)
    assert found["covering_missed", "all"].n == 2

"""An answer is as sure as the probability of what is called."""

from __future__ import annotations

import pytest

from hilum.tasks import properties, task_catalogue
from hilum.values import Confidence, Geometry, Prediction

CLASSES = {"name": "classification", "classes": ["benign", "malignant"], "smoothing": 0.0}
GRID = Geometry.of_pixels((8, 8))


def predicted(**probabilities: float) -> Prediction:
    return Prediction(GRID, probabilities=probabilities)


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [({"lump": 0.1}, 0.1), ({"lump": 0.03}, 0.97), ({"lump": 0.9}, 0.9), ({"lump": 0.9, "scar": 0.7}, 0.7),
     ({"lump": 0.02, "scar": 0.2}, 0.8)],
)  # fmt: skip
def test_a_finding_that_a_low_threshold_calls_is_as_sure_as_its_probability(probabilities, expected):
    thresholds = {name: {"lump": 0.05, "scar": 0.5}[name] for name in probabilities}
    task = task_catalogue.build_task({"name": "findings", "findings": list(probabilities), "thresholds": thresholds})
    assert properties.sureness(task, predicted(**probabilities)) == pytest.approx(expected)


def test_the_threshold_of_the_patients_group_calls_a_finding():
    task = task_catalogue.build_task({"name": "findings", "findings": ["lump"], "thresholds": {"lump": 0.05}})
    own = Prediction(GRID, probabilities={"lump": 0.1}, confidence=Confidence(thresholds={"lump": 0.3}))
    assert properties.sureness(task, own) == pytest.approx(0.9)


def test_the_most_probable_class_is_called_where_nothing_else_decides():
    task = task_catalogue.build_task(CLASSES)
    assert properties.sureness(task, predicted(benign=0.7, malignant=0.3)) == pytest.approx(0.7)


def test_a_class_that_is_called_for_its_costs_is_as_sure_as_its_probability():
    costs = [[0, 1], [20, 0]]  # of a malignant one that is missed
    task = task_catalogue.build_task({**CLASSES, "costs": costs})
    assert properties.sureness(task, predicted(benign=0.9, malignant=0.1)) == pytest.approx(0.1)


def test_a_grade_between_two_likelier_ones_is_as_sure_as_its_probability():
    """Squared distances of 0.85 on average, where the others have 1.95 and 1.75."""
    task = task_catalogue.build_task({**CLASSES, "classes": ["low", "middle", "high"], "order": "softmax"})
    assert properties.sureness(task, predicted(low=0.4, middle=0.15, high=0.45)) == pytest.approx(0.15)


def test_the_least_sure_part_of_a_case_counts_and_what_states_nothing_is_not_sure():
    settings = {"classification.classes": CLASSES["classes"], "classification.smoothing": 0.0}
    settings |= {"findings.findings": ["lump"], "findings.thresholds": {"lump": 0.05}}
    task = task_catalogue.build_task({"name": "classification+findings", **settings})
    own = {"classification": predicted(benign=0.7, malignant=0.3), "findings": predicted(lump=0.1)}
    assert properties.sureness(task, Prediction(GRID, parts=own)) == pytest.approx(0.1)
    own["classification"] = Prediction(GRID)
    assert properties.sureness(task, Prediction(GRID, parts=own)) == 0.0

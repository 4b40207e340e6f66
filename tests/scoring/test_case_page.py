"""The slice viewer of a scored case shows what every task marks, under the names of its own labels."""

from __future__ import annotations

import json

import numpy as np

from hilum.scoring import case_scoring
from hilum.tasks import task as tasks_task
from hilum.tasks import task_catalogue
from hilum.values import Case, Geometry, Image, Label, Prediction

GRID = Geometry.of_spacing((4, 5, 6), (1, 1, 2))
LESION, ORGAN = (Label(1, "lesion"),), (Label(1, "organ"),)
MASKS = {"segmentation.labels": [{"value": 1, "name": "lesion"}], "segmentation.loss": "dice+ce"}
OBJECTS = {"instances.steps": [1.0, 1.0, 1.0], "instances.reach": 3.0, "instances.smallest": 0.0}


def marked(value: int) -> np.ndarray:
    mask = np.zeros(GRID.shape, np.uint8)
    mask[1:3, 1:3, 1:4] = value
    return mask


def overlays_of(case: Case, prediction: Prediction, task: tasks_task.Task) -> dict[str, list[str]]:
    """{overlay: names of its labels}"""
    page = case_scoring.viewer_page(case, prediction, task)
    facts = json.loads(page.partition('id="facts"')[2].partition(">")[2].partition("</script>")[0])
    return {one["name"]: [label["name"] for label in one["labels"]] for one in facts["overlays"]}


def case(**references: object) -> Case:
    return Case("a", "p", {"image": Image(np.zeros((1, *GRID.shape), np.float32), GRID)}, references)


def test_of_two_tasks_that_mark_voxels_both_maps_are_drawn_with_their_own_labels():
    task = task_catalogue.build_task(
        {"name": "instances+segmentation", **OBJECTS, **MASKS, "segmentation.tolerance": 2.0}
    )
    parts = {
        "instances": Prediction(GRID, data=marked(7), labels=()),
        "segmentation": Prediction(GRID, data=marked(1), labels=LESION),
    }
    whole = Prediction(GRID, data=parts["instances"].data, parts=parts)
    given = case(mask=Image(marked(1)[None], GRID), instances=Image(marked(3)[None], GRID))
    assert overlays_of(given, whole, task) == {
        "reference": ["3"],
        "reference, segmentation": ["lesion"],
        "prediction": ["7"],
        "prediction, segmentation": ["lesion"],
    }


def test_of_a_single_task_the_page_names_reference_and_prediction():
    masks = {"labels": [{"value": 1, "name": "organ"}], "loss": "dice+ce", "tolerance": 2.0}
    task = task_catalogue.build_task({"name": "segmentation", **masks})
    found = overlays_of(case(mask=Image(marked(1)[None], GRID)), Prediction(GRID, data=marked(1), labels=ORGAN), task)
    assert found == {"reference": ["organ"], "prediction": ["organ"]}

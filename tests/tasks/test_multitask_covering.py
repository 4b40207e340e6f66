"""Boxes, objects and masks that miss little, where they are parts of one task."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hilum.evaluation.conformal import Conformal
from hilum.tasks import fitting, properties, task_catalogue
from hilum.tasks import task as tasks_task
from hilum.tasks.fitting import PredictedCases
from hilum.values import BoundingBoxes, Case, Confidence, Geometry, Image, Map, Prediction

SPACE = Geometry.of_pixels((24, 40))
WHOLE = tuple(slice(0, size) for size in SPACE.shape)
CLASSES = {"classes": ["benign", "malignant"], "smoothing": 0.0}
BOXES = {"classes": ["cell"], "axes": 2, "typical": 8.0, "suppression": 0.5, "threshold": 0.3}
OBJECTS = {"steps": [1, 1], "reach": 5, "smallest": 9, "inside": 0.5, "prominence": 0.2}
LESION = {"labels": [{"value": 1, "name": "lesion"}], "loss": "dice+ce", "tolerance": 2.0}
ALL = {"classification": CLASSES, "detection": BOXES, "instances": OBJECTS, "segmentation": LESION}


def joined(*parts: str, **own: object) -> tasks_task.Task:
    settings = {f"{part}.{key}": value for part in parts for key, value in ALL[part].items()}
    return task_catalogue.build_task({"name": "+".join(parts), **settings, **own})


def from_score(name: str, score: float) -> dict[str, object]:
    return Conformal("crc", 0.8, "label", {name: 40}, {name: 1 - score}, True).settings


def boxes(*scores: float) -> BoundingBoxes:
    corners = np.array([[1.0 + 8 * place, 1, 6 + 8 * place, 6] for place in range(len(scores))])
    return BoundingBoxes(corners, ("cell",) * len(scores), np.array(scores))


def with_boxes(task: tasks_task.Task) -> Prediction:
    called = Prediction(SPACE, boxes=boxes(0.9, 0.2, 0.05), threshold=0.3)
    given = {"benign": 0.8, "malignant": 0.2}
    said = Prediction(SPACE, probabilities=given, confidence=Confidence(uncalibrated=given))
    return Prediction(SPACE, parts={"detection": called, "classification": said}, boxes=called.boxes, threshold=0.3)


def test_covering_boxes_of_a_part_are_listed_where_somebody_asks():
    task = joined("detection", "classification")
    assert properties.added_results(task) is None
    task = joined("detection", "classification", **{"detection.covering": from_score("cell", 0.1)})
    usual = with_boxes(task)
    covering = properties.added_results(task).complete(usual, None)
    assert [row["score"] for row in properties.output_rows(task.outputs(usual))] == [0.9]
    assert [row["score"] for row in properties.output_rows(task.outputs(covering))] == [0.9, 0.2]
    assert (len(covering.called_boxes), len(usual.called_boxes)) == (2, 1)


def test_a_part_that_finds_boxes_calls_no_more_of_them_in_the_whole():
    task = joined("detection", "classification")
    outputs = {name: np.full((head.count, *SPACE.shape), -9.0, np.float32) for name, head in task.heads.items()}
    outputs = {**outputs, "classification_class": np.zeros(2, np.float32)}
    for row, odds in ((6, 4.0), (17, 0.6)):
        outputs["detection_boxes"][:, row, 10] = [odds, 1, 1, 0, 0]
    vectors = {"classification_class": outputs.pop("classification_class")}
    made = task.decode([(WHOLE, outputs), ((), vectors)], SPACE)
    assert len(made.boxes) == 2 and made.threshold == 0.3
    assert len(made.called_boxes) == len(made.parts["detection"].called_boxes) == 1


def test_covering_objects_of_a_part_are_a_map_that_no_mask_of_another_part_replaces():
    own = {"instances.covering": from_score("object", 0.1), "instances.risk": 0.2}
    task = joined("instances", "segmentation", **own)
    inside, height = np.full(SPACE.shape, -6.0), np.zeros(SPACE.shape)
    rows, columns = np.indices(SPACE.shape)
    for column, odds in ((10, 3.0), (28, -1.0)):
        away = np.hypot(rows - 12, columns - column)
        inside[away < 5] = odds
        height = np.maximum(height, np.clip(1 - away / 5, 0, 1))
    outputs = {
        "instances_instances": np.stack([inside, height]).astype(np.float32),
        "segmentation_mask": np.zeros((2, *SPACE.shape), np.float32),
    }
    made = task.decode([(WHOLE, outputs)], SPACE)
    assert np.asarray(made.parts["instances"].data).max() == 1
    assert properties.added_results(task).complete(made, None).maps["covering"].data.max() == 2
    mask = Map(np.ones(SPACE.shape, np.uint8))
    both = properties.added_results(task).complete(replace(made, maps={"covering": mask}), None).maps
    assert both["covering"] is mask and both["instances_covering"].data.max() == 2
    assert made.without_tuning_arrays.parts["instances"].untuned is None
    assert task.bytes_per_voxel == task.parts["instances"].bytes_per_voxel


def test_covering_masks_are_found_behind_a_part_that_finds_boxes():
    own = {"segmentation.covering": from_score("lesion", 0.25)}
    task = joined("detection", "segmentation", **own)
    assert properties.added_results(task).masks == {"segmentation_mask": {"lesion": pytest.approx(0.25)}}
    covering = properties.added_results(task).stream(SPACE)
    chances = np.stack([np.full(SPACE.shape, 0.7), np.full(SPACE.shape, 0.3)])
    chances[1, :, :20] = 0.1
    covering(WHOLE, {"segmentation_mask": chances, "detection_boxes": np.zeros((1, *SPACE.shape))})
    marked = np.asarray(covering.maps["covering"].data)
    assert marked[:, 20:].all() and not marked[:, :20].any()


def test_the_parts_find_their_scores_by_the_cases_that_have_their_reference():
    task = joined("detection", "classification", **{"detection.risk": 0.2})
    image = Image(np.zeros((1, *SPACE.shape), np.float32), SPACE)
    predicted_boxes = boxes(0.9, 0.2, 0.05)
    reference = replace(predicted_boxes.at(np.array([True, True, False])), scores=None)
    cases = [Case(f"c{n}", f"c{n}", {"image": image}, {"boxes": reference, "class": "benign"}) for n in range(20)]
    found, decisions = fitting.with_sets(task, PredictedCases([with_boxes(task)] * 20, cases), exact=True)
    assert "task.detection.covering" in decisions
    assert 0.05 < found.parts["detection"].certainty.covers_from["cell"] <= 0.2

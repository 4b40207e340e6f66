"""Findings of structures: volumes with their intervals, measurements, and the values of the label map."""

import math

import numpy as np

from hilum.tasks.segmentation.question import Segmentation
from hilum.values import Code, Confidence, Geometry, Label, Prediction

LIVER = Code("SCT", "10200004", "Liver")
TASK = Segmentation((Label(2, "liver", code=LIVER), Label(5, "cyst")))
GRID = Geometry((10, 10, 10), np.diag([10.0, 10.0, 10.0, 1.0]))
ROWS = (
    {"label": "liver", "voxels": 3, "volume_ml": 3.0, "short_axis_mm": 10.0, "mean_CT": 40.0, "unit": "HU"},
    {"label": "cyst", "voxels": 0, "volume_ml": 0.0, "short_axis_mm": math.nan, "mean_CT": math.nan, "unit": "HU"},
)


def prediction(**stated) -> Prediction:
    data = np.zeros(GRID.shape, np.uint8)
    data[0, 0, :3] = 2
    return Prediction(GRID, data=data, labels=TASK.classes, confidence=Confidence(**stated))


def test_a_volume_stands_with_its_interval_before_what_was_measured_of_its_structure():
    liver, axis, mean, cyst = TASK.results(prediction(low={"liver": 2.5}, high={"liver": 3.5}), ROWS)
    assert (liver.concept, liver.value, liver.unit, liver.low, liver.high) == ("liver", 3.0, "ml", 2.5, 3.5)
    assert liver.code == LIVER
    assert (axis.concept, axis.value, axis.unit, axis.code.value) == ("short axis", 10.0, "mm", "103340004")
    assert (mean.concept, mean.unit) == ("mean intensity", "HU")
    assert {(one.group, one.label) for one in (liver, axis, mean)} == {("liver", 2)}
    assert (cyst.group, cyst.label, cyst.value) == ("cyst", 5, 0.0)


def test_what_could_not_be_measured_is_no_finding():
    assert [one.concept for one in TASK.results(prediction(), ROWS) if one.group == "cyst"] == ["cyst"]


def test_of_overlapping_structures_measurements_are_those_of_the_parts_in_the_label_map():
    regions = Segmentation((Label(2, "whole (rest)"), Label(5, "core")), regions={"whole": (2, 5), "core": (5,)})
    rows = [{**ROWS[0], "label": "whole (rest)"}, {**ROWS[1], "label": "core", "short_axis_mm": 4.0}]
    made = [(one.concept, one.group, one.label) for one in regions.results(prediction(), rows)]
    assert made[:3] == [("whole", "whole", None), ("core", "core", 5), ("short axis", "core", 5)]
    assert made[3] == ("short axis", "whole (rest)", 2)

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hilum.values import BoundingBoxes, Confidence, Deferred, Geometry, Label, Prediction

VOLUME = Geometry((10, 10, 10), np.diag([2.0, 2.0, 2.5, 1.0]))  # 0.01 ml a voxel
LABELS = (Label(0, "background"), Label(1, "liver"), Label(2, "tumour"))


def marked(*counts: int) -> np.ndarray:
    """A label map with so many voxels of each structure."""
    flat = np.repeat(np.arange(len(counts) + 1), [1000 - sum(counts), *counts])
    return flat.reshape(10, 10, 10).astype(np.uint8)


def test_a_segmentation_prints_its_case_its_task_and_the_volume_of_each_structure_in_ml():
    made = Prediction(VOLUME, data=marked(300, 50), labels=LABELS, case="p7", task="segmentation", notes=("cut off",))
    assert repr(made).splitlines() == ["p7, segmentation:", "  liver 3 ml, tumour 0.5 ml", "  note: cut off"]
    assert str(made) == repr(made)


def test_sizes_are_counted_in_voxels_where_no_length_is_known():
    made = Prediction(replace(VOLUME, physical=False), data=marked(300, 0), labels=LABELS)
    assert "liver 300 voxels, tumour 0 voxels" in repr(made)


def test_the_likeliest_class_stands_first():
    made = Prediction(VOLUME, probabilities={"benign": 0.2, "malignant": 0.8}, case="p7", task="classification")
    assert "probability: malignant 0.800, benign 0.200" in repr(made)


def test_a_number_stands_with_its_standard_deviation():
    assert "age 61.2 ± 3.5" in repr(
        Prediction(VOLUME, values={"age": 61.2}, confidence=Confidence(deviations=np.array([3.5])))
    )


def test_boxes_are_counted_by_class_as_far_as_they_are_called():
    boxes = BoundingBoxes(np.array([[0, 0, 2, 2]] * 3, float), ("cell",) * 3, np.array([0.9, 0.8, 0.1]))
    assert "boxes: cell 2" in repr(Prediction(Geometry((9, 9), np.eye(3)), boxes=boxes, threshold=0.5))


def test_a_model_without_an_answer_says_why():
    assert "no answer: another organ" in repr(Prediction(VOLUME, abstained="another organ"))


def test_each_of_several_tasks_has_its_own_lines():
    parts = {"class": Prediction(VOLUME, probabilities={"a": 1.0}), "size": Prediction(VOLUME, values={"ml": 2.0})}
    assert repr(Prediction(VOLUME, parts=parts)).splitlines()[1:] == ["  class: probability: a 1.000", "  size: ml 2"]


def test_of_many_structures_the_first_are_named_and_the_others_counted():
    made = Prediction(VOLUME, data=marked(*[1] * 30), labels=tuple(Label(n, f"cell {n}") for n in range(31)))
    assert repr(made).endswith("cell 8 0.01 ml, and 22 more")


def test_a_label_map_that_is_computed_on_demand_is_not_computed_for_a_print():
    def read() -> np.ndarray:
        raise AssertionError("it was read")

    made = Prediction(VOLUME, data=Deferred((10, 10, 10), np.dtype(np.uint8), read), labels=LABELS)
    assert "10 x 10 x 10 voxels, computed when it is read" in repr(made)


def test_error_bars_and_risks_before_calibration_are_no_probabilities():
    known = Confidence(deviations=np.array([3.5]), uncalibrated={"age": 2.5})
    before = Prediction(VOLUME, values={"age": 61.2}, confidence=known).before_calibration
    assert before.probabilities is None and "probability" not in repr(before)


def test_several_tasks_state_the_probabilities_of_before_calibration_together_as_each_does():
    known = Confidence(uncalibrated={"benign": 0.4, "malignant": 0.6})
    part = Prediction(VOLUME, probabilities={"benign": 0.2, "malignant": 0.8}, confidence=known)
    both = {"classification": part, "regression": Prediction(VOLUME, values={"age": 61.2})}
    before = Prediction(VOLUME, probabilities=part.probabilities, values={"age": 61.2}, parts=both).before_calibration
    assert before.probabilities == before.parts["classification"].probabilities == {"benign": 0.4, "malignant": 0.6}


def test_before_calibration_a_value_has_no_probability():
    bars = Confidence(deviations=np.array([3.5]), uncalibrated={"age": 3.1})
    made = Prediction(VOLUME, values={"age": 61.2}, confidence=bars).before_calibration
    assert (made.probabilities, made.values) == (None, {"age": 61.2})
    called = Prediction(VOLUME, probabilities={"ill": 0.7}, confidence=Confidence(uncalibrated={"ill": 0.9}))
    assert called.before_calibration.probabilities == {"ill": 0.9}

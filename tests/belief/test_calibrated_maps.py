"""Label maps of calibrated outputs, where these surely raise the Dice of unseen cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from hilum.belief import Certainty
from hilum.errors import PlanError
from hilum.evaluation.calibration_fit import Calibrator
from hilum.tasks import fitting, task_settings
from hilum.tasks.fitting import PredictedCases
from hilum.tasks.segmentation.question import Segmentation
from hilum.values.voxel_images import ReferenceMap
from tasks.sampled_voxels import GRID, REGIONS, TASK, WHOLE, case, sample_labels, true_outputs, tuned


def moved(seed: int) -> np.ndarray:
    """Outputs of a network that is twice as sure as it should be, and marks too little of the organ."""
    outputs = 2 * true_outputs(seed)
    outputs[1] -= 3.0
    return outputs.astype(np.float32)


def of_map(task: Segmentation, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(labels,) Dice of the label map of such outputs, and its sizes."""
    marked = np.asarray(task.decode([(WHOLE, {"mask": moved(seed)})], GRID).data)
    each = [(marked == value, sample_labels(true_outputs(seed), seed) == value) for value in (2, 5)]
    dice = [2 * (own & truth).sum() / (own.sum() + truth.sum()) for own, truth in each]
    return np.array(dice), np.array([own.sum() for own, _ in each])


def test_calibrated_outputs_make_the_label_map_where_they_surely_raise_the_dice_of_unseen_cases():
    task, decisions, made, references = tuned(TASK, 8, 2.0, shift=-3.0)
    assert task.calibrated_map is True, decisions["task.calibrated_map"].because
    assert "a gain in 95 % of the draws of patients" in decisions["task.calibrated_map"].because
    assert task_settings.task_from_settings(Segmentation, task_settings.settings_of(task)) == task
    plain = replace(task, calibrated_map=False)
    gains = [of_map(task, seed)[0] - of_map(plain, seed)[0] for seed in range(50, 60)]
    assert np.mean(gains) > 0.01
    # What was not predicted anew is known all the same: an image this small is its own sample.
    for seed, (prediction, reference) in enumerate(zip(made[:3], references, strict=False)):
        reference_map = ReferenceMap(reference.references["mask"].data[0])
        sizes = task.answers.sizes(prediction, reference_map, str(seed), task.probable)[0]
        assert_allclose(sizes, of_map(task, seed)[1], atol=1e-3)
    expected = [task.decode([(WHOLE, {"mask": moved(n)})], GRID).confidence.expected["organ"] for n in range(8)]
    assert np.mean(expected) == pytest.approx(np.mean([of_map(task, n)[0][0] for n in range(8)]), abs=0.01)


def test_the_label_map_stays_that_of_the_network_where_nothing_is_sure():
    few, of_few, *_ = tuned(replace(TASK, certainty=Certainty("vector")), 4, 2.0, shift=-3.0)
    assert few.calibrated_map is False
    assert "4 patients are too few" in of_few["task.calibrated_map"].because
    same, of_same, *_ = tuned(replace(TASK, certainty=Certainty("vector")), 8, 2.0)
    assert same.certainty.calibration.method == "vector"
    assert same.calibrated_map is False, of_same["task.calibrated_map"].because
    assert "no sure gain" in of_same["task.calibrated_map"].because
    for task in (few, same):
        assert np.array_equal(of_map(task, 60)[1], of_map(TASK, 60)[1])


@pytest.mark.whole
def test_a_label_map_that_is_tidied_stays_that_of_the_network_where_a_calibrated_one_untidied_scores_less():
    mapped = []
    for speck in (0.0, 60.0):
        outputs = [moved(seed) for seed in range(6)]
        smooth = [np.array([0, 2, 5], np.uint8)[true_outputs(seed).argmax(axis=0)] for seed in range(6)]
        for one in outputs:
            one[2, 2:9:3, 2:44:3] += speck
        made = [TASK.decode([(WHOLE, {"mask": one})], GRID) for one in outputs]
        task, decisions = fitting.with_fitted_calibration(
            replace(TASK, decoding="argmax"),
            PredictedCases(made, [case(mask, seed) for seed, mask in enumerate(smooth)]),
        )
        assert ("lesion" in task.postprocessing) is bool(speck), decisions["task.postprocessing"].because
        mapped.append(task.calibrated_map)
    assert mapped == [True, False]


def test_a_gain_at_the_cost_of_a_structure_is_none():
    """The organ is marked too little and gains; of the lesion less is marked than before."""
    shifted = Certainty("platt", Calibrator("platt", {"organ": [0.5, 1.5], "lesion": [0.5, -0.08]}))
    task, decisions, *_ = tuned(replace(REGIONS, certainty=shifted), 6, 2.0, shift=-3.0)
    assert task.calibrated_map is False
    assert "a gain, at the cost of lesion" in decisions["task.calibrated_map"].because


def test_a_plan_that_does_not_say_what_makes_the_label_map_has_that_of_the_network():
    settings = task_settings.settings_of(tuned(TASK, 6, 2.0, shift=-3.0)[0])
    del settings["calibrated_map"]
    assert np.array_equal(of_map(task_settings.task_from_settings(Segmentation, settings), 60)[1], of_map(TASK, 60)[1])
    with pytest.raises(PlanError, match="'often' does not say"):
        task_settings.task_from_settings(Segmentation, {**settings, "calibrated_map": "often"})


def test_a_shift_moves_the_edges_of_regions_too():
    shifted = Certainty("platt", Calibrator("platt", {"organ": [0.5, 1.2], "lesion": [0.8, -0.7]}))
    task = replace(REGIONS, certainty=shifted, calibrated_map=True)
    organ, lesion = np.meshgrid(np.linspace(-4, 4, 48), np.linspace(-4, 4, 48), indexing="ij")
    outputs = np.stack([organ, lesion]).astype(np.float32)
    marked = np.asarray(task.decode([(WHOLE, {"mask": outputs})], GRID).data)
    likely = task.probabilities({"mask": outputs})["mask"] > 0.5
    assert np.array_equal(marked, np.select([likely[1], likely[0]], [5, 2]))

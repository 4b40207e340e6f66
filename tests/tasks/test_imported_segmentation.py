from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from hilum.errors import PlanError
from hilum.tasks import Task, fitting, task_catalogue, task_settings
from hilum.tasks.fitting import PredictedCases
from hilum.transforms import resampling
from hilum.transforms.label_resampling import StretchedOutputs
from hilum.values import Case, Geometry, Image, Prediction

LABELS = [{"value": 1, "name": "left"}, {"value": 2, "name": "right"}]
GIVEN = {"name": "imported_segmentation", "labels": LABELS, "loss": "dice+ce", "tolerance": 2.0, "writes": [0, 1, 2]}


def task(**changes: Any) -> Task:
    return task_catalogue.build_task({**GIVEN, **changes})


def outputs(*rows: list[float]) -> dict[str, np.ndarray]:
    """(channels, voxels, 1)"""
    return {"mask": np.array(rows, dtype=np.float32)[..., None]}


def decoded(made: Task, *rows: list[float]) -> list[int]:
    geometry = Geometry.of_pixels((len(rows[0]), 1))
    prediction = made.decode([((slice(0, len(rows[0])), slice(0, 1)), outputs(*rows))], geometry)
    return np.asarray(prediction.data).ravel().tolist()


def test_of_classes_the_largest_output_wins():
    assert decoded(task(), [3, 0, 0], [0, 3, 0], [0, 0, 3]) == [0, 1, 2]


def test_regions_are_written_where_they_are_likelier_than_not_one_over_another():
    regions = task(exclusive=False, writes=[2, 1])
    assert decoded(regions, [1, 1, -1, -1], [-1, 1, 1, -1]) == [2, 1, 1, 0]
    assert_allclose(regions.probabilities(outputs([0.0]))["mask"].ravel(), [0.5])


def test_regions_are_named_in_the_order_of_their_outputs_and_what_others_are_written_over_is_said():
    regions = task(exclusive=False, writes=[2, 1])
    assert [label.name for label in regions.channel_labels] == ["right", "left"]
    rows = outputs([1, 1, -1, -1], [-1, 1, 1, -1])
    made = regions.decode([((slice(0, 4), slice(0, 1)), rows)], Geometry.of_pixels((4, 1)))
    assert [(one.concept, one.value) for one in regions.results(made)] == [("right", 1), ("left", 2)]
    [note] = made.notes
    assert note.startswith(
        "right overlaps regions that are written over it: 1 of its 2 voxels are marked as these alone"
    )
    apart = regions.decode([((slice(0, 4), slice(0, 1)), outputs([1, 1, -1, -1], [-1, -1, 1, 1]))], made.geometry)
    assert apart.notes == ()


def test_of_a_group_of_labels_together_the_largest_piece_stays():
    rows = [[0, 0, 5, 0, 5, 0], [5, 0, 0, 0, 0, 5], [0, 5, 0, 5, 0, 0]]
    assert decoded(task(), *rows) == [1, 2, 0, 2, 0, 1]
    assert decoded(task(largest=[[1, 2]]), *rows) == [1, 2, 0, 0, 0, 0]
    # Of two that are alike, both stay, as in nnU-Net.
    assert decoded(task(largest=[[1]]), *rows) == [1, 2, 0, 2, 0, 1]


def test_several_networks_mean_their_outputs_or_their_probabilities():
    two = [{"mask": np.array([[[4.0]], [[0.0]], [[0.0]]])[None]}, {"mask": np.array([[[0.0]], [[2.0]], [[0.0]]])[None]}]
    assert_array_equal(task().average(two)["mask"].ravel(), [2, 1, 0])
    mean = np.mean([np.exp(one["mask"]) / np.exp(one["mask"]).sum() for one in two], axis=0)
    assert_allclose(np.exp(task(averaged="probabilities").average(two)["mask"]), mean, rtol=1e-6)


def test_no_output_changes_sides_in_a_mirror_for_its_maker_chose_the_axes():
    assert task().channels_when_mirrored == (0, 1, 2)


def test_it_is_made_again_from_its_settings():
    regions = task(exclusive=False, writes=[2, 1], largest=[[1, 2]], weighed="nnunet")
    assert task_catalogue.build_task({"name": regions.name, **task_settings.settings_of(regions)}) == regions


def test_no_data_set_is_taken_for_it():
    assert "imported_segmentation" not in task_catalogue.task_names()


@pytest.mark.parametrize(
    "changes", [{"writes": [0, 7]}, {"writes": None}, {"averaged": "labels"}, {"weighed": "flat"}, {"largest": 3}]
)
def test_impossible_settings_are_refused(changes):
    with pytest.raises(PlanError, match=r"task"):
        task(**changes)


def test_where_nobody_looks_at_the_outputs_the_largest_is_found_without_resampling_them_all(monkeypatch):
    def refused(*_args, **_options):
        raise AssertionError("all outputs were made")

    scores = np.random.default_rng(0).normal(size=(3, 4, 4, 4)).astype(np.float32)
    later = StretchedOutputs(scores, (resampling.axis_taps(4, 8), None, None), (0, 1, 2))
    wanted = np.asarray(later).argmax(axis=0)
    monkeypatch.setattr(StretchedOutputs, "__array__", refused)
    region = (slice(0, 8), slice(0, 4), slice(0, 4))
    made = task().decode([(region, {"mask": later})], Geometry((8, 4, 4), np.eye(4)))
    assert (np.asarray(made.data) == wanted).all()


def balls(*, sure: float, seed: int) -> tuple[list[Case], list[dict[str, np.ndarray]]]:
    """Six cases with a cube each, and outputs that are `sure` times too sure of it where they err at its edge."""
    random, geometry = np.random.default_rng(seed), Geometry((12, 12, 12), np.eye(4))
    cases, made = [], []
    for number in range(6):
        logits = np.full((3, *geometry.shape), -2.0, dtype=np.float32)
        logits[0] = 2.0
        logits[1:, 4:8, 4:8, 4:8] = random.normal(1.0, 1.0, size=(2, 4, 4, 4))
        logits[0, 4:8, 4:8, 4:8] = 0.0
        chances = np.exp(logits) / np.exp(logits).sum(axis=0)
        labels_sampled = (chances.cumsum(axis=0) < random.uniform(size=geometry.shape)).sum(axis=0).astype(np.uint8)
        images = {"CT": Image(np.zeros((1, 12, 12, 12), dtype=np.float32), geometry)}
        cases.append(Case(f"case{number}", f"patient{number}", images, {"mask": Image(labels_sampled[None], geometry)}))
        made.append({"mask": logits * sure})
    return cases, made


def stated(made: Task, each: list[dict[str, np.ndarray]]) -> list[Prediction]:
    whole = (slice(0, 12),) * 3
    return [made.decode([(whole, one)], Geometry((12, 12, 12), np.eye(4))) for one in each]


def test_a_sites_cases_calibrate_a_network_that_is_too_sure_and_leave_its_label_maps():
    cases, each = balls(sure=3.0, seed=0)
    adopted = task(largest=[[1, 2]])
    assert all(one.untuned is None for one in stated(adopted, each))
    opened = task_catalogue.untuned_task(adopted)
    before = stated(opened, each)
    tuned, made = fitting.with_fitted_calibration(opened, PredictedCases(before, cases))
    assert made["task.calibration"].value["cases"] == 6
    factor = task_settings.settings_of(tuned)["calibration"]["parameters"]["all"][0]
    assert factor == pytest.approx(1 / 3, rel=0.15)
    assured, promised = fitting.with_sets(tuned, PredictedCases(stated(tuned, each), cases), exact=False)
    assert {"task.conformal", "task.covering"} <= set(promised)
    after = stated(assured, each)
    for one, other in zip(stated(adopted, each), after, strict=True):
        assert_array_equal(np.asarray(one.data), np.asarray(other.data))
        assert set(other.confidence.expected) == {"left", "right"}
    assert task_catalogue.build_task({"name": assured.name, **task_settings.settings_of(assured)}) == assured


def test_regions_of_which_only_the_marks_are_known_are_not_calibrated():
    cases, each = balls(sure=1.0, seed=0)
    regions = task_catalogue.untuned_task(task(exclusive=False, writes=[2, 1]))
    two = [{"mask": one["mask"][1:]} for one in each]
    assert fitting.with_fitted_calibration(regions, PredictedCases(stated(regions, two), cases)) == (regions, {})
    assert fitting.with_sets(regions, PredictedCases(stated(regions, two), cases), exact=False) == (regions, {})

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from isocenter import tasks
from isocenter.errors import PlanError
from isocenter.tasks import Task
from isocenter.transforms import Stretched, taps
from isocenter.values import Geometry

LABELS = [{"value": 1, "name": "left"}, {"value": 2, "name": "right"}]
GIVEN = {"name": "imported_segmentation", "labels": LABELS, "loss": "dice+ce", "tolerance": 2.0, "writes": [0, 1, 2]}


def task(**changes: Any) -> Task:
    return tasks.build({**GIVEN, **changes})


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
    assert task().decoding.mirrored == (0, 1, 2)


def test_it_is_made_again_from_its_settings():
    regions = task(exclusive=False, writes=[2, 1], largest=[[1, 2]], weighed="nnunet")
    assert tasks.build({"name": regions.name, **regions.settings}) == regions


def test_no_data_set_is_taken_for_it():
    assert "imported_segmentation" not in tasks.names()


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
    later = Stretched(scores, (taps(4, 8), None, None), (0, 1, 2))
    wanted = np.asarray(later).argmax(axis=0)
    monkeypatch.setattr(Stretched, "__array__", refused)
    region = (slice(0, 8), slice(0, 4), slice(0, 4))
    made = task().decode([(region, {"mask": later})], Geometry((8, 4, 4), np.eye(4)))
    assert (np.asarray(made.data) == wanted).all()

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.runtime import label_measurements
from hilum.tasks import task_catalogue
from hilum.tasks.shared import structure_findings
from hilum.values import Geometry, Image, Label

LABELS = (Label(2, "liver"), Label(5, "cyst"), Label(7, "stone"))
SHAPE = (5, 4, 3)


def grid(physical: bool = True) -> Geometry:
    return Geometry(SHAPE, np.diag([2.0, 5.0, 10.0, 1.0]), physical=physical)


@given(st.integers(0, 50))
def test_size_mean_and_deviation_are_those_of_the_voxels_of_each_label(seed):
    rng = np.random.default_rng(seed)
    mask = rng.choice([0, 2, 5], size=SHAPE)
    data = rng.normal(40, 300, (2, *SHAPE))
    rows = label_measurements.measure_labels(mask, LABELS, Image(data, grid(), channels=("CT", "PET")))
    assert [row["label"] for row in rows] == ["liver", "cyst", "stone"]
    for row, label in zip(rows, LABELS, strict=True):
        inside = mask == label.value
        assert row["voxels"] == inside.sum()
        assert row["volume_ml"] == pytest.approx(inside.sum() * 0.1)
        for channel, name in enumerate(("CT", "PET")):
            own = data[channel][inside]
            expected = (own.mean(), own.std(), own.max()) if inside.any() else (np.nan,) * 3
            assert [row[f"{what}_{name}"] for what in ("mean", "sd", "max")] == pytest.approx(expected, nan_ok=True)


def test_where_no_object_was_found_nothing_is_measured():
    assert label_measurements.measure_labels(np.zeros(SHAPE, np.uint8), (), Image(np.zeros((1, *SHAPE)), grid())) == []


def test_a_small_deviation_beside_a_large_mean_is_not_lost():
    data = 1e6 + np.indices(SHAPE)[0] % 2
    [row, *_] = label_measurements.measure_labels(np.full(SHAPE, 2), LABELS, Image(data[None], grid(), channels=("a",)))
    assert row["sd_a"] == pytest.approx(data.std(), rel=1e-6)


def test_what_is_no_measurement_counts_for_the_volume_and_not_for_the_intensity():
    data = np.full((1, *SHAPE), 50.0)
    data[0, 0], data[0, 1] = -2000, np.nan
    image = Image(data, grid(), channels=("CT",), padding=(-2000, -2000), facts={"unit": "HU"})
    [row, *_] = label_measurements.measure_labels(np.full(SHAPE, 2), LABELS, image)
    assert (row["voxels"], row["mean_CT"], row["sd_CT"], row["unit"]) == (60, 50, 0, "HU")


def test_the_column_says_what_a_size_is_measured_in():
    mask = np.full(SHAPE, 2)
    unknown = label_measurements.measure_labels(mask, LABELS, Image(np.ones((1, *SHAPE)), grid(physical=False)))
    assert list(unknown[0]) == ["label", "voxels", "mean_0", "sd_0", "max_0"]
    flat = Image(np.ones((1, 4, 3)), Geometry((4, 3), np.diag([0.5, 2, 1])))
    assert label_measurements.measure_labels(mask[0], LABELS, flat)[0]["area_mm2"] == 12


def test_a_tilted_gantry_does_not_change_the_volume_that_lies_between_the_slices():
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    affine[1, 2] = 2.0
    [row, *_] = label_measurements.measure_labels(
        np.full(SHAPE, 2), LABELS, Image(np.ones((1, *SHAPE)), Geometry(SHAPE, affine))
    )
    assert row["volume_ml"] == pytest.approx(60 * 5 / 1000)


def test_transparency_of_a_picture_is_no_intensity():
    pixels = np.full((4, 4, 3), 7, np.uint8)
    image = Image(pixels, Geometry.of_pixels((4, 3)), channels=("R", "G", "B", "A"))
    assert set(label_measurements.measure_labels(np.full((4, 3), 2), LABELS, image)[0]) == {
        *("label", "voxels"),
        *(f"{name}_{channel}" for channel in "RGB" for name in ("mean", "sd", "max")),
    }


def test_the_axes_are_those_of_the_plane_in_which_a_structure_is_longest():
    mask = np.zeros((12, 10, 30), np.uint8)
    mask[2:4, 0:2, 2:28] = 2  # along the slices it is longer, which no plane shows
    mask[1:11, 4:7, 6] = 2
    image = Image(np.ones((1, *mask.shape)), Geometry(mask.shape, np.diag([0.5, 2.0, 3.0, 1.0])))
    liver, cyst, _ = label_measurements.measure_labels(mask, LABELS, image)
    # 10 voxels of 0.5 mm by 3 of 2 mm, between the middles of the outermost faces of opposite corners
    assert liver["long_axis_mm"] == pytest.approx(np.hypot(4.5, 6.0))
    assert liver["short_axis_mm"] < liver["long_axis_mm"]
    assert np.isnan(cyst["long_axis_mm"])


def test_axes_are_found_however_the_label_map_is_cut_into_blocks_and_the_grid_turned(monkeypatch):
    rng = np.random.default_rng(0)
    mask = (np.hypot(*(np.indices((24, 24)) - 12.0)) < rng.uniform(4, 10, 9)[:, None, None]).astype(np.uint8)
    mask = 2 * np.moveaxis(mask, 0, -1)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0] @ np.diag([0.7, 0.7, 4.0])
    affine = np.eye(4)
    found = []
    for steps, voxels in ((np.diag([0.7, 0.7, 4.0]), 2**20), (turn, 24 * 24)):
        monkeypatch.setattr("hilum.runtime.label_measurements.BLOCK_VOXELS", voxels)
        affine[:3, :3] = steps
        image = Image(np.ones((1, *mask.shape)), Geometry(mask.shape, affine))
        found.append(label_measurements.measure_labels(mask, LABELS, image)[0])
    assert found[0]["long_axis_mm"] == pytest.approx(found[1]["long_axis_mm"])
    assert found[0]["short_axis_mm"] == pytest.approx(found[1]["short_axis_mm"])


def test_of_pet_beside_ct_only_the_pet_has_a_peak_and_each_its_own_unit():
    facts = {"of_channels": {"CT": {"unit": "HU"}, "PET": {"unit": "SUVbw"}}}
    image = Image(np.ones((2, *SHAPE)), grid(), channels=("CT", "PET"), facts=facts)
    [row, *_] = label_measurements.measure_labels(np.full(SHAPE, 2), LABELS, image)
    assert (row["unit_CT"], row["unit_PET"], "unit" in row) == ("HU", "SUVbw", False)
    assert "peak_PET" in row and "peak_CT" not in row


def test_of_uptake_the_peak_stands_between_mean_and_most():
    grid = Geometry((24, 24, 24), np.diag([2.0, 2.0, 2.0, 1.0]))
    away = np.sqrt((((np.indices(grid.shape) - 12.0) * 2) ** 2).sum(axis=0))
    data = 10 * np.exp(-((away / 9) ** 2))
    image = Image(data[None], grid, channels=("PET",), facts={"unit": "SUVbw"})
    [liver, cyst, _] = label_measurements.measure_labels(np.where(away < 10, 2, 0), LABELS, image)
    assert liver["max_PET"] == pytest.approx(10)
    assert liver["mean_PET"] < liver["peak_PET"] < liver["max_PET"]
    inside = away <= 6.2035
    assert liver["peak_PET"] == pytest.approx(data[inside].mean())
    assert np.isnan(cyst["peak_PET"])


def test_in_a_large_picture_a_structure_is_measured_from_end_to_end(monkeypatch):
    mask = np.zeros((20, 30), np.uint8)
    mask[10, 3:27] = 2
    image = Image(np.ones((1, *mask.shape)), Geometry(mask.shape, np.diag([0.5, 2.0, 1.0])))
    [whole, *_] = label_measurements.measure_labels(mask, LABELS, image)
    monkeypatch.setattr("hilum.runtime.label_measurements.BLOCK_VOXELS", 5 * 20)
    [row, *_] = label_measurements.measure_labels(mask, LABELS, image)
    assert row["long_axis_mm"] == whole["long_axis_mm"] == pytest.approx(23 * 2.0, abs=2.0)
    assert row == whole


@pytest.mark.whole
def test_where_uptake_is_too_large_for_a_peak_its_voxels_fill_no_memory(monkeypatch):
    monkeypatch.setattr("hilum.runtime.label_measurements.MOST_PLACES", 1000)
    monkeypatch.setattr("hilum.runtime.label_measurements.BLOCK_VOXELS", 64 * 64)
    shape = (64, 64, 100)
    pixels, facts = np.ones((1, *shape), np.float32), {"unit": "SUVbw"}
    image = Image(pixels, Geometry(shape, np.eye(4)), channels=("PET",), facts=facts)
    mask = np.full(shape, 2, np.uint8)
    tracemalloc.start()
    [row, *_] = label_measurements.measure_labels(mask, LABELS, image)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.isnan(row["peak_PET"])
    assert most < 2 * 2**20  # their places would take 5 MB


def test_a_vessel_has_its_length_its_least_diameter_and_where_that_lies():
    mask, affine = np.zeros((30, 30, 60), np.uint8), np.diag([-0.5, 0.5, 1.0, 1.0])
    affine[:3, 3] = (40, -10, 100)
    rows, columns = np.ogrid[-15:15, -15:15]
    for plane in range(5, 55):
        radius = 8 - 4 * np.exp(-((plane - 30) ** 2) / 18)
        mask[..., plane][np.hypot(rows, columns) <= radius] = 2
    image = Image(np.ones((1, *mask.shape)), Geometry(mask.shape, affine))
    liver, cyst, stone = label_measurements.measure_labels(mask, LABELS, image, ("liver", "cyst"))
    assert liver["length_mm"] == pytest.approx(50, abs=1)
    assert liver["least_diameter_mm"] == pytest.approx(4, abs=0.2)
    assert [liver[f"least_{axis}_mm"] for axis in "xyz"] == pytest.approx([32.5, -2.5, 130], abs=0.5)
    assert 20 < liver["narrowing_percent"] < 50
    assert np.isnan(cyst["narrowing_percent"])
    assert "length_mm" not in stone
    findings = {one.concept: one for one in structure_findings.measured_findings(LABELS[0], [liver])}
    assert findings["narrowing"].unit == "%"
    assert findings["narrowing"].value == liver["narrowing_percent"]
    assert "narrowing" not in {one.concept for one in structure_findings.measured_findings(LABELS[1], [cyst])}


def test_the_centrelines_of_a_task_are_those_of_its_part_and_the_first_has_no_name():
    mask = {"name": "segmentation", "labels": [{"value": 1, "name": "artery"}], "loss": "dice+ce", "tolerance": 2.0}
    task = task_catalogue.build_task({**mask, "centrelines": ["artery"]})
    assert label_measurements.line_structures(task) == {"": ("artery",)}
    joint = {"name": "classification+segmentation", "weighting": "fixed", "segmentation.centrelines": ["artery"]}
    joint |= {"classification.classes": ["a", "b"], "classification.smoothing": 0.0}
    joint |= {f"segmentation.{key}": value for key, value in mask.items() if key != "name"}
    assert label_measurements.line_structures(task_catalogue.build_task(joint)) == {"": ("artery",)}

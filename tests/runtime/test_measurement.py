from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isocenter.runtime import measurements
from isocenter.values import Geometry, Image, Label

LABELS = (Label(2, "liver"), Label(5, "cyst"), Label(7, "stone"))
SHAPE = (5, 4, 3)


def grid(physical: bool = True) -> Geometry:
    return Geometry(SHAPE, np.diag([2.0, 5.0, 10.0, 1.0]), physical=physical)


@given(st.integers(0, 50))
def test_size_mean_and_deviation_are_those_of_the_voxels_of_each_label(seed):
    rng = np.random.default_rng(seed)
    mask = rng.choice([0, 2, 5], size=SHAPE)
    data = rng.normal(40, 300, (2, *SHAPE))
    rows = measurements(mask, LABELS, Image(data, grid(), channels=("CT", "PET")))
    assert [row["label"] for row in rows] == ["liver", "cyst", "stone"]
    for row, label in zip(rows, LABELS, strict=True):
        inside = mask == label.value
        assert row["voxels"] == inside.sum()
        assert row["volume_ml"] == pytest.approx(inside.sum() * 0.1)
        for channel, name in enumerate(("CT", "PET")):
            expected = (data[channel][inside].mean(), data[channel][inside].std()) if inside.any() else (np.nan,) * 2
            assert (row[f"mean_{name}"], row[f"sd_{name}"]) == pytest.approx(expected, nan_ok=True)


def test_a_small_deviation_beside_a_large_mean_is_not_lost():
    data = 1e6 + np.indices(SHAPE)[0] % 2
    [row, *_] = measurements(np.full(SHAPE, 2), LABELS, Image(data[None], grid(), channels=("a",)))
    assert row["sd_a"] == pytest.approx(data.std(), rel=1e-6)


def test_what_is_no_measurement_counts_for_the_volume_and_not_for_the_intensity():
    data = np.full((1, *SHAPE), 50.0)
    data[0, 0], data[0, 1] = -2000, np.nan
    image = Image(data, grid(), channels=("CT",), padding=(-2000, -2000), facts={"unit": "HU"})
    [row, *_] = measurements(np.full(SHAPE, 2), LABELS, image)
    assert (row["voxels"], row["mean_CT"], row["sd_CT"], row["unit"]) == (60, 50, 0, "HU")


def test_the_column_says_what_a_size_is_measured_in():
    mask = np.full(SHAPE, 2)
    unknown = measurements(mask, LABELS, Image(np.ones((1, *SHAPE)), grid(physical=False)))
    assert list(unknown[0]) == ["label", "voxels", "mean_0", "sd_0"]
    flat = Image(np.ones((1, 4, 3)), Geometry((4, 3), np.diag([0.5, 2, 1])))
    assert measurements(mask[0], LABELS, flat)[0]["area_mm2"] == 12


def test_a_tilted_gantry_does_not_change_the_volume_that_lies_between_the_slices():
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    affine[1, 2] = 2.0
    [row, *_] = measurements(np.full(SHAPE, 2), LABELS, Image(np.ones((1, *SHAPE)), Geometry(SHAPE, affine)))
    assert row["volume_ml"] == pytest.approx(60 * 5 / 1000)


def test_transparency_of_a_picture_is_no_intensity():
    pixels = np.full((4, 4, 3), 7, np.uint8)
    image = Image(pixels, Geometry.of_pixels((4, 3)), channels=("R", "G", "B", "A"))
    assert set(measurements(np.full((4, 3), 2), LABELS, image)[0]) == {
        *("label", "voxels"),
        *(f"{name}_{channel}" for channel in "RGB" for name in ("mean", "sd")),
    }

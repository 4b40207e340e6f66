from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from hilum.transforms.intensity import Normalisation


def everywhere(array: np.ndarray) -> np.ndarray:
    return np.ones(array.shape, bool)


def test_a_window_clips_in_the_files_unit_and_then_standardises():
    hounsfield = np.array([[-1000, -100], [20, 3000]], np.int16)
    window = Normalisation("window", low=-100, high=300, mean=100, deviation=50)
    assert_allclose(window.apply(hounsfield, everywhere(hounsfield)), [[-4, -4], [-1.6, 4]])


def test_a_range_is_mapped_to_0_and_1_and_then_standardised():
    grey = np.array([0, 51, 255], np.uint8)
    assert_allclose(Normalisation("range", 0, 255).apply(grey, everywhere(grey)), [0, 0.2, 1], rtol=1e-6)
    standard = Normalisation("range", 0, 255, mean=0.2, deviation=0.1).apply(grey, everywhere(grey))
    assert_allclose(standard, [-2, 0, 8], atol=1e-5)


def test_zscore_is_by_the_images_own_mean_and_deviation():
    values = np.array([1.0, 3.0] * 500)
    assert_allclose(Normalisation("zscore").apply(values, everywhere(values)), [-1, 1] * 500, atol=1e-6)


def test_zscore_clips_the_one_voxel_that_outshines_all():
    values = np.array([1.0, 3.0] * 500)
    values[0] = 1e6
    assert_allclose(Normalisation("zscore").apply(values, everywhere(values))[2:], [-1, 1] * 499, atol=0.01)
    assert Normalisation("zscore").apply(values, everywhere(values)).max() < 1.01


@given(st.floats(0.01, 100), st.floats(-1000, 1000))
def test_zscore_does_not_depend_on_the_scale_of_the_scanner(gain, offset):
    values = np.random.default_rng(1).normal(size=200)
    plain, changed = (Normalisation("zscore").apply(v, everywhere(v)) for v in (values, gain * values + offset))
    assert_allclose(changed, plain, atol=1e-2)


def test_a_constant_image_becomes_zero():
    flat = np.full((3, 4), 7, np.int16)
    assert_allclose(Normalisation("zscore").apply(flat, everywhere(flat)), 0)


@pytest.mark.parametrize("method", [Normalisation("zscore"), Normalisation("window", 0, 10, 5, 2)])
def test_what_is_no_measurement_is_left_out_of_the_statistics_and_becomes_the_lowest_that_is_one(method):
    measured = np.array([1.0, 2, 3, 4, 5, 6])
    padded = np.array([-2000, 1, 2, 3, np.nan, 4, 5, 6])
    valid = np.array([False, True, True, True, False, True, True, True])
    result = method.apply(padded, valid)
    assert_allclose(result[valid], method.apply(measured, everywhere(measured)))
    assert_allclose(result[~valid], result[1])


def test_an_image_without_any_measurement_becomes_zero():
    nothing = np.full((2, 2), np.nan)
    assert_allclose(Normalisation("zscore").apply(nothing, np.zeros((2, 2), bool)), 0)


@pytest.mark.parametrize("kind", ["u1", "i2", "u4", "f2", "f4", "f8", "b1"])
@pytest.mark.parametrize(
    "method", [Normalisation("zscore"), Normalisation("window", 0, 1), Normalisation("range", 0, 1)]
)
def test_every_number_type_becomes_single_precision_and_the_source_is_not_changed(method, kind):
    values = np.array([0, 1, 1, 0]).astype(kind)
    valid = np.array([True, True, False, True])
    result = method.apply(values, valid)
    assert result.dtype == np.float32
    assert values.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("tails", [None, "log"])
def test_a_structure_of_fewer_voxels_than_a_percentile_still_shows(tails):
    """As shapes of the adrenal gland: 0.3 % of the voxels, where both percentiles are those of the background."""
    values = np.zeros(10_000)
    values[:30] = 1
    seen = Normalisation("zscore", tails=tails).apply(values, everywhere(values))
    assert_allclose(seen.mean(), 0, atol=1e-5)
    assert_allclose(seen[0] - seen[-1], 1 / values.std(), rtol=1e-4)


def test_log_tails_keep_what_shines_apart_and_one_hot_voxel_small():
    """Enhancing lesions that fill less than a percentile, and a voxel of a metal clip."""
    values = np.random.default_rng(0).normal(100, 10, 100_000)
    values[:300] = np.repeat([300.0, 600.0, 1200.0], 100)
    values[300] = 1e9
    seen = Normalisation("zscore", tails="log").apply(values, everywhere(values))
    dim, middle, bright, hot = seen[[0, 100, 200, 300]]
    assert min(middle - dim, bright - middle) > 0.3
    assert hot < 25
    inside = np.abs(values - 100) < 20
    plain = Normalisation("zscore").apply(values, everywhere(values))
    assert_allclose(seen[inside], plain[inside], rtol=1e-6)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=60))
def test_log_tails_keep_the_order_of_values(values):
    given = np.sort(np.array(values, np.float32))
    seen = Normalisation("zscore", tails="log").apply(given, everywhere(given))
    assert (np.diff(seen) >= -1e-5 * np.abs(seen).max()).all()

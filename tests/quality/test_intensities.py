from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from hilum.quality import _intensities, dataset_examination, image_descriptors
from hilum.quality._intensities import PERCENTILES
from hilum.transforms import label_maps, orient, resampling
from hilum.values import Case, Dataset, Geometry, Image, slabs

SHAPE = (50, 40, 60)  # more than are sorted
KINDS = ("u1", "i1", "u2", "<i2", ">i2", "i4", "u4", "i8", "f2", "f4", "f8")


def volume(kind: str, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Air and a body, as a file of this type holds them."""
    rng = np.random.default_rng(seed)
    voxels = np.full(shape, 3.3)
    voxels[8:40, 5:, 11:44] += rng.gamma(2, 10, voxels[8:40, 5:, 11:44].shape).clip(0, 120)
    return np.asfortranarray(voxels.astype(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_statistics_are_those_of_all_measurements_sorted(kind, share):
    values = volume(kind)
    valid = np.random.default_rng(1).random(SHAPE) >= share
    measured, plain = _intensities.measure_intensities(values, valid), values[valid].astype(np.float64)
    exact = np.percentile(plain, list(PERCENTILES.values()))
    near = 1e-6 * np.ptp(plain) if kind == "f8" else 1e-9
    assert [measured.statistics[name] for name in PERCENTILES] == pytest.approx(exact.tolist(), abs=near)
    assert measured.statistics["mean"] == pytest.approx(plain.mean())
    assert measured.statistics["deviation"] == pytest.approx(plain.std())
    assert measured.clipped == np.mean(plain == plain.max())
    above = orient.content_region(valid & (values > values[valid].min()))
    assert measured.box == tuple((part.start, part.stop) for part in above)


@pytest.mark.parametrize("offset", [-1e9, 0, 1e9])
def test_numbers_far_from_zero_keep_their_percentiles(offset):
    for kind in ("f8", "i8", "i4"):
        values = (volume("f8") + offset).astype(kind)
        exact = np.percentile(values, list(PERCENTILES.values()))
        found = _intensities.measure_intensities(values).statistics
        assert [found[name] - offset for name in PERCENTILES] == pytest.approx((exact - offset).tolist(), abs=1e-4)


def test_infinite_voxels_and_one_far_outlier_change_no_percentile_of_the_rest():
    values = volume("f4")
    exact = np.percentile(values, 75)
    values[0, 0, 0], values[0, 0, 1], values[0, 0, 2] = np.nan, -np.inf, 1e30
    found = _intensities.measure_intensities(values, np.isfinite(values))
    assert found.broken == 2
    assert found.statistics["max"] == pytest.approx(1e30)
    assert found.statistics["p75"] == pytest.approx(exact, rel=1e-3)


def test_measurements_are_sampled_from_where_there_are_any():
    values = volume("<i2")
    valid = values > 60
    assert _intensities.sample_measurements(values, valid, 500).min() > 60
    assert len(_intensities.sample_measurements(values, np.ones(SHAPE, bool), 500)) == 500


def test_equal_volumes_have_one_digest_whatever_type_and_order_holds_them():
    grid = Geometry(SHAPE, np.diag([0.8, 0.8, 2.0, 1.0]))
    voxels = volume("<i2")
    digests = {
        image_descriptors.voxel_digest(Image(np.array(voxels, kind, order=order)[None], grid))
        for kind in ("u1", "<i2", ">i2", "u2", "i8", "f4", "f8")
        for order in "CF"
    }
    assert len(digests) == 1
    for change in (1, 0.25, np.nan):
        other = voxels.astype(np.float32)
        other[49, 39, 59] += change
        assert image_descriptors.voxel_digest(Image(other[None], grid)) not in digests


def test_the_small_image_is_the_whole_one_resampled():
    grid = Geometry(SHAPE, np.diag([-0.8, 0.8, 2.0, 1.0]))
    voxels = volume("<i2")
    low, high = np.percentile(voxels, (0.5, 99.5))
    scaled = ((voxels.astype(np.float32) - low) / (high - low)).clip(0, 1)
    small = image_descriptors.describe_image(Image(voxels[None], grid), np.ones((1, *SHAPE), bool)).small
    np.testing.assert_allclose(small, resampling.resample(scaled[None], (16, 16, 16))[0][::-1], atol=1e-3)


def test_a_look_makes_no_copy_of_a_volume():
    shape = (256, 256, 96)
    voxels = np.full(shape, -60, np.int16, order="F")
    voxels[20:200, 30:220] = np.random.default_rng(0).integers(-50, 300, (180, 190, 96))
    labels = np.zeros(shape, np.uint8, order="F")
    labels[60:90, 70:90, 40:60] = 1
    grid = Geometry(shape, np.diag([1.0, 1.0, 1.0, 1.0]))
    case = Case("c", "p", {"image": Image(voxels[None], grid)}, {"mask": Image(labels[None], grid)})
    tracemalloc.start()
    found = dataset_examination.examine(Dataset((case,), patients_known=True))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.fingerprint.cases[0].content_shape == (180, 190, 96)
    assert most < voxels.nbytes


@pytest.mark.parametrize("kind", ["?", "u1", "i2", "u2", "i8", "f4"])
def test_voxels_of_labels_are_counted_in_any_type(kind):
    labels = np.zeros((30, 20, 10), kind)
    labels[2:5, 3:7, 1:3] = 1
    assert slabs.label_voxels(labels) == {0: 6000 - 24, 1: 24}
    assert label_maps.box_of_content(labels) == (slice(2, 5), slice(3, 7), slice(1, 3))
    assert label_maps.boxes_of_labels(labels) == {1: label_maps.box_of_content(labels)}
    assert all(type(value) is int for value in slabs.label_voxels(labels))


def test_large_and_broken_label_values_are_counted_as_they_are():
    assert slabs.label_voxels(np.array([[-3, 10**9], [0, 10**9]])) == {-3: 1, 0: 1, 10**9: 2}
    assert slabs.label_voxels(np.array([0.5, 1.0, 1.0])) == {0.5: 1, 1: 2}


def test_each_label_has_its_box_however_large_or_negative_its_value():
    labels = np.zeros((4, 5), np.int64)
    labels[1, 1], labels[3, 2:4], labels[2, 4] = 10**9, -2, 7
    assert label_maps.boxes_of_labels(labels) == {
        -2: (slice(3, 4), slice(2, 4)),
        7: (slice(2, 3), slice(4, 5)),
        10**9: (slice(1, 2), slice(1, 2)),
    }
    assert label_maps.boxes_of_labels(np.zeros((4, 5), np.uint8)) == {}

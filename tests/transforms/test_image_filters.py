from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from hilum.errors import DatasetError
from hilum.transforms import image_filters
from hilum.transforms.image_filters import FILTERS
from hilum.values import Geometry, Image


def disc(shape=(48, 40), noise=0.0, level=100.0) -> np.ndarray:
    """A bright disc on a grey ground, with white noise."""
    away = np.sqrt(sum((g - n / 2) ** 2 for g, n in zip(np.indices(shape), shape, strict=True)))
    return 100 + level * (away < shape[0] / 4) + np.random.default_rng(0).normal(0, noise, shape)


def scan(values: np.ndarray, **facts) -> Image:
    values = values.astype(np.float32)
    return Image(values[None], Geometry.of_spacing(values.shape, (1.0,) * values.ndim), modality="MR", **facts)


@pytest.mark.parametrize("shape", [(64, 60), (32, 30, 28), (64, 60, 2)])
def test_the_noise_of_an_image_with_edges_is_that_which_was_added(shape):
    noisy = disc(shape, noise=7.0)
    assert image_filters.noise_deviation(noisy, np.ones(shape, bool)) == pytest.approx(7, rel=0.1)


@pytest.mark.parametrize("name", ["nlm", "tv"])
@pytest.mark.parametrize("shape", [(48, 40), (20, 18, 16)])
def test_noise_is_removed_without_knowing_its_strength_and_little_beside_it(name, shape):
    clean, noisy = disc(shape), disc(shape, noise=10.0)
    enhanced, [found] = image_filters.filter_image(scan(noisy), name, "p1")
    gained = peak_signal_noise_ratio(clean, enhanced.data[0], data_range=100)
    assert gained > peak_signal_noise_ratio(clean, noisy, data_range=100) + 4
    assert found["noise"] == pytest.approx(10, rel=0.15)


def test_total_variation_takes_away_as_much_as_the_noise_is_strong():
    noisy = disc(noise=10.0)
    enhanced, [found] = image_filters.filter_image(scan(noisy), "tv", "p1")
    assert np.std(enhanced.data[0] - noisy) == pytest.approx(found["noise"], rel=0.05)


def test_local_equalisation_raises_the_contrast_of_what_is_faint_within_the_range_of_the_image():
    image = scan(disc(level=8.0, noise=1.0))
    enhanced, _ = image_filters.filter_image(image, "clahe", "p1")
    assert enhanced.data.min() >= image.data.min() - 1e-3
    assert enhanced.data.max() <= image.data.max() + 1e-3
    assert enhanced.data[0, :8, :8].std() > 2 * image.data[0, :8, :8].std()


def test_a_smooth_bias_field_is_taken_out_and_the_mean_stays():
    flat = disc((32, 32), noise=1.0, level=20.0)
    field = np.exp(0.4 * np.linspace(-1, 1, 32))[:, None]
    enhanced, [found] = image_filters.filter_image(scan(flat * field), "n4", "p1")
    before, after = (np.log(one[:, 2:6].mean(axis=1)).std() for one in (flat * field, enhanced.data[0]))
    assert after < before / 3
    assert found["largest"] > 1.2
    assert np.log(enhanced.data[0]).mean() == pytest.approx(np.log(flat * field).mean(), abs=0.02)


def test_what_is_no_measurement_stays_and_channels_are_filtered_alone():
    values = np.stack([disc(noise=5.0), disc(noise=5.0) + 1000])
    values[:, :6] = -2000
    image = Image(values.astype(np.float32), Geometry.of_pixels(values.shape[1:]), padding=(-2000, -2000))
    for name in FILTERS.keys() - {"n4"}:
        enhanced, settings = image_filters.filter_image(image, name, "p1")
        assert (enhanced.data[:, :6] == -2000).all()
        assert enhanced.geometry == image.geometry
        assert len(settings) == 2
        np.testing.assert_allclose(enhanced.data[1, 6:] - enhanced.data[0, 6:], 1000, atol=0.01)


def test_an_image_without_noise_is_returned_as_it_is():
    image = scan(disc())
    for name in ("nlm", "tv"):
        np.testing.assert_array_equal(image_filters.filter_image(image, name, "p1")[0].data, image.data)


@pytest.mark.parametrize("value", [0, 7])
def test_an_empty_frame_is_named_by_each_filter_that_needs_contrast(value):
    frame = disc(noise=5.0)
    values = np.stack([frame, np.full_like(frame, value), frame])[None].astype(np.float32)
    frames = Image(values, Geometry.of_pixels(frame.shape))
    for name in ("nlm", "tv", "n4"):
        with pytest.raises(DatasetError, match=rf"^p1: frame 2 of 3 is empty: every voxel of it is {value}\."):
            image_filters.filter_image(frames, name, "p1")
    np.testing.assert_array_equal(image_filters.filter_image(frames, "clahe", "p1")[0].data[0, 1], value)


def test_an_image_that_is_nowhere_above_zero_has_no_bias_field():
    values = np.zeros((40, 40))
    values[0, 0] = -5
    with pytest.raises(DatasetError, match=r"^p1: has no intensity above zero\."):
        image_filters.filter_image(scan(values), "n4", "p1")


def test_what_cannot_be_filtered_is_refused_with_its_case():
    signal = Image(np.ones((1, 50), np.float32), Geometry.of_pixels((50,)))
    for image, name, problem in (
        (signal, "nlm", "no plane"),
        (scan(disc(noise=1.0)[28:36, 28:36]), "tv", "too few voxels"),
        (scan(disc(noise=1.0) - 1000), "n4", "below zero"),
    ):
        with pytest.raises(DatasetError, match=problem) as refused:
            image_filters.filter_image(image, name, "p1")
        assert refused.value.where == "p1"

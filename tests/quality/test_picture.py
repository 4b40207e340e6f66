"""Each measure moves when the fault is put into a real image, and only then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import pytest
from scipy import ndimage

from hilum.quality import _intensities, image_quality


def measured(values: np.ndarray, steps: tuple[float, ...] = ()) -> dict[str, float]:
    valid = np.ones(values.shape, bool)
    return dict(
        image_quality.measure_quality(
            values, valid, _intensities.measure_intensities(values), steps or (1.0,) * values.ndim
        )
    )


@pytest.fixture(scope="module")
def heart(data: Path) -> np.ndarray:
    """A short-axis slice of a heart, (256, 256)."""
    path = data / "mri" / "cardiac_sunnybrook" / "images" / "SC-HYP-06-IM-0001-0068.png"
    return np.asarray(PIL.Image.open(path).convert("L"), np.float32)


def test_a_blurred_image_is_less_sharp_and_nothing_else_is_said_of_it(heart):
    sharp, blurred = measured(heart), measured(ndimage.gaussian_filter(heart, 1.5))
    assert blurred["sharpness"] < sharp["sharpness"] - 1
    assert blurred["noise"] < sharp["noise"]


@pytest.mark.parametrize("share", [0.03, 0.06])
def test_noise_is_measured_as_its_share_of_the_range(heart, share):
    smooth = ndimage.gaussian_filter(heart, 2)
    low, high = np.percentile(smooth, (0.5, 99.5))
    noisy = smooth + np.random.default_rng(0).normal(0, share * (high - low), heart.shape)
    own = np.percentile(noisy, 99.5) - np.percentile(noisy, 0.5)
    assert measured(noisy)["noise"] * own / (high - low) == pytest.approx(share, rel=0.15)


def test_noise_of_noise_alone_is_its_standard_deviation():
    noise = np.random.default_rng(1).normal(100, 7, (200, 200))
    low, high = np.percentile(noise, (0.5, 99.5))
    assert measured(noise)["noise"] * (high - low) == pytest.approx(7, rel=0.05)


@pytest.mark.parametrize("axis", [0, 1])
def test_an_echo_along_either_axis_is_seen_and_a_stronger_one_seen_more(heart, axis):
    clean, weak, strong = (measured(heart + part * np.roll(heart, 80, axis))["echo"] for part in (0, 0.15, 0.3))
    assert clean < 0.06
    assert 1.3 * clean < weak < strong / 1.3


def test_what_is_cut_off_at_the_top_is_clipped(heart):
    assert measured(heart)["clipped"] < 0.001
    assert measured(np.minimum(heart, np.percentile(heart, 90)))["clipped"] > 0.09


@pytest.mark.parametrize("words", ["SMITH 1970", "LOGIQ E9"])
def test_a_line_of_letters_is_found(heart, words):
    picture = PIL.Image.fromarray(heart.astype(np.uint8))
    assert image_quality.longest_line(heart / 255) < 3
    font = PIL.ImageFont.load_default(size=18)
    PIL.ImageDraw.Draw(picture).text((12, 12), words, fill=255, font=font)
    assert image_quality.longest_line(np.asarray(picture, np.float32) / 255) >= 3


def test_dots_far_apart_are_no_letters():
    dots = np.zeros((256, 256), np.float32)
    for n in range(8):
        dots[100:108, 10 + 30 * n : 14 + 30 * n] = 1.0
    assert image_quality.longest_line(dots) < 3


def test_a_faulty_volume_is_measured_in_its_planes(heart):
    volume = np.stack([heart] * 6, axis=-1)
    clean = measured(volume, (1.0, 1.0, 5.0))
    ghosted = measured(volume + 0.3 * np.roll(volume, 80, 1), (1.0, 1.0, 5.0))
    assert clean["sharpness"] == pytest.approx(measured(heart)["sharpness"], abs=1e-3)
    assert ghosted["echo"] > 2 * clean["echo"]
    assert clean["letters"] == 0


def test_a_volume_in_which_every_nth_voxel_is_air_is_no_graphic():
    volume = np.random.default_rng(4).normal(100, 9, (128, 128, 20))
    volume[..., 0] = 0  # 80 voxels apart, which is a 4096th, lie in this plane alone
    assert np.isfinite(measured(volume)["noise"])


def test_a_graphic_of_plain_values_has_no_quality():
    graphic = (np.indices((64, 64)).sum(axis=0) > 60).astype(np.uint8) * 255
    assert all(np.isnan(value) for value in measured(graphic).values())


@pytest.mark.parametrize("shape", [(3, 3), (1, 40), (5, 4), (2, 3, 2), (1, 1, 1)])
def test_images_of_any_size_are_measured(shape):
    noise = np.random.default_rng(2).normal(size=shape)
    assert 0 <= measured(noise)["letters"] <= 1 or np.isnan(measured(noise)["letters"])

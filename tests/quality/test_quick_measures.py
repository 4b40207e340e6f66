"""Measures of an image that a node takes while an answer waits."""

from __future__ import annotations

import numpy as np
import pytest

from hilum.quality import image_quality
from hilum.values import Deferred, Geometry, Image

SHAPE = (40, 36, 12)


def volume(sd: float, channels: int = 1) -> Image:
    smooth = np.stack([np.indices(SHAPE)[0] * 10.0] * channels)
    voxels = smooth + np.random.default_rng(0).normal(0, sd, smooth.shape)
    return Image(voxels.astype(np.float32), Geometry(SHAPE, np.diag([-1.0, -1, 3, 1])))


def test_noise_is_measured_by_a_few_planes_and_intensities_by_their_voxels():
    quiet, noisy = image_quality.quick_measures(volume(1.0)), image_quality.quick_measures(volume(10.0))
    assert noisy["noise"] > 5 * quiet["noise"]
    assert abs(quiet["mean"] - 195) < 1 and abs(quiet["sd"] - 115.4) < 1
    assert quiet["p1"] < 5 and quiet["p99"] > 385


def test_of_a_file_that_is_read_in_parts_only_planes_are_read():
    image, read = volume(1.0), []

    def region(place):
        read.append(place)
        return image.data[place]

    parts = Deferred(image.shape, image.dtype, lambda: image.data, region)
    assert image_quality.quick_measures(image.with_pixels(parts)) == image_quality.quick_measures(image)
    assert all(place[3].stop - place[3].start == 1 for place in read)
    assert image_quality.quick_measures(image.with_pixels(Deferred(image.shape, image.dtype, lambda: image.data))) == {}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_is_measured_wherever_its_axis_lies(axis):
    whole = volume(1.0)
    voxels = whole.data.take([5], axis=axis + 1)
    image = Image(voxels, Geometry(voxels.shape[1:], np.diag([-1.0, -1, 3, 1])))
    in_parts = image.with_pixels(Deferred(image.shape, image.dtype, lambda: image.data, lambda at: image.data[at]))
    assert image_quality.quick_measures(in_parts) == image_quality.quick_measures(image)
    assert "noise" in image_quality.quick_measures(image)


def test_channels_are_named_and_one_value_everywhere_has_no_noise():
    assert {"noise of 0", "noise of 1"} <= image_quality.quick_measures(volume(1.0, channels=2)).keys()
    flat = Image(np.full((1, 16, 16), 7.0), Geometry.of_pixels((16, 16)))
    assert image_quality.quick_measures(flat) == {"mean": 7.0, "sd": 0.0, "p1": 7.0, "p99": 7.0}

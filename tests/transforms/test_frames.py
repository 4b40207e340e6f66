"""Frames evenly spread over a clip."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from isocenter.errors import GeometryError
from isocenter.transforms import evenly, frames_as_channels, stacked, thinned
from isocenter.values import Geometry, Image


def clip(frames: int) -> Image:
    voxels = np.broadcast_to(np.arange(frames)[None, :, None, None], (2, frames, 3, 4)).astype(np.float32)
    return Image(voxels, Geometry.of_pixels((3, 4)), times=tuple(0.1 * n for n in range(frames)))


@given(st.integers(1, 200), st.integers(1, 40))
def test_chosen_frames_rise_and_neighbours_lie_equally_far_apart(frames, wanted):
    chosen = evenly(frames, wanted)
    assert len(chosen) == wanted
    assert 0 <= chosen[0] <= chosen[-1] < frames
    steps = np.diff(chosen)
    assert len(steps) == 0 or steps.max() - steps.min() <= 1


def test_as_many_frames_as_there_are_are_all_of_them():
    assert evenly(9, 9) == list(range(9))


def test_a_thinned_clip_keeps_the_times_of_its_frames_and_a_short_one_comes_twice():
    assert thinned(clip(12), 4, "x").times == pytest.approx((0.1, 0.4, 0.7, 1.0))
    assert_array_equal(thinned(clip(2), 4, "x").data[0, :, 0, 0], [0, 0, 1, 1])


def test_a_still_image_is_no_clip():
    with pytest.raises(GeometryError, match="no frames"):
        thinned(clip(3).frame(0), 2, "x")


def test_frames_become_channels_those_of_the_first_channel_first():
    voxels = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    assert_array_equal(frames_as_channels(voxels, 3), voxels.reshape(6, 4))


def test_clips_of_one_case_must_show_the_same_moments():
    assert stacked({"a": clip(3), "b": clip(3)}, "x").shape == (4, 3, 3, 4)
    with pytest.raises(GeometryError, match="frames"):
        stacked({"a": clip(3), "b": clip(4)}, "x")

"""Frames evenly spread over a clip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from hilum.errors import GeometryError
from hilum.transforms import channel_stack, clip_frames
from hilum.values import Geometry, Image


def clip(frames: int) -> Image:
    voxels = np.broadcast_to(np.arange(frames)[None, :, None, None], (2, frames, 3, 4)).astype(np.float32)
    return Image(voxels, Geometry.of_pixels((3, 4)), times=tuple(0.1 * n for n in range(frames)))


@given(st.integers(1, 200), st.integers(1, 40))
def test_chosen_frames_rise_and_neighbours_lie_equally_far_apart(frames, wanted):
    chosen = clip_frames.spread_frames_evenly(frames, wanted)
    assert len(chosen) == wanted
    assert 0 <= chosen[0] <= chosen[-1] < frames
    steps = np.diff(chosen)
    assert len(steps) == 0 or steps.max() - steps.min() <= 1


def test_as_many_frames_as_there_are_are_all_of_them():
    assert clip_frames.spread_frames_evenly(9, 9) == list(range(9))


def test_a_thinned_clip_keeps_the_times_of_its_frames_and_a_short_one_comes_twice():
    assert clip_frames.thin_clip(clip(12), clip_frames.spread_frames_evenly(12, 4)).times == pytest.approx(
        (0.1, 0.4, 0.7, 1.0)
    )
    assert_array_equal(
        clip_frames.thin_clip(clip(2), clip_frames.spread_frames_evenly(2, 4)).data[0, :, 0, 0], [0, 0, 1, 1]
    )


@given(st.integers(2, 60), st.floats(0.01, 3), st.floats(0.5, 4))
def test_each_slot_has_the_frame_that_was_taken_nearest_to_its_time(frames, step, factor):
    times, interval = [5 + step * n for n in range(frames)], factor * step
    slots = clip_frames.frames_at_steps(times, interval, 400)
    found = [one for one in slots if one is not None]
    assert (slots[0], found) == (0, sorted(set(found)))
    for slot, one in enumerate(slots):
        away = [abs(time - times[0] - slot * interval) for time in times]
        if one is None:
            assert min(away) >= interval / 2 * (1 - 1e-9)
        else:
            assert away[one] == pytest.approx(min(away), abs=1e-9 * frames)


def test_a_shorter_clip_has_no_frames_in_its_last_slots_and_a_lost_frame_leaves_its_own_empty():
    assert clip_frames.frames_in_slots(clip(4), 6, 0.1, "s", "x") == [0, 1, 2, 3, None, None]
    assert clip_frames.frames_in_slots(clip(9), 6, 0.2, "s", "x") == [0, 2, 4, 6, 8, None]
    assert clip_frames.frames_in_slots(clip(9), 6, 2, "frame", "x") == [0, 2, 4, 6, 8, None]
    lost = replace(clip(4), times=(0.0, 0.1, 0.3, 0.4))
    assert clip_frames.frames_in_slots(lost, 5, 0.1, "s", "x") == [0, 1, None, 2, 3]


def test_a_slot_without_a_frame_is_no_number_and_the_others_are_what_they_were():
    frames = np.arange(6, dtype=np.float32).reshape(3, 2)
    spread = clip_frames.place_in_slots(frames, [0, None, 1, 2, None])
    assert_array_equal(np.isnan(spread).all(axis=1), [False, True, False, False, True])
    assert_array_equal(spread[[0, 2, 3]], frames)
    assert clip_frames.place_in_slots(frames, [0, 1, 2]) is frames


@pytest.mark.parametrize(
    ("image", "interval", "unit", "says"),
    [
        (clip(3).frame(0), None, None, "has no frames, and the model takes 6 of a clip"),
        (clip(3).frame(0), 0.1, "s", "has no frames"),
        (clip(1), None, None, "has 1 frame, and the model needs what changes"),
        (clip(1), 0.1, "s", "has 1 frame"),
        (clip(9), 0.1, "s", r"lasts 0\.8 s, and the model takes a frame every 0\.1, 6 times at most"),
        (clip(9), 1, "frame", "lasts 8 frames, and the model takes a frame every 1, 6 times at most"),
        (clip(2), 0.5, "s", r"lasts 0\.1 s.* Give a longer clip"),
        (clip(2), 0.02, "s", "has 2 frames, .* Give a clip with more of them"),
        (replace(clip(3), times=None), 0.1, "s", r"does not state the times of its frames.* every 0\.1 s"),
    ],
)
def test_a_clip_that_the_model_cannot_look_at_is_refused_by_what_is_wrong_with_it(image, interval, unit, says):
    with pytest.raises(GeometryError, match=says):
        clip_frames.frames_in_slots(image, 6, interval, unit, "x")


def test_frames_become_channels_those_of_the_first_channel_first():
    voxels = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    assert_array_equal(clip_frames.frames_as_channels(voxels, 3), voxels.reshape(6, 4))


def test_clips_of_one_case_must_show_the_same_moments():
    assert channel_stack.stack_images({"a": clip(3), "b": clip(3)}, "x").shape == (4, 3, 3, 4)
    with pytest.raises(GeometryError, match="frames"):
        channel_stack.stack_images({"a": clip(3), "b": clip(4)}, "x")

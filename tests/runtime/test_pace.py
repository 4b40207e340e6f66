"""Windows follow each other as closely as the time allows, and never closer than was planned."""

from __future__ import annotations

import time

import numpy as np
import pytest

from hilum.runtime.windows import pipeline, slide

IMAGE = np.zeros((1, 40, 30), np.float32)


def chosen(seconds: float, planned: float = 0.5, each: float = 0.02) -> float:
    seen = []

    def network(batch):
        seen.append(batch.shape)
        time.sleep(each)
        return {}

    found = pipeline.overlap_within(
        seconds, planned, network, IMAGE, (8, 32), lambda overlap: slide.window_count((40, 30), (8, 32), overlap)
    )
    assert seen == [(1, 1, 8, 32)] * 2  # a whole window, though the image is smaller along one axis
    return found


def test_with_time_enough_it_is_as_planned():
    assert chosen(3600) == 0.5
    assert chosen(3600, planned=0.3) == 0.3


def test_with_no_time_windows_do_not_overlap():
    assert chosen(0.0) == 0.0


def test_between_the_two_what_is_chosen_fits_and_the_next_would_not():
    # 9 windows share a half, 5 share nothing: each sleeps 50 ms, so that 0.3 s are enough for 5 or 6.
    found = chosen(0.35, each=0.05)
    assert found < 0.5
    assert slide.window_count((40, 30), (8, 32), found) * 0.05 <= 0.35


def test_what_was_planned_closely_stays_no_closer():
    assert chosen(0.0, planned=0.1) == pytest.approx(0.0)

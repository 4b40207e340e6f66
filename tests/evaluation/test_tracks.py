"""Tracks of clips that are worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from hilum.evaluation import tracks
from hilum.evaluation.tracks import TrackedFrame


def boxes(*places, size=10.0):
    """Squares with these centres."""
    centres = np.reshape(places, (-1, 2)).astype(float)
    return np.concatenate([centres - size / 2, centres + size / 2], axis=1)


def numbers(frames, kinds=None):
    return tracks.follow_boxes([(one, (kinds or ["cell"] * 9)[: len(one)]) for one in frames])


def clip(predicted, overlap=1.0):
    """A clip of one object, found in a track a frame; None where it is missed."""
    return [
        TrackedFrame([7], [] if one is None else [one], np.full((1, int(one is not None)), overlap))
        for one in predicted
    ]


def test_crossing_objects_keep_their_tracks_by_their_motion():
    frames = [boxes((8 * n, 50), (80 - 8 * n, 52)) for n in range(11)]
    frames = [one if n % 2 else one[::-1] for n, one in enumerate(frames)]
    made = numbers(frames)
    assert [one if n % 2 else one[::-1] for n, one in enumerate(made)] == [made[1]] * 11


def test_a_track_goes_on_after_five_frames_and_ends_after_six():
    assert numbers([boxes((5, 5)), *[boxes()] * 5, boxes((6, 5))])[-1] == [1]
    assert numbers([boxes((5, 5)), *[boxes()] * 6, boxes((6, 5))])[-1] == [2]


def test_an_object_of_another_class_or_far_away_begins_a_track():
    assert tracks.follow_boxes([(boxes((5, 5)), ["cell"]), (boxes((5, 5)), ["speck"])]) == [[1], [2]]
    assert numbers([boxes((5, 5)), boxes((40, 5))]) == [[1], [2]]


@pytest.mark.parametrize(
    ("predicted", "score", "switches"),
    [
        ([1, 1, 1, 1], 1.0, 0),
        ([1, 1, 2, 2], np.sqrt(1 * 0.5), 1),  # all found; each half is associated with half of the object
        ([1, 1, None, None], np.sqrt(0.5 * 0.5), 0),
        ([1, None, 2, 1], np.sqrt(0.75 * (2 * 2 / 4 + 1 / 4) / 3), 2),
    ],
)
def test_hota_and_switches_are_those_worked_out_by_hand(predicted, score, switches):
    assert_allclose(tracks.hota(clip(predicted)), score)
    assert tracks.identity_switches(clip(predicted)) == switches


def test_of_the_thresholds_of_hota_those_up_to_the_overlap_are_met():
    assert_allclose(tracks.hota(clip([1, 1], overlap=0.5)), 10 / 19)


def table(keeps: bool) -> pd.DataFrame:
    """A clip of two objects in three frames, which are found where they are."""
    rows = []
    for frame in range(3):
        place = boxes((20 + frame, 20), (60 - frame, 60))
        held = (4, 9) if keeps or frame % 2 == 0 else (9, 4)
        cell = tracks.frame_scores_json(f"a_frame{frame:03}", place, place, held, np.eye(2))
        rows.append({"case": f"a_frame{frame:03}", "patient": "p", "label": "all", "tracks": cell})
    return pd.DataFrame(rows[::-1])


def test_a_clip_has_scores_of_tracks_where_the_objects_of_its_reference_keep_their_numbers():
    rows = {row.metric: row.estimate for row in tracks.track_rows(table(keeps=True), seed=0)}
    assert (rows["hota"].value, rows["identity_switches"].value) == (1.0, 0.0)
    assert list(tracks.track_rows(table(keeps=False), seed=0)) == []


def test_an_image_that_is_no_frame_has_no_tracks():
    assert tracks.frame_scores_json("case 3", boxes((5, 5)), boxes((5, 5)), (1,), np.eye(1)) is None

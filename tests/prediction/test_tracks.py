"""The tracks of clips of objects, as `predict` writes them."""

from __future__ import annotations

import numpy as np

from hilum.prediction import _computed_case
from hilum.tasks.detection.question import Detection
from hilum.tasks.instances.question import InstanceSegmentation
from hilum.values import BoundingBoxes, Geometry, Label, Prediction

GRID = Geometry.of_pixels((32, 32))


def clip(*frames) -> Prediction:
    return Prediction(GRID, frames=frames)


def test_boxes_of_a_clip_have_a_track_each_with_its_mean_score():
    def frame(*places, low=()):
        scores = np.array([0.9, 0.5, 0.1])[: len(places)]
        corners = np.array([[x, x, x + 6, x + 6] for x in places], float)
        return Prediction(GRID, boxes=BoundingBoxes(corners, ("cell",) * len(places), scores), threshold=0.3)

    made = _computed_case.tracks_of(Detection(("cell",), 2, 6.0), clip(frame(2, 20, 10), frame(21, 3), frame(4)))
    assert made.of_frames == [[1, 2], [2, 1], [1]]
    assert made.rows == [
        {"track": 1, "label": "cell", "first_frame": 0, "last_frame": 2, "frames": 3, "score": 0.766667},
        {"track": 2, "label": "cell", "first_frame": 0, "last_frame": 1, "frames": 2, "score": 0.7},
    ]


def test_objects_of_a_clip_are_followed_whatever_numbers_they_have():
    def frame(**places):
        data = np.zeros(GRID.shape, np.uint16)
        for number, at in places.items():
            data[at : at + 6, at : at + 6] = int(number[1:])
        return Prediction(GRID, data=data, labels=tuple(Label(n, f"object {n}") for n in range(1, len(places) + 1)))

    made = _computed_case.tracks_of(InstanceSegmentation((1.0, 1.0), 1.0), clip(frame(n1=2, n2=20), frame(n1=19, n2=3)))
    assert made.of_frames == [[1, 2], [2, 1]]


def test_an_object_is_followed_as_one_of_its_class():
    def frame(**places):
        data = np.zeros(GRID.shape, np.uint16)
        for number, (_, at) in enumerate(places.items(), start=1):
            data[at : at + 6, at : at + 6] = number
        return Prediction(GRID, data=data, labels=tuple(Label.of_object(n, kind) for n, kind in enumerate(places, 1)))

    made = _computed_case.tracks_of(
        InstanceSegmentation((1.0, 1.0), 1.0), clip(frame(disc=2, square=20), frame(square=3, disc=19))
    )
    assert made.of_frames == [[1, 2], [3, 4]]  # a square in the place of a disc is another object
    assert [row["label"] for row in made.rows] == ["disc", "square", "square", "disc"]


def test_a_still_image_has_no_tracks():
    assert _computed_case.tracks_of(Detection(("cell",), 2, 6.0), Prediction(GRID)) is None

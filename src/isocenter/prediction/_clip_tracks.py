"""The objects of a clip, followed from frame to frame: a track each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isocenter.evaluation import tracks
from isocenter.tasks import Task
from isocenter.transforms import label_maps
from isocenter.values import Floats, Prediction

OBJECT = "object"


@dataclass(frozen=True, eq=False)
class Tracks:
    """The tracks of a clip.

    of_frames: the track of each called box, or each object by its number, frame by frame
    rows:      of `tracks.csv`: track, label, first_frame, last_frame, frames, score (mean)
    """

    of_frames: Sequence[Sequence[int]]
    rows: Sequence[Mapping[str, Any]]


def tracks_of(task: Task, prediction: Prediction) -> Tracks | None:
    """The tracks of a clip that a detection or an instance segmentation has seen frame by frame; None of any other."""
    frames = prediction.frames
    tells_objects = any(head.tells_objects for head in task.heads.values())
    if not frames or prediction.parts or not (tells_objects or frames[0].boxes is not None):
        return None
    objects = [_called_boxes(frame) for frame in frames]
    numbers = tracks.follow_boxes([(corners, names) for corners, names, _ in objects])
    sightings: dict[int, list[tuple[int, str, float]]] = {}
    for frame, (frame_numbers, (_, names, scores)) in enumerate(zip(numbers, objects, strict=True)):
        for track, name, score in zip(frame_numbers, names, scores, strict=True):
            sightings.setdefault(track, []).append((frame, name, score))
    rows = [
        {
            "track": track,
            "label": each[0][1],
            "first_frame": each[0][0],
            "last_frame": each[-1][0],
            "frames": len(each),
            "score": round(float(np.mean([score for *_, score in each])), 6),
        }
        for track, each in sorted(sightings.items())
    ]
    return Tracks(numbers, rows)


def _called_boxes(frame: Prediction) -> tuple[Floats, Sequence[str], Sequence[float]]:
    """(corners, classes, scores) of what is called in a frame, in the order of its rows."""
    if (called := frame.called_boxes) is not None:
        return called.corners, called.names, np.ravel(called.scores if called.scores is not None else []).tolist()
    numbers, corners = label_maps.boxes_of_numbers(np.asarray(frame.data))
    names = {label.value: label.name for label in frame.labels}
    scores = [frame.confidence.scores.get(names.get(number, ""), float("nan")) for number in numbers]
    kinds = {label.value: label.kind or OBJECT for label in frame.labels}
    return corners, [kinds.get(number, OBJECT) for number in numbers], scores

"""Objects followed from frame to frame of a clip, and how well they were followed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum.evaluation import box_matching, intervals
from hilum.evaluation.case_tables import Table
from hilum.evaluation.intervals import Seed
from hilum.evaluation.metric import Metric
from hilum.files.storage import structured_text
from hilum.lazy import optimize
from hilum.values import Floats, Row

# Frames that an object may be missing from a track.
LONGEST_GAP = 5
# The mean of overlap and nearness from which on two boxes may be one object: less than a width apart, as it moves.
LEAST_FIT = 0.2
# Of the links between boxes of a reference, the share that keeps the object's number where it has tracks.
KEPT_NUMBERS = 0.8
# HOTA: Luiten et al., Int J Comput Vis 2021, doi:10.1007/s11263-020-01375-2; identity switches: CLEAR MOT, Bernardin
# and Stiefelhagen, EURASIP J Image Video Process 2008, doi:10.1155/2008/246309. Both as TrackEval counts them.
ALPHAS = np.arange(0.05, 0.99, 0.05)
SWITCH_OVERLAP = 0.5
ROUNDING = float(np.finfo(float).eps)
HOTA = "hota"
SWITCHES = "identity_switches"
TRACK_METRICS = (Metric(HOTA, "Tracking (HOTA)"), Metric(SWITCHES, "Identity switches a clip", "less", unit="switches"))
# A case that is a frame, as layouts name it.
FRAME = re.compile(r"(.*)_frame(\d+)")


@dataclass(eq=False)
class _Track:
    """An object as it was last seen. speed: voxels a frame of its corners"""

    number: int
    kind: str
    corners: Floats
    last: int
    speed: Floats = field(default_factory=lambda: np.zeros(1))

    def expected_corners(self, frame: int) -> Floats:
        """Its corners in a later frame, if it goes on as it did."""
        return self.corners + self.speed * (frame - self.last)

    def see(self, corners: Floats, frame: int) -> None:
        """Take its place in a frame."""
        shift = np.tile(((corners - self.corners).reshape(2, -1)).mean(axis=0), 2)
        self.speed = shift / (frame - self.last)
        self.corners = corners
        self.last = frame


def follow_boxes(frames: Sequence[tuple[Floats, Sequence[str]]]) -> list[list[int]]:
    """The track of each box of each frame, from 1 on: by overlap with where the last motion leads, Hungarian method.

    frames: (n, 2 * axes) corners of the boxes of each, and their classes
    A track goes on after at most five frames without its object.
    """
    tracks = list[_Track]()
    numbers_of_frames = list[list[int]]()
    count = 0
    for frame, (corners, kinds) in enumerate(frames):
        tracks = [one for one in tracks if frame - one.last <= LONGEST_GAP + 1]
        fit: Floats = np.zeros((len(tracks), len(corners)))
        if fit.size:
            fit = _match_scores(np.stack([one.expected_corners(frame) for one in tracks]), corners)
            fit *= [[one.kind == kind for kind in kinds] for one in tracks]
        rows, columns = optimize.linear_sum_assignment(fit, maximize=True)
        taken = {c: tracks[r] for r, c in zip(rows.tolist(), columns.tolist(), strict=True) if fit[r, c] >= LEAST_FIT}
        numbers = []
        for index, (box, kind) in enumerate(zip(corners, kinds, strict=True)):
            if index in taken:
                taken[index].see(box, frame)
                numbers.append(taken[index].number)
            else:
                count += 1
                tracks.append(_Track(count, kind, box, frame))
                numbers.append(count)
        numbers_of_frames.append(numbers)
    return numbers_of_frames


def _match_scores(expected: Floats, corners: Floats) -> Floats:
    """(tracks, boxes) mean of the overlap and of the nearness of centres, 0 from a diagonal on."""
    axes = corners.shape[1] // 2
    ours, theirs = (
        np.stack([(one[:, :axes] + one[:, axes:]) / 2, one[:, axes:] - one[:, :axes]]) for one in (expected, corners)
    )
    apart = np.linalg.norm(ours[0][:, None] - theirs[0][None], axis=-1)
    diagonal = (np.linalg.norm(ours[1], axis=1)[:, None] + np.linalg.norm(theirs[1], axis=1)[None]) / 2
    return cast("Floats", (box_matching.box_iou(expected, corners) + np.maximum(0, 1 - apart / diagonal)) / 2)


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """The objects of a frame. reference, predicted: (n,) and (m,) their tracks; overlap: (n, m) IoU"""

    reference: Sequence[int]
    predicted: Sequence[int]
    overlap: Floats


def hota(frames: Sequence[TrackedFrame]) -> float:
    """Higher order tracking accuracy: the root of detection times association, the mean over overlaps to 0.95."""
    ours = _places([one.reference for one in frames])
    theirs = _places([one.predicted for one in frames])
    counts = np.bincount(np.concatenate(ours))[:, None] + np.bincount(np.concatenate(theirs))[None]
    near = np.zeros(counts.shape)
    for frame, rows, columns in zip(frames, ours, theirs, strict=True):
        both = frame.overlap.sum(axis=0)[None] + frame.overlap.sum(axis=1)[:, None] - frame.overlap
        near[np.ix_(rows, columns)] += np.divide(frame.overlap, both, out=np.zeros_like(both), where=both > ROUNDING)
    alike = near / (counts - near)
    matches = np.zeros((len(ALPHAS), *counts.shape))
    for frame, rows, columns in zip(frames, ours, theirs, strict=True):
        first, second = optimize.linear_sum_assignment(alike[np.ix_(rows, columns)] * frame.overlap, maximize=True)
        for number, alpha in enumerate(ALPHAS):
            held = frame.overlap[first, second] >= alpha - ROUNDING
            matches[number, rows[first[held]], columns[second[held]]] += 1
    right = matches.sum(axis=(1, 2))
    associated = (matches**2 / (counts - matches)).sum(axis=(1, 2))
    every = sum(len(one.reference) + len(one.predicted) for one in frames)
    detection = right / np.maximum(1, every - right)
    return float(np.sqrt(detection * associated / np.maximum(1, right)).mean())


def _places(numbers: Sequence[Sequence[int]]) -> list[NDArray[np.intp]]:
    """The place of each frame's tracks among all."""
    index_of = {number: place for place, number in enumerate(dict.fromkeys(one for frame in numbers for one in frame))}
    return [np.array([index_of[one] for one in frame], dtype=np.intp) for frame in numbers]


def identity_switches(frames: Sequence[TrackedFrame]) -> int:
    """Number of times an object is found in another track than before; found from an IoU of 0.5 on."""
    last_seen = dict[int, int]()
    before = dict[int, int]()
    count = 0
    for step in (frame for frame in frames if frame.overlap.size):
        same = [[before.get(ours) == theirs for theirs in step.predicted] for ours in step.reference]
        # Who was together in the frame before stays so, whatever overlaps more.
        score = step.overlap + 1000.0 * np.reshape(same, step.overlap.shape)
        score[step.overlap < SWITCH_OVERLAP - ROUNDING] = 0.0
        pairs = np.transpose(optimize.linear_sum_assignment(score, maximize=True)).tolist()
        before = {step.reference[row]: step.predicted[column] for row, column in pairs if score[row, column] > ROUNDING}
        count += sum(last_seen.get(ours, theirs) != theirs for ours, theirs in before.items())
        last_seen |= before
    return count


def frame_scores_json(
    case: str, predicted: ArrayLike, reference: ArrayLike, numbers: Sequence[int], overlap: ArrayLike
) -> str | None:
    """JSON that scores of tracks need of a case that is a frame; None of any other, or without numbers of objects.

    predicted, reference: corners of the boxes; numbers: of the reference's objects; overlap: (reference, predicted) IoU
    """
    if FRAME.fullmatch(case) is None or len(numbers) < len(np.asarray(reference)):
        return None
    parts = (predicted, reference, numbers, overlap)
    return json.dumps([np.asarray(one).round(6).tolist() for one in parts])


def track_rows(table: Table, *, seed: Seed) -> Iterator[Row]:
    """HOTA and identity switches of clips whose references have tracks: their objects keep their numbers.

    table: with `case`, `patient`, `label`, and `tracks` as of `frame_scores_json`
    """
    if "tracks" not in table:
        return
    tracked = table[table["tracks"].notna()]
    names = tracked["case"].astype(str).str.extract(FRAME)
    for label, of_label in tracked.groupby(tracked["label"], sort=False):
        scores = list[tuple[float, int]]()
        patients = list[str]()
        for _, clip in of_label.groupby(names[0][of_label.index], sort=False):
            cells = clip.assign(frame=names[1][clip.index].astype(int)).sort_values("frame")["tracks"]
            frames = _frames([structured_text.parse_json(cell) for cell in cells])
            if frames is not None:
                scores.append((hota(frames), identity_switches(frames)))
                patients.append(clip["patient"].iloc[0])
        for index, metric in enumerate(TRACK_METRICS if scores else ()):
            values = [one[index] for one in scores]
            yield Row(metric.name, str(label), intervals.bootstrap(values, patients, seed=seed, unit=metric.unit))


def _frames(cells: Sequence[list[Any]]) -> list[TrackedFrame] | None:
    """The frames of a clip with tracks of their predictions; None where the numbers of the reference are no tracks."""
    width = max((len(box) for predicted, reference, *_ in cells for box in (*predicted, *reference)), default=4)
    boxes = [[np.reshape(side, (-1, width)).astype(float) for side in cell[:2]] for cell in cells]
    ours, theirs = (follow_boxes([(one[side], ["object"] * len(one[side])) for one in boxes]) for side in (1, 0))
    if not _keeps_numbers(ours, [cell[2] for cell in cells]):
        return None
    return [
        TrackedFrame(cell[2], numbers, np.reshape(cell[3], (len(cell[2]), len(numbers))).astype(float))
        for cell, numbers in zip(cells, theirs, strict=True)
    ]


def _keeps_numbers(tracks: Sequence[Sequence[int]], numbers: Sequence[Sequence[int]]) -> bool:
    """Whether objects that were followed have mostly the same number as before."""
    last = dict[int, int]()
    is_kept = list[bool]()
    for track_numbers, reference_numbers in zip(tracks, numbers, strict=True):
        is_kept += [
            last[track] == number
            for track, number in zip(track_numbers, reference_numbers, strict=True)
            if track in last
        ]
        last |= dict(zip(track_numbers, reference_numbers, strict=True))
    return bool(is_kept) and float(np.mean(is_kept)) >= KEPT_NUMBERS

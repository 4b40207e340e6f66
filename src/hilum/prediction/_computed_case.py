"""Rows and findings of a case that the network has seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest

import numpy as np

from hilum.evaluation import tracks
from hilum.evaluation.case_tables import PROBABILITY
from hilum.prediction import result_files, slide_results, withholding
from hilum.runtime import Model, label_measurements, prediction_layers, result_codes
from hilum.tasks import Task, properties
from hilum.tasks.shared.structure_findings import Ratio
from hilum.transforms import label_maps
from hilum.values import Case, Finding, Floats, Image, Measurements, Prediction, Problem
from hilum.values.table_cells import PlainCell, TableRow

# The ends of columns of what boxes and objects state.
SCORES = ("score", "scores")
Rows = list[dict[str, PlainCell]]
OBJECT = "object"


@dataclass(frozen=True, eq=False)
class ComputedCase:
    """A case that the network has seen.

    ratios:        of measurements, which reports state
    is_calibrated: whether probabilities are stated as calibrated; what is called, and what is refused, always is
    keeps_refused: whether what the model abstains from has results all the same
    tiles:         windows that the network saw of a slide
    """

    model: Model
    case: Case
    image: Image
    prediction: Prediction
    ratios: Sequence[Ratio]
    is_calibrated: bool
    keeps_refused: bool
    tiles: int = 0

    @property
    def is_refused(self) -> bool:
        """Whether there is no result of it."""
        return not self.keeps_refused and self.prediction.abstained is not None

    @cached_property
    def tracks(self) -> Tracks | None:
        """The objects of a clip followed from frame to frame."""
        return tracks_of(self.model.task, self.prediction)


def name_columns(case: Case, image: Image) -> dict[str, PlainCell]:
    """The columns that name a case."""
    return {"case": case.id, "image": image.source.paths[0] if image.source and image.source.paths else ""}


def report_findings(computed: ComputedCase, measured: Measurements) -> Iterator[Finding]:
    """Findings that reports state of a result; of a clip those of each frame with a finding."""
    if not computed.prediction.frames:
        yield from _findings(computed, computed.prediction, measured)
    for number, still in enumerate(computed.prediction.frames):
        if not result_files.marks_nothing(still):
            yield from (replace(one, frame=number) for one in _findings(computed, still, ()))


def _findings(computed: ComputedCase, still: Prediction, measured: Measurements) -> list[Finding]:
    """Findings that reports state of a result, or of a frame of a clip."""
    task = computed.model.task
    findings = task.results(still, measured)
    findings += [one for ratio in computed.ratios if (one := ratio.compute(findings, measured)) is not None]
    findings = result_codes.coded_findings(findings, result_codes.codes_of_model(computed.model))
    if computed.is_calibrated:
        return findings
    plain = task.results(still.before_calibration, measured)
    uncalibrated_findings = [*plain, *findings[len(plain) :]]  # ratios have no probability
    return [
        replace(one, probability=p.probability, calibrated=False)
        for one, p in zip(findings, uncalibrated_findings, strict=True)
    ]


def unstated_ratios(computed: ComputedCase, findings: Sequence[Finding]) -> Iterator[Problem]:
    """A warning for each ratio that could not be made."""
    names = {one.concept for one in findings}
    for ratio in computed.ratios if findings else ():
        if ratio.name not in names:
            what = f"{computed.case.id}: no {ratio.name}: {ratio.above} or {ratio.below} is not known, or is 0"
            yield Problem.warning(what, (computed.case.id,))


def result_rows(computed: ComputedCase) -> tuple[Rows, Rows]:
    """The case's rows of `predictions.csv`, and of `measurements.csv`."""
    named = name_columns(computed.case, computed.image)
    prediction = computed.prediction
    if prediction.frames:
        return _rows_of_frames(computed, named)
    measured = [{"case": computed.case.id, **one} for one in _measure(computed, prediction, computed.image)]
    if computed.image.is_slide:
        return [{**named, **_slide_row(computed, prediction, measured)}], measured
    return [{**named, **row} for row in _output_rows(computed, prediction)], measured


def _slide_row(computed: ComputedCase, prediction: Prediction, measured: Rows) -> dict[str, PlainCell]:
    """The task's columns where they are of the whole image, and those of a slide; cells have a table of their own."""
    [row, *further] = _output_rows(computed, prediction)
    is_whole = not further and prediction.boxes is None and prediction.objects is None
    findings = _findings(computed, prediction, measured)
    columns = slide_results.slide_columns(prediction, computed.model.task, computed.image, findings, computed.tiles)
    return {**(row if is_whole else {}), **columns}


def _rows_of_frames(computed: ComputedCase, named: TableRow) -> tuple[Rows, Rows]:
    """Rows of each frame; of the measurements also what changed over all of them."""
    rows = Rows()
    measured = list[Rows]()
    image = computed.image
    for number, (frame, still) in enumerate(zip(computed.prediction.frames, image.still_frames(), strict=True)):
        time = {} if image.times is None else {"time_s": image.times[number]}
        moment = {"frame": number, **time}
        gate = withholding.confidence_columns(frame)
        outputs, figures = _rows_with_tracks(computed, number, still)
        rows += [{**named, **moment, **row, **gate} for row in outputs]
        measured.append([{"case": computed.case.id, **moment, **row} for row in figures])
    # A single object of one frame is none of the next, though both have its number.
    numbered = any(head.tells_objects for head in computed.model.task.heads.values())
    changes = [] if numbered else prediction_layers.size_changes(measured)
    over_time = [{"case": computed.case.id, "frame": "all", **row} for row in changes]
    return rows, [*(row for frame in measured for row in frame), *over_time]


def _rows_with_tracks(
    computed: ComputedCase, number: int, still: Image
) -> tuple[Sequence[TableRow], Sequence[TableRow]]:
    """The outputs and the measurements of a frame; boxes, or else measured objects, with their tracks."""
    frame = computed.prediction.frames[number]
    outputs = _output_rows(computed, frame)
    figures = _measure(computed, frame, still)
    numbers = [] if computed.tracks is None else computed.tracks.of_frames
    if not numbers:
        return outputs, figures
    if computed.prediction.frames[0].boxes is not None:
        return _add_tracks(outputs, numbers[number]), figures
    return outputs, _add_tracks(figures, numbers[number])


def _output_rows(computed: ComputedCase, prediction: Prediction) -> Sequence[TableRow]:
    """The task's columns, a row or more; calls are always those of calibrated probabilities."""
    columns = computed.model.task.outputs
    rows = properties.output_rows(columns(prediction))
    if computed.is_calibrated:
        return rows
    uncalibrated_rows = properties.output_rows(columns(prediction.before_calibration))
    return [
        {name: other[name] if PROBABILITY in name or name.endswith(SCORES) else value for name, value in row.items()}
        for row, other in zip(rows, uncalibrated_rows, strict=True)
    ]


def _measure(computed: ComputedCase, prediction: Prediction, image: Image) -> Rows:
    """The rows of every label map; in those of a further part its name is before the label."""
    lines = label_measurements.line_structures(computed.model.task)
    return [
        {**row, "label": f"{part}: {row['label']}"} if part else row
        for part, mask, labels in prediction.label_maps
        for row in label_measurements.measure_labels(mask, labels, image, lines.get(part, ()))
    ]


def _add_tracks(rows: Sequence[TableRow], numbers: Sequence[int]) -> Rows:
    """Rows of objects with the track of each; without any object a blank."""
    return [{**row, "track": track} for row, track in zip_longest(rows, numbers)]


# The objects of a clip, followed from frame to frame: a track each.


@dataclass(frozen=True, eq=False)
class Tracks:
    """The tracks of a clip.

    of_frames: the track of each called box, or each object by its number, frame by frame
    rows:      of `tracks.csv`: track, label, first_frame, last_frame, frames, score (mean)
    """

    of_frames: Sequence[Sequence[int]]
    rows: Sequence[TableRow]


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
    rows: list[TableRow] = [
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

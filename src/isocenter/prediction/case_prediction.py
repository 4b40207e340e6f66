"""One case through a model: read, computed, written; what is said of it is what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from isocenter.errors import GeometryError, UsageError
from isocenter.evaluation.case_tables import PROBABILITY
from isocenter.files import file_formats
from isocenter.files.storage import atomic
from isocenter.prediction import _clip_tracks, result_files, withholding
from isocenter.prediction._clip_tracks import Tracks
from isocenter.prediction.answers import WantedFiles
from isocenter.prediction.result_files import CaseProbabilities
from isocenter.runtime import (
    Model,
    ModelRequest,
    label_measurements,
    predicted_memory,
    prediction_layers,
    proportion,
    result_codes,
)
from isocenter.runtime.guard.image_observation import Watching
from isocenter.runtime.inference import AS_PLANNED
from isocenter.runtime.windows.pipeline import BLANK, Receiver
from isocenter.tasks import Task, properties, task_catalogue
from isocenter.tasks.shared.averages import OUTPUT
from isocenter.tasks.shared.structure_findings import Ratio
from isocenter.values import (
    Array,
    Case,
    Deferred,
    Finding,
    Geometry,
    Image,
    Measurements,
    Prediction,
    Problem,
    Region,
    voxel_images,
)
from isocenter.values.spatial_transform import Correspondence

Windows = Callable[[int, int], None]
# Takes (model, case, its image, request, prediction), and gives the prediction with one map more, or one note.
Explains = Callable[[Model, Case, Image, ModelRequest, Prediction], Prediction]
# What becomes of images that the gate refuses: no result, results with the reason, or nobody looks.
ABSTAIN = ("on", "mark", "off")
# The ends of columns of what boxes and objects state.
SCORES = ("score", "scores")
# From so many windows on, of an image so many times as large as the largest that trained: twice as long on three axes.
MANY_WINDOWS, MANY_TIMES = 200, 8


@dataclass(frozen=True)
class CaseRequest:
    """Request for each case: how it is predicted, and where the result goes.

    folder: where it is written; where there is none it is kept
    request: of the model; its region and maps follow from `region` and `wanted`
    ratios: of measurements, beside those that the model has
    explains: adds a map of what the answer rests on to a prediction, or a note where there is none
    abstain: one of `ABSTAIN`
    calibration: "on", or "off": probabilities as the network states them; what is called, sets, intervals, expected
                 Dice and what is refused stay
    region: as `region_of` understands it; a file by its full path, because a worker may run in another folder
    Raises UsageError for a region that no image can have.
    """

    folder: Path | None = None
    wanted: WantedFiles = field(default_factory=WantedFiles)
    request: ModelRequest = AS_PLANNED
    region: str | None = None
    abstain: str = "on"
    calibration: str = "on"
    ratios: tuple[Ratio, ...] = ()
    explains: Explains | None = None

    def __post_init__(self) -> None:
        if self.calibration not in ("on", "off"):
            raise UsageError(f"there is no {self.calibration!r}", "--calibration", "Choose on or off")
        if self.abstain not in ABSTAIN:
            raise UsageError(f"there is no {self.abstain!r}", "--abstain", "Choose on, mark or off")
        if self.region is not None:
            object.__setattr__(self, "region", with_full_paths(self.region))


@dataclass(frozen=True, eq=False)
class PredictionOutcome:
    """Outcome of one case; the prediction itself is kept only where it was not written.

    large: of an image far larger than those that trained, (number of windows, how many times as large); else None
    findings: what reports state; of a clip that of each frame with a finding, which they name
    found: whether the result says something, also of any frame of a clip
    abstained: why there is no result, or why there should be none; None where there is one
    features, distances: what the network and the gate saw in it, as in `Confidence`
    tracks: of the objects of a clip, a row each
    """

    rows: Sequence[Mapping[str, Any]]
    measured: Sequence[Mapping[str, Any]]
    prediction: Prediction | None
    files: Sequence[Path] = ()
    lacking: Sequence[Problem] = ()
    large: tuple[int, float] | None = None
    findings: Sequence[Finding] = ()
    found: bool = False
    abstained: str | None = None
    features: Array | None = None
    distances: Mapping[str, float] = field(default_factory=dict)
    tracks: Sequence[Mapping[str, Any]] = ()


@dataclass(eq=False)
class _Counted:
    """Windows as they are done, told on; all: how many there are."""

    tell: Windows | None
    all: int = 0

    def __call__(self, done: int, of: int) -> None:
        self.all = of
        if self.tell is not None:
            self.tell(done, of)


def _times_as_large(model: Model, image: Image) -> float:
    """An image beside the largest that trained the model, by their extents; 0 where nothing is known of those."""
    geometry, times = image.geometry.canonical, []
    for record in model.record.get("members") or [model.record]:  # of a mean each has training cases of its own
        fingerprint = record.get("fingerprint") or {}
        if not fingerprint.get("shape") or len(fingerprint["shape"]["max"]) != geometry.ndim:
            return 0.0
        voxels = np.divide(geometry.shape, fingerprint["shape"]["max"])
        in_mm = fingerprint.get("physical") and geometry.physical
        times.append(np.prod(voxels * (np.divide(geometry.steps, fingerprint["spacing"]["median"]) if in_mm else 1)))
    return float(min(times))


def compute_case(
    model: Model,
    case: Case,
    image: Image,
    asked: CaseRequest,
    windows: Windows | None = None,
    *,
    receiver: Receiver | None = None,
) -> Callable[[], PredictionOutcome]:
    """The case seen by the network; what is given back writes the result and says what became of it.

    receiver: told the probabilities of each finished part of the image
    The network does not see an image that gets no result because of its header.
    Raises, before anything is computed, MemoryShortageError for an image that would take more memory than is free,
    DatasetError for one that is out of all proportion, and GeometryError where sides matter and are unknown.
    """
    properties.refuse_unknown_sides(model.task, image.geometry, case.id)
    model = replace(model, parts=replace(model.parts, guard=None)) if asked.abstain == "off" else model
    refused = withholding.refused_by_header(model, case, image) if asked.abstain == "on" else None
    if refused is not None:
        return partial(_refuse, refused, case, image, keeps=asked.folder is None)
    with ExitStack() as stack:
        room = None if asked.folder is None else stack.enter_context(result_files.new_case_folder(asked.folder))
        refusals, probabilities = list[str](), None
        if room is not None:
            stack.callback(_empty, room, refusals)
            probabilities = CaseProbabilities(model.task, image, room, case.id, asked.wanted)
            receiver = prediction_layers.join_receivers(receiver, probabilities.receiver)
        receiver = _before_calibration(model.task, receiver) if asked.calibration == "off" and receiver else receiver
        added = properties.added_results(model.task) if asked.wanted.added else None
        masks = added.stream(image.geometry) if added else None
        region = None if asked.region is None else region_of(asked.region, image, case.id)
        request = replace(asked.request, region=region, maps=asked.wanted.maps)
        if not request.allow_large:
            proportion.refuse_out_of_proportion(model, image, case.id, region)
        fitting, seen = predicted_memory.fit_batch_to_memory(model, image, case.id, region), _Counted(windows)
        watching = Watching(fitting.networks.run, passes_on=True)
        prediction = fitting.with_run(watching).predict(
            image,
            request,
            progress=seen,
            receiver=prediction_layers.join_receivers(receiver, masks),
            covariates=case.covariates or None,
        )
        prediction = replace(prediction, case=case.id)
        if asked.explains is not None and (prediction.abstained is None or asked.abstain != "on"):
            prediction = asked.explains(model, case, image, request, prediction)
        prediction = added.complete(prediction, masks) if added else prediction
        prediction = (
            prediction.without_tuning_arrays
            if asked.abstain != "off"
            else withholding.answer_anyway(prediction.without_tuning_arrays)
        )
        judge = None
        if isinstance(prediction.data, Deferred) and asked.abstain != "off" and region is None:
            judge = partial(_judged_when_seen, model, watching, image, case.covariates)
        rest = _Rest(model, case, image, prediction, room, asked, probabilities, seen, stack.pop_all(), refusals, judge)
    if isinstance(prediction.data, Deferred):  # the network sees the image while it is written: no work for a writer
        done = rest()
        return lambda: done
    return rest


def _judged_when_seen(
    model: Model, watching: Watching, image: Image, covariates: Mapping[str, Any] | None, prediction: Prediction
) -> Prediction:
    """The prediction of a large volume, judged once the network has seen all of it."""
    if model.guard is not None:
        sure = properties.sureness(model.task, prediction)
        prediction = model.guard.judged_anew(prediction, watching, image, covariates, sure)
    return replace(prediction, abstained=BLANK) if watching.is_blank else prediction


def _refuse(prediction: Prediction, case: Case, image: Image, *, keeps: bool) -> PredictionOutcome:
    """Outcome of a case that is refused before the network has seen it; keeps: whether with its prediction."""
    row = {**_name_columns(case, image), **withholding.confidence_columns(prediction)}
    lacking = withholding.reader_warnings(prediction, case)
    return PredictionOutcome([row], [], prediction if keeps else None, lacking=lacking, abstained=prediction.abstained)


def _name_columns(case: Case, image: Image) -> dict[str, Any]:
    """The columns that name a case."""
    return {"case": case.id, "image": image.source.paths[0] if image.source and image.source.paths else ""}


def _measure(prediction: Prediction, image: Image) -> list[dict[str, Any]]:
    """The rows of every label map; in those of a further part its name is before the label."""
    return [
        {**row, "label": f"{part}: {row['label']}"} if part else row
        for part, mask, labels in prediction.label_maps
        for row in label_measurements.measure_labels(mask, labels, image)
    ]


def _add_tracks(rows: Sequence[Mapping[str, Any]], tracks: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of objects with the track of each; without any object a blank."""
    return [{**row, "track": track} for row, track in zip_longest(rows, tracks)]


def _before_calibration(task: Task, receiver: Receiver) -> Receiver:
    """A receiver that hands on the probabilities of before calibration; all that is calibrated stays so."""
    plain = task_catalogue.without_voxel_calibration(task)

    def handed_on(region: Region, arrays: Mapping[str, Array]) -> None:
        """Hand on what the network's outputs of a part say without calibration."""
        outputs = {name: arrays[f"{name}{OUTPUT}"] for name in plain.heads if f"{name}{OUTPUT}" in arrays}
        receiver(region, plain.probabilities(outputs))

    return handed_on


def _empty(room: Path, refusals: Sequence[str]) -> None:
    """Throw away what was written of a case that is refused."""
    for path in room.iterdir() if refusals else ():
        path.unlink()


@dataclass(frozen=True, eq=False)
class _Rest:
    """Remaining work on a case: write it, and state its outcome.

    room:          where its files are written; None where the prediction is kept
    probabilities: of voxels, which files and Parametric Maps hold; None where the prediction is kept
    refusals:      a reason in it has all files of the case thrown away when `held` is closed
    judge:         of a large volume, what the gate says once the network has seen all of it
    """

    model: Model
    case: Case
    image: Image
    prediction: Prediction
    room: Path | None
    asked: CaseRequest
    probabilities: CaseProbabilities | None
    seen: _Counted
    held: ExitStack
    refusals: list[str]
    judge: Callable[[Prediction], Prediction] | None = None

    def __call__(self) -> PredictionOutcome:
        rest: _Rest = self
        files, lacking, rows, measured = list[Path](), list[Problem](), list[Any](), list[Any]()
        findings = list[Finding]()
        try:
            with self.held:
                if not self._is_refused:
                    rows, measured = self._rows()
                    findings = list(self._report_findings(measured))
                    files, lacking = self._write(findings)
                if self.judge is not None:
                    rest = replace(self, prediction=self.judge(self.prediction))
                if rest._is_refused:
                    self.refusals.append(str(rest.prediction.abstained))
        except OSError as error:
            raise atomic.unwritable_error(error, Path(self.case.id)) from error
        return rest._done(files, lacking, rows, measured, findings)

    def _done(
        self,
        files: Sequence[Path],
        lacking: Sequence[Problem],
        rows: Sequence[Mapping[str, Any]],
        measured: Measurements,
        findings: Sequence[Finding],
    ) -> PredictionOutcome:
        """Outcome of the case; of a refused one there is neither file nor result."""
        prediction, columns = self.prediction, withholding.confidence_columns(self.prediction)
        rows = [{**row, **columns} for row in rows] if not prediction.frames else rows
        findings = [] if self._is_refused else findings
        found = not self._is_refused and result_files.says_something(prediction, findings)
        if self._is_refused:
            prediction, files, measured, rows = withholding.withhold(prediction), [], [], [{**self._names, **columns}]
        elif self._is_as_stated:
            prediction = prediction.before_calibration
        times = _times_as_large(self.model, self.image) if self.seen.all >= MANY_WINDOWS else 0.0
        large = (self.seen.all, times) if times >= MANY_TIMES else None
        returned = prediction if self.room is None else None
        unstated = [] if prediction.frames else self._without_ratios(findings)
        notes = [*withholding.reader_warnings(prediction, self.case), *lacking, *unstated]
        confidence = self.prediction.confidence
        tracks = [] if self._is_refused or self._tracks is None else self._tracks.rows
        rows_of_tracks = [{"case": self.case.id, **row} for row in tracks]
        return PredictionOutcome(
            rows,
            measured,
            returned,
            files,
            notes,
            large,
            findings,
            found,
            prediction.abstained,
            confidence.features,
            confidence.distances,
            rows_of_tracks,
        )

    def _report_findings(self, measured: Measurements) -> Iterator[Finding]:
        """Findings that reports state of a result; of a clip those of each frame with a finding."""
        if not self.prediction.frames:
            yield from self._findings(self.prediction, measured)
        for number, still in enumerate(self.prediction.frames):
            if not result_files.marks_nothing(still):
                yield from (replace(one, frame=number) for one in self._findings(still, ()))

    def _findings(self, still: Prediction, measured: Measurements) -> list[Finding]:
        """Findings that reports state of a result, or of a frame of a clip."""
        task = self.model.task
        findings = task.results(still, measured)
        findings += [one for ratio in self._ratios if (one := ratio.compute(findings, measured)) is not None]
        findings = result_codes.coded_findings(findings, result_codes.codes_of_model(self.model))
        if not self._is_as_stated:
            return findings
        plain = task.results(still.before_calibration, measured)
        uncalibrated_findings = [*plain, *findings[len(plain) :]]  # ratios have no probability
        return [
            replace(one, probability=p.probability, calibrated=False)
            for one, p in zip(findings, uncalibrated_findings, strict=True)
        ]

    @property
    def _ratios(self) -> tuple[Ratio, ...]:
        return (*label_measurements.ratios_of(self.model), *self.asked.ratios)

    def _without_ratios(self, findings: Sequence[Finding]) -> Iterator[Problem]:
        """A warning for each ratio that could not be made."""
        names = {one.concept for one in findings}
        for ratio in self._ratios if findings else ():
            if ratio.name not in names:
                what = f"{self.case.id}: no {ratio.name}: {ratio.above} or {ratio.below} is not known, or is 0"
                yield Problem("warning", what, (self.case.id,))

    @property
    def _is_refused(self) -> bool:
        return self.asked.abstain == "on" and self.prediction.abstained is not None

    @property
    def _is_as_stated(self) -> bool:
        """Whether probabilities are those of before calibration."""
        return self.asked.calibration == "off"

    @property
    def _names(self) -> dict[str, Any]:
        return _name_columns(self.case, self.image)

    def _write(self, findings: Sequence[Finding]) -> tuple[list[Path], list[Problem]]:
        if self.room is None:
            return [], []
        wanted, name, is_part = self.asked.wanted, self.case.id, self.asked.region is not None
        files, lacking = result_files.write_result(
            self.prediction,
            self.image,
            self.room,
            name,
            wanted,
            self.model,
            findings=findings,
            probabilities=self.probabilities,
            is_part=is_part,
        )
        if (transform := self.prediction.transform) is not None:
            pair = self.case.references.get("field") or Correspondence()
            files += result_files.write_moved_files(
                transform, self.image, pair, self.room, name, result_files.algorithm_of_model(self.model)
            )
            objects, refused = result_files.write_moved_objects(transform, self.image, self.room, name)
            files, lacking = [*files, *objects], [*lacking, *refused]
        return files, lacking

    def _rows(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The case's rows of `predictions.csv`, and of `measurements.csv`."""
        named, prediction = self._names, self.prediction
        if prediction.frames:
            return self._rows_of_frames(named)
        rows = [{**named, **row} for row in self._outputs(prediction)]
        return rows, [{"case": self.case.id, **one} for one in _measure(prediction, self.image)]

    @cached_property
    def _tracks(self) -> Tracks | None:
        """The objects of a clip followed from frame to frame."""
        return _clip_tracks.tracks_of(self.model.task, self.prediction)

    def _outputs(self, prediction: Prediction) -> Sequence[Mapping[str, Any]]:
        """The task's columns, a row or more; calls are always those of calibrated probabilities."""
        columns = self.model.task.outputs
        rows = properties.output_rows(columns(prediction))
        if not self._is_as_stated:
            return rows
        uncalibrated_rows = properties.output_rows(columns(prediction.before_calibration))
        return [
            {
                name: other[name] if PROBABILITY in name or name.endswith(SCORES) else value
                for name, value in row.items()
            }
            for row, other in zip(rows, uncalibrated_rows, strict=True)
        ]

    def _rows_of_frames(self, named: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows of each frame; of the measurements also what changed over all of them."""
        rows, measured = [], []
        stills = self.image.still_frames()
        tracks = [] if self._tracks is None else self._tracks.of_frames
        is_boxed = self.prediction.frames[0].boxes is not None
        for number, (frame, still) in enumerate(zip(self.prediction.frames, stills, strict=True)):
            time = {} if self.image.times is None else {"time_s": self.image.times[number]}
            moment = {"frame": number, **time}
            gate = withholding.confidence_columns(frame)
            outputs, figures = self._outputs(frame), _measure(frame, still)
            if tracks and is_boxed:
                outputs = _add_tracks(outputs, tracks[number])
            elif tracks:
                figures = _add_tracks(figures, tracks[number])
            rows += [{**named, **moment, **row, **gate} for row in outputs]
            measured.append([{"case": self.case.id, **moment, **row} for row in figures])
        # A single object of one frame is none of the next, though both have its number.
        numbered = any(head.tells_objects for head in self.model.task.heads.values())
        changes = [] if numbered else prediction_layers.size_changes(measured)
        over_time = [{"case": self.case.id, "frame": "all", **row} for row in changes]
        return rows, [*(row for frame in measured for row in frame), *over_time]


FLAG = "--region"
REMEDY = "Give voxels as 0:120,40:200,10:50, or a mask's file, or FILE=VALUE for one label of it"


def region_of(asked: str, image: Image, where: str) -> Region:
    """Voxels of the image, slices along its axes.

    asked: the voxels themselves (first:last+1 along each axis, an empty end for the image's own), or the file of a
           mask on the image's grid, of which the box around all that is not 0 is meant; FILE=VALUE is one label of it
    Raises UsageError for what is neither, GeometryError for a mask on another grid.
    """
    name, _, value = asked.rpartition("=")
    for path, label in ((asked, None), (name, value)):
        if path and Path(path).exists():
            return _around(file_formats.read(path), label, image.geometry, path)
    return _voxels(asked, image.geometry.shape, where)


def with_full_paths(asked: str) -> str:
    """The same, where a file is meant by its full path: a worker may run in another folder.

    Raises UsageError for what no image can have.
    """
    name, equals, value = asked.rpartition("=")
    if Path(asked).exists():
        return str(Path(asked).absolute())
    if name and Path(name).exists():
        return f"{Path(name).absolute()}{equals}{value}"
    _bounds(asked)
    return asked


def _bounds(asked: str) -> list[tuple[int, int | None]]:
    """First voxel and the one behind the last, along each axis; None for the image's own end."""
    bounds: list[tuple[int, int | None]] = []
    for part in asked.split(","):
        try:
            first, end = (one.strip() for one in part.split(":"))
            low, high = int(first or 0), int(end) if end else None
        except ValueError as error:
            raise UsageError(f"{asked!r} is neither voxels nor a file that is there", FLAG, REMEDY) from error
        if low < 0 or (high is not None and high <= low):
            raise UsageError(f"{part.strip()!r} of {asked!r} holds no voxel", FLAG, REMEDY)
        bounds.append((low, high))
    return bounds


def _voxels(asked: str, shape: tuple[int, ...], where: str) -> Region:
    bounds = _bounds(asked)
    if len(bounds) != len(shape):
        raise UsageError(f"{asked!r} are not two voxels for each of {len(shape)} axes", FLAG, REMEDY)
    region = []
    for (low, high), size in zip(bounds, shape, strict=True):
        stop = size if high is None else high
        if not low < stop <= size:
            raise UsageError(f"{asked!r} does not lie within the {shape} voxels of {where}", FLAG, REMEDY)
        region.append(slice(low, stop))
    return tuple(region)


def _around(mask: Image, label: str | None, geometry: Geometry, path: str) -> Region:
    """The smallest box that holds all of a label, or of all labels."""
    if label is not None and not label.isdecimal():
        raise UsageError(f"{label!r} is not a value of a label map", FLAG, REMEDY)
    if mask.frames is not None or mask.shape[0] != 1 or not mask.geometry.equals(geometry):
        raise GeometryError("the mask lies on another grid than the image", path, "Resample it onto the image's grid")
    used = [np.zeros(size, bool) for size in geometry.shape]
    for region, part in voxel_images.blocks_along_last_axis(mask.pixels):
        marked = part[0] != 0 if label is None else part[0] == int(label)
        for axis, (marks, rows) in enumerate(zip(used, region[1:], strict=True)):
            marks[rows] |= marked.any(axis=tuple(other for other in range(marked.ndim) if other != axis))
    if not used[0].any():
        raise UsageError("nothing is marked" if label is None else f"nothing is marked with {label}", path, REMEDY)
    ends = [np.flatnonzero(marks)[[0, -1]].tolist() for marks in used]
    return tuple(slice(low, high + 1) for low, high in ends)

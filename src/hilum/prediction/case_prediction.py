"""One case through a model: read, computed, written; what is said of it is what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hilum.errors import GeometryError, UsageError
from hilum.files import file_formats
from hilum.files.storage import atomic
from hilum.prediction import _computed_case, earlier_study, result_files, slide_results, withholding
from hilum.prediction._computed_case import ComputedCase
from hilum.prediction.answers import WantedFiles
from hilum.prediction.earlier_study import EarlierStudy, StudyChange
from hilum.prediction.result_files import CaseProbabilities
from hilum.runtime import Model, ModelRequest, label_measurements, predicted_memory, prediction_layers, proportion
from hilum.runtime.guard import image_observation
from hilum.runtime.guard.image_observation import Watching
from hilum.runtime.inference import AS_PLANNED
from hilum.runtime.windows.pipeline import BLANK, Receiver
from hilum.tasks import Task, properties, task_catalogue
from hilum.tasks.shared.averages import OUTPUT
from hilum.tasks.shared.structure_findings import Ratio
from hilum.values import (
    Array,
    Case,
    Deferred,
    Finding,
    Geometry,
    Image,
    Measurements,
    Prediction,
    Problem,
    Prompts,
    Region,
    advice_lines,
    voxel_images,
)
from hilum.values.advice_lines import ADVICE, AdviceLine, AdvisedAnswer
from hilum.values.covariate_values import CovariateValues
from hilum.values.dataset_fingerprint import FingerprintRecord
from hilum.values.spatial_transform import Correspondence
from hilum.values.table_cells import TableRow

Windows = Callable[[int, int], None]
# Takes (model, case, its image, request, prediction), and gives the prediction with one map more, or one note.
Explains = Callable[[Model, Case, Image, ModelRequest, Prediction], Prediction]
# Of a large volume, the prediction with what the gate says once the network has seen all of it.
Judge = Callable[[Prediction], Prediction]
# What becomes of images that the gate refuses: no result, results with the reason, or nobody looks.
ABSTAIN = ("on", "mark", "off")
# From so many windows on, of an image so many times as large as the largest that trained: twice as long on three axes.
MANY_WINDOWS = 200
MANY_TIMES = 8


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
    prompts: {case: what is pointed at in it}, in place of the prompts of the request
    region: as `region_of` understands it; a file by its full path, because a worker may run in another folder
    earlier: an earlier study of the patient, with which the answer is compared
    advice: lines of which the first that holds for an answer is said
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
    prompts: Mapping[str, Sequence[Prompts]] = field(default_factory=dict)
    earlier: EarlierStudy | None = None
    advice: Sequence[AdviceLine] = ()

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
    change: since the earlier study, where there is one
    """

    rows: Sequence[TableRow]
    measured: Sequence[TableRow]
    prediction: Prediction | None
    files: Sequence[Path] = ()
    lacking: Sequence[Problem] = ()
    large: tuple[int, float] | None = None
    findings: Sequence[Finding] = ()
    found: bool = False
    abstained: str | None = None
    features: Array | None = None
    distances: Mapping[str, float] = field(default_factory=dict)
    tracks: Sequence[TableRow] = ()
    change: StudyChange | None = None


@dataclass(eq=False)
class _Counted:
    """Windows as they are done, passed on; all: their number."""

    tell: Windows | None
    all: int = 0

    def __call__(self, done: int, of: int) -> None:
        self.all = of
        if self.tell is not None:
            self.tell(done, of)


def pointed_model(model: Model, asked: CaseRequest) -> Model:
    """The model with the labels of all prompts, so that a value means the same in each case.

    Raises UsageError for prompts of a model that takes none, and for none of one that needs them.
    """
    every = [*asked.request.all_prompts, *chain.from_iterable(asked.prompts.values())]
    return model.pointing_at(list({one.label: one for one in every}.values()))


def _times_as_large(model: Model, image: Image) -> float:
    """An image beside the largest that trained the model, by their extents; 0 where nothing is known of those.

    Of a slide too: that it is larger than pictures means nothing.
    """
    if image.is_slide:
        return 0.0
    geometry = image.geometry.canonical
    times = []
    for record in model.record.get("members") or [model.record]:  # of a mean each has training cases of its own
        fingerprint = record.get("fingerprint") or FingerprintRecord()
        shape = fingerprint.get("shape")
        spacing = fingerprint.get("spacing")
        if not shape or len(shape["max"]) != geometry.ndim:
            return 0.0
        voxels = np.divide(geometry.shape, shape["max"])
        in_mm = fingerprint.get("physical") and geometry.physical and spacing
        times.append(np.prod(voxels * (np.divide(geometry.steps, spacing["median"]) if in_mm and spacing else 1)))
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
    pointed = asked.prompts.get(case.id, asked.request.all_prompts)
    model = pointed_model(model, asked).pointing_at(pointed, case.id)
    properties.refuse_unknown_sides(model.task, image.geometry, case.id)
    model = replace(model, parts=replace(model.parts, guard=None)) if asked.abstain == "off" else model
    refused = withholding.refused_by_header(model, case, image) if asked.abstain == "on" else None
    if refused is not None:
        return partial(_refuse, refused, case, image, asked.advice, keeps=asked.folder is None)
    with ExitStack() as stack:
        room = None if asked.folder is None else stack.enter_context(result_files.new_case_folder(asked.folder))
        refusals = list[str]()
        probabilities = None
        if room is not None:
            stack.callback(_empty, room, refusals)
            probabilities = CaseProbabilities(model.task, image, room, case.id, asked.wanted)
            receiver = prediction_layers.join_receivers(receiver, probabilities.receiver)
        receiver = _before_calibration(model.task, receiver) if asked.calibration == "off" and receiver else receiver
        added = properties.added_results(model.task) if asked.wanted.added else None
        masks = added.stream(image.geometry) if added else None
        region = None if asked.region is None else region_of(asked.region, image, case.id)
        request = replace(asked.request, region=region, maps=asked.wanted.maps, prompts=pointed)
        if not request.allow_large:
            proportion.refuse_out_of_proportion(model, image, case.id, region)
        fitting = predicted_memory.fit_batch_to_memory(model, image, case.id, region)
        seen = _Counted(windows)
        shows = image_observation.tissue_shown(image, fitting.preprocessing)
        watching = Watching(fitting.networks.run, passes_on=True, shows=shows)
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
        prediction = prediction.without_tuning_arrays
        prediction = withholding.answer_anyway(prediction) if asked.abstain == "off" else prediction
        judge: Judge | None = None
        if isinstance(prediction.data, Deferred) and asked.abstain != "off" and region is None:
            judge = partial(_judged_when_seen, model, watching, image, case.covariates)
        computed = ComputedCase(
            model,
            case,
            image,
            prediction,
            ratios=(*label_measurements.ratios_of(model), *asked.ratios),
            is_calibrated=asked.calibration == "on",
            keeps_refused=asked.abstain != "on",
        )
        output = _OpenFiles(room, probabilities, stack.pop_all(), refusals)
    write = partial(_write_case, computed, output, asked, seen, judge)
    if isinstance(prediction.data, Deferred):  # the network sees the image while it is written: no work for a writer
        done = write()
        return lambda: done
    return write


def _judged_when_seen(
    model: Model, watching: Watching, image: Image, covariates: CovariateValues | None, prediction: Prediction
) -> Prediction:
    """The prediction of a large volume, judged once the network has seen all of it."""
    if model.guard is not None:
        sure = properties.sureness(model.task, prediction)
        prediction = model.guard.judged_anew(prediction, watching, image, covariates, sure)
        prediction = model.guard.refuse_covariates(prediction, model.far_covariates(covariates))
    return replace(prediction, abstained=BLANK) if watching.is_blank else prediction


def _refuse(
    prediction: Prediction, case: Case, image: Image, advice: Sequence[AdviceLine], *, keeps: bool
) -> PredictionOutcome:
    """Outcome of a case that is refused before the network has seen it; keeps: whether with its prediction."""
    row = {**_computed_case.name_columns(case, image), **withholding.confidence_columns(prediction)}
    line = advice_lines.choose_line(advice, AdvisedAnswer((), is_abstained=True))
    row |= {} if line is None else {ADVICE: line.say}
    lacking = withholding.reader_warnings(prediction, case)
    return PredictionOutcome([row], [], prediction if keeps else None, lacking=lacking, abstained=prediction.abstained)


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
class _OpenFiles:
    """The files of a case while they are written.

    room:          where; None where the prediction is kept
    probabilities: of voxels, which files and Parametric Maps hold; None where the prediction is kept
    held:          closes them, and throws all away where `refusals` holds a reason
    """

    room: Path | None
    probabilities: CaseProbabilities | None
    held: ExitStack
    refusals: list[str]


class _Results(NamedTuple):
    """Results of a case: rows of `predictions.csv` and `measurements.csv`, findings, files, and what they lack."""

    rows: Sequence[TableRow] = ()
    measured: Measurements = ()
    findings: Sequence[Finding] = ()
    files: Sequence[Path] = ()
    lacking: Sequence[Problem] = ()
    change: StudyChange | None = None


def _write_case(
    computed: ComputedCase, output: _OpenFiles, asked: CaseRequest, seen: _Counted, judge: Judge | None
) -> PredictionOutcome:
    """Write the results of a case, and state its outcome; of a refused one there is neither file nor result."""
    results = _Results()
    judged = computed
    try:
        with output.held:
            if not computed.is_refused:
                results = _write_results(replace(computed, tiles=seen.all), output, asked)
            if judge is not None:
                judged = replace(computed, prediction=judge(computed.prediction))
            if judged.is_refused:
                output.refusals.append(str(judged.prediction.abstained))
    except OSError as error:
        raise atomic.unwritable_error(error, Path(computed.case.id)) from error
    keeps = output.room is None
    if judged.is_refused:
        outcome = _refused_outcome(judged, results, asked.advice, keeps=keeps)
    else:
        outcome = _outcome(judged, results, keeps=keeps)
    times = _times_as_large(judged.model, judged.image) if seen.all >= MANY_WINDOWS else 0.0
    return replace(outcome, large=(seen.all, times) if times >= MANY_TIMES else None)


def _write_results(computed: ComputedCase, output: _OpenFiles, asked: CaseRequest) -> _Results:
    rows, measured = _computed_case.result_rows(computed)
    findings = list(_computed_case.report_findings(computed, measured))
    change = None
    if asked.earlier is not None:
        part = str(computed.case.covariates.get("body_part") or "")
        change = earlier_study.compare_studies(
            computed.model, computed.image, computed.prediction, findings, asked.earlier, part
        )
        findings = earlier_study.with_changes(findings, change.findings)
    unstated = [] if change is None else [_warning(computed, words) for words in change.warnings]
    advised, gap = _advised(computed, findings, asked.advice)
    findings = [*advised, *findings]
    unstated = [*unstated, *(_warning(computed, words) for words in gap)]
    rows = [{**row, ADVICE: advised[0].concept} for row in rows] if advised else rows
    if output.room is None:
        return _Results(rows, measured, findings, lacking=unstated, change=change)
    prediction = computed.prediction
    image = computed.image
    name = computed.case.id
    room = output.room
    files, lacking = result_files.write_result(
        prediction,
        image,
        room,
        name,
        asked.wanted,
        computed.model,
        findings=findings,
        probabilities=output.probabilities,
        is_part=asked.region is not None,
        earlier=None if change is None else change.objects,
    )
    if image.is_slide:
        files += slide_results.write_slide_files(prediction, computed.model.task, image, room, name)
    if (transform := prediction.transform) is not None:
        pair = computed.case.references.get("field")
        algorithm = result_files.algorithm_name_of_model(computed.model)
        files += result_files.write_moved_files(transform, image, pair or Correspondence(), room, name, algorithm)
        objects, refused = result_files.write_moved_objects(transform, image, room, name)
        files = [*files, *objects]
        lacking = [*lacking, *refused]
    files += [] if change is None else change.write(room)
    return _Results(rows, measured, findings, files, [*lacking, *unstated], change)


def _advised(
    computed: ComputedCase, findings: Sequence[Finding], lines: Sequence[AdviceLine]
) -> tuple[Sequence[Finding], Sequence[str]]:
    """What the first line that holds says, and why nothing is said where no line covers the answer."""
    if not lines:
        return (), ()
    grades = computed.model.task.grades
    answer = AdvisedAnswer(findings, grades, computed.prediction.abstained is not None)
    try:
        line = advice_lines.choose_line(lines, answer)
    except UsageError as error:
        return (), (f"no line of advice covers the answer: {error.problem}",)
    return ((), ("no line of advice covers the answer",)) if line is None else ([advice_lines.advice_finding(line)], ())


def _warning(computed: ComputedCase, words: str) -> Problem:
    return Problem.warning(f"{computed.case.id}: {words}", (computed.case.id,))


def _outcome(computed: ComputedCase, results: _Results, *, keeps: bool) -> PredictionOutcome:
    """Outcome of an answered case; keeps: whether with its prediction."""
    prediction = computed.prediction
    confidence = computed.prediction.confidence
    columns = {} if prediction.frames else withholding.confidence_columns(prediction)
    unstated = [] if prediction.frames else _computed_case.unstated_ratios(computed, results.findings)
    tracks = () if computed.tracks is None else computed.tracks.rows
    stated = prediction if computed.is_calibrated else prediction.before_calibration
    return PredictionOutcome(
        [{**row, **columns} for row in results.rows],
        results.measured,
        stated if keeps else None,
        results.files,
        [*withholding.reader_warnings(stated, computed.case), *results.lacking, *unstated],
        findings=results.findings,
        found=result_files.says_something(prediction, results.findings),
        abstained=prediction.abstained,
        features=confidence.features,
        distances=confidence.distances,
        tracks=[{"case": computed.case.id, **row} for row in tracks],
        change=results.change,
    )


def _refused_outcome(
    computed: ComputedCase, results: _Results, advice: Sequence[AdviceLine], *, keeps: bool
) -> PredictionOutcome:
    """Outcome of a case that is refused once the network has seen it."""
    refused = _refuse(computed.prediction, computed.case, computed.image, advice, keeps=keeps)
    confidence = computed.prediction.confidence
    return replace(
        refused,
        prediction=withholding.withhold(computed.prediction) if keeps else None,
        lacking=[*refused.lacking, *results.lacking],
        features=confidence.features,
        distances=confidence.distances,
    )


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
    for region, part in voxel_images.walk_blocks(mask.pixels):
        marked = part[0] != 0 if label is None else part[0] == int(label)
        for axis, (marks, rows) in enumerate(zip(used, region[1:], strict=True)):
            marks[rows] |= marked.any(axis=tuple(other for other in range(marked.ndim) if other != axis))
    if not used[0].any():
        raise UsageError("nothing is marked" if label is None else f"nothing is marked with {label}", path, REMEDY)
    ends = [np.flatnonzero(marks)[[0, -1]].tolist() for marks in used]
    return tuple(slice(low, high + 1) for low, high in ends)

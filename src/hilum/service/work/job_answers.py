"""One job done: its inputs read, predicted, written as files that are the same whenever they are made again."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Literal, cast

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, FormatError, GeometryError, HilumError, OutputError
from hilum.files import file_formats
from hilum.files.dicom import header_reading, tags
from hilum.files.dicom.writing import report_changes, sr
from hilum.files.dicom.writing import stamp as writing_stamp
from hilum.files.dicom.writing.dicom_answers import ANSWERS
from hilum.files.dicom.writing.report_changes import COMPREHENSIVE_3D
from hilum.files.dicom.writing.stamp import Stamp
from hilum.files.storage import atomic, csv_text, hashing
from hilum.lazy import pandas as pd
from hilum.prediction import case_prediction, findings_file, predictors
from hilum.prediction.answers import WantedFiles
from hilum.prediction.case_prediction import CaseRequest, Explains
from hilum.prediction.earlier_study import EarlierStudy
from hilum.prediction.findings_file import FINDINGS, ExaminedImage
from hilum.prediction.result_files import SERIES
from hilum.quality import image_quality
from hilum.reading import alignment, image_pairs, image_targets
from hilum.reading.image_pairs import FIXED, MOVING
from hilum.runtime import Model, ModelRequest
from hilum.runtime.inference import AS_PLANNED
from hilum.service import model_facts
from hilum.service.configuration import UrgencyRule
from hilum.service.exchange.fhir_covariates import DICOM, CovariateValue
from hilum.service.model_facts import IMAGE, Urgency
from hilum.service.records.job_queue import Job, JobMeasures, JobOutcome, ResultFile
from hilum.service.routing import routing_facts
from hilum.service.work.prior_answers import EarlierAnswer
from hilum.tasks import task_settings
from hilum.values import Case, Geometry, Image, Prediction, case_outcome
from hilum.values.advice_lines import AdviceLine
from hilum.values.case_outcome import ABSTAINED, REFUSALS
from hilum.values.finding import FindingsRecord
from hilum.work_state import log

NAME = "answer"
MASK = f"{NAME}.nii.gz"
ROUNDING = 1e-3  # of a voxel: a box that ends at the border of two does not reach into the second
# What a model takes whose two images are brought onto one another.
PAIR: Literal["pair"] = "pair"
# A slice of a moved or an enhanced image, which is one of a series.
SLICE = re.compile(rf"(.+_(?:{SERIES}|series))_(\d+)\.dcm")
KINDS = {".nii.gz": "nifti", ".csv": "table", FINDINGS: "findings", ".png": "picture", ".tiff": "picture"}


@dataclass(frozen=True)
class WithinAnswer:
    """The only place that is predicted: the box around a value of an earlier answer, a label map, with a margin.

    frames: frames of reference of the series that the answer is on; None where it is on that of the job itself
    """

    path: Path
    value: int
    margin_mm: float
    frames: Set[str | None] | None = None


@dataclass(frozen=True)
class JobInputs:
    """Files of a job.

    series: {role: paths of its objects}
    within: None for the whole image
    earlier: the answer on an earlier study of the patient, with which theirs is compared
    """

    series: Mapping[str, Sequence[Path]]
    within: WithinAnswer | None = None
    earlier: EarlierAnswer | None = None


@dataclass(frozen=True)
class ObjectMarks:
    """Marks that the DICOM objects of a job bear.

    root: of UIDs; words: what readers have to be told
    is_comprehensive: whether reports are Comprehensive SR and not Comprehensive 3D SR
    earlier: {name: the earlier report that the one of this name replaces}
    urgent: rules by which findings give the study a priority, which reports state
    """

    root: str
    words: str
    is_comprehensive: bool = False
    earlier: Mapping[str, Path] = field(default_factory=dict)
    urgent: Sequence[UrgencyRule] = ()


def answer_job(
    job: Job,
    model: Model,
    inputs: JobInputs,
    room: Path,
    marks: ObjectMarks,
    send: Sequence[str],
    *,
    covariates_given: Mapping[str, CovariateValue] | None = None,
    request: ModelRequest = AS_PLANNED,
    kinds: Sequence[str] = (),
    explains: Explains | None = None,
    align: str | None = None,
    advice: Sequence[AdviceLine] = (),
) -> JobOutcome:
    """Predict a job's inputs into the folder `room`, and say what it came to.

    marks: of DICOM results; send: peers that results go to; request: of the model
    covariates_given: covariates that the images do not state
    kinds: of the DICOM objects; without any a SEG and a report
    explains: adds maps of what answers rest on
    align: how the images of several series are brought onto the grid of the first
    advice: lines of which the first that holds is said
    Of several radiographs each has its own result, or the job is refused; the reason says of which the model abstains.
    An input that the model is not for is refused with the reason of reading or predicting. Where the outputs of the
    network are not finite the job has failed: another try would give the same. Any other error is raised.
    """
    seconds, began, lacking = {"read": 0.0, "predict": 0.0}, time.monotonic(), list[str]()
    examined = list[ExaminedImage]()
    covariates_used = dict[str, CovariateValue]()
    measured = list[Mapping[str, float]]()
    try:
        with (
            _cases(job, inputs, PAIR if model.task.answers_pairs else align) as cases_read,
            _earlier_study(inputs, model, lacking) as earlier,
        ):
            cases = image_targets.with_finer_images(cases_read, task_settings.settings_of(model.task))
            if inputs.within is not None and len(cases) > 1:
                raise DatasetError("`inside` takes a series of one image", NAME, "Let the rule take such a series")
            for number, found_case in enumerate(cases, start=1):
                since = time.monotonic()
                case, of_headers = _with_covariates(found_case, covariates_given or {})
                covariates_used = {**of_headers, **covariates_used}  # of several images the first states what is kept
                image = predictors.image_of_case(case)
                with try_apart("the measures of the image", lacking):
                    measured.append(image_quality.quick_measures(image))
                region = None if inputs.within is None else _region(inputs.within, image.geometry)
                answers_wanted = WantedFiles(answers=tuple(kinds), text=marks.words)
                asked = CaseRequest(
                    room,
                    answers_wanted,
                    request,
                    region,
                    explains=_explained_apart(explains, lacking),
                    earlier=earlier if len(cases) == 1 else None,
                    advice=advice,
                )
                read_at = time.monotonic()
                write = case_prediction.compute_case(model, case, image, asked)
                seconds["predict"] += time.monotonic() - read_at
                seconds["read"] += read_at - since
                done = write()
                where = f"image {number} of {len(cases)}: " if len(cases) > 1 else ""
                examined.append(
                    ExaminedImage(
                        done, where, {"case": case.id, "instance": header_reading.instance_of(image)} if where else {}
                    )
                )
    except (*REFUSALS, OutputError) as error:
        measured_here = JobMeasures(_means(measured))
        return JobOutcome(
            case_outcome.error_outcome(error),
            f"{error.problem}. {error.remedy}",
            seconds=seconds,
            measured=measured_here,
        )
    found = findings_file.findings_record(examined, model)
    outcome = _stated_outcome(job, examined, found, covariates_used, measured, seconds, lacking)
    if outcome.outcome == ABSTAINED:
        return outcome
    answers = _answers(job, examined, found, room, marks)
    seconds["write"] = time.monotonic() - began - seconds["read"] - seconds["predict"]
    if send and not found.is_empty and not any(one.sop_instance_uid for one in answers):
        unsent = "nothing of the result is a DICOM object, so nothing is sent to a peer"
        outcome = replace(outcome, reason="; ".join(filter(None, [outcome.reason, unsent])))
    return replace(outcome, answers=answers, findings=found.records, send=send)


def _stated_outcome(
    job: Job,
    examined: Sequence[ExaminedImage],
    found: FindingsRecord,
    covariates: Mapping[str, CovariateValue],
    measured: Sequence[Mapping[str, float]],
    seconds: Mapping[str, float],
    lacking: list[str],
) -> JobOutcome:
    """The outcome that a job states, without its files: abstained where the model abstains of every image.

    lacking: what failed beside the answer
    """
    likely = [cast("float | None", one.done.rows[0].get("gate_p")) for one in examined if one.done.rows]
    features = [one.done.features for one in examined if one.done.features is not None]
    is_abstained, watched = all(one.done.abstained is not None for one in examined), JobMeasures()
    with try_apart("what monitoring compares", lacking):
        mean_features = np.mean(features, axis=0).astype(np.float16).tobytes() if features else None
        watched = JobMeasures(_means(measured), _means([one.done.distances for one in examined]), mean_features)
    return JobOutcome(
        ABSTAINED if is_abstained else found.outcome,
        "; ".join(filter(None, [found.reason, *dict.fromkeys(lacking)])),
        seconds=seconds,
        # Of the image that is least like the training's.
        gate_p=min((p for p in likely if p is not None), default=None),
        versions={"hilum": version("hilum"), "model": job.model_hash},
        covariates={name: one.record for name, one in sorted(covariates.items())},
        measured=watched,
        is_empty=found.is_empty and not is_abstained,
    )


@contextmanager
def try_apart(what: str, lacking: list[str]) -> Iterator[None]:
    """Try what is done beside an answer, which stands whatever fails of it. lacking: gets what failed, in words"""
    try:
        yield
    except Exception as error:
        log.error("%s failed: %s", what, errors.describe_fault(error))
        words = error.problem if isinstance(error, HilumError) else f"{type(error).__name__} within the node"
        lacking.append(f"{what} failed: {words}")


@contextmanager
def _earlier_study(inputs: JobInputs, model: Model, lacking: list[str]) -> Iterator[EarlierStudy | None]:
    """The earlier study of a job; None where there is none, or it cannot be read, which `lacking` then says."""
    with ExitStack() as stack:
        study = None
        if inputs.earlier is not None:
            with try_apart("reading the earlier study", lacking):
                study = stack.enter_context(inputs.earlier.open_study(model))
        yield study


def _explained_apart(explains: Explains | None, lacking: list[str]) -> Explains | None:
    """What adds a map to a prediction, or leaves it as it is where that fails."""
    if explains is None:
        return None

    def explain(model: Model, case: Case, image: Image, request: ModelRequest, prediction: Prediction) -> Prediction:
        found = [prediction]
        with try_apart("the map of what the answer rests on", lacking):
            found.append(explains(model, case, image, request, prediction))
        return found[-1]

    return explain


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each number over the images that have it; of those that JSON has."""
    names = dict.fromkeys(name for row in rows for name in row)
    means = {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
    return {name: mean for name, mean in means.items() if np.isfinite(mean)}


def _with_covariates(
    case: Case, covariates_given: Mapping[str, CovariateValue]
) -> tuple[Case, dict[str, CovariateValue]]:
    """The case with covariates of another source, and all that are stated; what a source lacks is None, so missing."""
    of_headers = {name: CovariateValue(value, DICOM) for name, value in case.covariates.items() if value is not None}
    given_values = {name: one.value for name, one in covariates_given.items()}
    return replace(case, covariates={**case.covariates, **given_values}), {**of_headers, **covariates_given}


def state_no_result(
    job: Job,
    outcome: JobOutcome,
    inputs: JobInputs,
    room: Path,
    model: Mapping[str, str],
    algorithm: str,
    marks: ObjectMarks,
) -> JobOutcome:
    """The same outcome without a result, with reports in `room` that name the model and say why there is none.

    A record of findings without any, and a DICOM report; where the images cannot bear that, the reason says so.
    Of images of several patients neither is written: the record would state one of them.
    model, algorithm: as the record and as DICOM results name it
    """
    paths = [path for series in inputs.series.values() for path in series]
    report = room / f"{NAME}_report.dcm"
    if len(set(_patients(paths))) > 1:
        return replace(outcome, reason=f"{outcome.reason}; no report: the images are of several patients")
    try:
        sr.write_no_answer(outcome.reason, paths, report, algorithm_name=algorithm)
        reports = [result_file(report, _stamp(job, report, marks), {}, marks)]
    except FormatError as error:
        outcome, reports = replace(outcome, reason=f"{outcome.reason}; no DICOM report: {error.problem}"), []
    findings_file.write_findings(FindingsRecord((), outcome.outcome, outcome.reason, model), room)
    record = result_file(room / FINDINGS, None, {}, marks)
    return replace(outcome, answers=[*outcome.answers, *reports, record])


def _patients(paths: Sequence[Path]) -> Iterator[str]:
    """The PatientIDs of images, as far as they can be read."""
    for path in paths:
        with suppress(FormatError):
            yield tags.text(header_reading.read_header(path).dataset, "PatientID")


@contextmanager
def _cases(job: Job, inputs: JobInputs, align: str | None) -> Iterator[list[Case]]:
    """The cases of a job, its series behind links of exactly their objects: what comes later is another job's.

    One, but of a series of several radiographs one each.
    align: how images of several series come onto the grid of the first; a pair: the moving one onto the fixed one's
    """
    with ExitStack() as links:
        read_cases = dict[str, list[Case]]()
        for role, paths in inputs.series.items():
            read_cases[role] = routing_facts.cases_of_series(
                links.enter_context(routing_facts.link_series_folder(paths))
            )
            if len(read_cases[role]) > 1 and len(inputs.series) > 1:
                problem = f"the series holds {len(read_cases[role])} images, and nothing says which go together"
                raise FormatError(problem, role, "Let a rule on several series take those of one image each")
        patients = {case.patient for cases in read_cases.values() for case in cases}
        if len(patients) > 1:
            problem = f"the series are of {len(patients)} patients under one StudyInstanceUID (0020,000D)"
            raise FormatError(problem, NAME, "Send each patient's study under a UID of its own")
        if len(read_cases) > 1:
            cases = [case for [case] in read_cases.values()]
            covariates = {name: value for case in reversed(cases) for name, value in case.covariates.items()}
            roles = {role: next(iter(case.images.values())) for role, case in zip(read_cases, cases, strict=True)}
            if align == PAIR:
                pair = image_pairs.pair_of_images(roles[FIXED], roles[MOVING], NAME, one_world=True)
                yield [replace(pair, covariates=covariates)]
                return
            case = Case(NAME, job.study, roles, covariates=covariates)
            yield [case if align is None else alignment.aligned_case(case, align)]
            return
        [(role, cases)] = read_cases.items()
        names = [NAME] if len(cases) == 1 else [f"{NAME}_{number}" for number in range(1, len(cases) + 1)]
        yield [
            Case(
                name,
                job.study,
                {role: image if role == IMAGE else image.with_image_name(role)},
                covariates=case.covariates,
            )
            for name, case in zip(names, cases, strict=True)
            for image in case.images.values()
        ]


def _region(within: WithinAnswer, geometry: Geometry) -> str:
    """The box of an image that holds a label of an earlier answer, with its margin, as `predict --region` writes it.

    That answer may be on another series of the study: its voxels are looked for where they lie in the patient.
    """
    if not within.path.exists():
        raise DatasetError(
            "the answer of the rule in `inside` is of several images", NAME, "Let it take one of one image"
        )
    mask = file_formats.read(within.path)
    places = np.argwhere(np.asarray(mask.data)[0] == within.value)
    if not len(places):
        raise DatasetError("the answer of the rule in `inside` marks nothing", NAME, "There is nothing to predict")
    beyond = within.margin_mm / np.asarray(mask.geometry.steps)
    ends = zip(places.min(axis=0) - 0.5 - beyond, places.max(axis=0) + 0.5 + beyond, strict=True)
    corners = np.array(list(product(*ends)))
    if within.frames is not None:
        if geometry.frame_of_reference is None or within.frames != {geometry.frame_of_reference}:
            problem = "the answer of the rule in `inside` has another frame of reference"
            raise GeometryError(problem, NAME, "Let both rules take series of one frame of reference")
        corners = geometry.to_index(mask.geometry.to_world(corners))
    firsts = np.floor(corners.min(axis=0) + 0.5 + ROUNDING).clip(0).astype(int)
    lasts = np.ceil(corners.max(axis=0) + 0.5 - ROUNDING).clip(max=geometry.shape).astype(int)
    if (firsts >= lasts).any():
        problem = "the answer of the rule in `inside` lies outside the image"
        raise DatasetError(problem, NAME, "There is nothing to predict")
    return ",".join(f"{first}:{last}" for first, last in zip(firsts, lasts, strict=True))


def _answers(
    job: Job, examined: Sequence[ExaminedImage], findings: FindingsRecord, room: Path, marks: ObjectMarks
) -> list[ResultFile]:
    """The files of a result, its DICOM objects stamped by the job; beside them findings and tables."""
    rows = [
        {**one.place, **{name: value for name, value in row.items() if name not in ("case", "image")}}
        for one in examined
        for row in one.done.rows
    ]
    csv_text.write_table(pd.DataFrame(rows), room / "predictions.csv")
    if measured := [row for one in examined for row in one.done.measured]:
        csv_text.write_table(pd.DataFrame(measured), room / "measurements.csv")
    if tracks := [row for one in examined for row in one.done.tracks]:
        csv_text.write_table(pd.DataFrame(tracks), room / "tracks.csv")
    findings_file.write_findings(findings, room)
    _slices_beside_the_rest(room)
    paths = sorted(path for path in room.iterdir() if path.is_file())
    stamps = {path: _stamp(job, path, marks) for path in paths if path.suffix == ".dcm"}
    uids = {old: new for path, stamp in stamps.items() for old, new in writing_stamp.stamped_uids(path, stamp).items()}
    urgency = model_facts.most_urgent(findings.records, marks.urgent)
    return [result_file(path, stamps.get(path), uids, marks, urgency) for path in paths]


def _slices_beside_the_rest(room: Path) -> None:
    """Files of a series that was written into a folder of its own, named by it: an answer is a file of the job."""
    for folder in [one for one in room.iterdir() if one.is_dir()]:
        for path in folder.iterdir():
            path.rename(room / f"{folder.name}_{path.name}")
        folder.rmdir()


def result_file(
    path: Path, stamp: Stamp | None, uids: Mapping[str, str], marks: ObjectMarks, urgency: Urgency | None = None
) -> ResultFile:
    """One file of a result; a DICOM object is stamped. uids: as `apply_stamp` takes those of others"""
    suffix = next((one for one in KINDS if path.name.endswith(one)), "")
    answer = ResultFile(path.name, KINDS.get(suffix, "file"), 0, "")
    if stamp is not None:
        dataset = writing_stamp.apply_stamp(path, stamp, uids)
        earlier = marks.earlier.get(path.name)
        is_changed = marks.is_comprehensive and dataset.SOPClassUID == COMPREHENSIVE_3D
        is_urgent = urgency is not None and dataset.SOPClassUID in ANSWERS["sr"].sop_classes
        if urgency is not None and is_urgent:
            report_changes.state_priority(dataset, urgency.priority, urgency.because)
        if is_changed:
            # The same object that a peer gets which refuses the class: it has one UID however it came about.
            report_changes.as_comprehensive(dataset, str(path))
        if earlier is not None:
            with suppress(FormatError):  # of a damaged one there is nothing to name
                report_changes.name_predecessor(dataset, earlier)
        if is_changed or is_urgent or earlier is not None:
            with atomic.write_whole(path, overwrite=True) as partial:
                dataset.save_as(partial, enforce_file_format=True)
        sop_class = str(dataset.SOPClassUID)
        kind = next((name for name, kind in ANSWERS.items() if sop_class in kind.sop_classes), "dicom")
        answer = replace(answer, kind=kind, sop_class=sop_class)
        answer = replace(answer, sop_instance_uid=str(dataset.SOPInstanceUID))
    return replace(answer, bytes=path.stat().st_size, sha256=hashing.file_hash(path))


def _stamp(job: Job, path: Path, marks: ObjectMarks) -> Stamp:
    """The stamp of one DICOM file of a result: versions of it share a series, that of study, rule, inputs and file.

    The slices of a moved image are the series, and another version of it is another one.
    """
    if (part := SLICE.fullmatch(path.name)) is not None:
        key = f"{job.job} {part[1]}"
        return Stamp(marks.root, f"{job.job} {path.name}", job.stamp, marks.words, key, int(part[2]))
    series = [f"{role}={key}" for role, key in sorted(job.inputs["series"].items())]
    shared = " ".join([job.study, job.rule, *series, path.name])
    return Stamp(marks.root, f"{job.job} {path.name}", job.stamp, marks.words, shared, job.version)

"""`predict`: a model's results for files, series or cohorts, each on the source's own grid."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NotRequired

from hilum import errors, keywords, work_state
from hilum.errors import (
    DatasetError,
    HilumError,
    MemoryShortageError,
    ResourceError,
    UsageError,
    WorkerLostError,
)
from hilum.files.storage import atomic, csv_text
from hilum.lazy import pandas as pd
from hilum.options.models import PredictOptions
from hilum.prediction import case_prediction, findings_file, predictors, result_files
from hilum.prediction.answers import WantedFiles
from hilum.prediction.case_prediction import CaseRequest, PredictionOutcome
from hilum.prediction.earlier_study import EarlierStudy, StudyChange
from hilum.prediction.findings_file import ExaminedImage
from hilum.prediction.predictors import ClusterPredictor, CohortPredictor, LocalPredictor
from hilum.reading import alignment, dataset_reading, input_cases, prompt_reading, verb_results
from hilum.reading.reading_options import Input
from hilum.report import InNotebook, progress_tracking
from hilum.report.page_blocks import Problems
from hilum.runtime import Model, ModelRequest, label_measurements, model_assembly, record_files
from hilum.tasks import Task, properties
from hilum.values import Case, PlainValue, Prediction, Problem, Prompts, case_outcome
from hilum.values.case_outcome import CaseOutcome
from hilum.values.finding import FindingsRecord
from hilum.values.record_schema import FailedCase, RecordHead, RecordSchema
from hilum.values.table_cells import TableRow
from hilum.work_state import log

MARKS = ("predictions.csv", "summary.json")
# Holds the room for the records until they are written; its bytes are those of their files, of a row, and of what a row
# says of a label, whose measurements are findings too, each twice what was seen.
RESERVED, RECORD_BYTES, CASE_BYTES, LABEL_BYTES = ".reserved", 12288, 1024, 6400


class PredictionsRecord(RecordHead):
    """How many cases have a result, those that failed, and a row a case; change: since an earlier study.

    model: of a folder of results: the model, and what was asked for
    """

    predicted: int
    failed: list[FailedCase]
    outcomes: list[CaseOutcome]
    unfinished_training: str
    files: list[str]
    rows: list[TableRow]
    change: NotRequired[Mapping[str, PlainValue]]
    model: NotRequired[Mapping[str, PlainValue]]


PREDICTIONS_SCHEMA = RecordSchema("hilum.predictions", PredictionsRecord)


@dataclass(frozen=True, eq=False)
class PredictionResult(InNotebook):
    """Results by case, what failed, and where the files lie.

    table:        a row a case, as in `predictions.csv`
    predictions:  {case id: Prediction}; empty where they were written, so that a cohort of any size fits
    problems:     errors are cases without a result, warnings are results that lack a part, and files that were left out
    stopped:      what ended it before the last case: Ctrl-C, a full disk, or a defect
    findings:     of all cases, as in `findings.json`; of several each row states its case
    measurements: of dense results, one row a case and label: size, mean and SD of the intensity
    gate:         of a model that refuses no image, or by limits alone: why
    unfinished_training: how far the training of the model came, where that was stopped
    tracks:       of clips of objects, one row a track: label, first and last frame, score
    change:       since the earlier study that was given
    """

    table: pd.DataFrame
    predictions: Mapping[str, Prediction]
    problems: Sequence[Problem]
    files: Sequence[Path]
    findings: FindingsRecord
    out: Path | None = None
    stopped: BaseException | None = None
    measurements: pd.DataFrame = field(default_factory=lambda: pd.DataFrame([]))
    tracks: pd.DataFrame = field(default_factory=lambda: pd.DataFrame([]))
    gate: str = ""
    unfinished_training: str = ""
    change: StudyChange | None = None

    @property
    def failures(self) -> list[Problem]:
        """Stand-ins for cases without a result."""
        return verb_results.failures_among(self.problems)

    @property
    def outcomes(self) -> list[CaseOutcome]:
        """The outcome of each case, with the reason where there is no answer."""
        return verb_results.case_outcomes(self.table, self.problems)

    @property
    def cases(self) -> int:
        """Number of cases with a result; one may have several rows."""
        return int(self.table["case"].nunique())

    def as_record(self) -> PredictionsRecord:
        """Record for `--json`."""
        rows, failed = self.table.to_dict("records"), verb_results.failed_rows(self.failures)
        own = {"predicted": self.cases, "failed": failed, "rows": rows, "model": None}
        return PREDICTIONS_SCHEMA.record_of(self, **own)

    def __repr__(self) -> str:
        lines = [*filter(None, [self.unfinished_training]), case_outcome.outcome_sentence(self.outcomes)]
        lines += [self.gate] if self.gate else []
        lines += [] if self.change is None or self.change.refusal else [repr(self.change)]
        # Each case without a result has its line; what many cases with one have in common is said once.
        refused = [problem for problem in self.problems if problem.severity == "error"]
        noted = Problems([problem for problem in self.problems if problem.severity != "error"]).joined_problems
        lines += [f"{problem.severity}: {problem.what}. {problem.remedy}".strip() for problem in (*refused, *noted)]
        return "\n".join([*lines, *([f"written: {self.out}"] if self.out is not None else [])])


@keywords.takes(PredictOptions)
def predict(options: PredictOptions) -> PredictionResult:
    """Predict every input: an image file, a folder of one DICOM series, or a cohort of any known layout.

    format: of dense results; "auto" writes .nii.gz, a picture as .png, and for DICOM objects as well; "dcm" these alone
    answers: kinds of DICOM objects, as "seg,sr" or a list: those that `hilum.files.dicom.ANSWERS` names. Without
             any a SEG of masks, and a report of what else was found
    out:    a folder for the results, predictions.csv, measurements.csv, findings.json and summary.json; it is there
            when all is done. Stopped by Ctrl-C, a full disk or a defect, it holds the cases that were
    maps:   make the entropy of every voxel's probabilities (nats): `Prediction.maps["total"]`, or a file; and
            "epistemic", the part about which the model's members or other views of the image disagree
    covering: make a mask of each structure that misses no more of it than the model's `task.risk` allows:
            `Prediction.maps["covering"]`, or a file; of single objects a map of all that it takes for that, of a
            detection all boxes
    region: of each image, of which alone something is said: voxels as "0:120,40:200,10:50", or the file of a mask on
            the image's grid, of which the box is meant that holds all its labels, with FILE=VALUE that of one
    seconds: in which the windows of each image should be done: the overlap becomes smaller where it has to
    covariates: of the patients, for a model that was trained with them: a table or several with a row for each case
            or patient, or of what was read time and again rows with their times; or those of the one patient by name,
            what was read as pairs of a time and a number. A cohort whose own tables have them needs no other
    prior: an earlier image of the same patient, answered first: what changed since is in change.csv and the findings;
           days: since then; lesions: structures of which each piece is one, as in `register --lesions`
    A case that fails is reported and the rest goes on; DatasetError where every one fails. The next case is read and
    the last one written while the network sees one; where memory runs out fewer windows go through it at once.
    ResourceError where the disk is full; what was done by then is kept.
    """
    inputs = keywords.as_tuple(options.inputs)
    if not inputs:
        raise UsageError("nothing to predict", "predict", "Give files or folders after the model")
    asked = _make_request(options)  # what it refuses needs no model
    _refuse_beside_prior(options)
    if options.out is None and (options.save_probabilities or options.overlay):
        raise UsageError("probabilities and overlays are written as files", "predict", "Give out=FOLDER")
    folder = None if options.out is None else Path(options.out)
    if folder is not None:
        verb_results.refuse_taken(folder, options.overwrite, MARKS)
    model, predictor = _load(options)
    model = case_prediction.pointed_model(model, asked)
    asked = replace(asked, ratios=label_measurements.checked_ratios(options.measure, model.task))
    with ExitStack() as uninterrupted:
        with (
            nullcontext() if folder is None else verb_results.result_folder(folder, options.overwrite, MARKS) as partial
        ):
            asked = replace(asked, folder=partial)
            if options.prior is not None:
                asked = replace(asked, earlier=_earlier_study(model, options, asked))
            predicted = _predict_cases(model, inputs, options, asked, predictor, uninterrupted)
            if folder is None or partial is None:
                return predicted
            (partial / RESERVED).unlink(missing_ok=True)
            predicted = replace(predicted, files=[folder / path.name for path in predicted.files], out=folder)
            _write_records(predicted, model, options, asked, partial)
        match predicted.stopped:
            case None:
                return predicted
            case HilumError() as error:
                raise _short(error, predicted.cases, partial, folder)
            case stop:
                log.warning("%s predicted before the stop: %s", errors.count_phrase(predicted.cases, "case"), folder)
                raise stop


def _load(options: PredictOptions) -> tuple[Model, CohortPredictor]:
    """The model, refused where it cannot do what is asked, and the place where it predicts."""
    uncertainty = options.uncertainty or ("auto" if options.maps else None)
    model = predictors.load_model(
        options.model,
        options.device,
        fold=options.fold,
        threads=options.threads,
        backend=options.backend,
        activation=options.activation,
    )
    model = model_assembly.with_uncertainty(model, uncertainty)
    model.flips(options.mirror)  # refused before the first case
    if options.covering and options.calibration == "off":
        raise UsageError("covering masks rest on calibrated probabilities", "--covering", "Leave --calibration on")
    if options.covering:
        _refuse_without_covering(model.task, str(options.model))
    if options.scheduler is None:
        return model, LocalPredictor(model)
    workers = ClusterPredictor.on_cluster(
        options.scheduler,
        dataset_reading.path_of_data(options.model),
        model,
        device=options.device,
        fold=options.fold,
        threads=options.threads,
        backend=options.backend,
        uncertainty=uncertainty,
        activation=options.activation,
    )
    return model, workers


def _make_request(options: PredictOptions) -> CaseRequest:
    """What is asked of each case."""
    answers = options.answers
    kinds = [kind.strip() for kind in answers.split(",") if kind] if isinstance(answers, str) else answers
    files = WantedFiles(
        options.format, options.save_probabilities, options.overlay, options.maps, options.covering, tuple(kinds)
    )
    of_all, of_cases = _prompts(options)
    request = ModelRequest(
        options.mirror,
        overlap=options.overlap,
        seconds=options.seconds,
        allow_large=options.reading.allow_large,
        prompts=of_all,
    )
    return CaseRequest(None, files, request, options.region, options.abstain, options.calibration, prompts=of_cases)


def _refuse_beside_prior(options: PredictOptions) -> None:
    """UsageError for what goes with an earlier study alone, and for what does not go with one."""
    if options.prior is None and (options.lesions or options.days is not None):
        raise UsageError("lesions and days are of an earlier study", "--prior", "Give it")
    if options.prior is not None and (options.scheduler or options.region):
        raise UsageError(
            "an earlier study is compared here, and as a whole", "--prior", "Leave out --scheduler, --region"
        )


def _earlier_study(model: Model, options: PredictOptions, asked: CaseRequest) -> EarlierStudy:
    """The earlier study, answered by the same model in the same way. UsageError for several cases."""
    assert options.prior is not None  # noqa: S101 - as asked
    marked = [label.name for part in properties.leaf_tasks(model.task).values() for label in part.labels]
    if unknown := [name for name in options.lesions if name not in marked]:
        remedy = f"Choose from {errors.list_phrase(marked)}" if marked else "Leave it out"
        raise UsageError(f"the model marks no {errors.list_phrase(unknown)}", "--lesions", remedy)
    opened, _ = input_cases.open_inputs([options.prior], options.reading, model)
    cases, _ = input_cases.with_given_covariates(opened, options.covariates, model)
    if len(cases) != 1:
        raise UsageError(f"holds {errors.count_phrase(len(cases), 'case')}", str(options.prior), "Give one image")
    image = predictors.image_of_case(cases[0])
    done = case_prediction.compute_case(model, cases[0], image, replace(asked, folder=None))()
    earlier = EarlierStudy.from_prediction(done.prediction, done.findings, image, cases[0], done.abstained)
    return replace(earlier, lesions=tuple(options.lesions), days=options.days)


def _prompts(options: PredictOptions) -> tuple[Prompts | Sequence[Prompts], Mapping[str, Sequence[Prompts]]]:
    """The prompts for every image, and {case: its own}; UsageError for flags beside others."""
    given, has_flags = options.prompts, bool(options.box or options.point or options.scribble is not None)
    if has_flags and given is not None:
        raise UsageError("other prompts and --box, --point or --scribble are given", "--prompts", "Give one of them")
    if isinstance(given, str | Path):
        return (), prompt_reading.read_prompt_file(Path(given))
    flags = (options.box, options.point, options.scribble, options.unit)
    return prompt_reading.prompts_of_flags(*flags) if has_flags else given or (), {}


def _refuse_without_covering(task: Task, where: str) -> None:
    if not properties.may_miss(task):
        problem = "the model marks nothing in images, and only masks, boxes and objects can be covering"
        raise UsageError(problem, where, "Predict without --covering")
    if properties.added_results(task) is None:
        remedy = "Train it with task.risk, or find thresholds on your own cases: hilum calibrate"
        raise UsageError("the model has no thresholds of covering masks, boxes or objects", where, remedy)


def _short(error: HilumError, done: int, partial: Path, folder: Path) -> HilumError:
    """The error that ended the work, with what was kept."""
    where = error.where.replace(str(partial), str(folder))
    return error.stating(
        problem=f"{error.problem}; {errors.count_phrase(done, 'case')} predicted before it: {folder}", where=where
    )


def _write_records(
    predicted: PredictionResult, model: Model, options: PredictOptions, request: CaseRequest, folder: Path
) -> None:
    csv_text.write_table(predicted.table, folder / "predictions.csv")
    if len(predicted.measurements):
        csv_text.write_table(predicted.measurements, folder / "measurements.csv")
    if len(predicted.tracks):
        csv_text.write_table(predicted.tracks, folder / "tracks.csv")
    findings_file.write_findings(predicted.findings, folder)
    origin = {"sha256": model.sha256, **{key: model.record.get(key) for key in ("weights_sha256", "data_hash")}}
    computing = None if model.networks.computing is None else asdict(model.networks.computing)
    record = {**origin, "mirrored": model.flips(options.mirror), "computing": computing}
    record |= {"activation": model.record["activation"]} if "activation" in model.record else {}
    asked = {
        "region": options.region,
        "overlap": options.overlap,
        "seconds": options.seconds,
        "orientation": options.reading.orientation,
    }
    record |= {name: setting for name, setting in asked.items() if setting is not None}
    if request.prompts or request.request.all_prompts:
        pointed = {case: request.prompts.get(case, request.request.all_prompts) for case in predicted.table["case"]}
        record["prompts"] = {case: [one.record for one in prompts] for case, prompts in pointed.items()}
    record_files.write_json(folder / "summary.json", PREDICTIONS_SCHEMA, {**predicted.as_record(), "model": record})


def _predict_cases(
    model: Model,
    inputs: Sequence[Input],
    options: PredictOptions,
    asked: CaseRequest,
    predictor: CohortPredictor,
    uninterrupted: ExitStack,
) -> PredictionResult:
    """Every case predicted, its dense result written into the folder; what failed is named, and the rest goes on.

    uninterrupted: from the last case to its end Ctrl-C waits
    """
    if predictor.is_elsewhere:
        asked = predictors.with_full_path(asked)
    places = [_in_full(one) for one in inputs] if predictor.is_elsewhere else inputs
    opened, problems = input_cases.open_inputs(places, options.reading, model)
    with_covariates, notes = input_cases.with_given_covariates(opened, options.covariates, model)
    cases = result_files.with_unique_names(with_covariates, result_files.map_names(model.task))
    problems = [*problems, *notes]
    if unknown := sorted(set(asked.prompts) - {case.id for case in cases}):
        problem = f"holds prompts of {errors.list_phrase(unknown)}, and no input is that case"
        raise DatasetError(problem, str(options.prompts), f"Cases are {errors.list_phrase([c.id for c in cases])}")
    if asked.earlier is not None and len(cases) != 1:
        problem = f"{errors.count_phrase(len(cases), 'case')} for one earlier study"
        raise UsageError(problem, "--prior", "Give one new image, or one case of a cohort")
    done: dict[str, PredictionOutcome] = {}
    stopped: BaseException | None = None
    if asked.folder is not None:
        _reserve(asked.folder, len(cases), len(model.task.labels))

    def take(case: Case, outcome: PredictionOutcome | HilumError) -> None:
        match outcome:
            case PredictionOutcome():
                done[case.id] = outcome
            case MemoryShortageError():  # where memory ran out is of no use to a reader
                problems.append(Problem.of_case(case.id, outcome, case.id))
            case ResourceError() if not isinstance(outcome, WorkerLostError):
                raise outcome  # a full disk is full for the next case too
            case _:
                inside = asked.folder is not None and outcome.where.startswith(str(asked.folder))
                problems.append(Problem.of_case(case.id, outcome, case.id if inside else outcome.where))

    try:
        with progress_tracking.track_progress("predicting") as tracker:
            predictor(cases, asked, take, tracker)
    except (KeyboardInterrupt, ResourceError) as error:
        stopped = error  # what is done is kept
    except Exception as error:  # a defect over one case of thousands: those before it took hours
        if asked.folder is None:
            raise
        stopped = error
    uninterrupted.enter_context(work_state.finish_despite_interrupt())
    if asked.folder is not None:
        alignment.write_alignment((case for case in cases if case.id in done), options.reading.align, asked.folder)
    predicted = _gather(model, [done[case.id] for case in cases if case.id in done], problems, stopped)
    return _as_given(predicted, inputs) if predictor.is_elsewhere else predicted


def _reserve(folder: Path, cases: int, labels: int) -> None:
    """Take the room on the disk that the records will need, so that what is done stays when the disk gets full."""
    try:
        # Random, because a file system that compresses takes no room for zeros.
        with (folder / RESERVED).open("wb") as file:
            file.write(os.urandom(RECORD_BYTES))
            for _ in range(cases):
                file.write(os.urandom(CASE_BYTES + labels * LABEL_BYTES))
    except OSError as error:
        raise atomic.unwritable_error(error, folder) from error


def _gather(
    model: Model, done: Sequence[PredictionOutcome], problems: Sequence[Problem], stopped: BaseException | None
) -> PredictionResult:
    """The results as one; where there is none, why."""
    if not done and stopped is not None:
        raise stopped
    if not done:
        raise verb_results.no_result_error("predict", "predicted", problems)
    several = len(done) > 1
    cases = [str(one.rows[0]["case"]) for one in done]
    examined = [
        ExaminedImage(one, f"{case}: ", {"case": case}) if several else ExaminedImage(one)
        for one, case in zip(done, cases, strict=True)
    ]
    return PredictionResult(
        pd.DataFrame([row for one in done for row in one.rows]),
        {case: one.prediction for case, one in zip(cases, done, strict=True) if one.prediction is not None},
        [*problems, *(problem for one in done for problem in one.lacking), *_large(done)],
        [path for one in done for path in one.files],
        findings_file.findings_record(examined, model),
        stopped=stopped,
        measurements=pd.DataFrame([row for one in done for row in one.measured]),
        tracks=pd.DataFrame([row for one in done for row in one.tracks]),
        gate="" if model.gate.is_fitted else str(model.gate),
        unfinished_training=model.unfinished_training,
        change=next((one.change for one in done if one.change is not None), None),
    )


def _large(done: Sequence[PredictionOutcome]) -> Iterator[Problem]:
    """One warning on all images that are far larger than those that trained the model."""
    large = {str(one.rows[0]["case"]): one.large for one in done if one.large is not None}
    if large:
        windows, times = map(max, zip(*large.values(), strict=True))
        images = errors.count_phrase(len(large), "image is", "images are")
        what = f"{images} up to {times:.0f} times as large as any that trained the model (up to {windows} windows)"
        remedy = "It has seen nothing of what lies around and may find structures there: give --region, or crop as then"
        yield Problem.warning(what, tuple(large), remedy=remedy)


def _in_full(image: Input) -> Input:
    """An input as a process with another working folder finds it."""
    path = dataset_reading.path_of_data(image)
    return image if path is None else path.absolute()


def _as_given(predicted: PredictionResult, inputs: Sequence[object]) -> PredictionResult:
    """Images are called as they would be if they were predicted here."""
    table = predicted.table.copy()
    for path, full in (
        (str(path), str(path.absolute())) for path in map(dataset_reading.path_of_data, inputs) if path is not None
    ):
        names = [path + name.removeprefix(full) if name.startswith(full) else name for name in table["image"]]
        table["image"] = names
    return replace(predicted, table=table)

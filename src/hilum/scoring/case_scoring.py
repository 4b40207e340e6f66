"""Scores of cases, with tables, summary and pictures, and audits of them: what `train` and `evaluate` share.

A page of a case shows its image with reference and prediction; the shift compares the scored cases with those that
calibrated the model, by what its network sees in them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, cast

import numpy as np
from typing_extensions import TypedDict

from hilum.errors import DatasetError, HilumError, MemoryShortageError, ResourceError, WorkerLostError
from hilum.evaluation import Metrics, Table, case_tables
from hilum.evaluation.case_tables import COVARIATE, FOLD
from hilum.evaluation.fairness import shift_tests
from hilum.files.storage import atomic, csv_text
from hilum.lazy import pandas as pd
from hilum.prediction import predictors, slide_results, withholding
from hilum.prediction.predictors import ClusterPredictor
from hilum.quality import image_descriptors, references
from hilum.quality.image_descriptors import ImageFacts
from hilum.report import Figure, Section, progress_tracking, slice_viewer
from hilum.runtime import Model, record_files
from hilum.runtime.guard.image_gate import Guard
from hilum.scoring import answered_cases, data_record
from hilum.scoring.answered_cases import ScoringFold
from hilum.scoring.auditing.audit_options import AuditOptions
from hilum.tasks import Task, multitask, properties, task_settings
from hilum.values import (
    Array,
    BoundingBoxes,
    Case,
    Dataset,
    Estimate,
    Image,
    Prediction,
    Problem,
    Row,
    Split,
    personal_columns,
)
from hilum.values.covariate_values import Course
from hilum.values.record_schema import FigureRow, RecordSchema, ShiftRecord, VerdictRecord
from hilum.values.table_cells import PlainCell

# Folders of a run with the files below.
EVALUATION, OUT_OF_FOLD = "evaluation", "out_of_fold"
CASES, SUMMARY, TASK, TASK_SCHEMA = "cases.csv", "summary.json", "task.json", "hilum.task"
# In a summary: the metric that judges the model, and by how much it may be worse than another, fixed before training.
PRIMARY: Final = "primary"
PREREGISTERED_MARGIN: Final = "preregistered_margin"
# By which trainings of one plan are known.
RECIPE: Final = "recipe"
SEED: Final = "seed"


class SubsetRow(FigureRow):
    """A figure of a subset of the images that a model may get."""

    images: list[str]


class SubsetsRecord(TypedDict):
    """The figures of a model for each subset of its images."""

    rows: list[SubsetRow]


IMAGES, IMAGES_SCHEMA = "images.json", RecordSchema("hilum.images", SubsetsRecord)
# Pictures of the best, a median and the worst cases; of wrong calls, the worst first, and the word for them.
SHOWN, SHOWN_WRONG = 2, 12
WRONG = "wrong call"
# Where the method of a figure names a class: of whom it is, or by which threshold it is called.
OF_A_CLASS = re.compile(r"^of | from .+ on(?:,| \()")
# Predictions of so many voxels together are kept until it is known which are shown; of more those are made once more.
MOST_KEPT = 2**27
# So often cases of the same source are called different.
SHIFT_LEVEL = 0.01
# With fewer patients on a side no difference could reach that level.
FEWEST_FOR_SHIFT = 5


class FoldPredictor(Protocol):
    """A model, or several models of which each case has its own."""

    @property
    def task(self) -> Task:
        """The kind of problem that scores its predictions."""

    @property
    def guard(self) -> Guard | None:
        """The gate whose calibration cases the scored ones are compared with; None where several models score."""

    def predict(self, subject: Case) -> Prediction:
        """Predict one case."""

    def model_of(self, case: str) -> Model:
        """The model that predicts a case of this id."""


@dataclass(frozen=True, eq=False)
class ScoredCases:
    """The figures of some cases, with all that is shown of them.

    shown:    (what it is, case id, pictures, the viewer's page) of the best, median and worst cases, and wrong calls
    task:     whose figures they are
    subsets:  (images, what was measured with these alone) of a model that does without some
    shift:    whether they are like the cases that calibrated the model; None where nothing can be compared
    openings: how often these cases were opened as a test on this machine, this time too; 0 where nobody knows
    features: {case id: (patient, what the network saw in it)} of test cases, for a model that keeps it
    facts:    {case id: facts of its first image}
    audits:   what further looks at these cases found
    stopped:  Ctrl-C, where it ended the work before the last case or look
    """

    table: Table
    rows: Sequence[Row]
    overview: Sequence[Figure] = ()
    shown: Sequence[tuple[str, str, Sequence[Figure], str]] = ()
    problems: Sequence[Problem] = field(default=())
    openings: int = 0
    task: Task | None = None
    subsets: Sequence[tuple[tuple[str, ...], Sequence[Row]]] = ()
    shift: Shift | None = None
    features: Mapping[str, tuple[str, Array]] = field(default_factory=dict)
    facts: Mapping[str, ImageFacts] = field(default_factory=dict)
    audits: Sequence[AuditOutcome] = ()
    stopped: KeyboardInterrupt | None = None

    def with_audit(self, outcome: AuditOutcome, rows: Sequence[Row] = ()) -> ScoredCases:
        """The same with what a further look found, and figures of its own."""
        return replace(self, rows=[*self.rows, *rows], audits=[*self.audits, outcome])

    @property
    def metrics(self) -> Metrics:
        """The metrics of the task."""
        return Metrics() if self.task is None else self.task.metrics

    @property
    def notes(self) -> list[str]:
        """Notes on the scored cases that a reader must know before any figure."""
        shifted = [self.shift.note] if self.shift is not None and self.shift.is_found else []
        return [*shifted, *(note for audit in self.audits for note in audit.notes)]

    @property
    def parts(self) -> dict[str, tuple[Task, Table]]:
        """{part: its task, and its rows} of a task that is made of tasks; itself under "" of any other."""
        if self.task is None:
            return {}
        return {
            name: (properties.part_or_whole(self.task, name), rows)
            for name, rows in multitask.part_tables(self.task, self.table).items()
        }

    def write(self, folder: Path) -> None:
        """cases.csv, summary.json, task.json, further tables and viewers' pages into an existing folder; images.json
        of subsets.
        """
        if self.task is not None:
            write_task(self.task, folder)
        csv_text.write_table(self.table, folder / CASES)
        for part, (task, rows) in self.parts.items():
            for name, table in task.further_tables(rows).items():
                csv_text.write_table(table, folder / (f"{part}_{name}.csv" if part else f"{name}.csv"))
        record = case_tables.rows_to_json(self.rows)
        if self.shift is not None:
            record["shift"] = self.shift.as_record()
        (folder / SUMMARY).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if self.subsets:
            records: list[SubsetRow] = [
                {"images": [*own], **row}
                for own, rows in self.subsets
                for row in case_tables.rows_to_json(rows)["rows"]
            ]
            record_files.write_json(folder / IMAGES, IMAGES_SCHEMA, SubsetsRecord(rows=records))
        for audit in self.audits:
            audit.write(folder)
        if self.shown:
            (folder / "views").mkdir()
        for number, (_, _, _, page) in enumerate(self.shown):
            (folder / view_name(number)).write_text(page, encoding="utf-8")


def write_task(task: Task, folder: Path) -> None:
    """`task.json`, which `read_task` reads."""
    record_files.write_json(folder / TASK, TASK_SCHEMA, {"name": task.name, **task_settings.settings_of(task)})


def write_verdict(
    folder: Path, verdict: VerdictRecord, primary: str, margin: float | None = None, **facts: Any
) -> None:
    """Add a verdict to the `summary.json` of a folder, where there is one.

    primary, margin: the metric that judges the model, and by how much it may be worse, as preregistered
    facts: what else a reader has to know
    """
    path = folder / SUMMARY
    if path.is_file():
        record = {**json.loads(path.read_text(encoding="utf-8")), PRIMARY: primary, "verdict": dict(verdict), **facts}
        record |= {} if margin is None else {PREREGISTERED_MARGIN: margin}
        atomic.write_text(path, json.dumps(record, indent=1) + "\n", overwrite=True)


def view_name(number: int) -> str:
    """A viewer's file, relative to the evaluation's folder; no case id in it, because ids can be anything."""
    return f"views/{number + 1}.html"


class MeasuredCase(NamedTuple):
    """The rows of one case, its problems, and the prediction unless another process made it.

    features: what the network saw in it, as in `Confidence`
    facts:    of its first image
    """

    rows: list[dict[str, PlainCell]]
    problems: Sequence[Problem]
    prediction: Prediction | None
    features: Array | None = None
    facts: Mapping[str, PlainCell] = {}


# (number of the case, what it came to or why it failed), as they are done.
Outcomes = Iterator[tuple[int, MeasuredCase | HilumError]]


def measure_case(model: FoldPredictor, fold: ScoringFold | None, case: Case) -> MeasuredCase:
    """Predict a case and score it on its reference's own grid, as one of the test part."""
    images = {name: predictors.image_in_memory(image) for name, image in case.images.items()}
    prediction = model.predict(replace(case, images=images))
    facts = image_descriptors.image_facts(next(iter(images.values()))) if images else {}
    rows = case_table_rows(prediction, case, model.task, "test", fold)
    # What it was scored on is large beside a label map, and of no use to a picture.
    decided = prediction.without_tuning_arrays
    return MeasuredCase(
        rows, tuple(withholding.reader_warnings(prediction, case)), decided, prediction.confidence.features, facts
    )


def measure_here(model: FoldPredictor, folds: Mapping[str, ScoringFold], cases: Sequence[Case]) -> Outcomes:
    """One case after the other, by this process."""
    for number, case in enumerate(cases):
        try:
            yield number, measure_case(model, folds.get(case.id), case)
        except HilumError as error:
            yield number, error


@dataclass
class _Collected:
    """Outcomes of cases as they come in.

    ended:       {number of a case: its rows, and what speaks against them}
    predictions: of the first cases, for pictures, as long as memory is meant to hold them
    features:    {case id: (patient, features)} of cases of the test part
    """

    parts: Mapping[str, Split]
    draws_figures: bool
    ended: dict[int, tuple[list[Any], Sequence[Problem]]] = field(default_factory=dict)
    predictions: dict[str, Prediction] = field(default_factory=dict)
    voxels: int = 0
    features: dict[str, tuple[str, Array]] = field(default_factory=dict)
    facts: dict[str, ImageFacts] = field(default_factory=dict)

    def take(self, number: int, case: Case, outcome: MeasuredCase | HilumError) -> None:
        """Take the outcome of a case, or the error that ended it."""
        if isinstance(outcome, HilumError):
            self.ended[number] = [], [Problem.of_case(case.id, outcome)]
            return
        part = self.parts.get(case.id, "test")
        self.ended[number] = [row | {"split": part} for row in outcome.rows], outcome.problems
        self.facts[case.id] = outcome.facts
        if outcome.features is not None and part == "test":
            self.features[case.id] = case.patient, outcome.features
        if outcome.prediction is not None:
            self.voxels += math.prod(outcome.prediction.geometry.shape)
            if self.draws_figures and self.voxels <= MOST_KEPT:
                self.predictions[case.id] = outcome.prediction


def score_cases(
    model: FoldPredictor,
    cases: Sequence[Case],
    parts: Mapping[str, Split],
    *,
    seed: int,
    patients_known: bool,
    folds: Mapping[str, ScoringFold] = {},
    draws_figures: bool = True,
    outcomes: Callable[[Sequence[Case]], Outcomes] | None = None,
    keeps: bool = False,
    again: bool = True,
) -> ScoredCases:
    """Predict every case and score it on its reference's own grid; a case that fails is named and the rest goes on.

    patients_known: False where each case only stands for a patient; then no number of patients is claimed
    folds:          {case id: the fold that scores it}, where there are several
    draws_figures:  whether somebody will see the charts and the viewers' pages, which take longer than the figures
    outcomes:       who measures the cases, in place of this process
    again:          whether cases that are shown are predicted once more where their predictions are too large to keep
    keeps:          whether Ctrl-C leaves the figures of the cases that were scored by then, without pictures
    Raises DatasetError where no case could be scored.
    """
    collected = _Collected(parts, draws_figures)
    stopped: KeyboardInterrupt | None = None
    measuring = outcomes or partial(measure_here, model, folds)
    try:
        with progress_tracking.track_progress("predicting and scoring") as tracker:
            for done, (number, outcome) in enumerate(measuring(cases), start=1):
                collected.take(number, cases[number], outcome)
                tracker(done, len(cases))
    except KeyboardInterrupt as stop:
        if not keeps or not any(rows for rows, _ in collected.ended.values()):
            raise
        stopped, draws_figures = stop, False
    numbers = sorted(collected.ended)
    rows = [row for number in numbers for row in collected.ended[number][0]]
    problems = [problem for number in numbers for problem in collected.ended[number][1]]
    if not rows:
        reason = problems[0].what if problems else "there is none"
        raise DatasetError(f"no case could be scored ({reason})", "evaluation", "Give cases of the model's kind")
    table = case_tables.case_table(rows)
    ranked: Sequence[str] = model.task.rank(table) if draws_figures else ()
    ranked = ranked if again else [case for case in ranked if case in collected.predictions]
    by_id, wrong = {case.id: case for case in cases}, wrong_calls(model.task, table)
    shown = _case_views(model, by_id, ranked, wrong, collected.predictions)
    summary = summarise_table(model.task, table, seed=seed, patients_known=patients_known)
    overview = model.task.overview(table) if draws_figures else ()
    tested = [cases[number] for number in numbers if parts.get(cases[number].id, "test") == "test"]
    shift = detect_shift(model.guard, collected.features, seed=seed, patients_known=patients_known)
    counted = data_record.count_opening(tested)
    scored = ScoredCases(table, summary, overview, shown, problems, counted, model.task, shift=shift)
    return replace(scored, features=collected.features, facts=collected.facts, stopped=stopped)


def case_table_rows(
    prediction: Prediction, case: Case, task: Task, split: Split, fold: ScoringFold | None
) -> list[dict[str, PlainCell]]:
    """The rows of a case in a table of cases, scored by its fold's own task where several folds score."""
    table = (task if fold is None else fold.task).score([prediction], [case])
    of_fold = {} if fold is None else {FOLD: str(fold.number)}
    sure, who = withholding.confidence_columns(prediction, between="."), covariate_cells(case)
    rows = table.assign(split=split, **of_fold, **sure).to_dict("records")
    return [{**{str(name): value for name, value in row.items()}, **who} for row in rows]


def covariate_cells(case: Case) -> dict[str, PlainCell]:
    """{covariate_<name>: value} of a row, a course in words; without what names a person."""
    return {
        f"{COVARIATE}{name}": str(value) if isinstance(value, Course) else value
        for name, value in case.covariates.items()
        if not personal_columns.identifies_person(name)
    }


def summarise_table(task: Task, table: Table, *, seed: int, patients_known: bool) -> list[Row]:
    """The figures of cases that were scored, folds apart; called by what was resampled where patients are unknown."""
    rows = [*task.summary(table, seed=case_tables.resampling_of_table(table, seed))]
    rows += answered_cases.answered_rows(task, table, seed=seed)
    return rows if patients_known else [replace(row, estimate=named_by_case(row.estimate)) for row in rows]


def named_by_case(estimate: Estimate) -> Estimate:
    """The same interval, called by what was resampled; a class keeps its name, which may be "patient"."""
    parts = estimate.method.split("; ")
    method = "; ".join(one if OF_A_CLASS.search(one) else one.replace("patient", "case") for one in parts)
    return replace(estimate, patients=0, method=method)


def _case_views(
    model: FoldPredictor,
    cases: Mapping[str, Case],
    ranked: Sequence[str],
    wrong: Collection[str],
    predictions: Mapping[str, Prediction],
) -> list[tuple[str, str, Sequence[Figure], str]]:
    middle, last = len(ranked) // 2, ranked[::-1]
    groups = {"best": ranked[:SHOWN], "worst": last[:SHOWN], "median": ranked[middle : middle + SHOWN]}
    chosen = dict[str, str]()
    for word, ids in groups.items():
        chosen |= {case_id: word for case_id in ids if case_id not in chosen}
    chosen |= dict.fromkeys([one for one in last if one in wrong][:SHOWN_WRONG], WRONG)
    order = ("best", "median", "worst", WRONG)
    shown: list[tuple[str, str, Sequence[Figure], str]] = []
    for case_id, word in sorted(chosen.items(), key=lambda item: order.index(item[1])):
        case = cases[case_id]
        prediction = predictions[case_id] if case_id in predictions else model.predict(case)
        slides = {name: image for name, image in case.images.items() if image.is_slide}
        tiles = [one for image in slides.values() for one in slide_results.attended_figures(prediction, image, case_id)]
        tiles += [one for image in slides.values() for one in slide_results.tissue_figures(image, case_id)]
        for name, image in slides.items():  # of which no step holds all pixels
            prediction, coarse = slide_results.shown_coarsely(prediction, image)
            case = replace(case, images={name: coarse})
        figures = [*model.task.figures(prediction, case), *tiles]
        shown.append((word, case_id, figures, viewer_page(case, prediction, model.task)))
    return shown


def wrong_calls(task: Task, table: Table) -> list[str]:
    """The cases of which something else is called than the reference names, a class or a finding."""
    wrong = dict[str, None]()
    for rows in multitask.part_tables(task, table).values():
        if {"predicted", "reference"} <= set(rows) and not pd.api.types.is_numeric_dtype(rows["reference"]):
            answered = rows[rows["reference"].notna() & rows["predicted"].notna()]
            wrong |= dict.fromkeys(answered.loc[answered["predicted"] != answered["reference"], "case"].astype(str))
    return list(wrong)


def split_table(
    dataset: Dataset, parts: Mapping[str, Split], folds: Sequence[Mapping[str, Split]] = ()
) -> pd.DataFrame:
    """`split.csv`: case, patient, split, fold; with folds a row for each of them.

    A case that is in no part, because its twin is held out, has no row; the set's own test part is in no fold.
    """
    rows = [
        {"case": case.id, "patient": case.patient, "split": of_fold[case.id], "fold": str(fold)}
        for fold, of_fold in enumerate(folds or [parts])
        for case in dataset
        if case.id in of_fold
    ]
    rows += [
        {"case": case.id, "patient": case.patient, "split": "test", "fold": ""}
        for case in dataset
        if folds and case.id not in folds[0] and dataset.splits.get(case.id) == "test"
    ]
    return pd.DataFrame(rows, columns=["case", "patient", "split", "fold"])


def viewer_page(case: Case, prediction: Prediction, task: Task) -> str:
    """The slice viewer of a case with its references and its prediction on top.

    Of several tasks that mark voxels each has its own label map; those after the first one have their names.
    """
    overlays = [*_references(case, prediction, task), *_predictions(prediction)]
    return slice_viewer.viewer_html(next(iter(case.images.values())), overlays, case.id)


def _references(case: Case, prediction: Prediction, task: Task) -> Iterator[Image]:
    further = {part for part, _, _ in prediction.label_maps}
    for kind in references.kinds_by_names(case.references):
        placed = kind.words.outlined(case.references[kind.name])
        if placed is None or _is_field(placed):
            continue
        part = next((name for name, own in properties.leaf_tasks(task).items() if kind.name in own.needs), "")
        labels = prediction.parts.get(part, prediction).labels
        named = f"reference, {part}" if part in further - {""} else "reference"
        yield slice_viewer.overlay_image(placed, prediction.geometry, labels, named)


def _predictions(prediction: Prediction) -> Iterator[Image]:
    for part, data, labels in prediction.label_maps:
        named = f"prediction, {part}" if part else "prediction"
        yield Image(np.asarray(data)[None], prediction.geometry, channels=(named,), labels=labels)
    if prediction.called_boxes is not None:
        boxed = next((one for one in prediction.parts.values() if one.boxes is not None), prediction)
        yield slice_viewer.overlay_image(prediction.called_boxes, prediction.geometry, boxed.labels, "prediction")


def _is_field(placed: Image | BoundingBoxes) -> bool:
    """Whether it holds a number for every voxel, and no labels."""
    if not isinstance(placed, Image) or placed.dtype.kind != "f":
        return False
    return not np.array_equal(placed.data, np.rint(placed.data))


@dataclass(frozen=True)
class Shift:
    """The two-sample test between the patients whose cases are scored and those whose cases calibrated.

    p:    the probability of such a difference between patients of one source
    unit: "patients", or "cases" where each only stands for a patient
    """

    p: float
    scored: int
    calibrated: int
    level: float = SHIFT_LEVEL
    unit: str = "patients"

    @property
    def is_found(self) -> bool:
        """Whether the scored cases come from another source."""
        return self.p < self.level

    @property
    def note(self) -> str:
        """The finding in a sentence."""
        how = f"two-sample test on what the network sees in {self.scored} and {self.calibrated} {self.unit}"
        how += f", p {self.p:.2g}, level {self.level:g}"
        if not self.is_found:
            return f"No difference shown between the scored cases and those that calibrated the model ({how})."
        words = "The scored cases differ from those that calibrated the model: no guarantee holds for them"
        return f"{words}, neither of sets, intervals or risks nor of the gate ({how})."

    def as_record(self) -> ShiftRecord:
        """The record for `summary.json`."""
        return cast("ShiftRecord", {**asdict(self), "found": self.is_found, "note": self.note})


def detect_shift(
    guard: Guard | None, features: Mapping[str, tuple[str, Array]], *, seed: int, patients_known: bool
) -> Shift | None:
    """The test on {case: (patient, features)}, one scored case of each; None where there is nothing to compare."""
    if guard is None or not features:
        return None
    calibrated = guard.calibrated
    patients, seen = zip(*features.values(), strict=True)
    scored = np.stack([seen[n] for n in shift_tests.one_case_each(patients)])
    if min(len(scored), len(calibrated)) < FEWEST_FOR_SHIFT:
        return None
    unit = "patients" if patients_known else "cases"
    return Shift(shift_tests.energy_test(calibrated, scored, seed=seed), len(scored), len(calibrated), unit=unit)


@dataclass(frozen=True, eq=False)
class AuditOutcome:
    """The outcome of one audit of scored cases.

    tables:   {file name: table}, written as CSV
    records:  {file name: (schema, content)}, written as JSON
    sections: of the report
    notes:    what a reader must know before any figure
    figures:  {case: pictures} to stand beside those of the report's cases
    """

    tables: Mapping[str, Table] = field(default_factory=dict)
    records: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    sections: Sequence[Section] = ()
    notes: Sequence[str] = ()
    figures: Mapping[str, Sequence[Figure]] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Its files, into an existing folder."""
        for name, table in self.tables.items():
            csv_text.write_table(table, folder / name)
        for name, (schema, content) in self.records.items():
            record_files.write_json(folder / name, schema, content)


@dataclass(frozen=True, eq=False)
class AuditInput:
    """Scored cases, and what an audit of them needs beside their figures.

    scored:    the cases' figures; its table has a row a case and label, its features what the network saw
    predictor: what scored them, each fold its own cases
    cases:     those that were scored
    folds:     {case id: the fold that scored it}, where there are several
    patients_known: False where each case only stands for a patient
    planned:   groups that were to be compared before anything was trained, as far as the cases have them
    preregistered: those of them that were fixed before training and not changed since; None where there are none
    path:      of the model; None of one in memory
    """

    scored: ScoredCases
    predictor: FoldPredictor
    cases: Sequence[Case]
    seed: int
    patients_known: bool
    folds: Mapping[str, ScoringFold] = field(default_factory=dict)
    options: AuditOptions = field(default_factory=AuditOptions)
    planned: str | None = None
    preregistered: str | None = None
    path: Path | None = None

    def network_of(self, case: str) -> int:
        """The number of the network that scored a case: features of one say nothing beside those of another."""
        return self.folds[case].number if case in self.folds else 0


def measure_there(
    places: Mapping[int | None, ClusterPredictor], folds: Mapping[str, ScoringFold]
) -> Callable[[Sequence[Case]], Outcomes]:
    """Measure by other processes, fold after fold.

    places: {fold: the processes that have its model}, None for that of all
    Raises ResourceError where a worker has not what it needs, which the next case would lack too.
    """
    return partial(_measured_there, places, folds)


def _measured_there(
    places: Mapping[int | None, ClusterPredictor], folds: Mapping[str, ScoringFold], cases: Sequence[Case]
) -> Outcomes:
    for number, process in places.items():
        of_fold = {case: fold for case, fold in folds.items() if fold.number == number}
        numbers = [n for n, case in enumerate(cases) if number is None or case.id in of_fold]
        by_worker = partial(_measured_by, process, next(iter(of_fold.values()), None))
        for n_of_case, outcome in process.spread(by_worker, [cases[n] for n in numbers]):
            if isinstance(outcome, ResourceError) and not isinstance(outcome, MemoryShortageError | WorkerLostError):
                raise outcome
            yield numbers[n_of_case], outcome


def _measured_by(process: ClusterPredictor, fold: ScoringFold | None, case: Case) -> MeasuredCase:
    """Measure a case in the other process; its prediction is large, and made once more where it is shown."""
    model = process.model if fold is None else fold.scoring(process.model)
    return measure_case(model, fold, case)._replace(prediction=None)

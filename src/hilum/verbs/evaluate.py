"""`evaluate`: how good a model is on labelled cases, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hilum import errors, keywords, work_state
from hilum.belief.operating_points import UNKEPT
from hilum.errors import UsageError
from hilum.evaluation import case_tables
from hilum.evaluation.case_tables import SUMMARY_SCHEMA, SummaryRecord
from hilum.evaluation.fairness import group_attributes
from hilum.evaluation.fairness.group_attributes import NONE
from hilum.evaluation.metric import MEMBERSHIP
from hilum.files.storage import hashing
from hilum.lazy import pandas as pd
from hilum.options.training import EvaluateOptions
from hilum.planning import plan_file
from hilum.planning.plan_file import GROUPS
from hilum.planning.rules import site_rules
from hilum.planning.rules.site_rules import FOLDS_BY
from hilum.prediction import predictors, result_files
from hilum.prediction.predictors import ClusterPredictor
from hilum.quality import synthetic_images
from hilum.quality.shortcut_tests import SHORTCUT
from hilum.reading import ReadingOptions, alignment, dataset_reading, verb_results
from hilum.reading.dataset_reading import Data
from hilum.report import InNotebook, wording
from hilum.runs import run_end, run_report, validation_course
from hilum.runs.run_end import NOTES_SCHEMA
from hilum.runs.run_folder import NOTES
from hilum.runs.run_report import RunReport
from hilum.runs.tuning import OutOfFold
from hilum.runtime import (
    Model,
    ModelRequest,
    Preprocessing,
    hardware,
    model_assembly,
    model_files,
    model_identity,
    predicted_memory,
    record_files,
)
from hilum.runtime.foreign import detect
from hilum.runtime.package import package_contents
from hilum.runtime.package.package_contents import PACKAGED
from hilum.scoring import (
    answered_cases,
    case_scoring,
    case_selection,
    data_record,
    evaluation_notes,
    image_subsets,
    model_comparison,
    model_verdict,
)
from hilum.scoring.answered_cases import ScoringFold
from hilum.scoring.auditing import (
    advice_audit,
    all_audits,
    decision_audits,
    explanation_audit,
    fidelity_audit,
    group_audit,
    membership_audit,
)
from hilum.scoring.auditing.audit_options import AuditOptions
from hilum.scoring.case_scoring import EVALUATION, SUMMARY, TASK, AuditInput, FoldPredictor, ScoredCases
from hilum.scoring.case_selection import CaseChoice
from hilum.scoring.data_record import DATA_RECORD
from hilum.scoring.model_verdict import Verdict
from hilum.values import ANSWERED, Case, Dataset, Decision, Plan, Problem, Row, case_outcome, record_schema
from hilum.values.case_outcome import CaseOutcome
from hilum.values.record_schema import FailedCase, FigureRow
from hilum.work_state import log

MARKS = ("cases.csv", "summary.json")
OF_SITES = (
    "Sites trained this model, and only they know on which cases: some of these may be among them. A site gives its "
    "own folder by --private."
)
# Warnings in the terminal.
MOST_SHOWN = 5


class EvaluationRecord(SummaryRecord):
    """The figures of cases: which were scored, how often they have been, and those that failed."""

    scored: str
    openings: int
    own_figure: str
    notes: list[str]
    failed: list[FailedCase]
    out: str | None


@dataclass(frozen=True, eq=False)
class EvaluationResult(InNotebook):
    """The figures of an evaluation; prints the primary metric with its interval.

    own_figure: of other cases than the model's own, a sentence on its figure there, and the difference
    unfinished_training: how far the training of the model came, where that was stopped
    model:      its name and version, the SHA-256 of it and of its weights, and on what it refuses images
    """

    scored: ScoredCases
    primary: str
    which: str
    notes: tuple[str, ...] = ()
    out: Path | None = None
    verdict: Verdict = field(default_factory=Verdict)
    own_figure: str = ""
    unfinished_training: str = ""
    model: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every figure."""
        return tuple(self.scored.rows)

    @property
    def table(self) -> pd.DataFrame:
        """Every figure, a row each: metric, label, value, low, high, n, patients, unit, method."""
        return pd.DataFrame(case_tables.rows_to_json(self.rows)["rows"])

    @property
    def failures(self) -> list[Problem]:
        """An error for each case that could not be scored."""
        return verb_results.failures_among(self.scored.problems)

    @property
    def outcomes(self) -> list[CaseOutcome]:
        """The outcome of each case, with the reason where there is no answer: what the gate refuses is scored too."""
        return verb_results.case_outcomes(self.scored.table, self.scored.problems)

    def as_record(self) -> EvaluationRecord:
        """The record for `--json`."""
        return {
            **case_tables.rows_to_json(self.rows),
            "scored": self.which,
            "openings": self.scored.openings,
            "own_figure": self.own_figure,
            "notes": list(self.notes),
            "verdict": self.verdict.as_record(),
            "failed": verb_results.failed_rows(self.failures),
            "outcomes": record_schema.plain(self.outcomes),
            "model": dict(self.model),
            "unfinished_training": self.unfinished_training,
            "out": str(self.out) if self.out else None,
        }

    def __repr__(self) -> str:
        lines = [*filter(None, [self.unfinished_training]), f"scored {self.which}"]
        if any(one.outcome != ANSWERED for one in self.outcomes):
            lines.append(case_outcome.outcome_sentence(self.outcomes))
        headline = model_verdict.headline_rows(self.rows, self.primary, self.scored.task)
        attacked = [row for row in self.rows if row.metric in MEMBERSHIP]
        lines += [wording.row_words(row, self.scored.metrics) for row in (*headline, *attacked)]
        lines += [self.own_figure] if self.own_figure else []
        if self.scored.openings > 1:
            lines.append(f"these test cases have been opened {self.scored.openings} times on this machine")
        lines += [str(self.verdict), *self.verdict.against, *_few(self.scored.problems)]
        return "\n".join([*lines, *([str(self.out / "report.html")] if self.out is not None else [])])


def _few(problems: Sequence[Problem]) -> list[str]:
    """Every error in a line, and a few of the rest."""
    failures = verb_results.failures_among(problems)
    others = [problem for problem in problems if problem.severity != "error"]
    lines = [f"{problem.severity}: {problem.what}" for problem in (*failures, *others[:MOST_SHOWN])]
    left = len(others) - MOST_SHOWN
    return [*lines, *([f"and {errors.count_phrase(left, 'warning')} more, in the report"] if left > 0 else [])]


@keywords.takes(EvaluateOptions)
def evaluate(options: EvaluateOptions) -> EvaluationResult:
    """Predict the cases of `data` and score them on their references' own grids.

    split: where `data` are the model's own (by content), the run's test cases unless told otherwise; of other data
           the set's own test part, or else all cases, without those that trained the model (by content)
    out:   a folder for cases.csv, summary.json, report.html and the viewers' pages
    scheduler: address of a dask scheduler whose workers predict and score the cases, as `predict` has it; what is
             shown, and subsets of images, are predicted here
    A case that fails is reported and the rest goes on. After Ctrl-C `out` holds the figures of the cases that were
    scored by then, without pictures and audits.
    Raises DatasetError where the data are not of the model's kind.
    """
    if options.out is not None:
        verb_results.refuse_taken(Path(options.out), options.overwrite, MARKS)
    subject = _subject(options)
    predictor, folds = _predictor(subject.model, subject.run, subject.chosen, options.device, options.uncertainty)
    writes = options.out is not None
    scored = case_scoring.score_cases(
        predictor,
        subject.cases,
        subject.chosen.parts,
        outcomes=_outcomes_elsewhere(options, subject, predictor, folds),
        seed=options.seed,
        patients_known=subject.dataset.patients_known,
        folds=folds,
        draws_figures=writes,
        keeps=writes,
    )
    audit = AuditInput(
        scored,
        predictor,
        subject.cases,
        options.seed,
        subject.dataset.patients_known,
        folds,
        subject.audits,
        subject.planned_groups,
        plan_file.preregistered_groups(subject.promised),
        subject.run,
    )
    scored = _looked_through(audit, subject.model.preprocessing, subject.trained, keeps=writes)
    with nullcontext() if scored.stopped is None else work_state.finish_despite_interrupt():
        evaluation = _evaluation(options, subject, scored)
        if evaluation.out is not None:
            _write(evaluation, evaluation.out, subject, overwrite=options.overwrite)
            if scored.stopped is not None:
                count = errors.count_phrase(scored.table["case"].nunique(), "case")
                log.warning("%s scored before the stop: %s", count, evaluation.out)
                raise scored.stopped
    return evaluation


@dataclass(frozen=True, eq=False)
class _Subject:
    """A model and the cases on which it is evaluated.

    run:        the folder of the run, or the package
    plan:       that of a run
    promised:   the plan, or the decisions that a package keeps
    audits:     that are asked for; of the cases of folds by sites those of the sites too
    covariates: the names of covariates, without those of a table of groups
    unlike:     notes on labels that the model does not have
    trained:    the cases that trained the model, where it is to be attacked
    """

    model: Model
    run: Path | None
    plan: Plan | None
    promised: Plan | None
    reading: ReadingOptions
    dataset: Dataset
    chosen: CaseChoice
    audits: AuditOptions
    covariates: Collection[str]
    cases: Sequence[Case]
    unlike: Sequence[str]
    trained: Sequence[Case] = ()

    @property
    def planned_groups(self) -> str | None:
        """The plan's groups, and those that a table of groups adds; None, for the usual ones, without a plan."""
        if self.promised is None:
            return None
        columns = group_attributes.covariates_by_name(self.dataset, self.chosen.parts)
        added = group_attributes.default_groups(
            {name: cells for name, cells in columns.items() if name not in self.covariates}
        )
        return ",".join(names for names in (self.promised[GROUPS], added) if names not in (None, NONE)) or NONE

    def notes(self, scored: ScoredCases) -> tuple[str, ...]:
        """What a reader of the figures has to know."""
        task = self.model.task
        return (
            *([f"T{unfinished[1:]}."] if (unfinished := self.model.unfinished_training) else []),
            *evaluation_notes.stop_note(scored, self.cases),
            *self.unlike,
            *self.chosen.notes,
            *scored.notes,
            *evaluation_notes.own_results(self.model, self.cases),
            *_standing_notes(self.model, self.run),
            *evaluation_notes.unshared_labels(task, self.cases),
            *evaluation_notes.assumed_positive(task),
        )


def _subject(options: EvaluateOptions) -> _Subject:
    """The model and the cases that are asked for; whatever cannot be scored is refused before anything is predicted."""
    data = dataset_reading.path_for_workers(options.data, options.scheduler)
    run = dataset_reading.path_of_data(options.model)
    audits = keywords.narrow_options(options, AuditOptions)
    model = predictors.load_model(
        options.model, options.device, threads=options.threads, backend=options.backend, activation=options.activation
    )
    model = evaluation_notes.with_positive(
        model_assembly.with_uncertainty(model, options.uncertainty), options.positive, str(run or "the model")
    )
    trained_in = run if options.private is None else Path(options.private)
    if options.private is not None:
        verb_results.refuse_missing(Path(options.private))
    plan = _plan_of(trained_in)
    reading = reading_as_trained(trained_in, plan, data).overridden(options.reading)
    model = replace(model, request=ModelRequest(allow_large=reading.allow_large, samples_prompts=True))
    dataset = open_references(data, reading, model, trained_in)
    chosen = case_selection.choose_cases(model, dataset, trained_in, options.split)
    if options.private is None and "federation" in model.record:
        chosen = replace(chosen, notes=[*chosen.notes, OF_SITES])
    if not (chosen.is_own and synthetic_images.is_simulated(dataset)):
        synthetic_images.refuse_synthetic_images(dataset, chosen.parts)
    covariates = group_attributes.covariates_by_name(dataset, chosen.parts)
    dataset = group_audit.with_table_covariates(dataset, audits.group_table, chosen.parts, audits.groups)
    columns = group_attributes.covariates_by_name(dataset, chosen.parts)
    group_attributes.groups_by_attribute(columns, audits.groups)
    if audits.screening:
        decision_audits.refuse_no_outcome(columns, dataset.name)
    cases, unlike = evaluation_notes.own_labels(model.task, [case for case in dataset if case.id in chosen.parts])
    if audits.downstream is not None:
        fidelity_audit.load_downstream(audits.downstream, model.task, cases)  # refused before anything is predicted
    if audits.advice is not None:
        advice_audit.lines_for(audits.advice, model, cases)  # refused before anything is predicted
    promised = plan or _packaged_plan(run)
    if audits.sites is not None:
        site_rules.refuse_sites(cases, audits.sites)
    elif chosen.folds and plan is not None:
        audits = replace(audits, sites=plan[FOLDS_BY])
    trained = _trained_cases(options, model, dataset, trained_in, chosen)
    return _Subject(model, run, plan, promised, reading, dataset, chosen, audits, covariates, cases, unlike, trained)


def _trained_cases(
    options: EvaluateOptions, model: Model, dataset: Dataset, run: Path | None, chosen: CaseChoice
) -> Sequence[Case]:
    """The cases that trained a model which is to be attacked; UsageError where these data do not hold them."""
    if not options.membership:
        return ()
    if not chosen.is_own or chosen.folds or options.split not in (None, "test"):
        problem = "training and test cases of one network are compared, and these are not both"
        raise UsageError(problem, "--membership", "Give a run without folds and its own data, without --split")
    parts = case_selection.choose_cases(model, dataset, run, "train").parts
    return evaluation_notes.own_labels(model.task, [case for case in dataset if case.id in parts])[0]


def _outcomes_elsewhere(
    options: EvaluateOptions, subject: _Subject, predictor: FoldPredictor, folds: Mapping[str, ScoringFold]
) -> Callable[[Sequence[Case]], Any] | None:
    """The outcomes of cases by the workers of a dask scheduler, each fold's by its own network; None without one."""
    if options.scheduler is None:
        return None
    networks: dict[int | None, Model] = {None: subject.model}
    if isinstance(predictor, OutOfFold):
        networks = {fold.number: predictor.owners[case] for case, fold in folds.items()}
    places = {
        number: ClusterPredictor.on_cluster(
            options.scheduler,
            subject.run,
            network,
            device=options.device,
            threads=options.threads,
            backend=options.backend,
            uncertainty=options.uncertainty,
            activation=options.activation,
            request=subject.model.request,
            fold=number,
        )
        for number, network in networks.items()
    }
    return case_scoring.measure_there(places, folds)


def _evaluation(options: EvaluateOptions, subject: _Subject, scored: ScoredCases) -> EvaluationResult:
    """The evaluation with its verdict."""
    course, notes = _log_of(subject.run), subject.notes(scored)
    verdict = model_verdict.verdict_on_scores(
        scored,
        seed=options.seed,
        patients_known=subject.dataset.patients_known,
        training=()
        if course is None
        else validation_course.training_length_sentences(course, run_report.selection_metric_namer(subject.plan)),
        notes=notes,
        simulated=synthetic_images.is_simulated(subject.dataset),
    )
    which = subject.chosen.which
    if scored.stopped is not None:
        which = f"{which}, as far as they were scored before the stop"
    primary = str(subject.model.record.get("primary", scored.rows[0].metric))
    out = Path(options.out) if options.out is not None else None
    own_figure, unfinished = _beside_own(subject, scored, primary), subject.model.unfinished_training
    model = result_files.model_identity(subject.model)
    return EvaluationResult(scored, primary, which, notes, out, verdict, own_figure, unfinished, model)


def _beside_own(subject: _Subject, scored: ScoredCases, primary: str) -> str:
    """The model's figure on its own test cases, and how far these cases are from it; empty without one."""
    rows = {(row.metric, row.label): row.estimate for row in scored.rows}
    figures = case_tables.rows_from_records(_own_figures(subject.run))
    own = next((row for row in figures if row.metric == primary), None)
    if subject.chosen.is_own or own is None or math.isnan(own.estimate.value) or (primary, own.label) not in rows:
        return ""
    apart = wording.number_text(rows[primary, own.label].value - own.estimate.value, places=3, signed=True)
    words = wording.row_words(own, scored.metrics)
    return f"on the model's own test cases: {words}; on these cases it is {apart} from that"


def _own_figures(source: Path | None) -> Sequence[FigureRow]:
    """The rows of a run's own evaluation, or those that its package keeps."""
    if source is None or detect.is_foreign(source):
        return ()
    if (summary := source / EVALUATION / SUMMARY).is_file():
        return record_files.read_json(summary, SUMMARY_SCHEMA)["rows"]
    with record_files.unpack(source) as folder:
        return package_contents.package_record(folder)["evaluation"] if (folder / PACKAGED).is_dir() else ()


def _write(evaluation: EvaluationResult, out: Path, subject: _Subject, *, overwrite: bool) -> None:
    with verb_results.result_folder(out, overwrite, MARKS) as folder:
        evaluation.scored.write(folder)
        alignment.write_alignment(subject.cases, subject.reading.align, folder)
        margin = plan_file.preregistered_margin(subject.promised)
        facts = {name: evaluation.as_record()[name] for name in ("model", "outcomes", "unfinished_training")}
        digest, verdict = plan_file.recipe_digest(subject.promised), evaluation.verdict.as_record()
        case_scoring.write_verdict(folder, verdict, evaluation.primary, margin, **facts, **digest)
        (folder / "report.html").write_text(_report(evaluation, subject), encoding="utf-8")


def _looked_through(audit: AuditInput, preprocessing: object, trained: Sequence[Case], *, keeps: bool) -> ScoredCases:
    """The figures with those of subsets of the images, and all that the audits found.

    trained: cases that trained the model, for an attack on it; empty where nobody asked for one
    keeps: whether Ctrl-C leaves the figures without them
    """
    scored = audit.scored
    if scored.stopped is not None:
        return scored
    try:
        if isinstance(preprocessing, Preprocessing):
            subsets = image_subsets.with_subsets(
                scored,
                audit.predictor,
                preprocessing,
                audit.cases,
                audit.folds,
                seed=audit.seed,
                patients_known=audit.patients_known,
            )
            audit = replace(audit, scored=subsets)
        audit = replace(audit, scored=fidelity_audit.with_recovery(audit))
        audit = replace(audit, scored=fidelity_audit.with_downstream(audit))
        if trained:
            audit = replace(audit, scored=membership_audit.with_membership(audit, trained))
        audit = replace(audit, scored=advice_audit.with_advice(audit))
        return all_audits.run_audits(audit, explanation_audit.audit_explanations)
    except KeyboardInterrupt as stop:
        if not keeps:
            raise
        return replace(scored, stopped=stop)


def open_references(data: Data, reading: ReadingOptions, model: Model, run: Path | None) -> Dataset:
    """The data with references of the model's kind, their cases named as in the run; DatasetError without any."""
    dataset = dataset_reading.open_labelled(data, reading, model.task)
    if run is None or not (run / DATA_RECORD).is_file():
        return dataset
    return data_record.name_as_in_run(dataset, data_record.read_data_record(run))


def reading_as_trained(run: Path | None, plan: Plan | None, data: Data) -> ReadingOptions:
    """The options by which a run read its own data; none for other data, whose options may be others."""
    folder = dataset_reading.path_of_data(data)
    if run is None or plan is None or folder is None:
        return ReadingOptions()
    is_own = bool(plan.data) and (run / plan.data).resolve() == folder.resolve()
    return ReadingOptions.of_plan(plan.options) if is_own else ReadingOptions()


def _standing_notes(model: Model, run: Path | None) -> Iterator[str]:
    """Notes of the run, or of the package, that hold on other cases too: shortcuts in its data, and an unkept rule."""
    notes: Sequence[Any] = model.record.get("limits", ())
    if run is not None and (run / NOTES).is_file():
        notes = record_files.read_json(run / NOTES, NOTES_SCHEMA)["notes"]
    return (note for note in notes if str(note).startswith((SHORTCUT, UNKEPT)))


def _plan_of(run: Path | None) -> Plan | None:
    """The plan in a run's folder; None where there is none."""
    return plan_file.read_plan(run / "plan.yaml") if run is not None and (run / "plan.yaml").is_file() else None


def _packaged_plan(package: Path | None) -> Plan | None:
    """The decisions that a package keeps, for what was fixed before training; None where it is no package."""
    if package is None or detect.is_foreign(package):
        return None
    with record_files.unpack(package) as folder:
        if not (folder / PACKAGED).is_dir():
            return None
        decisions = package_contents.package_record(folder)["decisions"]
    sections: dict[str, dict[str, Decision]] = {}
    for name, decision in decisions.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = Decision(**decision)
    return Plan(sections) if sections else None


def _log_of(run: Path | None) -> pd.DataFrame | None:
    """The training log of the run, all folds together; None for a package, which keeps none."""
    folders = [] if run is None else [run, *(run / f"fold_{n}" for n in range(len(list(run.glob("fold_*")))))]
    logged = [folder for folder in folders if (folder / "log.csv").is_file()]
    return run_end.average_fold_logs(logged) if logged else None


def _predictor(
    loaded: Model, run: Path | None, chosen: CaseChoice, device: str, uncertainty: str | None
) -> tuple[FoldPredictor, Mapping[str, ScoringFold]]:
    """The model; of a run of folds, for its own cases, each fold for those that it has not seen, with its own task."""
    if not chosen.folds or run is None:
        return predicted_memory.with_smaller_batches(loaded), {}
    models, by_fold = dict[int, Model](), dict[int, ScoringFold]()
    for fold in sorted(set(chosen.folds.values())):
        folder = run / f"fold_{fold}"
        by_fold[fold] = ScoringFold(
            fold,
            model_comparison.read_task(folder) if (folder / TASK).is_file() else loaded.task,
            answered_cases.read_fold_gate(folder),
        )
        model = model_assembly.with_uncertainty(model_files.load(run, device, fold=fold), uncertainty)
        model = replace(model, request=loaded.request)
        models[fold] = by_fold[fold].scoring(predicted_memory.with_smaller_batches(model))
    owners = {case: models[number] for case, number in chosen.folds.items()}
    folds = {case: by_fold[number] for case, number in chosen.folds.items()}
    return OutOfFold(loaded.task, owners, folds), folds


def _report(evaluation: EvaluationResult, subject: _Subject) -> str:
    record, dataset, scored = subject.model.record, subject.dataset, evaluation.scored
    page = RunReport(
        f"Evaluation on {dataset.name}",
        " ".join(
            wording.as_sentence(one)
            for one in (
                f"{errors.count_phrase(scored.table['case'].nunique(), 'case')}: {evaluation.which}",
                evaluation.own_figure,
            )
            if one
        ),
        primary=evaluation.primary,
        scored=scored,
        notes=evaluation.notes,
        facts={
            "scored": evaluation.which,
            "read as": dataset.layout,
            "hash of these data": hashing.dataset_hash(dataset),
            "hash of the model's data": record.get("data_hash", "not recorded"),
            **({"training images among these": search} if (search := subject.chosen.search) else {}),
            **model_identity.identity_facts(subject.model),
        },
        views="",
        plan=subject.plan,
        promised=subject.promised,
        log=_log_of(subject.run),
        problems=(*dataset.problems, *scored.problems),
        environment=hardware.machine_environment(),
        knowing=dataset.only({*scored.table["case"].astype(str)}).knowing,
        verdict=evaluation.verdict,
    )
    return page.html

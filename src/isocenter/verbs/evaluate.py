"""`evaluate`: how good a model is on labelled cases, with intervals."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from isocenter.at_work import brought_to_its_end
from isocenter.belief import UNKEPT
from isocenter.errors import counted
from isocenter.evaluation import NONE, covariates_by_name, default_groups, groups_of, rows_to_json
from isocenter.files import dataset_hash, load_json
from isocenter.keywords import narrowed, takes
from isocenter.lazy import pandas as pd
from isocenter.options import EvaluateOptions
from isocenter.planning import GROUPS, read_plan, recipe, registered_groups, registered_margin
from isocenter.prediction import There, loaded_model
from isocenter.quality import SHORTCUT
from isocenter.reading import (
    Data,
    ReadingOptions,
    case_outcomes,
    failed_rows,
    failures_among,
    open_labelled,
    path_of,
    refuse_taken,
    result_folder,
    write_alignment,
)
from isocenter.report import InNotebook, in_words, number, sentence
from isocenter.runs import NOTES, OutOfFold, RunReport, selecting, training_length, training_log
from isocenter.runtime import (
    PACKAGED,
    Model,
    Preprocessing,
    Request,
    environment,
    is_foreign,
    load,
    package_record,
    read_json,
    unpacked,
    with_smaller_batches,
    with_uncertainty,
)
from isocenter.scoring import (
    DATA_RECORD,
    EVALUATION,
    SUMMARY,
    TASK,
    Audit,
    AuditOptions,
    Choice,
    Fold,
    Predictor,
    Scored,
    Verdict,
    assumed_positive,
    audited,
    choice,
    explanations,
    gate_of,
    headline_rows,
    measured_there,
    named_as_in_run,
    own_labels,
    own_results,
    read_data_record,
    refuse_no_outcome,
    score,
    stop_note,
    task_of,
    unshared,
    verdict_of,
    with_positive,
    with_subsets,
    with_table,
    write_verdict,
)
from isocenter.values import (
    ANSWERED,
    Case,
    CaseOutcome,
    Dataset,
    Decision,
    Estimate,
    Plan,
    Problem,
    Row,
    outcome_sentence,
)

log = logging.getLogger("isocenter")

MARKS = ("cases.csv", "summary.json")
# Warnings in the terminal.
MOST_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Evaluation(InNotebook):
    """The figures of an evaluation; prints the primary metric with its interval.

    own_figure: of other cases than the model's own, a sentence on its figure there, and the difference
    unfinished_training: how far the training of the model came, where that was stopped
    """

    scored: Scored
    primary: str
    which: str
    notes: tuple[str, ...] = ()
    out: Path | None = None
    verdict: Verdict = field(default_factory=Verdict)
    own_figure: str = ""
    unfinished_training: str = ""

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every figure."""
        return tuple(self.scored.rows)

    @property
    def table(self) -> pd.DataFrame:
        """Every figure, a row each: metric, label, value, low, high, n, patients, unit, method."""
        return pd.DataFrame(rows_to_json(self.rows)["rows"])

    @property
    def failures(self) -> list[Problem]:
        """An error for each case that could not be scored."""
        return failures_among(self.scored.problems)

    @property
    def outcomes(self) -> list[CaseOutcome]:
        """The outcome of each case, with the reason where there is no answer: what the gate refuses is scored too."""
        return case_outcomes(self.scored.table, self.scored.problems)

    def as_record(self) -> dict[str, Any]:
        """The record for `--json`."""
        facts = {
            "scored": self.which,
            "openings": self.scored.openings,
            "own_figure": self.own_figure,
            "notes": list(self.notes),
            "verdict": self.verdict.as_record(),
            "failed": failed_rows(self.failures),
            "outcomes": [asdict(one) for one in self.outcomes],
            "unfinished_training": self.unfinished_training,
            "out": str(self.out) if self.out else None,
        }
        return {**rows_to_json(self.rows), **facts}

    def __repr__(self) -> str:
        lines = [*filter(None, [self.unfinished_training]), f"scored {self.which}"]
        if any(one.outcome != ANSWERED for one in self.outcomes):
            lines.append(outcome_sentence(self.outcomes))
        headline = headline_rows(self.rows, self.primary, self.scored.task)
        lines += [in_words(row, self.scored.metrics) for row in headline]
        lines += [self.own_figure] if self.own_figure else []
        if self.scored.openings > 1:
            lines.append(f"these test cases have been opened {self.scored.openings} times on this machine")
        lines += [
            str(self.verdict),
            *self.verdict.against,
            *_few(self.scored.problems),
        ]
        return "\n".join([*lines, *([str(self.out / "report.html")] if self.out is not None else [])])


def _few(problems: Sequence[Problem]) -> list[str]:
    """Every error in a line, and a few of the rest."""
    errors = failures_among(problems)
    others = [problem for problem in problems if problem.severity != "error"]
    lines = [f"{problem.severity}: {problem.what}" for problem in (*errors, *others[:MOST_SHOWN])]
    left = len(others) - MOST_SHOWN
    return [*lines, *([f"and {counted(left, 'warning')} more, in the report"] if left > 0 else [])]


@takes(EvaluateOptions)
def evaluate(options: EvaluateOptions) -> Evaluation:
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
        refuse_taken(Path(options.out), options.overwrite, MARKS)
    subject = _subject(options)
    predictor, folds = _predictor(subject.model, subject.run, subject.chosen, options.device, options.uncertainty)
    writes = options.out is not None
    scored = score(
        predictor,
        subject.cases,
        subject.chosen.parts,
        outcomes=_outcomes_elsewhere(options, subject, predictor, folds),
        seed=options.seed,
        patients_known=subject.dataset.patients_known,
        folds=folds,
        draws=writes,
        keeps=writes,
    )
    audit = Audit(
        scored,
        predictor,
        subject.cases,
        options.seed,
        subject.dataset.patients_known,
        folds,
        narrowed(options, AuditOptions),
        subject.planned_groups,
        registered_groups(subject.promised),
        subject.run,
    )
    scored = _looked_through(audit, subject.model.preprocessing, keeps=writes)
    with nullcontext() if scored.stopped is None else brought_to_its_end():
        evaluation = _evaluation(options, subject, scored)
        if evaluation.out is not None:
            _write(evaluation, evaluation.out, subject, overwrite=options.overwrite)
            if scored.stopped is not None:
                count = counted(scored.table["case"].nunique(), "case")
                log.warning("%s scored before the stop: %s", count, evaluation.out)
                raise scored.stopped
    return evaluation


@dataclass(frozen=True, eq=False)
class _Subject:
    """A model and the cases on which it is evaluated.

    run:        the folder of the run, or the package
    plan:       that of a run
    promised:   the plan, or the decisions that a package keeps
    covariates: the names of covariates, without those of a table of groups
    unlike:     notes on labels that the model does not have
    """

    model: Model
    run: Path | None
    plan: Plan | None
    promised: Plan | None
    reading: ReadingOptions
    dataset: Dataset
    chosen: Choice
    covariates: Collection[str]
    cases: Sequence[Case]
    unlike: Sequence[str]

    @property
    def planned_groups(self) -> str | None:
        """The plan's groups, and those that a table of groups adds; None, for the usual ones, without a plan."""
        if self.promised is None:
            return None
        columns = covariates_by_name(self.dataset, self.chosen.parts)
        added = default_groups({name: cells for name, cells in columns.items() if name not in self.covariates})
        return ",".join(names for names in (self.promised[GROUPS], added) if names not in (None, NONE)) or NONE

    def notes(self, scored: Scored) -> tuple[str, ...]:
        """What a reader of the figures has to know."""
        task = self.model.task
        return (
            *([f"T{unfinished[1:]}."] if (unfinished := self.model.unfinished_training) else []),
            *stop_note(scored, self.cases),
            *self.unlike,
            *self.chosen.notes,
            *scored.notes,
            *own_results(self.model, self.cases),
            *_standing_notes(self.model, self.run),
            *unshared(task, self.cases),
            *assumed_positive(task),
        )


def _subject(options: EvaluateOptions) -> _Subject:
    """The model and the cases that are asked for; whatever cannot be scored is refused before anything is predicted."""
    data, run, audits = options.data, path_of(options.model), narrowed(options, AuditOptions)
    if options.scheduler is not None and (path := path_of(data)):
        data = path.absolute()  # a worker has another working folder
    model = loaded_model(
        options.model, options.device, threads=options.threads, backend=options.backend, activation=options.activation
    )
    model = with_positive(with_uncertainty(model, options.uncertainty), options.positive, str(run or "the model"))
    plan = _plan_of(run)
    reading = _as_trained(run, plan, data).overridden(options.reading)
    model = replace(model, request=Request(allow_large=reading.allow_large))
    dataset = _referenced(data, reading, model, run)
    chosen = choice(model, dataset, run, options.split)
    covariates = covariates_by_name(dataset, chosen.parts)
    dataset = with_table(dataset, audits.group_table, chosen.parts, audits.groups)
    columns = covariates_by_name(dataset, chosen.parts)
    groups_of(columns, audits.groups)
    if audits.screening:
        refuse_no_outcome(columns, dataset.name)
    cases, unlike = own_labels(model.task, [case for case in dataset if case.id in chosen.parts])
    promised = plan or _packaged_plan(run)
    return _Subject(model, run, plan, promised, reading, dataset, chosen, covariates, cases, unlike)


def _outcomes_elsewhere(
    options: EvaluateOptions, subject: _Subject, predictor: Predictor, folds: Mapping[str, Fold]
) -> Callable[[Sequence[Case]], Any] | None:
    """The outcomes of cases by the workers of a dask scheduler, each fold's by its own network; None without one."""
    if options.scheduler is None:
        return None
    networks: dict[int | None, Model] = {None: subject.model}
    if isinstance(predictor, OutOfFold):
        networks = {fold.number: predictor.owners[case] for case, fold in folds.items()}
    places = {
        number: There.of(
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
    return measured_there(places, folds)


def _evaluation(options: EvaluateOptions, subject: _Subject, scored: Scored) -> Evaluation:
    """The evaluation with its verdict."""
    course, notes = _log_of(subject.run), subject.notes(scored)
    verdict = verdict_of(
        scored,
        seed=options.seed,
        patients_known=subject.dataset.patients_known,
        training=() if course is None else training_length(course, selecting(subject.plan)),
        notes=notes,
    )
    which = subject.chosen.which
    if scored.stopped is not None:
        which = f"{which}, as far as they were scored before the stop"
    primary = str(subject.model.record.get("primary", scored.rows[0].metric))
    out = Path(options.out) if options.out is not None else None
    own_figure, unfinished = _beside_own(subject, scored, primary), subject.model.unfinished_training
    return Evaluation(scored, primary, which, notes, out, verdict, own_figure, unfinished)


def _beside_own(subject: _Subject, scored: Scored, primary: str) -> str:
    """The model's figure on its own test cases, and how far these cases are from it; empty without one."""
    rows = {(row.metric, row.label): row.estimate for row in scored.rows}
    own = next((row for row in _own_figures(subject.run) if row["metric"] == primary), None)
    if subject.chosen.is_own or own is None or own["value"] is None or (primary, own["label"]) not in rows:
        return ""
    figures = {name: own[name] for name in ("value", "low", "high", "level", "n", "patients", "unit", "method")}
    there, here = Estimate(**figures), rows[primary, own["label"]]
    apart = number(here.value - there.value, places=3, signed=True)
    words = in_words(Row(primary, own["label"], there), scored.metrics)
    return f"on the model's own test cases: {words}; on these cases it is {apart} from that"


def _own_figures(source: Path | None) -> Sequence[Mapping[str, Any]]:
    """The rows of a run's own evaluation, or those that its package keeps."""
    if source is None or is_foreign(source):
        return ()
    if (summary := source / EVALUATION / SUMMARY).is_file():
        rows: Sequence[Mapping[str, Any]] = load_json(summary)["rows"]
        return rows
    with unpacked(source) as folder:
        return package_record(folder)["evaluation"] if (folder / PACKAGED).is_dir() else ()


def _write(evaluation: Evaluation, out: Path, subject: _Subject, *, overwrite: bool) -> None:
    with result_folder(out, overwrite, MARKS) as folder:
        evaluation.scored.write(folder)
        write_alignment(subject.cases, subject.reading.align, folder)
        margin = registered_margin(subject.promised)
        facts = {name: evaluation.as_record()[name] for name in ("outcomes", "unfinished_training")}
        facts |= recipe(subject.promised)
        write_verdict(folder, evaluation.verdict.as_record(), evaluation.primary, margin, **facts)
        (folder / "report.html").write_text(_report(evaluation, subject), encoding="utf-8")


def _looked_through(audit: Audit, preprocessing: object, *, keeps: bool) -> Scored:
    """The figures with those of subsets of the images, and all that the audits found.

    keeps: whether Ctrl-C leaves the figures without them
    """
    scored = audit.scored
    if scored.stopped is not None:
        return scored
    try:
        if isinstance(preprocessing, Preprocessing):
            subsets = with_subsets(
                scored,
                audit.predictor,
                preprocessing,
                audit.cases,
                audit.folds,
                seed=audit.seed,
                patients_known=audit.patients_known,
            )
            audit = replace(audit, scored=subsets)
        return audited(audit, explanations)
    except KeyboardInterrupt as stop:
        if not keeps:
            raise
        return replace(scored, stopped=stop)


def _referenced(data: Data, reading: ReadingOptions, model: Model, run: Path | None) -> Dataset:
    """The data with references of the model's kind, their cases named as in the run; DatasetError without any."""
    dataset = open_labelled(data, reading, model.task)
    if run is None or not (run / DATA_RECORD).is_file():
        return dataset
    return named_as_in_run(dataset, read_data_record(run))


def _as_trained(run: Path | None, plan: Plan | None, data: Data) -> ReadingOptions:
    """The options by which a run read its own data; none for other data, whose options may be others."""
    folder = path_of(data)
    if run is None or plan is None or folder is None:
        return ReadingOptions()
    is_own = bool(plan.data) and (run / plan.data).resolve() == folder.resolve()
    return ReadingOptions.of_plan(plan.options) if is_own else ReadingOptions()


def _standing_notes(model: Model, run: Path | None) -> Iterator[str]:
    """Notes of the run, or of the package, that hold on other cases too: shortcuts in its data, and an unkept rule."""
    notes: Sequence[Any] = model.record.get("limits", ())
    if run is not None and (run / NOTES).is_file():
        notes = read_json(run / NOTES, "isocenter.run")["notes"]
    return (note for note in notes if str(note).startswith((SHORTCUT, UNKEPT)))


def _plan_of(run: Path | None) -> Plan | None:
    """The plan in a run's folder; None where there is none."""
    return read_plan(run / "plan.yaml") if run is not None and (run / "plan.yaml").is_file() else None


def _packaged_plan(package: Path | None) -> Plan | None:
    """The decisions that a package keeps, for what was fixed before training; None where it is no package."""
    if package is None or is_foreign(package):
        return None
    with unpacked(package) as folder:
        if not (folder / PACKAGED).is_dir():
            return None
        decisions = package_record(folder)["decisions"]
    sections: dict[str, dict[str, Decision]] = {}
    for name, decision in decisions.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = Decision(**decision)
    return Plan(sections) if sections else None


def _log_of(run: Path | None) -> pd.DataFrame | None:
    """The training log of the run, all folds together; None for a package, which keeps none."""
    folders = [] if run is None else [run, *(run / f"fold_{n}" for n in range(len(list(run.glob("fold_*")))))]
    logged = [folder for folder in folders if (folder / "log.csv").is_file()]
    return training_log(logged) if logged else None


def _predictor(
    loaded: Model, run: Path | None, chosen: Choice, device: str, uncertainty: str | None
) -> tuple[Predictor, Mapping[str, Fold]]:
    """The model; of a run of folds, for its own cases, each fold for those that it has not seen, with its own task."""
    if not chosen.folds or run is None:
        return with_smaller_batches(loaded), {}
    models, by_fold = dict[int, Model](), dict[int, Fold]()
    for fold in sorted(set(chosen.folds.values())):
        folder = run / f"fold_{fold}"
        by_fold[fold] = Fold(fold, task_of(folder) if (folder / TASK).is_file() else loaded.task, gate_of(folder))
        model = with_uncertainty(load(run, device, fold=fold), uncertainty)
        model = replace(model, request=loaded.request)
        models[fold] = by_fold[fold].scoring(with_smaller_batches(model))
    owners = {case: models[number] for case, number in chosen.folds.items()}
    folds = {case: by_fold[number] for case, number in chosen.folds.items()}
    return OutOfFold(loaded.task, owners, folds), folds


def _report(evaluation: Evaluation, subject: _Subject) -> str:
    record, dataset, scored = subject.model.record, subject.dataset, evaluation.scored
    page = RunReport(
        f"Evaluation on {dataset.name}",
        " ".join(
            sentence(one)
            for one in (f"{counted(scored.table['case'].nunique(), 'case')}: {evaluation.which}", evaluation.own_figure)
            if one
        ),
        primary=evaluation.primary,
        scored=scored,
        notes=evaluation.notes,
        facts={
            "scored": evaluation.which,
            "read as": dataset.layout,
            "hash of these data": dataset_hash(dataset),
            "hash of the model's data": record.get("data_hash", "not recorded"),
            "weights": record.get("weights_sha256", "not recorded"),
        },
        views="",
        plan=subject.plan,
        promised=subject.promised,
        log=_log_of(subject.run),
        problems=(*dataset.problems, *scored.problems),
        environment=environment(),
        knowing=dataset.only({*scored.table["case"].astype(str)}).knowing,
        verdict=evaluation.verdict,
    )
    return page.html

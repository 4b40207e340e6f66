"""`evaluate`: how good a model is on labelled cases, with intervals."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from isocenter.at_work import brought_to_its_end
from isocenter.belief import UNKEPT
from isocenter.errors import counted
from isocenter.evaluation import NONE, covariates_by_name, default_groups, groups_of, rows_to_json
from isocenter.files import dataset_hash
from isocenter.keywords import narrowed, takes
from isocenter.lazy import pandas as pd
from isocenter.options import EvaluateOptions
from isocenter.planning import GROUPS, read_plan, registered_groups, registered_margin
from isocenter.prediction import There, loaded_model
from isocenter.quality import SHORTCUT
from isocenter.reading import (
    Data,
    ReadingOptions,
    failed_rows,
    failures_among,
    open_labelled,
    path_of,
    refuse_taken,
    result_folder,
    write_alignment,
)
from isocenter.report import InNotebook, in_words
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
from isocenter.values import Dataset, Decision, Plan, Problem, Row

log = logging.getLogger("isocenter")

MARKS = ("cases.csv", "summary.json")
# Warnings in the terminal.
MOST_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Evaluation(InNotebook):
    """The figures of an evaluation; prints the primary metric with its interval."""

    scored: Scored
    primary: str
    which: str
    notes: tuple[str, ...] = ()
    out: Path | None = None
    verdict: Verdict = field(default_factory=Verdict)

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

    def as_record(self) -> dict[str, Any]:
        """The record for `--json`."""
        facts = {
            "scored": self.which,
            "openings": self.scored.openings,
            "notes": list(self.notes),
            "verdict": self.verdict.as_record(),
            "failed": failed_rows(self.failures),
            "out": str(self.out) if self.out else None,
        }
        return {**rows_to_json(self.rows), **facts}

    def __repr__(self) -> str:
        lines = [f"scored {self.which}"]
        headline = headline_rows(self.rows, self.primary, self.scored.task)
        lines += [in_words(row, self.scored.metrics) for row in headline]
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
    others = [one for one in problems if one.severity != "error"]
    lines = [f"{one.severity}: {one.what}" for one in (*errors, *others[:MOST_SHOWN])]
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
    data = options.data
    if options.out is not None:
        refuse_taken(Path(options.out), options.overwrite, MARKS)
    run = path_of(options.model)
    if options.scheduler is not None and (path := path_of(data)):
        data = path.absolute()  # a worker has another working folder
    loaded = loaded_model(
        options.model, options.device, threads=options.threads, backend=options.backend, activation=options.activation
    )
    loaded = with_uncertainty(loaded, options.uncertainty)
    loaded = with_positive(loaded, options.positive, str(run or "the model"))
    plan = _plan_of(run)
    audits = narrowed(options, AuditOptions)
    reading = _as_trained(run, plan, data).overridden(options.reading)
    loaded = replace(loaded, request=Request(allow_large=reading.allow_large))
    dataset = _referenced(data, reading, loaded, run)
    chosen = choice(loaded, dataset, run, options.split)
    before = covariates_by_name(dataset, chosen.parts)
    dataset = with_table(dataset, audits.group_table, chosen.parts)
    cases = [case for case in dataset if case.id in chosen.parts]
    groups_of(covariates_by_name(dataset, chosen.parts), audits.groups)  # refused before anything is predicted
    if audits.screening:
        refuse_no_outcome(covariates_by_name(dataset, chosen.parts), dataset.name)
    cases, unlike = own_labels(loaded.task, cases)
    predictor, folds = _predictor(loaded, run, chosen, options.device, options.uncertainty)
    known = dataset.patients_known
    parts, draws = chosen.parts, options.out is not None
    outcomes = None
    if options.scheduler is not None:
        there = partial(
            There.of,
            options.scheduler,
            run,
            device=options.device,
            threads=options.threads,
            backend=options.backend,
            uncertainty=options.uncertainty,
            activation=options.activation,
            request=loaded.request,
        )
        networks: dict[int | None, Model] = {None: loaded}
        if isinstance(predictor, OutOfFold):
            networks = {fold.number: predictor.owners[case] for case, fold in folds.items()}
        outcomes = measured_there({number: there(own, fold=number) for number, own in networks.items()}, folds)
    scored = score(
        predictor,
        cases,
        parts,
        outcomes=outcomes,
        seed=options.seed,
        patients_known=known,
        folds=folds,
        draws=draws,
        keeps=draws,
    )
    promised = plan or _packaged_plan(run)
    planned = _planned_groups(promised, before, covariates_by_name(dataset, chosen.parts))
    audit = Audit(
        scored, predictor, cases, options.seed, known, folds, audits, planned, registered_groups(promised), run
    )
    scored = _looked_through(audit, loaded.preprocessing, keeps=draws)
    others = (*own_results(loaded, cases), *_standing_notes(loaded, run), *unshared(loaded.task, cases))
    others = (*others, *assumed_positive(loaded.task))
    notes = (*stop_note(scored, cases), *unlike, *chosen.notes, *scored.notes, *others)
    primary = str(loaded.record.get("primary", scored.rows[0].metric))
    course = _log_of(run)
    training = () if course is None else training_length(course, selecting(plan))
    with nullcontext() if scored.stopped is None else brought_to_its_end():
        verdict = verdict_of(scored, seed=options.seed, patients_known=known, training=training, notes=notes)
        which = (
            chosen.which if scored.stopped is None else f"{chosen.which}, as far as they were scored before the stop"
        )
        result = Evaluation(
            scored, primary, which, notes, Path(options.out) if options.out is not None else None, verdict
        )
        if result.out is None:
            return result
        with result_folder(result.out, options.overwrite, MARKS) as folder:
            scored.write(folder)
            write_alignment(cases, reading.align, folder)
            write_verdict(folder, verdict.as_record(), primary, registered_margin(promised))
            page = _report(result, loaded, dataset, run, plan, promised)
            (folder / "report.html").write_text(page, encoding="utf-8")
        if scored.stopped is not None:
            log.warning("%s scored before the stop: %s", counted(scored.table["case"].nunique(), "case"), result.out)
            raise scored.stopped
    return result


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
    place = path_of(data)
    if run is None or plan is None or place is None:
        return ReadingOptions()
    own = bool(plan.data) and (run / plan.data).resolve() == place.resolve()
    return ReadingOptions.of_plan(plan.options) if own else ReadingOptions()


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
        kept = package_record(folder)["decisions"]
    sections: dict[str, dict[str, Decision]] = {}
    for name, decision in kept.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = Decision(**decision)
    return Plan(sections) if sections else None


def _planned_groups(plan: Plan | None, before: Collection[str], covariates: Mapping[str, Sequence[Any]]) -> str | None:
    """The plan's groups, and those that a table of groups adds; None, for the usual ones, without a plan.

    before: the covariates without that table
    """
    if plan is None:
        return None
    added = default_groups({name: values for name, values in covariates.items() if name not in before})
    return ",".join(one for one in (plan[GROUPS], added) if one not in (None, NONE)) or NONE


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
    models, own = dict[int, Model](), dict[int, Fold]()
    for number in sorted(set(chosen.folds.values())):
        place = run / f"fold_{number}"
        own[number] = Fold(number, task_of(place) if (place / TASK).is_file() else loaded.task, gate_of(place))
        model = with_uncertainty(load(run, device, fold=number), uncertainty)
        model = replace(model, request=loaded.request)
        models[number] = own[number].scoring(with_smaller_batches(model))
    owners = {case: models[number] for case, number in chosen.folds.items()}
    folds = {case: own[number] for case, number in chosen.folds.items()}
    return OutOfFold(loaded.task, owners, folds), folds


def _report(
    result: Evaluation, model: Model, dataset: Dataset, run: Path | None, plan: Plan | None, promised: Plan | None
) -> str:
    facts = {
        "scored": result.which,
        "read as": dataset.layout,
        "hash of these data": dataset_hash(dataset),
        "hash of the model's data": model.record.get("data_hash", "not recorded"),
        "weights": model.record.get("weights_sha256", "not recorded"),
    }
    page = RunReport(
        f"Evaluation on {dataset.name}",
        f"{counted(result.scored.table['case'].nunique(), 'case')}: {result.which}.",
        primary=result.primary,
        scored=result.scored,
        notes=result.notes,
        facts=facts,
        views="",
        plan=plan,
        promised=promised,
        log=_log_of(run),
        problems=(*dataset.problems, *result.scored.problems),
        environment=environment(),
        knowing=dataset.only({*result.scored.table["case"].astype(str)}).knowing,
        verdict=result.verdict,
    )
    return page.html

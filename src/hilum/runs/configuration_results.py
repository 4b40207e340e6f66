"""Networks of slices, of volumes, their mean and a cascade, compared by the folds of a run, each in equal minutes.

nnU-Net chooses its best configuration so (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z), by the mean alone. Here
the simplest is taken that is not surely worse than the best, by the paired interval of their difference over patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict

from hilum import errors
from hilum.evaluation import Metric, case_tables
from hilum.evaluation import Table as CaseTable
from hilum.planning import plan_checks
from hilum.report import Paragraph, Section, Table
from hilum.runs import _training_order, run_end, training_loop, tuning
from hilum.runs._run_minutes import Minutes, RunStages
from hilum.runs._run_trainings import CONFIGURED
from hilum.runs._training_order import BOTH, BY_SLICES, BY_VOLUMES, CONFIGURATIONS, NNUNET
from hilum.runs.run_folder import RunFolder
from hilum.runs.training_jobs import FittedTraining
from hilum.runs.training_loop import TrainingLoop
from hilum.runtime import record_files
from hilum.scoring import model_comparison
from hilum.tasks import Task
from hilum.values import Decision, Estimate
from hilum.values.record_schema import RecordSchema
from hilum.work_state import log


class ConfigurationFigure(TypedDict):
    """A figure with its interval and the number of cases."""

    value: float
    low: float | None
    high: float | None
    n: int
    method: str


class ConfigurationRow(TypedDict):
    """A configuration of nnU-Net: its figure, and how much less that is than the best."""

    name: str
    estimate: ConfigurationFigure
    difference: str


class ConfigurationsRecord(TypedDict):
    """The configuration that the folds of a run chose, and the figures of all."""

    chosen: str
    because: str
    rows: list[ConfigurationRow]
    metric: NotRequired[str]
    left_out: NotRequired[str]


RECORD, SCHEMA = "configurations.json", RecordSchema("hilum.configurations", ConfigurationsRecord)


def choose_configuration(run: RunFolder) -> RunFolder:
    """The run with the configuration that its folds have chosen, whose trainings then lie in its folds.

    What compares nothing stays as it is.
    """
    if not _training_order.compares_configurations(run.made):
        return run
    if not (run.out / RECORD).is_file():
        loop = TrainingLoop(run, RunStages(run.clock), minutes=_minutes(run), is_dealt=True)
        loop.fit_all()
        record = ConfigurationsRecord(chosen=BOTH, because="it was chosen before", rows=[])
        record = record if run.plan[CONFIGURATIONS] == BOTH else _compare(loop)
        record_files.write_json(run.out / RECORD, SCHEMA, record)
        log.info("configuration: %s: %s", record["chosen"], record["because"])
    record = record_files.read_json(run.out / RECORD, SCHEMA)
    chosen = str(record["chosen"])
    first = BY_VOLUMES if chosen == BOTH else chosen
    for fold in run.folds:
        folder = run.place(f"{CONFIGURED}/{first}/fold_{fold}")
        if folder.is_dir():
            folder.rename(run.folder(fold))
    decision = Decision(chosen, str(record["because"]), NNUNET)
    plan = _training_order.configuration_plan(run.made, first).with_decision(CONFIGURATIONS, decision)
    run.write_plan(plan)
    return replace(run, made=replace(run.made, plan=plan))


def configuration_notes(run: RunFolder) -> list[str]:
    """A note that the cases of the figures chose the configuration too; none where nothing was compared.

    Varma and Simon, doi:10.1186/1471-2105-7-91
    """
    if not configuration_sections(run.out):
        return []
    figures = "its figures out of fold are" if run.own_test else "its figures are"
    return [f"The same cases chose the configuration, so {figures} somewhat too good."]


def configuration_sections(run: Path) -> list[Section]:
    """The comparison as a section of the report; none where nothing was compared."""
    if not (run / RECORD).is_file():
        return []
    record = record_files.read_json(run / RECORD, SCHEMA)
    if not record["rows"]:
        return []
    columns = ["configuration", Metric(record["metric"]).words, "less the best"]
    rows = [[row["name"], Estimate(**row["estimate"]), row["difference"]] for row in record["rows"]]
    text = f"{record['chosen']} was taken: {record['because']}."
    text += f" Left out: {record['left_out']}." if record["left_out"] else ""
    return [Section("Configurations", [Paragraph(text), Table(columns, rows)])]


def _minutes(run: RunFolder) -> Minutes | None:
    """The minutes of a comparison, and of all that follows the folds of the configuration that is taken."""
    planned, names = run.made, _training_order.configuration_names(run.made)
    volumes = replace(planned, plan=_training_order.configuration_plan(planned, BY_VOLUMES))
    mains = [_training_order.training_of(volumes, {}, fold) for fold in run.folds]
    minutes = training_loop.minutes_of_run(run, mains, 1)
    if minutes is None:
        return None
    tested = sum(len(main.cases["test"]) for main in mains)
    compared = [*[(tested, 1)] * len(names), (tested, 2)]  # of the mean both networks predict each case
    return replace(minutes, tested=[*minutes.tested, *compared], selecting=(2 + len(compared)) * minutes.selecting)


def _compare(loop: TrainingLoop) -> ConfigurationsRecord:
    """The simplest configuration that is not surely worse than the best, why, and the figures of all."""
    run = loop.run
    compared = _training_order.configuration_names(run.made)
    fits = {name: loop.fits("candidate", below=f"{CONFIGURED}/{name}/") for name in compared}
    pairs, order = zip(fits[BY_VOLUMES], fits[BY_SLICES], strict=True), (*fits, BOTH)
    fits[BOTH] = [replace(volumes, further=[slices.outcome]) for volumes, slices in pairs]
    tables, tasks = dict[str, CaseTable](), dict[str, Task]()
    for name in order:
        tables[name], tasks[name] = _score(run, fits[name], name)
    primary, seed = str(run.plan["evaluation.primary"]), int(run.plan["training.seed"])
    figures = {name: _figure(tasks[name], table, primary, seed) for name, table in tables.items()}
    sign = -1 if tasks[BOTH].metrics.metric_named(primary).better == "less" else 1
    best = max(order, key=lambda name: sign * figures[name].value)
    names = [best, *(name for name in order if name != best)]
    patients_known = run.dataset.patients_known
    comparison = model_comparison.compare_tables(
        {name: tables[name] for name in names},
        [tasks[name] for name in names],
        seed=seed,
        patients_known=patients_known,
    )
    row = next(row for row in comparison.rows if row.metric == primary)
    apart = dict(zip(names[1:], row.differences, strict=True))
    worse = [name for name, one in apart.items() if _is_below(one, sign)]
    chosen = next(name for name in order if name not in worse)
    shown = ", ".join(f"{name} {figure.value:.4f}" for name, figure in figures.items())
    named = comparison.metrics.metric_named(primary).words
    because = f"the simplest that is not surely worse than {best}, by {named} of the cases that folds test: {shown}"
    because += f"; surely worse: {errors.list_phrase(worse)}" if worse else ""
    rows = [
        ConfigurationRow(
            name=name,
            estimate=ConfigurationFigure(value=one.value, low=one.low, high=one.high, n=one.n, method=one.method),
            difference=model_comparison.signed_estimate(apart[name]) if name in apart else "",
        )
        for name, one in zip(names, row.estimates, strict=True)
    ]
    return ConfigurationsRecord(chosen=chosen, because=because, metric=primary, rows=rows, left_out=_left_out(run))


def _score(run: RunFolder, fits: Sequence[FittedTraining], name: str) -> tuple[CaseTable, Task]:
    """The table of all cases, each scored by the fold that has not seen it, and the task that all folds share."""
    predictions = tuning.tune_out_of_fold(fits, plan_checks.checked_settings(run.plan).task)
    rows = run_end.predict_rows(
        predictions, [case for one in fits for case in one.job.test], f"of configuration {name}"
    )
    return case_tables.case_table(rows), predictions.task


def _left_out(run: RunFolder) -> str:
    because = run.plan.decision("preprocessing.cascade").because
    return "" if _training_order.has_cascade(run.made) else f"a cascade: {because}"


def _figure(task: Task, table: CaseTable, primary: str, seed: int) -> Estimate:
    return next(row.estimate for row in task.summary(table, seed=seed) if row.metric == primary)


def _is_below(difference: Estimate, sign: int) -> bool:
    """Whether a difference from the best is surely a loss."""
    ends = (difference.low, difference.high)
    return all(end is not None and sign * end < 0 for end in ends)

"""Networks of slices, of volumes, their mean and a cascade, compared by the folds of a run, each in equal minutes.

nnU-Net chooses its best configuration so (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z), by the mean alone. Here
the simplest is taken that is not surely worse than the best, by the paired interval of their difference over patients.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from isocenter.errors import listed
from isocenter.evaluation import Table as Cases
from isocenter.evaluation import case_table
from isocenter.planning import CASCADE, compared_configurations, settings, without_cascade
from isocenter.report import Paragraph, Section, Table, metric_name
from isocenter.runtime import read_json, write_json
from isocenter.tasks import Task
from isocenter.training import Outcome
from isocenter.values import Decision, Estimate, Plan
from isocenter.verbs.evaluation import compare_tables, signed
from isocenter.verbs.training.decisions import log_decisions, with_decisions
from isocenter.verbs.training.fit import Job, More
from isocenter.verbs.training.image_only_control import predicted_rows
from isocenter.verbs.training.run_folder import CONFIGURED, RunFolder
from isocenter.verbs.training.time_budget import Afterwards, Shares
from isocenter.verbs.training.trainings import (
    OutOfFold,
    Part,
    Timed,
    afterwards,
    first_limit,
    fitted,
    folds_of,
    jobs_of,
)
from isocenter.verbs.training.tuning import tuned

log = logging.getLogger("isocenter")
WANTED, RECORD, SCHEMA = "search.configurations", "configurations.json", "isocenter.configurations"
SLICES, VOLUMES, BOTH = "unet_slices", "unet", "ensemble"
BY_SLICES, BY_VOLUMES = "2d", "3d"
NNUNET = "doi:10.1038/s41592-020-01008-z"
Trainings = tuple[Sequence[Job], Sequence[Outcome]]


def configured(run: RunFolder) -> tuple[RunFolder, More]:
    """The run with the configuration that its folds have chosen, whose trainings then lie in its folds.

    Returns the further networks of each fold too, where the mean was chosen. What compares nothing stays as it is.
    """
    if WANTED not in run.plan or run.plan[WANTED] not in ("auto", BOTH):
        return run, {}
    runs = {name: replace(run, out=run.out / CONFIGURED / name, made=replace(run.made, plan=plan))
            for name, plan in plans_of(run).items()}  # fmt: skip
    if not (run.out / RECORD).is_file():
        trainings = _trained(run, runs)
        record = {"chosen": BOTH, "because": "it was chosen before", "rows": []}
        record = record if run.plan[WANTED] == BOTH else _compared(run, trainings)
        write_json(run.out / RECORD, SCHEMA, record)
        log.info("configuration: %s: %s", record["chosen"], record["because"])
    record = read_json(run.out / RECORD, SCHEMA)
    chosen = str(record["chosen"])
    first = BY_VOLUMES if chosen == BOTH else chosen
    for fold in run.folds:
        place = runs[first].folder(fold)
        if place.is_dir():
            place.rename(run.folder(fold))
    decision = Decision(chosen, str(record["because"]), NNUNET)
    after = replace(run, made=replace(run.made, plan=runs[first].plan.with_decision(WANTED, decision)))
    after.write_plan(after.plan)
    if chosen != BOTH:
        return after, {}
    slices = runs[BY_SLICES]
    pairs = zip(run.folds, jobs_of(slices), strict=True)
    return after, {run.folder(fold): [_outcome(slices, job)] for fold, job in pairs}


def configuration_notes(run: RunFolder) -> list[str]:
    """That the cases which chose a configuration are those of its figures; nothing where nothing was compared.

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
    record = read_json(run / RECORD, SCHEMA)
    if not record["rows"]:
        return []
    columns = ["configuration", metric_name(record["metric"], {}), "less the best"]
    rows = [[row["name"], Estimate(**row["estimate"]), row["difference"]] for row in record["rows"]]
    text = f"{record['chosen']} was taken: {record['because']}."
    text += f" Left out: {record['left_out']}." if record["left_out"] else ""
    return [Section("Configurations", [Paragraph(text), Table(columns, rows)])]


def plans_of(run: RunFolder) -> dict[str, Plan]:
    """{configuration: its plan}; the plan's own network is one of them."""
    own, room = str(run.plan["network.name"]), run.made.room
    plans = {}
    for name in _names(run):
        plan, family = run.plan, SLICES if name == BY_SLICES else VOLUMES if own == SLICES else own
        because = f"the configuration {name}, which is compared with others"
        if family != own:
            size = {"network.size": Decision(dict(room.size(plan, family)), because)}
            plan = with_decisions(plan, {"network.name": Decision(family, because), **size})
        if name != CASCADE and _has_cascade(run):
            plan = without_cascade(plan, because)
        plans[name] = plan if plan is run.plan else room.fitted(plan)
    return plans


def _has_cascade(run: RunFolder) -> bool:
    """Whether one is compared too: where the plan has one."""
    return run.plan["preprocessing.cascade"] is not None


def _names(run: RunFolder) -> tuple[str, ...]:
    """The configurations that are trained, from the simplest on."""
    return compared_configurations(cascade=_has_cascade(run))


def _left_out(run: RunFolder) -> str:
    return "" if _has_cascade(run) else f"a cascade: {run.plan.decision('preprocessing.cascade').because}"


def _trained(run: RunFolder, runs: Mapping[str, RunFolder]) -> dict[str, Trainings]:
    """The trainings of every fold by each configuration, which have equal parts of the minutes."""
    jobs = {name: jobs_of(own) for name, own in runs.items()}
    after = _after(run, jobs)
    shares, trained = Shares(len(jobs) * len(run.folds)), dict[str, Trainings]()
    for name, own in jobs.items():
        outcomes = []
        for own_job in own:
            job = replace(own_job, what=f"{own_job.what}, {name}")
            part, timed = Part.of(runs[name], job), None
            if after is not None:
                turn = shares.turn(part.turn_began(run.clock))
                timed = Timed(after, turn, partial(first_limit, after, part, None))
            outcomes.append(fitted(runs[name], part, partial(log_decisions, job.what), timed))
        trained[name] = own, outcomes
    return trained


def _after(run: RunFolder, jobs: Mapping[str, Sequence[Job]]) -> Afterwards | None:
    """What follows all trainings: the comparison, then all that follows the folds of the one that is taken."""
    after = afterwards(run, jobs[BY_VOLUMES], 1)
    if after is None:
        return None
    tested = sum(len(job.test) for job in jobs[BY_VOLUMES])
    compared = [*[(tested, 1)] * len(jobs), (tested, 2)]  # of the mean both networks predict each case
    return replace(after, tested=[*after.tested, *compared], selecting=(2 + len(compared)) * after.selecting)


def _outcome(run: RunFolder, job: Job) -> Outcome:
    """Of a training that is finished."""
    return fitted(run, Part(job, None), lambda decisions: None, None)


def _compared(run: RunFolder, trainings: Mapping[str, Trainings]) -> dict[str, Any]:
    """The simplest configuration that is not surely worse than the best, why, and the figures of all."""
    slices, volumes, order = trainings[BY_SLICES], trainings[BY_VOLUMES], (*trainings, BOTH)
    more = {job.out: [outcome] for job, outcome in zip(volumes[0], slices[1], strict=True)}
    tables, tasks = dict[str, Cases](), dict[str, Task]()
    for name in order:
        jobs, outcomes = volumes if name == BOTH else trainings[name]
        tables[name], tasks[name] = _scored(run, jobs, outcomes, more if name == BOTH else {}, name)
    primary, seed = str(run.plan["evaluation.primary"]), int(run.plan["training.seed"])
    figures = {name: _figure(tasks[name], table, primary, seed) for name, table in tables.items()}
    sign = -1 if tasks[BOTH].traits.is_error(primary) else 1
    best = max(order, key=lambda name: sign * figures[name].value)
    names = [best, *(name for name in order if name != best)]
    known = run.dataset.patients_known
    comparison = compare_tables(
        {name: tables[name] for name in names}, [tasks[name] for name in names], seed=seed, patients_known=known
    )
    row = next(row for row in comparison.rows if row.metric == primary)
    apart = dict(zip(names[1:], row.differences, strict=True))
    worse = [name for name, one in apart.items() if _is_below(one, sign)]
    chosen = next(name for name in order if name not in worse)
    shown = ", ".join(f"{name} {figure.value:.4f}" for name, figure in figures.items())
    named = metric_name(primary, comparison.metric_names)
    because = f"the simplest that is not surely worse than {best}, by {named} of the cases that folds test: {shown}"
    because += f"; surely worse: {listed(worse)}" if worse else ""
    rows = [
        {
            "name": name,
            "estimate": {key: getattr(row.estimates[place], key) for key in ("value", "low", "high", "n", "method")},
            "difference": signed(apart[name]) if name in apart else "",
        }
        for place, name in enumerate(names)
    ]
    return {"chosen": chosen, "because": because, "metric": primary, "rows": rows, "left_out": _left_out(run)}


def _scored(
    run: RunFolder, jobs: Sequence[Job], outcomes: Sequence[Outcome], more: More, name: str
) -> tuple[Cases, Task]:
    """The table of all cases, each scored by the fold that has not seen it, and the task that all folds share."""
    own = tuned(jobs, outcomes, settings(run.plan).task, (), more)
    cases = [case for job in jobs for case in job.test]
    predictor = OutOfFold.of(own.task, jobs, own.models)
    rows = predicted_rows(predictor, cases, {}, folds_of(jobs, own.models), f"of configuration {name}")
    return case_table(rows), own.task


def _figure(task: Task, table: Cases, primary: str, seed: int) -> Estimate:
    return next(row.estimate for row in task.scoring.summary(table, seed=seed) if row.metric == primary)


def _is_below(difference: Estimate, sign: int) -> bool:
    """Whether a difference from the best is surely a loss."""
    ends = (difference.low, difference.high)
    return all(end is not None and sign * end < 0 for end in ends)

"""`train`: from a folder, or from an edited plan, to a model that has been evaluated."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from isocenter.errors import UsageError
from isocenter.evaluation import rows_to_json
from isocenter.files import unwritable
from isocenter.planning import settings
from isocenter.runtime import Model, build_module, load, write_json
from isocenter.training import Clock, Outcome, take_over
from isocenter.values import Dataset, Decision, Plan, Row
from isocenter.verbs.evaluation import Scored, Subsets
from isocenter.verbs.plan import Planned, fewest_that_select, room_of
from isocenter.verbs.plan import plan as make
from isocenter.verbs.reading import refuse_taken
from isocenter.verbs.training import (
    MARKS,
    NOTES,
    REPORT,
    Afterwards,
    Before,
    Begun,
    Found,
    Job,
    begin,
    covariates_seconds,
    covariates_stated,
    cross_validated,
    evaluated,
    evaluated_untold,
    found_in,
    fresh_model,
    image_job,
    in_all_processes,
    is_wanted,
    notes_of,
    planned_from,
    refuse_unsearchable,
    resumed,
    say_decided,
    search_sections,
    searched,
    shared_deadline,
    state_of,
    trained_untold,
    training_log,
    tuned,
    weights_of,
    with_decided,
    with_outcome,
    write_environment,
    write_report,
)
from isocenter.verbs.training.fit import fit


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run; prints its headline and where everything lies."""

    out: Path
    rows: tuple[Row, ...]
    primary: str
    steps: int
    minutes: float
    notes: tuple[str, ...] = ()
    folds: int = 0

    @property
    def report(self) -> Path:
        return self.out / REPORT

    def as_record(self) -> dict[str, Any]:
        """For `--json`."""
        found = {"out": str(self.out), "report": str(self.report), "steps": self.steps, "minutes": self.minutes}
        return {**rows_to_json(self.rows), **found, "notes": list(self.notes)}

    def __repr__(self) -> str:
        said = [f"{row.metric} {row.label}: {row.estimate}" for row in self.rows if row.metric == self.primary]
        return "\n".join([*said, *self.notes, f"{self._length} in {self.minutes:.1f} min", str(self.report)])

    @property
    def _length(self) -> str:
        return f"{self.steps} steps" if self.folds < 2 else f"{self.folds} folds of up to {self.steps} steps"


@in_all_processes
def train(
    data: str | Path | Dataset | None = None,
    *,
    minutes: float | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: str | Path | None = None,
    start: str | Path | None = None,
    pretrained: str | Path | None = None,
    everything: bool = False,
    folds: int | None = None,
    tune: float | None = None,
    deterministic: bool = False,
    device: str | None = None,
    threads: int | None = None,
    seed: int | None = None,
    task: str | None = None,
    assignments: Mapping[str, Any] | None = None,
    **given: Any,
) -> Run:
    """Check, plan, prepare, train, evaluate and report, within `minutes` from now (60 unless a plan says otherwise).

    data:          a folder, or a plan's .yaml
    out:           the run's folder, made anew
    resume:        a run's folder to finish, in place of `data`
    start:         a model whose weights to begin from
    pretrained:    a file of weights, or "auto" for those that the network's family has published
    everything:    train on every case but a set's own test part; nothing selects
    folds:         cross-validation in so many parts, all within the minutes
    tune:          so many of the minutes for trials of other decisions, before the training; needs the extra "tune"
    deterministic: two runs on one machine are alike to the bit; needs a number of steps, from a plan or by hand
    Where torchrun has begun several processes, they share every batch; the result is that of one process.
    Raises what `check` and `plan` raise; UsageError for a wrong combination of arguments.
    """
    began = time.monotonic()
    if (data is None) == (resume is None):
        raise UsageError("give either data or a run to resume", "train", "`train DATA` or `train --resume RUN`")
    flags = {
        "minutes": minutes,
        "everything": everything,
        "folds": folds,
        "device": device,
        "threads": threads,
        "seed": seed,
        "task": task,
    }
    by_hand = {
        **({"training.deterministic": True} if deterministic else {}),
        **({"search.minutes": tune} if tune is not None else {}),
        **({"network.pretrained": _absolute(pretrained)} if pretrained is not None else {}),
        **(assignments or {}),
    }
    if resume is not None:
        folder = Path(resume)
        _refuse_beside_resume({**flags, **given, **by_hand_names(by_hand), "from": start, "out": out})
        return _ended(resumed(folder), began, None)
    assert data is not None  # noqa: S101 - seen to above
    if out is None:
        raise UsageError("a run needs a folder to be written into", "train", "Give out=FOLDER")
    folder = Path(out)
    refuse_taken(folder, overwrite, MARKS)
    with weights_of(Path(start) if start is not None else None) as weights:
        made = _planned(data, flags, by_hand, given)
        refuse_unsearchable(made.plan, fewest_that_select(made))
        if weights is not None:
            chosen = settings(made.plan)
            module = build_module(chosen.task, chosen.architecture)
            take_over(module, chosen.network, weights)  # refused before the folder is there
        return _ended(begin(folder, made), began, weights)


def _ended(run: Begun, began: float, weights: Path | None) -> Run:
    """The run carried out, whatever of the system is in its way said in one line."""
    try:
        return _carried_out(run, began, weights)
    except OSError as error:  # of the system: all that is read raises errors of ours
        raise unwritable(error, Path(error.filename or run.out)) from error


def _absolute(pretrained: str | Path) -> str:
    """A file is found again from any folder; "auto" is no file."""
    return "auto" if str(pretrained) == "auto" else str(Path(pretrained).resolve())


def by_hand_names(assignments: Mapping[str, Any]) -> dict[str, Any]:
    """What was set by hand, as one thing that a resumed run does not take."""
    return {"assignments": dict(assignments)} if assignments else {}


def _refuse_beside_resume(flags: Mapping[str, Any]) -> None:
    """A resumed run follows its own plan: what would change it is not taken silently."""
    given = [name for name, value in flags.items() if value]
    if given:
        raise UsageError(f"{', '.join(given)} cannot be given with a run to resume", "train", "Leave it out")


def _planned(
    data: str | Path | Dataset, flags: Mapping[str, Any], by_hand: Mapping[str, Any], given: Mapping[str, Any]
) -> Planned:
    if not isinstance(data, Dataset) and Path(data).suffix.lower() in (".yaml", ".yml"):
        return planned_from(Path(data), flags, by_hand, given)
    known: dict[str, Any] = {key: value for key, value in flags.items() if value is not None}
    return make(data, assignments=by_hand, **known, **given)


def _carried_out(run: Begun, began: float, weights: Path | None) -> Run:
    """Prepare, train, evaluate, report."""
    write_environment(run, run.plan)
    record = {
        "data_hash": run.plan.data_hash,
        "patients_known": run.dataset.patients_known,
        "fingerprint": run.examination.fingerprint.summary,
    }
    if run.made.folds:
        plan, scored, outcomes, facts = cross_validated(run, began, record, weights)
    else:
        plan, scored, outcome = _trained(run, began, record, weights)
        outcomes, facts = [outcome], {}
    if scored is not None:
        facts = {**covariates_stated(run), **facts}
    taken = (time.monotonic() - began + run.spent) / 60
    notes = notes_of(run, scored, [one.stopped for one in outcomes if one.stopped])
    found = _searches(run)
    notes += [f"{f'{where}: ' * bool(where)}{one.said}." for where, one in found.items()]
    run.write_plan(plan)
    logs = [run.out] if not run.made.folds else [run.fold_folder(fold) for fold in range(len(run.made.folds))]
    table = training_log(logs)
    write_json(run.out / NOTES, "isocenter.run", {"notes": notes, "minutes": taken})
    before = search_sections(found, str(plan["training.selection"]))
    write_report(run, plan, scored, notes, outcomes=outcomes, log=table, minutes=taken, facts=facts, more=before)
    rows = () if scored is None else tuple(scored.rows)
    steps = max(one.steps for one in outcomes)
    return Run(run.out, rows, str(plan["evaluation.primary"]), steps, taken, tuple(notes), len(run.made.folds))


def _searches(run: Begun) -> dict[str, Found]:
    """{where: what was found} of the searches that went before the training, or before that of each fold."""
    places = {f"fold {fold}": run.fold_folder(fold) for fold in range(len(run.made.folds))} or {"": run.out}
    return {where: found for where, folder in places.items() if (found := found_in(folder)) is not None}


def _trained(
    run: Begun, began: float, record: Mapping[str, Any], weights: Path | None
) -> tuple[Plan, Scored | None, Outcome]:
    """One training with its test part: the plan with what was decided on the way, what was measured, the outcome."""
    val, test = run.cases("val"), run.cases("test")
    job = Job(run.out, run.plan, run.cases("train"), val, record, start=weights)
    plan, before = run.plan, None
    if job.settings.search.is_on:
        found = searched(job, Clock(began, run.spent), room_of(run.made))
        if not state_of(run.out):
            plan = found.applied(plan)
            run.write_plan(plan)
            job = replace(job, plan=plan)
    if job.settings.preprocessing.cascade is not None:
        before = Before.of(run, job)

    def decided(decisions: Mapping[str, Decision]) -> None:
        nonlocal plan
        plan = with_decided(plan, decisions)
        run.write_plan(plan)
        say_decided("training", decisions)

    def whole(model: Model) -> Model:
        return model if before is None else before.joined(model)

    trainings = 2 if is_wanted(run, test) else 1
    began_at = 0.0 if run.spent else time.monotonic() - began
    after, deadline = _afterwards(run, job, len(test), trainings), state_of(run.out).get("deadline")
    if after is not None and deadline is None:
        costs = after.costs(whole(fresh_model(job.settings)))
        if (views := after.views(costs, plan)) is not None:
            decided({"inference.flips": views})
            job = replace(job, plan=plan)
            before = None if before is None else before.deciding("inference.flips", views)
            costs = after.costs(whole(fresh_model(job.settings)))
        deadline = shared_deadline(after.first_deadline(costs), began_at, trainings)
    clock = Clock(began, run.spent, deadline)
    if before is not None:
        job = replace(job, marked=before.trained(clock))
    recount = None if after is None else partial(_recounted, after, whole, began_at, trainings)
    outcome = fit(job, clock, decided, recount)
    beside = None
    if trainings > 1:
        untold_job = image_job(job, plan, run, timed=after is not None)
        limit = None if after is None else after.deadline(load(outcome.checkpoint, job.settings.training.device))
        beside = untold_job, trained_untold(untold_job, replace(clock, deadline=limit), after)
    model, decisions = tuned(job, outcome)
    plan = with_outcome(plan, outcome)
    for name, decision in decisions.items():
        plan = plan.with_decision(name, decision)
    scored = evaluated(run, model, test, run.made.parts)
    if beside is not None:
        evaluated_untold(run, tuned(*beside)[0], test, run.made.parts)
    return plan, scored, outcome


def _recounted(
    after: Afterwards, whole: Callable[[Model], Model], elapsed: float, trainings: int, model: Model
) -> float:
    """By which second this training must end, if this is the model of its last stage.

    elapsed: s after the command's start at which the first of so many trainings began
    """
    return shared_deadline(after.deadline(whole(model)), elapsed, trainings)


def _afterwards(run: Begun, job: Job, tested: int, trainings: int) -> Afterwards | None:
    """What follows the training of so many models within the minutes; None where the plan fixes the steps."""
    minutes = job.settings.training.minutes
    timed = job.settings.training.steps is None or state_of(run.out).get("deadline") is not None
    if minutes is None or not timed:
        return None
    often, beside = max(1, len(Subsets.of(job.settings.preprocessing).wanted)), covariates_seconds([job])
    tests = [(tested, 1)] * (often + trainings - 1)
    return Afterwards(minutes, [*job.val, *job.train][0], trainings * len(job.tuning), tests, beside)

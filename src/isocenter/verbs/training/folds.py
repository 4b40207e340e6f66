"""Cross-validation: a training for each fold, within the same minutes, and what each says of cases it has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from isocenter.evaluation import Table
from isocenter.planning import Settings, settings
from isocenter.runtime import Model, load
from isocenter.tasks import Task
from isocenter.training import Clock, Outcome, Recount
from isocenter.values import Case, Decision, Plan, Prediction, Split, stands_for
from isocenter.verbs.evaluation import Scored, Subsets
from isocenter.verbs.plan import room_of
from isocenter.verbs.training.covariate_baseline import covariates_seconds
from isocenter.verbs.training.fit import Job, fit, keep_task, predicted, say_decided
from isocenter.verbs.training.image_only_control import evaluated_untold, image_job, is_wanted
from isocenter.verbs.training.run_end import EVALUATION, OUT_OF_FOLD, evaluated
from isocenter.verbs.training.run_folder import SEARCH, Begun, state_of
from isocenter.verbs.training.search import searched
from isocenter.verbs.training.time_budget import Afterwards, fresh_model, shared_deadline

# What each fold takes from its own training cases. The grid is common, because the folds become one model whose outputs
# are averaged voxel by voxel, and so are labels and tolerances, by which it is scored.
SCALE = "preprocessing.normalisation"
OWN = ("task.counts", "task.weights", "task.prior_shift", SCALE)
SCALE_NOTE = "in fold 0; each fold goes by its own training cases"


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """The models of all folds, each for the cases that it has not seen.

    task:   what scores them all, the same for every fold
    owners: {case id: model}
    """

    task: Task
    owners: Mapping[str, Model]

    def predict(self, subject: Case) -> Prediction:
        return self.owners[subject.id].predict(subject)


def cross_validated(
    run: Begun, began: float, record: Mapping[str, Any], weights: Path | None
) -> tuple[Plan, Scored | None, list[Outcome], dict[str, Any]]:
    """Every fold trained that is not yet, the run's plan with what was decided, what was measured, each fold's share.

    Where the set has its own test part the mean of the folds is scored on it, else each fold on its own cases.
    """
    total = len(run.made.folds)
    jobs = [_job(run, fold, record, weights) for fold in range(total)]
    beside = is_wanted(run, run.cases("test", 0))
    after = _afterwards(run, jobs, 2 if beside else 1)
    if after is not None and not any(state_of(job.out) for job in jobs):
        views = after.views(after.costs(fresh_model(jobs[0].settings)), run.plan)
        if views is not None:
            run = replace(run, made=replace(run.made, plan=run.plan.with_decision("inference.flips", views)))
            run.write_plan(run.plan)
            say_decided("training", {"inference.flips": views})
            jobs = [_job(run, fold, record, weights) for fold in range(total)]
    if jobs[0].settings.search.is_on:
        clock = Clock(began, run.spent)
        jobs = [_searched(run, fold, job, clock) for fold, job in enumerate(jobs)]
    untold = [image_job(job, job.plan, run, timed=after is not None) for job in jobs] if beside else []
    outcomes: list[Outcome] = []
    without: list[Outcome] = []
    for number, job in enumerate([*jobs, *untold]):
        left = len(jobs) + len(untold) - number
        (outcomes if number < total else without).append(_fitted(job, Clock(began, run.spent), after, left))
    models = [load(one.checkpoint, job.settings.training.device) for one, job in zip(outcomes, jobs, strict=True)]
    plan, models, task = _tuned(run, jobs, models)
    plan = with_searches(with_reasons(plan, jobs, outcomes), jobs)
    of_case = {case.id: fold for fold in range(total) for case in run.cases("test", fold)}
    seen_by = {case: models[fold] for case, fold in of_case.items()}
    cases = [case for case in run.dataset if case.id in seen_by]
    parts: dict[str, Split] = dict.fromkeys(seen_by, "test")
    folder = OUT_OF_FOLD if run.own_test else EVALUATION
    scored = evaluated(run, OutOfFold(task, seen_by), cases, parts, folder, of_case)
    assert scored is not None  # noqa: S101 - every fold has cases
    primary, seed = str(plan["evaluation.primary"]), int(plan["training.seed"])
    if untold:
        alone = [load(one.checkpoint, job.settings.training.device) for one, job in zip(without, untold, strict=True)]
        _, alone, own = _tuned(run, untold, alone)
        seen = {case.id: model for fold, model in enumerate(alone) for case in run.cases("test", fold)}
        evaluated_untold(run, OutOfFold(own, seen), cases, parts, of_case)
    facts = fold_facts(scored.table, [run.cases("test", fold) for fold in range(total)], task, primary, seed)
    if run.own_test:
        said = [row for row in scored.rows if row.metric == primary][:1]
        facts |= {f"{primary} out of fold": str(row.estimate) for row in said}
        scored = evaluated(run, load(run.out, jobs[0].settings.training.device), run.own_test, dict(run.dataset.splits))
    return plan, scored, outcomes, facts


def _fitted(job: Job, clock: Clock, after: Afterwards | None, left: int) -> Outcome:
    """The next of so many trainings, within an equal part of what is left of the minutes."""
    if after is None:
        return fit(job, clock, _said(job.what))
    share = _share(after.deadline, clock.seconds, left)
    if (deadline := state_of(job.out).get("deadline")) is None:
        limit = after.first_deadline(after.costs(fresh_model(job.settings)))
        deadline = shared_deadline(limit, clock.seconds, left)
    return fit(job, replace(clock, deadline=deadline), _said(job.what), share)


def fold_facts(table: Table, folds: Sequence[Sequence[Case]], task: Task, primary: str, seed: int) -> dict[str, str]:
    """The primary metric of each fold's cases, and how far the folds lie apart."""
    values = []
    for cases in folds:
        ids = {case.id for case in cases}
        rows = task.summary(table[table["case"].isin(ids)], seed=seed)
        values.append(next((row.estimate.value for row in rows if row.metric == primary), float("nan")))
    said = {f"{primary}, fold {fold}": f"{value:.4f}" for fold, value in enumerate(values)}
    known = np.array([value for value in values if np.isfinite(value)])
    if len(known) > 1:
        apart = f"mean {known.mean():.4f}, SD {known.std(ddof=1):.4f}, {known.min():.4f} to {known.max():.4f}"
        said[f"{primary} over folds"] = apart
    return said


def _job(run: Begun, fold: int, record: Mapping[str, Any], weights: Path | None) -> Job:
    """The training of one fold, whose statistics of images and references are those of its own training cases."""
    total, plan, own = len(run.made.folds), run.plan, run.made.of_fold(fold).plan
    for name in [name for name in own.names if any(stands_for(name, one) for one in OWN)]:
        if not (name == SCALE and _methods(own) != _methods(plan)):  # one model, one kind of scale
            plan = plan.with_decision(name, own.decision(name))
    return Job(
        run.fold_folder(fold),
        plan,
        run.cases("train", fold),
        run.cases("val", fold),
        {**record, "fold": fold, "folds": total},
        what=f"training fold {fold} ({fold + 1} of {total})",
        start=weights,
    )


def _searched(run: Begun, fold: int, job: Job, clock: Clock) -> Job:
    """The training of a fold by what a search among its own training and validation cases has found."""
    found = searched(job, clock, room_of(run.made.of_fold(fold)), folds=len(run.made.folds))
    return replace(job, plan=found.applied(job.plan))


def _methods(plan: Plan) -> list[str]:
    return [one["method"] for one in plan[SCALE]]


def _afterwards(run: Begun, jobs: Sequence[Job], trainings: int) -> Afterwards | None:
    """What follows the training of all folds within the minutes; None where the plan fixes the steps.

    trainings: of each fold
    """
    training = jobs[0].settings.training
    if training.steps is not None or training.minutes is None:
        return None
    selecting = trainings * sum(len(job.tuning) for job in jobs)
    often = max(1, len(Subsets.of(jobs[0].settings.preprocessing).wanted))
    tested = [*[(len(run.made.folds[0]), 1)] * trainings, (len(run.own_test), len(jobs))] * often
    return Afterwards(training.minutes, jobs[0].val[0], selecting, tested, covariates_seconds(jobs))


def _share(limit: Recount, elapsed: float, left: int) -> Recount:
    """By which second the fold at hand must end, whatever this session began with: an equal part of what is left."""
    return lambda model: shared_deadline(limit(model), elapsed, left)


def _said(what: str) -> Any:
    """A fold's steps are its own: they stand in its checkpoint, and the plan says at the end how many each had."""
    return partial(say_decided, what)


def with_reasons(plan: Plan, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> Plan:
    """The plan with what holds of folds: how many steps each had, what ended one early, whose intensities count."""
    if plan["training.steps"] is None:
        each = ", ".join(str(one.steps) for one in outcomes)
        because = f"a probe in each fold turned the minutes into steps: {each}"
        plan = plan.with_decision("training.steps", Decision(None, because))
        ways = f"a probe in each fold found the fastest: {', '.join(one.compute for one in outcomes)}"
        plan = plan.with_decision("training.compute", Decision(None, ways))
    if any(job.plan[SCALE] != plan[SCALE] for job in jobs):
        scale = plan.decision(SCALE)
        plan = plan.with_decision(SCALE, Decision(scale.value, f"{scale.because}, {SCALE_NOTE}", scale.source))
    stopped = [f"fold {fold}: {one.stopped}" for fold, one in enumerate(outcomes) if one.stopped]
    if stopped:
        plan = plan.with_decision("training.early_stop", Decision(plan["training.early_stop"], "; ".join(stopped)))
    return plan


def with_searches(plan: Plan, jobs: Sequence[Job]) -> Plan:
    """The plan with what each fold's own search has put in the place of a decision."""
    for name, planned in plan:
        own = {fold: job.plan.decision(name) for fold, job in enumerate(jobs)}
        found = {fold: one for fold, one in own.items() if one.source.startswith(SEARCH)}
        if found:
            told = ", ".join(f"{one.value} in fold {fold}" for fold, one in found.items())
            because = f"{planned.because}; the folds' own searches have put other values in its place: {told}"
            plan = plan.with_decision(name, Decision(planned.value, because, planned.source))
    return plan


def _tuned(run: Begun, jobs: Sequence[Job], models: Sequence[Model]) -> tuple[Plan, list[Model], Task]:
    """What remains to be decided: for each fold by its own cases, so that no test case has a say; for the mean by all.

    The mean's task goes into every checkpoint, because the folds are one model.
    """
    common: Settings = settings(run.plan)
    predictions: list[Prediction] = []
    cases: list[Case] = []
    found = []
    for job, model in zip(jobs, models, strict=True):
        tuning = job.tuning
        made = predicted(model, job.settings.task, tuning)
        task, _ = job.settings.task.tuned(made, tuning) if tuning else (job.settings.task, {})
        found.append(replace(model, task=task))
        predictions += made
        cases += tuning
    task, decisions = common.task.tuned(predictions, cases) if cases else (common.task, {})
    keep_task([job.out for job in jobs], task)
    plan = run.plan
    for name, decision in decisions.items():
        plan = plan.with_decision(name, decision)
    return plan, found, task

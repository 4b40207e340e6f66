"""The trainings of a run: one, or one a fold, within the same minutes, each scored on cases that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from isocenter.evaluation import Table
from isocenter.planning import settings
from isocenter.quality import references_counted
from isocenter.report import metric_name, row_name
from isocenter.runtime import Guard, Model, load
from isocenter.tasks import Task
from isocenter.training import Outcome, Several
from isocenter.values import Case, Decision, Plan, Prediction, Split
from isocenter.verbs.evaluation import EVALUATION, OUT_OF_FOLD, Fold, Subsets
from isocenter.verbs.reading import ALLOW_LARGE
from isocenter.verbs.training.affordable import afforded
from isocenter.verbs.training.covariate_baseline import covariates_seconds
from isocenter.verbs.training.decisions import (
    PlanLog,
    log_decisions,
    of_fold,
    with_decisions,
    with_outcome,
    with_reasons,
    with_searches,
)
from isocenter.verbs.training.fit import Job, More, fit
from isocenter.verbs.training.gate import guarded, looked_at
from isocenter.verbs.training.image_only_control import evaluated_control, image_job, is_wanted
from isocenter.verbs.training.inner_folds import inner_jobs, predicted_by_folds
from isocenter.verbs.training.more_networks import (
    NETWORKS,
    may_share,
    more_jobs,
    number_of_networks,
    stated_count,
    with_members,
    write_mean,
)
from isocenter.verbs.training.part import Part
from isocenter.verbs.training.run_end import Trained, evaluated
from isocenter.verbs.training.run_folder import RunFolder, minutes_decide, state_of
from isocenter.verbs.training.search import searched
from isocenter.verbs.training.time_budget import Afterwards, Costs, Shares, Stages, Turn, fitting_seconds, of_mean_size
from isocenter.verbs.training.tuning import predicted_by_mean, tuned


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """The models of all trainings, each for the cases that it has not seen.

    task:   scores them all, the same for every fold
    owners: {case id: model}
    """

    task: Task
    owners: Mapping[str, Model]

    @classmethod
    def of(cls, task: Task, jobs: Sequence[Job], models: Sequence[Model]) -> OutOfFold:
        """Each model with the test cases of its job."""
        return cls(task, {case.id: model for job, model in zip(jobs, models, strict=True) for case in job.test})

    @property
    def guard(self) -> Guard | None:
        """The gate where one model has seen none of them; of several each sees with other eyes."""
        first, *others = dict.fromkeys(self.owners.values())
        return None if others else first.guard

    def predict(self, subject: Case) -> Prediction:
        """Predict a case by the model that has not seen it."""
        return self.owners[subject.id].predict(subject)

    def model_of(self, case: str) -> Model:
        """The model that has not seen a case of this id."""
        return self.owners[case]


def trained(run: RunFolder, others: Mapping[Path, Sequence[Outcome]] = {}) -> Trained:
    """Search, train, tune and score: one training, or one a fold. What an earlier session has done is not done again.

    Beside a single training there may be inner folds, and beside each one its control. Where the set has its own test
    part the mean of the folds is scored on it, else each fold on its own cases.
    others: networks of another configuration, trained before, whose mean with its own is the model of each fold
    """
    stages = Stages(run.clock)
    stages.ended("reading and planning")
    jobs = [_searched(run, job) for job in jobs_of(run)]
    if jobs[0].settings.search.is_on:
        stages.ended("search")
    log = PlanLog(run.plan if run.made.folds else jobs[0].plan, run.write_plan)
    if log.plan is not run.plan:  # a search has found it
        run.write_plan(log.plan)
    wants_control = is_wanted(run, jobs[0].test)
    after = afterwards(run, jobs, 2 if wants_control else 1)
    total, outcomes = len(jobs) * (2 if wants_control else 1), list[Outcome]()
    split, count = jobs[0].settings.split, stated_count(log.plan)
    inner_share = total * split.inner_share / (1 - split.inner_share) if split.inner_folds else 0.0
    shares = Shares(total + inner_share + (count - 1) * (len(jobs) + inner_share))
    parts, costs = afforded(run, [Part.of(run, job) for job in jobs], after, shares.left, log)
    began, jobs = run.clock.seconds, [part.job for part in parts]
    most = 1 / shares.left
    for number, part in enumerate(parts):
        decided = partial(log_decisions, part.job.what) if run.made.folds else log
        turn = shares.turn(part.turn_began(run.clock))
        timed = None
        if after is not None:
            limit = partial(first_limit, after, part, None if number else costs)
            timed = Timed(after, turn, limit, may_share(run, part.job, after, costs))
        outcomes.append(fitted(run, part, decided, timed))
    further_trainings = _FurtherTrainings(run, after, shares, most)
    controls = []
    for job, outcome in zip(jobs, outcomes, strict=True) if wants_control else ():
        control = image_job(job, job.plan if run.made.folds else log.plan, run, timed=after is not None)
        controls.append(further_trainings.trained(control, job, outcome, 1.0))
    inner = inner_jobs(run, jobs[0], log.plan, timed=after is not None)
    unseen = [further_trainings.trained(own, jobs[0], outcomes[0], inner_share / len(inner)) for own in inner]
    further = {**others, **_more_networks(run, log, after, began, [(jobs[0], outcomes[0]), *unseen])}
    more = with_members([*zip(jobs, outcomes, strict=True), *unseen, *controls], further)
    stages.ended("training")
    return _evaluated(run, log.plan, jobs, outcomes, controls, unseen, more, stages)


def _more_networks(
    run: RunFolder, log: PlanLog, after: Afterwards | None, began: float, trainings: Sequence[tuple[Job, Outcome]]
) -> More:
    """Outcomes of further networks, for a run's training and for each of its inner folds.

    began: s of the clock before the first of these trainings
    """
    if log.plan[NETWORKS] is None:
        log({NETWORKS: number_of_networks(run, log.plan, *trainings[0], after, began)})
    (main, _), count = trainings[0], int(log.plan[NETWORKS] or 1)
    if count == 1 or run.made.folds:
        return {}
    reached = dict[Path, list[Outcome]]()
    for job, own in trainings:
        decided = replace(job, plan=log.plan) if job is main else job
        for further in more_jobs(decided, own, count):
            reached.setdefault(job.out, []).append(
                fitted(run, Part(further, None), partial(log_decisions, further.what), None)
            )
    return reached


@dataclass(frozen=True, eq=False)
class _FurtherTrainings:
    """Trainings beside those of the model, none of which takes longer than one of these.

    most: of all time for training, the share of one of the model's
    """

    run: RunFolder
    after: Afterwards | None
    shares: Shares
    most: float

    def trained(self, job: Job, main: Job, outcome: Outcome, share: float) -> tuple[Job, Outcome]:
        """Train a job beside the one that came to this outcome; share: of the time of one of the model's trainings."""
        part, timed = Part(job, None), None
        turn = self.shares.turn(part.turn_began(self.run.clock), share, self.most)
        if self.after is not None:
            timed = Timed(self.after, turn, partial(_limit_of, self.after, main, outcome))
        return job, fitted(self.run, part, partial(log_decisions, job.what), timed)


def jobs_of(run: RunFolder) -> list[Job]:
    """The training of a run, or of each fold, whose statistics of images and references are of its training cases."""
    jobs = []
    for fold in run.folds:
        train, val, test, calibration = (run.cases(part, fold) for part in ("train", "val", "test", "calibration"))
        fingerprint = run.examination.fingerprint.only({case.id for case in train})
        record: dict[str, Any] = {
            "data_hash": run.plan.data_hash,
            "patients_known": run.dataset.patients_known,
            "fingerprint": {**fingerprint.summary, "references": references_counted(fingerprint)},
        }
        if run.plan.options.get(ALLOW_LARGE):  # its own cases are predicted, whatever their part
            record["fingerprint"]["largest"] = run.examination.fingerprint.largest
        out = run.folder(fold)
        job = Job(out, run.plan, train, val, record, start=run.start, test=test, calibration=calibration, fold=fold)
        if fold is not None:
            total = len(run.folds)
            job = replace(
                job,
                plan=of_fold(run.plan, run.made.of_fold(fold).plan),
                record={**record, "fold": fold, "folds": total},
                what=f"training fold {fold} ({fold + 1} of {total})",
            )
        jobs.append(job)
    return jobs


def _searched(run: RunFolder, job: Job) -> Job:
    """The job by what a search among its own training and validation cases has found."""
    if not job.settings.search.is_on:
        return job
    made = run.made if job.fold is None else run.made.of_fold(job.fold)
    inner = [replace(own, val=own.test) for own in inner_jobs(run, job, job.plan, timed=False)]
    result = searched(job, run.clock, made.room, folds=len(run.made.folds), inner=inner)
    return replace(job, plan=result.applied(job.plan))


@dataclass(frozen=True, eq=False)
class Timed:
    """How long a training may take: its turn, and by which second all training must end.

    limit:   measured before it starts
    several: further networks that may share its time; None where it has it all
    """

    after: Afterwards
    turn: Turn
    limit: Callable[[], float]
    several: Several | None = None


def first_limit(after: Afterwards, part: Part, costs: Costs | None) -> float:
    """s after the command's start by which training must end, by fresh weights."""
    return after.first_deadline(after.costs(part.fresh_model) if costs is None else costs)


def _limit_of(after: Afterwards, job: Job, outcome: Outcome) -> float:
    """The same, by weights that this job has trained."""
    return after.deadline(load(outcome.checkpoint, job.settings.training.device))


def fitted(
    run: RunFolder, part: Part, decided: Callable[[Mapping[str, Decision]], None], timed: Timed | None
) -> Outcome:
    """The next training, within its turn of the minutes; the plan's steps decide where there is none."""
    clock, recount, job, several = run.clock, None, part.job, None
    if timed is not None:
        several = timed.several
        deadline = state_of(job.out).get("deadline")
        deadline = timed.turn.deadline(timed.limit()) if deadline is None else deadline
        clock = replace(clock, deadline=deadline, turn=timed.turn.began)
        recount = partial(_recounted, part, timed)
    if part.stage is not None:
        job = replace(job, marked=part.stage.trained(clock))
    return fit(job, clock, decided, recount, several=several)


def _recounted(part: Part, timed: Timed, model: Model) -> float:
    """By which second a training must end, if this is its model half-way."""
    return timed.turn.deadline(timed.after.deadline(part.whole(model)))


def afterwards(run: RunFolder, jobs: Sequence[Job], trainings: int) -> Afterwards | None:
    """What follows all trainings within the minutes; None where the plan fixes the steps.

    trainings: of each part, 2 with a control
    """
    training = jobs[0].settings.training
    if training.minutes is None or not minutes_decide(training, jobs[0].out):
        return None
    spaced = jobs[0].settings.preprocessing.spacing is not None
    often, tested = max(1, len(Subsets.of(jobs[0].settings.preprocessing).wanted)), sum(len(job.test) for job in jobs)
    return Afterwards(
        training.minutes,
        of_mean_size([*jobs[0].val, *jobs[0].train], run.examination.fingerprint, spaced=spaced),
        trainings * sum(len(job.tuning) + len(job.calibrating) + len(job.unseen) for job in jobs)
        + predicted_by_folds(jobs[0])
        + trainings * predicted_by_mean(jobs),
        [*[(tested, 1)] * (often + trainings - 1), *[(len(run.own_test), len(jobs))] * often],
        *_looked_at(run, jobs),
        covariates_seconds(jobs) + fitting_seconds(jobs[0].settings.task, training.minutes, len(jobs)),
        (training.snapshots + training.swag) * stated_count(jobs[0].plan),
    )


def _looked_at(run: RunFolder, jobs: Sequence[Job]) -> tuple[int, Sequence[int]]:
    """How many cases that did not train the gates look at, of the first fold the unseen too; training cases of each."""
    if not jobs[0].settings.guard.gate:
        return 0, ()
    trained, others = zip(*(map(len, looked_at(run, job)) for job in jobs), strict=True)
    return sum(others) + len(jobs[0].test) * (len(jobs) > 1), trained


def _evaluated(
    run: RunFolder,
    plan: Plan,
    jobs: Sequence[Job],
    outcomes: Sequence[Outcome],
    controls: Sequence[tuple[Job, Outcome]],
    inner: Sequence[tuple[Job, Outcome]],
    more: More,
    stages: Stages,
) -> Trained:
    """Tune the models, and score each case by the one that has not seen it; the same of the controls."""
    common = settings(run.plan).task
    found = tuned(jobs, outcomes, common, inner, more)
    stages.ended("calibration and thresholds")
    models = guarded(run, jobs, outcomes, found)
    stages.ended("gate")
    facts = dict[str, str]()
    if more:
        each = [[outcome, *more.get(job.out, ())] for job, outcome in zip(jobs, outcomes, strict=True)]
        write_mean(run.out, each, replace(models.models[0], task=models.task))
        facts = {"networks": f"{sum(map(len, each))}, whose mean is the model"}
    plan = with_decisions(plan, models.decisions)
    plans = [job.plan for job in jobs]
    plan = (
        with_searches(with_reasons(plan, plans, outcomes), plans) if run.made.folds else with_outcome(plan, outcomes[0])
    )
    folds = folds_of(jobs, models.models)
    tested = {case.id for job in jobs for case in job.test}
    cases = [case for case in run.dataset if case.id in tested]
    parts: dict[str, Split] = dict.fromkeys(tested, "test")
    folder = OUT_OF_FOLD if run.own_test else EVALUATION
    scored = evaluated(run, OutOfFold.of(models.task, jobs, models.models), cases, parts, folder, folds)
    if controls:
        without = [job for job, _ in controls]
        own = tuned(without, [outcome for _, outcome in controls], common, more=more)
        crossed = OutOfFold.of(own.task, without, own.models)
        evaluated_control(run, crossed, cases, parts, folds_of(without, own.models))
    stages.ended("testing")
    if not run.made.folds or scored is None:
        return Trained(plan, scored, outcomes, facts, stages.seconds)
    primary, seed = str(plan["evaluation.primary"]), int(plan["training.seed"])
    facts = fold_facts(scored.table, [job.test for job in jobs], models.task, primary, seed)
    if run.own_test:
        overall = [row for row in scored.rows if row.metric == primary][:1]
        facts |= {f"{row_name(row, scored.metric_names)} out of fold": str(row.estimate) for row in overall}
        mean = load(run.out, jobs[0].settings.training.device)
        scored = evaluated(run, mean, run.own_test, dict(run.dataset.splits))
        stages.ended("testing")
    return Trained(plan, scored, outcomes, facts, stages.seconds)


def folds_of(jobs: Sequence[Job], models: Sequence[Model]) -> dict[str, Fold]:
    """{case id: the fold that scores it}, where there are several."""
    return {
        case.id: Fold(job.fold, model.task)
        for job, model in zip(jobs, models, strict=True)
        for case in job.test
        if job.fold is not None
    }


def fold_facts(table: Table, folds: Sequence[Sequence[Case]], task: Task, primary: str, seed: int) -> dict[str, str]:
    """The primary metric of each fold's cases, and how far the folds lie apart."""
    named, values = metric_name(primary, task.traits.metric_names), list[float]()
    for cases in folds:
        ids = {case.id for case in cases}
        rows = task.scoring.summary(table[table["case"].isin(ids)], seed=seed)
        values.append(next((row.estimate.value for row in rows if row.metric == primary), float("nan")))
    facts = {f"{named}, fold {fold}": f"{value:.4f}" for fold, value in enumerate(values)}
    known = np.array([value for value in values if np.isfinite(value)])
    if len(known) > 1:
        spread = f"mean {known.mean():.4f}, SD {known.std(ddof=1):.4f}, {known.min():.4f} to {known.max():.4f}"
        facts[f"{named} over folds"] = spread
    return facts

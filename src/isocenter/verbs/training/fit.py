"""One training of a run: its cases prepared, followed step by step, and what validation cases decide afterwards."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from isocenter.evaluation import groups_of
from isocenter.planning import CACHED_SHARE, Settings, Training, settings
from isocenter.report import metric_name
from isocenter.runtime import (
    WEIGHTS,
    Context,
    Model,
    available_memory,
    averaged_model,
    choose_device,
    environment,
    load,
    on_device,
    with_uncertainty,
)
from isocenter.tasks import Task
from isocenter.training import (
    Clock,
    Decided,
    Moment,
    Outcome,
    Prepared,
    Ranks,
    Recount,
    Several,
    finished,
    length_of,
    prepare_all,
    with_task,
)
from isocenter.training import train as follow
from isocenter.values import BY_HAND, Case, Decision, Plan, Prediction, Split
from isocenter.verbs.evaluation import write_task
from isocenter.verbs.reading import ReadingOptions, tracked, watched
from isocenter.verbs.training.decisions import with_decisions

log = logging.getLogger("isocenter")
# Cases of a fold whose label maps say how wide intervals of volumes are, at most.
MOST_CROSSING = 30
# {folder of a training: what further networks of other seeds came to, whose mean with its own is its model}
More = Mapping[Path, Sequence[Outcome]]


@dataclass(frozen=True, eq=False)
class Job:
    """One training: a whole run, a fold of it, a stage of a cascade, a control or a trial of a search.

    out:    where its log and its checkpoints are written
    record: goes into the model: data hash, versions
    what:   its name while it runs
    start:  weights of another model to start from
    marked: {case id: file with the labels of the first stage of a cascade}; None without a first stage
    test:   cases that it never sees
    calibration: cases that it never sees, and that choose nothing: guarantees come from them
    fold:   its number; None where the run has one training
    """

    out: Path
    plan: Plan
    train: Sequence[Case]
    val: Sequence[Case]
    record: Mapping[str, Any]
    what: str = "training"
    start: Path | None = None
    marked: Mapping[str, Path] | None = None
    test: Sequence[Case] = ()
    calibration: Sequence[Case] = ()
    fold: int | None = None

    @cached_property  # to check them is to build the network, though without memory
    def settings(self) -> Settings:
        """The settings that its plan decides."""
        return settings(self.plan)

    @property
    def shrinks(self) -> bool:
        """Whether a batch may become smaller where there is time for few steps: no clock changes what was asked for."""
        return self.plan.decision("training.batch").because != BY_HAND and not self.plan["training.deterministic"]

    @property
    def tuning(self) -> Sequence[Case]:
        """The cases whose predictions decide what the task leaves open until then."""
        parts: Mapping[Split, Sequence[Case]] = {"train": self.train, "val": self.val}
        return next((parts[name] for name in self.settings.task.traits.tuned_on if parts[name]), ())

    @property
    def calibrating(self) -> Sequence[Case]:
        """The cases that set what is promised, of a task that promises anything."""
        return self.calibration if self.settings.task.scoring.assured is not None else ()

    @property
    def crossing(self) -> Sequence[Case]:
        """Of a fold the cases that it has not seen, by which sets of the mean of all folds are promised."""
        task = self.settings.task
        if self.fold is None or task.scoring.crossed is None:
            return ()
        # Label maps take their time: so many of each fold, from all over it, are enough.
        is_dense = any(head.is_dense for head in task.heads.values())
        return self.test[:: -(-len(self.test) // MOST_CROSSING) or 1] if is_dense else self.test

    def deciding(self, decisions: Mapping[str, Decision]) -> Job:
        """The same training with these decisions in its plan."""
        return replace(self, plan=with_decisions(self.plan, decisions))

    def prepared(self) -> tuple[list[Prepared], list[Prepared]]:
        """Its training and its validation cases as the network sees them."""
        reading = ReadingOptions.of_plan(self.plan.options)
        cases = prepared([*self.train, *self.val], self.settings, reading, self.marked)
        return in_groups(cases[: len(self.train)], self.train, self.settings.training), cases[len(self.train) :]


def fit(
    job: Job,
    clock: Clock,
    decided: Decided,
    recount: Recount | None = None,
    look: Callable[[Moment], None] = lambda moment: None,
    several: Several | None = None,
) -> Outcome:
    """Prepare the cases and train; goes on from the last checkpoint where there is one.

    decided: takes what a probe, or the speed that was measured since, decided: steps, validations, how to compute
    recount: returns half-way the second by which training must end; None where the steps are fixed
    look:    takes every moment; what it raises ends the training
    several: further networks that may share the time; None where the training has it all
    """
    chosen, ranks = job.settings, Ranks.here()
    choose_device(chosen.training.device)  # refuses one that this machine lacks
    if (outcome := finished(job.out, chosen)) is not None:
        return outcome
    ranks.part(chosen.training.batch)  # refused before the cases are prepared
    train, val = job.prepared()
    if chosen.training.steps is not None and clock.deadline is None:
        log.info("%s for %d steps, as the plan says: the minutes do not count", job.what, chosen.training.steps)
    ranks.agreed(Errand(job, clock))
    with watched(job.what, metric_name(chosen.training.selection, chosen.task.traits.metric_names)) as shown:

        def watch(moment: Moment) -> None:
            shown(moment)
            look(moment)

        return follow(
            chosen,
            train,
            val,
            job.out,
            length=length_of(
                chosen.training, clock, decided=decided, recount=recount, shrinks=job.shrinks, several=several
            ),
            record={**job.record, "primary": job.plan["evaluation.primary"], "environment": environment()},
            start=job.start,
            watch=watch,
        )


@dataclass(frozen=True, eq=False)
class Errand:
    """What the first of several processes asks the others to train along with it."""

    job: Job
    clock: Clock


def learn_along(ranks: Ranks) -> Any:
    """Take part in every training that the first process starts; returns what that process comes to in the end."""
    while isinstance(asked := ranks.agreed(None), Errand):
        train, val = asked.job.prepared()
        follow(
            asked.job.settings,
            train,
            val,
            asked.job.out,
            length=length_of(asked.job.settings.training, asked.clock, shrinks=asked.job.shrinks),
            record={},
            start=asked.job.start,
        )
    return asked


def prepared(
    cases: Sequence[Case], chosen: Settings, reading: ReadingOptions, marked: Mapping[str, Path] | None = None
) -> list[Prepared]:
    """The cases as the network sees them.

    marked: as in `Job`
    """
    with tracked("preparing cases") as tracker:
        return prepare_all(
            cases,
            chosen.preprocessing,
            chosen.task,
            reading=reading.of_voxels,
            context=Context.of(chosen.network.context),
            marked=marked,
            threads=chosen.training.threads,
            memory=int(CACHED_SHARE * available_memory() / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))),
            progress=tracker,
        )


def in_groups(made: Sequence[Prepared], cases: Sequence[Case], chosen: Training) -> list[Prepared]:
    """Training cases with the group of people that each is of, where training looks at groups."""
    if chosen.fairness == "none" or chosen.protected is None:
        return list(made)
    names = dict.fromkeys(name for case in cases for name in case.covariates)
    covariates = {name: [case.covariates.get(name) for case in cases] for name in names}
    [groups] = groups_of(covariates, chosen.protected).values()
    return [replace(one, group=str(group)) for one, group in zip(made, groups, strict=True)]


def predicted(model: Model, task: Task, cases: Sequence[Case]) -> list[Prediction]:
    """Cases as the model would predict them with this task."""
    untuned = replace(model, task=task)
    predictions = []
    with tracked("predicting cases that decide") as tracker:
        for done, case in enumerate(cases, start=1):
            predictions.append(untuned.predict(case))
            tracker(done, len(cases))
    return predictions


def tuned(
    jobs: Sequence[Job],
    outcomes: Sequence[Outcome],
    task: Task,
    inner: Sequence[tuple[Job, Outcome]] = (),
    more: Mapping[Path, Sequence[Outcome]] = {},
) -> Tuned:
    """Decide what the task leaves open: for each training by its own cases, so that no test case has a say.

    task:  of the run, which several trainings have in common: all their cases decide for their mean
    inner: trainings beside a single one, each of which adds predictions of the cases that it has not seen
    more:  further networks of each training, inner ones too
    The common task goes into every checkpoint, because the trainings are one model; a fold's own lies beside them.
    """
    predictions, cases, models = list[Prediction](), list[Case](), list[Model]()
    decisions: Mapping[str, Decision] = {}
    for job, outcome in zip(jobs, outcomes, strict=True):
        model = model_of(job, outcome, more)
        if job.tuning:
            own, of_whom = predicted(model, job.settings.task, job.tuning), list(job.tuning)
            for other, reached in inner:
                own += predicted(model_of(other, reached, more), job.settings.task, other.test)
                of_whom += other.test
            decided, decisions = job.settings.task.tuned(own, of_whom)
            decisions = {name: _with_inner(decision, job, inner) for name, decision in decisions.items()}
            held = predicted(model, decided, job.calibrating) if job.calibrating else own
            if job.calibrating or job.val:  # cases that trained promise nothing
                decided, promised = assured(decided, held, job.calibrating or of_whom, exact=bool(job.calibrating))
                decisions |= promised
            model, predictions, cases = replace(model, task=decided), [*predictions, *own], [*cases, *of_whom]
            if job.fold is not None:
                write_task(decided, job.out)
        models.append(model)
    common = models[0].task
    if len(jobs) > 1:
        common, decisions = task.tuned(predictions, cases) if cases else (task, {})
        common, promised = assured(common, predictions, cases, exact=False)
        common, of_mean = (common, {}) if more else crossed(task, common, jobs, models)
        decisions = {**decisions, **promised, **of_mean}
    for job in jobs if cases else ():
        for name in ("best", "last"):
            if (job.out / "checkpoints" / name).is_dir():
                with_task(job.out / "checkpoints" / name, common)
    return Tuned(models, common, decisions)


def model_of(job: Job, outcome: Outcome, more: More) -> Model:
    """The model that a training came to: its network, or the mean of its networks."""
    checkpoints = [outcome.checkpoint, *(one.checkpoint for one in more.get(job.out, ()))]
    device = job.settings.training.device
    if len(checkpoints) == 1:
        return load(outcome.checkpoint, device)
    networks = [load(one, "cpu") for one in checkpoints]
    mean = averaged_model(networks, networks[0].task, networks[0].inference)
    return with_uncertainty(on_device(mean, [one / WEIGHTS for one in checkpoints], device))


def assured(
    task: Task, predictions: Sequence[Prediction], cases: Sequence[Case], *, exact: bool
) -> tuple[Task, Mapping[str, Decision]]:
    """The task with thresholds of sets or intervals, where it states any; exact: as in `Assured`"""
    state = task.scoring.assured
    return (task, {}) if state is None or not cases else state(predictions, cases, exact=exact)


def crossed(
    task: Task, common: Task, jobs: Sequence[Job], models: Sequence[Model]
) -> tuple[Task, Mapping[str, Decision]]:
    """The task of the mean of folds with sets or intervals by what each fold says of cases that it has not seen.

    task: before anything was decided
    """
    asked = [(predicted(model, task, job.crossing), job.crossing) for job, model in zip(jobs, models, strict=True)]
    if common.scoring.crossed is None or not all(cases for _, cases in asked):
        return common, {}
    folds = [number for number, (_, cases) in enumerate(asked) for _ in cases]
    predictions = [one for own, _ in asked for one in own]
    return common.scoring.crossed(predictions, [case for _, cases in asked for case in cases], folds)


def _with_inner(decision: Decision, job: Job, inner: Sequence[tuple[Job, Outcome]]) -> Decision:
    """A decision with what was predicted by whom, where there are inner folds."""
    if not inner:
        return decision
    parts = f"{len(job.tuning)} validation cases, and {len(job.train)} training cases predicted by"
    return replace(decision, because=f"{decision.because}; {parts} {len(inner)} networks that had not seen them")


@dataclass(frozen=True, eq=False)
class Tuned:
    """The models of all trainings, each tuned by its own cases, and the task that they have in common.

    decisions: {decision: value} of the common task
    """

    models: Sequence[Model]
    task: Task
    decisions: Mapping[str, Decision]

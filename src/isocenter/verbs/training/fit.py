"""One training of a run: its cases prepared, followed step by step, and what validation cases decide afterwards."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from isocenter.planning import CACHED_SHARE, Settings, settings
from isocenter.runtime import Context, Model, available_memory, choose_device, environment, load
from isocenter.tasks import Task, tuned_on
from isocenter.training import (
    Clock,
    Decided,
    Moment,
    Outcome,
    Prepared,
    Ranks,
    Recount,
    finished,
    length_of,
    prepare_all,
    with_task,
)
from isocenter.training import train as follow
from isocenter.values import BY_HAND, Case, Decision, Plan, Prediction
from isocenter.verbs.reading import VOXELS, tracked, watched

log = logging.getLogger("isocenter")


@dataclass(frozen=True, eq=False)
class Job:
    """One training.

    out:    where its log and its checkpoints are written
    record: goes into the model: data hash, versions
    what:   how it is called while it runs
    start:  weights to begin from, of another model
    marked: {case id: file of what a network before marked in it}; None where the network sees images alone
    """

    out: Path
    plan: Plan
    train: Sequence[Case]
    val: Sequence[Case]
    record: Mapping[str, Any]
    what: str = "training"
    start: Path | None = None
    marked: Mapping[str, Path] | None = None

    @cached_property  # to check them is to build the network, though without memory
    def settings(self) -> Settings:
        return settings(self.plan)

    @property
    def shrinks(self) -> bool:
        """Whether a batch may become smaller where there is time for few steps: no clock changes what was asked for."""
        return self.plan.decision("training.batch").because != BY_HAND and not self.plan["training.deterministic"]

    @property
    def tuning(self) -> Sequence[Case]:
        """Of whom the predictions decide what the task leaves open until then."""
        return self.train if tuned_on(self.settings.task) == "train" else self.val


def fit(
    job: Job,
    clock: Clock,
    decided: Decided,
    recount: Recount | None = None,
    look: Callable[[Moment], None] = lambda moment: None,
) -> Outcome:
    """Prepare the cases and train; goes on from the last checkpoint where there is one.

    decided: is told what a probe found, or the speed that was measured since: steps, validations, how to compute
    recount: is asked half-way by which second training must end; None where the steps are fixed
    look:    is shown every moment; what it raises ends the training
    """
    chosen, ranks = job.settings, Ranks.here()
    choose_device(chosen.training.device)  # refuses one that this machine lacks
    if (outcome := finished(job.out, chosen.training)) is not None:
        return outcome
    ranks.part(chosen.training.batch)  # refused before the cases are prepared
    ready = prepared([*job.train, *job.val], chosen, job.plan.options, job.marked)
    if chosen.training.steps is not None and clock.deadline is None:
        log.info("%s for %d steps, as the plan says: the minutes do not count", job.what, chosen.training.steps)
    ranks.agreed(Errand(job, clock))
    with watched(job.what, chosen.training.selection) as shown:

        def watch(moment: Moment) -> None:
            shown(moment)
            look(moment)

        return follow(
            chosen,
            ready[: len(job.train)],
            ready[len(job.train) :],
            job.out,
            length=length_of(chosen.training, clock, decided=decided, recount=recount, shrinks=job.shrinks),
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
    """Take part in every training that the first process begins; returns what that one comes to in the end."""
    while isinstance(asked := ranks.agreed(None), Errand):
        chosen, count = asked.job.settings, len(asked.job.train)
        ready = prepared([*asked.job.train, *asked.job.val], chosen, asked.job.plan.options, asked.job.marked)
        follow(
            chosen,
            ready[:count],
            ready[count:],
            asked.job.out,
            length=length_of(chosen.training, asked.clock, shrinks=asked.job.shrinks),
            record={},
            start=asked.job.start,
        )
    return asked


def prepared(
    cases: Sequence[Case], chosen: Settings, options: Mapping[str, Any], marked: Mapping[str, Path] | None = None
) -> list[Prepared]:
    """The cases as the network sees them."""
    with tracked("preparing cases") as tracker:
        return prepare_all(
            cases,
            chosen.preprocessing,
            chosen.task,
            reading={key: options[key] for key in VOXELS if options.get(key)},
            context=Context.of(chosen.network.context),
            marked=marked,
            threads=chosen.training.threads,
            memory=int(CACHED_SHARE * available_memory() / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))),
            progress=tracker,
        )


def with_decided(plan: Plan, decisions: Mapping[str, Decision]) -> Plan:
    """The plan with what a probe, or the speed that was measured since, decided."""
    for name, decision in decisions.items():
        plan = plan.with_decision(name, decision)
    return plan


def say_decided(what: str, decisions: Mapping[str, Decision]) -> None:
    """What was decided, in the log."""
    if (way := decisions.get("training.compute")) is not None:
        log.info("%s is computed %s: %s", what, way.value, way.because)
    if (batch := decisions.get("training.batch")) is not None:
        log.info("%s in steps of %d: %s", what, batch.value, batch.because)
    if (flips := decisions.get("inference.flips")) is not None:
        log.info("%s: no window is seen mirrored: %s", what, flips.because)
    if (steps := decisions.get("training.steps")) is not None:
        log.info("%s for %s steps: %s", what, steps.value, steps.because)


def with_outcome(plan: Plan, outcome: Outcome) -> Plan:
    """The plan with why training ended early, if it did."""
    if not outcome.stopped:
        return plan
    return plan.with_decision("training.early_stop", Decision(plan["training.early_stop"], outcome.stopped))


def predicted(model: Model, task: Task, cases: Sequence[Case]) -> list[Prediction]:
    """Cases as the model would predict them with this task."""
    untuned = replace(model, task=task)
    found = []
    with tracked("predicting cases that decide") as tracker:
        for done, case in enumerate(cases, start=1):
            found.append(untuned.predict(case))
            tracker(done, len(cases))
    return found


def tuned(job: Job, outcome: Outcome) -> tuple[Model, Mapping[str, Decision]]:
    """The model, what its task leaves open decided by its own predictions and kept, and what was decided."""
    model = load(outcome.checkpoint, job.settings.training.device)
    if not job.tuning:
        return model, {}
    task, decisions = model.task.tuned(predicted(model, job.settings.task, job.tuning), job.tuning)
    keep_task([job.out], task)
    return replace(model, task=task), decisions


def keep_task(folders: Sequence[Path], task: Task) -> None:
    """The task that was tuned goes into every checkpoint of these trainings."""
    for folder in folders:
        for name in ("best", "last"):
            if (folder / "checkpoints" / name).is_dir():
                with_task(folder / "checkpoints" / name, task)

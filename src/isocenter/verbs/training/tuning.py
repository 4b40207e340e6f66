"""Settings found once training has ended, by cases that it does not test: thresholds, calibration, post-processing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from isocenter.errors import counted
from isocenter.runs import evenly
from isocenter.runtime import WEIGHTS, Model, averaged_model, load, on_device, with_uncertainty
from isocenter.tasks import Task, tuned_by
from isocenter.training import Outcome, with_task
from isocenter.values import Case, Decision, Prediction
from isocenter.verbs.evaluation.scoring import write_task
from isocenter.verbs.reading.progress import tracked
from isocenter.verbs.training.fit import Job, More

# Cases whose label maps decide for a fold, of all others together: to fit functions of voxels takes its time.
MOST_DECIDING = 40


def predicted(model: Model, task: Task, cases: Sequence[Case]) -> list[Prediction]:
    """Cases as the model would predict them with this task."""
    untuned = replace(model, task=task)
    predictions = []
    with tracked("predicting cases for calibration and thresholds") as tracker:
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
    """Decide what the task leaves open: for each training by cases that it does not test.

    task:  of the run, which several trainings have in common: all their cases decide for their mean
    inner: trainings beside a single one, each of which adds predictions of the cases that it has not seen
    more:  further networks of each training, inner ones too
    The common task goes into every checkpoint, because the trainings are one model; a fold's own lies beside them.
    """
    models = [model_of(job, outcome, more) for job, outcome in zip(jobs, outcomes, strict=True)]
    is_crossed = all(job.is_crossed for job in jobs)
    # Of folds with several networks nothing is promised by fold: where they are not crossed either, nobody asks.
    asked = [job.unseen if is_crossed or not more else () for job in jobs]
    unseen = [
        Evidence(predicted(model, job.settings.task, cases), cases)
        for job, model, cases in zip(jobs, models, asked, strict=True)
    ]
    if is_crossed:
        most = -(-MOST_DECIDING // max(1, len(jobs) - 1))
        deciding = [one.some(most) if job.is_dense else one for job, one in zip(jobs, unseen, strict=True)]
        each = [joined([*deciding[:place], *deciding[place + 1 :]]) for place in range(len(jobs))]
        everything = joined(deciding)
    else:
        each = [_own(job, model, inner, more) for job, model in zip(jobs, models, strict=True)]
        everything = joined(_on_zero_of_mean(jobs, outcomes, task, each, more))
    decisions: Mapping[str, Decision] = {}
    for place, (job, evidence) in enumerate(zip(jobs, each, strict=True)):
        if evidence.cases:
            decided, decisions = _tuned_by(job, models[place], evidence, inner)
            models[place] = replace(models[place], task=decided)
            if job.fold is not None:
                write_task(decided, job.out)
    common = models[0].task
    if len(jobs) > 1:
        common, decisions = task.tuned(*everything) if everything.cases else (task, {})
        if is_crossed:
            decisions = {name: _with_unseen(decision, everything) for name, decision in decisions.items()}
        common, promised = assured(common, *everything, exact=False)
        common, of_mean = (common, {}) if more else crossed(common, unseen)
        decisions = {**decisions, **promised, **of_mean}
    for job in jobs if everything.cases else ():
        for name in ("best", "last"):
            if (job.out / "checkpoints" / name).is_dir():
                with_task(job.out / "checkpoints" / name, common)
    return Tuned(models, common, decisions)


class Evidence(NamedTuple):
    """Cases with what was predicted of them, in the same order, before anything was decided."""

    predictions: Sequence[Prediction]
    cases: Sequence[Case]

    def some(self, most: int) -> Evidence:
        """So many of them at most, from all over."""
        return Evidence(evenly(self.predictions, most), evenly(self.cases, most))


def joined(each: Sequence[Evidence]) -> Evidence:
    """All of them as one."""
    predictions = [prediction for one in each for prediction in one.predictions]
    return Evidence(predictions, [case for one in each for case in one.cases])


def _own(job: Job, model: Model, inner: Sequence[tuple[Job, Outcome]], more: More) -> Evidence:
    """The cases that decide for a training by itself, and those of the trainings beside it."""
    if not job.tuning:
        return Evidence((), ())
    task = job.settings.task
    own, align = Evidence(predicted(model, task, job.tuning), job.tuning), task.scoring.aligned
    each = [own]
    for other, reached in inner:
        network = model_of(other, reached, more)
        unseen = predicted(network, task, other.test)
        if align is not None:
            unseen = align(unseen, predicted(network, task, own.cases), own.predictions)
        each.append(Evidence(unseen, other.test))
    return joined(each)


def _on_zero_of_mean(
    jobs: Sequence[Job], outcomes: Sequence[Outcome], task: Task, each: Sequence[Evidence], more: More
) -> Sequence[Evidence]:
    """What each fold says of its own cases with the zero of the mean of all, of a task whose networks have none.

    Else the zeros of the folds, which mean nothing, would count as differences between cases.
    """
    align = task.scoring.aligned
    if len(jobs) < 2 or align is None:
        return each
    checkpoints = [one for pair in zip(jobs, outcomes, strict=True) for one in _checkpoints(*pair, more)]
    mean = _mean_of(checkpoints, jobs[0].settings.training.device)
    means = [predicted(mean, task, one.cases) for one in each]
    pairs = zip(each, means, strict=True)
    return [Evidence(align(own.predictions, own.predictions, ours), own.cases) for own, ours in pairs if own.cases]


def predicted_by_mean(jobs: Sequence[Job]) -> int:
    """How many predictions by a single network it takes to bring folds to the zero of their mean."""
    aligned = len(jobs) > 1 and jobs[0].settings.task.scoring.aligned is not None
    return len(jobs) * sum(len(job.tuning) for job in jobs) if aligned else 0


def _tuned_by(
    job: Job, model: Model, evidence: Evidence, inner: Sequence[tuple[Job, Outcome]]
) -> tuple[Task, dict[str, Decision]]:
    """The task of a training as the evidence decides it, and what it promises."""
    few = evidence.some(max(MOST_DECIDING, len(job.tuning))) if inner and job.is_dense else evidence
    decided, made = tuned_by(job.settings.task, job.tuned_on, *few)
    decisions = {name: _with_inner(decision, job, inner) for name, decision in made.items()}
    promised: Mapping[str, Decision] = {}
    if job.calibrating:
        held = predicted(model, decided, job.calibrating)
        decided, promised = assured(decided, held, job.calibrating, exact=True)
    elif job.is_crossed or job.val:  # cases that trained promise nothing
        decided, promised = assured(decided, *evidence, exact=False)
    return decided, {**decisions, **promised}


def model_of(job: Job, outcome: Outcome, more: More) -> Model:
    """The model that a training came to: its network, or the mean of its networks."""
    return _mean_of(_checkpoints(job, outcome, more), job.settings.training.device)


def _checkpoints(job: Job, outcome: Outcome, more: More) -> list[Path]:
    return [outcome.checkpoint, *(one.checkpoint for one in more.get(job.out, ()))]


def _mean_of(checkpoints: Sequence[Path], device: str) -> Model:
    if len(checkpoints) == 1:
        return load(checkpoints[0], device)
    networks = [load(one, "cpu") for one in checkpoints]
    mean = averaged_model(networks, networks[0].task, networks[0].inference)
    return with_uncertainty(on_device(mean, [one / WEIGHTS for one in checkpoints], device))


def assured(
    task: Task, predictions: Sequence[Prediction], cases: Sequence[Case], *, exact: bool
) -> tuple[Task, Mapping[str, Decision]]:
    """The task with thresholds of sets or intervals, where it states any; exact: as in `Assured`"""
    state = task.scoring.assured
    return (task, {}) if state is None or not cases else state(predictions, cases, exact=exact)


def crossed(common: Task, unseen: Sequence[Evidence]) -> tuple[Task, Mapping[str, Decision]]:
    """The task of the mean of folds with sets or intervals by what each fold says of cases that it has not seen."""
    if common.scoring.crossed is None or not all(one.cases for one in unseen):
        return common, {}
    folds = [number for number, one in enumerate(unseen) for _ in one.cases]
    return common.scoring.crossed(*joined(unseen), folds)


def _with_unseen(decision: Decision, everything: Evidence) -> Decision:
    """A decision for the mean of crossed folds with what was predicted by whom."""
    cases = counted(len(everything.cases), "case")
    return replace(decision, because=f"{decision.because}; of {cases}, each predicted by the fold that has not seen it")


def _with_inner(decision: Decision, job: Job, inner: Sequence[tuple[Job, Outcome]]) -> Decision:
    """A decision with what was predicted by whom, where there are inner folds."""
    if not inner:
        return decision
    unseen = sum(len(other.test) for other, _ in inner)
    parts = f"{len(job.tuning)} validation cases, and {unseen} training cases predicted by"
    return replace(decision, because=f"{decision.because}; {parts} {len(inner)} networks that had not seen them")


@dataclass(frozen=True, eq=False)
class Tuned:
    """The models of all trainings, each tuned by cases that it does not test, and the task that they have in common.

    decisions: {decision: value} of the common task
    """

    models: Sequence[Model]
    task: Task
    decisions: Mapping[str, Decision]

"""Settings found once training has ended, by cases that it does not test: thresholds, calibration, post-processing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isocenter.errors import counted
from isocenter.report import tracked
from isocenter.runs import evenly
from isocenter.runs.fit import Job, More
from isocenter.runtime import WEIGHTS, Model, averaged_model, load, on_device, with_uncertainty
from isocenter.scoring import write_task
from isocenter.tasks import Evidence, Task, aligned, fitted, needs_alignment
from isocenter.training import Outcome, with_task
from isocenter.values import Case, Decision, Prediction

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
    # Of folds with several networks sets go by their mean: where they are not crossed either, nobody asks each fold.
    asked = [job.unseen if is_crossed or not more else () for job in jobs]
    unseen = [
        Evidence(predicted(model, job.settings.task, cases), cases)
        for job, model, cases in zip(jobs, models, asked, strict=True)
    ]
    if is_crossed:
        most = -(-MOST_DECIDING // max(1, len(jobs) - 1))
        deciding = [some_of(one, most) if job.is_dense else one for job, one in zip(jobs, unseen, strict=True)]
        each = [Evidence.joined([*deciding[:place], *deciding[place + 1 :]]) for place in range(len(jobs))]
        everything = Evidence.joined(deciding)
    else:
        each = [_own(job, model, inner, more) for job, model in zip(jobs, models, strict=True)]
        everything = Evidence.joined(_on_zero_of_mean(jobs, outcomes, task, each, more))
    decisions: Mapping[str, Decision] = {}
    for place, (job, evidence) in enumerate(zip(jobs, each, strict=True)):
        if evidence.cases:
            decided, decisions = _fitted(job, models[place], evidence, inner)
            models[place] = replace(models[place], task=decided)
            if job.fold is not None:
                write_task(decided, job.out)
    common = models[0].task
    if len(jobs) > 1:
        by_fold = Evidence.joined(unseen) if not more and all(one.cases for one in unseen) else None
        because = _by_unseen_fold(everything) if is_crossed else ""
        common, decisions = fitted(task, everything, because=because, by_fold=by_fold)
    for job in jobs if everything.cases else ():
        for name in ("best", "last"):
            if (job.out / "checkpoints" / name).is_dir():
                with_task(job.out / "checkpoints" / name, common)
    return Tuned(models, common, decisions)


def some_of(evidence: Evidence, most: int) -> Evidence:
    """So many cases of the evidence at most, from all over."""
    return Evidence(evenly(evidence.predictions, most), evenly(evidence.cases, most))


def _own(job: Job, model: Model, inner: Sequence[tuple[Job, Outcome]], more: More) -> Evidence:
    """The cases that decide for a training by itself, and those of the trainings beside it."""
    if not job.tuning:
        return Evidence()
    task = job.settings.task
    own = Evidence(predicted(model, task, job.tuning), job.tuning)
    each = [own]
    for other, reached in inner:
        network = model_of(other, reached, more)
        unseen = predicted(network, task, other.test)
        if needs_alignment(task):
            unseen = aligned(task, unseen, predicted(network, task, own.cases), own.predictions)
        each.append(Evidence(unseen, other.test))
    return Evidence.joined(each)


def _on_zero_of_mean(
    jobs: Sequence[Job], outcomes: Sequence[Outcome], task: Task, each: Sequence[Evidence], more: More
) -> Sequence[Evidence]:
    """What each fold says of its own cases with the zero of the mean of all, of a task whose networks have none.

    Else the zeros of the folds, which mean nothing, would count as differences between cases.
    """
    if len(jobs) < 2 or not needs_alignment(task):
        return each
    checkpoints = [one for pair in zip(jobs, outcomes, strict=True) for one in _checkpoints(*pair, more)]
    mean = _mean_of(checkpoints, jobs[0].settings.training.device)
    means = [predicted(mean, task, one.cases) for one in each]
    pairs = zip(each, means, strict=True)
    return [
        Evidence(aligned(task, own.predictions, own.predictions, ours), own.cases) for own, ours in pairs if own.cases
    ]


def predicted_by_mean(jobs: Sequence[Job]) -> int:
    """How many predictions by a single network it takes to bring folds to the zero of their mean."""
    aligns = len(jobs) > 1 and needs_alignment(jobs[0].settings.task)
    return len(jobs) * sum(len(job.tuning) for job in jobs) if aligns else 0


def _fitted(
    job: Job, model: Model, evidence: Evidence, inner: Sequence[tuple[Job, Outcome]]
) -> tuple[Task, dict[str, Decision]]:
    """The task of a training as the evidence decides it, with sets by calibration cases where there are any."""

    def held(task: Task) -> Evidence:
        """Cases that decide nothing else, by the task so far."""
        return Evidence(predicted(model, task, job.calibration), job.calibration)

    few = some_of(evidence, max(MOST_DECIDING, len(job.tuning))) if inner and job.is_dense else evidence
    others = evidence if job.origin == "unseen" else None
    how: Mapping[str, Any] = {"because": _by_inner_folds(job, inner), "conformal": held if job.calibration else others}
    return fitted(job.settings.task, few, origin=job.origin, **how)


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


def _by_unseen_fold(everything: Evidence) -> str:
    """End of a reason: which fold predicted the cases that decide for the mean of crossed folds."""
    cases = counted(len(everything.cases), "case")
    return f"; of {cases}, each predicted by the fold that has not seen it"


def _by_inner_folds(job: Job, inner: Sequence[tuple[Job, Outcome]]) -> str:
    """End of a reason: which networks predicted the cases; empty where there are no inner folds."""
    if not inner:
        return ""
    unseen = sum(len(other.test) for other, _ in inner)
    parts = f"{len(job.tuning)} validation cases, and {unseen} training cases predicted by"
    return f"; {parts} {len(inner)} networks that had not seen them"


@dataclass(frozen=True, eq=False)
class Tuned:
    """The models of all trainings, each tuned by cases that it does not test, and the task that they have in common.

    decisions: {decision: value} of the common task
    """

    models: Sequence[Model]
    task: Task
    decisions: Mapping[str, Decision]

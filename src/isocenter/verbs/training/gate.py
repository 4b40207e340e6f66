"""The gate of each training, and the posterior of its last layer, from what its model sees of its own cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from isocenter.evaluation import least_sureness
from isocenter.runtime import (
    MOST_TRAINED,
    Answering,
    Model,
    Observation,
    fitted_guard,
    last_layers_of,
    observed,
    tail_note,
    with_guard,
    with_uncertainty,
)
from isocenter.tasks import Task, sureness
from isocenter.training import Outcome, with_parts
from isocenter.values import Case, Decision, Prediction
from isocenter.verbs.evaluation import case_errors
from isocenter.verbs.reading import tracked
from isocenter.verbs.training.fit import Job, Tuned
from isocenter.verbs.training.run_folder import RunFolder

GATE, ERROR = "guard.gate", "guard.error"
NO_GATE = "too few cases did not train: no image is refused"


def guarded(run: RunFolder, jobs: Sequence[Job], outcomes: Sequence[Outcome], tuned: Tuned) -> Tuned:
    """The models with the gates of their own cases, which lie in their checkpoints too."""
    wanted = jobs[0].settings.guard
    if not (wanted.gate or wanted.error):
        return tuned
    models = [_guarded(run, job, model) for job, model in zip(jobs, tuned.models, strict=True)]
    for outcome, model in zip(outcomes, models, strict=True):
        with_parts(outcome.checkpoint, model)
    decisions, first = dict(tuned.decisions), models[0].guard
    if wanted.gate:
        decisions[GATE] = Decision(True, NO_GATE if first is None else tail_note(first))
    if wanted.error:
        answers = None if first is None else first.answers
        because = NO_GATE if first is None or answers is None else answers.words(exact=first.exact)
        decisions[ERROR] = Decision(wanted.error, because)
    return replace(tuned, models=models, decisions=decisions)


def looked_at(run: RunFolder, job: Job) -> tuple[Sequence[Case], Sequence[Case]]:
    """The training cases, of many some that are drawn by the seed, and the others at which a gate looks.

    The others are those of the part "calibration", or else the validation cases.
    """
    order = np.random.default_rng(job.settings.training.seed).permutation(len(job.train))
    held_out = run.cases("calibration", job.fold) or job.val
    return [job.train[place] for place in sorted(order[:MOST_TRAINED])], held_out


def _guarded(run: RunFolder, job: Job, model: Model) -> Model:
    trained, held_out = looked_at(run, job)
    exact, wanted = bool(run.cases("calibration", job.fold)), job.settings.guard
    seen, sure, layers = list[Observation](), list[tuple[float, float]](), last_layers_of(model)
    with tracked("looking at cases for the gate") as tracker:
        for done, case in enumerate([*trained, *held_out], start=1):
            observation, prediction = observed(model, case, layers if done <= len(trained) else None)
            seen.append(observation)
            if wanted.error and done > len(trained):
                sure.append(_sure_and_wrong(model.task, prediction, case))
            tracker(done, len(trained) + len(held_out))
    level = wanted.level if wanted.gate else 0.0
    guard = fitted_guard(seen[: len(trained)], seen[len(trained) :], level, exact=exact)
    if guard is not None and wanted.error:
        limits, patients = (wanted.error, wanted.delta), [case.patient for case in held_out]
        least = least_sureness([one for one, _ in sure], [wrong for _, wrong in sure], *limits, patients)
        guard = replace(guard, answers=Answering(*limits, least, len(sure)))
    laplace = None if layers is None else layers.fitted(len(job.train))
    return with_uncertainty(with_guard(replace(model, laplace=laplace), guard))


def _sure_and_wrong(task: Task, prediction: Prediction, case: Case) -> tuple[float, float]:
    """How sure the answer to a case is, and how wrong."""
    [wrong] = case_errors(task, task.scoring.score([prediction], [case])).values()
    return sureness(task, prediction), wrong

"""The gate of each training, from what its model sees of its own cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from isocenter.runtime import MOST_TRAINED, Model, fitted_guard, observed, tail_note, with_guard
from isocenter.training import Outcome, with_gate
from isocenter.values import Case, Decision
from isocenter.verbs.reading import tracked
from isocenter.verbs.training.fit import Job, Tuned
from isocenter.verbs.training.run_folder import RunFolder

GATE = "guard.gate"
NO_GATE = "too few cases did not train: no image is refused"


def guarded(run: RunFolder, jobs: Sequence[Job], outcomes: Sequence[Outcome], tuned: Tuned) -> Tuned:
    """The models with the gates of their own cases, which lie in their checkpoints too."""
    if not jobs[0].settings.guard.gate:
        return tuned
    models = [_guarded(run, job, model) for job, model in zip(jobs, tuned.models, strict=True)]
    for outcome, model in zip(outcomes, models, strict=True):
        if model.guard is not None:
            with_gate(outcome.checkpoint, model.guard)
    first = models[0].guard
    because = NO_GATE if first is None else tail_note(first)
    return replace(tuned, models=models, decisions={**tuned.decisions, GATE: Decision(True, because)})


def looked_at(run: RunFolder, job: Job) -> tuple[Sequence[Case], Sequence[Case]]:
    """The training cases, of many some that are drawn by the seed, and the others at which a gate looks.

    The others are those of the part "calibration", or else the validation cases.
    """
    order = np.random.default_rng(job.settings.training.seed).permutation(len(job.train))
    held_out = run.cases("calibration", job.fold) or job.val
    return [job.train[place] for place in sorted(order[:MOST_TRAINED])], held_out


def _guarded(run: RunFolder, job: Job, model: Model) -> Model:
    trained, held_out = looked_at(run, job)
    exact = bool(run.cases("calibration", job.fold))
    seen = []
    with tracked("looking at cases for the gate") as tracker:
        for done, case in enumerate([*trained, *held_out], start=1):
            seen.append(observed(model, case))
            tracker(done, len(trained) + len(held_out))
    guard = fitted_guard(seen[: len(trained)], seen[len(trained) :], job.settings.guard.level, exact=exact)
    return with_guard(model, guard)

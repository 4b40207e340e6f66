"""The first stage of a cascade: networks at low resolution, each of which marks the cases that it has not seen.

The second stage learns to read what the first one marks. Of a case that trained it a network marks too well, and would
be trusted blindly: so the training cases are parted as for a cross-validation, and each is marked by a network that was
trained on the others. New cases, those that select and test too, are marked by the mean of these networks, which none
of them has trained. Nothing selects in the first stage: no case decides on what is shown of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from isocenter.files import write_text
from isocenter.planning import (
    CROSS_FITS,
    low_resolution,
    plan_text,
    read_plan,
    relative_to,
    settings,
    shared_by_folds,
)
from isocenter.runtime import BEFORE, Model, label_numbers, load, with_first_stage
from isocenter.training import Clock, keep_marked
from isocenter.values import Case, Decision, Plan
from isocenter.verbs.reading import tracked
from isocenter.verbs.training.decisions import log_decisions, with_decisions, with_reasons
from isocenter.verbs.training.fit import Job, fit
from isocenter.verbs.training.inner_folds import fold_by_case
from isocenter.verbs.training.run_folder import RunFolder, state_of
from isocenter.verbs.training.time_budget import Shares, fresh_model

PLAN = "plan.yaml"


@dataclass(frozen=True, eq=False)
class CascadeStage:
    """The first stage of a cascade, whose marks the networks of a job see.

    out:   its folder, in that of the run or of the fold
    parts: {case id: the network that has not seen it} of the training cases
    """

    out: Path
    plan: Plan
    job: Job
    parts: Mapping[str, int]

    @classmethod
    def of(cls, run: RunFolder, job: Job) -> CascadeStage:
        """The stage as it was planned, or as it follows from the plan of the second stage."""
        out = job.out / BEFORE
        return cls(out, _planned(run, job, out), job, fold_by_case(run, job, CROSS_FITS))

    def joined(self, second: Model) -> Model:
        """A model of the second stage with a first one that has learnt nothing: it takes as long."""
        return with_first_stage(second, fresh_model(settings(self.plan)))

    def deciding(self, decisions: Mapping[str, Decision]) -> CascadeStage:
        """The same with what was decided for both stages in its plan."""
        plan = with_decisions(self.plan, decisions)
        _write(plan, self.out)
        return replace(self, plan=plan)

    def trained(self, clock: Clock) -> Mapping[str, Path]:
        """Train what is not trained yet, and mark all cases of the job; {case id: file}.

        clock: whose deadline is that of both stages; None where the plan fixes the steps
        """
        jobs = [self._job(number) for number in range(CROSS_FITS)]
        outcomes, shares = [], Shares(CROSS_FITS + 1)  # the last is the second stage's
        for job in jobs:
            deadline = clock.deadline
            if deadline is not None:
                turn = shares.turn(clock.seconds)
                deadline = state_of(job.out).get("deadline") or turn.deadline(deadline)
            outcomes.append(fit(job, replace(clock, deadline=deadline), partial(log_decisions, job.what)))
        _write(with_reasons(self.plan, [job.plan for job in jobs], outcomes), self.out)
        return self._marked()

    def _job(self, number: int) -> Job:
        return replace(
            self.job,
            out=self.out / f"fold_{number}",
            plan=self.plan,
            train=[case for case in self.job.train if self.parts[case.id] != number],
            val=[],
            record={**self.job.record, "fold": number, "folds": CROSS_FITS},
            what=f"{self.job.what} at low resolution ({number + 1} of {CROSS_FITS})",
            start=None,
        )

    def _marked(self) -> dict[str, Path]:
        device = settings(self.plan).training.device
        places = {case.id: _place(self.out, case) for case in (*self.job.train, *self.job.val)}
        missing = [case for case in (*self.job.train, *self.job.val) if not places[case.id].is_file()]
        models: dict[int | None, Model] = {}
        with tracked("marking cases at low resolution") as tracker:
            for done, case in enumerate(missing, start=1):
                number = self.parts.get(case.id)
                if number not in models:
                    models[number] = load(self.out, device, fold=number)
                labels = label_numbers(models[number].predict(case), models[number].task.labels)
                keep_marked(np.asarray(labels), places[case.id])
                tracker(done, len(missing))
        return places


def _planned(run: RunFolder, job: Job, out: Path) -> Plan:
    if (out / PLAN).is_file():
        return read_plan(out / PLAN)
    # All folds have one grid at low resolution too: what their first stages say of a new case is averaged.
    room = run.made.room
    plan = room.fitted(low_resolution(job.plan, room.fingerprint, room.machine))
    plan = plan if job.fold is None else shared_by_folds(plan)
    _write(plan, out)
    return plan


def _write(plan: Plan, out: Path) -> None:
    write_text(out / PLAN, plan_text(relative_to(plan, out)), overwrite=True)


def _place(out: Path, case: Case) -> Path:
    """Where the labels of a case lie: under no name that a file system, or a reader of it, could take amiss."""
    return out / "marked" / f"{hashlib.sha256(case.id.encode()).hexdigest()[:16]}.b2nd"

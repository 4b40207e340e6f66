"""One training of a run with all that it needs before its own network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from isocenter.runtime import BEFORE, Model
from isocenter.training import Clock
from isocenter.values import Decision
from isocenter.verbs.training.cascade_stage import CascadeStage
from isocenter.verbs.training.fit import Job
from isocenter.verbs.training.run_folder import RunFolder, state_of
from isocenter.verbs.training.time_budget import fresh_model


@dataclass(frozen=True, eq=False)
class Part:
    """One training of a run, with the first stage of its cascade if it has one."""

    job: Job
    stage: CascadeStage | None

    @classmethod
    def of(cls, run: RunFolder, job: Job) -> Part:
        """The part of a job, with its first stage as it was planned, or as it follows from the job's plan."""
        return cls(job, None if job.settings.preprocessing.cascade is None else CascadeStage.of(run, job))

    @property
    def fresh_model(self) -> Model:
        """Its model with weights that have learnt nothing."""
        return self.whole(fresh_model(self.job.settings))

    def turn_began(self, clock: Clock) -> float:
        """s of the run's clock at which its turn of the minutes began: now, or as an earlier session has left it."""
        folders = [self.job.out, *(self.job.out / BEFORE).glob("fold_*")]
        known = [turn for folder in folders if (turn := state_of(folder).get("turn")) is not None]
        return min(known, default=clock.seconds)

    def whole(self, model: Model) -> Model:
        """A model of the training with a first stage that has learnt nothing: it takes as long as a trained one."""
        return model if self.stage is None else self.stage.joined(model)

    def deciding(self, decisions: Mapping[str, Decision]) -> Part:
        """The same with these decisions in its plans."""
        return Part(self.job.deciding(decisions), None if self.stage is None else self.stage.deciding(decisions))

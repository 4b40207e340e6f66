"""One step of a training: the loss of a batch, back through the network, the weights moved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hilum.errors import HilumError
from hilum.lazy import torch
from hilum.planning import PlanSettings
from hilum.training.data.batch_loading import Batch
from hilum.training.data.case_sampling import LastLosses
from hilum.training.length import schedule
from hilum.training.length.schedule import TrainingPace
from hilum.training.processes import Ranks
from hilum.training.step import batch_loss
from hilum.training.step.batch_loss import Criterion
from hilum.training.step.computation import Compute
from hilum.training.step.optimisers import WeightAverage
from hilum.transforms import random_draws

# Sets the draws of a step apart from those of a case.
STEP_DRAW = 2**30
# Batches in a row whose loss or gradient is no number: one may be an odd batch, so many are a training that has failed.
MOST_LOST = 10


@dataclass(frozen=True)
class Learnt:
    """The numbers of a step.

    loss:     of the batch, no number where nothing was learnt
    rate:     by which it was lowered
    gradient: its norm before it was clipped
    losses:   of each objective, where there are several
    """

    loss: float
    rate: float
    gradient: float
    losses: Mapping[str, float] = field(default_factory=dict)


@dataclass(eq=False)
class Learner:
    """The parts that a step needs, and the number of batches in a row that taught nothing.

    module: as Fabric has wrapped it
    criterion: the sum that training lowers
    costs:  take what each case cost, where cases are sampled by it
    """

    module: Any
    criterion: Criterion
    optimiser: Any
    average: WeightAverage
    settings: PlanSettings
    fabric: Any
    compute: Compute
    ranks: Ranks
    costs: LastLosses | None = None
    lost: int = 0

    def learn(self, batch: Batch, step: int, pace: TrainingPace) -> Learnt:
        """Lower the loss of a batch. The loss is no number where nothing was learnt."""
        chosen = self.settings.training
        progress = pace.progress(step)
        now = self.set_rates(step, pace)
        costs: list[float] = []
        note_costs = None if self.costs is None else costs.extend
        with batch_loss.refuse_nondeterminism(self.settings):
            lowered = self.criterion.judge_batch(self.module, batch, self.compute, progress, note_costs)
        self.optimiser.zero_grad()
        with batch_loss.refuse_nondeterminism(self.settings):
            # Gradients are averaged over the ranks, of which each has its part of the loss: so they are added.
            self.fabric.backward(lowered.loss * self.ranks.count)
        for term in self.criterion.learnt:  # every rank has their whole gradient
            if term.grad is not None:
                term.grad /= self.ranks.count
        self.hold_back(progress)
        learnt = [*self.module.parameters(), *self.criterion.learnt]
        length = torch.nn.utils.clip_grad_norm_(learnt, chosen.clip, foreach=True)
        # Looked at only here, where a GPU has all of the step's work before it and does not wait for us. One gradient
        # that is no number, of a loss that is one, would make every weight none.
        gradient = float(length)
        loss = float(lowered.loss.detach()) if math.isfinite(gradient) else math.nan
        if math.isfinite(loss):
            self.lost = 0
            self.move(step, pace)
            self.criterion.after(lowered)
        else:
            self.lost += 1
        if self.costs is not None:
            self.costs.add(step, batch.cases, costs)
        several = lowered.losses if len(lowered.losses) > 1 else {}
        return Learnt(loss, now, gradient, {name: float(one.detach()) for name, one in several.items()})

    def set_rates(self, step: int, pace: TrainingPace) -> float:
        """Set the generator of dropout, and the rate of each weight, for a step; return the highest."""
        chosen = self.settings.training
        self._set_seed(
            int(random_draws.sample_generator(chosen.seed, self.ranks.rank, step, STEP_DRAW).integers(2**63))
        )
        now = schedule.learning_rate_at(pace.progress(step), pace.stride, chosen)
        for group in self.optimiser.param_groups:
            group["lr"] = now * group["share"]
        return now

    def hold_back(self, progress: float) -> None:
        """Take the gradients from weights that do not move yet: neither moved nor remembered by the optimiser."""
        for group in self.optimiser.param_groups:
            if progress < group["start"]:
                for weight in group["params"]:
                    weight.grad = None

    def move(self, step: int, pace: TrainingPace) -> None:
        """Move the weights by their gradients, and their average after them."""
        self.optimiser.step()
        if self.ranks.leads or self.criterion.needs.teacher:
            self.average.move(schedule.average_decay(step, pace.stride, self.settings.training))

    def _set_seed(self, number: int) -> None:
        """Dropout has the one generator that torch has for a device: set anew, a resumed run has the same numbers.

        Not by `torch.manual_seed`, which notes a traceback for each kind of device that is not there, at every step.
        """
        torch.default_generator.manual_seed(number)
        if (device := torch.device(self.fabric.device)).type != "cpu":
            torch.get_device_module(device).manual_seed(number)

    def refuse_lost(self, step: int, where: str) -> None:
        """HilumError once nothing was learnt from many batches in a row."""
        if self.lost >= MOST_LOST:
            problem = f"the loss or the gradient of {MOST_LOST} batches in a row, up to step {step}, is not a number"
            raise HilumError(problem, where, "Train again with a smaller --set training.learning_rate")


class StillLearner(Learner):
    """A learner of weights that are set once and take no step: it states the loss of a batch, and moves nothing."""

    def learn(self, batch: Batch, step: int, pace: TrainingPace) -> Learnt:
        """The loss of a batch."""
        with torch.no_grad():
            return Learnt(float(self.criterion.judge_batch(self.module, batch, self.compute).loss), 0.0, 0.0)

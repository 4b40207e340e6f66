"""The length of a training: a number of steps that was set, or as many as the clock allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hilum.planning.plan_sections import TrainingSettings
from hilum.runtime.windows import slide
from hilum.training.length import schedule, step_probe
from hilum.training.length.schedule import TrainingPace
from hilum.training.length.step_probe import PROBE_CASES, VALIDATION_SHARE, Budget, Probe
from hilum.training.step.computation import Compute
from hilum.training.training_state import CommandClock, Share, State
from hilum.values import Decision

if TYPE_CHECKING:
    from torch.nn import Module

    from hilum.training._training_session import TrainingSession

# Takes what was decided: `training.steps`, `.validations`, `.batch` and `.compute`, with their reasons.
Decided = Callable[[Mapping[str, Decision]], None]
# Returns the second by which training must end, for what the network's averaged weights have become.
Recount = Callable[["Module"], float]
# Progress at which that is asked: by then the model predicts much as it will in the end.
RECOUNT_AT = 0.5
# Where a validation case has more windows than these, a look is timed by a few of them; and where so many looks at all
# windows of all cases do not fit into the time for validation, a look sees a part of each case.
MANY_WINDOWS = 50
PROBE_WINDOWS = 2
WANTED_LOOKS = 4
# A training by the clock looks at it at least so often, evenly over its progress.
LOOKS_AT_THE_CLOCK = 10
# Steps that each of several networks for every voxel has at least: of so many, the mean of two reached the Dice of one
# twice as long (bench/findings/training.md).
ENOUGH_STEPS = 2000


@dataclass(frozen=True, eq=False)
class SeveralNetworks:
    """Networks of other seeds that may share the minutes of one, where these are enough for each.

    most:  the first among them
    extra: s that the predictions after training take longer for each further one
    """

    most: int
    extra: float


@dataclass(frozen=True, eq=False)
class Length:
    """The number of steps of a training: those that its plan names, or as many as fit before the clock's deadline.

    decided: takes what was decided, with the reason
    recount: is asked half-way for the deadline, because trained weights are scored faster than fresh ones
    fewest:  samples that a batch keeps where there is time for few steps; None: it stays as it is
    several: further networks that may share the time; None where the training has it all
    pause:   the step after which the training pauses, its whole state kept; None where it goes on to its end
    """

    clock: CommandClock
    decided: Decided = lambda decisions: None
    recount: Recount | None = None
    fewest: int | None = None
    several: SeveralNetworks | None = None
    pause: int | None = None

    @property
    def looks(self) -> int:
        """The number of times, evenly over the progress, that the length may be adjusted."""
        return 0 if self.clock.deadline is None else LOOKS_AT_THE_CLOCK

    def plan_steps(self, session: TrainingSession) -> State:
        """The state before the first step: steps, validations, batch and how to compute, by the speed of a few of each.

        Steps that the plan names, or that were decided before a kill that came before the first checkpoint, stay.
        """
        chosen = session.device_settings
        if chosen.steps is not None:
            compute = Compute.from_name(chosen.compute or "", chosen).name(chosen)
            because = "set beforehand" if chosen.compute else "the number of steps is set, so that no clock decides"
            self.decided({"training.compute": Decision(compute, because)})
            return State(0, TrainingPace(chosen.steps), chosen.validations, compute=compute)
        left = session.ranks.agree(self.clock.time_left)
        probe = Probe(session.module, session.try_step, chosen, self.clock.now)
        fewer = None
        if self.fewest is not None:
            fewer = session.ranks.agree(probe.fewer_samples(left, session.ranks.count, self.fewest))
        if fewer is not None:
            session.take_batches_of(int(fewer.value))
            self.decided({"training.batch": fewer})
        probed = probe.fastest(session.ranks.agree(self.clock.time_left), session.most_steps)
        windows, validation = self._validation(session, probed.compute, left)

        def fitted(left: float) -> Budget:
            return step_probe.fitting_budget(probed.times, validation, left, chosen.validations, session.most_steps)

        length, share = budget_in_shares(self.several, self.clock, fitted)
        state = State(
            0,
            TrainingPace(length.steps),
            length.validations,
            speed=length.speed,
            compute=str(probed.decision.value),
            work=probed.work,
            batch=None if fewer is None else int(fewer.value),
            share=share,
            windows=windows,
        )
        self.decided({**_decisions(state, length.because), "training.compute": probed.decision})
        return state

    def note_resumption(self, state: State, chosen: TrainingSettings) -> None:
        """Steps that were planned anew just before a kill are decided once more."""
        if state.speed is not None and state.pace.steps != chosen.steps:
            self.decided(_decisions(state, "so many were planned at the last checkpoint"))

    def adjust(self, session: TrainingSession, state: State, step: float) -> tuple[Length, State]:
        """The length from here on, and the state by it; step: s that each of the last steps took.

        There are other steps where the speed has changed so much that those planned would miss the end.
        """
        if state.speed is None or self.clock.deadline is None:
            return self, state
        length = self
        speed = state.speed.after(step=step)
        deadline = self.clock.deadline
        if self.recount is not None and state.pace.progress(state.step) >= RECOUNT_AT:
            session.averaged.eval()
            deadline = self.recount(session.averaged)
            length = replace(self, clock=replace(self.clock, deadline=deadline), recount=None)
        if state.share is not None:
            deadline = state.share.began + state.share.seconds_of(deadline - state.share.began)
        left = deadline - self.clock.seconds
        anew = schedule.replan_steps(
            state.pace, state.step, state.validations, speed, left=left, deadline=deadline, most=session.most_steps
        )
        state = replace(state, speed=speed, pace=state.pace if anew is None else anew[0])
        if anew is not None:
            self.decided(_decisions(state, anew[1]))
        return length, state

    def _validation(self, session: TrainingSession, compute: Compute, left: float) -> tuple[int | None, float]:
        """Windows of each case that a look sees, None for all, and s of a look; only the leading process looks.

        By a few of the cases and their voxels, or where these have many windows by a few windows of one.
        """
        cases = (session.val_cases or session.shown_cases)[:PROBE_CASES] if session.ranks.leads else ()
        if not cases:
            return None, 0.0
        inference = session.settings.inference
        every = [*session.val_cases, *session.shown_cases]
        counts = [slide.window_count(case.shape, inference.patch, inference.overlap) for case in every]
        few = PROBE_WINDOWS if max(counts[: len(cases)]) > MANY_WINDOWS else None
        cases = cases if few is None else cases[:1]
        eager = replace(compute, compiled=False)
        eager.apply(session.averaged)
        if session.device_settings.device != "cpu":  # a GPU chooses its kernels at the first look, which takes seconds
            session.validate(cases[:1], eager, few)
        mark = self.clock.seconds
        session.validate(cases, eager, few)
        took = self.clock.seconds - mark
        if few is None:
            voxels = [math.prod(case.shape) for case in every]
            return None, took / sum(voxels[: len(cases)]) * sum(voxels)
        took /= min(few, counts[0])
        windows = max(1, int(VALIDATION_SHARE * left / (WANTED_LOOKS * took * len(every))))
        return (windows if windows < max(counts) else None), took * sum(min(windows, one) for one in counts)


def budget_in_shares(
    several: SeveralNetworks | None, clock: CommandClock, fitted: Callable[[float], Budget]
) -> tuple[Budget, Share | None]:
    """Steps by the time left, or by a part of it that is enough, where as many networks as possible share it.

    fitted: returns the steps that fit into so many s
    """
    left = clock.time_left
    most, extra = (several.most, several.extra) if several else (1, 0.0)
    for count in range(most, 1, -1):
        share = Share(count, clock.seconds, (count - 1) * extra)
        length = fitted(share.seconds_of(left))
        if length.steps >= ENOUGH_STEPS:
            because = f"{count} networks have time for {ENOUGH_STEPS} steps or more each, and share {left:.0f} s"
            return replace(length, because=f"{because}: {length.because}"), share
    return fitted(left), None


def _decisions(state: State, because: str) -> dict[str, Decision]:
    return {
        "training.steps": Decision(state.pace.steps, because),
        "training.validations": Decision(state.validations, because),
    }

"""The progress of a training, between 0 and 1, and what follows from it: rate, average, times to validate.

Everything follows the progress, never the clock. So the number of steps may change on the way, when the machine turns
out slower or faster than a probe said, and the rate goes on without a jump.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hilum.planning.plan_sections import TrainingSettings

# nnU-Net's polynomial: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z
POLY = 0.9
# Fewer steps are no training: so many are done even where they take longer than was asked for.
FEWEST_STEPS = 10
# Steps are planned anew where they would miss the end by more than this share of all the time.
SLACK = 0.01
# Of the steps done, so many more are planned at least, however late it is: a rate that stops half-way down leaves
# weights that have not settled.
CLOSING = 0.1
# How much of what was known of the speed stays beside what was measured last.
MEMORY = 0.5
# Progress is a sum of shares: a millionth of a step is rounding.
ROUNDING = 1e-9


@dataclass(frozen=True)
class TrainingPace:
    """The place of each step between the beginning, 0, and the end, 1.

    steps:   of the whole training, as it is planned now
    since:   the step at which they were planned
    reached: how far the training had come by then
    """

    steps: int
    since: int = 0
    reached: float = 0.0

    @property
    def stride(self) -> float:
        """The progress of one step."""
        return (1 - self.reached) / max(1, self.steps - self.since)

    def progress(self, step: int) -> float:
        """The progress of the training after a number of steps."""
        return 1.0 if step >= self.steps else self.reached + (step - self.since) * self.stride

    def replan(self, done: int, left: int) -> TrainingPace:
        """The pace with other numbers of done and left steps, at least one: progress goes on from where it is."""
        return TrainingPace(done + max(1, left), done, self.progress(done))

    def looks(self, done: int, validations: int) -> int:
        """The number of validations that are over after a number of steps."""
        return math.floor(self.progress(done) * validations + ROUNDING)

    def is_due(self, done: int, validations: int) -> bool:
        """Whether a validation follows the last of these steps; they lie evenly over the progress."""
        return done == self.steps or self.looks(done, validations) > self.looks(done - 1, validations)


@dataclass(frozen=True)
class Speed:
    """Seconds that a step takes, and one look at the validation cases."""

    step: float
    validation: float

    def after(self, step: float | None = None, validation: float | None = None) -> Speed:
        """The speed with what was measured since; one slow moment counts for half."""
        pairs = ((self.step, step), (self.validation, validation))
        return Speed(*(before if now is None else MEMORY * before + (1 - MEMORY) * now for before, now in pairs))


def fitting_steps(left: float, speed: Speed, validations: int) -> int:
    """Steps for which the seconds left suffice beside so many validations; may be negative."""
    return math.floor((left - validations * speed.validation) / speed.step)


def most_steps(chosen: TrainingSettings, cases: int) -> int | None:
    """Steps after which so many training cases have been seen for all epochs there may be; None for no limit."""
    if chosen.epochs is None:
        return None
    return max(FEWEST_STEPS, math.ceil(chosen.epochs * cases / chosen.batch))


def replan_steps(
    pace: TrainingPace,
    done: int,
    validations: int,
    speed: Speed,
    *,
    left: float,
    deadline: float,
    most: int | None = None,
) -> tuple[TrainingPace, str] | None:
    """Another number of steps, and why, where those planned would miss the end; None where they fit.

    However late it is, there are steps for the rate to come to its end, and no fewer than the fewest.
    validations: of the whole training
    left, deadline: s that are left for training, and that all of it has
    most:           steps that there may be, however early it is
    """
    ahead = validations - pace.looks(done, validations)
    needed = (pace.steps - done) * speed.step + ahead * speed.validation
    if done >= pace.steps or abs(needed - left) <= SLACK * deadline:
        return None
    closing = min(pace.steps - done, math.ceil(CLOSING * done))
    fitting = max(fitting_steps(left, speed, ahead), closing, FEWEST_STEPS - done)
    anew = pace.replan(done, fitting if most is None else min(fitting, most - done))
    if anew.steps == pace.steps:
        return None
    because = (
        f"{pace.steps} were planned; after {done} a step takes {speed.step:.3f} s, and {max(0.0, left):.0f} s are left"
    )
    return anew, because


# What is left of a rate when so much of the way down, 0 to 1, is behind.
SCHEDULES: Mapping[str, Callable[[float, float], float]] = {
    "poly": lambda rate, down: rate * float((1 - down) ** POLY),
    "cosine": lambda rate, down: rate * 0.5 * (1 + math.cos(math.pi * down)),
}


def learning_rate_at(progress: float, stride: float, chosen: TrainingSettings) -> float:
    """Linear warm-up, then a half cosine (arXiv:1608.03983) or a polynomial, to zero at the end."""
    if progress < chosen.warmup - ROUNDING:
        return chosen.learning_rate * min(1.0, (progress + stride) / chosen.warmup)
    down = min(1.0, (progress - chosen.warmup) / max(ROUNDING, 1 - chosen.warmup))
    return SCHEDULES[chosen.schedule](chosen.learning_rate, max(0.0, down))


def average_decay(step: int, stride: float, chosen: TrainingSettings) -> float:
    """The share of the average that stays at a step; early on it is small, so that the start is soon forgotten."""
    horizon = max(1.0, chosen.ema / stride)
    return min(1 - 1 / horizon, (1 + step) / (10 + step))

"""Sentences on a training's length, by the course of its log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from hilum import errors
from hilum.lazy import pandas as pd
from hilum.planning import plan_checks
from hilum.training.length import schedule
from hilum.values import Plan

OWN_COLUMNS = ("step", "seconds", "loss", "learning_rate", "gradient_norm", "rank")
# Columns of single objectives begin with it; those of training cases end with it.
OBJECTIVE, TRAINING = "loss_", "training_metric"
# nnU-Net calls so many steps one epoch, and trains for a thousand of them: doi:10.1038/s41592-020-01008-z
FEW_STEPS = 250
# The last part of a training, and the share of all that was gained that must not fall into it.
LAST, GAINED = 0.25, 0.05
# Of fewer validations no course can be read.
FEWEST_VALIDATIONS = 4
# Gains fall with the number of steps as a power of it (arXiv:1712.00409): where the last three of four quarters brought
# less than this of the metric, four times the steps bring less again.
FIRST, LITTLE = 0.25, 0.01


def training_length_sentences(
    log: pd.DataFrame, metric: Callable[[float], str] = lambda figure: "metric", limit: str = ""
) -> tuple[str, ...]:
    """Sentences on the length of a training: few steps, still improving, never improving, or levelled off.

    log:    a row a step; `validation`, or a column for each fold, is blank where nothing was measured, more is better
    metric: the name of a figure that was measured
    limit:  what ended it before its minutes were over, in a sentence
    """
    return tuple(filter(None, (limit, *_sentences(log, metric))))


def epoch_limit_sentence(plan: Plan, cases: int, steps: int) -> str:
    """A sentence that the limit of epochs ended a training, where it did; cases: that it was trained on."""
    chosen = plan_checks.checked_settings(plan).training
    most = schedule.most_steps(chosen, cases)
    if most is None or steps < most:
        return ""
    return (
        f"The limit of {chosen.epochs:g} epochs (training.epochs) ended it, after {errors.count_phrase(steps, 'step')}."
    )


@dataclass(frozen=True)
class ValidationCourse:
    """Course of a metric over the steps at which it was measured: of one training, and as several have in common."""

    of_one: str
    shared: str


def _sentences(log: pd.DataFrame, metric: Callable[[float], str]) -> Iterator[str]:
    steps = int(log["step"].max())
    if 1 < steps < FEW_STEPS:  # a single one is a last layer that was set
        yield f"Trained for only {errors.count_phrase(steps, 'step')}, less than one epoch of nnU-Net ({FEW_STEPS})."
    courses: dict[str, ValidationCourse] = {}
    for name in _courses(log):
        rows = log.dropna(subset=[name])
        # Folds have as many steps as their minutes held.
        last_step = log["step"][log[f"{name} loss"].notna()].max() if f"{name} loss" in log else steps
        courses[name] = _course(rows["step"].to_numpy(float), rows[name].to_numpy(float), int(last_step))
    for shared in dict.fromkeys(course.shared for course in courses.values()):
        alike = [name for name, course in courses.items() if course.shared == shared]
        measured = metric(float(np.nanmin(log[alike].to_numpy(float)))).removeprefix("the ")
        if len(alike) == 1:
            named = "" if alike[0] == "validation" else f" of {alike[0]}"
            yield f"Validation {measured}{named} {courses[alike[0]].of_one}"
        else:
            folds = (
                f"all {len(alike)} folds" if len(alike) == len(courses) else errors.list_phrase(alike, most=len(alike))
            )
            yield f"Validation {measured} of {folds} {shared}"
    if not courses:
        yield "Nothing was validated while it trained, so its length cannot be judged."


def _courses(log: pd.DataFrame) -> list[str]:
    names = [name for name in map(str, log.columns) if name not in OWN_COLUMNS and not name.startswith(OBJECTIVE)]
    return [name for name in names if not name.endswith(("loss", TRAINING)) and log[name].notna().any()]


def _course(steps: np.ndarray, values: np.ndarray, last: int) -> ValidationCourse:
    if len(values) < FEWEST_VALIDATIONS:
        often = "once" if len(values) == 1 else f"{len(values)} times"
        seldom = "to see whether it still rose."
        return ValidationCourse(f"was measured only {often}: too seldom {seldom}", f"was measured too seldom {seldom}")
    if np.ptp(values) == 0:
        return ValidationCourse(f"was {values[0]:.3f} at every measurement.", "was the same at every measurement.")
    best, first = float(values.max()), float(values[0])
    at = int(steps[int(values.argmax())])
    if best <= first:
        when, end = "when it was first measured", "more steps gained nothing."
        return ValidationCourse(f"was highest, {best:.3f}, {when}, at step {at}: {end}", f"was highest {when}: {end}")
    before = values[steps <= (1 - LAST) * last]
    earlier = float(before.max()) if len(before) else first
    if best - earlier > GAINED * (best - first):
        words = "was still improving in the last quarter of the {}: longer training may help."
        return ValidationCourse(words.format(f"{last} steps"), words.format("steps"))
    if last >= FEW_STEPS and values[steps <= FIRST * last].max(initial=-np.inf) > best - LITTLE:
        soon = f"was within {LITTLE:g} of its best after a quarter of the steps: longer training promises little."
        return ValidationCourse(soon, soon)
    unknown = "a falling learning rate flattens every curve, so whether longer training helps is not known."
    little = "gained little in the last quarter"
    return ValidationCourse(
        f"was best at step {at} of {last} and {little}; {unknown}", f"{little} of the steps; {unknown}"
    )

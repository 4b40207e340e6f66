"""The minutes of a run: what must be kept of them for all that follows training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from isocenter.planning import Settings
from isocenter.runtime import Model, TorchNetwork, build_module
from isocenter.values import Case
from isocenter.verbs.scoring import SHOWN

# s for the summary, the pictures and the report.
REPORT_SECONDS = 12.0
# Of the minutes, as a reserve for what was not foreseen.
RESERVE = 0.02
# Best, median and worst cases are predicted once more, for their pictures.
GROUPS_SHOWN = 3


@dataclass(frozen=True)
class Costs:
    """s a case: to predict, to score, and to tune on."""

    predict: float
    score: float
    tune: float


def fresh_model(chosen: Settings) -> Model:
    """The plan's model with weights that have learnt nothing."""
    network, device = chosen.architecture, chosen.training.device
    module = build_module(chosen.task, network).eval().to(device)
    return Model(chosen.task, chosen.preprocessing, chosen.inference, network, TorchNetwork(module, device))


def measured_costs(model: Model, case: Case) -> Costs:
    """As this machine does them now, mirrored views and all.

    Fresh weights predict ragged surfaces, which take far longer to score (hippocampus: 0.33 s, 0.013 s once trained):
    the estimate errs on the safe side, and is made anew half-way.
    """
    model.predict(case)  # the first call also allocates
    marks = [time.monotonic()]
    prediction = model.predict(case)
    marks.append(time.monotonic())
    model.task.score([prediction], [case])
    marks.append(time.monotonic())
    model.task.tuned([prediction], [case])
    marks.append(time.monotonic())
    return Costs(*(end - start for start, end in pairwise(marks)))


def seconds_after(costs: Costs, selecting: int, tested: Sequence[tuple[int, int]]) -> float:
    """What follows training: tuning on `selecting` cases, scoring, pictures, the report.

    tested: (cases, models that predict each of them) of every evaluation
    """
    seconds = REPORT_SECONDS + selecting * (costs.predict + costs.tune)
    for cases, models in tested:
        shown = min(cases, GROUPS_SHOWN * SHOWN)
        seconds += (cases + shown) * models * costs.predict + cases * costs.score
    return seconds


def training_deadline(minutes: float, after: float) -> float:
    """s after the command's start by which training must end."""
    return 60 * minutes * (1 - RESERVE) - after


def shared_deadline(deadline: float, elapsed: float, folds_left: int) -> float:
    """s after the command's start by which the next of so many folds must end: each gets an equal part of the rest."""
    return elapsed + (deadline - elapsed) / folds_left

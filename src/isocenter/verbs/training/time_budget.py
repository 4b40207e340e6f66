"""The minutes of a run: the part that is kept for all that follows training, and the time that each stage took."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TypeVar

from isocenter.planning import Settings
from isocenter.runtime import Model, TorchNetwork, build_module
from isocenter.tasks import Evidence, Task, found_after_training, with_calibration
from isocenter.training import Clock
from isocenter.values import Case, CaseFacts, Fingerprint
from isocenter.verbs.evaluation.scoring import SHOWN, are_kept

# s for the summary, the pictures and the report.
REPORT_SECONDS = 12.0
# Of the minutes, as a reserve for what was not foreseen.
RESERVE = 0.02
# With this the reason to give up mirrored views ends; where other minutes are given, they are taken again.
AS_STEPS = "they serve better as steps"
# Best, median and worst cases, whose pictures are drawn.
GROUPS_SHOWN = 3
# Of the minutes, what all that follows training is believed to take where fresh weights' guesses are slow to score:
# ragged ones of gliomas took 60 s a case, so that 10 steps were left of 45; once trained they took 3.
DOUBTED_SHARE = 0.4
# Of the minutes, what gates may take for training cases, and how many of these they look at whatever that takes: where
# a case takes 10 s, the 200 that make a whole gate would take half an hour.
LOOKING_SHARE, FEWEST_LOOKED = 0.05, 30
# Of the minutes, what they may take at most, however few of them have been looked at by then.
LOOKING_MOST = 0.5
# s to fit what voxels say of probabilities, of one model: measured 2.8 to 4.1 on one core, with 3 to 16 outputs of
# 20 to 100 cases, of which so many voxels are taken whatever their number. And the share of the minutes kept at most.
FITTING_SECONDS, FITTING_SHARE = 4.0, 0.05
# s of work after which it is not timed once more: what its first call allocates is little beside them.
LONG_WORK = 3.0
# Of quicker work the median of so many calls counts, or of those that fit into so many s: where a thousand cases
# follow, a stall of 20 ms in the only call would take 20 s from the training.
CALLS, CALLS_SECONDS = 5, 0.5
# Stages of so many seconds are told in minutes.
LONG_STAGE = 600.0
EARLIER = "earlier sessions"
T = TypeVar("T")


@dataclass(frozen=True)
class Costs:
    """s a case: to predict, to score, and to tune on.

    voxels: of the result
    """

    predict: float
    score: float
    tune: float
    voxels: int = 1


@dataclass(frozen=True, eq=False)
class Afterwards:
    """What follows the training of a run within its minutes.

    minutes:   of the run
    case:      one like those that are predicted, see `of_mean_size`
    selecting: how many cases are tuned on
    tested:    (cases, models that predict each of them) of every evaluation
    looked_at: how many cases that did not train the gates look at
    looking:   how many training cases each gate looks at where there is time
    baseline:  s of what is fitted to numbers: to covariates alone, and what voxels say of their probabilities
    networks:  how many predict each case, where that is known before
    """

    minutes: float
    case: Case
    selecting: int
    tested: Sequence[tuple[int, int]]
    looked_at: int = 0
    looking: Sequence[int] = ()
    baseline: float = 0.0
    networks: int = 1

    def deadline(self, model: Model) -> float:
        """s after the command's start by which training must end, if this is the model."""
        return training_deadline(self.minutes, self.seconds(self.costs(model)))

    def first_deadline(self, fresh: Costs) -> float:
        """The same before anything is learnt: fresh weights predict as fast as any, but their scores say little."""
        return training_deadline(self.minutes, self.expected(fresh))

    def costs(self, model: Model) -> Costs:
        """What each case will cost, measured."""
        each = measured_costs(model, self.case)
        return replace(each, predict=self.networks * each.predict)

    def predicting(self, model: Model) -> float:
        """The s of these that predicting takes, measured."""
        return self.networks * timed(lambda: model.predict(self.case))[1]

    def seconds(self, costs: Costs) -> float:
        """s of all that follows training."""
        usual, each = looking_seconds(self.minutes, len(self.looking)), costs.predict
        most = longest_looking(self.minutes, len(self.looking))
        looking = sum(min(count * each, max(FEWEST_LOOKED * each, usual), most) for count in self.looking)
        return seconds_after(costs, self.selecting, self.tested) + self.looked_at * each + looking + self.baseline

    def expected(self, costs: Costs) -> float:
        """Of `seconds` by fresh weights, what is believed: predictions as measured, scores up to a share."""
        predictions = self.seconds(replace(costs, score=0.0, tune=0.0))
        return min(self.seconds(costs), max(predictions, DOUBTED_SHARE * 60 * self.minutes))


def of_mean_size(cases: Sequence[Case], fingerprint: Fingerprint, *, spaced: bool = False) -> Case:
    """Of these cases the one whose size is nearest the mean: where sizes differ, so does what a case takes.

    spaced: whether the network sees all of them at one spacing, so that their lengths decide, and not their voxels
    """

    def size(facts: CaseFacts) -> float:
        """Voxels of a case, or its extent in mm³."""
        return math.prod(facts.shape) * (math.prod(facts.steps) if spaced else 1)

    voxels = {facts.id: size(facts) for facts in fingerprint.cases}
    mean = statistics.fmean(voxels.values())
    return min(cases, key=lambda case: abs(voxels[case.id] - mean))


def fresh_model(chosen: Settings) -> Model:
    """The plan's model with weights that have learnt nothing."""
    network, device = chosen.architecture, chosen.training.device
    module = build_module(chosen.task, network).eval().to(device)
    return Model(chosen.task, chosen.preprocessing, chosen.inference, network, TorchNetwork(module, device))


def measured_costs(model: Model, case: Case) -> Costs:
    """As this machine does them now, mirrored views and all.

    Fresh weights predict ragged surfaces, which take far longer to score (hippocampus: 0.33 s, 0.013 s once trained):
    what is measured with them is not wholly believed, and measured anew half-way.
    """
    prediction, predict = timed(lambda: model.predict(case))
    _, score = timed(lambda: model.task.score([prediction], [case]))
    _, tune = timed(lambda: with_calibration(model.task, Evidence([prediction], [case])))
    return Costs(predict, score, tune, math.prod(prediction.geometry.shape))


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What work makes, and the s that it takes once it runs steadily."""
    marks = [time.monotonic()]
    made = work()
    marks.append(time.monotonic())
    if marks[-1] - marks[0] < LONG_WORK:
        marks = marks[1:]
        while len(marks) <= CALLS and (len(marks) == 1 or marks[-1] - marks[0] < CALLS_SECONDS):
            work()
            marks.append(time.monotonic())
    return made, statistics.median(end - start for start, end in pairwise(marks))


def seconds_after(costs: Costs, selecting: int, tested: Sequence[tuple[int, int]]) -> float:
    """What follows training: tuning on `selecting` cases, scoring, pictures, the report.

    tested: (cases, models that predict each of them) of every evaluation
    """
    seconds = REPORT_SECONDS + selecting * (costs.predict + costs.tune)
    for cases, models in tested:
        again = 0 if are_kept(cases * costs.voxels) else min(cases, GROUPS_SHOWN * SHOWN)
        seconds += (cases + again) * models * costs.predict + cases * costs.score
    return seconds


def fitting_seconds(task: Task, minutes: float, trainings: int) -> float:
    """s that fits to voxels take, of each training and of the mean of several, as far as a share of the minutes goes.

    What one case takes is measured, and no single case can be fitted to.
    """
    is_dense = any(head.is_dense and not head.holds_boxes for head in task.heads.values())
    if not is_dense or not any(name.endswith("calibration") for name in found_after_training(task)):
        return 0.0
    return min((trainings + (trainings > 1)) * FITTING_SECONDS, FITTING_SHARE * 60 * minutes)


def looking_seconds(minutes: float, trainings: int) -> float:
    """s that the gate of each of so many trainings may take for training cases."""
    return LOOKING_SHARE * 60 * minutes / max(1, trainings)


def longest_looking(minutes: float, trainings: int) -> float:
    """s after which the gate of each of so many trainings looks at no further training case, however few it has seen.

    A single case is never longer than that by much: those out of all proportion are left out of a run.
    """
    return LOOKING_MOST * 60 * minutes / max(1, trainings)


def training_deadline(minutes: float, after: float) -> float:
    """s after the command's start by which training must end."""
    return 60 * minutes * (1 - RESERVE) - after


@dataclass(frozen=True)
class Turn:
    """The turn of a training among those that share the minutes: each gets an equal part of what is left.

    began: s after the command's start at which it begins
    left:  trainings as long as this one that still have to share the rest, itself among them
    most:  of all time for training, the share that it never exceeds
    """

    began: float
    left: float = 1
    most: float = 1.0

    def deadline(self, limit: float) -> float:
        """s after the command's start by which it must end, where all training must end by `limit`."""
        return min(self.began + (limit - self.began) / self.left, self.began + self.most * limit)


@dataclass
class Shares:
    """The trainings that have not begun, which share what is left of the minutes.

    left: their lengths, of which that of one of the model's networks is 1
    """

    left: float

    def turn(self, began: float, share: float = 1.0, most: float = 1.0) -> Turn:
        """The turn of the next training, of the length `share`; began, most: as of `Turn`."""
        turn = Turn(began, self.left / share, most)
        self.left -= share
        return turn


@dataclass(frozen=True, eq=False)
class Stages:
    """The stages of a run that have ended, one after the other.

    clock: of the run
    ends:  {stage: s of the clock at its end}
    """

    clock: Clock
    ends: dict[str, float] = field(default_factory=dict)

    def ended(self, name: str) -> None:
        """A stage has ended, and the next begins."""
        self.ends[name] = self.clock.seconds

    @property
    def seconds(self) -> dict[str, float]:
        """{stage: s that it took}, first those of earlier sessions of a resumed run."""
        ends = {**({EARLIER: self.clock.spent} if self.clock.spent else {}), **self.ends}
        return {name: end - start for (name, end), start in zip(ends.items(), [0.0, *ends.values()], strict=False)}


def stages_in_words(seconds: Mapping[str, float]) -> str:
    """For the report's facts."""
    each = {name: f"{one / 60:.1f} min" if one >= LONG_STAGE else f"{one:.0f} s" for name, one in seconds.items()}
    return ", ".join(f"{name} {took}" for name, took in each.items())

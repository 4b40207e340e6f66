"""The minutes of a run: what each step of it costs, the deadline of each training, and what few minutes give up."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from isocenter.planning import PlanSettings
from isocenter.planning.search_domains import Room
from isocenter.runs import _run_trainings
from isocenter.runs._run_trainings import SEARCH, FinishedTraining, RunTraining, SecondsPerCase
from isocenter.runtime import Context, Model, proportion, torch_networks
from isocenter.runtime.preprocessing import coarse_mask
from isocenter.runtime.proportion import Looking
from isocenter.runtime.torch_networks import KeptOutputs, Networks, TorchNetwork
from isocenter.runtime.windows import slide
from isocenter.runtime.windows.slide import BagNetwork, Network, Skipping
from isocenter.tasks import Task, fitting, task_settings
from isocenter.tasks.fitting import PredictedCases
from isocenter.training.length import step_probe
from isocenter.training.length.schedule import FEWEST_STEPS
from isocenter.training.length.step_probe import NARROWER
from isocenter.training.session_length import SeveralNetworks
from isocenter.training.training_state import CommandClock
from isocenter.transforms import channel_stack
from isocenter.values import (
    BY_HAND,
    Array,
    Case,
    CaseFacts,
    Decision,
    Fingerprint,
    Geometry,
    Image,
    Plan,
    Prediction,
    Region,
)

if TYPE_CHECKING:
    from torch.nn import Module


# s for the summary, the pictures and the report.
REPORT_SECONDS = 12.0
# Of the minutes, as a reserve for what was not foreseen.
RESERVE = 0.02
# With this the reason to give up mirrored views ends; where other minutes are given, they are taken again.
AS_STEPS = "they serve better as steps"
# Of the minutes, what all that follows training is believed to take where fresh weights' guesses are slow to score:
# ragged ones of gliomas took 60 s a case, so that 10 steps were left of 45; once trained they took 3.
DOUBTED_SHARE = 0.4
# Of the time from the first step on, what all that follows training has at most; with fewer windows and cases where
# that is not enough. As long as it takes so many s nothing is left out, however few the minutes are.
AFTER_SHARE, FREE_SECONDS = 0.6, 60.0
# Of the time that is then left, what cases that decide have, and training cases at which gates look.
TUNED_SHARE, LOOKED_SHARE = 0.4, 0.15
# Of the minutes, what gates may take for training cases, and how many of these they look at whatever that takes: where
# a case takes 10 s, the 200 that make a whole gate would take half an hour.
LOOKING_SHARE, FEWEST_LOOKED = 0.05, 30
# Of the minutes, what they may take at most, however few of them have been looked at by then.
LOOKING_MOST = 0.5
# s to fit what voxels say of probabilities, of one model: measured 2.8 to 4.1 on one core, with 3 to 16 outputs of
# 20 to 100 cases, of which so many voxels are taken whatever their number. And the share of the minutes kept at most.
FITTING_SECONDS, FITTING_SHARE = 4.0, 0.05
# s to fit covariates alone, for each entry of each training case: 8 s for 5,000 of 210 on one core, and 4 s to make
# numbers of them.
COVARIATES_SECONDS = 1.2e-5
# Of the minutes, what predictions may take before the mirrored views of each window are given up.
FOLLOWING_SHARE = 0.25
MEMORY, SIZE, VIEWS = "training.memory", "network.size", "inference.flips"
# More networks gain little over these: Lakshminarayanan et al., arXiv:1612.01474, figures 2 and 3.
MOST_NETWORKS = 5
# s that all of them together may take for a case: whoever predicts with a slow machine waits for each.
PATIENCE = 1.0
# The best trial of a search and the plan are trained once more each.
CONFIRMING = 2
# Of a search by minutes a trial has this share, or LONGER s where that leaves time for FEW trials: of much shorter
# trainings little can be told, and with more of them luck grows faster than what is found.
MANY, FEW, LONGER = 16, 6, 60.0
# Of the steps of the training, where they are set and those of a trial are not.
STEPS_SHARE = 4
# Stages of so many seconds are told in minutes.
LONG_STAGE = 600.0
EARLIER = "earlier sessions"
# A case of so many windows is measured whole; of a larger one a part, of so many windows or of those of a batch.
FEW_WINDOWS, WINDOWS = 8, 2
# s of work after which it is not timed once more: what its first call allocates is little beside them.
LONG_WORK = 3.0
# Of quicker work the median of so many calls counts, or of those that fit into so many s: where a thousand cases
# follow, a stall of 20 ms in the only call would take 20 s from the training.
CALLS, CALLS_SECONDS = 5, 0.5
T = TypeVar("T")


@dataclass(frozen=True)
class Cuts:
    """What is done without after a training, because the minutes end.

    overlap: of windows in place of the planned one; None where that stays
    tuned:   cases of each part that decide at most; None for all
    looking: s that a gate may look at training cases; None where the usual time is enough
    scoring: s that the first test case is believed to take
    end:     s after the command's start by which all test cases must be scored; None where all of them are
    """

    overlap: float | None = None
    tuned: int | None = None
    looking: float | None = None
    scoring: float = 0.0
    end: float | None = None

    def of(self, cases: Sequence[Case]) -> Sequence[Case]:
        """The cases of a part that decide, from all over it."""
        return cases if self.tuned is None else _run_trainings.evenly(cases, self.tuned)

    def allows(self, seconds: float, each: float) -> bool:
        """Whether another test case fits, of which each takes so many s; seconds: since the command's start."""
        return self.end is None or seconds + each <= self.end


UNCUT = Cuts()


@dataclass(frozen=True, eq=False)
class Minutes:
    """The minutes of a run: what follows its trainings, and how the rest is dealt among these.

    minutes:   of the run
    case:      one like those that are predicted, see `case_of_mean_size`
    selecting: how many cases are tuned on
    tested:    (cases, models that predict each of them) of every evaluation
    looked_at: how many cases that did not train the gates look at
    looking:   how many training cases each gate looks at where there is time
    fitting:   s of what is fitted to numbers: to covariates alone, and what voxels say of their probabilities
    networks:  how many predict each case, where that is known before
    known:     predictions among all these for which the outputs of the network are known
    began:     s after the command's start at which the first step is expected
    drawn:     cases of which an evaluation draws pictures; it predicts them once more where all predictions together
               have more voxels than `kept`
    """

    minutes: float
    case: Case
    selecting: int
    tested: Sequence[tuple[int, int]]
    looked_at: int = 0
    looking: Sequence[int] = ()
    fitting: float = 0.0
    networks: int = 1
    known: int = 0
    drawn: int = 0
    began: float = 0.0
    kept: float = math.inf

    def costs(self, model: Model) -> SecondsPerCase:
        """Costs of a case by a model, measured."""
        return measured_costs(model, self.case).of_networks(self.networks)

    def predicting(self, model: Model) -> tuple[float, float]:
        """s of a prediction by a model, measured, and of these s in which windows pass the network."""
        _, seconds, windows = predicted(model, sample_of(model, self.case))
        return self.networks * seconds, self.networks * windows

    def seconds(self, costs: SecondsPerCase) -> float:
        """s of all that follows training: calibration, gate, scores, pictures, the report."""
        a_case, a_look = costs.predict, costs.predict - costs.refine
        usual = looking_seconds(self.minutes, len(self.looking))
        most = longest_looking(self.minutes, len(self.looking))
        seconds = REPORT_SECONDS + self.fitting + self.selecting * (a_case + costs.tune) + self.looked_at * a_look
        seconds -= self.known * costs.network
        seconds += sum(min(count * a_look, max(FEWEST_LOOKED * a_look, usual), most) for count in self.looking)
        for cases, models in self.tested:
            again = 0 if cases * costs.voxels <= self.kept else min(cases, self.drawn)
            seconds += (cases + again) * models * a_case + cases * costs.score
        return seconds

    def end(self, costs: SecondsPerCase, now: float = 0.0) -> float:
        """s after the command's start by which all training must end; now: s after it at which that is asked."""
        return self._end(self.seconds(costs), costs, now)

    def first_end(self, fresh: SecondsPerCase) -> float:
        """The same before anything is learnt: fresh weights predict as fast as any, but their scores say little.

        Predictions are believed as measured, scores up to a share.
        """
        predictions = self.seconds(replace(fresh, score=0.0, tune=0.0))
        after = min(self.seconds(fresh), max(predictions, DOUBTED_SHARE * 60 * self.minutes))
        return self._end(after, replace(fresh, score=0.0))

    def _end(self, after: float, costs: SecondsPerCase, now: float = 0.0) -> float:
        end = 60 * self.minutes * (1 - RESERVE)
        most = max(FREE_SECONDS, AFTER_SHARE * (end - self.began))
        one = costs.without_overlap
        if after > most and one.predict + one.score > min(most, end - now) - REPORT_SECONDS:
            return end - REPORT_SECONDS  # not even one case can be scored
        return end - min(after, most)

    def cuts(self, costs: SecondsPerCase, now: float) -> Cuts:
        """What is done without after training, so that it ends in time: overlap of windows first, and then cases.

        now: s since the command's start, when training has ended
        """
        end = 60 * self.minutes * (1 - RESERVE)
        if self.seconds(costs) <= max(end - now, FREE_SECONDS):
            return Cuts()
        overlap, thinned = 0.0 if costs.apart < 1 else None, costs.without_overlap
        if self.seconds(thinned) <= end - now:
            return Cuts(overlap)
        left = max(0.0, end - now - REPORT_SECONDS - self.fitting)
        # Cases that decide are also those at which the gate looks.
        tuned = int(TUNED_SHARE * left / (2 * thinned.predict + thinned.tune))
        looking = LOOKED_SHARE * left * (LOOKED_SHARE * left >= thinned.predict - thinned.refine)
        return Cuts(overlap, tuned, looking, thinned.predict + thinned.score, end - REPORT_SECONDS)

    def networks_in_time(self, planned: Decision, costs: SecondsPerCase, now: float, seconds_of_one: float) -> Decision:
        """Number of networks for which there is time, the first included.

        planned: why their number was left open
        now:     s since the command's start
        seconds_of_one:    s that one network took, with those of its inner folds
        """
        left, count = 0.0, 1
        for several in range(MOST_NETWORKS, 1, -1):
            predicted = costs.of_networks(several)
            left = self.end(predicted) - now
            if predicted.predict <= PATIENCE and (several - 1) * seconds_of_one <= left:
                count = several
                break
        because = (
            f"one took {seconds_of_one:.0f} s to train and predicts a case in {costs.predict:.2f} s, "
            f"where all together may take {PATIENCE:g} s; after the first {max(0.0, left):.0f} s were left"
        )
        return Decision(count, f"{planned.because}: {because}", planned.source)

    def several(self, costs: SecondsPerCase) -> SeveralNetworks | None:
        """The networks for every voxel that may share the time of one whose plan leaves their number open.

        costs: of a prediction by fresh weights
        """
        most = int(min(MOST_NETWORKS, PATIENCE / max(costs.predict, PATIENCE / MOST_NETWORKS)))
        extra = self.seconds(costs.of_networks(2)) - self.seconds(costs)
        return SeveralNetworks(most, extra) if most > 1 else None

    def fewer_views(self, plan: Plan, costs: SecondsPerCase) -> Decision | None:
        """To see no window mirrored, where that would take too much of the time; None where the plan stays.

        What was set by hand stays, and so does what no clock may decide.
        """
        flips = plan.decision(VIEWS)
        if not flips.value or flips.because == BY_HAND or plan["training.deterministic"]:
            return None
        following = self.seconds(replace(costs, score=0.0, tune=0.0)) - REPORT_SECONDS
        if following <= FOLLOWING_SHARE * 60 * self.minutes:
            return None
        because = (
            f"with {2 ** len(flips.value)} views of each window the predictions after training would take "
            f"{following:.0f} s, more than {FOLLOWING_SHARE:.0%} of {self.minutes:g} minutes: {AS_STEPS}"
        )
        return Decision([], because)


def training_deadline(training: RunTraining, finished: Sequence[FinishedTraining], began: float, end: float) -> float:
    """s after the command's start by which a training must end: it gets its share of what is left.

    began: s after the command's start
    end:   by which all training must end
    One beside the model never takes longer than one of the model's trainings, however much is left.
    """
    left = 1 - sum(one.training.share for one in finished)
    end_of_training = began + (end - began) * min(1.0, training.share / left)
    if not training.role.stands_beside:
        return end_of_training
    most = next(one.training.share for one in finished if one.training.role.leaves == "model")
    return min(end_of_training, began + most * end)


def cut_plan_to_minutes(
    minutes: Minutes, training: RunTraining, fresh: Callable[[Plan], Model], room: Room, *, now: float, is_given: bool
) -> tuple[dict[str, Decision], SecondsPerCase]:
    """Decisions that give up parts of a plan where its minutes are few, and the costs of the rest, both measured.

    fresh:    a model by a plan whose weights have learnt nothing
    room:     what a plan must fit
    now:      s after the command's start
    is_given: whether it starts from the weights of another model
    """

    def with_fewer_views(plan: Plan) -> tuple[Plan, SecondsPerCase]:
        costs = minutes.costs(fresh(plan))
        if (views := minutes.fewer_views(plan, costs)) is None:
            return plan, costs
        plan = plan.with_decision(VIEWS, views)
        (predict, windows), prepare = minutes.predicting(fresh(plan)), costs.predict - costs.network
        return plan, replace(costs, predict=predict, network=max(0.0, predict - prepare), windows=windows)

    decided = dict[str, Decision]()
    plan, costs = with_fewer_views(training.plan)
    left = (minutes.first_end(costs) - max(now, minutes.began)) * training.share
    if (size := narrower_network(replace(training, plan=plan), left, is_given=is_given)) is not None:
        fitted = room.fit_plan(plan.with_decision(SIZE, size))
        decided = {SIZE: size, MEMORY: fitted.decision(MEMORY)}
        plan, costs = with_fewer_views(training.plan.with_decisions(decided))
    if (views := plan.decision(VIEWS)) != training.plan.decision(VIEWS):
        decided[VIEWS] = views
    return decided, costs


def narrower_network(training: RunTraining, left: float, *, is_given: bool) -> Decision | None:
    """A narrower network, where there is time for few steps of the planned one; None where the plan stays.

    What was set by hand stays, what weights are loaded into or a search has found, the width that both stages of a
    cascade have, and that of an earlier session, which has halved it already.
    left:     s that its training has
    is_given: whether it starts from the weights of another model
    """
    plan = training.plan
    size = plan.decision(SIZE)
    if is_given or plan["network.pretrained"] is not None or plan["preprocessing.cascade"] is not None:
        return None
    if size.source.startswith(SEARCH) or size.because == BY_HAND or size.because.endswith(NARROWER):
        return None
    return step_probe.narrower_width(training.settings, left)


def case_of_mean_size(cases: Sequence[Case], fingerprint: Fingerprint, *, spaced: bool = False) -> Case:
    """Return the case whose size is nearest the mean: where sizes differ, so does what a case takes.

    spaced: whether the network sees all of them at one spacing, so that their lengths decide, and not their voxels
    """

    def size(facts: CaseFacts) -> float:
        """Voxels of a case, or its extent in mm³."""
        return math.prod(facts.shape) * (math.prod(facts.steps) if spaced else 1)

    voxels = {facts.id: size(facts) for facts in fingerprint.cases}
    mean = statistics.fmean(voxels.values())
    return min(cases, key=lambda case: abs(voxels[case.id] - mean))


def fresh_model(chosen: PlanSettings) -> Model:
    """The plan's model with weights that have learnt nothing."""
    return model_with_weights(
        torch_networks.build_module(chosen.task, chosen.architecture).eval().to(chosen.training.device), chosen
    )


def model_with_weights(module: Module, chosen: PlanSettings) -> Model:
    """The plan's model with the weights of this module, which lies on a device."""
    network = TorchNetwork(module, str(next(module.parameters()).device))
    return Model(chosen.task, chosen.preprocessing, chosen.inference, Networks(network, chosen.architecture))


def fitting_seconds(task: Task, minutes: float, trainings: int) -> float:
    """s that fits to voxels take, of each training and of the mean of several, as far as a share of the minutes goes.

    What one case takes is measured, and no single case can be fitted to.
    """
    is_dense = any(head.is_dense and not head.holds_boxes for head in task.heads.values())
    if not is_dense or not any(name.endswith("calibration") for name in task_settings.found_after_training(task)):
        return 0.0
    return min((trainings + (trainings > 1)) * FITTING_SECONDS, FITTING_SHARE * 60 * minutes)


def covariates_seconds(trainings: Sequence[RunTraining]) -> float:
    """s that fits to the covariates alone will take, of one training or of each fold."""
    return sum(
        COVARIATES_SECONDS * len(Context.from_settings(one.settings.network.context)) * len(one.cases["train"])
        for one in trainings
    )


def looking_seconds(minutes: float, trainings: int) -> float:
    """s that the gate of each of so many trainings may take for training cases."""
    return LOOKING_SHARE * 60 * minutes / max(1, trainings)


def longest_looking(minutes: float, trainings: int) -> float:
    """s after which the gate of each of so many trainings looks at no further training case, however few it has seen.

    A single case is never longer than that by much: those out of all proportion are left out of a run.
    """
    return LOOKING_MOST * 60 * minutes / max(1, trainings)


@dataclass(frozen=True)
class SearchLength:
    """Length of a search and of its trials.

    seconds: of a trial; None where its steps decide
    steps:   of a trial; None where its seconds decide
    trials:  how many; None until `ends`, s of the run's clock
    confirming: trainings that confirm what was found
    """

    seconds: float | None
    steps: int | None
    trials: int | None
    ends: float | None
    confirming: int = CONFIRMING

    @classmethod
    def from_settings(cls, chosen: PlanSettings, began: float, folds: int, inner: int = 1) -> SearchLength:
        """The length that a plan asks for.

        began: s of the run's clock at which the search began
        folds: that share its minutes
        inner: of how many trainings each confirmation is
        """
        confirming, search, training = CONFIRMING * inner, chosen.search, chosen.training
        budget = None if search.minutes is None else 60 * search.minutes / folds
        ends = None if search.trials is not None or budget is None else began + budget
        steps = search.steps
        if steps is None and training.steps is not None:
            steps = max(FEWEST_STEPS, training.steps // STEPS_SHARE)
        if steps is not None:
            return cls(None, min(steps, training.steps or steps), search.trials, ends, confirming)
        assert budget is not None and training.minutes is not None and search.minutes is not None  # noqa: S101 - as checked
        if search.trials is not None:
            return cls(budget / (search.trials + confirming), None, search.trials, None, confirming)
        seconds_of_trial = max(budget / (MANY + confirming), min(LONGER, budget / (FEW + confirming - CONFIRMING)))
        return cls(
            min(seconds_of_trial, 60 * (training.minutes - search.minutes) / folds), None, None, ends, confirming
        )

    def has_room(self, done: int, longest: float, now: float) -> bool:
        """Whether another trial fits, beside those that confirm what was found.

        longest: s of the longest trial so far
        """
        if not done:
            return True
        if self.trials is not None:
            return done < self.trials
        return now + (1 + self.confirming) * max(longest, self.seconds or 0.0) <= (self.ends or 0.0)


@dataclass(frozen=True, eq=False)
class RunStages:
    """The stages of a run that have ended, one after the other.

    clock: of the run
    ends:  {stage: s of the clock at its end}
    """

    clock: CommandClock
    ends: dict[str, float] = field(default_factory=dict)

    def mark_end(self, name: str) -> None:
        """A stage has ended, and the next begins."""
        self.ends[name] = self.clock.seconds

    @property
    def seconds(self) -> dict[str, float]:
        """{stage: s that it took}, first those of earlier sessions of a resumed run."""
        ends = {**({EARLIER: self.clock.spent} if self.clock.spent else {}), **self.ends}
        return {name: end - start for (name, end), start in zip(ends.items(), [0.0, *ends.values()], strict=False)}


def stages_in_words(seconds: Mapping[str, float]) -> str:
    """The stages of a run as one line of the report."""
    words = {name: f"{one / 60:.1f} min" if one >= LONG_STAGE else f"{one:.0f} s" for name, one in seconds.items()}
    return ", ".join(f"{name} {took}" for name, took in words.items())


# What a case costs to predict and to score: measured on a few of its windows, and scaled to all of them.


@dataclass(frozen=True, eq=False)
class Sample:
    """A case, or the middle of a large one, on which costs are measured.

    windows: of the whole case; None where all of it is there
    voxels:  how many times as many the whole case has
    """

    case: Case
    windows: int | None = None
    voxels: float = 1.0


@dataclass(eq=False)
class WindowTimer:
    """A network that measures how long windows take from their way into it until they are merged.

    seconds: of all windows of a prediction
    done:    how many these were
    """

    network: Network
    seconds: float = 0.0
    done: int = 0
    _mark: float | None = None

    def __call__(self, batch: NDArray[np.float32], *context: NDArray[np.float32]) -> Mapping[str, Array]:
        self._mark = time.monotonic() if self._mark is None else self._mark
        return self.network(batch, *context)

    def encoded(self, tiles: NDArray[np.float32]) -> tuple[Array, ...]:
        """Features of tiles, which are the windows of a bag."""
        self._mark = time.monotonic() if self._mark is None else self._mark
        return cast("BagNetwork", self.network).encoded(tiles)

    def pooled(self, features: Sequence[Array], places: NDArray[np.int64]) -> Mapping[str, Array]:
        """The answer of a bag."""
        return cast("BagNetwork", self.network).pooled(features, places)

    def passed(self, done: int, _: int) -> None:
        """Take the time of windows that are done; of the parts of a result that come back in between nothing."""
        if self._mark is not None:
            self.seconds += time.monotonic() - self._mark
        self.done, self._mark = done, None


def measured_costs(model: Model, case: Case) -> SecondsPerCase:
    """Costs of a case as this machine does it now, mirrored views and all.

    Fresh weights predict ragged surfaces, which take far longer to score (hippocampus: 0.33 s, 0.013 s once trained):
    what is measured with them is not wholly believed, and measured anew half-way.
    """
    sample = sample_of(model, case)
    apart = 1.0 if sample.windows is None else windows_seen(model, case, 0.0) / sample.windows
    prediction, predict, windows = predicted(model, sample)
    _, score = timed(lambda: model.task.score([prediction], [sample.case]))
    _, tune = timed(lambda: fitting.with_fitted_calibration(model.task, PredictedCases([prediction], [sample.case])))
    again = predict
    if all(head.is_vector for head in model.task.heads.values()):  # others may not fit into the memory for them
        _, again, _ = predicted(model.keeping(KeptOutputs()), sample)
    refine = 0.0
    if model.task.refines:
        _, unrefined, _ = predicted(replace(model, request=replace(model.request, refined=False)), sample)
        refine = max(0.0, predict - unrefined)
    return SecondsPerCase(
        predict,
        score * sample.voxels,
        tune * sample.voxels,
        round(math.prod(prediction.geometry.shape) * sample.voxels),
        max(0.0, predict - again),
        refine,
        windows,
        apart,
    )


def predicted(model: Model, sample: Sample) -> tuple[Prediction, float, float]:
    """The prediction of a sample; s that the whole case takes, and s of these in which windows pass the network."""
    timers = list[WindowTimer]()
    model = replace(model, request=replace(model.request, drawn=True))

    def predict() -> Prediction:
        timers.append(WindowTimer(model.networks.run))
        return model.with_run(timers[-1]).predict(sample.case, progress=timers[-1].passed)

    if sample.windows is not None:
        predict()  # what the first windows allocate would be multiplied
    prediction, seconds = timed(predict)
    in_windows = min(timers[-1].seconds, seconds)
    windows = in_windows if sample.windows is None else in_windows * sample.windows / max(1, timers[-1].done)
    return prediction, windows + (seconds - in_windows) * sample.voxels, windows


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what work makes, and the s that it takes once it runs steadily."""
    marks = [time.monotonic()]
    result = work()
    marks.append(time.monotonic())
    if marks[-1] - marks[0] < LONG_WORK:
        marks = marks[1:]
        while len(marks) <= CALLS and (len(marks) == 1 or marks[-1] - marks[0] < CALLS_SECONDS):
            work()
            marks.append(time.monotonic())
    return result, statistics.median(end - start for start, end in pairwise(marks))


def sample_of(model: Model, case: Case) -> Sample:
    """The middle of a case of many windows, as large as a few of them or a batch, with what its masks have there.

    The whole case where it has few windows, or is a clip or a pair, or where its images and masks have several grids.
    """
    looking, grid = Looking.from_model(model), next(iter(case.images.values())).geometry
    spatial, axes = _spatial(model, grid), grid.to_canonical[0]
    is_resized = model.preprocessing.shape is not None or len(axes) != len(spatial)
    if is_resized or model.task.refines or model.task.takes_prompts or looking.windows(grid) <= FEW_WINDOWS:
        return Sample(case)
    part = slide.part_of_windows(spatial, looking.patch, looking.overlap, max(WINDOWS, model.inference.batch))
    shares = dict(zip(axes, np.divide(part, spatial).tolist(), strict=True))
    sizes = [min(size, math.ceil(size * shares[axis])) for axis, size in enumerate(grid.shape)]
    starts = [(size - length) // 2 for size, length in zip(grid.shape, sizes, strict=True)]
    region = tuple(slice(start, start + length) for start, length in zip(starts, sizes, strict=True))
    images, references = ({name: one[name] for name in one} for one in (case.images, case.references))
    drawn = [one for one in (*images.values(), *references.values()) if isinstance(one, Image)]
    if any(one.frames is not None or not one.geometry.equals(grid) for one in drawn):
        return Sample(case)
    cut = replace(case, images=_cut(images, region), references=_cut(references, region))
    windows = windows_seen(model, case, looking.overlap)
    return Sample(cut, windows, math.prod(grid.shape) / math.prod(sizes))


def windows_seen(model: Model, case: Case, overlap: float) -> int:
    """How many windows with an overlap the network sees of a case, without those in the air beside a body."""
    image = channel_stack.stack_images(case.images, case.id)
    mask = None if model.inference.skip is None else coarse_mask.body_of(image)
    (axes, flips), grid = image.geometry.to_canonical, image.geometry.shape
    spatial = _spatial(model, image.geometry)

    def sees(window: Region) -> bool:
        """Whether a window of the network's grid holds something of the body."""
        region = [slice(0, size) for size in grid]
        for part, axis, is_turned, size in zip(window, axes, flips, spatial, strict=True):
            low, high = (max(0, size - part.stop), size - part.start) if is_turned else (part.start, part.stop)
            region[axis] = slice(low * grid[axis] // size, -(-min(high, size) * grid[axis] // size))
        return mask is None or mask.touches(tuple(region))

    skipping = None if mask is None else Skipping(sees, lambda name, channels: np.zeros(channels, np.float32))
    return slide.window_count(spatial, model.inference.patch, overlap, merge=model.task.merge, skipping=skipping)


def _spatial(model: Model, grid: Geometry) -> tuple[int, ...]:
    return proportion.prepared_shape(
        model.preprocessing, grid, model.inference.patch, model.preprocessing.held_parts(grid).shape
    )


def _cut(values: Mapping[str, Any], region: Region) -> dict[str, Any]:
    """The same with what images have in a region."""
    places, drawn = (slice(None), *region), {name for name, one in values.items() if isinstance(one, Image)}
    return {
        name: one.with_pixels(one.data[places].copy(order="K"), one.geometry.crop(region)) if name in drawn else one
        for name, one in values.items()
    }

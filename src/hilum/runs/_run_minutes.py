"""The minutes of a run: what each step of it costs, the deadline of each training, and what few minutes give up."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from hilum.planning import PlanSettings
from hilum.planning.search_domains import Room
from hilum.runs import _case_costs, _run_trainings
from hilum.runs._case_costs import SecondsPerCase
from hilum.runs._run_trainings import SEARCH, FinishedTraining, RunTraining
from hilum.runtime import Context, Model, torch_networks
from hilum.runtime.torch_networks import Networks, TorchNetwork
from hilum.tasks import Task, task_settings
from hilum.training.length import step_probe
from hilum.training.length.schedule import FEWEST_STEPS
from hilum.training.length.step_probe import NARROWER
from hilum.training.session_length import SeveralNetworks
from hilum.training.training_state import CommandClock
from hilum.values import BY_HAND, Case, CaseFacts, Decision, Fingerprint, Plan

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
# a case takes 10 s, the 200 that make a whole gate would take half an hour. And what they may take at most, however few
# of them have been looked at by then: a case out of all proportion to the others is left out of a run.
LOOKING_SHARE, FEWEST_LOOKED, LOOKING_MOST = 0.05, 30, 0.5
# Of the minutes, what scores with images left out may take; where they would take more, cases are scored as they are
# alone.
SUBSETS_SHARE = 0.1
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


@dataclass(frozen=True)
class Cuts:
    """What is done without after a training, because the minutes end.

    overlap: of windows in place of the planned one; None where that stays
    tuned:   cases of each part that decide at most; None for all
    looking: s after which a gate looks at no further training case, once it has seen the fewest, and whatever it has
             seen
    scoring: s that the first test case is believed to take
    end:     s after the command's start by which all test cases must be scored; None where all of them are
    subsets: whether they are scored with images left out too
    """

    overlap: float | None = None
    tuned: int | None = None
    looking: tuple[float, float] = (math.inf, math.inf)
    scoring: float = 0.0
    end: float | None = None
    subsets: bool = True

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
    pictured:  cases of which an evaluation draws pictures; it predicts them once more where all predictions together
               have more voxels than `kept`
    subsets:   as `tested`, of evaluations with images left out
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
    pictured: int = 0
    began: float = 0.0
    kept: float = math.inf
    subsets: Sequence[tuple[int, int]] = ()

    @property
    def cuts_of_gates(self) -> Cuts:
        """Nothing is done without, but for training cases at which gates would look for longer than their share."""
        each = 60 * self.minutes / max(1, len(self.looking))
        return Cuts(looking=(LOOKING_SHARE * each, LOOKING_MOST * each))

    @property
    def last(self) -> float:
        """s after the command's start at which all is over."""
        return 60 * self.minutes * (1 - RESERVE)

    def costs(self, model: Model) -> SecondsPerCase:
        """Costs of a case by a model, measured."""
        return _case_costs.measured_costs(model, self.case).of_networks(self.networks)

    def fresh_costs(self, model: Model) -> SecondsPerCase:
        """The same by a model that has learnt nothing: it predicts as fast as any, but its scores say little.

        Predictions are believed as measured, scores as far as a share of the minutes goes.
        """
        costs = self.costs(model)
        predictions = self.predictions(costs)
        scores, most = self.seconds(costs) - predictions, max(0.0, DOUBTED_SHARE * 60 * self.minutes - predictions)
        believed = min(1.0, most / scores) if scores else 1.0
        return replace(costs, score=believed * costs.score, tune=believed * costs.tune)

    def predictions(self, costs: SecondsPerCase) -> float:
        """s of all that follows training, but for scores."""
        return self.seconds(replace(costs, score=0.0, tune=0.0))

    def seconds(self, costs: SecondsPerCase) -> float:
        """s of all that follows training: calibration, gate, scores, pictures, the report."""
        a_case, a_look = costs.predict, costs.predict - costs.refine
        usual, most = self.cuts_of_gates.looking
        seconds = REPORT_SECONDS + self.fitting + self.selecting * (a_case + costs.tune) + self.looked_at * a_look
        seconds -= self.known * costs.network
        seconds += sum(min(count * a_look, max(FEWEST_LOOKED * a_look, usual), most) for count in self.looking)
        for cases, models in self.tested:
            again = 0 if cases * costs.voxels <= self.kept else min(cases, self.pictured)
            seconds += (cases + again) * models * a_case + cases * costs.score
        return seconds + self.subset_seconds(costs) * self.scores_subsets(costs)

    def subset_seconds(self, costs: SecondsPerCase) -> float:
        """s of all scores with images left out."""
        return sum(cases * (models * costs.predict + costs.score) for cases, models in self.subsets)

    def scores_subsets(self, costs: SecondsPerCase) -> bool:
        """Whether there is time for scores with images left out."""
        return self.subset_seconds(costs) <= SUBSETS_SHARE * 60 * self.minutes

    def end(self, costs: SecondsPerCase, now: float = 0.0) -> float:
        """s after the command's start by which all training must end; now: s after it at which that is asked."""
        after, most = self.seconds(costs), max(FREE_SECONDS, AFTER_SHARE * (self.last - self.began))
        one = costs.without_overlap
        if after > most and one.predict + one.score > min(most, self.last - now) - REPORT_SECONDS:
            return self.last - REPORT_SECONDS  # not even one case can be scored
        return self.last - min(after, most)

    def cuts(self, costs: SecondsPerCase, now: float) -> Cuts:
        """What is done without after training, so that it ends in time: overlap of windows first, and then cases.

        now: s since the command's start, when training has ended
        """
        uncut, left = replace(self.cuts_of_gates, subsets=self.scores_subsets(costs)), self.last - now
        if self.seconds(costs) <= max(left, FREE_SECONDS):
            return uncut
        overlap, thinned = 0.0 if costs.apart < 1 else None, costs.without_overlap
        if self.seconds(thinned) <= left:
            return replace(uncut, overlap=overlap)
        left = max(0.0, left - REPORT_SECONDS - self.fitting)
        # Cases that decide are also those at which the gate looks.
        tuned = int(TUNED_SHARE * left / (2 * thinned.predict + thinned.tune))
        looking = LOOKED_SHARE * left * (LOOKED_SHARE * left >= thinned.predict - thinned.refine)
        looking /= max(1, len(self.looking))
        scoring, end = thinned.predict + thinned.score, self.last - REPORT_SECONDS
        return Cuts(overlap, tuned, (looking, looking), scoring, end)

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
        following = self.predictions(costs) - REPORT_SECONDS
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
        costs = minutes.fresh_costs(fresh(plan))
        if (views := minutes.fewer_views(plan, costs)) is None:
            return plan, costs
        return plan.with_decision(VIEWS, views), costs.of_windows(0.5 ** len(plan[VIEWS]))

    decided = dict[str, Decision]()
    plan, costs = with_fewer_views(training.plan)
    left = (minutes.end(costs) - max(now, minutes.began)) * training.share
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

"""One training of a run, and what is known of it once it has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeVar

from hilum.planning import PlanSettings, plan_checks
from hilum.runs._case_costs import SecondsPerCase
from hilum.runtime.model_schema import ModelOrigin
from hilum.training.search_study import StudyTrial
from hilum.training.training_state import TrainingOutcome
from hilum.values import Decision, Plan, Split

if TYPE_CHECKING:
    from torch import Tensor

# Folders of a run: the control without covariates, inner folds, networks of other seeds, configurations that are
# compared, the search before a training.
IMAGE_ONLY, INNER, MORE, CONFIGURED, SEARCH = "image_only", "inner", "more", "configurations", "search"
# The decision on how many networks make the model.
NETWORKS = "training.networks"

Item = TypeVar("Item")


def evenly(items: Sequence[Item], most: int) -> Sequence[Item]:
    """Return so many items at most, evenly from first to last."""
    return items[:: -(-len(items) // most) or 1] if most > 0 else items[:0]


# What a training leaves to the run: its model or that of a fold, the control of that model, predictions of training
# cases that it has not seen, a model that is compared with others. Nothing where only other trainings go by it.
Leaving = Literal["model", "control", "unseen", "candidate", "nothing"]


@dataclass(frozen=True)
class Role:
    """The purpose of a training, and all that a run asks of it.

    name:          as `trainings.json` has it
    leaves:        what its network is used for once all trainings have ended
    is_of_search:  whether the study of a search fits it, before the minutes are dealt
    trains:        whether it trains a network; else it states what the trainings before it came to
    stands_beside: whether it follows the model of its fold, whose costs set its deadline, and never takes longer
    recounts:      whether its deadline is counted again half-way, by what its own network then costs
    repeats:       whether it is another training from another seed: with as many steps, so that it has no deadline
    has_repeats:   whether such trainings may follow it
    decides:       whether the plan of the run takes what is decided while it runs
    starts_given:  whether it starts from the weights that the run was given
    shares_plan:   whether its folder and those beside it have one plan, completed by the last `fold` of its record
    """

    name: str
    leaves: Leaving = "nothing"
    is_of_search: bool = False
    trains: bool = True
    stands_beside: bool = False
    recounts: bool = True
    repeats: bool = False
    has_repeats: bool = False
    decides: bool = False
    starts_given: bool = True
    shares_plan: bool = False


@dataclass(frozen=True, eq=False)
class RunTraining:
    """One fit: who learns from whom, for how long.

    name:   its folder below the run: "", "fold_0", "inner/fold_2", "image_only"
    cases:  ids; those of "test" and "calibration" it never sees
    share:  of the minutes for all trainings
    what:   its name in words
    fold:   the fold of the run that it belongs to; None where the run has one training
    record: goes into its model beside what is recorded of the data
    joins:  name of the training whose model is the mean of its own network and this one
    """

    name: str
    role: Role
    plan: Plan
    cases: Mapping[Split, tuple[str, ...]]
    share: float
    what: str = "training"
    fold: int | None = None
    record: ModelOrigin = field(default_factory=ModelOrigin)
    joins: str | None = None

    @cached_property  # to check them is to build the network, though without memory
    def settings(self) -> PlanSettings:
        """The settings that its plan decides."""
        return plan_checks.checked_settings(self.plan)

    def below(self, folder: str) -> str:
        """The name of a training in a folder of this one's."""
        return f"{self.name}/{folder}" if self.name else folder


@dataclass(frozen=True, eq=False)
class TrialResult:
    """The result of a trial of a search.

    tried:   as the study keeps it; None where a trial is confirmed by another seed
    numbers: of the validation cases, by which trials are compared
    asked:   number and plan of the trial that is asked for next; None where no time is left for one
    """

    tried: StudyTrial | None
    numbers: Mapping[str, Tensor] = field(default_factory=dict)
    asked: tuple[int, Plan] | None = None


@dataclass(frozen=True, eq=False)
class FinishedTraining:
    """A training that has ended.

    outcome:  its checkpoint, steps, batch; None of a search, and of a trial that was given up
    seconds:  that it took, in all sessions
    ended:    s of the run's clock
    by_clock: whether the minutes decided its length
    costs:    s that a prediction by its model takes; None where nobody asked
    decided:  by a search, for the training that follows
    trial:    its result, of a trial
    """

    training: RunTraining
    outcome: TrainingOutcome | None
    seconds: float = 0.0
    ended: float = 0.0
    by_clock: bool = False
    costs: SecondsPerCase | None = None
    decided: Mapping[str, Decision] = field(default_factory=dict)
    trial: TrialResult | None = None

    @property
    def model_outcome(self) -> TrainingOutcome:
        """The outcome of a training that leaves a model."""
        assert self.outcome is not None  # noqa: S101 - only searches and trials have none
        return self.outcome

    @property
    def trial_result(self) -> TrialResult:
        """The result of a trial."""
        assert self.trial is not None  # noqa: S101 - asked of trials
        return self.trial

"""The length of a search before a training, and of each of its trials."""

from __future__ import annotations

from dataclasses import dataclass

from isocenter.planning import settings
from isocenter.training import FEWEST_STEPS
from isocenter.values import Plan

# The best trial and the plan are trained once more each.
CONFIRMING = 2
# Of a search by minutes a trial has this share, or LONGER s where that leaves time for FEW trials: of much shorter
# trainings little can be told, and with more of them luck grows faster than what is found.
MANY, FEW, LONGER = 16, 6, 60.0
# Of the steps of the training, where they are set and those of a trial are not.
STEPS_SHARE = 4


@dataclass(frozen=True)
class Length:
    """How long a search and its trials are.

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

    def has_room(self, done: int, longest: float, now: float) -> bool:
        """Whether another trial fits, beside those that confirm what was found.

        longest: s of the longest trial so far
        """
        if not done:
            return True
        if self.trials is not None:
            return done < self.trials
        return now + (1 + self.confirming) * max(longest, self.seconds or 0.0) <= (self.ends or 0.0)


def length_of(plan: Plan, began: float, folds: int, inner: int = 1) -> Length:
    """began: s of the run's clock at which the search began; folds: that share its minutes

    inner: of how many trainings each confirmation is
    """
    chosen, confirming = settings(plan), CONFIRMING * inner
    search, training = chosen.search, chosen.training
    budget = None if search.minutes is None else 60 * search.minutes / folds
    ends = None if search.trials is not None or budget is None else began + budget
    steps = search.steps
    if steps is None and training.steps is not None:
        steps = max(FEWEST_STEPS, training.steps // STEPS_SHARE)
    if steps is not None:
        return Length(None, min(steps, training.steps or steps), search.trials, ends, confirming)
    assert budget is not None and training.minutes is not None and search.minutes is not None  # noqa: S101 - as checked
    if search.trials is not None:
        return Length(budget / (search.trials + confirming), None, search.trials, None, confirming)
    each = max(budget / (MANY + confirming), min(LONGER, budget / (FEW + confirming - CONFIRMING)))
    return Length(min(each, 60 * (training.minutes - search.minutes) / folds), None, None, ends, confirming)

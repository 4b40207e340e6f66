"""Rules of a search before the training: its trials, of which this plan is the first."""

from __future__ import annotations

from isocenter.errors import PlanError
from isocenter.planning.sections import Settings
from isocenter.values import Decision


def unsearched() -> dict[str, Decision]:
    """The section "search" where nobody asked for one."""
    return {
        "minutes": Decision(None, "no search was asked for"),
        "trials": Decision(None, "as many as the minutes of a search allow"),
        "configurations": Decision(None, "no comparison of slices with volumes was asked for"),
        "steps": Decision(None, "trials get equal times, or equal shares of the steps where those are set"),
    }


def check_search(settings: Settings) -> None:
    """A search has a length, ends before the run does, and has something to train with that is searched for."""
    search, training = settings.search, settings.training
    if not search.is_on:
        return
    if training.deterministic and search.trials is None:
        raise unending()
    if search.minutes is None and search.steps is None and training.steps is None:
        problem = "neither minutes of a search, nor steps of its trials"
        raise PlanError(problem, "search.steps", "Give --tune MINUTES, or the steps of each trial")
    if training.steps is None and training.minutes is not None and (search.minutes or 0.0) >= training.minutes:
        problem = f"{search.minutes:g} of {training.minutes:g} minutes leave none to train with what was found"
        raise PlanError(problem, "search.minutes", "Give fewer to --tune, or more to --minutes")
    if settings.preprocessing.cascade is not None:
        problem = "each trial would be a cascade of its own, of three trainings"
        raise PlanError(problem, "search.minutes", "Give --set preprocessing.cascade=none, or leave out --tune")


def unending() -> PlanError:
    """The error of a search whose number of trials is open."""
    problem = "no number of trials, which two equal searches need"
    return PlanError(problem, "search.trials", "Give it, as in --set search.trials=20")

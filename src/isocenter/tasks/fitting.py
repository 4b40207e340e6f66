"""Fitting after training: what cases that did not train, or trained, decide of a task, in one order for all kinds.

First what decoding finds by itself, then the calibration of its probabilities and thresholds of calls, then thresholds
of prediction sets, intervals and covering results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from isocenter.tasks.catalogue import build
from isocenter.values import Case, Decision, Prediction, Split

if TYPE_CHECKING:
    from isocenter.tasks.task import Task

# Whose cases decide: none of them trained, they trained, or they are of another site.
Origin = Literal["unseen", "training", "site"]
# Ends of the names of settings that hold only beside the other settings with which they were found.
PROMISES = ("conformal", "covering")


@dataclass(frozen=True, eq=False)
class Evidence:
    """Cases with what a network predicts of them, in the same order.

    predictions: before anything was decided by these cases
    folds:       of each case the number of the fold that predicted it; empty where one model predicted all
    """

    predictions: Sequence[Prediction] = ()
    cases: Sequence[Case] = ()
    folds: Sequence[int] = ()

    @classmethod
    def joined(cls, each: Sequence[Evidence]) -> Evidence:
        """All of them as one, the number of each as the fold of its cases."""
        predictions = [prediction for one in each for prediction in one.predictions]
        cases, folds = list[Case](), list[int]()
        for number, one in enumerate(each):
            cases += one.cases
            folds += [number] * len(one.cases)
        return cls(predictions, cases, folds)


def deciding_part(task: Task, parts: Mapping[Split, Sized]) -> Split | None:
    """The part whose cases decide what a task leaves open: the first of its kind's that has cases; None without any."""
    return next((name for name in task.traits.tuned_on if parts.get(name)), None)


def fitted(
    task: Task,
    deciding: Evidence,
    *,
    origin: Origin = "unseen",
    because: str = "",
    otherwise: Task | None = None,
    conformal: Evidence | Callable[[Task], Evidence] | None = None,
    by_fold: Evidence | None = None,
) -> tuple[Task, dict[str, Decision]]:
    """The task with all that these cases find, and the decisions.

    because:   end of the reasons of what is decided first, such as which network predicted which case
    otherwise: the task whose settings hold where no case decides, but for those of sets, which are found anew
    conformal: other cases for sets, intervals and covering results; a function predicts cases that decide nothing else
               with the task so far. None: the deciding cases, unless they trained
    by_fold:   cases that each fold has not seen, for sets and intervals by what each fold says
    """
    task, made = decided(task, deciding, origin)
    made = {name: replace(one, because=one.because + because) for name, one in made.items()}
    task = task if otherwise is None else _filled(task, otherwise)
    exact = callable(conformal)
    if callable(conformal):
        conformal = conformal(task)
    elif conformal is None:
        conformal = Evidence() if origin == "training" else deciding
    if conformal.cases and (assured := task.scoring.assured) is not None:
        task, sets = assured(conformal.predictions, conformal.cases, exact=exact)
        made |= sets
    if by_fold is not None and (crossed := task.scoring.crossed) is not None:
        task, sets = crossed(by_fold.predictions, by_fold.cases, by_fold.folds)
        made |= sets
    return task, made


def decided(task: Task, deciding: Evidence, origin: Origin = "unseen") -> tuple[Task, dict[str, Decision]]:
    """The task with what decoding finds by itself, a calibration and thresholds of calls, and those decisions."""
    if not deciding.cases:
        return task, {}
    by_origin = {"training": task.scoring.by_training, "site": task.scoring.at_site}
    return (by_origin.get(origin) or task.tuned)(deciding.predictions, deciding.cases)


def found_settings(task: Task) -> list[str]:
    """Of the settings that cases find after training those that they have found."""
    return [name for name in task.traits.tunes if task.settings[name] is not None]


def _filled(task: Task, before: Task) -> Task:
    """The task with what no case could decide as it was before."""
    open_yet = [name for name in found_settings(before) if task.settings[name] is None and not name.endswith(PROMISES)]
    former = {name: before.settings[name] for name in open_yet}
    return build({"name": task.name, **task.settings, **former}) if former else task

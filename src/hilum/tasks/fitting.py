"""Fitting after training: what cases that did not train, or trained, decide of a task, in one order for all kinds.

First what decoding finds by itself, then the calibration of its probabilities and thresholds of calls, then thresholds
of prediction sets, of intervals, and of masks, boxes and objects that miss little.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hilum.belief.certainties import HOLD_TOGETHER
from hilum.tasks import properties, task_catalogue, task_settings
from hilum.values import Case, Decision, Prediction, Split

if TYPE_CHECKING:
    from hilum.tasks.task import Origin, Task


@dataclass(frozen=True, eq=False)
class PredictedCases:
    """Cases with what a network predicts of them, in the same order.

    predictions: before anything was decided by these cases
    folds:       of each case the number of the fold that predicted it; empty where one model predicted all
    """

    predictions: Sequence[Prediction] = ()
    cases: Sequence[Case] = ()
    folds: Sequence[int] = ()

    @classmethod
    def from_parts(cls, parts: Sequence[PredictedCases]) -> PredictedCases:
        """All of them as one, the number of each as the fold of its cases."""
        predictions = [prediction for part in parts for prediction in part.predictions]
        cases = list[Case]()
        folds = list[int]()
        for number, part in enumerate(parts):
            cases += part.cases
            folds += [number] * len(part.cases)
        return cls(predictions, cases, folds)

    def of_part(self, name: str, needs: Collection[str]) -> PredictedCases:
        """Statements of the cases with these references on a part of a task."""
        indices = [place for place, case in enumerate(self.cases) if set(needs) <= set(case.references)]
        folds = [self.folds[place] for place in indices] if self.folds else ()
        return PredictedCases(
            [self.predictions[place].parts[name] for place in indices], [self.cases[p] for p in indices], folds
        )


def deciding_part(task: Task, parts: Mapping[Split, Sized]) -> Split | None:
    """The part whose cases decide what a task leaves open: the first of its kind's that has cases; None without any."""
    return next((name for name in task.tuned_on if parts.get(name)), None)


def fit_task(
    task: Task,
    deciding: PredictedCases,
    *,
    origin: Origin = "unseen",
    because: str = "",
    cut: str = "",
    otherwise: Task | None = None,
    conformal: PredictedCases | Callable[[Task], PredictedCases] | None = None,
    by_fold: PredictedCases | None = None,
) -> tuple[Task, dict[str, Decision]]:
    """The task with all that these cases find, and the decisions.

    because:   end of the reasons of what is decided first, such as which network predicted which case
    cut:       end of the reasons of all that the deciding cases decide, where the clock left some of these out
    otherwise: the task whose settings hold where no case decides, but for those of sets, which are found anew
    conformal: other cases for thresholds of sets; a function predicts cases that decide nothing else with the task so
               far. None: the deciding cases, unless they trained
    by_fold:   cases that each fold has not seen, for sets and intervals by what each fold says
    """
    task, decisions = with_fitted_calibration(task, deciding, origin)
    decisions = _with_reasons(decisions, because + cut)
    task = task if otherwise is None else _fill_undecided(task, otherwise)
    exact = callable(conformal)
    if callable(conformal):
        conformal = conformal(task)
    elif conformal is None:
        conformal = PredictedCases() if origin == "training" else deciding
    task, sets = with_sets(task, conformal, exact=exact)
    decisions |= sets if exact else _with_reasons(sets, cut)
    if by_fold is not None:
        task, sets = with_sets_of_folds(task, by_fold)
        decisions |= _with_reasons(sets, cut)
    return task, decisions


def _with_reasons(decisions: Mapping[str, Decision], end: str) -> dict[str, Decision]:
    """The decisions with this at the end of their reasons."""
    return {name: replace(one, because=one.because + end) for name, one in decisions.items()}


def with_fitted_calibration(
    task: Task, deciding: PredictedCases, origin: Origin = "unseen"
) -> tuple[Task, dict[str, Decision]]:
    """The task with what decoding finds by itself, a calibration and thresholds of calls, and those decisions.

    Cases that trained decide of the kinds alone that are fitted to such: others would promise too much.
    """

    def found(part: Task, evidence_of_part: PredictedCases) -> dict[str, Decision]:
        """Settings that the cases of a part decide."""
        if origin == "training" and "train" not in part.tuned_on:
            return {}
        decisions = part.fit_settings(evidence_of_part.predictions, evidence_of_part.cases, origin)
        part = _with(part, decisions)
        if part.answers is None:
            return decisions
        return {**decisions, **part.answers.calibrate(part.rows(evidence_of_part.predictions, evidence_of_part.cases))}

    return _fit_each_part(task, deciding, found)


def with_sets(task: Task, evidence: PredictedCases, *, exact: bool) -> tuple[Task, dict[str, Decision]]:
    """The task with thresholds of sets, intervals and the like; exact: the cases have decided nothing else."""

    def found(part: Task, evidence_of_part: PredictedCases) -> dict[str, Decision]:
        """The thresholds of a part by its cases."""
        if part.answers:
            return part.answers.sets(part.rows(evidence_of_part.predictions, evidence_of_part.cases), exact=exact)
        return {}

    return _fit_each_part(task, evidence, found)


def with_sets_of_folds(task: Task, evidence: PredictedCases) -> tuple[Task, dict[str, Decision]]:
    """The task with the scores of folds, each of the cases that it has not seen, for sets of their mean; after sets."""

    def found(part: Task, evidence_of_part: PredictedCases) -> dict[str, Decision]:
        """The scores of a part, where each fold has cases with its reference."""
        if part.answers is None or set(evidence_of_part.folds) != set(evidence.folds):
            return {}
        return part.answers.sets_of_folds(
            part.rows(evidence_of_part.predictions, evidence_of_part.cases).of_folds(evidence_of_part.folds)
        )

    return _fit_each_part(task, evidence, found)


def _fit_each_part(
    task: Task, evidence: PredictedCases, found: Callable[[Task, PredictedCases], dict[str, Decision]]
) -> tuple[Task, dict[str, Decision]]:
    """The task with what is found of each of its parts, by the cases that have the part's reference."""
    decisions = dict[str, Decision]()
    for name, part in properties.leaf_tasks(task).items():
        evidence_of_part = evidence.of_part(name, part.needs) if name else evidence
        if evidence_of_part.cases:
            decisions |= {
                task_settings.part_decision_name(name, key) if name else key: one
                for key, one in found(part, evidence_of_part).items()
            }
    return _with(task, decisions), decisions


def _with(task: Task, decisions: Mapping[str, Decision]) -> Task:
    """The task with the values of decisions as its settings."""
    values = {name.removeprefix("task."): one.value for name, one in decisions.items()}
    return (
        task_catalogue.build_task({"name": task.name, **task_settings.settings_of(task), **values}) if values else task
    )


def needs_alignment(task: Task) -> bool:
    """Whether outputs of several networks have no zero in common, as log hazard ratios."""
    return not all(part.has_own_zero for part in properties.leaf_tasks(task).values())


def align(
    task: Task, predictions: Sequence[Prediction], theirs: Sequence[Prediction], ours: Sequence[Prediction]
) -> list[Prediction]:
    """Another network's predictions, of parts whose outputs have no common zero as if they had the model's.

    theirs, ours: of the same cases, by that network and by the model
    """
    for name, part in properties.leaf_tasks(task).items():
        if part.has_own_zero:
            continue
        if not name:
            return part.align_zero(predictions, theirs, ours)
        parameters = part.align_zero(*([one.parts[name] for one in many] for many in (predictions, theirs, ours)))
        predictions = [
            properties.with_part_results(one, {name: own}) for one, own in zip(predictions, parameters, strict=True)
        ]
    return list(predictions)


def found_settings(task: Task) -> list[str]:
    """Settings found by cases after training, of those that cases can find."""
    found = task_settings.settings_of(task)
    return [name for name in task_settings.found_after_training(task) if found[name] is not None]


def _fill_undecided(task: Task, before: Task) -> Task:
    """The task with what no case could decide as it was before."""
    settings = task_settings.settings_of(task)
    past = task_settings.settings_of(before)
    former = {
        name: past[name]
        for name in found_settings(before)
        if settings[name] is None and not name.endswith(HOLD_TOGETHER)
    }
    return task_catalogue.build_task({"name": task.name, **settings, **former}) if former else task

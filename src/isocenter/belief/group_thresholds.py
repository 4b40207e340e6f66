"""Thresholds of probability for groups of people: groups are chosen before training, numbers come from unseen cases.

A copy of this file travels with a packaged model, and needs NumPy only there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isocenter.belief.operating_points import (
    DIGITS,
    FEWEST_UNSEEN,
    NOBODY,
    OperatingPoint,
    between,
    check_numbers,
    chosen_thresholds,
    weighted_curve,
)
from isocenter.belief.rows import Rows
from isocenter.errors import PlanError, UsageError, counted
from isocenter.evaluation import UNKNOWN, groups_of, shares_of
from isocenter.values import Decision, Prediction, Sentence, setting

OPPORTUNITY, ODDS = "equal_opportunity", "equalised_odds"
CRITERIA: Mapping[str, str] = {
    OPPORTUNITY: "the sensitivity of the common threshold, as nearly as the group's cases allow",
    ODDS: "sensitivity and specificity of the common threshold, the one that is missed by more as nearly as can be",
}
# The name of the setting that holds thresholds.
BY_GROUP = "thresholds_by_group"
HARDT = "arXiv:1610.02413"
# Where there is nobody of a side, no group has the cases either.
LEAST = 1e-9


def _groups(value: Any) -> str | None:
    """One covariate, or none; PlanError for what names no groups."""
    if value is not None and (not isinstance(value, str) or "," in value or not value.strip()):
        remedy = "Give one covariate, as in sex, age:60 or sex*age:60, or none; true takes training.protected"
        raise PlanError(f"{value!r} names no groups", "task.group_thresholds", remedy)
    return value


@dataclass(frozen=True)
class GroupThresholds:
    """The probability from which on a class or finding is called, for groups of people.

    groups:    as in "sex" or "sex*age:60"; None where all people have one threshold
    criterion: one of `CRITERIA`, to which the threshold of each group keeps
    levels:    {group: {class or finding: that probability}}; None until unseen cases have decided
    """

    groups: str | None = setting(
        None,
        Sentence("Groups with thresholds of their own are {value}", "All people have one threshold"),
        name="group_thresholds",
        read=_groups,
        registered="groups with thresholds of their own",
    )
    criterion: str = setting(
        OPPORTUNITY,
        Sentence("Thresholds of groups keep to {value}"),
        name="group_criterion",
        choices=tuple(CRITERIA),
        noun="criterion",
    )
    levels: Mapping[str, Mapping[str, float]] | None = setting(
        None,
        Sentence("The thresholds by group are {each}", "No group has a threshold of its own yet"),
        name=BY_GROUP,
        tuned=True,
    )

    def check(self, names: Sequence[str]) -> None:
        """PlanError for a threshold that cannot be, or of a class or finding that there is not."""
        for levels in (self.levels or {}).values():
            check_numbers("task.thresholds_by_group", levels, names, 0, NOBODY)

    @property
    def is_open(self) -> bool:
        """Whether unseen cases are to find thresholds."""
        return self.groups is not None and self.levels is None

    def group_in(self, covariates: Mapping[str, Any]) -> str:
        """The group of a patient with these covariates; "unknown" where they do not say."""
        try:
            groups = groups_of({name: [one] for name, one in covariates.items()}, self.groups, strictly=False)
        except UsageError as error:
            raise PlanError(error.problem, "task.group_thresholds", "Correct the covariate of the case") from error
        return next((str(own[0]).casefold() for own in groups.values()), UNKNOWN)

    def stated(self, prediction: Prediction, covariates: Mapping[str, Any]) -> Prediction:
        """The prediction with its patient's own thresholds; a note where the group is unknown or has none."""
        levels = (self.levels or {}).get(self.group_in(covariates))
        if levels is None:
            note = f"{self.groups} is unknown, or too few unseen cases had it: the common threshold holds"
            return replace(prediction, notes=(*prediction.notes, note))
        return replace(prediction, confidence=replace(prediction.confidence, thresholds=levels))


@dataclass(frozen=True)
class Calls:
    """Calls of classes or labels by thresholds of probability: their rule, and what unseen cases have found so far.

    levels:  {class or label: threshold}; None until they are found
    grouped: thresholds of groups of people
    instead: what holds for a label without a threshold, in words
    """

    point: OperatingPoint
    levels: Mapping[str, float] | None
    grouped: GroupThresholds
    instead: str

    @property
    def is_open(self) -> bool:
        """Whether unseen cases are to find thresholds."""
        return self.levels is None or self.grouped.is_open

    def found(self, probabilities: Mapping[str, tuple[np.ndarray, np.ndarray]], rows: Rows) -> dict[str, Decision]:
        """The thresholds of all people, and of groups, that are open.

        probabilities: {class or label: (cases,) probabilities, and whether each case is positive, NaN if not known}
        """
        decisions, levels = dict[str, Decision](), self.levels
        if levels is None:
            is_known = {name: np.isfinite(truth) for name, (_, truth) in probabilities.items()}
            chosen = {
                name: (own[is_known[name]], truth[is_known[name]] > 0, rows.patients[is_known[name]])
                for name, (own, truth) in probabilities.items()
            }
            levels, decisions["task.thresholds"] = chosen_thresholds(self.point, chosen, self.instead)
        return {**decisions, **thresholds_of_groups(self.grouped, rows, probabilities, levels)}


def thresholds_of_groups(
    grouped: GroupThresholds,
    rows: Rows,
    probabilities: Mapping[str, tuple[np.ndarray, np.ndarray]],
    common: Mapping[str, float],
) -> dict[str, Decision]:
    """Find the threshold of each group; nothing where no group is to have its own, or all have it.

    probabilities: {class or finding: (cases,) probabilities, and whether each case is positive, NaN if not known}
    common: {class or finding: the threshold for all}; what has none has none by group either
    Hardt, Price and Srebro, arXiv:1610.02413, without their calls by lot: patients who are alike are called alike.
    """
    if not grouped.is_open:
        return {}
    of_case = np.array([grouped.group_in(covariates) for covariates in rows.covariates], dtype=object)
    patients = rows.patients
    levels, reasons = dict[str, dict[str, float]](), []
    for name, (chances, truth) in probabilities.items():
        if name not in common:
            reasons.append(f"the cases of {name} are too few for a common threshold")
            continue
        is_known = np.isfinite(truth)
        shares, _ = shares_of(int(is_known.sum()), patients[is_known])
        called, sick = chances[is_known] >= common[name], truth[is_known] > 0
        hits, wrong = (float(shares[own] @ called[own] / max(shares[own].sum(), LEAST)) for own in (sick, ~sick))
        for group in sorted(set(of_case[is_known].tolist()) - {UNKNOWN}):
            here = is_known & (of_case == group)
            positive = truth[here] > 0
            numbers = f"{group}: {int(positive.sum())} with {name} and {int((~positive).sum())} without"
            if min(positive.sum(), (~positive).sum()) < FEWEST_UNSEEN:
                reasons.append(f"{numbers} are too few, the common threshold holds")
                continue
            threshold = group_threshold(grouped.criterion, chances[here], positive, hits, wrong, patients[here])
            levels.setdefault(group, {})[name] = threshold
            reasons.append(numbers)
    because = f"each group keeps {CRITERIA[grouped.criterion]}, by {counted(len(rows), 'unseen case')}: "
    because += "; ".join(reasons) or "nobody's group is known"
    return {f"task.{BY_GROUP}": Decision(levels, because, HARDT)}


def group_threshold(
    criterion: str,
    probabilities: np.ndarray,
    positive: np.ndarray,
    hits: float,
    wrong: float,
    patients: np.ndarray | None = None,
) -> float:
    """The threshold by which a group's cases come nearest to a sensitivity (hits), or to 1 - specificity (wrong) too.

    probabilities, positive: (cases,) of which some are positive and some are not
    patients: (cases,) whose; all weigh alike. None: each case is one of its own
    """
    false, right, thresholds = weighted_curve(probabilities, positive, patients)
    missed = np.abs(right - hits)
    if criterion == ODDS:
        missed = np.maximum(missed, np.abs(false - wrong))
    return between(thresholds, int(missed.round(DIGITS).argmin()))  # the first has the fewest false calls


def grouped_decisions() -> dict[str, Decision]:
    """The settings of a task that has thresholds, before training."""
    because = "sensitivity is then as alike in all groups as their cases allow; equalised_odds minds false alarms too"
    return {
        "group_thresholds": Decision(None, "groups get thresholds of their own only where somebody asks for it"),
        "group_criterion": Decision(OPPORTUNITY, because, HARDT),
        BY_GROUP: Decision(None, "they are found with the common threshold, where task.group_thresholds names groups"),
    }

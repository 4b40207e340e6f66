"""Thresholds of probability: the rule comes before training, numbers from unseen cases, for groups of people too."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike

from hilum import errors
from hilum.belief.covering_results import UnseenCases
from hilum.errors import PlanError, UsageError
from hilum.evaluation import classification, conformal
from hilum.evaluation.fairness import group_attributes
from hilum.evaluation.fairness.group_attributes import UNKNOWN
from hilum.values import BY_HAND, Decision, Floats, Prediction, Setting
from hilum.values.covariate_values import CovariateValues
from hilum.values.setting_fields import NOT_KEPT

# Not 1, which no number of cases promises, nor 0.
RULE = re.compile(r"youden|(sensitivity|specificity)>=0?\.\d*[1-9]\d*")
# Unseen cases of the class and of the rest; fewer say too little about a threshold.
FEWEST_UNSEEN = 10
TOO_FEW = "are too few for a threshold"
NOBODY_LEFT = "no case was left that did not train and could choose a threshold, so the default one holds"
UNKEPT = "The rule "  # that could not be kept: so its sentence begins
# Shares of patients add up to this.
DIGITS = 9
# Of a threshold as a plan states it, where so many tell.
DECIMALS = 6
# Above every probability, so that nobody is called.
NOBODY = 1.0001
WILKS = "doi:10.1214/aoms/1177731788"
YOUDEN = "doi:10.1002/1097-0142(1950)3:1<32::AID-CNCR2820030106>3.0.CO;2-3"


def _unkept_rule(decisions: Mapping[str, Decision]) -> Sequence[str]:
    """Sentences on a rule that a person chose, where unseen cases were too few to find its threshold, or none."""
    rule = decisions.get("operating_point")
    chosen = decisions.get("thresholds")
    if rule is None or chosen is None or rule.because != BY_HAND:
        return []
    why = chosen.because if chosen.value is not None else NOBODY_LEFT
    if chosen.value and TOO_FEW not in why:
        return []
    return [f"{UNKEPT}{rule.value}{NOT_KEPT}: {why}."]


@dataclass(frozen=True)
class OperatingPoint:
    """Rule that a threshold keeps to; PlanError for a text that is no rule.

    words:      "youden", the largest sum of sensitivity and specificity; or as in "sensitivity>=0.95": that much in new
                patients, and the other as high as can be
    confidence: the share of trainings in which it is kept; None: it is on average over trainings
    """

    words: Annotated[str, Setting(name="operating_point", preregistered="operating point", unkept=_unkept_rule)] = (
        "youden"
    )
    confidence: Annotated[
        float | None, Setting(name="operating_confidence", preregistered="confidence of the operating point")
    ] = None

    def __post_init__(self) -> None:
        if not isinstance(self.words, str) or not RULE.fullmatch(self.words):
            remedy = "Choose youden, or as in sensitivity>=0.95 or specificity>=0.9"
            raise PlanError(f"{self.words!r} is not an operating-point rule", "task.operating_point", remedy)
        if self.confidence is not None and not (0 < self.confidence < 1 and self.is_named):
            problem = f"a confidence of {self.confidence:g} for the rule {self.words}"
            remedy = "Give a share such as 0.9, with a rule such as sensitivity>=0.95, or null"
            raise PlanError(problem, "task.operating_confidence", remedy)

    @property
    def is_named(self) -> bool:
        """Whether a sensitivity or a specificity is named."""
        return self.words != "youden"

    @property
    def upwards(self) -> bool:
        """Whether positive cases decide, from the lowest up; of a specificity the others do, from the highest down."""
        return not self.words.startswith("specificity")

    @property
    def limits(self) -> tuple[float, float | None]:
        """The share of patients who may be called wrongly, and of trainings in which more may; None: on average."""
        return 1 - float(self.words.partition(">=")[2]), None if self.confidence is None else 1 - self.confidence

    @property
    def fewest(self) -> int:
        """Fewest patients it needs of those who decide; of youden cases of each side."""
        return max(FEWEST_UNSEEN, conformal.fewest_for_control(*self.limits)) if self.is_named else FEWEST_UNSEEN

    def __str__(self) -> str:
        if not self.is_named:
            return self.words
        share = "on average" if self.confidence is None else f"in {100 * self.confidence:g} % of trainings"
        return f"{self.words} {share}"


def calling_decisions() -> dict[str, Decision]:
    """The settings of a task that has thresholds of probability, before training."""
    return {
        "operating_point": Decision("youden", "no rule was asked for: sensitivity and specificity count alike", YOUDEN),
        "operating_confidence": Decision(None, "no confidence was asked for: a named figure is kept on average"),
        "thresholds": Decision(
            None, "they are found on the validation cases after training; 0.5 where those are too few"
        ),
        "prevalence": Decision(None, "predictive values are those of the cases that are scored"),
    }


def choose_threshold(
    point: OperatingPoint, probabilities: ArrayLike, positive: ArrayLike, patients: ArrayLike | None = None
) -> float:
    """The probability from which on a case is called positive, so that the rule is kept and calls are best.

    probabilities, positive: (cases,) of which some are positive and some are not
    patients: (cases,) whose; all weigh alike, however many cases they have. None: each case is one of its own
    A named sensitivity is that of new patients: of n positive ones with one case each the threshold is the k-th lowest
    probability, on average k = floor((n + 1) (1 - sensitivity)); of several cases each counts by its share (conformal
    risk control, arXiv:2208.02814). A specificity alike, from above. It lies midway to the next lower probability, so
    that no case decides by a rounding. UsageError where patients are too few.
    """
    if not point.is_named:
        wrong, right, thresholds = weighted_curve(probabilities, positive, patients)
        return threshold_between(thresholds, int(np.argmax((right - wrong).round(DIGITS))))
    truth = np.asarray(positive) > 0
    side = truth == point.upwards
    weights = np.ones(len(truth))
    weights[side], people = conformal.patient_shares(
        int(side.sum()), None if patients is None else np.asarray(patients)[side]
    )
    wrong, right, thresholds = classification.roc_curve(probabilities, truth, weights)
    is_controlled = conformal.is_controlled(people * (1 - right if point.upwards else wrong), people, *point.limits)
    if not is_controlled.any():
        problem = f"{errors.count_phrase(people, 'patient')} for {point}"
        raise UsageError(problem, "task.operating_point", f"Give {point.fewest} or more, or another rule")
    return threshold_between(thresholds, int(np.flatnonzero(is_controlled)[0 if point.upwards else -1]))


def weighted_curve(
    probabilities: ArrayLike, positive: ArrayLike, patients: ArrayLike | None
) -> tuple[Floats, Floats, Floats]:
    """`roc_curve` of cases of which each patient's weigh as much in all."""
    shares, _ = conformal.patient_shares(len(np.asarray(positive)), patients)
    return classification.roc_curve(probabilities, positive, shares)


def threshold_between(thresholds: Floats, index: int) -> float:
    """Midway from the threshold at this place of `roc_curve` to the next lower one."""
    lower = thresholds[index + 1] if index + 1 < len(thresholds) else 0.0
    return level_between(min(float(thresholds[index]), NOBODY), float(lower))


def level_between(upper: float, lower: float) -> float:
    """The middle of two scores that parts them: in few decimals where that still does, so that people can read it.

    Of probabilities near 0 or 1 the rounded number would call everybody, or nobody.
    """
    middle = (upper + lower) / 2
    shortest = round(middle, DECIMALS)
    parting = (level for level in (shortest, middle) if lower < level <= upper)
    return next(parting, upper)  # of neighbouring numbers the middle is one of them


def best_f1_level(scores: Floats, right: np.ndarray, total: int) -> tuple[float, float]:
    """The score from which on results are called with the highest F1, half-way to the next, and that F1.

    right: (results,) whether each is one; total: of the reference. Results of one score are called together.
    """
    levels, index = np.unique(scores, return_inverse=True)
    hits, called = (np.bincount(index, one)[::-1].cumsum() for one in (right, np.ones(len(index))))
    f1 = 2 * hits / (called + total)
    best = int(f1.argmax())
    # Half-way to the next, so that rounding does not decide.
    upper, following = [*levels[::-1], 0.0][best : best + 2]
    return level_between(float(upper), float(following)), float(f1[best])


def chosen_thresholds(
    point: OperatingPoint, cases: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], instead: str
) -> tuple[dict[str, float], Decision]:
    """{label: threshold by the rule}, without labels of too few cases, and the decision with the reasons.

    cases:   {label: (cases,) probabilities, whether each case is positive, and patients, who weigh alike}
    instead: what holds for a label without a threshold, in words
    """
    levels = dict[str, float]()
    reasons = []
    for name, (probabilities, positive, patients) in cases.items():
        numbers = f"{errors.count_phrase(int(positive.sum()), 'unseen case')} of {name}"
        numbers += f" and {errors.count_phrase(int((~positive).sum()), 'other')}"
        people, index = _deciding(point, positive, patients)
        if min(positive.sum(), (~positive).sum()) < FEWEST_UNSEEN or (point.is_named and people < point.fewest):
            needed = f"at least {FEWEST_UNSEEN} of each are needed"
            if point.is_named:
                side = "with" if point.upwards else "without"
                needed += f", and for {point} {point.fewest} patients {side} {name}, of whom there are {people}"
            reasons.append(f"{numbers} {TOO_FEW} ({needed}): {instead}")
        else:
            levels[name] = choose_threshold(point, probabilities, positive, patients)
            reasons.append(f"{point} of {numbers}{index}")
    because = "; ".join(reasons) or "no unseen case says anything"
    return levels, Decision(levels, because, (WILKS if point.is_named else YOUDEN) if levels else "")


def _deciding(point: OperatingPoint, positive: np.ndarray, patients: np.ndarray) -> tuple[int, str]:
    """The patients of the side that decides, and in words which of their scores does; no words of youden."""
    side = positive == point.upwards
    people = len(np.unique(patients[side]))
    if not point.is_named:
        return people, ""
    if people < side.sum():
        return people, f", by the share of cases of each of {errors.count_phrase(people, 'patient')}"
    index = int(conformal.is_controlled(np.arange(people), people, *point.limits).sum())
    return people, f", the score at place {index} of {people} from {'below' if point.upwards else 'above'}"


def levels_in_words(levels: Floats, rule: str, default: str, *, by_group: bool) -> str:
    """Words on where the thresholds of some cases lie; NaN where there is none, and the default holds.

    by_group: groups of people have their own, and not folds
    """
    finite = levels[np.isfinite(levels)]
    if not len(finite):
        return f"from {default} on (default)"
    low, high = finite.min(), finite.max()
    whose = "group" if by_group else "fold"
    words = f"from {low:.3g} on" if low == high else f"from {low:.3g} to {high:.3g} on, each {whose}'s own"
    without = f", {default} in folds without one" if len(finite) < len(levels) else ""
    return f"{words} ({rule}, unseen cases{without})"


def check_thresholds(where: str, numbers: Mapping[str, float], names: Sequence[str], low: float, high: float) -> None:
    """PlanError for a number outside low..high, or of a label that there is not."""
    if others := sorted(set(numbers) - set(names)):
        raise PlanError(f"there is no class {others[0]!r}", where, f"Name {', '.join(names)}")
    for name, value in numbers.items():
        if not low <= value <= high:
            raise PlanError(f"{value} for {name}", where, f"Give a number from {low:g} to {high:g}")


# Thresholds of probability for groups of people: groups are chosen before training, numbers come from unseen cases.
#
# A copy of this part travels with a packaged model, and needs NumPy only there.

OPPORTUNITY = "equal_opportunity"
ODDS = "equalised_odds"
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

    groups: Annotated[
        str | None, Setting(name="group_thresholds", read=_groups, preregistered="groups with thresholds of their own")
    ] = None
    criterion: Annotated[str, Setting(name="group_criterion", choices=tuple(CRITERIA), noun="criterion")] = OPPORTUNITY
    levels: Annotated[Mapping[str, Mapping[str, float]] | None, Setting(name=BY_GROUP, tuned=True)] = None

    def check(self, names: Sequence[str]) -> None:
        """PlanError for a threshold that cannot be, or of a class or finding that there is not."""
        for levels in (self.levels or {}).values():
            check_thresholds("task.thresholds_by_group", levels, names, 0, NOBODY)

    @property
    def is_open(self) -> bool:
        """Whether unseen cases are to find thresholds."""
        return self.groups is not None and self.levels is None

    def group_in(self, covariates: CovariateValues) -> str:
        """The group of a patient with these covariates; "unknown" where they do not say."""
        try:
            groups = group_attributes.groups_by_attribute(
                {name: [one] for name, one in covariates.items()}, self.groups, strictly=False
            )
        except UsageError as error:
            raise PlanError(error.problem, "task.group_thresholds", "Correct the covariate of the case") from error
        return next((group_attributes.group_key(str(own[0])) for own in groups.values()), UNKNOWN)

    def state_thresholds(self, prediction: Prediction, covariates: CovariateValues) -> Prediction:
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

    def find_thresholds(
        self, probabilities: Mapping[str, tuple[np.ndarray, np.ndarray]], rows: UnseenCases
    ) -> dict[str, Decision]:
        """The thresholds of all people, and of groups, that are open.

        probabilities: {class or label: (cases,) probabilities, and whether each case is positive, NaN if not known}
        """
        decisions = dict[str, Decision]()
        levels = self.levels
        if levels is None:
            is_known = {name: np.isfinite(truth) for name, (_, truth) in probabilities.items()}
            chosen = {
                name: (own[is_known[name]], truth[is_known[name]] > 0, rows.patients[is_known[name]])
                for name, (own, truth) in probabilities.items()
            }
            levels, decisions["task.thresholds"] = chosen_thresholds(self.point, chosen, self.instead)
        return {**decisions, **find_group_thresholds(self.grouped, rows, probabilities, levels)}


def find_group_thresholds(
    grouped: GroupThresholds,
    rows: UnseenCases,
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
    levels = dict[str, dict[str, float]]()
    reasons = []
    for name, (chances, truth) in probabilities.items():
        if name not in common:
            reasons.append(f"the cases of {name} are too few for a common threshold")
            continue
        is_known = np.isfinite(truth)
        shares, _ = conformal.patient_shares(int(is_known.sum()), patients[is_known])
        called = chances[is_known] >= common[name]
        sick = truth[is_known] > 0
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
    because = f"each group keeps {CRITERIA[grouped.criterion]}, by {errors.count_phrase(len(rows), 'unseen case')}: "
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
    return threshold_between(thresholds, int(missed.round(DIGITS).argmin()))  # the first has the fewest false calls


def grouped_decisions() -> dict[str, Decision]:
    """The settings of a task that has thresholds, before training."""
    because = "sensitivity is then as alike in all groups as their cases allow; equalised_odds minds false alarms too"
    return {
        "group_thresholds": Decision(None, "groups get thresholds of their own only where somebody asks for it"),
        "group_criterion": Decision(OPPORTUNITY, because, HARDT),
        BY_GROUP: Decision(None, "they are found with the common threshold, where task.group_thresholds names groups"),
    }

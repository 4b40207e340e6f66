"""Thresholds of probability: a rule that is chosen before training, a number from cases that trained nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from isocenter.errors import PlanError, counted
from isocenter.evaluation import roc_curve, shares_of
from isocenter.values import BY_HAND, Decision, Floats, Sentence

RULE = re.compile(r"(?P<youden>youden)|((?P<sensitivity>sensitivity)|specificity)>=(?P<level>0?\.\d+|1(?:\.0*)?)")
# Unseen cases of the class and of the rest; fewer say too little about a threshold.
FEWEST_UNSEEN = 10
TOO_FEW = "are too few for a threshold"
NOBODY_LEFT = "no case was left that did not train and could choose a threshold, so the default one holds"
UNKEPT, NOT_KEPT = "The rule ", " could not be kept"  # of the sentence on a rule that could not be kept
# Shares of patients add up to this.
DIGITS = 9
# Of a threshold as a plan states it, where so many tell.
DECIMALS = 6
# Above every probability, so that nobody is called.
NOBODY = 1.0001
# The sentences of plans about operating points.
CALLING_SENTENCES: Mapping[str, Sentence] = {
    "operating_point": Sentence("The threshold is chosen by the rule {value}", "No operating point is set"),
    "thresholds": Sentence("The thresholds of probability are {each}", "No threshold is set yet", always=True),
    "prevalence": Sentence("Predictive values are stated at a prevalence of {each}", "No other prevalence is stated"),
}
YOUDEN = "doi:10.1002/1097-0142(1950)3:1<32::AID-CNCR2820030106>3.0.CO;2-3"


def check_rule(rule: object) -> str:
    """The rule itself; PlanError for one that is none."""
    if not isinstance(rule, str) or not RULE.fullmatch(rule):
        remedy = "Choose youden, or as in sensitivity>=0.95 or specificity>=0.9"
        raise PlanError(f"{rule!r} is not an operating-point rule", "task.operating_point", remedy)
    return rule


def threshold(rule: str, probabilities: ArrayLike, positive: ArrayLike, patients: ArrayLike | None = None) -> float:
    """The probability from which on a case is called positive, so that these cases fulfil the rule best.

    probabilities, positive: (cases,) of which some are positive and some are not
    patients: (cases,) whose; all weigh alike, however many cases they have. None: each case is one of its own
    "youden" has the largest sum of sensitivity and specificity; of the others the named one is kept and the other as
    high as can be. It lies midway to the next lower probability, so that no case decides by a rounding.
    """
    parts = RULE.fullmatch(check_rule(rule))
    assert parts is not None  # noqa: S101 - checked above
    wrong, right, thresholds = weighted_curve(probabilities, positive, patients)
    if parts["youden"]:
        place = int(np.argmax((right - wrong).round(DIGITS)))
    elif parts["sensitivity"]:
        place = int(np.argmax(right.round(DIGITS) >= float(parts["level"])))
    else:
        place = int(np.flatnonzero((1 - wrong).round(DIGITS) >= float(parts["level"]))[-1])
    return between(thresholds, place)


def weighted_curve(
    probabilities: ArrayLike, positive: ArrayLike, patients: ArrayLike | None
) -> tuple[Floats, Floats, Floats]:
    """`roc_curve` of cases of which each patient's weigh as much in all."""
    shares, _ = shares_of(len(np.asarray(positive)), patients)
    return roc_curve(probabilities, positive, shares)


def between(thresholds: Floats, place: int) -> float:
    """Midway from the threshold at this place of `roc_curve` to the next lower one."""
    lower = thresholds[place + 1] if place + 1 < len(thresholds) else 0.0
    return level_between(min(float(thresholds[place]), NOBODY), float(lower))


def level_between(upper: float, lower: float) -> float:
    """The middle of two scores that parts them: in few decimals where that still does, so that people can read it.

    Of probabilities near 0 or 1 the rounded number would call everybody, or nobody.
    """
    middle = (upper + lower) / 2
    shortest = round(middle, DECIMALS)
    parting = (level for level in (shortest, middle) if lower < level <= upper)
    return next(parting, upper)  # of neighbouring numbers the middle is one of them


def chosen_thresholds(
    rule: str, cases: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], instead: str
) -> tuple[dict[str, float], Decision]:
    """{label: threshold by the rule}, without labels of too few cases, and the decision with the reasons.

    cases:   {label: (cases,) probabilities, whether each case is positive, and patients, who weigh alike}
    instead: what holds for a label without a threshold, in words
    """
    levels, reasons = dict[str, float](), []
    for name, (probabilities, positive, patients) in cases.items():
        numbers = f"{counted(int(positive.sum()), 'unseen case')} of {name}"
        numbers += f" and {counted(int((~positive).sum()), 'other')}"
        if min(positive.sum(), (~positive).sum()) < FEWEST_UNSEEN:
            reasons.append(f"{numbers} {TOO_FEW} (at least {FEWEST_UNSEEN} of each are needed): {instead}")
        else:
            levels[name] = threshold(rule, probabilities, positive, patients)
            reasons.append(f"{rule} of {numbers}")
    because = "; ".join(reasons) or "no unseen case says anything"
    return levels, Decision(levels, because, YOUDEN if levels and rule == "youden" else "")


def levels_in_words(levels: Floats, rule: str, default: str, *, by_group: bool) -> str:
    """Where the thresholds of some cases lie; NaN where there is none, and the default holds.

    by_group: groups of people have their own, and not folds
    """
    known = levels[np.isfinite(levels)]
    if not len(known):
        return f"from {default} on (default)"
    low, high = known.min(), known.max()
    whose = "group" if by_group else "fold"
    words = f"from {low:.3g} on" if low == high else f"from {low:.3g} to {high:.3g} on, each {whose}'s own"
    without = f", {default} in folds without one" if len(known) < len(levels) else ""
    return f"{words} ({rule}, unseen cases{without})"


def unkept_rule(decisions: Mapping[str, Decision]) -> Sequence[str]:
    """Sentences on a rule that a person chose, where unseen cases were too few to find its threshold, or none."""
    rule, chosen = decisions.get("operating_point"), decisions.get("thresholds")
    if rule is None or chosen is None or rule.because != BY_HAND:
        return []
    why = chosen.because if chosen.value is not None else NOBODY_LEFT
    if chosen.value and TOO_FEW not in why:
        return []
    return [f"{UNKEPT}{rule.value}{NOT_KEPT}: {why}."]


def check_numbers(where: str, given: Mapping[str, float], names: Sequence[str], low: float, high: float) -> None:
    """PlanError for a number outside low..high, or of a label that there is not."""
    if others := sorted(set(given) - set(names)):
        raise PlanError(f"there is no class {others[0]!r}", where, f"Name {', '.join(names)}")
    for name, value in given.items():
        if not low <= value <= high:
            raise PlanError(f"{value} for {name}", where, f"Give a number from {low:g} to {high:g}")

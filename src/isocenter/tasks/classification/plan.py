"""Plans for a classification: settings from the training cases, thresholds from validation cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isocenter.belief import (
    NOBODY,
    GroupThresholds,
    calling_decisions,
    certainty_decisions,
    check_numbers,
    grouped_decisions,
    set_decisions,
)
from isocenter.errors import DatasetError, PlanError, counted
from isocenter.tasks.classification.losses import LOSSES, effective_weights, shares
from isocenter.tasks.classification.ordinal import NONE
from isocenter.tasks.classification.positive import positive_decision
from isocenter.values import Dataset, Decision, Fingerprint, grades, rising

# A class with less than this part of its equal share is seen too seldom to be learnt from cases as they come.
SCARCE = 0.3
# A class with so many times fewer cases than the largest would, drawn as often, be learnt by heart.
SCARCEST = 50.0
# By which power of its share a class is seen.
SEEN = {"natural": 1.0, "square_root": 0.5, "balanced": 0.0, "oversampled": 0.0, "undersampled": 0.0}
# Saerens et al., Neural Comput 2002: how probabilities follow from another prior.
SAERENS = "doi:10.1162/089976602753284446"
SHIFT_DIGITS = 6
# By which the sum of shares may differ from 1: they are written in a few digits.
ROUNDING = 0.01
MAIER_HEIN = "doi:10.1038/s41592-023-02151-z"
CORN = "arXiv:2111.08851"
# The settings that hold one number a class, and their bounds.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "counts": (0, 10**12),
    "weights": (1e-6, 1e6),
    "prior_shift": (-100, 100),
    "thresholds": (0, NOBODY),
    "prevalence": (0, 1),
}


def settings_for(dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
    """The fields of a classification for these training cases; DatasetError where there is one class only."""
    counts = fingerprint.counts()
    declared = [label.name for label in dataset.classes.get("class", ())] or list(counts)
    if sum(count > 0 for count in counts.values()) < 2:
        raise DatasetError(
            f"the training cases have {counted(len(counts), 'class', 'classes')} ({', '.join(counts) or 'none'})",
            str(dataset.root or dataset.name),
            "Give cases of at least two classes",
        )
    shares = ", ".join(f"{counts.get(name, 0)} are {name}" for name in declared)
    here = {name: counts.get(name, 0) for name in declared}
    taught = loss(fingerprint)
    return {
        "classes": Decision(declared, f"among {sum(counts.values())} training cases {shares}"),
        "positive": positive_decision(declared, here),
        "counts": Decision(here, "their shares are what probabilities refer to"),
        "loss": taught,
        "smoothing": Decision(0.0, "smoothed targets would distort the probabilities"),
        "weights": Decision(None, "where a class is scarce its cases are drawn more often instead"),
        "prior_shift": prior_shift(here, None, str(sampling(fingerprint).value), str(taught.value)),
        **calling_decisions(),
        "order": order(declared),
        "ranked": ranked(declared, is_stated=dataset.ranked),
        "costs": Decision(None, "all mistakes cost alike; of grades one unit for each grade that they miss by"),
        **grouped_decisions(),
        **certainty_decisions(),
        **set_decisions(),
    }


def order(classes: Sequence[str]) -> Decision:
    """None unless a person says so: numbers alone may be those of classes (BloodMNIST numbers eight kinds of cells)."""
    is_numbered, scale = grades(classes) is not None, rising(classes)
    if len(classes) > 2 and scale is not None and not is_numbered:
        remedy = "--set task.order=corn (or cumulative, softmax) teaches and measures their order"
        return Decision(NONE, f"{', '.join(scale)} are grades of a known scale: {remedy}", CORN)
    if len(classes) > 2 and is_numbered:
        remedy = "if they are grades, --set task.order=corn (or cumulative, softmax) teaches and measures their order"
        return Decision(NONE, f"{', '.join(classes)} may be grades or the numbers of classes: {remedy}", CORN)
    return Decision(NONE, "no order of the classes was stated")


def ranked(classes: Sequence[str], *, is_stated: bool) -> Decision:
    """Whether the order of the classes is known: as a person states it, or by a known scale. The alphabet is none."""
    if is_stated:
        return Decision(True, "the order of the classes was stated")
    scale = rising(classes)
    if scale == tuple(classes):
        return Decision(True, "their names are those of a known scale, and rise")
    if scale is None and list(classes) != sorted(classes):
        return Decision(True, "the data set declares their order")
    return Decision(False, "their scale rises otherwise" if scale else "they stand in the order of the alphabet")


def judged(ordered: bool) -> dict[str, Decision]:
    """The metrics that select a checkpoint and judge the model."""
    if ordered:
        selecting = "it counts a miss by the square of the grades between, as agreement beyond chance"
        judging = f"{selecting}; accuracy would not tell a miss by one grade from one by all"
        kappa = {"training.selection": selecting, "evaluation.primary": judging}
        return {name: Decision("quadratic_kappa", because, MAIER_HEIN) for name, because in kappa.items()}
    because = "it ranks cases without a threshold, and shows more than accuracy"
    return {
        "training.selection": Decision("auroc", because),
        "evaluation.primary": Decision("auroc", "no operating point was asked for", MAIER_HEIN),
    }


def loss(fingerprint: Fingerprint) -> Decision:
    """Cross-entropy, with the logits adjusted where a class is too scarce to be drawn as often as the others."""
    counts = fingerprint.counts()
    rarest = min(counts, key=lambda name: counts[name])
    ratio = max(counts.values()) / counts[rarest]
    if ratio >= SCARCEST:
        because = f"{rarest} has {ratio:.0f} times fewer training cases than the largest class: drawn as often they "
        because += f"would be memorised; {LOSSES['logit_adjusted'].because}"
        return Decision("logit_adjusted", because, LOSSES["logit_adjusted"].source)
    others = ", ".join(name for name in LOSSES if name != "ce")
    return Decision("ce", f"{LOSSES['ce'].because} (for scarce or hard classes: {others})", LOSSES["ce"].source)


def sampling(fingerprint: Fingerprint) -> Decision:
    """Cases as they come, or class by class where one is scarce and the loss does not see to it."""
    counts = fingerprint.counts()
    rarest = min(counts, key=lambda name: counts[name])
    share, equal = counts[rarest] / sum(counts.values()), 1 / len(counts)
    scarcity = f"{rarest} has {counts[rarest]} of {sum(counts.values())} training cases ({100 * share:.1f} %)"
    if LOSSES[loss(fingerprint).value].adjusts:
        return Decision("natural", f"{scarcity}: the loss balances them, and each case is drawn as often as any other")
    if share < SCARCE * equal:
        return Decision(
            "balanced",
            f"{scarcity}: classes are drawn equally often, and probabilities are corrected",
            "arXiv:1710.05381",
        )
    return Decision("natural", f"{scarcity}: each case is drawn as often as any other")


def prior_shift(
    counts: Mapping[str, int], weights: Mapping[str, float] | None, drawn: str, taught: str = "ce"
) -> Decision:
    """{class: what is added to its logit}: log of its share of the training cases less log of that which it had.

    drawn, taught: the sampling and the loss
    The largest is 0; None where training saw the classes as they come.
    """
    given = LOSSES[taught]
    if weights is None and drawn == "natural" and not given.balances:
        return Decision(None, "training sees the classes in their shares of the training cases")
    here = shares(np.array(list(counts.values()), dtype=np.float64))
    seen = here ** SEEN[drawn] * np.array([(weights or {}).get(name, 1.0) for name in counts])
    if given.adjusts:  # it has taken the shares out of the outputs
        seen = seen / here
    if given.weighs:
        seen = seen * effective_weights(np.array(list(counts.values()), dtype=np.float64))
    shifts = np.log(here) - np.log(seen)
    value = {name: round(float(shift), SHIFT_DIGITS) for name, shift in zip(counts, shifts - shifts.max(), strict=True)}
    causes = {f"{drawn} sampling": drawn != "natural", "weights": bool(weights), f"the loss {taught}": given.balances}
    named = " and ".join(cause for cause, holds in causes.items() if holds)
    return Decision(value, f"{named} made rare classes seem common: back to the shares of the training cases", SAERENS)


def prevalences(given: Any) -> Mapping[str, float] | None:
    """{class: share of all people} as a plan states it; one number is the share of the positive class, named ""."""
    if given is None:
        return None
    shares = given if isinstance(given, Mapping) else {"": given}
    return {str(name): float(share) for name, share in shares.items()}


def by_class(shares: Mapping[str, float] | None, classes: Sequence[str], positive: str) -> Mapping[str, float] | None:
    """Prevalences of which that of one class of two is that of the other too; positive: the class named ""."""
    if shares is None or len(classes) != 2 or len(shares) != 1:
        return shares
    made = {name or positive: share for name, share in shares.items()}
    return {name: made.get(name, 1 - sum(made.values())) for name in classes} if set(made) < set(classes) else made


def check_settings(classes: Sequence[str], smoothing: float, each: Mapping[str, Mapping[str, float] | None]) -> None:
    """PlanError names the setting that cannot be; each: {setting: {class: number}}"""
    if len(set(classes)) < max(2, len(classes)):
        raise PlanError("at least two different classes are needed", "task.classes", "Name each class once")
    if not 0 <= smoothing < 1:
        raise PlanError(f"smoothing {smoothing} is not in [0, 1)", "task.smoothing", "Give a share")
    for setting, numbers in each.items():
        check_numbers(f"task.{setting}", numbers or {}, classes, *BOUNDS[setting])
    shares = each.get("prevalence") or {}
    if (total := sum(shares.values())) > 1 + ROUNDING or (len(shares) == len(classes) and total < 1 - ROUNDING):
        problem = f"prevalences of {', '.join(shares)} add up to {total:g}, and one of the classes is right"
        raise PlanError(problem, "task.prevalence", "Give shares of all people that add up to 1")


def check_grouped(grouped: GroupThresholds, classes: Sequence[str], *, parted: bool) -> None:
    """PlanError for thresholds of groups that cannot be; parted: neither an order nor costs decide what is called."""
    if grouped.groups is not None and (len(classes) != 2 or not parted):
        problem = "thresholds exist only for two classes, without an order or costs"
        raise PlanError(problem, "task.group_thresholds", "Give none, or training.fairness for more classes")
    grouped.check(classes)

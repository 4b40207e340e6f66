"""Post-processing of label maps, chosen on validation cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isocenter.evaluation import overlap
from isocenter.lazy import ndimage
from isocenter.tasks.shared import Tidying, tidied
from isocenter.values import Array, Case, Decision, Label, Prediction

# A gain in mean Dice below this is not worth a rule, which may harm a case unlike those that were looked at.
MARGIN = 0.002
# Fewer cases say too little about a rule.
FEWEST_CASES = 5
NNUNET = "doi:10.1038/s41592-020-01008-z"


def tidying_from(rule: Mapping[str, Any]) -> Tidying:
    """The rule of a plan or a record; ValueError for what is none."""
    made = Tidying(**rule)
    if not isinstance(made.largest, bool) or not isinstance(made.holes, bool) or not float(made.smallest) >= 0:
        raise ValueError(f"{dict(rule)} is no post-processing")
    return replace(made, smallest=float(made.smallest))


@dataclass(frozen=True, eq=False)
class _Pair:
    predicted: Array
    truth: Array
    known: Array | None
    voxel: float


def choose(
    predictions: Sequence[Prediction],
    cases: Sequence[Case],
    labels: Sequence[Label],
    truth: Callable[[Case], tuple[Array, Array | None]],
) -> tuple[dict[str, Tidying], Decision]:
    """{label name: rule that helps it}, empty where none does, and the decision with the reasons.

    truth: of a case, its label map and where that is known, None for everywhere
    A step is taken where the label's mean Dice over all cases rises by `MARGIN` and most of the cases that it changes
    get better. A label that neither side has counts as 1: what was wrongly marked there and is removed is a gain.
    """
    if len(cases) < FEWEST_CASES:
        because = f"off: {len(cases)} validation cases are too few to choose it on, {FEWEST_CASES} are the least"
        return {}, Decision({}, because, NNUNET)
    pairs = [
        _Pair(np.asarray(one.data), *truth(case), one.geometry.voxel_volume or 1.0)
        for one, case in zip(predictions, cases, strict=True)
    ]
    chosen: dict[str, Tidying] = {}
    reasons = []
    for label in labels:
        rule, steps = _chosen_for(label.value, pairs)
        reasons += [f"{label.name}: {step}" for step in steps]
        if rule != Tidying():
            chosen[label.name] = rule
    because = "; ".join(reasons) if reasons else f"off: no step raised a label's mean Dice by {MARGIN}"
    plain = {name: {"largest": r.largest, "holes": r.holes, "smallest": r.smallest} for name, r in chosen.items()}
    return chosen, Decision(plain, f"{because} ({len(cases)} validation cases)", NNUNET)


def _chosen_for(value: int, pairs: Sequence[_Pair]) -> tuple[Tidying, list[str]]:
    rule, reasons = Tidying(), []
    before = _dice(value, rule, pairs)
    smallest = _half_of_the_smallest(value, pairs)
    steps: Mapping[str, Callable[[Tidying], Tidying]] = {
        "small pieces removed": lambda so_far: replace(so_far, smallest=smallest),
        "largest piece kept": lambda so_far: replace(so_far, largest=True),
        "holes filled": lambda so_far: replace(so_far, holes=True),
    }
    for words, step in steps.items():
        tried = step(rule)
        after = _dice(value, tried, pairs)
        changed = after != before
        gain = float((after - before).mean())
        if gain > MARGIN and (after > before).sum() > changed.sum() / 2:
            reasons.append(
                f"{words}, mean Dice {before.mean():.4f} to {after.mean():.4f}, "
                f"{int((after > before).sum())} of {int(changed.sum())} changed cases better"
            )
            rule, before = tried, after
    return rule, reasons


def _dice(value: int, rule: Tidying, pairs: Sequence[_Pair]) -> np.ndarray:
    """(cases,)"""
    scores = []
    for pair in pairs:
        mask = tidied(pair.predicted, {value: rule}, pair.voxel)
        predicted = mask == value if pair.known is None else (mask == value) & pair.known
        score = overlap(predicted, pair.truth == value).dice
        scores.append(1.0 if np.isnan(score) else score)
    return np.array(scores)


def _half_of_the_smallest(value: int, pairs: Sequence[_Pair]) -> float:
    """Half the volume of the smallest true piece: no expert marks a single piece as small as that."""
    smallest = []
    for pair in pairs:
        pieces, count = ndimage.label(pair.truth == value, np.ones((3,) * pair.truth.ndim))
        if count:
            smallest.append(float(np.bincount(pieces.ravel())[1:].min()) * pair.voxel)
    return round(min(smallest, default=0.0) / 2, 6)

"""Differences between the answers to people who look alike and are of different groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isocenter.evaluation.fairness.attributes import UNKNOWN
from isocenter.evaluation.intervals import FEW_PATIENTS
from isocenter.values import Floats

DEALINGS = 499
# Nearest cases among which one of each kind is looked for first; where there is none, among so many times as many.
FIRST_LOOKED, WIDER = 16, 8
# Of more cases so many are drawn: each is compared with each, dealing after dealing.
MOST = 400


@dataclass(frozen=True)
class Alike:
    """The distance between the answers to nearest neighbours, of other groups and of the own one.

    others, own: mean differences; difference: the first less the second
    p:          of so large a difference if groups are dealt anew
    """

    attribute: str
    others: float
    own: float
    difference: float
    p: float
    cases: int


def neighbour_gap(
    attribute: str,
    rows: Floats,
    answers: Floats,
    groups: np.ndarray,
    patients: np.ndarray,
    *,
    seed: int,
    eyes: np.ndarray | None = None,
) -> Alike | None:
    """The nearest case of another patient, of the own group and of another one, and how far the answers lie apart.

    rows:    (cases, numbers) what a network sees; answers: (cases, numbers), NaN where one is not known
    eyes:    (cases,) the number of the network that sees each, whose neighbours are those that it sees too; None: one
    Dwork et al., ITCS 2012, arXiv:1104.3913. None where fewer than two groups have 10 patients each.
    """
    counts = {name: len(set(patients[groups == name].tolist())) for name in set(groups.tolist()) - {UNKNOWN}}
    here = np.isin(groups.astype(str), [name for name, count in counts.items() if count >= FEW_PATIENTS])
    if sum(count >= FEW_PATIENTS for count in counts.values()) < 2:
        return None
    random, places = np.random.default_rng(seed), np.flatnonzero(here)
    if len(places) > MOST:
        places = np.sort(random.choice(places, MOST, replace=False))
    eyes = np.zeros(len(here), dtype=int) if eyes is None else eyes
    seen, eyes, answered = _standardised(rows[places], eyes[places]), eyes[places], answers[places]
    squares = (seen**2).sum(axis=1)
    away = squares[:, None] + squares - 2 * seen @ seen.T
    owner = np.unique(patients[places].astype(str), return_inverse=True)[1]
    apart, comparable = _apart(answered)
    away[(owner[:, None] == owner) | (eyes[:, None] != eyes) | ~comparable] = np.inf
    number = np.unique(groups[places].astype(str), return_inverse=True)[1]
    # Who is near stays as it is dealt anew: sorted once.
    order = away.argsort(axis=1, kind="stable")
    is_known, sorted_apart = (np.take_along_axis(one, order, axis=1) for one in (np.isfinite(away), apart))
    others, mean_own = _means(order, is_known, sorted_apart, number)
    first = np.unique(owner, return_index=True)[1]
    reached = 0
    for _ in range(DEALINGS):  # a patient keeps one group, and each network as many of it
        dealt = _means(order, is_known, sorted_apart, _dealt(number[first], eyes[first], random)[owner])
        reached += dealt[0] - dealt[1] >= others - mean_own - 1e-12
    return Alike(attribute, others, mean_own, others - mean_own, (reached + 1) / (DEALINGS + 1), len(places))


def _standardised(rows: Floats, eyes: np.ndarray) -> Floats:
    """Features of each network in standard deviations over its cases; 0 where these do not differ."""
    scaled = np.zeros(rows.shape)
    for number in np.unique(eyes):
        of_part = rows[eyes == number]
        deviation = of_part.std(axis=0)
        scaled[eyes == number] = (of_part - of_part.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    return scaled


def _dealt(groups: np.ndarray, eyes: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(patients,) the groups dealt anew among those whom one network sees."""
    shuffled = groups.copy()
    for number in np.unique(eyes):
        places = np.flatnonzero(eyes == number)
        shuffled[places] = groups[places][random.permutation(len(places))]
    return shuffled


def _apart(answers: Floats) -> tuple[Floats, np.ndarray]:
    """(cases, cases) the mean distance of the answers that both have, and whether they have any in common."""
    total, count = (np.zeros((len(answers), len(answers))) for _ in range(2))
    for answer in answers.T:
        distance = np.abs(answer[:, None] - answer)
        total += np.nan_to_num(distance)
        count += np.isfinite(distance)
    return total / np.maximum(count, 1), count > 0


def _means(order: np.ndarray, is_known: np.ndarray, apart: Floats, groups: np.ndarray) -> tuple[float, float]:
    """Mean differences of answers to the nearest of other groups, and of the own.

    order: (cases, cases) the others of each, the nearest first; is_known: which of them are another patient's
    """
    means = []
    for is_own in (False, True):
        near, left, width = list[Floats](), np.arange(len(groups)), FIRST_LOOKED
        while len(left) and width < WIDER * len(groups):
            allowed = ((groups[order[left, :width]] == groups[left, None]) == is_own) & is_known[left, :width]
            place, found = allowed.argmax(axis=1), allowed.any(axis=1)
            near.append(apart[left[found], place[found]])
            left, width = left[~found], WIDER * width
        nearest = np.concatenate(near)
        means.append(float(nearest.mean()) if len(nearest) else float("nan"))
    return means[0], means[1]

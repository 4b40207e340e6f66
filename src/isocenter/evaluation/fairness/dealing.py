"""Tests of a figure's differences among groups of people, who are dealt anew to groups of the same sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from isocenter.evaluation.intervals import CHUNK, Integers, Resampling, Statistic, weightings
from isocenter.evaluation.weighting import ratio
from isocenter.values import Floats

DRAWS = 1000
# Dealings: so many unless a gap as large came so often before, Besag and Clifford, Biometrika 1991,
# doi:10.1093/biomet/78.2.301
MOST_DEALINGS, ENOUGH, AT_ONCE = 9999, 20, 50
# Weights, people times groups times dealings, that one test may take, a second; and the fewest dealings of one.
MOST_WORK, FEWEST_DEALINGS = 30_000_000, 999
# A figure that is no ratio of sums has its variance by so many blocks of people, each left out once.
BLOCKS = 20
# People times groups up to which such variances of every dealing take seconds.
MOST_DEALT = 4000


@dataclass(frozen=True, eq=False)
class Dealt:
    """Figures of groups, and how often chance makes as large a gap.

    figures: (statistics, groups)
    drawn:   (draws, statistics, groups) where people are drawn again within their group
    p:       share of dealings with two groups as far apart by their standard error, these people's own among them
    people:  (statistics, groups) how many make each figure; of several strata one more than Welch's degrees of freedom
    usual:   (statistics, groups) the variance of each figure of a group of these sizes, dealt from all people
    """

    figures: Floats
    drawn: Floats
    p: float
    people: Floats
    usual: Floats


def can_be_dealt(people: int, groups: int) -> bool:
    """Whether people are few enough to be dealt to so many groups; of more the normal law is as good."""
    return people * groups <= MOST_DEALT


def dealt(statistics: Sequence[Statistic | Floats], groups: Integers, strata: Integers, *, seed: int) -> Dealt:
    """The figures of each group, with draws and a permutation test of their gap.

    statistics: (draws, people) weights to (draws,) figures each, or (2, people) what each adds to the two sums whose
                ratio is the figure
    groups:     (people,) numbers from 0 on; -1 for people of none
    strata:     (people,) within which people are drawn and dealt: a figure of the diseased is compared among these
    Dealings are compared by the largest difference of two groups over its standard error, made anew for each dealing:
    by the difference alone, groups of unlike spread would pass for groups of unlike means.
    Janssen, Stat Probab Lett 1997, doi:10.1016/S0167-7152(97)00043-6; Chung and Romano, Ann Stat 2013,
    doi:10.1214/13-AOS1090
    """
    count, random = int(groups.max(initial=-1)) + 1, np.random.default_rng(seed)
    statistics = [one * (groups >= 0) if isinstance(one, np.ndarray) else one for one in statistics]
    people = np.stack([_making(one, groups, strata, count) for one in statistics])
    cells = np.unique(np.stack([strata, groups]), axis=1, return_inverse=True)[1].reshape(-1)
    how = Resampling(seed, draws=int(np.clip(MOST_WORK // (len(groups) * max(count, 1)), 200, DRAWS)))
    draws = weightings(cells, how, width=len(groups))
    drawn = np.concatenate([_figures(statistics, weights, groups, count) for weights in draws])
    slots = np.where(groups < 0, -1, groups * BLOCKS + _numbered(cells, random) % BLOCKS)
    members = [np.flatnonzero((groups >= 0) & (strata == stratum)) for stratum in np.unique(strata[groups >= 0])]
    figures, own = _spreads(statistics, slots[None], people)
    usual, reached, done, largest = own[0], 0, 0, float("-inf")
    work = len(groups) * count * (1 if all(isinstance(one, np.ndarray) for one in statistics) else BLOCKS + 1)
    most = int(np.clip(MOST_WORK // max(work, 1), FEWEST_DEALINGS, MOST_DEALINGS))
    at_once = max(1, min(AT_ONCE, CHUNK // max(len(groups), 1)))
    while count > 1 and done < most and reached < ENOUGH:
        rows = np.tile(slots, (min(at_once, most - done), 1))
        for some in members:
            rows[:, some] = random.permuted(rows[:, some], axis=1)
        each, variances = _spreads(statistics, rows, people)
        if not done:
            usual = np.concatenate([own, variances]).mean(axis=0)
            largest = float(largest_of(figures, np.maximum(own, usual / people))[0])
            if not largest > float("-inf"):
                break
        # Ten people who are all right have no variance, and are no proof: what one person more might bring remains.
        apart = largest_of(each, np.maximum(variances, usual / people))
        reached += int(np.count_nonzero(apart >= largest * (1 - 1e-9)))  # one that is undefined is none
        done += len(rows)
    return Dealt(figures[0], drawn, (reached + 1) / (done + 1) if done else float("nan"), people, usual)


def largest_of(figures: Floats, variances: Floats) -> Floats:
    """(rows,) of (rows, statistics, groups) the largest difference of two groups over its standard error."""
    largest = np.full(len(figures), -np.inf)
    for first, second in combinations(range(figures.shape[2]), 2):
        apart = np.abs(figures[..., first] - figures[..., second])
        error = np.sqrt(variances[..., first] + variances[..., second])
        each = np.where(np.isnan(apart + error), -np.inf, np.where(apart > 1e-12, np.inf, 0.0))
        np.divide(apart, error, out=each, where=(error > 1e-12) & np.isfinite(apart))
        largest = np.maximum(largest, each.max(axis=1))
    return largest


def _figures(statistics: Sequence[Statistic | Floats], weights: Floats, groups: Integers, count: int) -> Floats:
    """(draws, statistics, groups) for (draws, people) weights."""
    made = np.empty((len(weights), len(statistics), count))
    for number in range(count):
        own = weights * (groups == number)
        for place, one in enumerate(statistics):
            made[:, place, number] = ratio(own @ one[0], own @ one[1]) if isinstance(one, np.ndarray) else one(own)
    return made


def _spreads(statistics: Sequence[Statistic | Floats], slots: Integers, people: Floats) -> tuple[Floats, Floats]:
    """(rows, statistics, groups) figures and their variances, for (rows, people) slots: groups, and blocks in them."""
    figures = np.empty((len(slots), *people.shape))
    variances = np.zeros_like(figures)
    owners, blocks = np.divmod(slots, BLOCKS)
    for number in range(people.shape[1]):
        inside = (owners == number).astype(np.float64)
        for place, one in enumerate(statistics):
            if isinstance(one, np.ndarray):
                made = _of_sums(one, inside, people[place, number])
            else:
                value = one(inside)
                without = np.array([one(inside * (blocks != block)) for block in range(BLOCKS)])
                made = value, (BLOCKS - 1) * np.where(np.isfinite(without), without, value).var(axis=0)
            figures[:, place, number], variances[:, place, number] = made
    return figures, np.nan_to_num(variances)


def _of_sums(sums: Floats, inside: Floats, people: float) -> tuple[Floats, Floats]:
    """(rows,) ratios of sums over those inside, and their linearised variances."""
    middle = float(ratio(*sums.sum(axis=1)))
    centred, counts = sums[0] - middle * sums[1], sums[1]
    parts = np.stack([centred, counts, centred**2, centred * counts, counts**2], axis=1)
    part, whole, squares, products, wholes = (inside @ parts).T
    value = ratio(part, whole)
    variance = (squares - 2 * value * products + value**2 * wholes).clip(0) * people / max(people - 1, 1)
    variance = ratio(variance, whole**2)
    if np.array_equal(sums, np.rint(sums)) and ((sums[0] >= 0) & (sums[0] <= counts)).all():
        # Of alike groups a share of calls varies at least as that of independent ones, even where all are right.
        variance = np.maximum(variance, ratio(middle * (1 - middle), whole))
    return middle + value, variance


def _making(statistic: Statistic | Floats, groups: Integers, strata: Integers, count: int) -> Floats:
    """(groups,) the people who make the figure of each: those in its denominator, or in strata of equal spread."""
    if isinstance(statistic, np.ndarray):
        return np.bincount(groups[(groups >= 0) & (statistic[1] > 0)], minlength=count).clip(1).astype(np.float64)
    made = np.ones(count)
    for number in range(count):
        sizes = np.bincount(strata[groups == number])
        sizes = sizes[sizes > 1]
        made[number] += ratio((1 / sizes).sum() ** 2, (1 / sizes**2 / (sizes - 1)).sum()) if len(sizes) else 0
    return made


def _numbered(cells: Integers, random: np.random.Generator) -> Integers:
    """(people,) the number of each within the cell, in random order."""
    order = random.permutation(len(cells))
    order = order[np.argsort(cells[order], kind="stable")]
    numbers = np.empty(len(cells), dtype=np.intp)
    numbers[order] = np.arange(len(cells)) - np.searchsorted(cells[order], cells[order])
    return numbers

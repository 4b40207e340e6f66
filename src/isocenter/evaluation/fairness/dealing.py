"""Tests of a figure's differences among groups of people, who are dealt anew to groups of the same sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from isocenter.evaluation.intervals import CHUNK, Integers, Resampling, Statistic, weightings
from isocenter.values import Floats

DRAWS = 1000
# Dealings: so many unless a gap as large came so often before, Besag and Clifford, Biometrika 1991,
# doi:10.1093/biomet/78.2.301
MOST_DEALINGS, ENOUGH, AT_ONCE = 9999, 20, 333
# Weights, people times groups times dealings, that one test may take, half a second; and the fewest dealings of one.
MOST_WORK, FEWEST_DEALINGS = 30_000_000, 999


@dataclass(frozen=True, eq=False)
class Dealt:
    """Figures of groups, and how often chance makes as large a gap.

    figures: (statistics, groups)
    drawn:   (draws, statistics, groups) where people are drawn again within their group
    p:       share of dealings with a gap as large, these people's own among them
    """

    figures: Floats
    drawn: Floats
    p: float


def can_be_dealt(people: int, groups: int) -> bool:
    """Whether people are few enough to be dealt to so many groups; of more the normal law is as good."""
    return people * groups * FEWEST_DEALINGS <= MOST_WORK


def dealt(
    statistics: Sequence[Statistic],
    groups: Integers,
    strata: Integers,
    gap: Callable[[Floats], Floats],
    *,
    seed: int,
) -> Dealt:
    """The figures of each group, with draws and a permutation test of their gap.

    statistics: (draws, people) weights to (draws,) figures each
    groups:     (people,) numbers from 0 on; -1 for people of none
    strata:     (people,) within which people are drawn and dealt: a figure of the diseased is compared among these
    gap:        (draws, statistics, groups) to (draws,) how far the groups are apart
    """
    count = int(groups.max(initial=-1)) + 1

    def figures(owners: Integers, weights: Floats | float = 1.0) -> Floats:
        """(rows, statistics, groups) for owners (rows or 1, people)."""
        each = [[one(weights * (owners == number)) for number in range(count)] for one in statistics]
        return np.moveaxis(np.array(each, dtype=np.float64), -1, 0)

    here = figures(groups[None], np.ones((1, len(groups))))
    known, random = groups >= 0, np.random.default_rng(seed)
    cells = np.unique(np.stack([strata, groups]), axis=1, return_inverse=True)[1].reshape(-1)
    how = Resampling(seed, draws=int(np.clip(MOST_WORK // (len(groups) * count), 200, DRAWS)))
    drawn = np.concatenate([figures(groups[None], weights) for weights in weightings(cells, how, width=len(groups))])
    own, reached, done = float(gap(here)[0]), 0, 0
    members = [np.flatnonzero(known & (strata == stratum)) for stratum in np.unique(strata[known])]
    most = min(MOST_DEALINGS, max(FEWEST_DEALINGS, MOST_WORK // (len(groups) * count)))
    at_once = max(1, min(AT_ONCE, CHUNK // len(groups)))
    while np.isfinite(own) and done < most and reached < ENOUGH:
        rows = min(at_once, most - done)
        owners = np.broadcast_to(groups, (rows, len(groups))).copy()
        for some in members:
            owners[:, some] = random.permuted(owners[:, some], axis=1)
        apart = gap(figures(owners, 1.0))
        reached += int(np.count_nonzero(apart >= own - 1e-12))  # one that is undefined is none
        done += rows
    return Dealt(here[0], drawn, (reached + 1) / (done + 1) if done else float("nan"))

"""Gaps among groups: how far the best and the worst are apart, with an interval and a test."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from isocenter.evaluation.fairness.dealing import Dealt, dealt
from isocenter.evaluation.intervals import FEW_PATIENTS, LEVEL, Integers, rarest, tail_of
from isocenter.evaluation.table import ALL, Table, class_names
from isocenter.evaluation.weighting import ratio
from isocenter.lazy import pandas as pd
from isocenter.lazy import stats
from isocenter.values import Estimate, Floats, Recipe

FEW = "too few to judge"
# Of more people so many bags are drawn and dealt, each of people of one group and stratum: sums of calls allow it.
MOST_BAGS = 2000
NAN = float("nan")


@dataclass(frozen=True)
class Gap:
    """How far the groups of an attribute lie apart in a figure.

    value:  of the best less the worst group, or of a ratio the one by the other; NaN with fewer than two groups
    low, high: of these two groups, so that a chance gap has 0 (a ratio 1) between them
    p:      of so large a gap if the groups are alike; NaN where nothing can be tested
    p_adjusted: of all gaps of an audit together
    worst:  the group with the worst figure
    """

    attribute: str
    metric: str
    label: str
    value: float
    low: float = NAN
    high: float = NAN
    p: float = NAN
    p_adjusted: float = NAN
    worst: str = ""


def few_in(table: Table, label: str, classes: Sequence[Any]) -> bool:
    """Whether a group has too few people to judge it: below 10, or below 10 of either class.

    table:   the group's rows for this label
    classes: that the rows of all groups have; none where a reference is no class
    """
    if not classes:
        return bool(table["patient"].nunique() < FEW_PATIENTS)
    known = _classes(table)
    sides = [known == label, known != label] if label in set(classes) else [known == one for one in classes]
    return any(table["patient"][np.asarray(side)].nunique() < FEW_PATIENTS for side in sides)


def classes_of(table: Table) -> list[Any]:
    """The classes that references name, or whether an event happened; none where they are numbers or masks."""
    known = _classes(table)
    return [] if known is None else sorted(known.dropna().unique().tolist())


def _classes(table: Table) -> pd.Series[Any] | None:
    if "event" in table:
        return table["event"]
    if "reference" in table and not pd.api.types.is_numeric_dtype(table["reference"]):
        return table["reference"]
    return None


def gap_of_recipe(gap: Gap, recipe: Recipe, groups: Mapping[str, str], *, worse: int, seed: int) -> Gap:
    """The gap of a figure, made of each group by what made it of all.

    groups: {person: group} of those that can be judged
    worse:  1 where more is worse, -1 where less is
    """
    names, owners = _owners([groups.get(one, "") for one in recipe.people.tolist()])
    if len(names) < 2:
        return replace(gap, value=NAN)
    figures = dealt([recipe.statistic], owners, recipe.strata, _range, seed=seed)
    # As of a figure by itself the smallest stratum decides how little its draws vary.
    strata = [np.bincount(recipe.strata[owners == group]) for group in range(len(names))]
    fewest = np.array([[own[own > 0].min() for own in strata]])
    return _with(gap, figures, names, fewest, worse)


def gap_of_estimates(gap: Gap, estimates: Mapping[str, Estimate], worse: Callable[[float], float]) -> Gap:
    """The gap of figures of which each has an interval only: by the normal law, times the pairs of groups.

    worse: a figure to a number that is largest for the worst
    """
    known = {name: one for name, one in estimates.items() if np.isfinite(one.value)}
    if len(known) < 2:
        return replace(gap, value=NAN)
    least, most = (choose(known, key=lambda name: known[name].value) for choose in (min, max))
    value = known[most].value - known[least].value
    worst = max(known, key=lambda name: worse(known[name].value))
    spread = math.hypot(_error(known[least]), _error(known[most]))
    if not math.isfinite(spread) or spread == 0:
        return replace(gap, value=value, worst=worst)
    half = float(stats.norm.isf((1 - LEVEL) / 2)) * spread
    pairs = len(known) * (len(known) - 1) / 2
    p = min(1.0, pairs * 2 * float(stats.norm.sf(value / spread)))
    return replace(gap, value=value, low=value - half, high=value + half, p=p, worst=worst)


def rate_gaps(
    attribute: str,
    table: Table,
    groups: np.ndarray,
    judged: Callable[[str], Collection[str]],
    *,
    seed: int,
    positives: Collection[str] = (),
) -> Iterator[Gap]:
    """The gaps of calls, by the columns `predicted` and `reference`, of each positive class.

    groups: (rows,) the group of each
    positives: without any, of two classes the second, of several each
    judged: a label to the groups that can be judged by it
    Hardt et al., arXiv:1610.02413; as in fairlearn, where its `predictive parity` is that of the precision.
    """
    if not {"predicted", "reference"} <= set(table) or not classes_of(table):
        return
    known = (table["predicted"].notna() & table["reference"].notna()).to_numpy()
    for name in dict.fromkeys(table["label"]):
        rows = known & (table["label"] == name).to_numpy()
        own, owned = table[rows], groups[rows]
        classes = [*class_names(own)] or sorted({*own["reference"], *own["predicted"]})
        usual = classes[1:] if len(classes) == 2 else classes
        for positive in [one for one in classes if one in positives] or usual:
            label = name if name != ALL else str(positive)
            masked = np.where(np.isin(owned.astype(str), sorted(judged(label))), owned, "")
            yield from _of_calls(attribute, label, own, masked, positive, seed)


def abstention_gap(attribute: str, table: Table, groups: np.ndarray, *, seed: int) -> Gap:
    """The gap of the share of cases without an answer; groups: (rows,) "" of those that cannot be judged"""
    given = table["abstained"].fillna("").to_numpy() != ""
    calls = _Calls.of(table["patient"].to_numpy(str), groups, given, given)
    return calls.gap(Gap(attribute, "abstention", ALL, NAN), (calls.counts(given),), calls.alike, _range, 1, seed)


def adjusted_gaps(gaps: Sequence[Gap], correction: Callable[[Floats], Floats]) -> list[Gap]:
    """The gaps with p-values for all of them together."""
    tested = [n for n, gap in enumerate(gaps) if np.isfinite(gap.p)]
    p: Floats = correction(np.array([gaps[n].p for n in tested])) if tested else np.empty(0)
    adjusted = dict(zip(tested, p.tolist(), strict=True))
    return [replace(gap, p_adjusted=adjusted.get(n, NAN)) for n, gap in enumerate(gaps)]


@dataclass(frozen=True, eq=False)
class _Calls:
    """Rows of people in groups: one person in two groups is two of them."""

    names: list[str]
    owners: Integers
    person: Integers
    truth: Integers
    calls: Integers

    @classmethod
    def of(cls, patients: np.ndarray, groups: np.ndarray, truth: np.ndarray, called: np.ndarray) -> _Calls:
        """groups: (rows,) "" where a row is of none"""
        _, person = np.unique(np.stack([patients.astype(str), groups.astype(str)]), axis=1, return_inverse=True)
        person = person.reshape(-1)
        first = np.unique(person, return_index=True)[1]
        names, owners = _owners(groups[first].tolist())
        return cls(names, owners, person, rarest(truth, person), rarest(called, person))

    @property
    def alike(self) -> Integers:
        """One stratum: whoever the people are."""
        return np.zeros(len(self.owners), dtype=np.intp)

    def counts(self, counted: np.ndarray, among: np.ndarray | None = None) -> Floats:
        """(2, people) rows that are counted, and all or those among which."""
        of = np.ones(len(counted), dtype=bool) if among is None else among
        return np.stack([np.bincount(self.person, one.astype(float)) for one in (counted & of, of)])

    def gap(
        self,
        gap: Gap,
        counts: Sequence[Floats],
        strata: Integers,
        apart: Callable[[Floats], Floats],
        worse: int,
        seed: int,
    ) -> Gap:
        """The gap of rates, each the first counts by the second."""
        if len(self.names) < 2:
            return gap
        # People without a row in the denominator of a rate are none of those who make it.
        known, size = self.owners >= 0, len(self.names)
        making = [np.bincount(self.owners[known & (own[1] > 0)], minlength=size) for own in counts]
        bags, owners, strata = _bags(self.owners, strata, seed)
        sums = [np.stack([np.bincount(bags, own).astype(np.float64) for own in one]) for one in counts]
        figures = dealt([partial(_rate, one) for one in sums], owners, strata, apart, seed=seed)
        return _with(gap, figures, self.names, np.stack(making), worse, of=apart)


def _of_calls(attribute: str, label: str, own: Table, groups: np.ndarray, positive: Any, seed: int) -> Iterator[Gap]:
    """Those of one class against the rest."""
    truth, called = ((own[column] == positive).to_numpy() for column in ("reference", "predicted"))
    calls = _Calls.of(own["patient"].to_numpy(str), groups, truth, called)
    chosen, hit = calls.counts(called), calls.counts(called, truth)
    false, right = calls.counts(called, ~truth), calls.counts(truth, called)
    for metric, counts, strata, apart in (
        ("demographic_parity_difference", (chosen,), calls.alike, _range),
        ("demographic_parity_ratio", (chosen,), calls.alike, _unlike),
        ("equalised_odds_difference", (hit, false), calls.truth, _range),
        ("equal_opportunity_difference", (hit,), calls.truth, _range),
        ("predictive_parity_difference", (right,), calls.calls, _range),
    ):
        yield calls.gap(Gap(attribute, metric, label, NAN), counts, strata, apart, -1, seed)


def _rate(counts: Floats, weights: Floats) -> Floats:
    """(draws,)"""
    return ratio(weights @ counts[0], weights @ counts[1])


def _bags(owners: Integers, strata: Integers, seed: int) -> tuple[Integers, Integers, Integers]:
    """(people,) the bag of each, and of each bag its group and stratum; a person a bag, unless there are too many."""
    people = len(owners)
    size = -(-people // MOST_BAGS)
    order = np.random.default_rng(seed).permutation(people)
    order = order[np.lexsort([strata[order], owners[order]])]
    cells = np.unique(np.stack([owners, strata]), axis=1, return_inverse=True)[1].reshape(-1)
    starts = np.searchsorted(cells[order], cells[order])
    within = (np.arange(people) - starts) // size
    bags = np.empty(people, dtype=np.intp)
    bags[order] = np.unique(np.stack([cells[order], within]), axis=1, return_inverse=True)[1].reshape(-1)
    first = np.unique(bags, return_index=True)[1]
    return bags, owners[first], strata[first]


def _range(figures: Floats) -> Floats:
    """(draws,) the largest less the smallest, of the statistic in which that is most; undefined groups are left out."""
    known = np.isfinite(figures)
    most, least = np.where(known, figures, -np.inf).max(axis=2), np.where(known, figures, np.inf).min(axis=2)
    return np.where(known.sum(axis=2) > 1, most - least, -np.inf).max(axis=1)


def _unlike(figures: Floats) -> Floats:
    """(draws,) 1 less the ratio of the smallest to the largest."""
    return 1 - ratio(figures.min(axis=2), figures.max(axis=2))[:, 0]


def _owners(groups: Sequence[str]) -> tuple[list[str], Integers]:
    """The names of the groups, and (people,) the number of each; -1 for none."""
    names = sorted({one for one in groups if one})
    place = {name: number for number, name in enumerate(names)} | {"": -1}
    return names, np.array([place[one] for one in groups], dtype=np.intp)


def _with(gap: Gap, figures: Dealt, names: Sequence[str], people: Integers, worse: int, of: Any = _range) -> Gap:
    """The gap between the two groups that are farthest apart, in the statistic in which they are.

    people: (statistics, groups) who make each figure, by whom its interval is widened
    """
    each = np.where(np.isfinite(figures.figures), figures.figures, np.nan)
    defined = np.isfinite(each).sum(axis=1) > 1
    if not defined.any():
        return gap
    spans = np.where(defined, np.nanmax(np.where(defined[:, None], each, 0), axis=1), -np.inf)
    spans = spans - np.where(defined, np.nanmin(np.where(defined[:, None], each, 0), axis=1), 0)
    which = int(spans.argmax())
    least, most = int(np.nanargmin(each[which])), int(np.nanargmax(each[which]))
    low, high = figures.drawn[:, which, least], figures.drawn[:, which, most]
    by_ratio = of is _unlike
    value = float(ratio(each[which, least], each[which, most]) if by_ratio else each[which, most] - each[which, least])
    drawn = ratio(low, high) if by_ratio else high - low
    drawn = drawn[np.isfinite(drawn)]
    worst = names[most if worse > 0 or which > 0 else least]  # the second statistic is one of errors
    if not np.isfinite(value) or not len(drawn) or np.ptp(drawn) <= 1e-12:
        return replace(gap, value=value, p=figures.p, worst=worst)
    tail = tail_of(int(people[which, [least, most]].min()))
    ends = np.quantile(drawn, [tail, 1 - tail]).tolist()
    return replace(gap, value=value, low=ends[0], high=ends[1], p=figures.p, worst=worst)


def _error(estimate: Estimate) -> float:
    if estimate.low is None or estimate.high is None:
        return NAN
    return (estimate.high - estimate.low) / (2 * float(stats.norm.isf((1 - estimate.level) / 2)))

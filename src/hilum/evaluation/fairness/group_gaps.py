"""Gaps among groups, and between people who look alike: differences with an interval and a test.

The test deals people anew to groups of the same sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, cast

import numpy as np

from hilum.evaluation import _weighting, case_tables, intervals
from hilum.evaluation.case_tables import ALL, Table
from hilum.evaluation.fairness.group_attributes import UNKNOWN
from hilum.evaluation.intervals import CHUNK, FEW_PATIENTS, LEVEL, Integers, Resampling, Statistic
from hilum.lazy import pandas as pd
from hilum.lazy import stats
from hilum.values import Estimate, Floats
from hilum.values.estimate import FigureRecipe

FEW = "too few to judge"
RATIO = "demographic_parity_ratio"
# Draws of groups without any difference, for the expected gap of estimates.
DRAWS_WITHOUT_DIFFERENCE = 2000
# Of more people so many bags are sampled and dealt, each of people of one group and stratum: sums of calls allow it.
MOST_BAGS = 2000
NAN = float("nan")
DRAWS_OF_TEST = 1000
# Dealings: so many unless a gap as large came so often before, Besag and Clifford, Biometrika 1991,
# doi:10.1093/biomet/78.2.301
MOST_DEALINGS = 9999
ENOUGH = 20
AT_ONCE = 50
# Weights, people times groups times dealings, that one test may take, a second; and the fewest dealings of one.
MOST_WORK = 30_000_000
FEWEST_DEALINGS = 999
# A figure that is no ratio of sums has its variance by so many blocks of people, each left out once.
BLOCKS = 20
# People times groups up to which such variances of every dealing take seconds.
MOST_DEALT = 4000


@dataclass(frozen=True)
class Gap:
    """The gap among the groups of an attribute in a figure.

    value:  of the best less the worst group, or of a ratio the one by the other; NaN with fewer than two groups
    low, high: of these two groups, as wide as intervals of all pairs together have to be: in 95 % of audits all of
            these hold the truth, so that a chance gap has 0 (a ratio 1) between them
    p:      of two groups so far apart by their standard errors if all are alike; NaN where nothing can be tested
    p_adjusted: of all gaps of an audit together
    worst:  the group with the worst figure
    expected: the mean value where no group differs, which is above 0 (of a ratio below 1), as the best and the worst
            of groups differ by chance
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
    expected: float = NAN


def has_few_people(table: Table, label: str, classes: Sequence[Any]) -> bool:
    """Whether a group has too few people to judge it: below 10, or below 10 of either class.

    table:   the group's rows for this label
    classes: that the rows of all groups have; none where a reference is no class
    """
    if not classes:
        return bool(table["patient"].nunique() < FEW_PATIENTS)
    names = _classes(table)
    sides = [names == label, names != label] if label in set(classes) else [names == one for one in classes]
    return any(table["patient"][np.asarray(side)].nunique() < FEW_PATIENTS for side in sides)


def classes_in_references(table: Table) -> list[Any]:
    """The classes that references name, or whether an event happened; none where they are numbers or masks."""
    classes = _classes(table)
    return [] if classes is None else sorted(classes.dropna().unique().tolist())


def _classes(table: Table) -> pd.Series[Any] | None:
    if "event" in table:
        return table["event"]
    if "reference" in table and not pd.api.types.is_numeric_dtype(table["reference"]):
        return table["reference"]
    return None


def gap_of_recipe(gap: Gap, recipe: FigureRecipe, groups: Mapping[str, str], *, worse: int, seed: int) -> Gap:
    """The gap of a figure, made of each group by what made it of all.

    groups: {person: group} of those that can be judged
    worse:  1 where more is worse, -1 where less is
    """
    names, owners = _owners([groups.get(one, "") for one in recipe.people.tolist()])
    if len(names) < 2:
        return replace(gap, value=NAN)
    statistic = recipe.statistic if recipe.sums is None else recipe.sums
    return _with(gap, deal_groups([statistic], owners, recipe.strata, seed=seed), names, worse)


def gap_of_estimates(gap: Gap, estimates: Mapping[str, Estimate], worse: Callable[[float], float]) -> Gap:
    """The gap of figures of which each has an interval only, by the normal law of all pairs of groups.

    worse: a figure to a number that is largest for the worst
    Tukey and Kramer: p is at most too large where groups are of unlike size, Hayter, Ann Stat 1984,
    doi:10.1214/aos/1176346392
    """
    finite = {name: one for name, one in estimates.items() if np.isfinite(one.value)}
    if len(finite) < 2:
        return replace(gap, value=NAN)
    values, errors = (np.array([of(one) for one in finite.values()]) for of in (lambda one: one.value, _error))
    value = float(np.ptp(values))
    pair = [values.argmin(), values.argmax()]
    gap = replace(gap, value=value, worst=max(finite, key=lambda name: worse(finite[name].value)))
    spread = float(np.hypot(*errors[pair]))
    groups = int(np.isfinite(errors).sum())
    largest = float(largest_difference(values[None, None], errors[None, None] ** 2)[0])
    if not np.isfinite(spread) or spread == 0:
        return gap
    law = stats.studentized_range(groups, np.inf)
    half = float(law.isf(1 - LEVEL)) / np.sqrt(2) * spread
    draws = np.random.default_rng(0).normal(size=(DRAWS_WITHOUT_DIFFERENCE, 1, groups)) * errors[np.isfinite(errors)]
    p = float(law.sf(largest * np.sqrt(2)).clip(0, 1))
    return replace(gap, low=value - half, high=value + half, p=p, expected=float(_range(draws).mean()))


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
    if not {"predicted", "reference"} <= set(table) or not classes_in_references(table):
        return
    is_known = (table["predicted"].notna() & table["reference"].notna()).to_numpy()
    for name in dict.fromkeys(table["label"]):
        rows = is_known & (table["label"] == name).to_numpy()
        rows_of_table = table[rows]
        owned = groups[rows]
        classes = [*case_tables.classes_with_probability(rows_of_table)] or sorted(
            {*rows_of_table["reference"], *rows_of_table["predicted"]}
        )
        usual = classes[1:] if len(classes) == 2 else classes
        for positive in [one for one in classes if one in positives] or usual:
            label = name if name != ALL else str(positive)
            masked = np.where(np.isin(owned.astype(str), sorted(judged(label))), owned, "")
            yield from _of_calls(attribute, label, rows_of_table, masked, positive, seed)


def abstention_gap(attribute: str, table: Table, groups: np.ndarray, *, seed: int) -> Gap:
    """The gap of the share of cases without an answer; groups: (rows,) "" of those that cannot be judged"""
    is_abstained = table["abstained"].fillna("").to_numpy() != ""
    calls = _Calls.from_table(table["patient"].to_numpy(str), groups, is_abstained, is_abstained)
    return calls.gap(Gap(attribute, "abstention", ALL, NAN), (calls.counts(is_abstained),), calls.alike, 1, seed)


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
    def from_table(cls, patients: np.ndarray, groups: np.ndarray, truth: np.ndarray, called: np.ndarray) -> _Calls:
        """groups: (rows,) "" where a row is of none"""
        _, person = np.unique(np.stack([patients.astype(str), groups.astype(str)]), axis=1, return_inverse=True)
        person = person.reshape(-1)
        first = np.unique(person, return_index=True)[1]
        names, owners = _owners(groups[first].tolist())
        rarest = (intervals.rarest_classes(one, person) for one in (truth, called))
        return cls(names, owners, person, *rarest)

    @property
    def alike(self) -> Integers:
        """One stratum: whoever the people are."""
        return np.zeros(len(self.owners), dtype=np.intp)

    def counts(self, counted: np.ndarray, among: np.ndarray | None = None) -> Floats:
        """(2, people) rows that are counted, and all or those among which."""
        of = np.ones(len(counted), dtype=bool) if among is None else among
        return np.stack([np.bincount(self.person, one.astype(float)) for one in (counted & of, of)])

    def gap(self, gap: Gap, counts: Sequence[Floats], strata: Integers, worse: int, seed: int) -> Gap:
        """The gap of rates, each the first counts by the second."""
        if len(self.names) < 2:
            return gap
        bags, owners, strata = _bags(self.owners, strata, seed)
        sums = [np.stack([np.bincount(bags, own).astype(np.float64) for own in one]) for one in counts]
        return _with(gap, deal_groups(sums, owners, strata, seed=seed), self.names, worse)


def _of_calls(attribute: str, label: str, table: Table, groups: np.ndarray, positive: Any, seed: int) -> Iterator[Gap]:
    """The calls of one class against the rest."""
    truth, called = ((table[column] == positive).to_numpy() for column in ("reference", "predicted"))
    calls = _Calls.from_table(table["patient"].to_numpy(str), groups, truth, called)
    chosen = calls.counts(called)
    hit = calls.counts(called, truth)
    false = calls.counts(called, ~truth)
    right = calls.counts(truth, called)
    for metric, counts, strata in (
        ("demographic_parity_difference", (chosen,), calls.alike),
        (RATIO, (chosen,), calls.alike),
        ("equalised_odds_difference", (hit, false), calls.truth),
        ("equal_opportunity_difference", (hit,), calls.truth),
        ("predictive_parity_difference", (right,), calls.calls),
    ):
        yield calls.gap(Gap(attribute, metric, label, NAN), counts, strata, -1, seed)


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
    is_finite = np.isfinite(figures)
    most, least = np.where(is_finite, figures, -np.inf).max(axis=2), np.where(is_finite, figures, np.inf).min(axis=2)
    return cast("Floats", np.where(is_finite.sum(axis=2) > 1, most - least, -np.inf).max(axis=1))


def _owners(groups: Sequence[str]) -> tuple[list[str], Integers]:
    """The names of the groups, and (people,) the number of each; -1 for none."""
    names = sorted({one for one in groups if one})
    numbers = {name: number for number, name in enumerate(names)} | {"": -1}
    return names, np.array([numbers[one] for one in groups], dtype=np.intp)


def _with(gap: Gap, found: DealtFigures, names: Sequence[str], worse: int) -> Gap:
    """The gap between the two groups that are farthest apart, in the statistic in which they are.

    Of a ratio this is done with logarithms.
    """
    by_ratio = gap.metric == RATIO
    figures = found.figures
    draws = found.resampled
    least_known = found.usual / found.people
    if by_ratio and np.nanmin(figures, initial=1.0) <= 0:  # nothing can be said about how often it is never
        return replace(gap, value=float(_weighting.ratio_or_nan(np.nanmin(figures), np.nanmax(figures))), p=found.p)
    if by_ratio:
        draws = np.log(np.where(draws > 0, draws, np.nan))
        least_known = least_known / figures**2
        figures = np.log(figures)
    spans = np.array([_range(one[None, None])[0] for one in figures])
    which = int(spans.argmax())
    if not np.isfinite(spans[which]):
        return gap
    least, most = int(np.nanargmin(figures[which])), int(np.nanargmax(figures[which]))
    worst = names[most if worse > 0 or which > 0 else least]  # the second statistic is one of errors
    half, expected = _half(draws - figures, least_known, found.people, which, [least, most])
    ends = [spans[which], expected, spans[which] - half, spans[which] + half]
    value, expected, low, high = [float(one) for one in (np.exp(np.negative(ends)) if by_ratio else ends)]
    return replace(gap, value=value, low=min(low, high), high=max(low, high), p=found.p, worst=worst, expected=expected)


def _half(deviations: Floats, least: Floats, people: Floats, which: int, pair: list[int]) -> tuple[float, float]:
    """Half the width of a pair's interval, such that those of all pairs hold the truth together, and the mean range.

    deviations: (draws, statistics, groups) of draws from what they estimate
    least:      (statistics, groups) below which no variance is believed
    Games and Howell, J Educ Stat 1976, doi:10.3102/10769986001002113, with the quantile by bootstrap
    """
    is_finite = np.isfinite(deviations)
    count = is_finite.sum(axis=0).clip(2)
    variances = (np.where(is_finite, deviations, 0.0) ** 2).sum(axis=0) / (count - 1)
    largest = largest_difference(deviations, np.broadcast_to(variances, deviations.shape))
    reached = float(np.quantile(largest[np.isfinite(largest)], LEVEL)) if np.isfinite(largest).any() else NAN
    widths = np.maximum(variances * people / (people - 1).clip(1), least)[which, pair]
    if not widths.sum() > 1e-24:
        return NAN, NAN
    # The quantile's level by Student's law with Welch's degrees of freedom, as draws from few people vary too little.
    free = widths.sum() ** 2 / (widths**2 / (people[which, pair] - 1).clip(1)).sum()
    ranges = _range(deviations)
    expected = float(ranges[np.isfinite(ranges)].mean())
    return float(stats.t.isf(stats.norm.sf(reached), free) * np.sqrt(widths.sum())), expected


def _error(estimate: Estimate) -> float:
    if estimate.low is None or estimate.high is None:
        return NAN
    return (estimate.high - estimate.low) / (2 * float(stats.norm.isf((1 - estimate.level) / 2)))


@dataclass(frozen=True, eq=False)
class DealtFigures:
    """Figures of groups, and how often chance makes as large a gap.

    figures: (statistics, groups)
    resampled: (draws, statistics, groups) where people are resampled within their group
    p:       share of dealings with two groups as far apart by their standard error, these people's own among them
    people:  (statistics, groups) how many make each figure; of several strata one more than Welch's degrees of freedom
    usual:   (statistics, groups) the variance of each figure of a group of these sizes, dealt from all people
    """

    figures: Floats
    resampled: Floats
    p: float
    people: Floats
    usual: Floats


def can_deal_groups(people: int, groups: int) -> bool:
    """Whether people are few enough to be dealt to so many groups; of more the normal law is as good."""
    return people * groups <= MOST_DEALT


def deal_groups(
    statistics: Sequence[Statistic | Floats], groups: Integers, strata: Integers, *, seed: int
) -> DealtFigures:
    """The figures of each group, with draws and a permutation test of their gap.

    statistics: (draws, people) weights to (draws,) figures each, or (2, people) what each adds to the two sums whose
                ratio is the figure
    groups:     (people,) numbers from 0 on; -1 for people of none
    strata:     (people,) within which people are sampled and dealt: a figure of the diseased is compared among these
    Dealings are compared by the largest difference of two groups over its standard error, made anew for each dealing:
    by the difference alone, groups of unlike spread would pass for groups of unlike means.
    Janssen, Stat Probab Lett 1997, doi:10.1016/S0167-7152(97)00043-6; Chung and Romano, Ann Stat 2013,
    doi:10.1214/13-AOS1090
    """
    count = int(groups.max(initial=-1)) + 1
    random = np.random.default_rng(seed)
    statistics = [one * (groups >= 0) if isinstance(one, np.ndarray) else one for one in statistics]
    people = np.stack([_making(one, groups, strata, count) for one in statistics])
    cells = np.unique(np.stack([strata, groups]), axis=1, return_inverse=True)[1].reshape(-1)
    how = Resampling(seed, draws=int(np.clip(MOST_WORK // (len(groups) * max(count, 1)), 200, DRAWS_OF_TEST)))
    draws = intervals.sample_weightings(cells, how, width=len(groups))
    of_draws = np.concatenate([_figures(statistics, weights, groups, count) for weights in draws])
    slots = np.where(groups < 0, -1, groups * BLOCKS + _number_people(cells, random) % BLOCKS)
    members = [np.flatnonzero((groups >= 0) & (strata == stratum)) for stratum in np.unique(strata[groups >= 0])]
    figures, spreads = _spreads(statistics, slots[None], people)
    usual = spreads[0]
    reached = 0
    done = 0
    largest = float("-inf")
    work = len(groups) * count * (1 if all(isinstance(one, np.ndarray) for one in statistics) else BLOCKS + 1)
    most = int(np.clip(MOST_WORK // max(work, 1), FEWEST_DEALINGS, MOST_DEALINGS))
    at_once = max(1, min(AT_ONCE, CHUNK // max(len(groups), 1)))
    while count > 1 and done < most and reached < ENOUGH:
        rows = np.tile(slots, (min(at_once, most - done), 1))
        for some in members:
            rows[:, some] = random.permuted(rows[:, some], axis=1)
        of_rows, variances = _spreads(statistics, rows, people)
        if not done:
            usual = np.concatenate([spreads, variances]).mean(axis=0)
            largest = float(largest_difference(figures, np.maximum(spreads, usual / people))[0])
            if not largest > float("-inf"):
                break
        # Ten people who are all right have no variance, and are no proof: what one person more might bring remains.
        apart = largest_difference(of_rows, np.maximum(variances, usual / people))
        reached += int(np.count_nonzero(apart >= largest * (1 - 1e-9)))  # one that is undefined is none
        done += len(rows)
    return DealtFigures(figures[0], of_draws, (reached + 1) / (done + 1) if done else float("nan"), people, usual)


def largest_difference(figures: Floats, variances: Floats) -> Floats:
    """(rows,) of (rows, statistics, groups) the largest difference of two groups over its standard error."""
    largest = np.full(len(figures), -np.inf)
    for first, second in combinations(range(figures.shape[2]), 2):
        apart = np.abs(figures[..., first] - figures[..., second])
        error = np.sqrt(variances[..., first] + variances[..., second])
        scaled = np.where(np.isnan(apart + error), -np.inf, np.where(apart > 1e-12, np.inf, 0.0))
        np.divide(apart, error, out=scaled, where=(error > 1e-12) & np.isfinite(apart))
        largest = np.maximum(largest, scaled.max(axis=1))
    return largest


def _figures(statistics: Sequence[Statistic | Floats], weights: Floats, groups: Integers, count: int) -> Floats:
    """(draws, statistics, groups) for (draws, people) weights."""
    figures = np.empty((len(weights), len(statistics), count))
    for number in range(count):
        inside = weights * (groups == number)
        for index, statistic in enumerate(statistics):
            if isinstance(statistic, np.ndarray):
                figures[:, index, number] = _weighting.ratio_or_nan(inside @ statistic[0], inside @ statistic[1])
            else:
                figures[:, index, number] = statistic(inside)
    return figures


def _spreads(statistics: Sequence[Statistic | Floats], slots: Integers, people: Floats) -> tuple[Floats, Floats]:
    """(rows, statistics, groups) figures and their variances, for (rows, people) slots: groups, and blocks in them."""
    figures = np.empty((len(slots), *people.shape))
    variances = np.zeros_like(figures)
    owners, blocks = np.divmod(slots, BLOCKS)
    for number in range(people.shape[1]):
        inside = (owners == number).astype(np.float64)
        for index, statistic in enumerate(statistics):
            if isinstance(statistic, np.ndarray):
                value_and_variance = _of_sums(statistic, inside, people[index, number])
            else:
                value = statistic(inside)
                without = np.array([statistic(inside * (blocks != block)) for block in range(BLOCKS)])
                value_and_variance = value, (BLOCKS - 1) * np.where(np.isfinite(without), without, value).var(axis=0)
            figures[:, index, number], variances[:, index, number] = value_and_variance
    return figures, np.nan_to_num(variances)


def _of_sums(sums: Floats, inside: Floats, people: float) -> tuple[Floats, Floats]:
    """(rows,) ratios of sums over those inside, and their linearised variances."""
    middle = float(_weighting.ratio_or_nan(*sums.sum(axis=1)))
    centred = sums[0] - middle * sums[1]
    counts = sums[1]
    parts = np.stack([centred, counts, centred**2, centred * counts, counts**2], axis=1)
    part, total, squares, products, wholes = (inside @ parts).T
    value = _weighting.ratio_or_nan(part, total)
    variance = (squares - 2 * value * products + value**2 * wholes).clip(0) * people / max(people - 1, 1)
    variance = _weighting.ratio_or_nan(variance, total**2)
    if np.array_equal(sums, np.rint(sums)) and ((sums[0] >= 0) & (sums[0] <= counts)).all():
        # Of alike groups a share of calls varies at least as that of independent ones, even where all are right.
        variance = np.maximum(variance, _weighting.ratio_or_nan(middle * (1 - middle), total))
    return middle + value, variance


def _making(statistic: Statistic | Floats, groups: Integers, strata: Integers, count: int) -> Floats:
    """(groups,) the people who make the figure of each: those in its denominator, or in strata of equal spread."""
    if isinstance(statistic, np.ndarray):
        return np.bincount(groups[(groups >= 0) & (statistic[1] > 0)], minlength=count).clip(1).astype(np.float64)
    factors = np.ones(count)
    for number in range(count):
        sizes = np.bincount(strata[groups == number])
        sizes = sizes[sizes > 1]
        factors[number] += (
            _weighting.ratio_or_nan((1 / sizes).sum() ** 2, (1 / sizes**2 / (sizes - 1)).sum()) if len(sizes) else 0
        )
    return factors


def _number_people(cells: Integers, random: np.random.Generator) -> Integers:
    """(people,) the number of each within the cell, in random order."""
    order = random.permutation(len(cells))
    order = order[np.argsort(cells[order], kind="stable")]
    numbers = np.empty(len(cells), dtype=np.intp)
    numbers[order] = np.arange(len(cells)) - np.searchsorted(cells[order], cells[order])
    return numbers


DEALINGS = 499
# Nearest cases among which one of each kind is looked for first; where there is none, among so many times as many.
FIRST_LOOKED = 16
WIDER = 8
# Of more cases so many are sampled: each is compared with each, dealing after dealing.
MOST = 400


@dataclass(frozen=True)
class NeighbourDistances:
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
) -> NeighbourDistances | None:
    """The nearest case of another patient, of the own group and of another one, and how far the answers lie apart.

    rows:    (cases, numbers) what a network sees; answers: (cases, numbers), NaN where one is not known
    eyes:    (cases,) the number of the network that sees each, whose neighbours are those that it sees too; None: one
    Dwork et al., ITCS 2012, arXiv:1104.3913. None where fewer than two groups have 10 patients each.
    """
    counts = {name: len(set(patients[groups == name].tolist())) for name in set(groups.tolist()) - {UNKNOWN}}
    here = np.isin(groups.astype(str), [name for name, count in counts.items() if count >= FEW_PATIENTS])
    if sum(count >= FEW_PATIENTS for count in counts.values()) < 2:
        return None
    random = np.random.default_rng(seed)
    places = np.flatnonzero(here)
    if len(places) > MOST:
        places = np.sort(random.choice(places, MOST, replace=False))
    eyes = np.zeros(len(here), dtype=int) if eyes is None else eyes
    rows_seen = _standardise(rows[places], eyes[places])
    eyes = eyes[places]
    answered = answers[places]
    squares = (rows_seen**2).sum(axis=1)
    away = squares[:, None] + squares - 2 * rows_seen @ rows_seen.T
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
    return NeighbourDistances(
        attribute, others, mean_own, others - mean_own, (reached + 1) / (DEALINGS + 1), len(places)
    )


def _standardise(rows: Floats, eyes: np.ndarray) -> Floats:
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
        near = list[Floats]()
        left = np.arange(len(groups))
        width = FIRST_LOOKED
        while len(left) and width < WIDER * len(groups):
            allowed = ((groups[order[left, :width]] == groups[left, None]) == is_own) & is_known[left, :width]
            first_allowed = allowed.argmax(axis=1)
            found = allowed.any(axis=1)
            near.append(apart[left[found], first_allowed[found]])
            left = left[~found]
            width = WIDER * width
        nearest = np.concatenate(near)
        means.append(float(nearest.mean()) if len(nearest) else float("nan"))
    return means[0], means[1]

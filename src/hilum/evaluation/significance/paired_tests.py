"""Tests of models by the cases that all scored: the values of each case, differences, and their p-values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum import errors
from hilum.errors import DatasetError, UsageError
from hilum.evaluation import _weighting, case_tables, intervals
from hilum.evaluation.case_tables import ALL, PROBABILITY, Table
from hilum.evaluation.metric import Metric, Metrics
from hilum.evaluation.significance import auroc_tests, margins, testing
from hilum.evaluation.significance.auroc_tests import FEW_FOR_DELONG
from hilum.evaluation.significance.margins import MOST_RESAMPLED, Interval
from hilum.evaluation.significance.testing import LEVEL, NOTHING, DifferenceTest
from hilum.lazy import stats
from hilum.values import Array, Estimate, Floats, Row

DRAWS = 9999
# Of fewer that differ the law is exact: McNemar's usual bound, and that of tables of the signed rank.
EXACT_CALLS = 25
EXACT_RANKS = 50
# The largest sum of ranks whose law is made in a moment: few patients may have very many images.
MOST_SUM = 500_000
# Sorted differences that stand for all of more: their means, each with each, are looked at.
MOST_WALSH = 1000
# Why ranks test no margin.
OF_RANKS = "Wilcoxon's test is of the pseudomedian of the differences, a margin of the difference of the means"


def permutation_test(
    first: ArrayLike,
    second: ArrayLike,
    positive: ArrayLike | None = None,
    patients: ArrayLike | None = None,
    *,
    worst: float | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> DifferenceTest:
    """The difference of two means, or with `positive` of two AUROCs, where any patient's models may be exchanged.

    first, second: (cases,) numbers whose means are compared; scores, whose scale does not matter, with `positive`
    positive:      (cases,) truths
    patients:      (cases,) whose, where patients have several, which are exchanged together
    worst:         the worst value of the numbers whose means are compared; None where they have none
    Exact where all exchanges can be tried. The interval of means is that of differences by which one may be moved
    (`exchange_interval`), that of AUROCs by their variances on the logit scale (`area_interval`).
    Margins of means need `mean_ends` too: one model has the worst value in a further patient, the other its mean;
    without a worst value they differ by as much as in the patient in whom they differ most.
    False alarms are at most what is asked for: exchanges that change as much count as more extreme ones, so that there
    are fewer where few patients tell the models apart, as with AUROCs near 1: 4.1 in place of 5 % of 50 patients with
    AUROCs of .95, of whom 25 do (bench/claims/comparisons.py). The share of draws, (1 + b) / (1 + m), takes at most
    0.05 %.
    Bandos et al., Stat Med 2005, doi:10.1002/sim.2149: the difference of two AUROCs is a sum over cases
    """
    _weighting.refuse_no_draws(draws)
    ours, other = testing.paired_numbers(first, second)
    owner = testing.patient_numbers(patients, len(ours))
    if positive is None:
        parts: Floats = (other - ours) / len(ours)
    else:
        parts = _area_parts(ours, other, _weighting.require_truths(positive, "positive"))
    sums = np.asarray(np.bincount(owner, parts), dtype=np.float64)
    difference = float(sums.sum())
    unequal = sums[np.abs(sums) > NOTHING]
    what = "exchange of each patient's models"
    if not len(unequal):
        return DifferenceTest(difference, None, None, 0.0, 1.0, f"{what}; no case tells them apart")
    statistic = difference / float(np.sqrt((unequal**2).sum()))
    if len(unequal) > MOST_RESAMPLED:
        p = 2 * float(stats.norm.sf(abs(statistic)))
        how = "; normal distribution"
    else:
        exchanged, exact = _exchanges(len(unequal), seed, draws)
        reached = np.abs(2 * (exchanged @ unequal) - unequal.sum())
        extreme = int((reached >= abs(difference) - 1e-9 * np.abs(unequal).sum()).sum())
        p = extreme / len(reached) if exact else (1 + extreme) / (1 + len(reached))
        how = f", all {len(reached)}" if exact else f", {len(reached)} sampled"
    test = DifferenceTest(difference, None, None, statistic, p, f"{what}{how}")
    if positive is None:
        return _with_interval_of_means(test, ours, other, owner, worst, seed, draws)
    areas, covariance = auroc_tests.area_covariance(np.stack([ours, other]), positive, owner)
    if ends := margins.area_interval(areas, covariance, len(sums)):
        return replace(
            test, low=ends[0], high=ends[1], method=f"{test.method}; interval by DeLong's variances, logit scale"
        )
    is_whole = np.isin(areas, (0, 1)).any()
    whose = "an AUROC of 0 or 1" if is_whole else "one patient who has it, or one who has not,"
    return replace(test, method=f"{test.method}; {whose} has no interval")


def mcnemar_test(first: ArrayLike, second: ArrayLike, patients: ArrayLike | None = None) -> DifferenceTest:
    """The difference of two shares of right calls of the same cases.

    first, second: (cases,) whether each call is right
    patients:      (cases,) whose, where patients have several: their calls go together (Durkalski et al., Stat Med
                   2003, doi:10.1002/sim.1438)
    Exact, which is conservative, where fewer than 25 patients differ. Interval: `score_interval`, of patients with
    several cases with as many fewer cases as their design effect says.
    McNemar, Psychometrika 1947, doi:10.1007/BF02295996
    """
    ours, other = testing.paired_numbers(first, second)
    if not np.isin([ours, other], (0.0, 1.0)).all():
        remedy = "Give 1 for a right call, 0 for a wrong one"
        raise UsageError("a call that is neither right nor wrong", "McNemar", remedy)
    owner = testing.patient_numbers(patients, len(ours))
    sums = np.bincount(owner, other - ours)
    cases = len(ours)
    difference = float(sums.sum() / cases)
    nonzero = sums[sums != 0]
    effect = margins.design_effect(other - ours, owner)
    low, high = margins.score_interval((other > ours).sum() / effect, (ours > other).sum() / effect, cases / effect)
    statistic = float(nonzero.sum() / np.sqrt((nonzero**2).sum())) if len(nonzero) else 0.0
    if len(nonzero) < EXACT_CALLS:
        p = _exact(nonzero)
        law = "exact, which is conservative"
    else:
        p = 2 * float(stats.norm.sf(abs(statistic)))
        law = "z"
    method = f"McNemar, {len(nonzero)} that differ; {law}; score interval (Tango)"
    return DifferenceTest(difference, low, high, statistic, p, method)


def wilcoxon_test(first: ArrayLike, second: ArrayLike, patients: ArrayLike | None = None) -> DifferenceTest:
    """The typical difference of two numbers of the same cases (Hodges and Lehmann), by signed ranks.

    patients: (cases,) whose, where patients have several, whose signs go together (Rosner et al., Biometrics 2006,
              doi:10.1111/j.1541-0420.2005.00389.x)
    Cases without a difference are left out of the ranks; exact where fewer than 50 patients differ.
    It tests no margin: few patients in whom a model fails move the mean of the differences, and hardly their
    pseudomedian.
    Wilcoxon, Biometrics Bull 1945, doi:10.2307/3001968; Hodges and Lehmann, Ann Math Stat 1963
    """
    ours, other = testing.paired_numbers(first, second)
    owner = testing.patient_numbers(patients, len(ours))
    apart = other - ours
    differs = np.abs(apart) > NOTHING * max(float(np.abs([ours, other]).max(initial=0.0)), 1.0)
    ranks = stats.rankdata(np.abs(apart[differs])) * np.sign(apart[differs])
    sums = np.bincount(owner[differs], ranks)
    nonzero = sums[sums != 0]
    if not len(nonzero):
        return DifferenceTest(
            0.0, None, None, 0.0, 1.0, "Wilcoxon signed rank; no case tells them apart", unfit=OF_RANKS
        )
    deviation = float(np.sqrt((nonzero**2).sum()))
    statistic = float(nonzero.sum()) / deviation
    if len(nonzero) < EXACT_RANKS and np.abs(nonzero).sum() < MOST_SUM:
        p = _exact(2 * nonzero)
        law = "exact"
    else:
        p = 2 * float(stats.norm.sf(abs(statistic)))
        law = "z"
    middle, low, high = _typical(apart[differs] if len(nonzero) > 1 else apart, deviation)
    method = f"Wilcoxon signed rank, {len(nonzero)} that differ; {law}; interval of the pseudomedian"
    return DifferenceTest(middle, low, high, statistic, p, method, unfit=OF_RANKS)


def _with_interval_of_means(
    test: DifferenceTest, ours: Floats, other: Floats, owner: np.ndarray, worst: float | None, seed: int, draws: int
) -> DifferenceTest:
    sums, shares = (np.asarray(np.bincount(owner, n), dtype=np.float64) / len(ours) for n in (other - ours, None))
    test = replace(test, too_few=margins.too_few_for_margins(len(sums)))
    ends = _mean_interval(sums, shares, seed, draws)
    if ends is None:
        return replace(test, method=f"{test.method}; no interval of so few patients, or of all alike")
    test = replace(test, low=ends[0], high=ends[1], method=f"{test.method}; interval by exchanges at each difference")
    if test.too_few:
        return test
    if worst is None:
        farthest = float(np.abs(sums / shares).max())
        losses = (-farthest, farthest)
        what = "as far apart as any of these: the metric has no worst value"
    else:
        losses = (worst - ours.mean(), other.mean() - worst)
        what = f"at {worst:g}, the metric's worst value"
    unseen = f"{len(sums)} patients without a failure do not exclude failures in {300 / len(sums):.2g} % (3/n)"
    method = f"bootstrap-t, and one further patient {what}; {unseen}"
    return replace(test, margin_ends=margins.mean_ends(sums, shares, losses, seed), margin_method=method)


def _typical(apart: Floats, deviation: float) -> tuple[float, float, float]:
    """The median of the means of each two differences, and the ends of its interval by the law of signed ranks."""
    cases = len(apart)
    ordered = np.sort(apart)
    if cases > MOST_WALSH:
        ordered = np.quantile(ordered, (np.arange(MOST_WALSH) + 0.5) / MOST_WALSH)
    upper = np.triu_indices(len(ordered))
    means = (ordered[upper[0]] + ordered[upper[1]]) / 2
    share = float(stats.norm.ppf((1 + LEVEL) / 2)) * deviation / (cases * (cases + 1))
    low, middle, high = np.quantile(means, [max(0.5 - share, 0.0), 0.5, min(0.5 + share, 1.0)]).tolist()
    return middle, low, high


def _area_parts(ours: Floats, other: Floats, positive: np.ndarray) -> Floats:
    """(cases,) what each adds to the difference of two AUROCs, and takes from it where its models are exchanged."""
    auroc_tests.placements(np.stack([ours, other]), positive)  # refuses what has no AUROC
    first, second = (stats.rankdata(scores) for scores in (ours, other))
    yes, no = (np.sort(np.concatenate([first[side], second[side]])) for side in (positive, ~positive))
    above, below = (_share_below(no, ranks[positive]) for ranks in (second, first))
    under, over = (_share_below(yes, ranks[~positive]) for ranks in (first, second))
    parts = np.empty(len(ours))
    parts[positive] = (above - below) / positive.sum()
    parts[~positive] = (under - over) / (~positive).sum()
    return parts


def _share_below(ordered: Floats, values: Floats) -> Floats:
    """The share of ordered numbers below each value, equal ones half."""
    both = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return np.asarray(both / (2 * len(ordered)))


def _exchanges(people: int, seed: int, draws: int) -> tuple[NDArray[np.integer[Any]], bool]:
    """(draws, people) whose models are exchanged, and whether these are all exchanges that there are."""
    if 2**people <= draws + 1:
        return np.arange(2**people)[:, None] >> np.arange(people) & 1, True
    bits = np.frombuffer(np.random.default_rng(seed).bytes(draws * -(-people // 8)), dtype=np.uint8)
    return np.unpackbits(bits.reshape(draws, -1), axis=1, count=people), False


def _mean_interval(sums: Floats, shares: Floats, seed: int, draws: int) -> Interval:
    """The interval of a mean: by exchanges of patients, or by the normal law where there are very many.

    sums: (patients,) what each adds to the difference; shares: (patients,) of all cases
    """
    if len(sums) <= MOST_RESAMPLED:
        return margins.exchange_interval(sums, shares, _exchanges(len(sums), seed, draws)[0])
    difference = float(sums.sum())
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * float(np.sqrt(((sums - shares * difference) ** 2).sum()))
    return difference - half, difference + half


def _exact(sums: Floats) -> float:
    """The share of all exchanges of the signs of whole numbers whose sum is as far from 0."""
    integers = np.abs(np.rint(sums)).astype(int)
    law = np.zeros(2 * int(integers.sum()) + 1)
    middle = int(integers.sum())
    law[middle] = 1.0
    for number in integers:
        law = (np.roll(law, number) + np.roll(law, -number)) / 2
    least = abs(int(np.rint(sums.sum())))
    return float(min(1.0, law[np.abs(np.arange(len(law)) - middle) >= least].sum()))


def paired_bootstrap(first: Estimate, second: Estimate) -> DifferenceTest:
    """The difference of two figures that kept the draws of the same patients.

    p is the level at which the interval of `difference` ends at 0, so that both always say the same.
    """
    apart = intervals.difference(first, second)
    draws = first.draws
    other = second.draws
    if apart.low is None or apart.high is None or draws is None or other is None:
        same = abs(apart.value) <= NOTHING
        return DifferenceTest(apart.value, None, None, 0.0 if same else np.nan, 1.0 if same else np.nan, apart.method)
    figures = other.figures - draws.figures
    figures = figures[np.isfinite(figures)]
    beyond = min((figures <= 0).sum(), (figures >= 0).sum())
    share = min(1.0, 2 * (1 + float(beyond)) / (1 + len(figures)))
    free = max(draws.fewest - draws.models, 1)
    # The interval is widened for few patients: what it is widened by is taken from the normal deviate here.
    wide = float(stats.norm.isf(share / 2)) * (free / draws.fewest) ** 0.5
    statistic = apart.value / max(float(figures.std(ddof=1)), NOTHING)
    p = 2 * float(stats.t.sf(wide, free))
    too_few = margins.too_few_for_margins(len(draws.strata))
    return DifferenceTest(apart.value, apart.low, apart.high, statistic, p, apart.method, too_few)


def bootstrap_ranks(estimates: Sequence[Estimate], *, more: bool = True) -> Floats | None:
    """(draws, models) the rank of each model in each bootstrap sample, 1 for the best; models alike share their mean.

    None where they did not resample the same patients.
    """
    draws = [one.draws for one in estimates]
    present = [one for one in draws if one is not None]
    if len(present) < len(draws) or any(not np.array_equal(one.strata, present[0].strata) for one in present):
        return None
    figures = np.stack([one.figures for one in present], axis=1)
    figures = figures[np.isfinite(figures).all(axis=1)]
    return np.asarray(stats.rankdata(-figures if more else figures, axis=1)) if len(figures) else None


Kind = Literal["area", "share", "mean"]
# The tests that fit each kind, the usual one first.
FITTING: Mapping[Kind, tuple[str, ...]] = {
    "area": ("delong", "permutation"),
    "share": ("mcnemar", "permutation"),
    "mean": ("permutation", "wilcoxon"),
}


@dataclass(frozen=True, eq=False)
class CaseValues:
    """The numbers of which one figure of one label is made: an AUROC, a share of right calls, or a mean.

    cases, patients: (rows,) ids; values: (rows,) scores, 1 for a right call and 0 for a wrong one, or numbers
    positive:        (rows,) truths, of an AUROC alone
    worst:           the worst number that a case can have; None where there is none
    """

    metric: str
    label: str
    kind: Kind
    cases: np.ndarray
    patients: np.ndarray
    values: Floats
    positive: np.ndarray | None = None
    worst: float | None = None

    def of_rows(self, rows: np.ndarray) -> CaseValues:
        """The values of some rows, given as truths."""
        truth = None if self.positive is None else self.positive[rows]
        arrays = {name: getattr(self, name)[rows] for name in ("cases", "patients", "values")}
        return replace(self, **arrays, positive=truth)


def column_values(table: Table, metrics: Metrics) -> list[CaseValues]:
    """The case values of every column of figures in a table of cases: means of its labels, and of these means.

    metrics: those of the columns; one that is not declared has no worst value
    A column of nothing but 0 and 1 is a share, unless that of the other model is none. Rows without a figure are left
    out.
    """
    declared = map(metrics.metric_named, case_tables.metric_columns(table))
    return [values for metric in declared for values in _of_column(table, metric)]


def fitting_tests(first: CaseValues, second: CaseValues) -> tuple[str, ...]:
    """The names of the tests that fit the numbers of both models, the usual one first, whichever model is the first."""
    if "area" in (first.kind, second.kind):
        few = len(np.unique(first.patients)) < FEW_FOR_DELONG
        return FITTING["area"][::-1] if few else FITTING["area"]
    # One model's Dice may be 0 in every case: it is no share of right calls unless the other's is one too.
    return FITTING[first.kind if first.kind == second.kind else "mean"]


def case_test(name: str, first: CaseValues, second: CaseValues, *, seed: int) -> DifferenceTest:
    """The test of this name of two models' numbers of the same cases. Raises UsageError for one that does not fit."""
    fitting = fitting_tests(first, second)
    if name not in fitting:
        raise UsageError(f"{name} does not fit {first.metric}", "test", f"Choose {' or '.join(fitting)}")
    if not np.array_equal(first.cases, second.cases):
        raise UsageError(f"{first.metric} of other cases", "test", "Give both models of the same cases")
    ours = first.values
    other = second.values
    patients = first.patients
    if name == "permutation":
        return permutation_test(ours, other, first.positive, patients, worst=first.worst, seed=seed)
    if first.positive is not None:
        return auroc_tests.delong(ours, other, first.positive, patients)
    return (mcnemar_test if name == "mcnemar" else wilcoxon_test)(ours, other, patients)


def _of_column(table: Table, metric: Metric) -> list[CaseValues]:
    scored = table[table[metric.name].notna()]
    labels = list(dict.fromkeys(scored["label"]))
    if not labels:
        return []
    values = [_make_values(metric, str(label), scored[scored["label"] == label]) for label in labels if label != ALL]
    if len(labels) == 1:
        return [*values, _make_values(metric, ALL, scored)]
    # The mean of the labels' means, as one of all rows: each counts by how many its label has.
    share = scored["label"].map(len(scored) / (len(labels) * scored["label"].value_counts()))
    weighed = scored.assign(**{metric.name: scored[metric.name].astype(float) * share})
    return [*values, _make_values(metric, ALL, weighed)]


def _make_values(metric: Metric, label: str, table: Table) -> CaseValues:
    values = table[metric.name].to_numpy(dtype=np.float64)
    kind: Kind = "share" if np.isin(values, (0.0, 1.0)).all() else "mean"
    ids = (table["case"].to_numpy(str), table["patient"].to_numpy(str))
    return CaseValues(metric.name, label, kind, *ids, values, worst=metric.worst)


REMEDY = "Evaluate all of them on the same data with `hilum evaluate MODEL DATA --out FOLDER`, and compare those"
SAME_SPLIT = (
    f"{REMEDY}; cases with which one of them was trained flatter it. Trainings have the same split by one "
    "--set split.seed=N"
)
# What a row says of a case whatever was predicted.
GIVEN = ("time", "event", "references", "reference_boxes", "objects_reference", "voxels_reference", "reference")
# The score of a case that only grades have.
GRADED = "rps"


@dataclass(frozen=True)
class ComparedFigure:
    """One figure of several models for one label, and how much higher it is than the first one's."""

    metric: str
    label: str
    estimates: tuple[Estimate, ...]
    differences: tuple[Estimate, ...]


def compare_figures(
    tables: Mapping[str, Table], summaries: Sequence[Callable[..., Sequence[Row]]], *, seed: int
) -> tuple[list[ComparedFigure], dict[str, int]]:
    """Every figure that all models have, and {metric: rows that one of them lacks, left out for all}.

    tables:    {name: table of cases}, the one that the others are compared with first
    summaries: of each model, called with its table and `seed`, as its own task makes it by its own threshold
    Raises DatasetError where the tables are not of the same cases with the same references.
    """
    same, left_out = align_tables(tables)
    first, *others = (_estimates(summary, table, seed) for summary, table in zip(summaries, same, strict=True))
    rows = []
    for key in first:
        if all(key in one for one in others):
            metric, label = key
            estimates = (first[key], *(one[key] for one in others))
            apart = tuple(intervals.difference(estimates[0], one) for one in estimates[1:])
            rows.append(ComparedFigure(metric, label, estimates, apart))
    return rows, left_out


def _estimates(summary: Callable[..., Sequence[Row]], table: Table, seed: int) -> dict[tuple[str, str], Estimate]:
    rows = summary(table, seed=case_tables.resampling_of_table(table, seed, keeps_draws=True))
    return {(row.metric, row.label): row.estimate for row in rows}


def align_tables(tables: Mapping[str, Table]) -> tuple[list[Table], dict[str, int]]:
    """The tables with rows in one order, and what is undefined in one undefined in all; {metric: rows so left out}.

    Raises DatasetError where they are not of the same cases with the same references.
    """
    (first, base), *others = tables.items()
    same = [base, *(_in_order_of(base, table, first, name) for name, table in others)]
    left_out = {}
    for metric in case_tables.metric_columns(base):
        if all(metric in one for one in same):
            unknown = np.any([one[metric].isna() for one in same], axis=0)
            if lost := int(unknown.sum() - min(one[metric].isna().sum() for one in same)):
                left_out[metric] = lost
            same = [one.assign(**{metric: one[metric].mask(unknown)}) for one in same]
    return same, left_out


def _in_order_of(base: Table, table: Table, first: str, name: str) -> Table:
    """The rows of a table in the order of another one's; DatasetError where they are not of the same."""
    _refuse_other_cases(base, table, first, name)
    ours, theirs = (list(zip(one["case"], one["label"], strict=True)) for one in (base, table))
    if unpaired := sorted({*ours} ^ {*theirs}):
        case, label = unpaired[0]
        whose = first if unpaired[0] in ours else name
        rows = errors.count_phrase(len(unpaired), "row")
        problem = f"{rows} in only one of the tables, the first case {case}, label {label} in {whose}"
        raise DatasetError(problem, name, REMEDY)
    moved = table.set_index(["case", "label"]).loc[ours].reset_index()
    if (base["patient"].to_numpy() != moved["patient"].to_numpy()).any():
        raise DatasetError(f"the same cases belong to other patients than in {first}", name, REMEDY)
    if unlike := _unlike_classes(base, moved):
        raise DatasetError(f"{unlike} than in {first}", name, "Compare models that tell the same classes apart")
    for column in [name for name in base if case_tables.column_without_part(str(name)) in GIVEN]:
        if column in moved and not _equal(base[column].to_numpy(), moved[column].to_numpy()):
            raise DatasetError(f"the same cases have other references than in {first}", name, REMEDY)
    return moved


def _refuse_other_cases(base: Table, table: Table, first: str, name: str) -> None:
    """DatasetError where the models were scored on other cases, as those of two splits are."""
    ours = set(base["case"])
    theirs = set(table["case"])
    if ours != theirs:
        apart = [f"{len(own)} only in {whose}" for own, whose in ((ours - theirs, first), (theirs - ours, name)) if own]
        raise DatasetError(
            f"the splits differ: {len(ours & theirs)} test cases are in both, {errors.list_phrase(apart)}",
            name,
            SAME_SPLIT,
        )


def _unlike_classes(ours: Table, theirs: Table) -> str:
    """The difference between the classes of two models; empty where they are the same, in any order unless grades."""
    classes, other = (_classes(table) for table in (ours, theirs))
    if set(classes) != set(other):
        return "the classes are others"
    are_grades = all(
        GRADED in [case_tables.column_without_part(str(name)) for name in table] for table in (ours, theirs)
    )
    return "the grades stand in another order" if are_grades and classes != other else ""


def _classes(table: Table) -> list[str]:
    """The columns of probabilities of classes, of each part of a task that is made of tasks."""
    names = [str(name) for name in table]
    return [one for one in names if one.startswith(PROBABILITY) or one.partition(".")[2].startswith(PROBABILITY)]


def _equal(ours: Array, theirs: Array) -> bool:
    """Alike but for rounding."""
    if ours.dtype.kind == theirs.dtype.kind == "f":
        return bool(np.allclose(ours, theirs, equal_nan=True))
    return [str(value) for value in ours] == [str(value) for value in theirs]

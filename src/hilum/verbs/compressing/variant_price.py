"""What a variant of a model loses on cases that decided nothing of it: overall, by group, by size, by class."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hilum.errors import DatasetError, HilumError
from hilum.evaluation import ALL, Table, case_tables
from hilum.evaluation.case_tables import COVARIATE
from hilum.evaluation.fairness import group_attributes
from hilum.evaluation.fairness.group_attributes import NONE
from hilum.evaluation.significance import margins, paired_tests
from hilum.evaluation.significance.testing import LEVEL, DifferenceTest
from hilum.lazy import pandas as pd
from hilum.runtime import Model
from hilum.scoring import case_scoring
from hilum.scoring.model_comparison import Comparison
from hilum.tasks import Task
from hilum.values import Case, Estimate
from hilum.values.table_cells import PlainCell
from hilum.verbs import comparison_tests

# Of this many times the accepted loss in one group a variant does not pass.
WORST_TIMES = 2.0
# The attribute by which cases are grouped in thirds of the size of what is marked, and its column.
SIZE, VOXELS = "size", "voxels_reference"
ECE = "ece"
FEWEST_IN_THIRDS = 15  # of fewer than five a third tells nothing
THIRDS = ("smallest third", "middle third", "largest third")


def score_table(model: Model, cases: Sequence[Case]) -> tuple[Table, list[str]]:
    """(table of cases, what failed in words), each case scored as `evaluate` does; DatasetError where none was."""
    rows, failed = list[dict[str, PlainCell]](), list[str]()
    for _, outcome in case_scoring.measure_here(model, {}, cases):
        if isinstance(outcome, HilumError):
            failed.append(str(outcome))
        else:
            rows += outcome.rows
    if not rows:
        raise DatasetError(f"no case could be scored ({failed[0]})", "compress", "Give cases of the model's kind")
    return case_tables.case_table(rows), failed


def mean_primary(model: Model, cases: Sequence[Case], primary: str | None, *, seed: int) -> float:
    """The primary metric over all labels of these cases, signed so that higher is better."""
    table, _ = score_table(model, cases)
    rows = model.task.summary(table, seed=case_tables.resampling_of_table(table, seed))
    row = next((one for one in rows if one.metric == primary), rows[0])
    worse_up = model.task.metrics.metric_named(row.metric).better == "less"
    return -row.estimate.value if worse_up else row.estimate.value


@dataclass(frozen=True)
class PartTest:
    """The test of the difference in one label of some of the cases; group: empty where they are all."""

    group: str
    label: str
    cases: int
    test: DifferenceTest
    p_adjusted: float = float("nan")

    @property
    def name(self) -> str:
        """ "core of size smallest third"; a structure that has no name but its number is "structure 1"."""
        label = f"structure {self.label}" if self.label.isdigit() else self.label
        return f"{label} of {self.group}" if self.group else label

    @property
    def estimate(self) -> Estimate:
        """The difference with the interval of the test."""
        return Estimate(self.test.difference, self.test.low, self.test.high, n=self.cases, method=self.test.method)

    def is_whole(self, label: str) -> bool:
        """Whether it is of all cases in this label."""
        return not self.group and self.label == label


@dataclass(frozen=True)
class VariantPrice:
    """The price of a variant.

    value:      of its primary metric; test: of the difference from the model in float, in the unit of the metric
    worst:      the test of the group or label that loses most; None where there is one label and no group
    tests:      of the primary metric in each group and label, with Holm's adjustment of p-values
    """

    metric: str
    value: Estimate
    exact: Estimate
    test: DifferenceTest | None
    passed: bool
    because: str
    ece_difference: float | None = None
    worst: PartTest | None = None
    tests: Sequence[PartTest] = ()
    comparison: Comparison | None = field(default=None, compare=False)

    @classmethod
    def unknown(cls, because: str) -> VariantPrice:
        """The price of a variant that cannot be measured."""
        nothing = Estimate(float("nan"), method=f"none: {because}")
        return cls("", nothing, nothing, None, False, because)

    @property
    def words(self) -> str:
        """The name of its metric for a reader."""
        return self.metric if self.comparison is None else self.comparison.metrics.metric_named(self.metric).words

    @property
    def difference(self) -> Estimate:
        """The difference with the interval of its test."""
        if self.test is None:
            return Estimate(float("nan"), method="not tested")
        return Estimate(self.test.difference, self.test.low, self.test.high, n=self.value.n, method=self.test.method)


def price_of(
    exact: Table,
    variant: Table,
    task: Task,
    *,
    other: Task | None = None,
    loss: float,
    primary: str | None,
    groups: str | None,
    seed: int,
    patients_known: bool,
) -> VariantPrice:
    """The price of a variant: its table of cases beside that of the model in float.

    other: the task of the variant, where it has thresholds of its own
    loss:  the largest accepted, in the unit of the primary metric
    It passes where it is not inferior by that margin; of patients too few for any margin where the whole interval is
    within it. No group may lose twice as much with an interval that excludes 0.
    Raises DatasetError where they are not of the same cases.
    """
    tables = {"float": _with_size(exact), "variant": _with_size(variant)}
    asked = _attributes(tables["float"], groups)
    found = list(
        comparison_tests.tests_by_group(tables, [task, other or task], asked, seed=seed, patients_known=patients_known)
    )
    _, comparison, _ = found[0]
    is_known = primary in {row.metric for row in comparison.rows}
    metric = primary if primary is not None and is_known else comparison.primary
    better = comparison.metrics.metric_named(metric).better
    tests = [
        PartTest(group, one.label, of_group.cases, one.test)
        for group, of_group, rows in found
        for one in rows
        if one.metric == metric
    ]
    adjusted = comparison_tests.adjust_p_values([one.test.p for one in tests], "holm")
    tests = [replace(one, p_adjusted=float(p)) for one, p in zip(tests, adjusted, strict=True)]
    row = next(one for one in comparison.rows if one.metric == metric)
    main, parts = ([one for one in tests if one.is_whole(row.label) == whole] for whole in (True, False))
    test = main[0].test if main else None
    passed, because = judge_loss(test, loss, better=better)
    worst = max(parts, key=lambda one: _loss_of(one.test, better), default=None)
    harmed = [one for one in parts if _is_harmed(one.test, WORST_TIMES * loss, better)]
    if harmed:
        most = max(harmed, key=lambda one: _loss_of(one.test, better))
        because = f"{most.name} loses {_loss_of(most.test, better):.4f}, more than {WORST_TIMES:g} times {loss:g}"
    ece = next((one for one in comparison.rows if one.metric.startswith(ECE) and one.label == ALL), None)
    return VariantPrice(
        metric,
        row.estimates[1],
        row.estimates[0],
        test,
        passed and not harmed,
        because,
        None if ece is None else ece.differences[0].value,
        worst,
        tests,
        comparison,
    )


def judge_loss(test: DifferenceTest | None, loss: float, *, better: str) -> tuple[bool, str]:
    """Whether a difference shows that little is lost, and why.

    loss: the margin; better: "more", "less" or "aim", as the metric has it
    """
    if test is None:
        return False, "no test fits the primary metric of these cases"
    sides = [True, False] if better == "aim" else [better == "more"]
    reason = margins.reason_against_margins(test)
    if not reason:
        p = max(margins.non_inferiority(test, loss, more=more).p for more in sides)
        shown = p < (1 - LEVEL) / 2
        return shown, f"{'not inferior' if shown else 'not shown to be non-inferior'} by {loss:g} (p {p:.3g})"
    if test.low is None or test.high is None:
        same = test.difference == 0 and "no case tells" in test.method
        return same, "no case is answered otherwise" if same else f"nothing is shown: {reason}"
    worst = max(-test.low if more else test.high for more in sides)
    text = f"{test.low:.4f} to {test.high:.4f}"
    within = worst < loss
    return within, f"the interval {text} is {'' if within else 'not '}within {loss:g}; no margin was tested: {reason}"


def _loss_of(test: DifferenceTest, better: str) -> float:
    """How much worse the variant is; 0 where nobody knows."""
    lost = {"more": -test.difference, "less": test.difference}.get(better, abs(test.difference))
    return lost if math.isfinite(lost) else 0.0


def _is_harmed(test: DifferenceTest, most: float, better: str) -> bool:
    if test.low is None or test.high is None or test.low <= 0 <= test.high:
        return False
    return _loss_of(test, better) > most


def _with_size(table: Table) -> Table:
    """The table with the third of its cases by size that each case is in, where something is marked in them."""
    if VOXELS not in table or table["case"].nunique() < FEWEST_IN_THIRDS:
        return table
    sizes = table.groupby("case")[VOXELS].sum()
    ranks = sizes.rank(method="first").to_numpy()
    third = np.minimum((ranks - 1) * len(THIRDS) // len(ranks), len(THIRDS) - 1).astype(int)
    words = pd.Series([THIRDS[n] for n in third], index=sizes.index)
    return table.assign(**{f"{COVARIATE}{SIZE}": table["case"].map(words)})


def _attributes(table: Table, groups: str | None) -> list[str]:
    """The attributes by which cases are grouped; the size of what is marked is one where it is known."""
    who = table.drop_duplicates("case")
    columns = {name.removeprefix(COVARIATE): who[name].tolist() for name in case_tables.covariate_columns(who)}
    given = {name: cells for name, cells in columns.items() if name != SIZE}
    asked = group_attributes.default_groups(given) if groups is None else groups
    named = [] if asked in (None, NONE) else [one for one in str(asked).split(",") if one]
    return [*named, *([SIZE] if SIZE in columns else [])]


def changed_cases(exact: Table, variant: Table, task: Task, metric: str) -> Table:
    """case, label, before, after, difference in the primary metric of each case, most first."""
    ours, others = paired_tests.align_tables({"float": exact, "variant": variant})[0]
    pairs = zip(_values_of(task, ours, metric), _values_of(task, others, metric), strict=True)
    rows = [
        {"case": case, "label": label, "before": before, "after": after, "difference": after - before}
        for (label, cases, first), (_, _, second) in pairs
        for case, before, after in zip(cases, first, second, strict=True)
    ]
    table = pd.DataFrame(rows, columns=["case", "label", "before", "after", "difference"])
    order = table["difference"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].reset_index(drop=True)


def _values_of(task: Task, table: Table, metric: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(label, cases, values) of each label of a metric; without all labels together where there are others."""
    own = [one for one in task.case_values(table) if one.metric == metric]
    labels = {one.label for one in own} - {ALL} or {ALL}
    return ((one.label, one.cases, one.values) for one in own if one.label in labels)

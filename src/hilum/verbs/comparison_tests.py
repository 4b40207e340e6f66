"""Tests of models that were scored on the same cases: verdicts, margins, ranks, and studies of readers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, UsageError
from hilum.evaluation import ALL, CaseValues, Table, case_tables
from hilum.evaluation.case_tables import COVARIATE
from hilum.evaluation.fairness import group_attributes
from hilum.evaluation.fairness.group_attributes import UNKNOWN
from hilum.evaluation.significance import auroc_tests, paired_tests, raters, testing
from hilum.evaluation.significance import margins as significance_margins
from hilum.evaluation.significance.paired_tests import FITTING, OF_RANKS, ComparedFigure
from hilum.evaluation.significance.testing import DifferenceTest
from hilum.files.storage import csv_text
from hilum.lazy import pandas as pd
from hilum.scoring import model_comparison
from hilum.scoring.model_comparison import (
    MRMC,
    READERS,
    UNRELIABLE,
    Comparison,
    ComparisonTests,
    Margin,
    ModelRank,
    ModelTest,
    ReadingEffect,
    Standing,
)
from hilum.tasks import Task
from hilum.values import Estimate, Floats, table_cells

Values = Mapping[tuple[str, str], CaseValues]
TESTS = ("auto", "delong", "permutation", "bootstrap", "mcnemar", "wilcoxon")
CORRECTIONS = ("holm", "bh", "none")
# Two-sided; a margin is tested on one side, with half of it (ICH E9, section 3.3.2).
LEVEL = 0.05


@dataclass(frozen=True)
class ComparisonOptions:
    """The options of `compare`, checked. Raises UsageError.

    test:       of TESTS; "auto" takes the one that fits each metric, as the kind of problem says
    margin:     by which a model may be worse in the primary metric and count as none the worse; None: as preregistered
    correction: of p-values for each other, of CORRECTIONS
    readers:    a table of people's scores of the same cases
    groups:     columns whose groups are compared by themselves, as in `evaluate`
    """

    test: str = "auto"
    margin: float | None = None
    correction: str = "holm"
    readers: Path | None = None
    groups: str | None = None

    def __post_init__(self) -> None:
        if self.test not in TESTS:
            raise UsageError(f"there is no test {self.test!r}", "--test", f"Choose {', '.join(TESTS)}")
        if self.correction not in CORRECTIONS:
            raise UsageError(f"there is no {self.correction!r}", "--correction", f"Choose {', '.join(CORRECTIONS)}")
        if self.margin is not None:
            significance_margins.refuse_impossible_margin(self.margin, "--margin")
        if self.margin is not None and self.test == "wilcoxon":
            remedy = "Leave out --margin, or choose --test auto, permutation or bootstrap"
            raise UsageError(f"no margin can be tested: {OF_RANKS}", "--test wilcoxon", remedy)


def significance_tests(
    comparison: Comparison,
    tables: Mapping[str, Table],
    tasks: Sequence[Task],
    preregistered: Mapping[str, float | None],
    options: ComparisonOptions,
    *,
    seed: int,
) -> ComparisonTests:
    """The tests of every figure that fits one, each model against the first.

    preregistered: {model: the margin that its run fixed before training}
    p-values of the primary metric are adjusted for each other, so are those of readers, of groups, and of all else,
    which is exploratory.
    Raises UsageError where the test that was asked for fits no figure.
    """
    same = dict(zip(tables, paired_tests.align_tables(tables)[0], strict=True))
    tasks = model_comparison.comparable_tasks(tasks)
    values = _values(same, tasks)
    several = any(case_tables.count_folds(table) > 1 for table in same.values())
    rows = list(_rows(comparison, values, options.test, several, seed))
    if not rows and len(comparison.names) > 1:
        fits = {name for kinds in FITTING.values() for name in kinds} | {"bootstrap"}
        raise UsageError(f"{options.test} fits no figure of these models", "--test", f"Choose auto or {sorted(fits)}")
    if options.readers is not None:
        rows += [ModelTest(*row) for row in reader_tests(options.readers, comparison.names, values)]
    if not rows:
        problem = f"all readers read with {comparison.names[0]}, so that there is nothing to compare it with"
        raise DatasetError(problem, str(options.readers), "Add readings without it, blank in the column model")
    if options.groups is not None:
        for group, group_tables in tables_by_group(same, options.groups):
            of_group = model_comparison.compare_tables(
                group_tables, tasks, seed=seed, patients_known=comparison.patients_known
            )
            overall = _of_metric(comparison.primary, of_group)
            group_rows = _rows(overall, _values(group_tables, tasks), options.test, several, seed)
            rows += [replace(row, label=f"{row.label}; {group}", is_of_group=True) for row in group_rows]
    # Readers are compared with the first model too.
    judged_names = comparison.names if options.readers is not None else comparison.names[1:]
    stated_margins = {name: Margin.from_stated(options.margin, preregistered.get(name)) for name in judged_names}
    margins_by_name = {name: margin for name, margin in stated_margins.items() if margin is not None}
    families = _families(rows, comparison)
    judged = [row for own in families for row in _judge(own, comparison, margins_by_name, options.correction)]
    judged = judged if comparison.patients_known else [_by_case(row) for row in judged]
    effects = () if options.readers is None else tuple(reading_effects(options.readers, comparison.names, values))
    return ComparisonTests(tuple(judged), margins_by_name, tuple(_ranks(comparison)), options.correction, effects)


def tests_by_group(
    tables: Mapping[str, Table], tasks: Sequence[Task], groups: Sequence[str], *, seed: int, patients_known: bool
) -> Iterator[tuple[str, Comparison, list[ModelTest]]]:
    """(group, comparison, its tests, as they fit each metric): of all cases, whose group is "", then of each group.

    groups: attributes, as in `evaluate`
    Raises UsageError for a covariate that is not there, DatasetError for models that were scored on other cases.
    """
    same = dict(zip(tables, paired_tests.align_tables(tables)[0], strict=True))
    tasks = model_comparison.comparable_tasks(tasks)
    several = any(case_tables.count_folds(table) > 1 for table in same.values())
    parts = [("", same), *(tables_by_group(same, ",".join(groups)) if groups else ())]
    for group, group_tables in parts:
        comparison = model_comparison.compare_tables(group_tables, tasks, seed=seed, patients_known=patients_known)
        yield group, comparison, list(_rows(comparison, _values(group_tables, tasks), "auto", several, seed))


def rows_with_tests(comparison: Comparison, tests: Sequence[ModelTest]) -> tuple[ComparedFigure, ...]:
    """The rows of a comparison, each difference with the interval of its test: a page shows one interval of each.

    A test of something else than the difference of the figures, such as Wilcoxon's, leaves theirs.
    """
    tested = {
        (row.metric, row.label, row.second): row.test for row in tests if row.name != MRMC and not row.is_of_group
    }
    telling = {(row.metric, row.label) for row in model_comparison.telling_rows(comparison.rows)}
    rows = []
    for row in comparison.rows:
        label = row.label if (row.metric, row.label) in telling else ALL
        tests_of_row = [tested.get((row.metric, label, name)) for name in comparison.names[1:]]
        pairs = zip(row.differences, tests_of_row, strict=True)
        apart = (one if test is None else _with_interval_of(test, one) for one, test in pairs)
        rows.append(replace(row, differences=tuple(apart)))
    return tuple(rows)


def _with_interval_of(test: DifferenceTest, apart: Estimate) -> Estimate:
    if not np.isclose(test.difference, apart.value, rtol=1e-6, atol=1e-9):
        return apart
    return replace(apart, low=test.low, high=test.high, method=test.method)


def _by_case(row: ModelTest) -> ModelTest:
    """The same, called by what stands for a patient where nobody knows whose the cases are."""
    names = ("method", "too_few", "margin_method")
    words = {name: getattr(row.test, name).replace("patient", "case") for name in names}
    return replace(row, test=replace(row.test, **words))


def tables_by_group(tables: Mapping[str, Table], asked: str) -> Iterator[tuple[str, dict[str, Table]]]:
    """(group in words, the tables of its cases) of each group that is asked for, as `evaluate` has them.

    tables: of the same cases; those of whom nobody knows the group are in none
    Raises UsageError for a covariate that is not there.
    """
    who = next(iter(tables.values())).drop_duplicates("case").set_index("case")
    covariates = {name.removeprefix(COVARIATE): who[name].tolist() for name in case_tables.covariate_columns(who)}
    for attribute, levels in group_attributes.groups_by_attribute(covariates, asked).items():
        for group in sorted(set(levels) - {UNKNOWN}, key=group_attributes.group_order):
            cases = set(who.index[levels == group])
            yield f"{attribute} {group}", {name: table[table["case"].isin(cases)] for name, table in tables.items()}


def _values(tables: Mapping[str, Table], tasks: Sequence[Task]) -> list[Values]:
    pairs = zip(tasks, tables.values(), strict=True)
    return [{(one.metric, one.label): one for one in task.case_values(own)} for task, own in pairs]


def _of_metric(metric: str, comparison: Comparison) -> Comparison:
    """One metric over all labels alone; nothing where it has no figure."""
    labels = _overall({row.label for row in comparison.rows if row.metric == metric})
    rows = [row for row in comparison.rows if row.metric == metric and row.label in labels]
    return replace(comparison, rows=tuple(rows))


def _overall(labels: set[str]) -> set[str]:
    """The label over all labels, of several tasks those of each; all of them where there is none."""
    return {label for label in labels if label == ALL or label.endswith(f": {ALL}")} or labels


def _rows(
    comparison: Comparison, values: Sequence[Values], asked: str, several: bool, seed: int
) -> Iterator[ModelTest]:
    first = comparison.names[0]
    for row in model_comparison.telling_rows(
        comparison.rows
    ):  # a label with the figures over all labels would be tested twice
        key = row.metric, row.label
        for position, second in enumerate(comparison.names[1:], start=1):
            ours, other = values[0].get(key), values[position].get(key)
            name = _fitting(asked, ours, other, several)
            if name == "bootstrap":
                test = paired_tests.paired_bootstrap(row.estimates[0], row.estimates[position])
                fitting = _fitting("auto", ours, other, several)
                if fitting != name and fitting is not None and ours is not None and other is not None:
                    fitting_test = paired_tests.case_test(fitting, ours, other, seed=seed)
                    words = fitting_test.margin_method or f"that of the bootstrap, and {fitting_test.method}"
                    test = replace(
                        test, margin_ends=significance_margins.margin_interval(fitting_test), margin_method=words
                    )
            elif name is not None and ours is not None and other is not None:
                test = paired_tests.case_test(name, ours, other, seed=seed)
            else:
                continue
            yield ModelTest(
                *key, first, second, name, _mark_unreliable(test, row, position), unit=row.estimates[0].unit
            )


def _mark_unreliable(test: DifferenceTest, row: ComparedFigure, position: int) -> DifferenceTest:
    """The test, marked as unreliable where the interval of either figure is: no law makes up for too few patients."""
    methods = (one.method for one in (row.estimates[0], row.estimates[position]))
    reasons = [reason for method in methods if (reason := method.partition(f"{UNRELIABLE}: ")[2].partition(";")[0])]
    if UNRELIABLE in test.method or not reasons:
        return test
    return replace(test, method=f"{test.method}; {UNRELIABLE}: {reasons[0]}")


def _fitting(asked: str, first: CaseValues | None, second: CaseValues | None, several: bool) -> str | None:
    """The name of the test; None where the one that was asked for does not fit.

    several: folds, each of whose models has a scale of its own, so that areas are means over the folds
    """
    if asked == "bootstrap":
        return asked
    paired = first is not None and second is not None and np.array_equal(first.cases, second.cases)
    if first is None or second is None or not paired or (several and first.kind == "area"):
        return "bootstrap" if asked == "auto" else None
    fitting = paired_tests.fitting_tests(first, second)
    if asked == "auto":
        return fitting[0]
    return asked if asked in fitting else None


def _families(rows: Sequence[ModelTest], comparison: Comparison) -> list[list[ModelTest]]:
    """Rows whose p-values are adjusted for each other: those of the primary metric, of readers, of groups, the rest."""
    overall = _overall({row.label for row in rows if row.metric == comparison.primary and not row.is_of_group})
    rows = [replace(row, is_primary=row.metric == comparison.primary and row.label in overall) for row in rows]
    readers = [row for row in rows if row.name == MRMC]
    of_groups = [row for row in rows if row.is_of_group]
    models = [row for row in rows if row.name != MRMC and not row.is_of_group]
    primary = [row for row in models if row.is_primary]
    return [primary, readers, of_groups, [row for row in models if not row.is_primary]]


def _judge(
    rows: Sequence[ModelTest], comparison: Comparison, margins_by_name: Mapping[str, Margin], correction: str
) -> Iterator[ModelTest]:
    bounds = [
        margins_by_name[row.second].value if row.is_primary and row.second in margins_by_name else None for row in rows
    ]
    better = [comparison.metrics.metric_named(row.metric).better for row in rows]
    more = [None if one == "aim" else one == "more" for one in better]
    judged = verdicts_of_tests([row.test for row in rows], bounds, more, correction)
    for row, bound, (p, verdict) in zip(rows, bounds, judged, strict=True):
        yield replace(row, p_adjusted=p, margin=bound, verdict=verdict)


def _ranks(comparison: Comparison) -> Iterator[ModelRank]:
    estimates: Sequence[Estimate] = next(row.estimates for row in comparison.rows if row.metric == comparison.primary)
    ranks = paired_tests.bootstrap_ranks(
        estimates, more=comparison.metrics.metric_named(comparison.primary).better != "less"
    )
    if ranks is None:
        return
    low, high = np.quantile(ranks, [0.025, 0.975], axis=0)
    best = (ranks == ranks.min(axis=1, keepdims=True)).astype(float)
    best /= best.sum(axis=1, keepdims=True)
    for n, name in enumerate(comparison.names):
        yield ModelRank(name, float(ranks[:, n].mean()), float(low[n]), float(high[n]), float(best[:, n].mean()))


def adjust_p_values(p: Sequence[float], correction: str) -> Floats:
    """p-values of one family, adjusted for each other: "holm", "bh" or "none"."""
    raw = np.asarray(p, dtype=np.float64)
    return raw if correction == "none" else {"holm": testing.holm, "bh": testing.benjamini_hochberg}[correction](raw)


def verdicts_of_tests(
    tests: Sequence[DifferenceTest], margins: Sequence[float | None], more: Sequence[bool | None], correction: str
) -> list[tuple[float, Standing]]:
    """(adjusted p, verdict) of each test of one family.

    margins: in the unit of each metric; more: whether more of it is better; None where neither is, so
             that a difference makes no model the better one
    A difference is shown where p is below 5 % and its interval, which stands on the page, does not hold 0. One that
    lies within the margin on both sides is none that matters: the models are equivalent.
    """
    rows = [(test, None if test.unfit else m, up) for test, m, up in zip(tests, margins, more, strict=True)]
    p = adjust_p_values([test.p for test in tests], correction)
    none = [
        float("nan") if not m or up is None else significance_margins.non_inferiority(test, m, more=up).p
        for test, m, up in rows
    ]
    both = [float("nan") if not m else significance_margins.equivalence(test, m).p for test, m, _ in rows]
    not_worse, alike = (adjust_p_values(one, correction) < LEVEL / 2 for one in (none, both))
    judged: list[tuple[float, Standing]] = []
    for n, (test, _, up) in enumerate(rows):
        holds_zero = test.low is not None and test.high is not None and test.low <= 0 <= test.high
        differs = p[n] < LEVEL and up is not None and not holds_zero
        verdict: Standing = "not shown"
        if alike[n]:
            verdict = "equivalent"
        elif differs and (test.difference > 0) == up:
            verdict = "superior"
        elif not_worse[n]:
            verdict = "non-inferior"
        elif differs:
            verdict = "inferior"
        judged.append((float(p[n]), verdict))
    return judged


READER_COLUMNS = ("reader", "case", "score")
HALF = 0.5  # from which on a score of 0 to 1 is a call
# (metric, label, first, second, name of the test, test)
ReaderTest = tuple[str, str, str, str, str, DifferenceTest]


def reader_tests(
    path: Path, names: Sequence[str], values: Sequence[Mapping[tuple[str, str], CaseValues]]
) -> Iterator[ReaderTest]:
    """The AUROC of people, who read every case, against each model's, or of reading in one manner against another.

    path: a table with reader, case and score; where people read with a model, its name under `model`, which is blank
          where they read without; where a case has several labels, which one is scored under `label`
    Raises DatasetError where readers read other cases, or a score is no number.
    """
    table = _read_readers(path)
    for label, readings, truth, positive in _by_label(path, table, values):
        read = _cubes(path, readings, truth.cases, names, "score")
        scores = [one[("auroc", label)].values for one in values]
        for first, second, pair in _pairs(names, read, scores):
            yield "auroc", label, first, second, MRMC, auroc_tests.mrmc(pair, positive, _shared_patients(truth))


def reading_effects(
    path: Path, names: Sequence[str], values: Sequence[Mapping[tuple[str, str], CaseValues]]
) -> Iterator[ReadingEffect]:
    """Time that reading with a model takes beside reading without, or with another, and how often each is wrong.

    path: as in `reader_tests`, with the column `seconds`; nothing without it, or where all read in one manner
    A reading is wrong by the column `call` (yes or no), else by a score from 0 to 1 on the other side of 0.5.
    """
    table = _read_readers(path)
    if "seconds" not in table or "model" not in table:
        return
    for label, readings, truth, positive in _by_label(path, table, values):
        seconds = _cubes(path, readings, truth.cases, names, "seconds")
        calls = _cubes(path, readings, truth.cases, names, "call") if readings["call"].notna().all() else {}
        wrong = {name: (cube >= HALF) != positive for name, cube in calls.items()}
        first, *others = seconds
        for second in others:
            change = np.log(seconds[second]) - np.log(seconds[first])
            ratio = raters.mean_over_raters(change, _shared_patients(truth))
            wrong_shares = [float(wrong[name].mean()) for name in (first, second)] if wrong else []
            more = wrong[second].astype(float) - wrong[first] if wrong else None
            apart = None if more is None else raters.mean_over_raters(more, _shared_patients(truth), most=1.0)
            yield ReadingEffect(first, second, label, change.shape, ratio, tuple(wrong_shares), apart)


def _by_label(
    path: Path, table: Table, values: Sequence[Mapping[tuple[str, str], CaseValues]]
) -> Iterator[tuple[str, Table, CaseValues, np.ndarray]]:
    """(label, its readings, the values of its cases, their truths)."""
    for label in dict.fromkeys(table["label"]) if "label" in table else ["all"]:
        areas = [own.get(("auroc", label)) for own in values]
        truth = areas[0]
        if truth is None or truth.positive is None or any(one is None for one in areas):
            labels = sorted({name for metric, name in values[0] if metric == "auroc"})
            remedy = "Compare models that state AUROCs"
            if labels:
                remedy = f"Name one of {errors.list_phrase(labels)} in the column label"
            raise DatasetError(f"there is no AUROC of {label}", str(path), remedy)
        readings = table[table["label"] == label] if "label" in table else table
        yield label, readings, truth, truth.positive


def _shared_patients(truth: CaseValues) -> np.ndarray | None:
    """(cases,) their patients, where some have several cases."""
    return truth.patients if len(np.unique(truth.patients)) < len(truth.patients) else None


def _pairs(
    names: Sequence[str], read: Mapping[str, Floats], scores: Sequence[Floats]
) -> Iterator[tuple[str, str, Floats]]:
    if len(read) > 1 and READERS in read:  # people read with and without
        for name in [one for one in read if one != READERS]:
            yield READERS, f"{READERS} with {name}", np.stack([read[READERS], read[name]])
        return
    if READERS in read:  # a model reads as each of them would with it
        people = read[READERS]
        for name, model_scores in zip(names, scores, strict=True):
            yield READERS, name, np.stack([people, np.broadcast_to(model_scores, people.shape)])
        return
    for name in names[1:]:
        yield names[0], name, np.stack([read[names[0]], read[name]])


def _read_readers(path: Path) -> Table:
    if not path.is_file():
        raise DatasetError("there is no such table", str(path), "Give a CSV with reader, case and score")
    table = csv_text.read_given_table(path).rename(columns={"rating": "score"})
    if absent := [name for name in READER_COLUMNS if name not in table]:
        raise DatasetError(f"has no column {absent[0]}", str(path), "Give reader, case and score")
    numbers = {
        name: table_cells.numbers_in(csv_text.text_column(table, name, str(path)), strictly=True).refuse_odd().values
        for name in ("score", "seconds")
        if name in table
    }
    for name, values in numbers.items():
        wrong = np.isnan(values) if name == "score" else ~(values > 0)
        if wrong.any():
            row, kind = table[wrong].iloc[0], "a number" if name == "score" else "a time above 0"
            problem = f"{name} {row[name]!r} of reader {row['reader']}, case {row['case']}, is not {kind}"
            raise DatasetError(problem, str(path), "Give a number for every reader and case")
    if "call" in table:
        numbers["call"] = table_cells.truths_in(csv_text.text_column(table, "call", str(path))).refuse_odd().values
    table = table.assign(**numbers)
    if "call" not in table:
        table["call"] = table["score"] if table["score"].between(0, 1).all() else None
    if "model" in table:
        table["model"] = table["model"].fillna("").replace("", READERS)
    return table


def _cubes(path: Path, table: Table, cases: np.ndarray, names: Sequence[str], column: str) -> dict[str, Floats]:
    """{model they read with: (readers, cases) a column}, without any first, in the order of these cases."""
    with_model = table["model"] if "model" in table else pd.Series(READERS, index=table.index)
    manners = [READERS] if "model" not in table else list(names)
    if "model" in table and READERS in set(with_model):
        manners = [READERS, *(name for name in names if name in set(with_model))]
    if others := sorted(set(with_model) ^ set(manners)):
        problem = f"readers with {others[0]!r}, models {errors.list_phrase(names)}"
        raise DatasetError(problem, str(path), "Name in the column model each of the models, or leave it out")
    cubes, people = {}, sorted(set(table["reader"]))
    for model in manners:
        readings = table[with_model == model]
        if readings.duplicated(["reader", "case"]).any():
            twice = readings[readings.duplicated(["reader", "case"])].iloc[0]
            problem = f"reader {twice['reader']} scores case {twice['case']} twice"
            raise DatasetError(problem, str(path), "Give one score of each reader and case")
        wide = readings.pivot(index="reader", columns="case", values=column).reindex(index=people)
        for reader, row in wide.iterrows():
            read = set(row.dropna().index)
            if apart := sorted(read ^ set(cases.tolist())):
                where = "not scored by the models" if apart[0] in read else "not read"
                problem = (
                    f"reader {reader} read other cases: {errors.count_phrase(len(apart), 'case')}, {apart[0]} {where}"
                )
                raise DatasetError(problem, str(path), "Give every reader's score of every case that was scored")
        cubes[model] = wide[cases.tolist()].to_numpy(dtype=np.float64)
    return cubes

"""Models that were scored on the same cases, compared: figures, differences, tests, and what a page shows of them.

Margins and ranks stand beside the tests.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NotRequired, cast

from typing_extensions import TypedDict

from hilum import errors
from hilum.errors import UsageError
from hilum.evaluation import ALL, Metrics, case_tables
from hilum.evaluation import Table as CaseTable
from hilum.evaluation.case_tables import SummaryRecord
from hilum.evaluation.significance import margins, paired_tests
from hilum.evaluation.significance.paired_tests import ComparedFigure
from hilum.evaluation.significance.testing import DifferenceTest
from hilum.lazy import pandas as pd
from hilum.reading import verb_results
from hilum.report import Block, InNotebook, Paragraph, Table, wording
from hilum.report.figures import charts
from hilum.report.page_blocks import Gallery
from hilum.runtime import record_files
from hilum.scoring import case_scoring
from hilum.scoring.case_scoring import CASES, EVALUATION, RECIPE, SEED, TASK, TASK_SCHEMA
from hilum.tasks import Task, task_catalogue, task_settings
from hilum.values import Estimate, Row, grouping, record_schema
from hilum.values.record_schema import FigureRow, RecordSchema

# A difference whose interval holds 0 is none that these cases show.
EQUAL = "no difference shown"
# The test of people who read the cases, and what stands in place of a model where they read without any.
MRMC, READERS = "mrmc", "readers"
# How estimates and tests of too few patients are marked in their method.
UNRELIABLE = "unreliable"


class MarginRecord(TypedDict):
    """By how much a model may be worse, and whether that was preregistered."""

    margin: float
    preregistered: bool
    because: str


class ModelTestRecord(TypedDict):
    """The test of a difference between two models."""

    metric: str
    label: str
    first: str
    second: str
    test: str
    method: str
    difference: float | None
    low: float | None
    high: float | None
    statistic: float | None
    p: float | None
    p_adjusted: float | None
    margin: float | None
    verdict: str


class ReadingRecord(TypedDict):
    """The effect of a manner of reading: the ratio of seconds, second to first, and shares of wrong readings."""

    first: str
    second: str
    label: str
    readers: int
    cases: int
    ratio: float | None
    low: float | None
    high: float | None
    method: str
    errors_first: NotRequired[float]
    errors_second: NotRequired[float]
    errors_difference: NotRequired[float]
    errors_low: NotRequired[float | None]
    errors_high: NotRequired[float | None]


class TestsRecord(TypedDict):
    """The tests of a comparison."""

    tests: list[ModelTestRecord]
    correction: str
    margins: dict[str, MarginRecord]
    ranks: list[ModelRank]
    readers: list[ReadingRecord]


class ComparisonRecord(TestsRecord):
    """The figures of several models of the same cases, by model, and their differences from the first.

    undefined: rows of each metric that are undefined for one model, and so left out for all
    """

    models: list[str]
    cases: int
    primary: str
    figures: dict[str, list[FigureRow]]
    differences: dict[str, list[FigureRow]]
    undefined: dict[str, int]
    about: list[str]


COMPARISON_SCHEMA = RecordSchema("hilum.comparison", ComparisonRecord)


@dataclass(frozen=True)
class Margin:
    """A margin by which a model may be worse; `because` states whether it was fixed before any figure, and why."""

    value: float
    is_preregistered: bool
    because: str

    @classmethod
    def from_stated(cls, stated_margin: float | None, preregistered: float | None) -> Margin | None:
        """The one that was given, or else preregistered; None where there is neither."""
        if stated_margin is None:
            return None if preregistered is None else cls(preregistered, True, "preregistered")
        if preregistered is None:
            return cls(
                stated_margin, False, "exploratory: it was given after the figures were made, and never preregistered"
            )
        if stated_margin != preregistered:
            return cls(stated_margin, False, f"exploratory: {preregistered:g} was preregistered")
        return cls(stated_margin, True, "preregistered")

    def as_record(self) -> MarginRecord:
        """The record for `comparison.json`."""
        return MarginRecord(margin=self.value, preregistered=self.is_preregistered, because=self.because)


@dataclass(frozen=True)
class ModelTest:
    """One row: the second model against the first in one metric of one label.

    is_primary:  whether it is of the primary metric over all labels, and not exploratory
    is_of_group: whether it is of some of the cases, whose group the label names
    unit:        of the difference
    """

    metric: str
    label: str
    first: str
    second: str
    name: str
    test: DifferenceTest
    p_adjusted: float = float("nan")
    margin: float | None = None
    verdict: Standing = "not shown"
    is_primary: bool = False
    is_of_group: bool = False
    unit: str = ""

    @property
    def sides(self) -> tuple[str, str]:
        """The first and the second in words: people who read with a model are not the model."""
        sides = self.first, self.second
        if self.name != MRMC or READERS in sides:
            return sides
        return f"{READERS} with {self.first}", f"{READERS} with {self.second}"

    @property
    def name_of_p(self) -> str:
        """The name of p: a verdict by the margin rests on the interval, and p says nothing about it."""
        return "p of no difference" if self.verdict in OF_MARGINS else "p"

    @property
    def reason_against_margin(self) -> str:
        """Why the margin that was given could not be tested; empty where it was, or none was given."""
        return margins.reason_against_margins(self.test) if self.margin else ""

    @property
    def margin_words(self) -> str:
        """The interval by which the margin was tested, where it is not that of the difference; else empty."""
        ends = margins.margin_interval(self.test) if self.margin and not self.reason_against_margin else None
        how, unit = self.test.margin_method, f" {self.unit}" * bool(self.unit)
        if ends and how:
            return f"the margin was tested by the interval {ends[0]:.4g} to {ends[1]:.4g}{unit} ({how})"
        return ""

    @property
    def is_unreliable(self) -> bool:
        """Whether the test rests on too few patients."""
        return UNRELIABLE in self.test.method

    def as_record(self) -> ModelTestRecord:
        """The record for `comparison.json`; what is not known is null."""

        def finite(number: float | None) -> float | None:
            return None if number is None or not math.isfinite(number) else float(number)

        reason = self.reason_against_margin
        of_margin = f"the margin was not tested: {reason}" if reason else self.margin_words
        return ModelTestRecord(
            metric=self.metric,
            label=self.label,
            first=self.first,
            second=self.second,
            test=self.name,
            method="; ".join(words for words in (self.test.method, of_margin) if words),
            difference=finite(self.test.difference),
            low=finite(self.test.low),
            high=finite(self.test.high),
            statistic=finite(self.test.statistic),
            p=finite(self.test.p),
            p_adjusted=finite(self.p_adjusted),
            margin=self.margin,
            verdict=self.verdict,
        )


@dataclass(frozen=True)
class ModelRank:
    """The rank of one model over bootstrap samples, 1 for the best: mean, middle 95 %, and how often it is the best."""

    model: str
    rank: float
    low: float
    high: float
    best: float


@dataclass(frozen=True)
class ReadingEffect:
    """Effect of reading in a second manner beside the first: with a model, or without any (READERS).

    shape:  (readers, cases)
    change: of the logarithm of seconds, which gives the ratio of reading times
    errors: shares of wrong readings in the first and the second manner; empty where readers made no calls
    apart:  their difference
    """

    first: str
    second: str
    label: str
    shape: tuple[int, ...]
    change: DifferenceTest
    errors: tuple[float, ...] = ()
    apart: DifferenceTest | None = None

    def as_record(self) -> ReadingRecord:
        """The record for `comparison.json`; ratios of seconds, second to first."""
        ends = [self.change.difference, self.change.low, self.change.high]
        ratio, low, high = (None if one is None else math.exp(one) for one in ends)
        readers, cases = self.shape
        record = ReadingRecord(
            first=self.first,
            second=self.second,
            label=self.label,
            readers=readers,
            cases=cases,
            ratio=ratio,
            low=low,
            high=high,
            method=self.change.method,
        )
        if self.apart is not None:
            record |= {"errors_first": self.errors[0], "errors_second": self.errors[1]}
            record |= {"errors_difference": self.apart.difference}
            record |= {"errors_low": self.apart.low, "errors_high": self.apart.high}
        return record

    def __str__(self) -> str:
        """ "readers with good against readers: reading times 0.80 times as long (95 % interval 0.70 to 0.91)"."""
        has_interval, row = self.change.low is not None, self.as_record()
        manners = [one if one == READERS else f"{READERS} with {one}" for one in (self.first, self.second)]
        ends = f"95 % interval {row['low']:.2f} to {row['high']:.2f}" if has_interval else self.change.method
        text = f"{manners[1]} against {manners[0]}: reading takes {row['ratio']:.2f} times as long ({ends})"
        if self.apart is None:
            return text
        ends = f", difference {row['errors_low']:.3f} to {row['errors_high']:.3f}" if self.apart.low is not None else ""
        return f"{text}; wrong in {self.errors[1]:.3f} beside {self.errors[0]:.3f} of readings{ends}"


@dataclass(frozen=True)
class ComparisonTests:
    """All tests of a comparison: rows, the margin of each second model, ranks by the primary metric, reading times."""

    rows: tuple[ModelTest, ...] = ()
    margins: Mapping[str, Margin] = field(default_factory=dict)
    ranks: tuple[ModelRank, ...] = ()
    correction: str = "holm"
    readers: tuple[ReadingEffect, ...] = ()

    def as_record(self) -> TestsRecord:
        """The record for `comparison.json`."""
        return TestsRecord(
            tests=[row.as_record() for row in self.rows],
            correction=self.correction,
            margins={name: margin.as_record() for name, margin in self.margins.items()},
            ranks=record_schema.plain(self.ranks),
            readers=[one.as_record() for one in self.readers],
        )


@dataclass(frozen=True)
class Comparison(InNotebook):
    """Figures of several models of the same cases; prints those of the primary metric.

    names:    of the models; the first is the one that the others are compared with
    left_out: {metric: rows that are undefined for one of them, and so left out for all}
    patients_known: False where each case only stands for a patient
    metrics:  of the first model's task
    tested:   the tests of its differences, where they were asked for
    kinship:  sentences on models that are trainings of one plan
    """

    names: tuple[str, ...]
    rows: tuple[ComparedFigure, ...]
    primary: str
    cases: int
    left_out: dict[str, int]
    patients_known: bool = True
    out: Path | None = None
    metrics: Metrics = field(default_factory=Metrics)
    tested: ComparisonTests = field(default_factory=ComparisonTests)
    kinship: tuple[str, ...] = ()

    @property
    def table(self) -> pd.DataFrame:
        """A row a metric, label and model: its figure, and its difference from the first model with the interval."""
        return pd.DataFrame(
            {
                "metric": row.metric,
                "label": row.label,
                "model": name,
                "value": one.value,
                "low": one.low,
                "high": one.high,
                "unit": one.unit,
                "difference": None if apart is None else apart.value,
                "difference_low": None if apart is None else apart.low,
                "difference_high": None if apart is None else apart.high,
            }
            for row in self.rows
            for name, one, apart in zip(self.names, row.estimates, (None, *row.differences), strict=True)
        )

    def as_record(self) -> ComparisonRecord:
        """The record for `--json` and for `comparison.json`."""
        named = {
            name: case_tables.rows_to_json(Row(row.metric, row.label, row.estimates[n]) for row in self.rows)["rows"]
            for n, name in enumerate(self.names)
        }
        differences = {
            name: case_tables.rows_to_json(Row(row.metric, row.label, row.differences[n]) for row in self.rows)["rows"]
            for n, name in enumerate(self.names[1:])
        }
        return {
            "models": list(self.names),
            "cases": self.cases,
            "primary": self.primary,
            "figures": named,
            "differences": differences,
            "undefined": self.left_out,
            "about": [*self.kinship, self.about],
            **self.tested.as_record(),
        }

    @property
    def about(self) -> str:
        """What the intervals hold, and what they do not."""
        them = "this model" if len(self.names) == 1 else f"these {len(self.names)} models"
        return (
            f"This is about {them}: the intervals hold what other {'patients' if self.patients_known else 'cases'} "
            "would change, and not the variation between trainings. Whether one plan is better than another, several "
            "trainings of each tell, with other seeds."
        )

    def __repr__(self) -> str:
        lines = []
        for row in telling_rows(self.rows):
            if row.metric == self.primary:
                rows = [Row(row.metric, row.label, one) for one in row.estimates]
                what = wording.row_name(rows[0], self.metrics)
                lines += [
                    f"{name}: {wording.row_words(one, self.metrics)}"
                    for name, one in zip(self.names, rows, strict=True)
                ]
                lines += [
                    f"{name} less {self.names[0]}: {what} {signed_estimate(one)}"
                    for name, one in zip(self.names[1:], row.differences, strict=True)
                ]
        lines += [
            f"{one.sides[1]} against {one.sides[0]}: {one.verdict}{self._limits(one)} "
            f"({one.name}, {one.name_of_p} {wording.p_text(one.p_adjusted)})"
            for one in self.tested.rows
            if one.is_primary
        ]
        lines += map(str, self.tested.readers)
        lines += [f"{one.sides[1]}: {one.margin_words}" for one in self.tested.rows if one.margin_words]
        lines += [*self.kinship, self.about]
        return "\n".join([*lines, *([str(self.out / "report.html")] if self.out is not None else [])])

    def _limits(self, test: ModelTest) -> str:
        """The margin of a verdict that needs one, whether it was preregistered, and whether patients are too few."""
        margin = self.tested.margins.get(test.second)
        exploratory = ", which is exploratory" * (margin is not None and not margin.is_preregistered)
        needed = test.margin is not None and test.verdict in OF_MARGINS
        by = f" by a margin of {test.margin:g}{exploratory}" if needed else ""
        reason = test.reason_against_margin
        because = f", the margin was not tested: {reason}" if reason and not needed else ""
        return f"{by}{because}{', unreliable' * test.is_unreliable}"


def compare_tables(
    tables: Mapping[str, CaseTable],
    tasks: Sequence[Task],
    primary: str | None = None,
    *,
    seed: int,
    patients_known: bool,
    out: Path | None = None,
) -> Comparison:
    """Every figure of models that were scored on the same cases, each as its own task makes it beside the first one.

    tables:  {name: table of cases}, the one that the others are compared with first
    primary: the metric that judges them; the first of their task where it is not stated, or has no figure
    """
    names = tuple(tables)
    rows, left_out = paired_tests.compare_figures(tables, [task.summary for task in comparable_tasks(tasks)], seed=seed)
    if not patients_known:
        rows = [
            replace(
                row,
                estimates=tuple(map(case_scoring.named_by_case, row.estimates)),
                differences=tuple(map(case_scoring.named_by_case, row.differences)),
            )
            for row in rows
        ]
    cases = int(tables[names[0]]["case"].nunique())
    judging = primary if primary in {row.metric for row in rows} else rows[0].metric
    return Comparison(names, tuple(rows), judging, cases, left_out, patients_known, out, tasks[0].metrics)


def kinship_sentences(summaries: Mapping[str, SummaryRecord]) -> Iterator[str]:
    """A sentence on each group of models that are trainings of one plan, by the summaries of their evaluations."""
    alike = grouping.by_key((made, name) for name, summary in summaries.items() if (made := summary.get(RECIPE)))
    for names in alike.values():
        if len(names) > 1:
            seeds = list(dict.fromkeys(summaries[name][SEED] for name in names))
            what = f"trainings of one plan with seeds {errors.list_phrase(seeds)}" if len(seeds) > 1 else (
                f"one training, or trainings of one plan with one seed, {seeds[0]}"
            )  # fmt: skip
            yield (
                f"{' and '.join(names)} are {what}: a difference between them is variation between trainings, and "
                "none between methods."
            )


def comparable_tasks(tasks: Sequence[Task]) -> list[Task]:
    """The tasks of models, those after the first with its settings without which figures are not the same figures."""
    first, *others = tasks
    return [first, *(_by_settings_of(first, other) for other in others)]


def _by_settings_of(first: Task, other: Any) -> Task:
    changed = {name: getattr(first, name) for name in task_settings.comparison_fields(first)}
    if parts := first.parts:
        changed["parts"] = {name: _by_settings_of(parts[name], own) for name, own in other.parts.items()}
    return cast(Task, replace(other, **changed) if changed else other)


def evaluated_cases(run: Path) -> tuple[CaseTable, Task]:
    """The table of a run's test cases, or of an evaluation, and the task that made it."""
    folder = evaluation_folder(run)
    return case_tables.read_cases(folder / CASES), read_task(folder)


def evaluation_folder(path: Path) -> Path:
    """The folder with the table of cases: that of a run, or the one given."""
    verb_results.refuse_missing(path)
    folder = path / EVALUATION if (path / EVALUATION).is_dir() else path
    if not (folder / CASES).is_file():
        remedy = "Give a run, or the folder of `hilum evaluate MODEL DATA --out FOLDER`"
        raise UsageError("holds no evaluation", str(path), remedy)
    return folder


def read_task(folder: Path) -> Task:
    """The kind of problem that an evaluation's folder names; IntegrityError where it names none."""
    record = record_files.read_json(folder / TASK, TASK_SCHEMA)
    return task_catalogue.build_task({key: value for key, value in record.items() if key not in ("schema", "version")})


def signed_estimate(difference: Estimate) -> str:
    """A difference with its sign, and whether these cases show one."""
    if difference.low is None or difference.high is None:
        return f"{signed_number(difference)} ({interval_of_difference(difference)})"
    within = f"; {EQUAL}" if difference.low <= 0 <= difference.high else ""
    return f"{signed_number(difference)} ({interval_of_difference(difference)}{within})"


def signed_number(difference: Estimate) -> str:
    """ "+0.012 mm", and 0.000 without a sign."""
    return wording.number_text(difference.value, difference.unit, places=_places(difference), signed=True)


def interval_of_difference(difference: Estimate) -> str:
    """ "95 % interval −0.010 to +0.034", or why there is none."""
    if difference.low is None or difference.high is None:
        return f"no interval: {difference.method.removeprefix('none').lstrip(': ')}"
    places = _places(difference)
    low, high = (wording.number_text(end, places=places, signed=True) for end in (difference.low, difference.high))
    few = ", unreliable" if "unreliable" in difference.method else ""
    return f"{100 * difference.level:.0f} % interval {low} to {high}{few}"


def _places(difference: Estimate) -> int:
    """Three decimals of a ratio; else those of the end that is farthest from 0."""
    ends = [abs(end) for end in (difference.value, difference.low, difference.high) if end is not None]
    return wording.decimal_places(max(ends), difference.unit) if difference.unit else 3


def folder_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Names of folders, each with as many of its parents as tell them apart."""
    resolved = [path.resolve().parts for path in paths]
    if len(set(resolved)) < len(resolved):
        raise UsageError("an evaluation is given twice", "compare", "Give each once")
    for depth in range(1, max(map(len, resolved)) + 1):
        names = tuple("/".join(parts[-depth:]) for parts in resolved)
        if len(set(names)) == len(names):
            return names
    raise AssertionError("different paths have different parts")


def primary_blocks(comparison: Comparison) -> list[Block]:
    """The primary metric as a picture, and its figures and differences."""
    first, *others = comparison.names
    main = [row for row in comparison.rows if row.metric == comparison.primary]
    metrics = comparison.metrics
    metric = metrics.metric_named(comparison.primary).words
    pictures: list[Block] = []
    for row in main[:1]:
        scores = [Row(row.metric, name, one) for name, one in zip(comparison.names, row.estimates, strict=True)]
        apart = [Row(row.metric, name, one) for name, one in zip(others, row.differences, strict=True)]
        titled = {f"{metric} of each model": scores, f"Less that of {first}": apart}
        charts_of_labels = [charts.label_scores(own, title, metrics=metrics) for title, own in titled.items() if own]
        pictures = [Gallery(charts_of_labels)]
    return [*pictures, comparison_table(comparison, main)]


def comparison_lead(comparison: Comparison) -> str:
    """The number of cases, and the method of the intervals."""
    unit = "patients" if comparison.patients_known else "cases, because their patients are unknown"
    tested = "Each difference has the interval of its significance test: where it" if comparison.tested.rows else (
        "Where the interval of a difference"
    )  # fmt: skip
    return (
        f"{errors.count_phrase(comparison.cases, 'case')}, the same for all models; intervals resample {unit}. "
        f"{tested} includes 0, these cases show no difference."
    )


def comparison_caveats(comparison: Comparison) -> list[str]:
    """Caveats about many differences at once."""
    many = sum(one.low is not None for row in comparison.rows for one in row.differences)
    differences = errors.count_phrase(many, "difference")
    notes = [f"{differences} with an interval: by chance alone one interval in twenty excludes 0."]
    notes = notes if many else []
    metrics = {row.metric for row in comparison.rows}
    lost = {
        metric: errors.count_phrase(rows, "row") for metric, rows in comparison.left_out.items() if metric in metrics
    }
    notes += [
        f"{comparison.metrics.metric_named(metric).words}: {rows} undefined for one of the models, left out for all."
        for metric, rows in lost.items()
    ]
    return notes


def comparison_table(comparison: Comparison, rows: Sequence[ComparedFigure]) -> Paragraph | Table:
    """The figures of every model and their differences from the first, a row for each metric and label."""
    if not rows:
        return Paragraph("There are no others.")
    first, *others = comparison.names
    rows = telling_rows(rows)
    columns = ["Metric", "Label", *comparison.names, *(f"{name} less {first}" for name in others)]
    cells = [
        [
            comparison.metrics.metric_named(row.metric).words,
            row.label,
            *(
                wording.aligned_value(one, [Row(row.metric, row.label, other) for other in row.estimates])
                for one in row.estimates
            ),
            *(signed_estimate(one) for one in row.differences),
        ]
        for row in rows
    ]
    return Table(columns, cells)


def telling_rows(rows: Sequence[ComparedFigure]) -> list[ComparedFigure]:
    """The rows over all labels, and those of a label whose figures differ from these."""
    overall = {row.metric: _round(row) for row in rows if row.label == ALL}
    return [row for row in rows if row.label == ALL or _round(row) != overall.get(row.metric)]


def _round(row: ComparedFigure) -> list[float]:
    """The figures of all models, by which a label that is no news is known."""
    return [round(one.value, 9) for one in row.estimates]


# What the test of a difference shows.
Standing = Literal["superior", "non-inferior", "equivalent", "inferior", "not shown"]
# The verdicts that hold by a margin only.
OF_MARGINS: tuple[Standing, ...] = ("non-inferior", "equivalent")

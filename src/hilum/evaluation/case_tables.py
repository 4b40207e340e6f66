"""The table of cases, its rows with intervals, and its summary as a record: the outputs of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NotRequired, TypeAlias, cast

import numpy as np

from hilum.errors import DatasetError, FormatError
from hilum.evaluation import _weighting, intervals
from hilum.evaluation.intervals import Resampling, Seed
from hilum.evaluation.metric import Metric
from hilum.files.storage import csv_text
from hilum.lazy import pandas as pd
from hilum.values import Estimate, Floats, Row, covariate_values
from hilum.values.case_outcome import CaseOutcome
from hilum.values.dataset_cases import SPLITS
from hilum.values.record_schema import FigureRow, RecordHead, RecordSchema, ShiftRecord, VerdictRecord
from hilum.values.table_cells import TableRow

Table: TypeAlias = "pd.DataFrame"

KEYS = ("case", "patient", "split", "label")
# Which of several models has scored the case: a column that only cases out of fold have.
FOLD = "fold"
PROBABILITY = "probability_"
# Probabilities before they were calibrated.
UNCALIBRATED = "uncalibrated"
# The ends of an interval in which a value is to lie.
INTERVAL = ("low", "high")
# How sure a model is of a case, and how usual the case: no figures of how good it is.
# Columns of words, which a table may leave blank in every row.
WORDS = ("abstained", "gate", "other_label")
CONFIDENCE = ("gate_p", "total", "aleatoric", "epistemic")
# The probability from which on a class, finding or box is called: of cases out of fold that of their own fold.
THRESHOLD = "threshold"
# The answers of a case, which may be any text, and of which one table holds each part's.
ANSWERS = ("reference", "predicted")
# Of who was examined: for audits, and no figure of how good a model is.
COVARIATE = "covariate_"
# What a network sees in a case.
FEATURE = "feature_"
# The row that speaks of all labels, or of a case as a whole.
ALL = "all"


class SummaryRecord(RecordHead):
    """The figures of an evaluation, and what a reader has to know of them.

    primary, preregistered_margin: the metric that judges the model, and by how much it may be worse, as preregistered
    recipe, seed: hash of the decisions that trained the model, and the seed of its training
    model: of an evaluation of its own, the model's name and version, and the SHA-256 of it and of its weights
    """

    rows: list[FigureRow]
    shift: NotRequired[ShiftRecord]
    primary: NotRequired[str]
    verdict: NotRequired[VerdictRecord]
    recipe: NotRequired[str]
    seed: NotRequired[int]
    preregistered_margin: NotRequired[float]
    outcomes: NotRequired[list[CaseOutcome]]
    unfinished_training: NotRequired[str]
    model: NotRequired[dict[str, str]]


SUMMARY_SCHEMA = RecordSchema("hilum.summary", SummaryRecord)
SUMMARY_VERSION = 1


def case_table(rows: Iterable[TableRow]) -> Table:
    """One row a case and label: case, patient, split, label, metrics, reference, predicted, probability_<class>.

    After them, where there are any, the thresholds by which it was called, and covariate_<name>, but of no free text.

    Of cases that were scored by several folds, after the label, the fold.

    Metrics and classes keep the order of the first row; what is not defined is NaN.
    Raises DatasetError for what `check_table` refuses.
    """
    table = pd.DataFrame(list(rows))
    after = (_probability_columns(table), threshold_columns(table), covariate_columns(table))
    last = ["reference", "predicted", *(name for some in after for name in some)]
    metrics = [name for name in table if name not in (*KEYS, FOLD, *last)]
    last = [name for name in last if not (name in after[2] and covariate_values.is_free_text(table[name].tolist()))]
    table = table[[name for name in (*KEYS, FOLD, *metrics, *last) if name in table]]
    check_table(table)
    return table


def check_table(table: Table) -> None:
    """Refuse a table that a summary would misread: DatasetError."""
    absent = [key for key in KEYS if key not in table or table[key].isna().any()]
    if absent:
        raise _wrong(f"a row without {' and '.join(absent)}", "Give case, patient, split and label")
    twice = table[table.duplicated(["case", "label"])]
    if len(twice):
        raise _wrong(f"case {twice.iloc[0]['case']} occurs twice", "Give one row per case and label")
    torn = table.groupby("case")[["patient", "split"]].nunique().max(axis=1)
    if (torn > 1).any():
        raise _wrong(f"case {torn.idxmax()} has two patients or splits", "Give each case one patient and one split")
    other = sorted(set(table["split"]) - set(SPLITS))
    if other:
        raise _wrong(f"split {other[0]!r}", f"Use {', '.join(SPLITS)}")
    chances = table[_probability_columns(table)].to_numpy(dtype=np.float64)
    if not ((chances >= 0) & (chances <= 1)).all():
        raise _wrong("a probability outside 0..1", "Look at the model's outputs for NaN")
    unknown = _unknown_classes(table)
    if unknown:
        raise _wrong(f"class {unknown[0]!r} has no probabilities", f"Give the column {PROBABILITY}{unknown[0]}")


def read_cases(path: Path) -> Table:
    """A table of cases from its `cases.csv`: names and answers stay text, whatever they look like.

    Raises FormatError where it is no such table.
    """
    try:
        table = pd.read_csv(path)
        text = csv_text.read_text_table(path)
    except (ValueError, UnicodeDecodeError) as error:
        raise FormatError(f"is not a table of cases ({error})", str(path), "Evaluate again") from error
    table.columns = text.columns
    for name in table.select_dtypes(exclude=["number", "bool"]):
        table[name] = table[name].map(csv_text.unmark_cell)
    for name in text.columns.intersection([*KEYS, FOLD, *WORDS, *covariate_columns(text)]):
        table[name] = text[name]
    for name in [str(column) for column in text if column_without_part(str(column)) in ANSWERS]:
        table[name] = text[name].mask(text[name] == "")
    try:
        check_table(table)
    except DatasetError as error:
        raise error.stating(where=str(path)) from error
    return table


def metric_columns(table: Table) -> list[str]:
    """The columns that hold figures, in their order."""
    names = [str(name) for name in table.select_dtypes(include=["number", "bool"])]
    return [
        name
        for name in names
        if name not in (*KEYS, FOLD, *INTERVAL)
        and column_without_part(name) not in CONFIDENCE
        and not name.startswith((PROBABILITY, THRESHOLD, UNCALIBRATED, COVARIATE, FEATURE))
    ]


def column_without_part(column: str) -> str:
    """The name of a column of a task that is made of tasks, as its part calls it."""
    return column.rpartition(".")[2]


def figure_label(name: str, kind: str = "class") -> str:
    """The label of the rows of one class, structure or the like: one may be called as those over all of them are.

    In C-NMC (doi:10.7937/tcia.2019.dc64i46r) "all" is acute lymphoblastic leukaemia.
    """
    return f"{name} ({kind})" if name == ALL else name


def count_folds(table: Table) -> int:
    """Number of models that have scored the cases: the folds that the table names, else 1."""
    return max(1, int(table[FOLD].nunique())) if FOLD in table else 1


def resampling_of_table(table: Table, seed: int, *, keeps_draws: bool = False) -> Resampling:
    """The resampling of a table's patients: within the fold that has scored them, where it names several."""
    apart = count_folds(table) > 1
    models = dict(zip(table["patient"].tolist(), table[FOLD].tolist(), strict=True)) if apart else {}
    return Resampling(seed, models, keeps_draws)


def classes_with_probability(table: Table) -> tuple[str, ...]:
    """The classes that the table has probabilities for, in their order."""
    return tuple(name.removeprefix(PROBABILITY) for name in _probability_columns(table))


def rows_to_json(rows: Iterable[Row]) -> SummaryRecord:
    """The record of a summary, NaN as null."""
    lines = [_figure_row(row.metric, row.label, row.estimate) for row in rows]
    return SummaryRecord(schema=SUMMARY_SCHEMA, version=SUMMARY_VERSION, rows=lines)


def rows_from_json(record: SummaryRecord) -> list[Row]:
    """The rows of a record that `rows_to_json` made, null as NaN. Raises FormatError for any other."""
    if (record.get("schema"), record.get("version")) != (SUMMARY_SCHEMA, SUMMARY_VERSION):
        problem = f"schema {record.get('schema')}, version {record.get('version')}"
        raise FormatError(problem, "summary", f"Give {SUMMARY_SCHEMA}, version {SUMMARY_VERSION}")
    return rows_from_records(record["rows"])


def rows_from_records(lines: Iterable[FigureRow]) -> list[Row]:
    """The rows of lines as `rows_to_json` has them under "rows"."""
    return [_row(line) for line in lines]


def _row(line: FigureRow) -> Row:
    figures = {key: value for key, value in line.items() if key not in ("metric", "label")}
    value = float("nan") if line["value"] is None else line["value"]
    figures |= {"value": value, "patients": line.get("patients") or 0}
    return Row(line["metric"], line["label"], cast("Callable[..., Estimate]", Estimate)(**figures))


def _figure_row(metric: str, label: str, estimate: Estimate) -> FigureRow:
    """JSON knows neither NaN nor infinity, and a record holds no draws."""

    def finite(number: float | None) -> float | None:
        return None if number is None or not math.isfinite(number) else number

    return FigureRow(
        metric=metric,
        label=label,
        value=finite(estimate.value),
        low=finite(estimate.low),
        high=finite(estimate.high),
        level=estimate.level,
        n=estimate.n,
        patients=estimate.patients or None,  # of whom nobody knows, none are counted
        unit=estimate.unit,
        method=estimate.method,
    )


def _probability_columns(table: Table) -> list[str]:
    return [str(name) for name in table if str(name).startswith(PROBABILITY)]


def covariate_columns(table: Table) -> list[str]:
    """The columns that say who was examined."""
    return [str(name) for name in table if str(name).startswith(COVARIATE)]


def threshold_columns(table: Table) -> list[str]:
    """The columns from which probability on each row's class or finding was called."""
    return [str(name) for name in table if str(name).startswith(THRESHOLD)]


def _unknown_classes(table: Table) -> Sequence[str]:
    """The names in `reference` and `predicted` without a column of probabilities; none without such columns."""
    names = set(classes_with_probability(table))
    if not names:
        return []
    named = [set(table[column].dropna()) for column in ("reference", "predicted") if column in table]
    return sorted(str(name) for name in set().union(*named) - names)


def _wrong(problem: str, remedy: str) -> DatasetError:
    return DatasetError(problem, "table of cases", remedy)


# Of one case and label, in voxels; their sums over cases make the pooled figures.
COUNTS = ("voxels_both", "voxels_predicted", "voxels_reference")
POOLED_METRICS = (
    Metric("dice_pooled", "Dice, pooled", least=0.0, most=1.0),
    Metric("iou_pooled", "IoU, pooled", least=0.0, most=1.0),
)


def mean_rows(table: Table, units: Mapping[str, str], *, seed: Seed) -> list[Row]:
    """Mean of each metric named in `units`; undefined scores are left out and counted.

    "all" is the unweighted mean over the labels of their means, so that a label seldom scored counts like any other.
    """
    return [row for metric, unit in units.items() for row in _mean_rows(table, metric, unit, seed)]


def pooled_rows(table: Table, *, seed: Seed) -> list[Row]:
    """Dice and IoU of the voxels of all cases together, in which large structures count more.

    Needs the columns voxels_both, voxels_predicted and voxels_reference; raises DatasetError without them.
    """
    absent = [name for name in COUNTS if name not in table]
    if absent:
        raise DatasetError(f"no column {absent[0]}", "table of cases", "Count voxels when the cases are scored")
    parts = [(ALL, table), *((str(label), own) for label, own in table.groupby("label", sort=False))]
    figures = (("dice_pooled", _dice), ("iou_pooled", _iou))
    return [Row(metric, label, _pool(figure, own, seed)) for metric, figure in figures for label, own in parts]


def _mean_rows(table: Table, metric: str, unit: str, seed: Seed) -> Iterator[Row]:
    labels = [label for label in dict.fromkeys(table["label"]) if label != ALL]
    yield Row(metric, ALL, _mean_over_labels(table, metric, unit, seed))
    for label in labels:
        of_label = table[table["label"] == label]
        yield Row(metric, label, intervals.bootstrap(of_label[metric], of_label["patient"], seed=seed, unit=unit))


def _mean_over_labels(table: Table, metric: str, unit: str, seed: Seed) -> Estimate:
    """Mean over labels of their means; a case is resampled with all its labels."""
    wide = table.pivot(index=["case", "patient"], columns="label", values=metric).dropna(axis=1, how="all")
    if wide.shape[1] < 2:  # one label: its own mean
        return intervals.bootstrap(table[metric], table["patient"], seed=seed, unit=unit)
    defined = wide.notna().to_numpy()
    scores = wide.fillna(0.0).to_numpy(dtype=np.float64)

    def mean(weights: Floats) -> Floats:
        """The mean over the labels, for each weighting."""
        return cast("Floats", _weighting.ratio_or_nan(weights @ scores, weights @ defined).mean(axis=-1))

    exact = unit == "" and bool(np.isin(scores[defined], (0.0, 1.0)).all())
    owners = wide.index.get_level_values("patient").to_numpy()
    labels = dict(zip(map(str, wide), defined.T, strict=True))
    ratios = np.stack([scores.T, defined.T.astype(np.float64)])
    estimate = intervals.bootstrap_statistic(
        mean, owners, seed=seed, unit=unit, exact=exact, labels=labels, ratios=ratios
    )
    if unit == "" and not estimate.method.startswith("exact"):
        estimate = _with_constant_labels(estimate, wide, owners, seed)
    missing = len(table) - int(defined.sum())
    note = f"; {missing} undefined left out" if missing else ""
    return replace(estimate, n=int(defined.any(axis=1).sum()), method=estimate.method + note)


def _with_constant_labels(mean: Estimate, wide: Table, patients: np.ndarray, seed: Seed) -> Estimate:
    """The mean with the exact intervals of labels whose scores are all 0 or all 1, because no draw varies them.

    wide: (cases, labels) scores
    """
    alike = [name for name in wide if wide[name].nunique() == 1 and wide[name].max() in (0, 1)]
    exact = [intervals.bootstrap(wide[name], patients, seed=seed) for name in alike]
    bounded = [(one.value, one.low, one.high) for one in exact if one.low is not None and one.high is not None]
    ends = [(low - value, high - value) for value, low, high in bounded]
    low, high = (mean.value, mean.value) if len(ends) == wide.shape[1] else (mean.low, mean.high)
    if not ends or low is None or high is None:
        return mean
    below, above = np.sum(ends, axis=0) / wide.shape[1]
    method = f"{mean.method.removeprefix('none: ')}; with the exact interval of labels scored all 0 or all 1"
    return replace(mean, low=low + float(below), high=high + float(above), method=method)


def _pool(figure: Callable[[Floats, Floats, Floats], tuple[Floats, Floats]], table: Table, seed: Seed) -> Estimate:
    counts = table[list(COUNTS)].to_numpy(dtype=np.float64)

    def statistic(weights: Floats) -> Floats:
        """The figure of all voxels, for each weighting."""
        both, predicted, reference = np.moveaxis(weights @ counts, -1, 0)
        return _weighting.ratio_or_nan(*figure(both, predicted, reference))

    ratios = np.stack(figure(*counts.T))[:, None]
    estimate = intervals.bootstrap_statistic(statistic, table["patient"], seed=seed, exact=False, ratios=ratios)
    return replace(estimate, n=int(table["case"].nunique()))


def _dice(both: Floats, predicted: Floats, reference: Floats) -> tuple[Floats, Floats]:
    return 2 * both, predicted + reference


def _iou(both: Floats, predicted: Floats, reference: Floats) -> tuple[Floats, Floats]:
    return both, predicted + reference - both

"""The cases that a model answers, how wrong its answers are, and the fold of a run that scores them.

A fold has the gate by which it judges its cases.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from hilum.evaluation import Table, case_tables, intervals
from hilum.evaluation.metric import OF_ANSWERED
from hilum.lazy import pandas as pd
from hilum.runtime import Model, model_record, record_files
from hilum.runtime.guard.image_gate import Guard
from hilum.runtime.model_parts import ModelParts
from hilum.tasks import Task, multitask, properties
from hilum.values import ANSWERED, Row
from hilum.values.case_outcome import ABSTAINED

Series: TypeAlias = "pd.Series[float]"


def case_errors(task: Task, table: Table) -> dict[str, float]:
    """{case: how wrong its answer is, 0 to 1}: 1 less the mean Dice, or the share of labels that are called wrongly.

    Without a case whose answer can be neither right nor wrong, such as a number.
    """
    return _by_case((_wrong(own), own) for own in multitask.part_tables(task, table).values())


def case_failures(task: Task, table: Table) -> dict[str, float]:
    """The same for every kind of problem: where an answer is neither right nor wrong, by the figure of a single case.

    Of several tasks such a figure counts as its rank among the cases, 0 to 1; else in its own unit, more being worse.
    Without times to an event: an error that is weighed for censoring is small where a case was not followed for long.
    """
    tables = multitask.part_tables(task, table)
    wrong_by_part: list[tuple[Series | None, Table]] = []
    for name, table_of_part in tables.items():
        metrics = properties.part_or_whole(task, name).metrics
        wrong, metric = _wrong(table_of_part), metrics.of_case
        if wrong is None and metric in table_of_part and "event" not in table_of_part:
            is_error, values = metrics.metric_named(str(metric)).better == "less", table_of_part[metric]
            wrong = (values if is_error else 1 - values).dropna()
            wrong = wrong.rank(pct=True) if len(tables) > 1 else wrong
        wrong_by_part.append((wrong, table_of_part))
    return _by_case(wrong_by_part)


def _wrong(table: Table) -> Series | None:
    """The error of each row, 0 to 1; None where rows can be neither right nor wrong."""
    if "dice" in table:
        return (1 - table["dice"]).where(table["dice"].notna(), 0.0)
    if not {"predicted", "reference"} <= set(table) or pd.api.types.is_numeric_dtype(table["reference"]):
        return None
    is_known = table["reference"].notna() & table["predicted"].notna()
    return (table["predicted"] != table["reference"])[is_known].astype(float)


def _by_case(wrong_by_part: Iterable[tuple[Series | None, Table]]) -> dict[str, float]:
    """{case: the mean over parts of the mean over its rows}"""
    means: dict[str, list[float]] = {}
    for wrong, table in wrong_by_part:
        if wrong is not None:
            for case, error in wrong.groupby(table["case"].astype(str).loc[wrong.index]).mean().items():
                means.setdefault(str(case), []).append(float(error))
    return {case: float(np.mean(errors)) for case, errors in means.items()}


def answered_rows(task: Task, table: Table, *, seed: int) -> Iterator[Row]:
    """The share of cases with an answer, the error of these, and figures of these alone; nothing where all have one."""
    if ABSTAINED not in table or not (is_refused := table[ABSTAINED].fillna("") != "").any():
        return
    cases = table.drop_duplicates("case")
    yield Row(
        ANSWERED, "all", intervals.proportion(~is_refused[cases.index], cases["patient"].to_numpy(str), seed=seed)
    )
    rows = table[~is_refused]
    if not len(rows):
        return
    errors = case_errors(task, rows)
    people = dict(zip(rows["case"].astype(str), rows["patient"].astype(str), strict=True))
    if errors:
        estimate = intervals.bootstrap(list(errors.values()), [people[case] for case in errors], seed=seed)
        yield Row(f"error{OF_ANSWERED}", "all", estimate)
    for row in task.summary(rows, seed=case_tables.resampling_of_table(rows, seed)):
        if row.metric in task.primaries and row.label == "all":
            yield Row(f"{row.metric}{OF_ANSWERED}", row.label, row.estimate)


# Of a fold whose model keeps a gate that is fitted to the cases which the fold tests: no case judges itself.
GATE, SCHEMA = "gate.json", "hilum.gate"


@dataclass(frozen=True, eq=False)
class ScoringFold:
    """A fold that scores a case.

    task:  its own, with what its own validation cases decided: the common one's thresholds have seen cases that it
           tests
    guard: its gate by cases that it does not test; None where the one of its model is that
    """

    number: int
    task: Task
    guard: Guard | None = None

    def scoring(self, model: Model) -> Model:
        """The fold's model as it scores the cases that the fold tests."""
        parts = model.parts if self.guard is None else replace(model.parts, guard=self.guard)
        return replace(model, task=self.task, parts=parts)


def write_fold_gate(guard: Guard, folder: Path) -> None:
    """`gate.json` and its arrays, which `read_fold_gate` reads."""
    gate = ModelParts(guard=guard)
    gate.write(folder)
    record_files.write_json(folder / GATE, SCHEMA, gate.settings)


def read_fold_gate(folder: Path) -> Guard | None:
    """The gate by which the fold in this folder judges the cases that it tests; None where its model's own is that."""
    path = folder / GATE
    return model_record.read_parts(record_files.read_json(path, SCHEMA), folder).guard if path.is_file() else None

"""The scores of several tasks in one table of cases: each part scores, draws and states its own rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from isocenter.evaluation import CaseValues, Seed, Table
from isocenter.lazy import pandas as pd
from isocenter.report import Figure
from isocenter.tasks.multitask.answering import PartAnswering
from isocenter.tasks.parts import leaves
from isocenter.tasks.task import Guess, Task
from isocenter.values import Case, Prediction, Row

# Columns that the rows of all parts have.
COMMON = ("case", "patient", "split", "label")
SEPARATOR, LABEL_SEPARATOR = ".", ": "


class PartScoring(PartAnswering):
    """The scores of tasks that share a network."""

    @property
    def primaries(self) -> frozenset[str]:
        """Primary metrics of all parts."""
        return frozenset().union(*(part.primaries for part in self.parts.values()))

    def own_labels(self, cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
        """The cases with references under the numbers of the parts, and sentences on labels that one side lacks."""
        by_id, sentences = {case.id: case for case in cases}, list[str]()
        for part in self.parts.values():
            relabelled, more = part.own_labels([one for one in by_id.values() if part.needs <= set(one.references)])
            by_id |= {case.id: case for case in relabelled}
            sentences += more
        return list(by_id.values()), sentences

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """The rows of all parts, of the cases that each is known of; its name stands before its labels and columns."""
        tables = [
            with_part(name, part.score([prediction.parts[name]], [case]))
            for prediction, case in zip(predictions, cases, strict=True)
            for name, part in self.parts.items()
            if part.needs <= set(case.references)
        ]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame([])

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """The estimates of each part, whose name stands before the label."""
        return [
            replace(row, label=f"{name}{LABEL_SEPARATOR}{row.label}")
            for name, own in part_tables(self, table).items()
            for row in self.parts[name].summary(own, seed=seed)
        ]

    def rank(self, table: Table) -> list[str]:
        """Case ids by the mean of the places that a case has among those of each part, as a share of them."""
        places: dict[str, list[float]] = {}
        for name, part_table in part_tables(self, table).items():
            ranked = self.parts[name].rank(part_table)
            for index, case in enumerate(ranked):
                places.setdefault(case, []).append((index + 0.5) / len(ranked))
        return sorted(places, key=lambda case: float(np.mean(places[case])))

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """The pictures of all parts, one after the other."""
        return [figure for name, part in self.parts.items() for figure in part.figures(prediction.parts[name], case)]

    def overview(self, table: Table) -> list[Figure]:
        """The charts of each part, whose name stands before the title."""
        return [
            replace(figure, title=f"{name[0].upper()}{name[1:]}: {figure.title}")
            for name, own in part_tables(self, table).items()
            for figure in self.parts[name].overview(own)
        ]

    def case_values(self, table: Table) -> list[CaseValues]:
        """Values of which the figures of each part are made, whose name stands before the label."""
        return [
            replace(values, label=f"{name}{LABEL_SEPARATOR}{values.label}")
            for name, own in part_tables(self, table).items()
            for values in self.parts[name].case_values(own)
        ]

    def guess(self, table: Table) -> Guess | None:
        """The guess of each part that has one, of its own rows; the metrics are those of all of them."""
        guesses = {
            name: guess for name, own in part_tables(self, table).items() if (guess := self.parts[name].guess(own))
        }
        if not guesses:
            return None
        words = {name: own for name, guess in guesses.items() for own in guess.words.values()}
        metrics = tuple(dict.fromkeys(metric for guess in guesses.values() for metric in guess.metrics))
        joined = pd.concat([with_part(name, guess.table) for name, guess in guesses.items()], ignore_index=True)
        return Guess(joined, words, metrics)


def part_tables(task: Task, table: Table) -> dict[str, Table]:
    """{part: its rows, with its own labels and columns} of the parts that have any; "" of a task without parts."""
    tables = {name: of_part(name, table) if name else table for name in leaves(task)}
    return {name: rows for name, rows in tables.items() if len(rows) or not name}


def with_part(name: str, table: Table) -> Table:
    """A part's table whose labels and columns begin with its name: no two parts have any in common."""
    renamed = table.rename(columns={key: f"{name}{SEPARATOR}{key}" for key in table if key not in COMMON})
    return renamed.assign(label=[f"{name}{LABEL_SEPARATOR}{label}" for label in table["label"]])


def of_part(name: str, table: Table) -> Table:
    """The inverse: the rows of a part as it made them."""
    rows = table[[str(label).startswith(f"{name}{LABEL_SEPARATOR}") for label in table["label"]]]
    columns = [key for key in table if key in COMMON or str(key).startswith(f"{name}{SEPARATOR}")]
    renamed = rows[columns].rename(columns={key: str(key).removeprefix(f"{name}{SEPARATOR}") for key in columns})
    labels = [str(label).removeprefix(f"{name}{LABEL_SEPARATOR}") for label in rows["label"]]
    return renamed.assign(label=labels).infer_objects().reset_index(drop=True)

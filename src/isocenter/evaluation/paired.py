"""Comparison of models that scored the same cases, row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isocenter.errors import DatasetError, counted
from isocenter.evaluation.intervals import difference
from isocenter.evaluation.table import PROBABILITY, Table, metric_columns, resampling, without_part
from isocenter.values import Array, Estimate, Row

REMEDY = "Evaluate all of them on the same data with `isocenter evaluate MODEL DATA --out FOLDER`, and compare those"
# What a row says of a case whatever was predicted.
GIVEN = ("time", "event", "references", "reference_boxes", "objects_reference", "voxels_reference", "reference")
# The score of a case that only grades have.
GRADED = "rps"


@dataclass(frozen=True)
class Compared:
    """One figure of several models for one label, and how much higher it is than the first one's."""

    metric: str
    label: str
    estimates: tuple[Estimate, ...]
    differences: tuple[Estimate, ...]


def compared(
    tables: Mapping[str, Table], summaries: Sequence[Callable[..., Sequence[Row]]], *, seed: int
) -> tuple[list[Compared], dict[str, int]]:
    """Every figure that all models have, and {metric: rows that one of them lacks, left out for all}.

    tables:    {name: table of cases}, the one that the others are compared with first
    summaries: of each model, called with its table and `seed`, as its own task makes it by its own threshold
    Raises DatasetError where the tables are not of the same cases with the same references.
    """
    same, left_out = aligned(tables)
    first, *others = (_estimates(summary, table, seed) for summary, table in zip(summaries, same, strict=True))
    rows = []
    for key in first:
        if all(key in one for one in others):
            estimates = (first[key], *(one[key] for one in others))
            apart = tuple(difference(estimates[0], one) for one in estimates[1:])
            rows.append(Compared(*key, estimates, apart))
    return rows, left_out


def _estimates(summary: Callable[..., Sequence[Row]], table: Table, seed: int) -> dict[tuple[str, str], Estimate]:
    rows = summary(table, seed=resampling(table, seed, keeps_draws=True))
    return {(row.metric, row.label): row.estimate for row in rows}


def aligned(tables: Mapping[str, Table]) -> tuple[list[Table], dict[str, int]]:
    """The tables with rows in one order, and what is undefined in one undefined in all; {metric: rows so left out}.

    Raises DatasetError where they are not of the same cases with the same references.
    """
    (first, base), *others = tables.items()
    same = [base, *(_in_order_of(base, table, first, name) for name, table in others)]
    left_out = {}
    for metric in metric_columns(base):
        if all(metric in one for one in same):
            unknown = np.any([one[metric].isna() for one in same], axis=0)
            if lost := int(unknown.sum() - min(one[metric].isna().sum() for one in same)):
                left_out[metric] = lost
            same = [one.assign(**{metric: one[metric].mask(unknown)}) for one in same]
    return same, left_out


def _in_order_of(base: Table, table: Table, first: str, name: str) -> Table:
    """The rows of a table in the order of another one's; DatasetError where they are not of the same."""
    ours, theirs = (list(zip(one["case"], one["label"], strict=True)) for one in (base, table))
    if unpaired := sorted({*ours} ^ {*theirs}):
        (case, label), whose = unpaired[0], first if unpaired[0] in ours else name
        rows = counted(len(unpaired), "row")
        raise DatasetError(
            f"{rows} in only one of the tables, the first case {case}, label {label} in {whose}", name, REMEDY
        )
    moved = table.set_index(["case", "label"]).loc[ours].reset_index()
    if (base["patient"].to_numpy() != moved["patient"].to_numpy()).any():
        raise DatasetError(f"the same cases belong to other patients than in {first}", name, REMEDY)
    if unlike := _unlike_classes(base, moved):
        raise DatasetError(f"{unlike} than in {first}", name, "Compare models that tell the same classes apart")
    for column in [name for name in base if without_part(str(name)) in GIVEN]:
        if column in moved and not _equal(base[column].to_numpy(), moved[column].to_numpy()):
            raise DatasetError(f"the same cases have other references than in {first}", name, REMEDY)
    return moved


def _unlike_classes(ours: Table, theirs: Table) -> str:
    """The difference between the classes of two models; empty where they are the same, in any order unless grades."""
    classes, other = (_classes(table) for table in (ours, theirs))
    if set(classes) != set(other):
        return "the classes are others"
    are_grades = all(GRADED in [without_part(str(name)) for name in table] for table in (ours, theirs))
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

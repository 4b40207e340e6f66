"""The people in the data, beside those for whom the model is meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hilum.errors import DatasetError
from hilum.evaluation.fairness import group_attributes
from hilum.evaluation.fairness.group_attributes import UNKNOWN
from hilum.files.storage import csv_text
from hilum.lazy import pandas as pd
from hilum.quality import references
from hilum.report import Paragraph, Section
from hilum.report import Table as PageTable
from hilum.scoring.case_scoring import AuditOutcome
from hilum.values import Case, Dataset, covariate_values, table_cells
from hilum.values.table_cells import PlainCell, TableRow

REPRESENTATION, TITLE = "representation.csv", "Representation of groups"
COLUMNS = ("attribute", "group", "patients", "share", "population", "missing")
LABEL = "label_"


def audit_representation(dataset: Dataset, asked: str | None, population: str | Path | None) -> AuditOutcome | None:
    """`representation.csv`: patients, shares of labels and of missing values by group; None without groups.

    population: a table of shares with the columns attribute, group and share, or of people, with a column for each
                covariate
    Raises UsageError for a covariate that is not there, DatasetError for a table that is none.
    """
    cases = list(dataset)
    covariates = group_attributes.covariates_by_name(dataset, {case.id for case in cases})
    groups = group_attributes.groups_by_attribute(covariates, asked)
    if not groups:
        return None
    shares = {} if population is None else _shares(Path(population), asked or ",".join(groups))
    labels = _labels(cases)
    names = list(dict.fromkeys(label for own in labels.values() for label in own))
    rows = list[dict[str, PlainCell]]()
    for attribute, group_names in groups.items():
        count = len({case.patient for case, group in zip(cases, group_names, strict=True) if group != UNKNOWN})
        known = group_names.tolist()
        spelled = {group_attributes.group_key(group): group for group in known}
        population_shares = {
            spelled.get(group_attributes.group_key(group), group): share
            for (place, group), share in shares.items()
            if place == attribute
        }
        for group in sorted({*known, *population_shares}, key=group_attributes.group_order):
            some = [case for case, other in zip(cases, group_names, strict=True) if other == group]
            people = len({case.patient for case in some})
            share = None if group == UNKNOWN else people / max(count, 1)
            by_label = {f"{LABEL}{name}": _share(name in labels.get(one.id, ()) for one in some) for name in names}
            missing = [covariate_values.is_missing(value) for one in some for value in one.covariates.values()]
            row = (attribute, group, people, share, population_shares.get(group), _share(missing))
            rows.append(dict(zip(COLUMNS, row, strict=True)) | by_label)
    columns = [*COLUMNS, *(f"{LABEL}{name}" for name in names)]
    return AuditOutcome({REPRESENTATION: pd.DataFrame(rows, columns=columns)}, sections=[_section(rows, columns)])


def _labels(cases: Sequence[Case]) -> Mapping[str, Sequence[str]]:
    """{case: its labels}: its class, the findings that it has, or what else parts of a split have their share of."""
    labels: dict[str, list[str]] = {}
    for kind in references.kinds_by_names({name: None for case in cases for name in case.references}):
        if kind.strata is not None:
            for case, names in kind.strata.names(cases).items():
                labels.setdefault(case, []).extend(names)
    return labels


def _share(truths: Any) -> float | None:
    truths_of_group = list(truths)
    return float(np.mean(truths_of_group)) if truths_of_group else None


def _shares(path: Path, asked: str) -> dict[tuple[str, str], float]:
    """{(attribute, group): its share of the population}"""
    table = csv_text.read_given_table(path)
    if {"attribute", "group", "share"} <= set(table):
        shares = table_cells.probabilities_in(csv_text.text_column(table, "share", str(path))).values.tolist()
        if not np.isfinite(shares).all():
            raise DatasetError("a share is not a number", str(path), "Give shares from 0 to 1")
        return dict(zip(zip(table["attribute"], table["group"], strict=True), shares, strict=True))
    columns = {str(name): table[name].tolist() for name in table}
    people = group_attributes.groups_by_attribute(columns, asked, strictly=False)
    if not people:
        remedy = "Give the columns attribute, group and share, or one row per person with the covariates"
        raise DatasetError("names none of the groups", str(path), remedy)
    return {
        (attribute, group): float(np.mean(own[own != UNKNOWN] == group))
        for attribute, own in people.items()
        for group in sorted(set(own.tolist()) - {UNKNOWN})
    }


def _section(rows: Sequence[TableRow], columns: Sequence[str]) -> Section:
    absent = [f"{row['attribute']} {row['group']}" for row in rows if not row["patients"] and row["population"]]
    words = f"The data have nobody of {', '.join(absent)}." if absent else "Patients by group, and their labels."
    cells = [[row.get(name) for name in columns] for row in rows]
    return Section(TITLE, [Paragraph(words), PageTable([name.removeprefix(LABEL) for name in columns], cells)])

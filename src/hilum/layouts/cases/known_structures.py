"""The structures that each case knows: `known.csv` in the folder, or a column `known` in the table of cases.

What nobody contoured in a case is unknown there, as where data sets of several sites are merged, and not background.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hilum import errors
from hilum.errors import DatasetError
from hilum.layouts.cases import table_reading
from hilum.layouts.cases.column_names import CASE_COLUMNS
from hilum.layouts.cases.dataset_folder import KNOWN_TABLE, Folder
from hilum.values import Case, CaseRow, Dataset

MASK, COLUMN, BETWEEN = "mask", "known", ";"


def with_known_structures(dataset: Dataset, folder: Folder, files: Sequence[CaseRow]) -> Dataset:
    """The data set whose cases say which structures they know; a case of which nobody says it knows all.

    files: all that the layout has found, those too that are no case of the data set
    Raises DatasetError for a table that cannot be read so, for an unknown case and for an unknown structure, and where
    both the table and a column state what cases know.
    """
    path = folder.root / KNOWN_TABLE
    has_table = not folder.is_file and path.is_file()
    in_column = _of_column(dataset)
    if has_table and in_column:
        problem = f"{KNOWN_TABLE} and the column {COLUMN} both state what cases know"
        raise DatasetError(problem, str(folder.root), "Leave one of them")
    stated = _of_table(path, dataset, files) if has_table else in_column
    if not stated:
        return dataset
    _refuse_unknown(stated, dataset, str(path) if has_table else str(dataset.root))
    cases = list[Case]()
    for case in dataset.cases:
        covariates = {name: value for name, value in case.covariates.items() if name != COLUMN or not in_column}
        cases.append(replace(case, covariates=covariates, known=stated.get(case.id, case.known)))
    return replace(dataset, cases=tuple(cases))


def _of_column(dataset: Dataset) -> dict[str, frozenset[str]]:
    """{case: structures} of the column of the table of cases, where they have masks; a blank cell states nothing."""
    with_masks = [case for case in dataset if MASK in case.references]
    return {case.id: _names(cell) for case in with_masks if (cell := case.covariates.get(COLUMN)) is not None}


def _of_table(path: Path, dataset: Dataset, files: Sequence[CaseRow]) -> dict[str, frozenset[str]]:
    table = table_reading.read_table(path, codes=(COLUMN,))
    case, known = table.column(CASE_COLUMNS), table.column((COLUMN,))
    if case is None or known is None:
        problem = f"has the columns {', '.join(table.columns)}"
        remedy = f"Give the columns case and {COLUMN}, with the structures that somebody contoured, joined by {BETWEEN}"
        raise DatasetError(problem, str(path), remedy)
    ids, stated = {one.id for one in dataset}, dict[str, frozenset[str]]()
    # A case that was left out, as one whose file is empty, is no mistake of the table.
    found = {*ids, *(name for one in files for name in (one.name, one.name.rpartition("/")[2]))}
    for row in table.rows:
        name = str(table_reading.as_whole_number(row[case]))
        if name in stated:
            raise DatasetError(f"has two rows of the case {name}", str(path), "Leave one of them")
        if name not in found:
            problem = f"names {name}, which is no case of the data set"
            remedy = f"Write a name such as {errors.list_phrase(sorted(ids), 3)}, or remove the row"
            raise DatasetError(problem, str(path), remedy)
        if row[known] is None:
            remedy = "Name what somebody contoured, or remove the row if all was contoured"
            raise DatasetError(f"names no structure that the case {name} knows", str(path), remedy)
        stated[name] = _names(row[known])
    return {name: own for name, own in stated.items() if name in ids}


def _names(cell: Any) -> frozenset[str]:
    return frozenset(name for part in str(table_reading.as_whole_number(cell)).split(BETWEEN) if (name := part.strip()))


def _refuse_unknown(stated: Mapping[str, frozenset[str]], dataset: Dataset, where: str) -> None:
    """Raise DatasetError for a structure that is not declared; where none is, structures are called by their values."""
    declared = dataset.structures
    for case, names in stated.items():
        strange = sorted(name for name in names if (name not in declared if declared else not name.isdecimal()))
        if strange:
            problem = f"the case {case} knows {errors.list_phrase(strange)}, which is no structure of the data set"
            choices = f"Choose among {errors.list_phrase(declared)}"
            raise DatasetError(problem, where, choices if declared else "Name the values of masks with --labels")

"""The cases of a list of doubtful references, in its order, as the page shows them before all others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hilum.errors import DatasetError
from hilum.evaluation import ALL
from hilum.files.storage import csv_text
from hilum.report import wording

# As `check`, `evaluate` and `feedback next` call it; the module that has the name first loads what ranks references.
RELABEL = "relabel.csv"
# Of the structures or findings of one case so many are named.
SHOWN = 3


def find_list(data: Path, named: Path | None = None) -> Path | None:
    """The list that is named, as a file or by its folder, else the one that lies with the data; None without any.

    data: a folder of cases, in which the list may lie, or a table, beside which it may
    """
    if named is not None:
        return named / RELABEL if named.is_dir() else named
    near_data = (data if data.is_dir() else data.parent) / RELABEL
    return near_data if near_data.is_file() else None


def read_doubts(path: Path) -> list[tuple[str, str]]:
    """Each case with what speaks against its references, the most doubtful case first.

    Raises DatasetError for what is no such list.
    """
    table = csv_text.read_given_table(path)
    if "case" not in table:
        raise DatasetError("has no column 'case'", str(path), f"Give a {RELABEL} of check, evaluate or feedback next")
    doubts = dict[str, list[str]]()
    for row in table.to_dict("records"):
        doubts.setdefault(row["case"], []).append(_doubt({str(name): cell for name, cell in row.items()}))
    return [(case, "; ".join(words[:SHOWN])) for case, words in doubts.items()]


def _doubt(row: Mapping[str, str]) -> str:
    """The reference of a row and what is probable in its place, or how far a prediction is from it."""
    label, reference, probable = (row.get(name, "") for name in ("label", "reference", "probable"))
    doubt = f"error {_rounded(row['error'])}" if row.get("error") else ""
    if reference:
        doubt = f"{reference} {_rounded(row.get('probability_reference', ''))}".rstrip()
    if probable not in ("", reference):
        doubt += f", probably {probable} {_rounded(row.get('probability_probable', ''))}".rstrip()
    return doubt if label in ("", ALL) else f"{label}: {doubt}".rstrip(": ")


def _rounded(cell: str) -> str:
    try:
        return wording.number_text(float(cell))
    except ValueError:
        return cell

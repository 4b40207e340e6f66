"""Verification: every row of a folder of documents against the records that it names, read anew."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isocenter.documents.answers import STATES
from isocenter.documents.facts import FACTS
from isocenter.documents.subject import Subject, json_value, short
from isocenter.errors import IntegrityError
from isocenter.runtime import digest, read_json

RECORD, SCHEMA = "documents.json", "isocenter.documents"


@dataclass(frozen=True)
class Broken:
    """A row, or a record as a whole, that no longer holds.

    where: document and item, or the path of the record
    """

    where: str
    problem: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


def broken_rows(folder: Path, subject: Subject) -> list[Broken]:
    """List what no longer holds: changed values, changed or missing records, and rows that the folder itself changed.

    A value that still stands in a record that changed elsewhere does not hold either: its SHA-256 is part of the row.
    Raises IntegrityError where documents.json is missing or is none.
    """
    written = read_json(folder / RECORD, SCHEMA)
    broken = [Broken(path, problem) for path, problem in _changed(written["records"], subject).items()]
    for row in written["rows"]:
        where = f"{row['document']} {row['item']}{row['part']}"
        if row["state"] not in STATES:
            broken.append(Broken(where, f"{row['state']!r} is no state"))
        elif row["state"] == "measured":
            broken += [Broken(where, problem) for problem in _measured(row, subject)]
        elif row["state"] == "stated":
            broken += [Broken(where, problem) for problem in _stated(row, folder)]
    broken += _miscounted(written)
    return broken


def _miscounted(written: Mapping[str, Any]) -> list[Broken]:
    """Scores that do not follow from the rows."""
    states: dict[str, dict[tuple[str, str], set[str]]] = {}
    for row in written["rows"]:
        states.setdefault(row["document"], {}).setdefault((row["item"], row["part"]), set()).add(row["state"])
    broken = []
    for score in written["scores"]:
        items = states.pop(score["document"], {})
        missing = sum("missing" in one for one in items.values())
        apart = sum("not applicable" in one for one in items.values())
        rest = len(items) - missing - apart
        if (score["missing"], score["not_applicable"], score["measured"] + score["stated"]) != (missing, apart, rest):
            broken.append(Broken(score["document"], "its score does not follow from its rows"))
    return [*broken, *(Broken(name, "has no score") for name in states)]


def _changed(records: Mapping[str, str], subject: Subject) -> dict[str, str]:
    """{path: problem} of records that are not what they were when the documents were written."""
    problems = {}
    for path, sha256 in records.items():
        try:
            _, now = subject.record(path)
        except IntegrityError as error:
            problems[path] = error.problem
        else:
            if now != sha256:
                problems[path] = "is not the record that was documented (its SHA-256 differs)"
    return problems


def _measured(row: Mapping[str, Any], subject: Subject) -> list[str]:
    try:
        now = subject.at(row["record"], row["pointer"])
    except IntegrityError as error:
        return [f"{row['record']} {error.problem}"]
    place = f"{row['record']} {row['pointer']}"
    if now.value != row["value"] or type(now.value) is not type(row["value"]):
        return [f"{place} was {short(row['value'])}, now it is {short(now.value)}"]
    if now.sha256 != row["sha256"]:
        return [f"{place} is unchanged, but the record is not"]
    return []


def _stated(row: Mapping[str, Any], folder: Path) -> list[str]:
    file = folder / FACTS
    if not file.is_file() or digest(file) != row["sha256"]:
        return [f"{FACTS} is not the file that was documented"]
    try:
        value = json_value(tomllib.loads(file.read_text(encoding="utf-8")), row["pointer"])
    except (KeyError, ValueError):
        return [f"{FACTS} has nothing at {row['pointer']}"]
    return [] if value == row["value"] else [f"{FACTS} {row['pointer']} states something else"]

"""Options of `evaluate` that ask for further looks at what was scored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from isocenter.verbs.reading import ReadingKeywords


class AuditKeywords(TypedDict, total=False):
    """The keyword arguments that `AuditOptions` takes."""

    groups: str | None
    group_table: str | Path | None
    shift: bool
    corruptions: str | None
    severities: str | None
    explain: bool


class EvaluationKeywords(ReadingKeywords, AuditKeywords, total=False):
    """The keyword arguments of a verb that reads labelled data and audits what it scored."""


@dataclass(frozen=True)
class AuditOptions:
    """What is looked at besides the figures.

    groups:      columns whose groups are audited, "sex,age:40:60,site,sex*age"; None takes covariates of 2 to 8 levels
    group_table: a table of further columns, by case or patient
    shift:       whether groups are compared by what the network sees in them
    corruptions: names of corruptions of the images, or "all"
    severities:  of corruptions, "1-5" or "1,3"
    explain:     whether the best and worst cases are explained
    """

    groups: str | None = None
    group_table: str | Path | None = None
    shift: bool = False
    corruptions: str | None = None
    severities: str | None = None
    explain: bool = False

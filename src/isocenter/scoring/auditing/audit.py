"""The input of an audit: scored cases, what scored them, and the options of `evaluate` that ask for audits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from isocenter.errors import UsageError
from isocenter.reading import ReadingKeywords
from isocenter.scoring.fold import Fold
from isocenter.scoring.scores import Predictor, Scored
from isocenter.transforms import CORRUPTIONS, SEVERITIES, corruption_named
from isocenter.values import Case


class AuditKeywords(TypedDict, total=False):
    """The keyword arguments that `AuditOptions` takes."""

    groups: str | None
    group_table: str | Path | None
    shift: bool
    corruptions: str | None
    severities: str | None
    explain: bool
    screening: bool


class EvaluationKeywords(ReadingKeywords, AuditKeywords, total=False):
    """The keyword arguments of a verb that reads labelled data and audits what it scored."""


@dataclass(frozen=True)
class AuditOptions:
    """The audits that a person asks for.

    groups:      columns whose groups are audited, "sex,age:40:60,site,sex*age"; None takes covariates of 2 to 8 levels
    group_table: a table of further columns, by case or patient
    shift:       whether groups are compared by what the network sees in them
    corruptions: names of corruptions of the images, or "all"
    severities:  of corruptions, "1-5" or "1,3"; None takes all
    explain:     whether the best and worst cases are explained
    screening:   whether the endpoints of screening are made, from a column outcome
    Raises UsageError for a corruption or a severity that there is not.
    """

    groups: str | None = None
    group_table: str | Path | None = None
    shift: bool = False
    corruptions: str | None = None
    severities: str | None = None
    explain: bool = False
    screening: bool = False

    def __post_init__(self) -> None:
        if self.severities is not None and not self.corruptions:
            raise UsageError("says nothing without corruptions", "--severities", "Add --corruptions all")
        self.corruption_names  # noqa: B018 - an unknown one is refused before anything is computed
        self.chosen_severities  # noqa: B018

    @property
    def all_corruptions(self) -> bool:
        """Whether every corruption is wanted that befalls such images."""
        return (self.corruptions or "").strip().lower() == "all"

    @property
    def corruption_names(self) -> tuple[str, ...]:
        """The names of the corruptions that are wanted."""
        if self.all_corruptions:
            return tuple(CORRUPTIONS)
        return tuple(dict.fromkeys(corruption_named(name) for name in (self.corruptions or "").split(",") if name))

    @property
    def chosen_severities(self) -> tuple[int, ...]:
        """The severities that are wanted, in order."""
        if self.severities is None:
            return SEVERITIES
        chosen = set[int]()
        for part in str(self.severities).split(","):
            first, _, last = (one.strip() for one in part.partition("-"))
            if not (first.isdecimal() and (last or first).isdecimal()):
                raise UsageError(f"{part.strip()!r} is not a severity", "--severities", "Write 1-5, or 1,3")
            chosen |= set(range(int(first), int(last or first) + 1)) or {0}
        if not chosen <= set(SEVERITIES):
            raise UsageError(f"{self.severities!r} leaves 1 to 5", "--severities", "Write 1-5, or 1,3")
        return tuple(sorted(chosen))


@dataclass(frozen=True, eq=False)
class Audit:
    """Scored cases, and what an audit of them needs beside their figures.

    scored:    the cases' figures; its table has a row a case and label, its features what the network saw
    predictor: what scored them, each fold its own cases
    cases:     those that were scored
    folds:     {case id: the fold that scored it}, where there are several
    patients_known: False where each case only stands for a patient
    planned:   groups that were to be compared before anything was trained, as far as the cases have them
    registered: those of them that were fixed before training and not changed since; None where there are none
    path:      of the model; None of one in memory
    """

    scored: Scored
    predictor: Predictor
    cases: Sequence[Case]
    seed: int
    patients_known: bool
    folds: Mapping[str, Fold] = field(default_factory=dict)
    options: AuditOptions = field(default_factory=AuditOptions)
    planned: str | None = None
    registered: str | None = None
    path: Path | None = None

    def network_of(self, case: str) -> int:
        """The number of the network that scored a case: features of one say nothing beside those of another."""
        return self.folds[case].number if case in self.folds else 0

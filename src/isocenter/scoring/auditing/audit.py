"""The input of an audit: scored cases and what scored them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from isocenter.scoring.answered import Fold
from isocenter.scoring.auditing.options import AuditOptions
from isocenter.scoring.scores import Predictor, Scored
from isocenter.values import Case


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

"""The audits of scored cases that `train` and `evaluate` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from isocenter.values import Case
from isocenter.verbs.auditing.between_groups import feature_shift
from isocenter.verbs.auditing.decisions import decisions
from isocenter.verbs.auditing.explained import explanations
from isocenter.verbs.auditing.groups import groups
from isocenter.verbs.auditing.mistakes import mistakes
from isocenter.verbs.auditing.options import AuditOptions
from isocenter.verbs.auditing.robustness import robustness
from isocenter.verbs.evaluation import Audited, Fold, Predictor, Scored


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit may see.

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


# In the order of the report; None from one that has nothing to look at.
AUDITS: tuple[Callable[[Audit], Audited | None], ...] = (
    decisions,
    groups,
    feature_shift,
    robustness,
    mistakes,
    explanations,
)


def audited(audit: Audit) -> Scored:
    """The figures with all that the audits found."""
    made = [one for look in AUDITS if (one := look(audit)) is not None]
    shown = [
        (word, case, [*drawn, *(figure for one in made for figure in one.figures.get(case, ()))], page)
        for word, case, drawn, page in audit.scored.shown
    ]
    return replace(audit.scored, audits=tuple(made), shown=shown)

"""The audits of scored cases that `train` and `evaluate` share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from isocenter.scoring.audit_result import Audited
from isocenter.scoring.auditing.audit import Audit
from isocenter.scoring.auditing.between_groups import feature_shift
from isocenter.scoring.auditing.decisions import confusion, decisions
from isocenter.scoring.auditing.explained import explanations
from isocenter.scoring.auditing.groups import groups
from isocenter.scoring.auditing.mistakes import mistakes
from isocenter.scoring.auditing.robustness import robustness
from isocenter.scoring.auditing.screening import screened, without_outcomes
from isocenter.scoring.scores import Scored

# In the order of the report; None from one that has nothing to look at.
AUDITS: tuple[Callable[[Audit], Audited | None], ...] = (
    confusion,
    decisions,
    groups,
    feature_shift,
    robustness,
    mistakes,
    explanations,
)


def audited(audit: Audit) -> Scored:
    """The figures with all that the audits found."""
    plain = without_outcomes(audit)
    results = [one for one in (screened(audit), *(look(plain) for look in AUDITS)) if one is not None]
    shown = [
        (word, case, [*drawn, *(figure for one in results for figure in one.figures.get(case, ()))], page)
        for word, case, drawn, page in audit.scored.shown
    ]
    return replace(audit.scored, audits=tuple(results), shown=shown)

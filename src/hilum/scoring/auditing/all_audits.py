"""The audits of scored cases that `train` and `evaluate` share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hilum.scoring.auditing import (
    between_groups,
    decision_audits,
    group_audit,
    mistake_audit,
    repeat_audit,
    robustness_audit,
    site_audit,
)
from hilum.scoring.case_scoring import AuditInput, AuditOutcome, ScoredCases

# One kind of look at scored cases; None where there is nothing to look at.
Look = Callable[[AuditInput], AuditOutcome | None]
# In the order of the report.
LOOKS: tuple[Look, ...] = (
    decision_audits.audit_confusion,
    decision_audits.audit_decisions,
    group_audit.audit_groups,
    site_audit.audit_sites,
    between_groups.feature_shift,
    robustness_audit.audit_robustness,
    mistake_audit.audit_mistakes,
)


def run_audits(audit: AuditInput, *asked: Look) -> ScoredCases:
    """The figures with all that the audits found.

    asked: looks that bring torch and captum, which a training does without
    """
    audit = replace(audit, scored=repeat_audit.with_repeatability(audit))
    plain = decision_audits.without_outcomes(audit)
    looks = (decision_audits.audit_screening(audit), *(look(plain) for look in (*LOOKS, *asked)))
    results = [one for one in looks if one is not None]
    shown = [
        (word, case, [*figures, *(figure for one in results for figure in one.figures.get(case, ()))], page)
        for word, case, figures, page in audit.scored.shown
    ]
    return replace(audit.scored, audits=(*audit.scored.audits, *results), shown=shown)

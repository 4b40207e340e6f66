"""Further looks at scored cases: groups, decisions, robustness, errors, explanations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.verbs.auditing.audit import Audit, AuditKeywords, AuditOptions, EvaluationKeywords
    from isocenter.verbs.auditing.audits import audited
    from isocenter.verbs.auditing.between_groups import image_shift
    from isocenter.verbs.auditing.groups import OF_GROUPS, with_table
    from isocenter.verbs.auditing.representation import represented

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

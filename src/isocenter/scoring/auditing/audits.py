"""The audits of scored cases that `train` and `evaluate` share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from isocenter.scoring.auditing.between_groups import feature_shift
from isocenter.scoring.auditing.decisions import confusion, decisions, screened, without_outcomes
from isocenter.scoring.auditing.groups import groups
from isocenter.scoring.auditing.mistakes import mistakes
from isocenter.scoring.auditing.robustness import robustness
from isocenter.scoring.scores import Audit, Audited, Scored

# One kind of look at scored cases; None where there is nothing to look at.
Look = Callable[[Audit], Audited | None]
# In the order of the report.
LOOKS: tuple[Look, ...] = (confusion, decisions, groups, feature_shift, robustness, mistakes)


def audited(audit: Audit, *asked: Look) -> Scored:
    """The figures with all that the audits found.

    asked: looks that bring torch and captum, which a training does without
    """
    plain = without_outcomes(audit)
    results = [one for one in (screened(audit), *(look(plain) for look in (*LOOKS, *asked))) if one is not None]
    shown = [
        (word, case, [*drawn, *(figure for one in results for figure in one.figures.get(case, ()))], page)
        for word, case, drawn, page in audit.scored.shown
    ]
    return replace(audit.scored, audits=tuple(results), shown=shown)

"""What is to be shown, fixed before anything is trained."""

from __future__ import annotations

import hashlib
import json

from isocenter.values import Plan, stands_for

# The primary figure and all that could be turned afterwards to make it look better.
REGISTERED = (
    "evaluation.primary",
    "task.operating_point",
    "task.tolerance",
    "task.prevalence",
    "task.costs",
    "task.horizons",
)


def registered(plan: Plan) -> str:
    """SHA-256 over primary metric, rule of the operating point, tolerances, prevalence, costs of mistakes and horizons.

    A run records it before its first step; a report marks as exploratory whatever it does not cover.
    Nosek et al., PNAS 2018, doi:10.1073/pnas.1708274114
    """
    said = {name: decision.value for name, decision in plan if any(stands_for(name, one) for one in REGISTERED)}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

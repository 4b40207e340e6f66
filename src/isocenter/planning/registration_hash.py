"""What is to be shown, fixed before anything is trained."""

from __future__ import annotations

import hashlib
import json

from isocenter.tasks import kind, registers
from isocenter.values import Plan

PRIMARY = "evaluation.primary"


def registered(plan: Plan) -> str:
    """SHA-256 over the primary metric and what else the kind of problem fixes: all that could make it look better.

    A run records it before its first step; a report marks as exploratory whatever it does not cover.
    Nosek et al., PNAS 2018, doi:10.1073/pnas.1708274114
    """
    names = (PRIMARY, *(f"task.{name}" for name in registers(kind(plan["task.name"]))))
    said = {name: plan[name] for name in names if name in plan}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

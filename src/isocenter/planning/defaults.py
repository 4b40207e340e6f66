"""Decisions of a plan that neither the data nor a person changed: a setting's own default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any

from isocenter.objectives import objective_kind, objective_names
from isocenter.planning.typed import TYPED
from isocenter.tasks import kind
from isocenter.values import BY_HAND, Plan, plain_value, settings_in


def is_default(plan: Plan, name: str) -> bool:
    """Whether a decision has the value that its setting has where no rule and no person chooses another."""
    section, _, key = name.partition(".")
    decision = plan.decision(name)
    if decision.because.startswith((BY_HAND, "asked for")):
        return False
    usual = _defaults(str(plan["task.name"]) if "task.name" in plan else "", section)
    return key in usual and plain_value(decision.value) == usual[key]


@cache
def _defaults(task: str, section: str) -> Mapping[str, Any]:
    """{name: default} of a section's settings."""
    if section == "task":
        declared = {name: one.default for name, one in settings_in(kind(task)).items()} if task else {}
    else:
        of_objective = objective_kind(section) if section in objective_names() else None
        kinds = [one for one in (TYPED.get(section), of_objective) if one is not None]
        declared = {field.name: field.default for one in kinds for field in fields(one)}
    return {name: plain_value(value) for name, value in declared.items() if value is not MISSING}

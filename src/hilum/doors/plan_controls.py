"""The decisions of a plan as a form shows them: value, reason, source, and the control that the type gives."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from pydantic import JsonValue

from hilum.planning import PlannedTraining, typed_sections
from hilum.values import Setting, setting_fields


def decision_records(planned: PlannedTraining) -> list[dict[str, JsonValue]]:
    """Every decision in the order of the plan; `usual` where it has its default."""
    plan = planned.plan
    return [
        {
            "name": name,
            "value": setting_fields.plain_value(decision.value),
            "because": decision.because,
            "source": decision.source,
            "usual": typed_sections.is_default(plan, name),
            "unit": _setting(str(plan["task.name"]), name).unit,
            "control": control(str(plan["task.name"]), name, decision.value),
        }
        for name, decision in plan
    ]


def control(task: str, name: str, value: Any) -> dict[str, JsonValue]:
    """The control of a decision: its kind (switch, number, choice, text, value), choices and limits."""
    setting = _setting(task, name)
    members = list(setting_fields.parts_of(setting.hint))
    named = [
        *setting.choices,
        *(one for member in members if get_origin(member) is Literal for one in get_args(member)),
    ]
    if named and isinstance(value, str | None):
        return {"kind": "choice", "choices": named}
    if isinstance(value, bool):
        return {"kind": "switch"}
    if isinstance(value, int | float):
        return {"kind": "number", "whole": isinstance(value, int) and float not in members, **setting.limits}
    return {"kind": "text" if isinstance(value, str) else "value"}


def _setting(task: str, name: str) -> Setting:
    section, _, key = name.partition(".")
    return typed_sections.section_settings(section, task).get(key, Setting())

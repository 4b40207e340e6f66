"""The decisions of a plan as a form shows them: value, reason, source, and the control that the type gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from isocenter.planning import PlannedTraining, typed_sections
from isocenter.planning.typed_sections import TYPED
from isocenter.tasks import task_catalogue
from isocenter.values import setting_fields

# Units of decisions that have one; a share and a count have none.
UNITS = {"training.minutes": "min", "preprocessing.spacing": "mm", "training.memory": "GiB", "task.tolerance": "voxels"}


def decision_records(planned: PlannedTraining) -> list[dict[str, Any]]:
    """Every decision in the order of the plan; `usual` where it has its default."""
    plan = planned.plan
    return [
        {
            "name": name,
            "value": setting_fields.plain_value(decision.value),
            "because": decision.because,
            "source": decision.source,
            "usual": typed_sections.is_default(plan, name),
            "unit": UNITS.get(name, ""),
            "control": control(str(plan["task.name"]), name, decision.value),
        }
        for name, decision in plan
    ]


def control(task: str, name: str, value: Any) -> dict[str, Any]:
    """The control of a decision: its kind (switch, number, choice, text, value), choices and limits."""
    kind, choices = _type_of(task, name)
    members = list(_members(kind))
    named = [*choices, *(one for member in members if get_origin(member) is Literal for one in get_args(member))]
    limits = {
        key: getattr(one, attribute)
        for one in members
        for key, attribute in (("least", "ge"), ("least", "gt"), ("most", "le"), ("most", "lt"))
        if isinstance(getattr(one, attribute, None), int | float)
    }
    if named and isinstance(value, str | None):
        return {"kind": "choice", "choices": named}
    if isinstance(value, bool):
        return {"kind": "switch"}
    if isinstance(value, int | float):
        return {"kind": "number", "whole": isinstance(value, int) and float not in members, **limits}
    return {"kind": "text" if isinstance(value, str) else "value"}


def _type_of(task: str, name: str) -> tuple[Any, tuple[str, ...]]:
    section, _, key = name.partition(".")
    if section == "task":
        setting = setting_fields.settings_in(task_catalogue.task_class(task)).get(key)
        return (None, ()) if setting is None else (setting.type, tuple(setting.choices))
    kind = TYPED.get(section)
    if not is_dataclass(kind) or key not in {one.name for one in fields(kind)}:
        return None, ()
    return get_type_hints(kind, include_extras=True).get(key), ()


def _members(kind: Any) -> Iterator[Any]:
    """A type and what it is made of, limits of an annotation among it."""
    yield kind
    is_compound = get_origin(kind) in (Union, UnionType) or hasattr(kind, "__metadata__")
    for one in (*get_args(kind), *getattr(kind, "__metadata__", ())) if is_compound else ():
        yield from _members(one)

"""Plans as typed values, and what their defaults are. What does not fit is refused with the decision's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hilum.errors import PlanError
from hilum.objectives import objective_catalogue
from hilum.planning.plan_sections import (
    EvaluationSettings,
    FederationSettings,
    GuardSettings,
    NetworkSettings,
    ObjectiveSettings,
    PlanSettings,
    PrivacySettings,
    SearchSettings,
    SplitSettings,
    TrainingSettings,
    TransferSettings,
)
from hilum.runtime import Preprocessing
from hilum.runtime.inference import Inference
from hilum.runtime.preprocessing.slide_tiles import Tiles
from hilum.tasks import task_catalogue, task_settings
from hilum.transforms.augment import Augmentation
from hilum.transforms.painting import PaintingRanges
from hilum.values import BY_HAND, Decision, PlainValue, Plan, Setting, setting_fields

# In this order they are checked: what others follow from comes first, so that the mistake itself is named.
TYPED: Mapping[str, type] = {
    "split": SplitSettings,
    "training": TrainingSettings,
    "preprocessing": Preprocessing,
    "tiles": Tiles,
    "network": NetworkSettings,
    "augmentation": Augmentation,
    "inference": Inference,
    "evaluation": EvaluationSettings,
    "search": SearchSettings,
    "guard": GuardSettings,
    "objectives": ObjectiveSettings,
    "transfer": TransferSettings,
    "privacy": PrivacySettings,
    "painting": PaintingRanges,
    "federation": FederationSettings,
}
FREE = ("task",)
# Sections of defaults, which a plan has only where they matter.
OPTIONAL = ("transfer", "privacy", "painting", "federation", "tiles")


def typed_plan(plan: Plan) -> PlanSettings:
    """Every section by itself; PlanError names the decision that cannot be."""
    terms = plan.sections.get("objectives", {}).get("terms", Decision((), "")).value
    objectives = {name for name in terms if isinstance(name, str)} if isinstance(terms, list | tuple) else set()
    unknown = sorted(set(plan.sections) - {*TYPED, *FREE, *objectives})
    missing = sorted({*TYPED, *FREE} - {*OPTIONAL, *plan.sections})
    if unknown or missing:
        wrong = [*(f"unknown section {name!r}" for name in unknown), *(f"no section {name!r}" for name in missing)]
        raise PlanError("; ".join(wrong), "plan", f"Sections are {', '.join((*FREE, *TYPED))}")
    sections = {name: _type_section(name, kind, plan) for name, kind in TYPED.items()}
    tiles = sections.pop("tiles")
    if "tiles" in plan.sections:
        sections["preprocessing"] = replace(sections["preprocessing"], tiles=tiles)
    task = task_catalogue.build_task({key: decision.value for key, decision in plan.sections["task"].items()})
    kinds = {name: objective_catalogue.objective_kind(name) for name in sections["objectives"].terms}
    return PlanSettings(
        task=task, terms={name: _type_section(name, kind, plan) for name, kind in kinds.items()}, **sections
    )


def _type_section(name: str, kind: Any, plan: Plan) -> Any:
    # An objective may have nothing to decide, and few trainings start from other weights: these sections may lack.
    values = {key: decision.value for key, decision in plan.sections.get(name, {}).items()}
    names = [field.name for field in fields(kind)]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise PlanError("there is no such decision", f"{name}.{unknown[0]}", f"Names are {', '.join(names)}")
    return _validate(kind, values, (name,))


def check_value(name: str, value: Any) -> None:
    """PlanError for a decision, "section.name", that no plan has, or a value that it cannot have in any plan."""
    section, _, key = name.partition(".")
    if section in FREE:
        return  # the task says what it has, once it is known
    nothing = Decision(None, because="not decided yet")
    sections = {one: section_settings(one) for one in (*TYPED, section)}
    Plan({one: dict.fromkeys(known, nothing) for one, known in sections.items() if known}).decision(name)
    _validate(sections[section][key].hint, value, (section, key))


def section_settings(section: str, task: str = "") -> Mapping[str, Setting]:
    """{name: setting} of a section, of "task" those of this kind itself; empty where there is no such section."""
    if section in FREE:
        return task_settings.own_settings(task_catalogue.task_class(task)) if task else {}
    if (kind := TYPED.get(section)) is not None:
        return setting_fields.settings_in(kind)
    if section not in objective_catalogue.objective_names():
        return {}
    objective: type = objective_catalogue.objective_kind(section)
    return setting_fields.settings_in(objective)


# What checks values of a kind is made once: that takes longer than the check.
_checked_by = cache(TypeAdapter)


def _validate(kind: Any, value: Any, where: tuple[str, ...]) -> Any:
    try:
        return _checked_by(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        decision = ".".join(str(part) for part in (*where, *first["loc"])[:2])
        message = first["msg"].replace("a valid tuple", "a list, as in [32, 32]")
        raise PlanError(f"{first.get('input')!r}: {message}", decision, "Correct it, or plan again") from error


def is_default(plan: Plan, name: str) -> bool:
    """Whether a decision has the value that its setting has where no rule and no person chooses another."""
    section, _, key = name.partition(".")
    decision = plan.decision(name)
    if decision.because.startswith((BY_HAND, "asked for")):
        return False
    usual = _defaults(str(plan["task.name"]) if "task.name" in plan else "", section)
    return key in usual and setting_fields.plain_value(decision.value) == usual[key]


@cache
def _defaults(task: str, section: str) -> Mapping[str, PlainValue]:
    """{name: default} of a section's settings."""
    settings = section_settings(section, task).items()
    return {name: setting_fields.plain_value(one.default) for name, one in settings if one.default is not MISSING}

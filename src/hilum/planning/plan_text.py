"""A plan as text: its decisions as a table for a terminal, and each with its reason and source on a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import singledispatch
from textwrap import shorten, wrap
from typing import Any

from hilum.planning import typed_sections
from hilum.tasks import task_catalogue, task_settings
from hilum.values import BY_HAND, Decision, Plan, Setting, StatedSettings

# A text of more letters is for programs, as weights are.
LONGEST_TEXT = 1000
LEGIBLE = 12
# Values that are named one by one.
MOST_LISTED = 24
# Columns of a terminal that is not wide.
WIDTH = 118
VALUE = 30
# Decisions whose value is a size of the grid.
SIZES = ("patch", "shape", "spacing", "smallest")


def decision_lines(plan: Plan) -> str:
    """A line for each decision: its value, its reason and the source of that."""
    return "\n".join(
        f"{name} = {_value_words(name, one.value)}: {one.because}{f' ({one.source})' if one.source else ''}"
        for name, one in plan
    )


def silent_decisions(plan: Plan) -> set[str]:
    """Names of the decisions that are off by the plan or have no effect: their reasons are not worth reading."""
    settings = _settings(plan)
    off = {name for name, one in plan if is_off(one.value, settings[name])}
    partners = {name: [other for other in settings[name].only_with if other in plan] for name in plan.names}
    idle = {name for name, others in partners.items() if others and off.issuperset(others)}
    return {
        name
        for name, one in plan
        if one.because != BY_HAND and (name in idle or (name in off and not settings[name].always))
    }


def is_off(value: Any, setting: Setting) -> bool:
    """Whether a setting with this value says none, off or no."""
    if value is None or setting.zero_counts:
        return value is None
    return value is False or value in (0, [], ()) or value in ("none", "natural")


def _settings(plan: Plan) -> Mapping[str, Setting]:
    """{"section.name": setting} of every decision."""
    task = task_catalogue.task_class(plan["task.name"]) if "task.name" in plan else None
    of_task = {} if task is None else task_settings.declared_settings(task)
    known = {section: typed_sections.section_settings(section) for section in plan.sections} | {"task": of_task}
    return {
        f"{section}.{name}": known[section].get(name, Setting())
        for section, decisions in plan.sections.items()
        for name in decisions
    }


def _value_words(name: str, value: Any) -> str:
    return size_words(value) if name.rpartition(".")[2] in SIZES else words_of_value(value)


@singledispatch
def words_of_value(value: Any) -> str:
    """A value as a person would write it."""
    return str(value)


@words_of_value.register
def _(value: str) -> str:
    return value if len(value) <= LONGEST_TEXT else f"{value[:LEGIBLE]}..."


@words_of_value.register
def _(value: None) -> str:
    return "none"


@words_of_value.register
def _(value: bool) -> str:
    return "yes" if value else "no"


@words_of_value.register
def _(value: float) -> str:
    return f"{value:g}"


@words_of_value.register(Mapping)
def _(value: StatedSettings) -> str:
    named = value.get("name", value.get("method"))
    if len(value) > MOST_LISTED and all(isinstance(one, Mapping) for one in value.values()):
        return f"{len(value)} from {next(iter(value))} to {[*value][-1]}"
    if named:
        return str(named)
    return ", ".join(f"{key.replace('_', ' ')} {words_of_value(one)}" for key, one in value.items())


@words_of_value.register(Sequence)
def _(value: Sequence[Any]) -> str:
    if not value:
        return "none"
    return ", ".join(dict.fromkeys(words_of_value(one) for one in value)) if _is_named(value) else _list_values(value)


def _is_named(values: Sequence[Any]) -> bool:
    return all(isinstance(one, Mapping | str) for one in values)


def _list_values(values: Sequence[Any]) -> str:
    if len(values) > MOST_LISTED:
        return f"{len(values)} from {words_of_value(values[0])} to {words_of_value(values[-1])}"
    if len(values) > 1:
        return f"({', '.join(words_of_value(one) for one in values)})"
    return words_of_value(values[0]) if values else "none"


def size_words(value: Any) -> str:
    """Voxels or mm per axis: "40 x 56 x 40"."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return words_of_value(value)
    return " x ".join(words_of_value(one) for one in value)


def plan_overview(plan: Plan, *, whole: bool = False) -> str:
    """The plan as text: what would be trained in one line, then its sections.

    whole: with the decisions that have their defaults and whose reasons say nothing of these data
    """
    lines = [_headline(plan)]
    settings = _settings(plan)
    silent = silent_decisions(plan)
    usual = {
        name for name in plan.names if not whole and typed_sections.is_default(plan, name) and not settings[name].always
    }
    for section, decisions in plan.sections.items():
        unusual = {name: one for name, one in decisions.items() if f"{section}.{name}" not in usual}
        off = [name for name in unusual if f"{section}.{name}" in silent]
        lines += ["", section, *_rows(unusual, off)] if unusual else []
    if usual:
        lines += ["", f"{len(usual)} more decisions have their defaults: --all-decisions lists them."]
    return "\n".join(lines)


def _headline(plan: Plan) -> str:
    patch = size_words(plan["training.patch"])
    return (
        f"{plan['task.name']} with {plan['network.name']} in {plan['preprocessing.ndim']}D, patch {patch}, batch "
        f"{plan['training.batch']}, {plan['training.precision']} on {plan['training.device']}, "
        f"at most about {plan['training.memory']:.2f} GiB of memory"
    )


def _rows(decisions: Mapping[str, Decision], off: Sequence[str]) -> Iterator[str]:
    shown = {name: one for name, one in decisions.items() if name not in off}
    width = max((len(name) for name in (*shown, "off")), default=0)
    for name, decision in shown.items():
        value = shorten(_value_words(name, decision.value), VALUE, placeholder=" ...")
        yield from _wrap(f"  {name:{width}}  {value:{VALUE}}  ", decision.because)
    if off:
        yield from _wrap(f"  {'off':{width}}  ", ", ".join(off))


def _wrap(lead: str, text: str) -> list[str]:
    """The text beside its lead, further lines under its beginning."""
    first, *rest = wrap(text, max(WIDTH - len(lead), 30)) or [""]
    return [f"{lead}{first}", *(" " * len(lead) + line for line in rest)]

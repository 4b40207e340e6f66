"""Settings of a kind of problem: they are declared once, as fields of its class, and all that is asked of them follows.

A kind that is made of kinds has theirs as "<kind>.<setting>".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from hilum import errors
from hilum.errors import PlanError
from hilum.values import Decision, setting_fields
from hilum.values.setting_fields import NOT_KEPT, StatedSettings

if TYPE_CHECKING:
    from hilum.tasks.task import Task
    from hilum.values.plain_values import PlainValue
    from hilum.values.setting_fields import Setting

T = TypeVar("T")
# A class, or a value that stands for several.
Kind: TypeAlias = "type[Task] | Task"
# Between the name of a part and that of its setting.
DOT = "."


def task_from_settings(kind: type[Task], settings: StatedSettings, kinds: Sequence[type[Task]] = ()) -> Task:
    """The task with the values of a plan's section "task", or of a model's record.

    kinds: what it is made of
    Raises PlanError for a setting that there is not, and for an impossible value.
    """
    of_whole, of_parts = _split_by_part(settings, [part.name for part in kinds])
    names = list(own_settings(kind))
    if unknown := sorted(set(of_whole) - set(names)):
        remedy = f"Choose one of {', '.join(names)}"
        if of_parts:
            remedy = (
                f"Choose {', '.join(names)}, or a setting of {', '.join(of_parts)}, as in {next(iter(of_parts))}.NAME"
            )
        raise PlanError("there is no such setting", f"task.{unknown[0]}", remedy)
    parts = {part.name: _part_from(part, of_parts[part.name]) for part in kinds}
    try:
        return kind(
            **setting_fields.parse_plain_settings(kind, of_whole), **({"parts": parts} if parts else {})
        ).check_and_fill()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"impossible settings of {kind.name} ({errors.describe_cause(error)})"
        raise PlanError(problem, "task", "Plan again, or correct it") from error


def settings_of(task: Task) -> StatedSettings:
    """Plain values, which fit into JSON and YAML, from which `task_from_settings` makes an equal task."""
    settings = setting_fields.plain_settings(task)
    return settings | {f"{part}{DOT}{name}": one for part, whole in _parts(task).items() for name, one in whole.items()}


def target_settings(task: Task) -> dict[str, PlainValue]:
    """The settings on which the targets of cases depend: prepared targets are kept by them."""
    plain = setting_fields.plain_settings(task)
    chosen = {name: plain[name] for name, one in own_settings(task).items() if one.target}
    return chosen | {name: target_settings(part) for name, part in task.parts.items()}


def comparison_fields(task: Task) -> list[str]:
    """The fields without which figures of two models are not the same figures: a model has those of the first then."""
    return setting_fields.compared_fields(type(task))


def found_after_training(kind: Kind) -> tuple[str, ...]:
    """The settings that unseen cases find after training, each None until then."""
    return tuple(name for name, one in declared_settings(kind).items() if one.tuned)


def preregistered_settings(kind: Kind) -> dict[str, str]:
    """{setting: in words} of what is fixed before training with the primary metric: another value could flatter."""
    words_of = {name: one.preregistered for name, one in own_settings(kind).items() if one.preregistered}
    for part, inner in _kinds(kind).items():
        words_of |= {
            f"{part}{DOT}{name}": f"{words} of {part}" for name, words in preregistered_settings(inner).items()
        }
    return words_of


def search_values(kind: Kind) -> dict[str, tuple[Any, ...]]:
    """{setting: values} that a search may try in place of the planned one."""
    return {name: one.search for name, one in declared_settings(kind).items() if one.search}


def following_decisions(kind: Kind, settings: StatedSettings) -> dict[str, Decision]:
    """The decisions that follow from settings that a person chose, by "task.<setting>"."""
    decisions = dict[str, Decision]()
    for setting in own_settings(kind).values():
        decisions |= {} if setting.follows is None else setting.follows(settings)
    for part, inner in _kinds(kind).items():
        of_part_settings = _split_by_part(settings, [part])[1][part]
        decisions |= {
            part_decision_name(part, name): decision
            for name, decision in following_decisions(inner, of_part_settings).items()
        }
    return decisions


def unkept_rules(kind: Kind, decisions: Mapping[str, Decision]) -> list[str]:
    """Sentences on what a person chose in a plan's section "task", and cases were too few to keep."""
    sentences = [sentence for one in own_settings(kind).values() if one.unkept for sentence in one.unkept(decisions)]
    for part, inner in _kinds(kind).items():
        of_part_decisions = _split_by_part(decisions, [part])[1][part]
        sentences += [
            sentence.replace(NOT_KEPT, f" of {part}{NOT_KEPT}", 1)
            for sentence in unkept_rules(inner, of_part_decisions)
        ]
    return sentences


def part_decision_name(part: str, decision: str) -> str:
    """The name of a part's decision in the plan of the whole: task.loss as task.<part>.loss"""
    return f"task.{part}{DOT}{decision.removeprefix('task.')}"


def declared_settings(kind: Kind) -> dict[str, Setting]:
    """{name: setting} of a kind of problem, and of the kinds that it is made of."""
    parts = {part: declared_settings(inner) for part, inner in _kinds(kind).items()}
    return {
        **own_settings(kind),
        **{f"{part}{DOT}{name}": one for part, each in parts.items() for name, one in each.items()},
    }


def own_settings(kind: Kind) -> Mapping[str, Setting]:
    """{name: setting} of a kind of problem itself."""
    return setting_fields.settings_in(kind if isinstance(kind, type) else type(kind))


def _kinds(kind: Kind) -> Mapping[str, Kind]:
    """{name: kind} of a kind of problem that is made of kinds; empty of any other."""
    parts: Mapping[str, Kind] = getattr(kind, "parts", {})
    return {} if isinstance(kind, type) else parts


def _parts(task: Task) -> dict[str, StatedSettings]:
    return {name: settings_of(part) for name, part in task.parts.items()}


def _part_from(kind: type[Task], settings: StatedSettings) -> Task:
    """The part; PlanError names its setting as the plan does."""
    try:
        return task_from_settings(kind, settings)
    except PlanError as error:
        if not error.where.startswith("task"):
            raise
        raise error.stating(where=f"task.{kind.name}{error.where.removeprefix('task')}") from error


def _split_by_part(values: Mapping[str, T], parts: Sequence[str]) -> tuple[dict[str, T], dict[str, dict[str, T]]]:
    """Part values: those of the whole, and {part: its own} under the names that the part has for them."""
    of_whole = dict[str, T]()
    of_parts = {part: dict[str, T]() for part in parts}
    for name, value in values.items():
        part, _, inner = name.partition(DOT)
        if inner and part in of_parts:
            of_parts[part][inner] = value
        else:
            of_whole[name] = value
    return of_whole, of_parts

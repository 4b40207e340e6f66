"""Settings that are declared once: fields of a dataclass with their type, default and rules.

A kind of problem is such a dataclass; its settings are a plan's section "task", and part of a model's record. A group
of settings that several kinds share is a dataclass too, held as one field: its settings lie flat beside the others.

A copy of this file travels with a packaged model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from isocenter.errors import PlanError
from isocenter.values.plan_decisions import Decision

# Keys of a field's metadata: its setting, its group of settings, and whether figures of two models need it alike.
SETTING, GROUP, COMPARED = "setting", "group", "compared"
# What a sentence states of a rule that cases were too few to keep.
NOT_KEPT = " could not be kept"


@dataclass(frozen=True)
class Setting:
    """The declaration of a setting, beside its type and default.

    name:       in a plan, where it is not the field's
    read:       plain value to the field's; by default the type of the field says how
    plain:      the field's value, if it is not None, to a plain one; by default tuples become lists, mappings dicts
    choices:    the values that there are; of a Literal they are in the type
    noun:       its name in the refusal of a value that is none of the choices
    tuned:      unseen cases find it after training; it is None until then
    registered: in words, where it is fixed before training with the primary metric: another value later could flatter
    target:     the target of a case depends on it
    search:     the values that a search may try in place of the planned one
    follows:    values of a plan's section to the decisions that follow where a person chose some of them
    unkept:     decisions of a plan's section to sentences on what a person chose and cases could not keep, with
                `NOT_KEPT`
    zero_counts: 0 is a value like any other in a plan's table, not off
    always:     its reason is worth reading also where the value is none, zero or no
    only_with:  the decisions, "section.name", of which one has to be on for this one to have an effect
    type:       of its field
    default:    where it is not given
    """

    name: str = ""
    read: Callable[[Any], Any] | None = None
    plain: Callable[[Any], Any] | None = None
    choices: Sequence[str] = ()
    noun: str = ""
    tuned: bool = False
    registered: str = ""
    target: bool = False
    search: tuple[Any, ...] = ()
    follows: Callable[[Mapping[str, Any]], dict[str, Decision]] | None = None
    unkept: Callable[[Mapping[str, Decision]], Sequence[str]] | None = None
    zero_counts: bool = False
    always: bool = False
    only_with: tuple[str, ...] = ()
    type: Any = None
    default: Any = field(default_factory=lambda: MISSING)

    def value_of(self, value: Any) -> Any:
        """The field's value of a plain one; PlanError for what is none of the choices."""
        choices = self.choices or (get_args(self.type) if get_origin(self.type) is Literal else ())
        if choices and value not in choices:
            problem = f"there is no {self.noun or self.name} {value!r}"
            raise PlanError(problem, f"task.{self.name}", f"Choose one of {', '.join(choices)}")
        if self.type is bool and self.read is None and not isinstance(value, bool):
            raise PlanError(f"{value!r} is neither true nor false", f"task.{self.name}", "Give true or false")
        return _parse(self.type, value) if self.read is None else self.read(value)

    def plain_of(self, value: Any) -> Any:
        """The plain value, for JSON and YAML, of which `value_of` makes an equal one."""
        return plain_value(value) if value is None or self.plain is None else self.plain(value)


@dataclass(frozen=True)
class SettingsGroup:
    """The settings of another dataclass that a field holds.

    kind:     the dataclass
    settings: {name: setting}, those that its holder has; the others keep their defaults
    """

    kind: type
    settings: Mapping[str, Setting]


def setting(default: Any = MISSING, *, compared: bool = False, **declared: Any) -> Any:
    """A field that is a setting; without a default it has to be given.

    compared: figures of two models are the same figures only where it is alike
    declared: of `Setting`
    """
    declared_setting = Setting(**declared)
    return field(default=default, metadata={SETTING: declared_setting, COMPARED: compared})


def settings_group(kind: type, *names: str, **changed: Mapping[str, Any]) -> Any:
    """A field that holds settings of another dataclass, by default all of them.

    changed: {setting: what of its `Setting` its holder declares otherwise}
    """
    settings = settings_in(kind)
    chosen = {name: replace(settings[name], **changed.get(name, {})) for name in names or settings}
    return field(default_factory=kind, metadata={GROUP: SettingsGroup(kind, chosen)})


def redeclare(kind: type, name: str, **changed: Any) -> Any:
    """The setting of a base class with this field, of which a derived class declares something otherwise."""
    [declared_field] = [one for one in fields(kind) if one.name == name]
    metadata = {**declared_field.metadata, SETTING: replace(declared_field.metadata[SETTING], **changed)}
    return field(default=declared_field.default, metadata=metadata)


@cache
def settings_in(kind: type) -> Mapping[str, Setting]:
    """{name in a plan: setting} of a dataclass and of its groups."""
    settings = dict[str, Setting]()
    for _, held in _settings_of(kind):
        settings |= held.settings if isinstance(held, SettingsGroup) else {held.name: held}
    return settings


def parse_plain_settings(kind: type, stated_values: Mapping[str, Any]) -> dict[str, Any]:
    """{field: value} of the plain settings that are given; KeyError for one that is not, and has no default."""
    values = dict[str, Any]()
    for name, held in _settings_of(kind):
        if isinstance(held, SettingsGroup):
            values[name] = _group_of(held, stated_values)
        elif held.name in stated_values:
            values[name] = held.value_of(stated_values[held.name])
        elif held.default is MISSING:
            raise KeyError(held.name)
    return values


def plain_settings(value: Any) -> dict[str, Any]:
    """{name in a plan: plain value} of a dataclass and of its groups."""
    plain = dict[str, Any]()
    for name, held in _settings_of(value.__class__):
        content = getattr(value, name)
        if isinstance(held, SettingsGroup):
            of_group = plain_settings(content)
            plain |= {key: of_group[key] for key in held.settings}
        else:
            plain[held.name] = held.plain_of(content)
    return plain


def compared_fields(kind: type) -> list[str]:
    """The fields without which figures of two models are not the same figures."""
    return [one.name for one in fields(kind) if one.metadata.get(COMPARED)]


def plain_value(value: Any) -> Any:
    """A value of tuples, mappings and dataclasses as lists and dicts."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: plain_value(one) for key, one in value.items()}
    return [plain_value(one) for one in value] if isinstance(value, tuple | list) else value


@cache
def _settings_of(kind: type) -> tuple[tuple[str, Setting | SettingsGroup], ...]:
    """(field, what it holds) of the fields that are declared as settings."""
    return tuple(_iterate_settings(kind))


def _iterate_settings(kind: type) -> Iterator[tuple[str, Setting | SettingsGroup]]:
    types = _types_of(kind)
    for declared in fields(kind):
        if GROUP in declared.metadata:
            yield declared.name, declared.metadata[GROUP]
        elif SETTING in declared.metadata:
            stated_setting: Setting = declared.metadata[SETTING]
            yield (
                declared.name,
                replace(
                    stated_setting,
                    name=stated_setting.name or declared.name,
                    type=types[declared.name],
                    default=declared.default,
                ),
            )


def _types_of(kind: object) -> dict[str, Any]:
    """{field: its type} of the classes with settings: others may name what is imported for checkers of types alone."""
    of_class: Any = kind if isinstance(kind, type) else type(kind)
    declared = {one.name for one in fields(of_class) if SETTING in one.metadata}
    bases = [base for base in reversed(of_class.__mro__) if declared & inspect.get_annotations(base).keys()]
    return {name: one for base in bases for name, one in inspect.get_annotations(base, eval_str=True).items()}


def _group_of(held: SettingsGroup, stated_values: Mapping[str, Any]) -> Any:
    """The group of the settings that its holder has; PlanError for one that cannot be."""
    names = {one.name: name for name, one in _settings_of(held.kind) if isinstance(one, Setting)}
    settings = held.settings.items()
    return held.kind(
        **{
            names[name]: one.value_of(stated_values[name]) if name in stated_values else one.default
            for name, one in settings
        }
    )


def _parse(kind: Any, value: Any) -> Any:
    """A plain value as one of this type; TypeError or ValueError for what is none."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in inner:
            return None
        others = [one for one in inner if one is not NoneType]
        fitting = [one for one in others if isinstance(value, Mapping) == _is_mapping(one)]
        return _parse((fitting or others)[0], value)
    if origin is tuple:
        return tuple(_parse(inner[0], one) for one in value or ())
    if _is_mapping(kind):
        return {str(name): _parse(inner[1], one) for name, one in value.items()}
    return kind(value) if kind in (str, int, float) else value


def _is_mapping(kind: Any) -> bool:
    return get_origin(kind) is Mapping

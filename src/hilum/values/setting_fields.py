"""Settings that are declared once: fields of a frozen dataclass, with their type, limits, default and a `Setting`.

    tests: Annotated[int, Ge(0), Setting("Number of cases for tests.", "N")] = 20

What a decision of a plan, a setting of a kind of problem and a flag of a verb are follows from such a field: values are
read, checked, kept, asked for and explained by it. A field of which nothing more is to be said is its type and default
alone. A group of settings that several kinds share is a dataclass too, held as one field (`SettingsGroup`): its
settings lie flat beside the others.

A copy of this file travels with a packaged model.
"""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from hilum.errors import PlanError, UsageError
from hilum.values.plan_decisions import Decision

if TYPE_CHECKING:
    from hilum.values.plain_values import PlainValue

# Settings by name, with values as a plan or a record states them.
StatedSettings = Mapping[str, Any]
# What a sentence states of a rule that cases were too few to keep.
NOT_KEPT = " could not be kept"


@dataclass(frozen=True)
class Setting:
    """What is said of a field beside its type, limits and default.

    text:       one sentence of help; an option without one has no flag on the command line
    metavar:    of its value on the command line; a switch has none
    name:       in a plan or on the command line, where it is not the field's
    path:       of a path that the command line chooses by itself, as "<verb>-<name>"
    repeats:    the flag can be given several times, an argument several times in a row
    values:     the number of words that follow the flag
    read:       plain value, or what was typed, to the field's; by default the type of the field says how
    plain:      the field's value, if it is not None, to a plain one; by default tuples become lists, mappings dicts
    choices:    the values that there are; of a Literal they are in the type
    noun:       its name in the refusal of a value that is none of the choices
    tuned:      unseen cases find it after training; it is None until then
    preregistered: in words, where it is fixed before training with the primary metric: a later value could flatter
    target:     the target of a case depends on it
    compared:   figures of two models are the same figures only where it is alike
    search:     the values that a search may try in place of the planned one
    follows:    values of a plan's section to the decisions that follow where a person chose some of them
    unkept:     decisions of a plan's section to sentences on what a person chose and cases could not keep, with
                `NOT_KEPT`
    unit:       of a number, beside its control
    zero_counts: 0 is a value like any other in a plan's table, not off
    always:     its reason is worth reading also where the value is none, zero or no
    only_with:  the decisions, "section.name", of which one has to be on for this one to have an effect
    is_kept:    whether it is a setting; other fields of a kind of problem follow from settings
    owner, attribute, hint, default, is_place: class and name of its field, type with all that is noted beside it,
                default, and whether it is given by its place in a call, once they are known
    """

    text: str = ""
    metavar: str = ""
    name: str = ""
    path: str = ""
    repeats: bool = False
    values: int = 1
    read: Callable[[Any], Any] | None = None
    plain: Callable[[Any], Any] | None = None
    choices: Sequence[str] = ()
    noun: str = ""
    tuned: bool = False
    preregistered: str = ""
    target: bool = False
    compared: bool = False
    search: tuple[Any, ...] = ()
    follows: Callable[[StatedSettings], dict[str, Decision]] | None = None
    unkept: Callable[[Mapping[str, Decision]], Sequence[str]] | None = None
    unit: str = ""
    zero_counts: bool = False
    always: bool = False
    only_with: tuple[str, ...] = ()
    is_kept: bool = True
    owner: Any = None
    attribute: str = ""
    hint: Any = None
    default: Any = field(default_factory=lambda: MISSING)
    is_place: bool = False

    @property
    def type(self) -> Any:
        """The type of its field alone."""
        return get_args(self.hint)[0] if get_origin(self.hint) is Annotated else self.hint

    @property
    def is_path(self) -> bool:
        """Whether its values may be paths of files or folders."""
        return Path in parts_of(self.type)

    @property
    def limits(self) -> dict[str, float]:
        """The least and most of a number, where its type has them; those of `open_sides` are no values themselves."""
        return {
            key: getattr(one, attribute)
            for one in parts_of(self.hint)
            for key, attribute in (("least", "ge"), ("least", "gt"), ("most", "le"), ("most", "lt"))
            if isinstance(getattr(one, attribute, None), int | float)
        }

    @property
    def open_sides(self) -> frozenset[str]:
        """Sides, "least" or "most", whose limit itself is no value: a number lies above or below it."""
        sides = (("least", "gt"), ("most", "lt"))
        return frozenset(side for one in parts_of(self.hint) for side, attribute in sides if hasattr(one, attribute))

    @property
    def help(self) -> str:
        """The sentence, with the path that is chosen where none is given."""
        return f"{self.text.removesuffix('.')}; by default ./{self.path}." if self.path else self.text

    @property
    def is_required(self) -> bool:
        """Whether a call without it is refused."""
        return self.default is MISSING

    @property
    def command_line_name(self) -> str:
        """Its name on the command line: DATA, or --leave-out."""
        if self.name != self.attribute:
            return self.name
        return self.metavar if self.is_place else f"--{self.attribute.replace('_', '-')}"

    def refuse_beyond_limits(self, value: Any) -> None:
        """UsageError for a number below the lowest or above the highest."""
        for side, limit in self.limits.items() if isinstance(value, int | float) else ():
            is_beyond = value < limit if side == "least" else value > limit
            if side in self.open_sides and (is_beyond or value == limit):
                words = f"{'more' if side == 'least' else 'less'} than {limit}"
                raise UsageError(f"{value} is not {words}", self.command_line_name, f"Give {words}")
            if is_beyond:
                problem = f"{value} is {'below' if side == 'least' else 'above'} {limit}"
                raise UsageError(problem, self.command_line_name, f"Give at {side} {limit}")

    def refuse_empty_path(self, value: Any) -> None:
        """UsageError for an empty text where a path is taken, as of a variable that is not set: it would mean `.`."""
        if not self.is_path:
            return
        texts = value if isinstance(value, list | tuple) else [value]
        if "" in [text for text in texts if isinstance(text, str)]:
            raise UsageError("is empty", self.command_line_name, "Give a path; . is the folder that you are in")

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
    """The settings of another dataclass that a field holds, by default all of them.

    names:   in a plan, of those that its holder has; the others keep their defaults
    changed: {name: what of its `Setting` its holder declares otherwise}
    kind, settings: the other dataclass, and its settings by name, once they are known
    """

    names: Sequence[str] = ()
    changed: Mapping[str, StatedSettings] = field(default_factory=dict)
    kind: Any = None
    settings: Mapping[str, Setting] = field(default_factory=dict)


@cache
def settings_in(kind: type) -> Mapping[str, Setting]:
    """{name in a plan: setting} of a dataclass and of its groups."""
    settings = dict[str, Setting]()
    for _, held in _settings_of(kind):
        settings |= {held.name: held} if isinstance(held, Setting) else held.settings
    return settings


def parse_plain_settings(kind: type, stated_values: StatedSettings) -> dict[str, Any]:
    """{field: value} of the plain settings that are given; KeyError for one that is not, and has no default."""
    values = {}
    for name, held in _settings_of(kind):
        if isinstance(held, SettingsGroup):
            values[name] = _group_of(held, stated_values)
        elif held.name in stated_values:
            values[name] = held.value_of(stated_values[held.name])
        elif held.default is MISSING:
            raise KeyError(held.name)
    return values


def plain_settings(value: Any) -> dict[str, PlainValue]:
    """{name in a plan: plain value} of a dataclass and of its groups."""
    plain: dict[str, PlainValue] = {}
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
    return [name for name, held in _declared(kind) if isinstance(held, Setting) and held.compared]


def plain_value(value: Any) -> Any:
    """A value of tuples, mappings and dataclasses as lists and dicts."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: plain_value(one) for key, one in value.items()}
    return [plain_value(one) for one in value] if isinstance(value, tuple | list) else value


def parts_of(hint: Any) -> Iterator[Any]:
    """A type and what it is made of, with what is noted beside each; of words among which it chooses none."""
    yield hint
    inner = () if get_origin(hint) is Literal else get_args(hint)
    for one in (*inner, *getattr(hint, "__metadata__", ())):
        yield from parts_of(one)


def _settings_of(kind: type) -> list[tuple[str, Setting | SettingsGroup]]:
    """(field, what it holds) of the fields that are settings."""
    return [(name, held) for name, held in _declared(kind) if isinstance(held, SettingsGroup) or held.is_kept]


@cache
def _declared(kind: type) -> tuple[tuple[str, Setting | SettingsGroup], ...]:
    hints = {name: hint for base in reversed(kind.__mro__) for name, hint in _hints(base).items()}
    return tuple((one.name, _resolve(kind, one, hints[one.name])) for one in fields(kind) if one.init)


def _resolve(owner: type, declared: Any, hint: Any) -> Setting | SettingsGroup:
    kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    note = next((one for one in notes if isinstance(one, Setting | SettingsGroup)), Setting())
    if isinstance(note, SettingsGroup):
        settings = settings_in(kind)
        chosen = {name: replace(settings[name], **note.changed.get(name, {})) for name in note.names or settings}
        return replace(note, kind=kind, settings=chosen)
    name = note.name or declared.name
    known = {"attribute": declared.name, "default": declared.default, "is_place": not declared.kw_only}
    return replace(note, name=name, owner=owner, hint=hint, **known)


def _hints(base: type) -> dict[str, Any]:
    """The types of the fields that a class itself declares."""
    names = _Names(vars(inspect.getmodule(base) or builtins))
    return inspect.get_annotations(base, globals={}, locals=names, eval_str=True)


class UnloadedClass:
    """Base of the stand-ins for classes that only type checkers import, because they need torch: each has its name."""


class _Names(dict[str, Any]):
    """The names in a module; one that only type checkers import gets a stand-in."""

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)
        return type(name, (UnloadedClass,), {})


def _group_of(held: SettingsGroup, stated_values: StatedSettings) -> Any:
    """The group of the settings that its holder has; PlanError for one that cannot be."""
    return held.kind(
        **{
            one.attribute: one.value_of(stated_values[name]) if name in stated_values else one.default
            for name, one in held.settings.items()
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

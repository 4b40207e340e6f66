"""JSON Schema 2020-12 of a command's options: what a form shows, and what an agent is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.json_schema import JsonSchemaValue

from hilum.options.command_index import Command
from hilum.values import Setting

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# An answer at a door never replaces what a person has.
LEFT_OUT = frozenset({"overwrite"})
LIMITS = {"least": "minimum", "most": "maximum"}
OPEN_LIMITS = {"least": "exclusiveMinimum", "most": "exclusiveMaximum"}
NAMES: Mapping[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string"}


def command_schema(command: Command) -> JsonSchemaValue:
    """The schema of a call: an object with a property for each option but `overwrite`."""
    known = {name: one for name, one in command.keywords.items() if name not in LEFT_OUT}
    required = [name for name, one in known.items() if one.is_required and not one.path]
    return {
        "$schema": DIALECT,
        "type": "object",
        "properties": {name: option_schema(command, one) for name, one in known.items()},
        "required": required,
        "additionalProperties": False,
    }


def option_schema(command: Command, keyword: Setting) -> JsonSchemaValue:
    """The schema of one option: its types, limits, default and the sentence of its help."""
    kinds = list(_kinds(keyword.type))
    if keyword.read is not None or keyword.repeats:  # as words of the command line too
        kinds.append({"type": "string"})
        kinds += [{"type": "array", "items": {"type": "string"}}] if keyword.repeats else []
    open_sides = keyword.open_sides
    words = {side: (OPEN_LIMITS if side in open_sides else LIMITS)[side] for side in keyword.limits}
    limits = {words[side]: limit for side, limit in keyword.limits.items()}
    kinds = [one | limits if one.get("type") in ("integer", "number") else one for one in kinds]
    distinct = [one for place, one in enumerate(kinds) if one not in kinds[:place]]
    shape = distinct[0] if len(distinct) == 1 else {"anyOf": distinct}
    default = keyword.default
    if not keyword.is_required:
        plain = list(default) if isinstance(default, tuple) else str(default) if isinstance(default, Path) else default
        shape = shape | {"default": plain}
    return shape | {"description": command.fill(keyword.help)}


def _kinds(kind: Any) -> Iterator[JsonSchemaValue]:
    """A schema for each form of a type that JSON can hold; objects of Python have none."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        yield {"enum": list(inner)}
    elif origin in (UnionType, Union):
        for one in inner:
            yield from _kinds(one)
    elif kind is NoneType:
        yield {"type": "null"}
    elif kind in NAMES:
        yield {"type": NAMES[kind]}
    elif origin is not None and issubclass(origin, Mapping):
        yield {"type": "object"}
    elif origin is tuple:
        yield {"type": "array"}
    elif origin is not None and issubclass(origin, Sequence):
        items = list(_kinds(inner[0]))
        distinct = [one for place, one in enumerate(items) if one not in items[:place]]
        if distinct:
            yield {"type": "array", "items": distinct[0] if len(distinct) == 1 else {"anyOf": distinct}}

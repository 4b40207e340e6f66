"""Docstrings of the house, as Markdown: aligned names become a list, `Raises` and sources paragraphs of their own.

A verb that is called with the fields of its options is shown with them as parameters.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import griffe

NAME = re.compile(r"^(?P<names>[a-z_]\w*(?:, [a-z_]\w*)*|\{[\w ,]+\}):\s+(?P<text>\S.*)$")
PARAGRAPH = re.compile(r"^(Raises|Where|With|None where|[A-Z][a-z]+ et al\.)\b")


class Docstrings(griffe.Extension):
    """Rewrites every docstring once, when its object has been read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)

    def on_function(self, *, func: griffe.Function, **kwargs: Any) -> None:
        if any(str(one.value).startswith("takes(") for one in func.decorators):
            verb = getattr(importlib.import_module(func.module.path), func.name)
            func.parameters = griffe.Parameters(*map(_parameter, inspect.signature(verb).parameters.values()))


def _parameter(one: inspect.Parameter) -> griffe.Parameter:
    kind = griffe.ParameterKind(one.kind.description)
    default = None if one.default is one.empty else repr(one.default)
    return griffe.Parameter(one.name, kind=kind, default=default)


def as_markdown(text: str) -> str:
    """The docstring with its aligned names as a list."""
    lines: list[str] = []
    in_list = False
    for line in text.splitlines():
        if named := NAME.match(line):
            lines += [] if in_list else [""]
            lines.append(f"- `{named['names']}`: {named['text']}")
            in_list = True
        elif in_list and line.startswith("  "):
            lines.append(f"    {line.strip()}")
        else:
            lines += [""] if in_list or PARAGRAPH.match(line) else []
            lines.append(line)
            in_list = False
    return "\n".join(lines)

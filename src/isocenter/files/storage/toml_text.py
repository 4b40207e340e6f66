"""TOML: the line of a key that a person wrote, which the parser does not keep, and values as text."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

BARE = re.compile(r"[A-Za-z0-9_-]+")


def line_of_key(text: str, place: Sequence[str]) -> int:
    """The line whose key, or whose table, is the longest part of a place in the file, such as ("arms", "1", "name")."""
    best, longest, table, tables = 1, 0, tuple[str, ...](), Counter[tuple[str, ...]]()
    for number, line in enumerate(text.splitlines(), start=1):
        paths = list[tuple[str, ...]]()
        if header := re.match(r"\s*(\[\[?)\s*(.+?)\s*\]", line):
            table = tuple(part.strip(" \"'") for part in header[2].split("."))
            paths.append(table)
            if header[1] == "[[":
                tables[table] += 1
                table = (*table, str(tables[table] - 1))
                paths.append(table)
        elif key := re.match(r"\s*[\"']?([\w-]+)[\"']?\s*[=.]", line):
            paths.append((*table, key[1]))
        for path in paths:
            if len(path) > longest and path == tuple(place[: len(path)]):
                best, longest = number, len(path)
    return best


def toml_text(stated: Mapping[str, Any]) -> str:
    """A mapping as TOML: plain values first, then its tables; what is None or empty is left out."""
    plain = {key: value for key, value in stated.items() if not isinstance(value, Mapping)}
    lines = [_line(key, value) for key, value in plain.items() if value not in (None, "", (), [])]
    for name, table in stated.items():
        if isinstance(table, Mapping) and table:
            lines += ["", f"[{_key(name)}]", *(_line(key, value) for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _line(key: str, value: Any) -> str:
    return f"{_key(key)} = {_value(value)}"


def _key(name: str) -> str:
    return name if BARE.fullmatch(name) else _text(name)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case Mapping():
            return "{" + ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items()) + "}"
        case list() | tuple():
            inner = [_value(one) for one in value]
            is_long = any(isinstance(one, Mapping) for one in value)
            return "[\n    " + ",\n    ".join(inner) + ",\n]" if is_long else f"[{', '.join(inner)}]"
        case _:
            return _text(str(value))


def _text(text: str) -> str:
    """A basic string; of JSON's escapes TOML knows all but DEL as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

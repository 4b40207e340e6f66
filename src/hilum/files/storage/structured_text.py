"""JSON and TOML from people and strangers: no larger and no deeper than any known record, with the line of a key."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hilum.values.plain_values import PlainValue


# Levels of lists and names within one another, for JSON and YAML alike; records of ours have up to eight.
DEEPEST = 20
# The descriptions of the largest public data sets have some MiB.
LARGEST_JSON = 64 << 20
# A table of a TOML file, whose keys are those that its reader knows.
TomlTable = dict[str, Any]


BYTE_ORDER_MARK = "\ufeff"


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text, of which a byte-order mark is no part, or of its bytes in UTF-8, UTF-16 or UTF-32.

    Raises ValueError where it is none, or is nested deeper than 20 levels.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text))
    try:
        value = json.loads(text.removeprefix(BYTE_ORDER_MARK))
    except RecursionError as error:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from error
    level = [value] if isinstance(value, list | dict) else []
    for _ in range(DEEPEST):
        level = [part for one in level for part in _parts(one)]
    if level:
        raise ValueError(f"nested deeper than {DEEPEST} levels")
    return value


def load_json(path: Path, *, largest: int = LARGEST_JSON) -> Any:
    """The value of a JSON file of at most so many bytes. ValueError as by `parse_json`, and for a larger file."""
    if path.stat().st_size > largest:
        raise ValueError("larger than any record")
    return parse_json(path.read_bytes())


def _parts(container: list[Any] | dict[Any, Any]) -> list[Any]:
    """The lists and objects in a list or object."""
    parts = container if isinstance(container, list) else container.values()
    return [part for part in parts if isinstance(part, list | dict)]


BARE = re.compile(r"[A-Za-z0-9_-]+")


def line_of_key(text: str, keys: Sequence[str]) -> int:
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
            if len(path) > longest and path == tuple(keys[: len(path)]):
                best, longest = number, len(path)
    return best


def toml_text(settings: Mapping[str, PlainValue]) -> str:
    """A mapping as TOML: plain values first, then its tables; what is None or empty is left out."""
    plain = {key: value for key, value in settings.items() if not isinstance(value, Mapping)}
    lines = [_line(key, value) for key, value in plain.items() if value not in (None, "", (), [])]
    for name, table in settings.items():
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

"""JSON from strangers: no larger and no deeper than any record that is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# Levels of lists and names within one another, for JSON and YAML alike; records of ours have up to eight.
DEEPEST = 20
# The descriptions of the largest public data sets have some MiB.
LARGEST_JSON = 64 << 20


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError where it is none, or is nested deeper than 20 levels."""
    try:
        value = json.loads(text)
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
    return parse_json(path.read_text(encoding="utf-8"))


def _parts(container: list[Any] | dict[str, Any]) -> list[Any]:
    """The lists and objects in a list or object."""
    parts = container if isinstance(container, list) else container.values()
    return [part for part in parts if isinstance(part, list | dict)]

"""TOML that a person wrote: the line of a key, which the parser does not keep."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence


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

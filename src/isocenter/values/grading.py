"""Grades of a scale, recognised in the names of classes."""

from __future__ import annotations

import re
from collections.abc import Sequence

NUMBERED = re.compile(r"(\D*)(\d+)")


def grades(names: Sequence[str]) -> tuple[int, ...] | None:
    """The numbers at the end of names that differ in nothing else: "0", "1", or "grade 2", "grade 3".

    None for other names. Bare numbers do not prove an order: they may only number the classes.
    """
    fits = [NUMBERED.fullmatch(name.strip()) for name in names]
    if not all(fits):
        return None
    words = {match[1].strip(" _-").lower() for match in fits if match}
    numbers = tuple(int(match[2]) for match in fits if match)
    return numbers if len(words) == 1 and len(set(numbers)) == len(numbers) else None

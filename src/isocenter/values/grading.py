"""Whether names of classes are the grades of a scale."""

from __future__ import annotations

import re
from collections.abc import Sequence

NUMBERED = re.compile(r"(\D*)(\d+)")


def grades(names: Sequence[str]) -> tuple[int, ...] | None:
    """The numbers that the names end in, where they differ in nothing else: "0", "1", or "grade 2", "grade 3".

    None for other names. Numbers alone are no proof of an order: they may be nothing but the numbers of classes.
    """
    found = [NUMBERED.fullmatch(name.strip()) for name in names]
    if not all(found):
        return None
    words = {match[1].strip(" _-").lower() for match in found if match}
    numbers = tuple(int(match[2]) for match in found if match)
    return numbers if len(words) == 1 and len(set(numbers)) == len(numbers) else None

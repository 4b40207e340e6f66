"""What the members of one model agree on, where each has settings of its own that its validation cases chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isocenter.errors import UsageError


def agreed(settings: Sequence[Mapping[str, Any]], where: str) -> dict[str, Any]:
    """One task's settings for those of several members.

    A number (a threshold) is the mean of theirs. A step (of post-processing) is taken, and a label is spoken of, where
    more than half of them say so. So it is with all else, and UsageError is raised where no half agrees.
    """
    first = settings[0]
    return {key: _agreed([one.get(key) for one in settings], f"{where}, {key}") for key in first}


def _agreed(values: Sequence[Any], where: str) -> Any:
    if all(one == values[0] for one in values):
        return values[0]
    if all(isinstance(one, bool) for one in values):
        return 2 * sum(values) > len(values)
    if all(isinstance(one, int | float) for one in values):
        return sum(values) / len(values)
    if all(one is None or isinstance(one, Mapping) for one in values):
        named = [one or {} for one in values]
        keys = dict.fromkeys(key for one in named for key in one)
        saying = {key: [one[key] for one in named if key in one] for key in keys}
        return {key: _agreed(said, where) for key, said in saying.items() if 2 * len(said) > len(values)}
    most = max(values, key=values.count)
    if 2 * values.count(most) > len(values):
        return most
    raise UsageError(f"its members differ: {', '.join(map(str, values))}", where, "Choose one with --fold")

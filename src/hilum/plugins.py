"""Entries that other installed packages add to an index of ours, by an entry point."""

from __future__ import annotations

import importlib
import sys
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, distributions
from typing import Any


def targets_of(own: Mapping[str, str], group: str) -> dict[str, str]:
    """{name: "module:value"} of an index of ours and of what others add under an entry point."""
    return {**own, **{name: point.value for name, point in entry_points_of(group).items()}}


def load_target(target: str) -> Any:
    """The value that "module:value" names; its module is imported now."""
    module, _, value = target.partition(":")
    return getattr(importlib.import_module(module), value)


def entry_points_of(group: str) -> Mapping[str, EntryPoint]:
    """The entry points of a group by name."""
    return _find_entry_points(tuple(sys.path)).get(group, {})


@cache  # it opens a file of each installed package, some 10 ms, and an index is asked at every look at a name
def _find_entry_points(searched: tuple[str, ...]) -> Mapping[str, Mapping[str, EntryPoint]]:
    """{group: {name: entry point}} of the packages that are installed and add to an index of ours."""
    del searched  # where Python looks for packages: with another of them the answer is another
    found = defaultdict[str, dict[str, EntryPoint]](dict)
    seen = set[str]()
    for distribution in distributions():
        if "[hilum." not in (distribution.read_text("entry_points.txt") or ""):
            continue  # to parse them all takes three times as long
        if distribution.name not in seen:  # a package that lies twice on the path is the first
            seen.add(distribution.name)
            for point in distribution.entry_points:
                found[point.group][point.name] = point
    return found

"""Entries that other installed packages add to an index of ours, by an entry point."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points


def entry_points_of(group: str) -> Mapping[str, EntryPoint]:
    """The entry points of a group by name."""
    return _find_entry_points(group, tuple(sys.path))


@cache  # it opens a file of each installed package, some 10 ms, and an index is asked at every look at a name
def _find_entry_points(group: str, searched: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    del searched  # where Python looks for packages: with another of them the answer is another
    return {point.name: point for point in entry_points(group=group)}

"""Entries that other installed packages add to an index of ours, by an entry point."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
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


@cache  # it opens a file of each installed package, 10 to 60 ms, and an index is asked at every look at a name
def _find_entry_points(searched: tuple[str, ...]) -> Mapping[str, Mapping[str, EntryPoint]]:
    """{group of ours: {name: entry point}} of all packages that are installed."""
    del searched  # where Python looks for packages: with another of them the answer is another
    points = entry_points()
    groups = [group for group in points.groups if group.startswith("hilum.")]
    return {group: {point.name: point for point in points.select(group=group)} for group in groups}

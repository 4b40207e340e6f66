"""Values by what they have in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def by_key(pairs: Iterable[tuple[K, V]]) -> defaultdict[K, list[V]]:
    """{key: all values that come with it}, in order."""
    grouped = defaultdict[K, list[V]](list)
    for key, value in pairs:
        grouped[key].append(value)
    return grouped


def distinct_by_key(pairs: Iterable[tuple[K, V]]) -> defaultdict[K, set[V]]:
    """The same of values that count once."""
    grouped = defaultdict[K, set[V]](set)
    for key, value in pairs:
        grouped[key].add(value)
    return grouped

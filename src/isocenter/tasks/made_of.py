"""What a kind of problem may say beside the protocol, and what holds where it says nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isocenter.tasks.task import Task


def suffices(kind: type[Task] | Task, references: Collection[str]) -> bool:
    """Whether references of these kinds teach it something: all that it needs, unless it says otherwise."""
    own = getattr(kind, "suffices", None)
    return kind.needs <= set(references) if own is None else bool(own(references))


def parts_of(task: Task) -> Mapping[str, Task]:
    """The tasks that a task is made of; none for most."""
    found: Mapping[str, Task] = getattr(task, "parts", {})
    return found


def sides_of(task: Task) -> Mapping[str, tuple[int, ...] | None]:
    """{head: what its channels become when left and right change sides}"""
    own: Mapping[str, tuple[int, ...] | None] | None = getattr(task, "sides", None)
    return dict.fromkeys(task.heads, task.mirrored) if own is None else own


def tried_of(task: Task) -> Mapping[str, tuple[Any, ...]]:
    """{setting: values} that a search may try beside the planned one; none where the kind says nothing."""
    found: Mapping[str, tuple[Any, ...]] = getattr(task, "tried", {})
    return found

"""Parts of a task that is made of tasks; any other task is its own only part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isocenter.tasks.task import Task


def leaves(task: Task) -> Mapping[str, Task]:
    """{name: part} of a task that is made of tasks; {"": the task} of any other."""
    return task.parts or {"": task}


def part_of(task: Task, name: str) -> Task:
    """The part of this name; the task itself where it has none of this name."""
    return leaves(task).get(name, task)


def part_names(task: Task) -> tuple[str, ...]:
    """The names of the tasks that it is made of; empty of a task without parts."""
    return tuple(filter(None, leaves(task)))


def head_of(part: str, head: str) -> str:
    """The name that the head of a part has in the whole task; layers are named so, without a dot."""
    return f"{part}_{head}" if part else head

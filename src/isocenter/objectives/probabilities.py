"""Probabilities that heads state, which objectives compare between networks and views."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.tasks import Task, head_of, leaves
from isocenter.values import Head

if TYPE_CHECKING:
    from torch import Tensor

# Outputs that state probabilities.
STATED = ("classes", "labels")


def without_probabilities(task: Task) -> str:
    """The reason why probabilities of this kind of problem cannot be compared; empty where they can."""
    unfit = [name or task.name for name, part in leaves(task).items() if part.uncertainty not in STATED]
    return f"it compares probabilities, and outputs of {', '.join(unfit)} state none" if unfit else ""


def heads_of(task: Task) -> list[tuple[str, Task, Head]]:
    """The heads of a task, or of each of its parts: name of the output, task, head."""
    parts = leaves(task).items()
    return [
        (head_of(name, key) if name else key, part, head) for name, part in parts for key, head in part.heads.items()
    ]


def is_exclusive(task: Task, head: Head) -> bool:
    """Whether one of its classes is right; of grades each threshold is a question of its own, one more an output."""
    grades = head.is_vector and head.count < len(task.labels)
    return task.uncertainty == "classes" and not grades


def probable(task: Task, head: Head, outputs: Tensor) -> Tensor:
    """(batch, channels, ...) probabilities of classes, of findings, or of passing each threshold of grades."""
    return outputs.softmax(dim=1) if is_exclusive(task, head) else outputs.sigmoid()

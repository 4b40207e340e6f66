"""Kinds of problem. A new kind is one file beside this one and its line in `TASKS`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from isocenter.errors import DatasetError, PlanError
from isocenter.tasks.task import Outputs, Task, rows_in
from isocenter.values import Dataset, Label, Split

TASKS = {
    "classification": "isocenter.tasks.classification:Classification",
    "detection": "isocenter.tasks.detection:Detection",
    "findings": "isocenter.tasks.findings:Findings",
    "regression": "isocenter.tasks.regression:Regression",
    "segmentation": "isocenter.tasks.segmentation:Segmentation",
    "survival": "isocenter.tasks.survival:Survival",
}
# Kinds that models of other programs have, and that nothing is trained as.
IMPORTED = {"imported_segmentation": "isocenter.tasks.imported_segmentation:ImportedSegmentation"}


def names() -> tuple[str, ...]:
    """Our kinds, and those that other packages add under the entry point `isocenter.tasks`."""
    return tuple(sorted({*TASKS, *(point.name for point in entry_points(group="isocenter.tasks"))}))


def kind(name: str) -> type[Task]:
    """The class of a kind of problem."""
    targets = IMPORTED | TASKS | {point.name: point.value for point in entry_points(group="isocenter.tasks")}
    if name not in targets:
        raise PlanError(f"there is no task {name!r}", "task.name", f"Choose one of {', '.join(names())}")
    module, _, attribute = targets[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def kind_for(dataset: Dataset, name: str | None = None) -> type[Task]:
    """The one kind whose needs the data set's references fit, or the named one.

    Raises DatasetError where no kind fits, where several do, or where the named one lacks its reference.
    """
    where = str(dataset.root or dataset.name)
    found = ", ".join(sorted(dataset.kinds)) or "none"
    if name is not None:
        chosen = kind(name)
        if not chosen.needs <= dataset.kinds:
            raise DatasetError(
                f"{name} needs references of the kind {', '.join(sorted(chosen.needs))}, found {found}",
                where,
                "Choose another --task, or say with --layout and --column where the references are",
            )
        return chosen
    fitting = [one for one in names() if kind(one).needs <= dataset.kinds]
    if len(fitting) == 1:
        return kind(fitting[0])
    if not fitting:
        raise DatasetError(
            f"no kind of problem fits its references ({found})",
            where,
            "Add labels, or say with --layout where they are",
        )
    raise DatasetError(
        f"several kinds of problem fit its references ({found})", where, f"Choose --task {' or '.join(fitting)}"
    )


def build(settings: Mapping[str, Any]) -> Task:
    """The task of a plan's section "task", or of a model's record."""
    return kind(settings["name"]).of({key: value for key, value in settings.items() if key != "name"})


def tuned_on(task: Task) -> Split:
    """The part whose predictions `Task.tuned` is shown: the validation cases, unless the kind says otherwise."""
    found: Split = getattr(task, "tuned_on", "val")
    return found


def outside(task: Task) -> int:
    """What the task's label maps say beyond the image: background, unless the kind says otherwise."""
    return int(getattr(task, "outside", 0))


def channels_of(task: Task) -> tuple[Label, ...]:
    """What the channels of a dense head mean: the labels, unless the kind says otherwise."""
    found: tuple[Label, ...] = getattr(task, "channel_labels", task.labels)
    return found


__all__ = [
    "TASKS",
    "Outputs",
    "Task",
    "build",
    "channels_of",
    "kind",
    "kind_for",
    "names",
    "outside",
    "rows_in",
    "tuned_on",
]

"""The kinds of problem by name: those of `TASKS`, and those that other packages add by an entry point.

A name may join several kinds, as in segmentation+classification: one network is taught and answers all of them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from hilum import errors, plugins
from hilum.errors import DatasetError, PlanError
from hilum.evaluation.calibration_fit import Calibrator
from hilum.tasks import properties, task_settings
from hilum.tasks.index import ELSEWHERE, TASKS
from hilum.tasks.task import Task
from hilum.values import Dataset, Label, StatedSettings

# A name with the sign joins several kinds; `ALL` stands for every kind that the references fit.
JOINED = "hilum.tasks.multitask:Joined"
MULTITASK = "hilum.tasks.multitask:Multitask"
SIGN = "+"
ALL = "multitask"
# Kinds that models of other programs have, and that nothing is trained as.
IMPORTED = {
    "imported_prompted": "hilum.tasks.segmentation.imported:ImportedPrompted",
    "imported_segmentation": "hilum.tasks.segmentation.imported:ImportedSegmentation",
}


def task_names() -> tuple[str, ...]:
    """Our kinds, and those that other packages add under the entry point `hilum.tasks`."""
    return tuple(sorted(plugins.targets_of(TASKS, "hilum.tasks")))


def task_class(name: str) -> type[Task]:
    """The class of a kind of problem, or a value with its members where a name joins several; PlanError without one."""
    if SIGN in name:
        joined: type[Task] = _join_kinds(name)
        return joined
    targets = plugins.targets_of(IMPORTED | TASKS, "hilum.tasks")
    if name not in targets:
        remedy = errors.nearest_remedy(name, task_names(), ELSEWHERE)
        raise PlanError(f"there is no task {name!r}", "task.name", remedy)
    loaded: type[Task] = plugins.load_target(targets[name])
    return loaded


def _join_kinds(name: str) -> Any:
    kinds = [task_class(part) for part in name.split(SIGN)]
    if unfit := [one.name for one in kinds if one.by_name or one.answers_pairs]:
        problem = f"{unfit[0]} is learnt by itself alone, and joins no other kind"
        raise PlanError(problem, "task.name", f"Name {unfit[0]} by itself, or leave it out")
    return plugins.load_target(JOINED).of_kinds(kinds)


def kind_for_dataset(dataset: Dataset, name: str | None = None) -> type[Task]:
    """The one kind whose needs the data set's references fit, or the named one; of `ALL`, all of them joined.

    Raises DatasetError where no kind fits, where several do, or where the named one lacks its reference.
    """
    where = str(dataset.root or dataset.name)
    references = ", ".join(sorted(dataset.kinds)) or "none"
    named = {one: task_class(one) for one in task_names()}
    fitting = [one for one, kind in named.items() if not kind.by_name and kind.needs <= dataset.kinds]
    if name == ALL:
        name = _all_of(fitting, references, where)
    if name is not None:
        chosen = task_class(name)
        if not (chosen.needs <= dataset.kinds or (chosen.by_name and properties.can_learn_from(chosen, dataset.kinds))):
            raise DatasetError(
                f"{name} needs references of the kind {', '.join(sorted(chosen.needs))}, found {references}",
                where,
                "Choose another --task, or say with --layout and --column where the references are",
            )
        return chosen
    if len(fitting) == 1:
        return task_class(fitting[0])
    if not fitting:
        raise DatasetError(
            f"no kind of problem fits its references ({references})",
            where,
            "Add labels, or say with --layout where they are",
        )
    raise DatasetError(
        f"several kinds of problem fit its references ({references})",
        where,
        f"Choose --task {' or '.join(fitting)}, or several at once: --task {SIGN.join(fitting)}",
    )


def _all_of(fitting: list[str], references: str, where: str) -> str:
    """Their names joined; DatasetError where several kinds answer the same references, or fewer than two fit."""
    needs = [task_class(one).needs for one in fitting]
    if len(fitting) < 2 or sum(map(len, needs)) > len(frozenset().union(*needs)):
        answered = ", ".join(fitting) or "no kind"
        problem = f"its references ({references}) are answered by {answered}: not by several kinds, one each"
        raise DatasetError(problem, where, f"Choose --task, as in segmentation{SIGN}classification")
    return SIGN.join(fitting)


def needed_references(name: str | None) -> frozenset[str]:
    """The kinds of reference that a named task needs; none without a name, or where it stands for all that fit."""
    return frozenset() if name in (None, ALL) else task_class(str(name)).needs


def learns_from_references(name: str | None) -> bool:
    """Whether a named task is taught by references; those that nobody has named yet are."""
    return name in (None, ALL) or properties.learns_from_references(task_class(str(name)))


def can_learn_from_nothing(name: str | None) -> bool:
    """Whether a named task, though references teach it, learns from images alone too."""
    return name not in (None, ALL) and frozenset() in task_class(str(name)).alternatives


def takes_numbered_objects(name: str | None) -> bool:
    """Whether a named task learns from masks of structures and from those that number objects alike."""
    return name not in (None, ALL) and frozenset({"instances"}) in task_class(str(name)).alternatives


def build_task(settings: StatedSettings) -> Task:
    """The task of a plan's section "task", or of a model's record."""
    name = str(settings["name"])
    settings_of_task = {key: value for key, value in settings.items() if key != "name"}
    if SIGN in name:
        kind = plugins.load_target(MULTITASK)
        parts = _join_kinds(name).kinds
        return task_settings.task_from_settings(kind, settings_of_task, parts)
    return task_settings.task_from_settings(task_class(name), settings_of_task)


def untuned_task(task: Task, by_hand: Collection[str] = ()) -> Task:
    """The task as it was before cases decided; by_hand: settings that a person chose."""
    cleared = dict.fromkeys(name for name in task_settings.found_after_training(task) if name not in by_hand)
    return build_task({"name": task.name, **task_settings.settings_of(task), **cleared})


def without_voxel_calibration(task: Task) -> Task:
    """The task whose probabilities of voxels stay as the network states them; other results keep theirs themselves."""
    nothing = Calibrator().settings
    parts = properties.leaf_tasks(task)
    of_voxels = [
        name for name, part in parts.items() if any(properties.states_voxels(head) for head in part.heads.values())
    ]
    names = [f"{name}.calibration".lstrip(".") for name in of_voxels]
    values = task_settings.settings_of(task)
    return build_task({"name": task.name, **values, **{name: nothing for name in names if name in values}})


def channel_labels(task: Task) -> dict[str, tuple[Label, ...]]:
    """{dense head: what its channels mean}: of parts those of each."""
    heads_of_parts = [
        (part, own, head)
        for part, own in properties.leaf_tasks(task).items()
        for head, one in own.heads.items()
        if one.is_dense and not one.holds_intensities
    ]
    return {properties.full_head_name(part, head): own.channel_labels for part, own, head in heads_of_parts}


def voxel_bytes(task: Task) -> int:
    """Bytes of a voxel of the image that are held while a dense result is decoded: its label, unless the task says."""
    bytes_of_task = task.bytes_per_voxel
    most = max((label.value for label in task.labels), default=0)
    return np.min_scalar_type(most).itemsize if bytes_of_task is None else bytes_of_task

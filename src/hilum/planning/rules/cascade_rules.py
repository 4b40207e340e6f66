"""Rules for a cascade, in which a network at low resolution goes first, and for configurations that folds compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from hilum.errors import PlanError
from hilum.networks import factory, network_family
from hilum.planning import training_memory, typed_sections
from hilum.planning.plan_inputs import Wishes
from hilum.planning.plan_sections import PlanSettings
from hilum.planning.rules import grid_rules
from hilum.planning.rules.grid_rules import PATCH_VOXELS, Grid
from hilum.planning.rules.image_profiles import NNUNET
from hilum.planning.rules.learning_rules import LONG
from hilum.planning.training_memory import Machine
from hilum.tasks import Task, properties
from hilum.values import BY_HAND, Decision, Fingerprint, Plan

# A patch that shows less of the median image is blind for what lies around it.
LEAST_SHARE = 0.25
# Of each label to be marked worse in training.
MISTAKES = 0.4
# Networks of the first stage of a cascade: each marks the training cases that it has not seen.
CROSS_FITS = 2
CASCADE = "cascade"
# {configuration: trainings in a fold}, from the simplest on: by slices, by volumes, by volumes after a first stage.
TRAININGS = {"2d": 1, "3d": 1, CASCADE: CROSS_FITS + 1}
# Fewer show nothing of a configuration.
MINUTES_A_TRAINING = 1.0


def cascade_decision(task: Task, grid: Grid, machine: Machine, wishes: Wishes) -> dict[str, Decision]:
    """`preprocessing.cascade` and what follows from it."""
    decision = _cascade(task, grid, machine, wishes)
    return {"preprocessing.cascade": decision, "augmentation.marks": marks_decision(decision.value)}


def marks_decision(cascade: float | None) -> Decision:
    """The decision how often training makes the marks of the first network worse."""
    if cascade is None:
        return Decision(0.0, "no first network marks labels for this one")
    because = "the first network's labels may be wrong: some are shown too large, too small or not at all"
    return Decision(MISTAKES, because, NNUNET)


def _cascade(task: Task, grid: Grid, machine: Machine, wishes: Wishes) -> Decision:
    if not properties.marks_labels(task):
        return Decision(None, f"a {task.name} gives no label map that a second network could see")
    if grid.whole:
        return Decision(None, "the network sees each image as a whole")
    share = grid.voxels / float(np.median(grid.extent, axis=0).prod())
    shown = f"a patch shows {min(1.0, share):.0%} of the median image"
    if share >= LEAST_SHARE:
        return Decision(None, f"{shown}, so one patch shows enough of the surroundings", NNUNET)
    if wishes.configurations == "ensemble":
        return Decision(None, f"{shown}, but the mean of slices and volumes was asked for, without a cascade")
    parts = max(1, wishes.folds)
    is_compared = wishes.configurations == "auto" and wishes.folds > 0
    trainings = parts * (CROSS_FITS + 1)
    least = least_minutes(parts, cascade=True) if is_compared else parts * LONG
    if wishes.minutes is not None and wishes.minutes < least:
        few = f"{wishes.minutes:g} minutes are too few for {trainings} trainings"
        few += " and the other configurations" if is_compared else ""
        return Decision(None, f"{shown}, but {few}: {least:g} would do", NNUNET)
    factor = _factor(grid, _usual(grid.patch, machine))
    spacing = _low_spacing(grid, factor)
    where = "in each fold " if wishes.folds else ""
    shared = _share_reason(trainings, is_compared=is_compared)
    return Decision(
        factor,
        f"{shown}: {where}{CROSS_FITS} networks on a grid coarser by this factor{spacing} see all of it first, each "
        f"trained on a part of the cases and marking the others; their labels are further input channels. {shared}",
        NNUNET,
    )


def _share_reason(trainings: int, *, is_compared: bool) -> str:
    if is_compared:
        return f"All configurations get equal parts of the minutes, and so do the {trainings} trainings of this one"
    return f"Each of {trainings} trainings gets an equal share of the minutes"


def _factor(grid: Grid, usual: int) -> float:
    """The factor, in steps of a half, by which a coarser grid lets a usual patch hold the median image."""
    ratio = float(np.median(grid.extent, axis=0).prod()) / min(grid.voxels, usual)
    return max(1.5, float(np.ceil(2 * ratio ** (1 / len(grid.patch))) / 2))


def _low_spacing(grid: Grid, factor: float) -> str:
    spacing = grid.spacing.value
    if spacing is None:
        return ""
    return f", {' x '.join(f'{factor * one:.3g}' for one in spacing)} mm,"


def low_resolution_plan(plan: Plan, fingerprint: Fingerprint, machine: Machine) -> Plan:
    """The plan of the networks that go before: the same task and data, on a coarser grid.

    The memory is that of the plan given, until it is predicted anew.
    """
    settings = typed_sections.typed_plan(plan)
    coarser = settings.preprocessing.cascade or 1.0
    network = settings.network
    reduction = settings.preprocessing.reduction * coarser
    room = _room(plan, machine) / reduction  # which `suggest_grid` gives back for the fineness that is given away
    grid = grid_rules.planned_grid(settings, fingerprint, machine.device, coarser=coarser, room=room)
    size, because, source = factory.size_for(network.name, grid.patch, grid.strides, machine.device)
    wide = {key: value for key, value in network.size.items() if key in network_family.WIDTHS and key in size}
    shown = f"the first network sees the median image, or as much of it as the {machine.device} processes quickly"
    once = "each image of median size is then one window"
    no_other = Decision(None, "there is no first network before this one")
    changes: Mapping[str, Decision] = {
        "preprocessing.cascade": no_other,
        "preprocessing.reduction": Decision(reduction, "the first network of a cascade sees images at low resolution"),
        "preprocessing.smallest": Decision(list(grid.patch), "the network sees at least one whole patch"),
        "augmentation.marks": marks_decision(None),
        "network.size": Decision({**size, **wide}, f"{because}; as wide as the one after it", source),
        "training.patch": Decision(list(grid.patch), shown, NNUNET),
        "inference.patch": Decision(list(grid.patch), once),
        "training.early_stop": Decision(None, "no validation case decides anything about this network"),
        "training.validations": Decision(1, "no validation case decides anything about this network"),
    }
    for name, decision in changes.items():
        plan = plan.with_decision(name, decision)
    return plan


def _room(plan: Plan, machine: Machine) -> float:
    """Share of the usual voxels of a patch for which there is memory: what a person chose says nothing about it."""
    patch = plan.decision("training.patch")
    if patch.because == BY_HAND:
        return 1.0
    return cast(float, min(1.0, math.prod(patch.value) / _usual(patch.value, machine)))


def _usual(patch: Sequence[int], machine: Machine) -> int:
    """Voxels of a patch that the device processes quickly."""
    return PATCH_VOXELS[len(patch)][training_memory.device_kind(machine.device)]


def compared_configurations(*, cascade: bool) -> tuple[str, ...]:
    """The names of those that are compared, from the simplest on; cascade: whether the plan has one."""
    return tuple(name for name in TRAININGS if cascade or name != CASCADE)


def least_minutes(folds: int, *, cascade: bool) -> float:
    """Minutes with which each training of a comparison has enough: all configurations get equal parts of them."""
    names = compared_configurations(cascade=cascade)
    return MINUTES_A_TRAINING * folds * len(names) * max(TRAININGS[name] for name in names)


def check_cascade(settings: PlanSettings) -> None:
    """A network that goes before has something to show, and sees more than the one after it."""
    where = "preprocessing.cascade"
    off = "Give none"
    if settings.preprocessing.cascade is None:
        if settings.augmentation.marks:
            raise PlanError("no first network marks labels for this one", "augmentation.marks", "Give 0")
        return
    if not properties.marks_labels(settings.task):
        raise PlanError(f"a {settings.task.name} gives no label map that a second network could see", where, off)
    if settings.preprocessing.shape is not None or settings.preprocessing.frames is not None:
        raise PlanError("the network already sees each image as a whole", where, off)
    if settings.split.inner_folds:
        problem = "each inner fold would need a cascade of its own, which is not supported"
        raise PlanError(problem, where, f"{off}, or give split.inner_folds 0")


def check_configurations(settings: PlanSettings) -> None:
    """Configurations are compared by folds, for volumes that have slices, with time for a training of each."""
    search = settings.search
    where = "search.configurations"
    off = "or leave it out"
    if search.configurations not in ("auto", "ensemble"):
        return
    if not settings.split.folds:
        raise PlanError("configurations are compared on the held-out cases of folds", where, f"Add --folds 5, {off}")
    if settings.preprocessing.ndim != 3 or not any(head.is_dense for head in settings.task.heads.values()):
        problem = "slices and volumes can be compared only where every voxel of a volume gets a result"
        raise PlanError(problem, where, "Leave it out")
    if search.is_on:
        problem = "a search cannot be combined with a comparison of configurations"
        raise PlanError(problem, where, f"Leave out one {off}")
    has_cascade = settings.preprocessing.cascade is not None
    minutes = settings.training.minutes
    folds = settings.split.folds
    if has_cascade and search.configurations == "ensemble":
        problem = "the mean is that of slices and volumes without a first stage"
        raise PlanError(problem, where, "Give auto, or --set preprocessing.cascade=none")
    least = least_minutes(folds, cascade=has_cascade)
    if settings.training.steps is None and minutes is not None and minutes < least:
        trainings = folds * sum(TRAININGS[name] for name in compared_configurations(cascade=has_cascade))
        problem = f"{minutes:g} minutes for {trainings} trainings: each takes at least {MINUTES_A_TRAINING:g}"
        if has_cascade:
            problem += f", and the {TRAININGS[CASCADE]} of a cascade share the part of one configuration"
            off = f"--set preprocessing.cascade=none, {off}"
        raise PlanError(problem, where, f"Give --minutes {least:g} or more, fewer folds, {off}")

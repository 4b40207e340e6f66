"""The patch, the network and the batch that fit into memory, found before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isocenter import networks
from isocenter.planning.machine import Machine
from isocenter.planning.memory import Peak, peak, refuse_too_large, takes_context
from isocenter.planning.rules import (
    CLIPS,
    EARLY,
    FEW_SLICES,
    NNUNET,
    VERY_LONG,
    Grid,
    Holes,
    grid_for,
    telling,
    usual_batch,
)
from isocenter.planning.sections import told_of
from isocenter.runtime import mean_of
from isocenter.tasks import Task
from isocenter.values import Decision, Fingerprint, Plan

# By how much a patch shrinks at a time while it does not fit into memory, and how often it may.
SMALLER, MOST_SHRINKING = 0.7, 10
# A label map of background and structures is kept beside each image.
LABEL_BYTES = 1
# From so many cases on a wider network has something to learn from them.
MANY_CASES = 100


@dataclass(frozen=True)
class Fitted:
    """What fits into memory: the grid, the network for it and the batch.

    usual:   the batch if memory had no say
    told:    how the network is told what it is told beside the images
    context: what it is told; which images a case has only if the family takes it
    """

    grid: Grid
    network: Decision
    size: Decision
    batch: int
    usual: int
    peak: Peak
    told: Mapping[str, Decision]
    context: Mapping[str, Any] | None = None


def fitted(
    fingerprint: Fingerprint,
    task: Task,
    machine: Machine,
    said: Decision,
    asked: Decision | None,
    channels: int,
    *,
    frames: int | None = None,
    minutes: float | None,
    wished: int | None = None,
    context: Mapping[str, Any] | None = None,
    presence: Mapping[str, Any] | None = None,
    holes: Holes | None = None,
    reduction: float = 1.0,
) -> Fitted:
    """The first of ever smaller batches and patches that fits.

    channels:    with those of each frame; frames: of a clip
    said, asked: the family that the task wants, and the one that a person wants
    minutes:     for one model
    wished:      the batch that the task wants; as many as is usual without
    context:     what the network is told beside the images
    presence:    what tells it which images a case has, if the family takes it
    holes:       who lacks which of several images
    reduction:   by which factor the grid may be coarser than images are, as the task says
    Raises ResourceError where not even a single small patch fits.
    """
    wanted: dict[str, Any] = {**answers_of(task), "reduction": reduction}
    first = grid_for(fingerprint, device=machine.device, **wanted)
    usual = wished or usual_batch(fingerprint, first, machine.device, frames or 1)
    for room, batch in _smaller(usual):
        grid = grid_for(fingerprint, device=machine.device, room=room, **wanted)
        network = asked or _family(said, grid, frames, holes)
        size = _of_clips(_size(network.value, grid, machine, len(fingerprint), minutes, task), frames)
        size = _of_modalities(size, channels // (frames or 1), task)
        architecture = {
            "name": network.value,
            "channels": channels,
            "spatial_dims": len(grid.patch),
            "size": size.value,
        }
        beside = {**(context or {}), **(presence or {})}
        # A family of several images looks for them there; another one is told as far as it takes a context.
        needed, lacking = "modalities" in size.value, holes is not None and bool(holes.absent)
        if not (presence and (needed or (lacking and takes_context(task, architecture, beside)))):
            beside = dict(context or {})
        told = telling(task, network.value, beside, len(fingerprint))
        architecture |= told_of({"context": beside, **{key: one.value for key, one in told.items()}})
        cases = prepared_bytes(grid, channels)
        found = peak(
            task, architecture, grid.patch, batch, machine, half=machine.bf16, cases=cases, count=len(fingerprint)
        )
        if found.fits(machine):
            break
    refuse_too_large(found, machine)
    if measured := networks.standing(network.value, task.heads, len(grid.patch)):
        network = replace(network, because=f"{network.because}; {measured}")
    return Fitted(grid, network, size, batch, usual, found, told, beside or None)


def _smaller(batch: int) -> Iterator[tuple[float, int]]:
    """(share of the usual voxels, batch): first fewer samples, then smaller ones, at last a single one."""
    while batch > 2:
        yield 1.0, batch
        batch //= 2
    for step in range(MOST_SHRINKING):
        yield SMALLER**step, batch
    yield SMALLER**MOST_SHRINKING, 1


def _family(said: Decision, grid: Grid, frames: int | None, holes: Holes | None) -> Decision:
    """The task's choice; for few thick slices the one that looks at them in their plane, for clips one of clips.

    Where many cases lack one of several images it stays: an encoder for each image was measured to be worse.
    """
    if said.value in ("unet", "resnet") and frames is None and holes is not None and holes.many:
        return replace(said, because=f"{said.because}; {holes.said}: {EARLY}")
    if said.value == "resnet" and frames is not None:
        return Decision(
            "clip_resnet", f"one encoder looks at each of {frames} frames, then time is gone through", CLIPS
        )
    if said.value != "unet" or grid.thick is None or grid.slices > FEW_SLICES:
        return said
    spacing = grid.spacing.value
    longest, shortest = f"{spacing[grid.thick]:.3g}", f"{min(spacing):.3g}"
    because = (
        f"voxels are {longest} mm long along axis {grid.thick} and {shortest} mm at least along the others, and the "
        f"median case has {grid.slices} slices: each is looked at in its plane, with its neighbours as channels"
    )
    return Decision("unet_slices", because, NNUNET)


def _of_clips(size: Decision, frames: int | None) -> Decision:
    """With the number of frames, where the family asks for it."""
    if "frames" not in size.value:
        return size
    return replace(size, value={**size.value, "frames": frames or 1})


def _of_modalities(size: Decision, count: int, task: Task) -> Decision:
    """With the number of images of a case, and what of their answers is averaged, where the family asks for it."""
    if "modalities" not in size.value:
        return size
    means = {"means": {head: mean_of(task, head) for head in task.heads}} if "means" in size.value else {}
    return replace(size, value={**size.value, "modalities": count, **means})


def _size(name: str, grid: Grid, machine: Machine, cases: int, minutes: float | None, task: Task) -> Decision:
    """The family's own choice; half as wide again where a processor has hours for it and cases that fill them."""
    chosen, because, source = networks.size_for(name, grid.patch, grid.strides, machine.device, task.heads)
    size = dict(chosen)
    if machine.device == "cpu" and (minutes or 0.0) >= VERY_LONG and cases >= MANY_CASES and "width" in size:
        size |= {key: size[key] * 3 // 2 for key in ("width", "widest") if key in size}
        because += f"; half as wide again for {minutes:g} minutes and {cases} training cases"
    return Decision(size, because, source)


def family_size(plan: Plan, name: str, task: Task, fingerprint: Fingerprint, machine: Machine) -> Decision:
    """The size that a plan for these training cases would give to this family."""
    reduction = float(plan["preprocessing.reduction"]) if "preprocessing.reduction" in plan else 1.0
    grid = grid_for(fingerprint, device=machine.device, reduction=reduction, **answers_of(task))
    minutes = plan["training.minutes"]
    return _of_clips(_size(name, grid, machine, len(fingerprint), minutes, task), plan["preprocessing.frames"])


def prepared_bytes(grid: Grid, channels: int) -> float:
    """Of all training cases as they are prepared: float32 channels, and labels."""
    voxels = np.maximum(grid.extent, np.asarray(grid.patch)).prod(axis=1).sum()
    return float(voxels) * (4 * channels + LABEL_BYTES)


def memory_decision(found: Peak, machine: Machine) -> Decision:
    return Decision(round(found.on_device(machine), 2), found.because(machine), "docs/benchmarks.md")


def answers_of(task: Task) -> dict[str, bool]:
    """What of a grid is asked for, as `grid_for` names it: every voxel, the image as a whole, what may be a size."""
    vectors = [head for head in task.heads.values() if head.is_vector]
    return {
        "dense": any(head.is_dense for head in task.heads.values()),
        "whole": bool(vectors),
        "scaled": any(head.holds_numbers for head in vectors),
    }

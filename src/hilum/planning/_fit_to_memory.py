"""The patch, the network and the batch that fit into memory, chosen before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from hilum.networks import factory, member_catalogue, network_family
from hilum.planning import plan_sections, training_memory
from hilum.planning.plan_inputs import PlanInputs
from hilum.planning.plan_sections import PlanSettings
from hilum.planning.rules import covariate_rules, grid_rules, learning_rules
from hilum.planning.rules.grid_rules import FEW_SLICES, Grid, GridNeeds
from hilum.planning.rules.image_profiles import NNUNET
from hilum.planning.rules.learning_rules import VERY_LONG
from hilum.planning.rules.modality_rules import APART, EARLY, MMFORMER
from hilum.planning.rules.preprocessing_rules import CLIPS
from hilum.planning.training_memory import Machine, MemoryPeak
from hilum.runtime.model_schema import NetworkArguments
from hilum.runtime.package import package_contents
from hilum.tasks import Task
from hilum.values import Decision, Fingerprint, PlainValue

# By how much a patch shrinks at a time while it does not fit into memory, and how often it may.
SMALLER = 0.7
MOST_SHRINKING = 10
# Of a GPU's memory as much as a patch of two samples fills, then more samples, as nnU-Net plans: at most this share of
# what all training cases have in voxels. Whole images at most so many times the usual number of voxels. Not in fewer
# minutes, which larger samples would leave too few steps.
PAIR = 2
SHARE_A_STEP = 0.05
LARGEST_WHOLE = 4.0
LEAST_MINUTES = 60.0
# A label map of background and structures is kept beside each image.
LABEL_BYTES = 1
# And of each structure up to so many positions, as training keeps them, each coordinate in so many bytes.
POSITIONS = 10_000
POSITION_BYTES = 2
# What a task's choice of a family becomes for clips and for few thick slices, and which choices stay where images lack.
FOR_CLIPS = {"resnet": "clip_resnet"}
FOR_SLICES = {"unet": "unet_slices"}
EARLY_FUSION = frozenset({"unet", "resnet"})
# Of images that share no place.
FOR_EXAMS = "fusion_attention"
# Of slides that are bags of tiles.
FOR_BAGS = "mil_attention"
# From so many cases on a wider network has something to learn from them.
MANY_CASES = 100


@dataclass(frozen=True)
class FittedPlan:
    """The grid, the network and the batch that fit into memory.

    usual:   the batch if memory had no say
    fusion:  how the network uses covariates
    context: the covariates; which images a case has only if the family takes it
    """

    grid: Grid
    network: Decision
    size: Decision
    batch: int
    usual: int
    peak: MemoryPeak
    fusion: Mapping[str, Decision]
    context: Mapping[str, PlainValue] | None = None


def fit_grid(inputs: PlanInputs) -> FittedPlan:
    """Return the first of ever smaller batches and patches that fits.

    Raises ResourceError where not even a single small patch fits.
    """
    fingerprint = inputs.fingerprint
    machine = inputs.machine
    needs = GridNeeds.from_task(inputs.task)
    grid_of = partial(
        grid_rules.suggest_grid,
        fingerprint,
        needs,
        machine.device,
        reduction=inputs.reduction,
        spacing=inputs.wishes.spacing,
    )
    first = grid_of()
    frames = inputs.frames.value or 1
    family = inputs.wishes.network
    usual = inputs.batch or learning_rules.usual_batch(fingerprint, first, machine.device, frames, family)
    fills = not machine.is_processor and (inputs.minutes is None or inputs.minutes >= LEAST_MINUTES)
    for room, batch in [*(_larger(first, usual) if fills else ()), *_smaller(usual)]:
        grid = grid_of(room=room)
        fits = _on_grid(inputs, grid, batch, usual)
        if fits.peak.fits(machine):
            break
    training_memory.refuse_too_large(fits.peak, machine)
    if fills and not grid.whole and inputs.batch is None:
        fits = _with_more_samples(inputs, fits)
    network = fits.network
    if measured := member_catalogue.family_standing(network.value, inputs.task.heads, len(grid.patch)):
        # Figures of other data are a source: the reason of a decision stands in the papers of this model.
        network = replace(network, source="; ".join(filter(None, (network.source, measured))))
    return replace(fits, network=network)


def _on_grid(inputs: PlanInputs, grid: Grid, batch: int, usual: int) -> FittedPlan:
    """The network for this grid, and the memory that it takes with batches of this size."""
    task = inputs.task
    count = len(inputs.fingerprint)
    machine = inputs.machine
    network = inputs.family or _family(inputs, grid)
    size = _of_clips(_size(network.value, grid, machine, count, inputs.minutes, task), inputs.frames.value)
    size = _of_modalities(size, inputs.channels // (inputs.frames.value or 1), task)
    architecture: NetworkArguments = {
        "name": network.value,
        "channels": inputs.channels,
        "spatial_dims": len(grid.patch),
        "size": size.value,
    }
    context = _context(inputs, architecture)
    fusion = covariate_rules.fusion_decisions(task, network.value, context, count)
    covariates = {"context": context, **{key: one.value for key, one in fusion.items()}}
    architecture = {**architecture, **plan_sections.fusion_arguments(covariates)}
    cases = prepared_bytes(grid, inputs.channels, task)
    needed = training_memory.predict_peak(
        task, architecture, grid.patch, batch, machine, half=machine.bf16, cases=cases, count=count
    )
    return FittedPlan(grid, network, size, batch, usual, needed, fusion, context or None)


def _with_more_samples(inputs: PlanInputs, fits: FittedPlan) -> FittedPlan:
    """Twice as many samples a step, again and again, while they fit."""
    most = SHARE_A_STEP * float(fits.grid.extent.prod(axis=1).sum()) / fits.grid.voxels
    while 2 * fits.batch <= most:
        more = _on_grid(inputs, fits.grid, 2 * fits.batch, fits.usual)
        if not more.peak.fits(inputs.machine):
            break
        fits = more
    return fits


def _context(inputs: PlanInputs, architecture: NetworkArguments) -> dict[str, PlainValue]:
    """The covariates, and which images a case has, if the family takes it.

    A family of several images looks for them there; another one gets them as far as it takes a context.
    """
    covariates = dict(inputs.context.value or {})
    both = {**covariates, **inputs.holes.presence}
    if not inputs.holes.presence:
        return covariates
    needed = "modalities" in architecture["size"]
    lacking = bool(inputs.holes.absent)
    return (
        both if needed or (lacking and training_memory.takes_context(inputs.task, architecture, both)) else covariates
    )


def _larger(usual: Grid, batch: int) -> Iterator[tuple[float, int]]:
    """(share of the usual voxels, batch) of a GPU: the median image, or of whole images four times as many voxels."""
    most = LARGEST_WHOLE if usual.whole else float(np.median(usual.extent, axis=0).prod()) / usual.voxels
    room = max(1.0, most)
    while room > 1:
        yield room, batch if usual.whole else PAIR
        room *= SMALLER


def _smaller(batch: int) -> Iterator[tuple[float, int]]:
    """(share of the usual voxels, batch): first fewer samples, then smaller ones, at last a single one."""
    while batch > 2:
        yield 1.0, batch
        batch //= 2
    for step in range(MOST_SHRINKING):
        yield SMALLER**step, batch
    yield SMALLER**MOST_SHRINKING, 1


def _family(inputs: PlanInputs, grid: Grid) -> Decision:
    """The task's choice; for few thick slices the one that looks at them in their plane, for clips one of clips.

    Where many cases lack one of several images it stays: an encoder for each image was measured to be worse. Images
    that share no place are no channels of one network: each has an encoder.
    """
    if grid.tiles is not None:
        because = "one label for all tiles of a slide: it learns which of them count"
        return Decision(FOR_BAGS, because, grid_rules.ILSE)
    decided = inputs.stated["network.name"]
    frames = inputs.frames.value
    holes = inputs.holes
    if decided.value in EARLY_FUSION and frames is None and holes.apart and holes.several:
        return Decision(FOR_EXAMS, APART, MMFORMER)
    if decided.value in EARLY_FUSION and frames is None and holes.many:
        return replace(decided, because=f"{decided.because}; {holes.words}: {EARLY}")
    if decided.value in FOR_CLIPS and frames is not None:
        because = f"one encoder processes each of {frames} frames, then the network combines them over time"
        return Decision(FOR_CLIPS[decided.value], because, CLIPS)
    if decided.value not in FOR_SLICES or grid.thick is None or grid.slices > FEW_SLICES:
        return decided
    spacing = grid.spacing.value
    longest, shortest = f"{spacing[grid.thick]:.3g}", f"{min(spacing):.3g}"
    because = (
        f"voxels are {longest} mm long along axis {grid.thick} and {shortest} mm at least along the others, and the "
        f"median case has {grid.slices} slices: each is processed in its plane, with its neighbours as channels"
    )
    return Decision(FOR_SLICES[decided.value], because, NNUNET)


def _of_clips(size: Decision, frames: int | None) -> Decision:
    """The size with the number of frames, where the family asks for it."""
    if "frames" not in size.value:
        return size
    return replace(size, value={**size.value, "frames": frames or 1})


def _of_modalities(size: Decision, count: int, task: Task) -> Decision:
    """The size with the number of images, and which of their answers are averaged, where the family asks for it."""
    if "modalities" not in size.value:
        return size
    means = {}
    if "means" in size.value:
        means = {"means": {head: package_contents.kind_of_mean(task, head) for head in task.heads}}
    return replace(size, value={**size.value, "modalities": count, **means})


def _size(name: str, grid: Grid, machine: Machine, cases: int, minutes: float | None, task: Task) -> Decision:
    """The family's own choice; half as wide again where a processor has hours for it and cases that fill them."""
    chosen, because, source = factory.size_for(name, grid.patch, grid.strides, machine.device, task.heads)
    size = dict(chosen)
    wide = machine.is_processor and (minutes or 0.0) >= VERY_LONG and cases >= MANY_CASES
    if wide and network_family.WIDTHS[0] in size:
        size = network_family.widen_settings(size, 1.5)
        because += f"; half as wide again for {minutes:g} minutes and {cases} training cases"
    return Decision(size, because, source)


def family_size(settings: PlanSettings, name: str, fingerprint: Fingerprint, machine: Machine) -> Decision:
    """The size that a plan for these training cases would give to this family."""
    grid = grid_rules.planned_grid(settings, fingerprint, machine.device)
    size = _size(name, grid, machine, len(fingerprint), settings.training.minutes, settings.task)
    return _of_clips(size, settings.preprocessing.frames)


def prepared_bytes(grid: Grid, channels: int, task: Task) -> float:
    """Bytes of all prepared training cases: float32 channels, of bags of 8 bits, labels, positions of structures."""
    voxels = np.maximum(grid.extent, np.asarray(grid.patch)).prod(axis=1)
    structures = len(task.labels) if any(head.is_dense for head in task.heads.values()) else 0
    positions = structures * np.minimum(voxels, POSITIONS).sum() * POSITION_BYTES * len(grid.patch)
    return float(voxels.sum()) * ((4 if grid.tiles is None else 1) * channels + LABEL_BYTES) + float(positions)


def memory_decision(needed: MemoryPeak, machine: Machine) -> Decision:
    """The predicted peak in GiB, with its parts."""
    return Decision(round(needed.on_device(machine), 2), needed.because(machine), "bench/findings/scale.md")

"""The grid that the network sees: spacing or shape, the patch that is cut from it, and the strides of a U-Net."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, PlanError
from hilum.planning import training_memory
from hilum.planning.plan_sections import PlanSettings
from hilum.planning.rules.image_profiles import NNUNET
from hilum.planning.training_memory import Machine
from hilum.runtime.preprocessing.slide_tiles import Tiles
from hilum.tasks import Task
from hilum.tasks.shared.grid_and_length import COARSEST
from hilum.values import BY_HAND, Decision, Fingerprint, Floats, PlainValue, grid_geometry

# Voxels of a patch that two cores, or a GPU, go through in well under a second a step.
PATCH_VOXELS = {1: {"cpu": 2**13, "gpu": 2**15}, 2: {"cpu": 2**16, "gpu": 2**18}, 3: {"cpu": 2**17, "gpu": 2**21}}
# The longest side of a picture, and the longest series, that is looked at as a whole.
WHOLE_SIDE = {1: {"cpu": 1024, "gpu": 4096}, 2: {"cpu": 128, "gpu": 256}, 3: {"cpu": 48, "gpu": 96}}
# Below this share of content cutting the rest away saves more than it costs.
EMPTY = 0.75
# The spacing where the answer is an image.
KEPT = Decision(None, "the answer is an image on the grid of its input, and resampling would blur it")
# A median spacing rounded to 1e-4 mm must not add a step to every patch.
ROUNDING = 1e-3
# From this ratio on slices count as thick (nnU-Net).
ANISOTROPIC = 3.0
# Where images differ in size, the next one may be somewhat larger than all that were seen: it is still seen whole.
MARGIN = 1.1
# From so many times the 95th percentile on one image is odd enough to be named.
ODD = 1.5
# So few thick slices leave a convolution across them little to see.
FEW_SLICES = 16
MOST_STAGES = 6
FEWEST_VOXELS = 4
# How much longer, and larger, a window of prediction may be than a patch of training (`bench/windows.py` at b35ea394).
LONGER_WINDOW = 1.5
LARGER_WINDOW = 2.25
ILSE = "arXiv:1802.04712"
# Settings of a network that works on images of one shape only.
FOR_ONE_SHAPE = frozenset({"patch", "image"})
REDUCTION = "preprocessing.reduction"
# Pixels from which a core, or a GPU, learns in a second: on two cores a step of four patches of 256 x 256 took .5 s; of
# a GPU it was not measured.
PIXELS_A_SECOND = {"cpu": 2.5e5, "gpu": 2e7}
# With fewer looks at each picture a coarser grid learns more. Vessels of a retina with 9 looks: Dice .685, on a grid
# half as fine .763; with 22 looks .798 and .801 (`bench/findings/training.md`, one seed).
ENOUGH_LOOKS = 20


@dataclass(frozen=True)
class Grid:
    """The network's grid, with the reasons.

    spacing, shape: one of them decides; the other's value is None
    patch:   voxels per axis
    strides: by which factor each stage of a U-Net reduces each axis
    extent:  (cases, axes) voxels of the training images on this grid
    whole:   each image is looked at as a whole, and no patches are cut
    dense:   there is an output for every voxel
    cropped: images are cut down to their content first
    tiles:   of which slides become bags; None where images stay whole
    """

    spacing: Decision
    shape: Decision
    patch: tuple[int, ...]
    strides: list[list[int]]
    extent: Floats
    whole: bool = False
    dense: bool = False
    cropped: bool = False
    tiles: Tiles | None = None

    @property
    def picture(self) -> tuple[int, ...]:
        """The part of a patch that is varied by itself: of a bag a tile."""
        return self.patch if self.tiles is None else self.patch[1:]

    @property
    def thick(self) -> int | None:
        """The axis whose voxels are more than three times as long as those of the others."""
        return thick_axis(self.spacing.value)

    @property
    def slices(self) -> int:
        """Slices of the median image along the thick axis; 0 without one."""
        return 0 if self.thick is None else int(np.median(self.extent[:, self.thick]))

    @property
    def voxels(self) -> int:
        """Voxels of a patch."""
        return int(np.prod(self.patch))


@dataclass(frozen=True)
class GridNeeds:
    """The demands of a task on the grid.

    dense:  there is an output for every voxel
    whole:  there is an output for the image as a whole, which no patch may be cut from; without it a spacing decides
    scaled: sizes may be asked for, so that whole images keep their scale where it is known: they are brought to one
            spacing and padded to one shape that holds every training image; the mean over windows would be no size
    kept:   the answer is an image on its input's own grid, which is neither resampled nor cropped
    pooled: all that is asked for are numbers of the image as a whole, so that a slide may be a bag of tiles
    """

    dense: bool
    whole: bool = False
    scaled: bool = False
    kept: bool = False
    pooled: bool = False

    @classmethod
    def from_task(cls, task: Task) -> GridNeeds:
        """The needs of the outputs of a task."""
        vectors = [head for head in task.heads.values() if head.is_vector]
        dense = any(head.is_dense for head in task.heads.values())
        moves = any(head.moves for head in task.heads.values())  # perhaps out of a patch
        kept = any(head.holds_intensities for head in task.heads.values())
        if any(head.conditions is not None for head in task.heads.values()):  # images are synthesised whole
            return cls(dense=False, whole=True)
        pooled = len(vectors) == len(task.heads) and not (moves or task.answers_features)
        return cls(dense, bool(vectors) or moves, any(head.holds_numbers for head in vectors), kept, pooled)


def suggest_grid(
    fingerprint: Fingerprint,
    needs: GridNeeds,
    device: str,
    *,
    room: float = 1.0,
    reduction: float = 1.0,
    spacing: Sequence[float] | None = None,
    cropped: bool | None = None,
) -> Grid:
    """Return the grid that the training images suggest and a device goes through quickly.

    room:      share of the usual number of voxels, where memory does not suffice for all of them
    reduction: of patches: by which factor the grid is coarser than the spacing or the image's own grid makes it
    spacing:   set by hand, in mm; of no use where voxels have no known size, or one shape decides
    cropped:   of patches: whether images are cut down to their content first; None as the rule decides
    """
    if needs.pooled and fingerprint.is_of_slides:
        return bag_grid(fingerprint, Tiles(count=max(1, int(Tiles.count * room))))
    shapes, steps = without_single_slice(fingerprint)
    physical = all(case.physical for case in fingerprint.cases)
    if not physical or spacing is None or len(spacing) != len(shapes[0]):
        spacing = None
    if needs.dense and not needs.whole:
        cropped = (not needs.kept and crops_content(fingerprint)) if cropped is None else cropped
        kept = KEPT if needs.kept and spacing is None else None
        return _cut_patches(fingerprint, device, room, reduction, spacing, cropped=cropped, kept=kept)
    axes = len(shapes[0])
    # With an output for every voxel as fine as the patches that the device goes through.
    voxels = PATCH_VOXELS[axes][training_memory.device_kind(device)] ** (1 / axes)
    longest = (voxels if needs.dense else WHOLE_SIDE[axes][training_memory.device_kind(device)]) * room ** (1 / axes)
    # A shape of its own would stretch every image, and structures with it.
    if (needs.scaled or needs.dense) and physical:
        sizes = np.array(shapes, dtype=float)
        spacings = np.array(steps)
        return _scale(sizes, spacings, longest, fingerprint.unit, device, dense=needs.dense, asked=spacing)
    return _stretch(fingerprint, needs, longest, device)


def planned_grid(
    settings: PlanSettings, fingerprint: Fingerprint, device: str, *, coarser: float = 1.0, room: float = 1.0
) -> Grid:
    """The grid of a plan for these training cases.

    coarser: factor between its own reduction and the one that is looked for; room: as for `suggest_grid`
    """
    chosen = settings.preprocessing
    if chosen.tiles is not None:
        return bag_grid(fingerprint, chosen.tiles)
    return suggest_grid(
        fingerprint,
        GridNeeds.from_task(settings.task),
        device,
        room=room,
        reduction=chosen.reduction * coarser,
        spacing=chosen.spacing,
        cropped=chosen.crop == "content",
    )


def bag_grid(fingerprint: Fingerprint, tiles: Tiles) -> Grid:
    """Bags of tiles: volumes whose first axis has no neighbours. DatasetError for slides that state no size."""
    if unknown := [case.id for case in fingerprint.cases if not case.physical]:
        problem = f"{errors.list_phrase(unknown)} of {len(fingerprint)} slides state no size of their pixels"
        raise DatasetError(problem, "tiles.mm", "Give it with --mm-per-pixel, or leave these out")
    shape = Decision(list(tiles.shape), "it follows the section tiles: each slide is a bag of them")
    spacing = Decision(None, "tiles.mm is the size of a pixel")
    extent = np.tile(np.asarray(tiles.shape, dtype=float), (len(fingerprint), 1))
    return Grid(spacing, shape, tiles.shape, [[1, 1, 1]], extent, whole=True, tiles=tiles)


def tile_sections(fingerprint: Fingerprint, grid: Grid) -> dict[str, dict[str, Decision]]:
    """The section "tiles", of bags alone."""
    if (tiles := grid.tiles) is None:
        return {}
    coarser = sum(max(case.steps) > tiles.mm for case in fingerprint.cases)
    longer = f"; those of {coarser} of {len(fingerprint)} training slides are longer, and stay so" if coarser else ""
    fewer = "" if tiles.count == Tiles.count else f", less than {Tiles.count}, for which there is too little memory"
    decisions = {
        "size": Decision(tiles.size, "a tile then shows some hundred cells with what is around them"),
        "mm": Decision(tiles.mm, f"cells and their nuclei are told at this size of a pixel{longer}"),
        "count": Decision(
            tiles.count, f"other ones are sampled each time, so that all of a slide is seen{fewer}", ILSE
        ),
    }
    return {"tiles": decisions}


def check_whole_structures(settings: PlanSettings, fingerprint: Fingerprint, grid: Grid) -> None:
    """PlanError for a patch that cuts what the task must see as a whole: structures, or images whose size it learns.

    grid: of the plan for these training cases
    """
    task = settings.task
    chosen = settings.preprocessing
    patch = settings.training.patch
    because = task.why_uncut
    median = np.median(grid.extent, axis=0).round()
    if because and any(size < whole for size, whole in zip(patch, median, strict=True)):
        problem = f"{because}; images have {median.astype(int).tolist()} voxels, and patches {list(patch)}"
        raise PlanError(problem, "training.patch", "Give patches as large as the images, or another task.loss")
    if not GridNeeds.from_task(task).scaled or chosen.shape is not None or chosen.crop != "none":
        return
    shapes, steps = (np.array(one, dtype=float) for one in without_single_slice(fingerprint))
    extent = np.rint(shapes if chosen.spacing is None else shapes * steps / np.asarray(chosen.spacing, dtype=float))
    for name, size in (("training.patch", patch), ("inference.patch", settings.inference.patch)):
        if count := int((extent > np.asarray(size)).any(axis=1).sum()):
            cut_cases = errors.count_phrase(count, "training case")
            problem = f"{cut_cases} would be cut, and a part of an image does not show its size"
            needed = [int(n) for n in np.ceil(extent.max(axis=0) / 4) * 4]
            raise PlanError(problem, name, f"Give {needed}, or a coarser preprocessing.spacing")


def crops_content(fingerprint: Fingerprint) -> bool:
    """Whether patches are cut from the content of images alone: around that of the median one much is empty."""
    return float(np.median([case.content for case in fingerprint.cases])) < EMPTY


def _cut_patches(
    fingerprint: Fingerprint,
    device: str,
    room: float,
    reduction: float,
    asked: Sequence[float] | None,
    *,
    cropped: bool,
    kept: Decision | None = None,
) -> Grid:
    """Patches from images of one spacing, or on their own grids where these are kept or no size of voxels is known."""
    shapes, steps = without_single_slice(fingerprint, cropped=cropped)
    spacing = Decision(list(asked), BY_HAND) if asked is not None else kept or _spacing(fingerprint, shapes, steps)
    extent = np.array(shapes, dtype=float)
    if spacing.value is not None:
        extent = extent * np.array(steps) / np.asarray(spacing.value)
    extent = extent / reduction
    # What is given away in fineness is taken as view: less is cut at the edges of patches.
    voxels = PATCH_VOXELS[len(shapes[0])][training_memory.device_kind(device)] * room * reduction
    patch, strides = _patch(extent, spacing.value, voxels)
    shape = Decision(None, "patches are cut from a grid that keeps the proportions of the body")
    return Grid(spacing, shape, patch, strides, extent, dense=True, cropped=cropped)


def _stretch(fingerprint: Fingerprint, needs: GridNeeds, longest: float, device: str) -> Grid:
    """Whole images, each brought to one shape."""
    shapes, steps = without_single_slice(fingerprint)
    shape = _shape(shapes, longest, device, dense=needs.dense)
    if needs.scaled and len(set(shapes)) > 1:
        lost = f"sizes in {fingerprint.unit} are not known, and in voxels they are lost where images differ in shape"
        shape = replace(shape, because=f"{shape.because}; {lost}")
    size = np.asarray(shape.value, dtype=float)
    step = np.ones(len(size))
    if not needs.dense and all(case.physical for case in fingerprint.cases):
        step = np.median(np.array(shapes) * np.array(steps), axis=0) / size  # of a voxel of the usual image
    spacing = Decision(None, "each image is brought to one shape as a whole")
    extent = np.tile(size, (len(shapes), 1))
    patch = tuple(int(n) for n in shape.value)
    strides = _strides(size, step, True)
    return Grid(spacing, shape, patch, strides, extent, whole=True, dense=needs.dense)


def usual_voxels(grid: Grid, device: str) -> int:
    """Voxels of a patch that a device computes quickly."""
    return PATCH_VOXELS[len(grid.patch)][training_memory.device_kind(device)]


def without_single_slice(
    fingerprint: Fingerprint, *, cropped: bool = False
) -> tuple[list[tuple[int, ...]], list[tuple[float, ...]]]:
    """(shapes, steps) without the single slice, where every case has just one; cropped: shapes of the content alone."""
    shapes = [case.shape for case in fingerprint.cases]
    sizes = [case.content_shape or case.shape for case in fingerprint.cases] if cropped else shapes
    steps = [case.steps for case in fingerprint.cases]
    if not all(len(shape) == 3 and 1 in shape for shape in shapes):
        return sizes, steps
    single = [max(axis for axis, size in enumerate(shape) if size == 1) for shape in shapes]
    return (
        [shape[:axis] + shape[axis + 1 :] for shape, axis in zip(sizes, single, strict=True)],
        [step[:axis] + step[axis + 1 :] for step, axis in zip(steps, single, strict=True)],
    )


def thick_axis(spacing: Sequence[float] | None) -> int | None:
    """The axis of a three-dimensional grid along which voxels are more than three times as long as along the others."""
    if spacing is None or len(spacing) != 3:
        return None
    axis = int(np.argmax(spacing))
    others = max(value for n, value in enumerate(spacing) if n != axis)
    return axis if spacing[axis] > ANISOTROPIC * others else None


def training_window(grid: Grid, size: Mapping[str, PlainValue]) -> Decision:
    """The training patch; larger where one window then holds nearly every image, or where the network convolves.

    size: of the network
    """
    if grid.whole:
        return Decision(list(grid.patch), "the network sees the whole image, as in training")
    patch = np.asarray(grid.patch)
    multiple = np.prod(grid.strides, axis=0)
    covering = np.ceil(np.percentile(grid.extent, 95, axis=0) / multiple - ROUNDING).astype(int) * multiple
    if covering.prod() <= 2 * grid.voxels and (covering >= patch).all():
        return Decision(covering.tolist(), "it holds 95 % of the training cases whole: one window instead of several")
    longer = covering > patch
    if len(patch) > 1 and "strides" in size and not FOR_ONE_SHAPE.intersection(size) and longer.any():
        by = min(LONGER_WINDOW, LARGER_WINDOW ** (1 / np.count_nonzero(longer)))
        larger = np.where(longer, np.floor(by * patch / multiple + ROUNDING).astype(int) * multiple, patch)
        window = np.maximum(patch, np.minimum(larger, covering))
        if (window > patch).any():
            because = (
                f"{window.prod() / patch.prod():.2g} times the {grid_geometry.pixels_or_voxels(len(patch))} of a patch "
                "of training: less of each window lies near a border, and fewer are needed"
            )
            return Decision(window.tolist(), because)
    return Decision(list(grid.patch), "the network then sees windows of the size that it was trained on", NNUNET)


def _spacing(
    fingerprint: Fingerprint, shapes: Sequence[tuple[int, ...]], steps: Sequence[tuple[float, ...]]
) -> Decision:
    """The median; along thick slices the 10th percentile, so that the thinnest are not thrown away (nnU-Net)."""
    if not all(case.physical for case in fingerprint.cases):
        return Decision(None, "the size of a voxel is not known: images keep their grid")
    spacings = np.array(steps)
    median = _round_spacing(np.median(spacings, axis=0))
    because = f"that is the median spacing of {len(steps)} training cases"
    axis = thick_axis(median.tolist())
    if axis is not None:
        size = np.median(np.array(shapes) * spacings, axis=0) / median
        others = np.delete(median, axis)
        if ANISOTROPIC * size[axis] < np.delete(size, axis).min():
            fine = max(float(np.percentile(spacings[:, axis], 10)), float(others.max()))
            because += (
                f", but along axis {axis} the 10th percentile, {fine:.4g} instead of {median[axis]:.4g} mm: its voxels "
                f"are more than {ANISOTROPIC:g} times as long as the others', and few"
            )
            median[axis] = _round_spacing(np.array([fine]))[0]
    return Decision(median.tolist(), because, NNUNET)


def _shape(shapes: Sequence[tuple[int, ...]], longest: float, device: str, *, dense: bool) -> Decision:
    median = np.median(np.array(shapes), axis=0)
    factor = min(1.0, longest / median.max())
    steps = [_even(size * factor, dense) for size in median]
    shape = [max(8, round(size * factor / step) * step) for size, step in zip(median, steps, strict=True)]
    because = f"the median of {len(shapes)} training cases is {tuple(int(n) for n in median)}"
    if factor < 1:
        because += f", brought down to at most {longest:.0f} voxels a side for the {device}"
    return Decision(shape, because)


def _even(size: float, dense: bool) -> int:
    """The number that divides a side: 4; for a U-Net up to 16, so that the side can be halved as often."""
    return 2 ** int(np.clip(math.log2(max(size, 1) / 8), 2, 4)) if dense else 4


def _scale(
    shapes: Floats, steps: Floats, longest: float, unit: str, device: str, *, dense: bool, asked: Sequence[float] | None
) -> Grid:
    """Whole images in mm: the spacing at which large ones have no more voxels a side than the device goes through.

    dense: with an output for each voxel; then no more voxels than a cube with sides of `longest` has
    asked: the spacing that was set by hand, in place of that one
    """
    sizes = shapes * steps
    size = _holding_size(sizes)
    median = np.median(steps, axis=0)
    # With an output for each voxel the work counts voxels, so a long image need not be coarser than a cube of as many.
    least = float(size.prod() ** (1 / len(size)) if dense else size.max()) / longest
    spacing = _round_spacing(np.maximum(median, least)) if asked is None else np.asarray(asked, dtype=float)
    fine = _spacing_reason(median, least, device, unit)
    because = f"sizes in {unit} may be the answer, so every image keeps its own; {fine}{_large_image_note(sizes, unit)}"
    evens = [(n, _even(n, dense)) for n in (size / spacing).tolist()]
    patch = [max(8, math.ceil(n / even - ROUNDING) * even) for n, even in evens]
    padded = (
        "a common shape would hide sizes, and so would the mean over windows: images are padded to what holds each of "
        f"{len(shapes)} training cases whole"
    )
    padded += f", and {MARGIN - 1:.0%} more" if (size > sizes.max(axis=0)).any() else ""
    decided = Decision(spacing.tolist(), because if asked is None else BY_HAND)
    shape = Decision(None, padded)
    strides = _strides(np.asarray(patch, dtype=float), np.ones(len(patch)) if dense else spacing, True)
    return Grid(decided, shape, tuple(patch), strides, shapes * steps / spacing, whole=True, dense=dense)


def _holding_size(sizes: Floats) -> Floats:
    """mm per axis that hold every image, and where they differ somewhat more."""
    largest = sizes.max(axis=0)
    return cast("Floats", np.where(largest > (1 + ROUNDING) * sizes.min(axis=0), MARGIN * largest, largest))


def _large_image_note(sizes: Floats, unit: str) -> str:
    """A note that a few much larger images decide how finely all images are seen; empty where there are none."""
    usual = np.percentile(sizes, 95, axis=0, method="lower").max()
    count = int((sizes.max(axis=1) > ODD * usual).sum())
    if not count:
        return ""
    which = "one case is" if count == 1 else f"{count} cases are"
    longest = f"{sizes.max():.4g} {unit}"
    return f"; {which} up to {longest} long, the others at most {usual:.4g}: without them all are seen finer"


def _round_spacing(spacing: Floats) -> Floats:
    """To 1e-4, of finer grids to four digits: milliseconds in s, micrometres in mm."""
    return np.round(spacing, max(4, 3 - math.floor(math.log10(spacing.min()))))


def _spacing_reason(median: Floats, least: float, device: str, unit: str) -> str:
    if (median >= least).all():
        return "the median spacing of the training cases is fine enough"
    return f"{least:.3g} {unit} at least, so that the {device} processes large ones as a whole"


def _patch(extent: Floats, spacing: Sequence[float] | None, voxels: float) -> tuple[tuple[int, ...], list[list[int]]]:
    """The median image, or as much of it as `voxels` hold, in whole steps of the strides."""
    size = np.median(extent, axis=0)
    while size.prod() > voxels:  # the longest axis gives way first
        size[size.argmax()] *= 0.95
    step = np.ones(len(size)) if spacing is None else np.asarray(spacing, dtype=float)
    strides = _strides(size, step, False)
    multiple = np.prod(strides, axis=0)
    return tuple(int(n) for n in np.ceil(size / multiple - ROUNDING) * multiple), strides


def _strides(size: Floats, step: Floats, integers: bool) -> list[list[int]]:
    """An axis is halved while at least 4 voxels are left and its voxels are not yet twice as long as the shortest.

    integers: of a shape that is fixed, while its number of voxels is even
    """
    left = size.copy()
    strides = [[1] * len(size)]
    while len(strides) < MOST_STAGES:
        fine = (left / 2 >= FEWEST_VOXELS) & (left % 2 == 0) if integers else left / 2 >= FEWEST_VOXELS
        halved = fine & (step <= 1.5 * step[fine].min(initial=np.inf))
        if not halved.any():
            break
        strides.append([2 if axis else 1 for axis in halved])
        left = np.where(halved, left / 2, left)
        step = np.where(halved, step * 2, step)
    return strides


def coarsen_in_haste(
    decisions: Mapping[str, Decision], fingerprint: Fingerprint, machine: Machine, minutes: float | None
) -> dict[str, Decision]:
    """A task's decisions without how coarse the grid may be, and with a coarser one where the minutes are few.

    minutes: of one training; None where none were given
    """
    changed = dict(decisions)
    coarsest = changed.pop(COARSEST, None)
    reduction = changed.get(REDUCTION)
    if coarsest is None or reduction is None or minutes is None:
        return changed
    pixels = sum(math.prod(case.shape) for case in fingerprint.cases)
    pixels_a_second = PIXELS_A_SECOND[training_memory.device_kind(machine.device)] * (
        machine.threads if machine.is_processor else 1
    )
    looks = 60 * minutes * pixels_a_second / pixels
    factors = range(int(reduction.value), int(coarsest.value) + 1)
    factor = next((float(one) for one in factors if looks * one**2 >= ENOUGH_LOOKS), float(coarsest.value))
    if factor > reduction.value:
        because = (
            f"on a grid {factor / reduction.value:g} times as fine, {minutes:g} minutes would show the network each "
            "picture "
            f"about {looks * reduction.value**2:.0f} times; on this grid they show it "
            f"{looks * factor**2:.0f} times, and it learns more"
        )
        changed[REDUCTION] = Decision(factor, because)
    return changed

"""Plans for an instance segmentation: settings from the training objects, thresholds from validation maps."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from isocenter.belief import certainty_decisions, covering_decisions
from isocenter.errors import DatasetError, PlanError, counted
from isocenter.evaluation import instance_overlap
from isocenter.tasks.instances.decode import Decoder
from isocenter.values import Array, CaseFacts, Dataset, Decision, Fingerprint, Prediction, blocks, counted_in

if TYPE_CHECKING:
    from isocenter.tasks.instances.task import InstanceSegmentation

NAYLOR, CAICEDO = "doi:10.1109/TMI.2018.2865709", "doi:10.1038/s41592-019-0612-7"
# In voxels of the shortest side: less shows no hill, and farther from a border nothing changes for the eye.
LEAST_REACH, MOST_REACH = 2.0, 12.0
# Of the training objects so many per cent may be slips of the pen; half of what is left is no object.
SLIPS = 1.0
# Until validation cases have decided.
INSIDE, PROMINENCE = 0.5, 0.2
# What is tried on them.
TRIED: Mapping[str, tuple[float, ...]] = {
    "inside": (0.3, 0.4, INSIDE, 0.6, 0.7),
    "prominence": (0.1, PROMINENCE, 0.3, 0.4),
}
# Of fewer objects of validation cases a threshold would be chance.
FEWEST_OBJECTS = 10


def settings_for(dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
    """The fields of an instance segmentation for these training cases; DatasetError where none has an object."""
    cases = [case for case in fingerprint.cases if objects_of(case)]
    if not cases:
        where = str(dataset.root or dataset.name)
        raise DatasetError("the training cases have no objects", where, "Give cases with something to find")
    sizes = [size for case in cases for size in objects_of(case)]
    counts = f"{counted(len(sizes), 'object')} of {counted(len(cases), 'training case')}"
    steps = steps_of(fingerprint)
    radius = float(np.median([_radius(size * math.prod(steps), len(steps)) for size in sizes]))
    reach = float(np.clip(radius, LEAST_REACH, MOST_REACH))
    physical = all(case.voxel_volume is not None for case in cases)
    volumes = [size * (case.voxel_volume if physical else 1) for case in cases for size in objects_of(case)]  # type: ignore[operator]
    return {
        "steps": Decision(list(steps), "sides of a voxel, the shortest being 1: the median of the training cases"),
        "reach": Decision(
            round(reach, 2),
            f"sides of a voxel from the border inwards; the median radius of {counts} is {radius:.3g}",
            NAYLOR,
        ),
        "smallest": Decision(
            round(float(np.percentile(volumes, SLIPS)) / 2, 6),
            f"{unit_of_size(len(cases[0].shape), physical)}: half of what {100 - SLIPS:g} % of {counts} have at least",
        ),
        "in_voxels": Decision(not physical, f"the size of a voxel is {'' if physical else 'not '}known in training"),
        "inside": Decision(
            None, f"found on the validation cases after training; {INSIDE} where their objects are too few"
        ),
        "prominence": Decision(
            None, f"found on the validation cases after training; {PROMINENCE} where their objects are too few"
        ),
        **certainty_decisions(),
        **covering_decisions("covering objects may miss a tenth of those of a case on average"),
    }


def objects_of(case: CaseFacts) -> list[int]:
    """Voxels of each object."""
    return [count for number, count in case.references.get("instances", {}).items() if number != 0]


def steps_of(fingerprint: Fingerprint) -> tuple[float, ...]:
    """Sides of a voxel of the network's grid, the shortest being 1; volumes of a single slice are pictures, where
    all are."""
    shapes = [case.shape for case in fingerprint.cases]
    steps = [case.steps for case in fingerprint.cases]
    if all(len(shape) == 3 and 1 in shape for shape in shapes):
        steps = [_without_slice(shape, step) for shape, step in zip(shapes, steps, strict=True)]
    median = np.median(np.array(steps), axis=0)
    return tuple(np.round(median / median.min(), 3).tolist())


def size_of_objects(prediction: Prediction) -> tuple[int, float | None, str]:
    """Number of objects, their mean size, its unit; no size without an object."""
    assert prediction.data is not None  # noqa: S101 - as decoded
    geometry, count = prediction.geometry, len(prediction.labels)
    voxels = sum(int(np.count_nonzero(part)) for _, part in blocks(prediction.data))
    size = round(voxels / count * (geometry.voxel_volume or 1.0), 6) if count else None
    return count, size, unit_of_size(geometry.ndim, geometry.voxel_volume is not None)


def unit_of_size(axes: int, physical: bool) -> str:
    """The unit in which the size of an object is counted."""
    if physical:
        return "mm²" if axes == 2 else "mm³"
    return counted_in(axes)


def check_settings(task: InstanceSegmentation) -> None:
    """PlanError names the setting that cannot be."""
    if len(task.steps) not in (2, 3) or not all(0 < step < math.inf for step in task.steps):
        raise PlanError(f"steps of {list(task.steps)}", "task.steps", "Give a length above 0 for 2 or 3 axes")
    if not 1 <= task.reach < math.inf:
        raise PlanError(f"a reach of {task.reach} voxels", "task.reach", "Give 1 or more")
    if not 0 <= task.smallest < math.inf:
        raise PlanError(f"a smallest size of {task.smallest}", "task.smallest", "Give 0 or more")
    for name, share in (("inside", task.inside), ("prominence", task.prominence)):
        if share is not None and not 0 < share < 1:
            raise PlanError(f"{share} is not between 0 and 1", f"task.{name}", "Give a share")


def thresholds(
    decoder: Decoder,
    names: Collection[str],
    maps: Sequence[Mapping[str, Any]],
    references: Sequence[Array],
    grids: Sequence[Mapping[str, Any]],
) -> dict[str, Decision]:
    """The probability of inside, then the prominence of a hill, that give the highest mean AP of these cases.

    decoder:  with the default of each field, or what is set already
    names:    of the fields that are open
    grids:    of each case the fields that its grid decides
    """
    total = sum(len(np.setdiff1d(one, 0)) for one in references)
    if total < FEWEST_OBJECTS:
        because = f"{counted(total, 'object')} of validation cases are too few (at least {FEWEST_OBJECTS} are needed)"
        return {name: Decision(getattr(decoder, name), because) for name in names}

    given = [(np.asarray(one["inside"]), np.asarray(one["height"])) for one in maps]

    def mean_ap(tried: Decoder) -> float:
        """Over the cases."""
        scores = [
            instance_overlap(replace(tried, **grid)(*own), truth).ap()
            for own, truth, grid in zip(given, references, grids, strict=True)
        ]
        return float(np.nanmean(scores))

    decisions: dict[str, Decision] = {}
    for name, values in TRIED.items():
        if name not in names:
            continue
        settings: list[dict[str, Any]] = [{name: value} for value in values]
        tried = {value: mean_ap(replace(decoder, **one)) for value, one in zip(values, settings, strict=True)}
        # Of equals the one next to what is usual.
        usual = getattr(decoder, name)
        best = max(tried, key=lambda value: (round(tried[value], 4), -abs(value - usual)))
        decoder = replace(decoder, **settings[values.index(best)])
        because = (
            f"the highest mean AP, {tried[best]:.3f} ({usual} gives {tried[usual]:.3f}), of {counted(total, 'object')} "
            f"of {counted(len(maps), 'validation case')}"
        )
        decisions[name] = Decision(best, because, CAICEDO)
    return decisions


def _radius(size: float, axes: int) -> float:
    """The radius of a disc or ball of this size."""
    return math.sqrt(size / math.pi) if axes == 2 else (3 * size / (4 * math.pi)) ** (1 / 3)


def _without_slice(shape: Sequence[int], step: Sequence[float]) -> tuple[float, ...]:
    single = max(axis for axis, size in enumerate(shape) if size == 1)
    return tuple(np.delete(np.asarray(step, dtype=float), single).tolist())

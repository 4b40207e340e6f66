"""Plans for a detection: settings from the training boxes, the threshold from validation boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from isocenter.belief import (
    CALLED_FROM,
    MAIER_HEIN,
    certainty_decisions,
    covering_decisions,
)
from isocenter.errors import DatasetError, PlanError, counted
from isocenter.tasks.detection.scores import SELECTED
from isocenter.tasks.shared import axes_of, coarser
from isocenter.values import BoundingBoxes, Dataset, Decision, Fingerprint

if TYPE_CHECKING:
    from isocenter.tasks.detection.task import Detection

ZHOU = "arXiv:1904.07850"
# As nnDetection for volumes: an overlap of 0.1 is a find there, because small boxes overlap little in three axes.
NNDETECTION = "arXiv:2106.00817"
OVERLAPS = {2: 0.5, 3: 0.1}
SUPPRESSION = {2: 0.5, 3: 0.2}
# Voxels that the smallest kind of box is still across on the network's grid, four to each answer of a pyramid. Chosen
# by reasoning and never varied; what it leads to is in docs/benchmarks.md.
FINE_ENOUGH = 16
# Voxels across from which a pyramid finds more in volumes than maps of centres do: of simulated nodules, half of them
# less than 7.9 across, in 15 minutes on one core CPM .959 beside .769 (bench/nodules.py). Of smaller ones nothing is
# known.
PYRAMID_IN_VOLUMES = 6.0


def settings_for(dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
    """The fields of a detection for these training cases; DatasetError where none of them has a box."""
    drawn = _drawn(fingerprint)
    counts = Counter(name for boxes in drawn for name in boxes.names)
    if not counts:
        raise DatasetError(
            "the training cases have no boxes", str(dataset.root or dataset.name), "Give cases with something to find"
        )
    declared = [label.name for label in dataset.classes.get("boxes", ())] or sorted(counts)
    shares = ", ".join(f"{counts[name]} {name}" for name in declared)
    axes, physical = axes_of(fingerprint), all(case.physical for case in fingerprint.cases)
    lengths = np.concatenate([_lengths(boxes, axes) for boxes in drawn]) / reduction(fingerprint).value
    return {
        "classes": Decision(declared, f"{shares} on {counted(len(drawn), 'training image')}{_made(dataset)}"),
        "axes": Decision(axes, f"the images have {axes}"),
        "typical": Decision(
            round(float(np.median(lengths)), 3),
            f"voxels that the network sees: the median of the sides of {counted(len(lengths) // axes, 'box', 'boxes')}",
            ZHOU,
        ),
        "suppression": Decision(
            SUPPRESSION[axes], "two boxes of one class that overlap so much are one find", NNDETECTION
        ),
        "threshold": Decision(
            None, f"found on the validation cases after training; {CALLED_FROM} where their boxes are too few", ZHOU
        ),
        "in_voxels": Decision(not physical, f"the size of a voxel is {'' if physical else 'not '}known in training"),
        **certainty_decisions(),
        **covering_decisions("covering boxes may miss a tenth of those of a case on average"),
    }


def decisions(fingerprint: Fingerprint, primary: str) -> dict[str, Decision]:
    """The network for boxes of this size, the reduction of images, and average precision to select and judge."""
    selection = "average precision of the validation cases, the mean of that at IoU 0.1 and at 0.5"
    because = "every score enters, without a threshold; so much overlap is a find"
    return {
        **network(fingerprint),
        "preprocessing.reduction": reduction(fingerprint),
        "training.selection": Decision(SELECTED, selection),
        "evaluation.primary": Decision(primary, because, MAIER_HEIN),
    }


def reduction(fingerprint: Fingerprint) -> Decision:
    """The factor by which images are finer than the smallest kind of box needs."""
    kind = smallest_kind(fingerprint)
    if kind is None:
        return Decision(1.0, "the training cases have no boxes")
    smallest, across = kind
    words = f"half of the boxes of {smallest} are less than {across:.3g} voxels across"
    return replace(coarser(fingerprint, across, FINE_ENOUGH, words), source=ZHOU)


def smallest_kind(fingerprint: Fingerprint) -> tuple[str, float] | None:
    """The class whose boxes are shortest, and the median of their shortest sides in voxels; None without a box."""
    drawn, axes = _drawn(fingerprint), axes_of(fingerprint)
    kinds = {name for boxes in drawn for name in boxes.names}
    least = {name: _across([boxes.of(name) for boxes in drawn], axes) for name in sorted(kinds)}
    return min(least.items(), key=lambda item: item[1], default=None)


def network(fingerprint: Fingerprint) -> dict[str, Decision]:
    """A pyramid where its coarser answers are fine enough, in pictures at the rate at which it was tried."""
    if axes_of(fingerprint) == 2 and reduction(fingerprint).value > 1:
        because = "boxes are many voxels across: answers a fourth as fine tell them apart, in a fraction of the time"
        return {
            "network.name": Decision("pyramid", because, "arXiv:1612.03144"),
            "training.learning_rate": Decision(2e-3, "the rate of a trial on blood smears; no other was tried"),
        }
    smallest = smallest_kind(fingerprint)
    if axes_of(fingerprint) == 3 and smallest is not None and smallest[1] >= PYRAMID_IN_VOLUMES:
        because = (
            f"half of the boxes of {smallest[0]} are {smallest[1]:.3g} voxels across or more: of simulated nodules of "
            "such a size it finds more than maps of centres do, in as many minutes"
        )
        return {"network.name": Decision("pyramid", because, "docs/benchmarks.md")}
    return {"network.name": Decision("unet", "it gives an output for every voxel", "arXiv:1505.04597")}


def check_settings(task: Detection) -> None:
    """PlanError names the setting that cannot be."""
    if not task.classes or len(set(task.classes)) < len(task.classes):
        raise PlanError("at least one class is needed, each once", "task.classes", "Name each class once")
    if task.axes not in (2, 3):
        raise PlanError(f"{task.axes} axes", "task.axes", "Give 2 or 3")
    if not 0 < task.typical < float("inf"):
        raise PlanError(f"a side of {task.typical} voxels", "task.typical", "Give a length above 0")
    for name, share in (("suppression", task.suppression), ("threshold", task.threshold)):
        if share is not None and not 0 < share <= 1:
            raise PlanError(f"{share} is not in (0, 1]", f"task.{name}", "Give a share")


def _made(dataset: Dataset) -> str:
    """The origin of the boxes in words, where no file has them."""
    return f"; {dataset.derived['boxes']}" if "boxes" in dataset.derived else ""


def _drawn(fingerprint: Fingerprint) -> list[BoundingBoxes]:
    """The boxes of each training case that has a reference."""
    return [case.references["boxes"] for case in fingerprint.cases if "boxes" in case.references]


def _across(boxes: Sequence[BoundingBoxes], axes: int) -> float:
    """The median of the shortest sides, in voxels."""
    return float(np.median(np.concatenate([_lengths(one, axes).reshape(-1, axes).min(axis=1) for one in boxes])))


def _lengths(boxes: BoundingBoxes, axes: int) -> np.ndarray:
    """(n * axes,) sides, without those along an axis of a single slice."""
    lengths = boxes.lengths
    if boxes.axes > axes:
        lengths = np.sort(lengths, axis=1)[:, boxes.axes - axes :]
    return np.ravel(lengths)

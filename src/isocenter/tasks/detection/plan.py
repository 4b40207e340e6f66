"""Plans for a detection: settings from the training boxes, the threshold from validation boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from isocenter.belief import certainty_decisions, covering_decisions, level_between
from isocenter.errors import DatasetError, PlanError, counted
from isocenter.evaluation import Matches
from isocenter.tasks.detection.scores import SELECTED
from isocenter.tasks.shared import axes_of, coarser
from isocenter.values import BoundingBoxes, Dataset, Decision, Fingerprint, Floats

if TYPE_CHECKING:
    from isocenter.tasks.detection.task import Detection

ZHOU, MAIER_HEIN = "arXiv:1904.07850", "doi:10.1038/s41592-023-02151-z"
# As nnDetection for volumes: an overlap of 0.1 is a find there, because small boxes overlap little in three axes.
NNDETECTION = "arXiv:2106.00817"
OVERLAPS = {2: 0.5, 3: 0.1}
SUPPRESSION = {2: 0.5, 3: 0.2}
# Until validation cases have decided: CenterNet's own for its pictures.
THRESHOLD = 0.3
# Voxels that the smallest kind of box is still across on the network's grid, four to each answer of a pyramid. Chosen
# by reasoning and never varied; what it leads to is in docs/benchmarks.md.
FINE_ENOUGH = 16
# Voxels across from which a pyramid finds more in volumes than maps of centres do: of simulated nodules, half of them
# less than 7.9 across, in 15 minutes on one core CPM .959 beside .769 (bench/nodules.py). Of smaller ones nothing is
# known.
PYRAMID_IN_VOLUMES = 6.0
# Of fewer boxes of validation cases a threshold would be chance.
FEWEST_BOXES = 10


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
            None, f"found on the validation cases after training; {THRESHOLD} where their boxes are too few", ZHOU
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


def threshold(
    predicted: Sequence[BoundingBoxes], references: Sequence[BoundingBoxes], names: Sequence[str], overlap: float
) -> Decision:
    """The score from which on boxes are called: that of the highest F1 over all classes together."""
    scores: list[Floats] = [np.zeros(0)]
    right, total = [np.zeros(0, bool)], 0
    for name in names:
        own, truth = [one.of(name) for one in predicted], [one.of(name) for one in references]
        matches = Matches.at(overlap, own, truth)
        scores.append(matches.scores)
        right.append(matches.right)
        total += int(matches.references.sum())
    if total < FEWEST_BOXES or not np.concatenate(right).any():
        because = (
            f"{counted(total, 'box', 'boxes')} of validation cases are too few (at least {FEWEST_BOXES} are needed)"
        )
        return Decision(THRESHOLD, because if total < FEWEST_BOXES else "no box of a validation case was found")
    # Boxes of one score are called together.
    levels, place = np.unique(np.concatenate(scores), return_inverse=True)
    hits, called = (np.bincount(place, one)[::-1].cumsum() for one in (np.concatenate(right), np.ones(len(place))))
    f1 = 2 * hits / (called + total)
    best = int(f1.argmax())
    # Half-way to the next, so that rounding does not decide.
    upper, following = [*levels[::-1], 0.0][best : best + 2]
    level = level_between(float(upper), float(following))
    because = (
        f"the highest F1, {f1[best]:.3f}, of {counted(total, 'box', 'boxes')} of validation cases at IoU {overlap}"
    )
    return Decision(level, because, MAIER_HEIN)


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

"""What the training masks say about how a segmentation is taught and scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isocenter.errors import DatasetError, PlanError
from isocenter.tasks.label_maps import plain
from isocenter.tasks.losses import LOSSES
from isocenter.values import Dataset, Decision, Fingerprint, Label

# A structure thinner than this (voxels) is nearly all surface; so is a piece of fewer voxels than a cube of 5.
THIN, TINY = 4.0, 125
# Where structures fill less than this share of the voxels, nearly every voxel is easily told to be background.
SPARSE = 1e-3
# Labels whose volumes differ more than this many times are weighted, by at most this factor.
UNLIKE, HEAVIEST = 100.0, 10.0
MAIER_HEIN = "doi:10.1038/s41592-023-02151-z"


def settings_for(dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
    """The fields of a segmentation for these training cases; DatasetError where every mask is empty."""
    voxels = {value: count for value, count in fingerprint.voxels().items() if value != 0}
    if not voxels:
        where = str(dataset.root or dataset.name)
        raise DatasetError("every training mask is empty", where, "Give masks that mark something")
    declared = tuple(label for label in dataset.classes.get("mask", ()) if label.value != 0)
    because = "the data set declares them"
    if not declared:
        declared = tuple(Label(value, str(value)) for value in voxels)
        because = f"they are the values of {len(fingerprint)} training masks; none were declared"
    thin = _thin(declared, fingerprint)
    return {
        "labels": Decision([plain(label) for label in declared], because),
        "loss": _loss(thin, fingerprint),
        "weights": _weights(declared, voxels),
        "tolerance": _tolerance(declared, thin, fingerprint),
        "postprocessing": Decision(
            None, "it is chosen on the validation cases after training, and off unless it helps them"
        ),
    }


def check_settings(
    labels: Sequence[Label],
    loss: str,
    tolerance: Mapping[str, float],
    weights: Mapping[str, float],
    postprocessing: Mapping[str, Any],
) -> None:
    """PlanError names the setting that cannot be; the last three are by label name."""
    values, names = {label.value for label in labels}, {label.name for label in labels}
    if not labels or min(len(values), len(names)) < len(labels) or 0 in values:
        remedy = "Give each structure its own value and name"
        raise PlanError("labels must be different and not 0", "task.labels", remedy)
    if loss not in LOSSES:
        raise PlanError(f"there is no loss {loss!r}", "task.loss", f"Choose one of {', '.join(sorted(LOSSES))}")
    for setting, given in (("tolerance", tolerance), ("weights", weights), ("postprocessing", postprocessing)):
        others = sorted(set(given) - names - ({"background"} if setting == "weights" else set()))
        if others:
            raise PlanError(f"there is no label {others[0]!r}", f"task.{setting}", f"Name {', '.join(sorted(names))}")
    for setting, numbers in (("tolerance", tolerance), ("weights", weights)):
        for name, number in numbers.items():
            if not 0 < number < math.inf:
                raise PlanError(f"{number} for {name}", f"task.{setting}", "Give a number greater than 0")
    if missing := sorted(names - set(tolerance)):
        raise PlanError(f"none for {missing[0]}", "task.tolerance", "Give one for each label, or one for all")


def _thin(labels: Sequence[Label], fingerprint: Fingerprint) -> dict[str, str]:
    """{label: in words why its surface is nearly all of it}"""
    found = {}
    for label in labels:
        width = _median([case.thickness[label.value] for case in fingerprint.cases if label.value in case.thickness])
        piece = _median(
            [
                case.references["mask"][label.value] / case.components[label.value]
                for case in fingerprint.cases
                if case.components.get(label.value) and case.references.get("mask", {}).get(label.value)
            ]
        )
        if width < THIN:
            found[label.name] = f"{label.name} is {width:.1f} voxels thin"
        elif piece < TINY:
            found[label.name] = f"a piece of {label.name} has {piece:.0f} voxels"
    return found


def _loss(thin: Mapping[str, str], fingerprint: Fingerprint) -> Decision:
    if thin:
        because = f"{'; '.join(thin.values())} (medians of the training cases): nearly all of it is surface"
        return Decision("dice+ce+boundary", because, "arXiv:1905.07852")
    counts = fingerprint.voxels()
    share = 1 - counts.get(0, 0) / max(1, sum(counts.values()))
    if share < SPARSE:
        because = f"structures fill {100 * share:.3f} % of the voxels: what is easily background shall count little"
        return Decision("dice+focal", because, "doi:10.1016/j.media.2021.102035")
    because = (
        f"structures fill {100 * share:.1f} % of the voxels: overlap and voxel-wise terms together train stably "
        "with small and with large ones"
    )
    return Decision("dice+ce", because, "doi:10.1038/s41592-020-01008-z")


def _weights(labels: Sequence[Label], voxels: Mapping[int, int]) -> Decision:
    counts = {label.name: voxels[label.value] for label in labels if voxels.get(label.value)}
    ratio = max(counts.values(), default=1) / min(counts.values(), default=1)
    if len(counts) < 2:
        return Decision(None, "one structure is drawn, and Dice weighs it against the background")
    if ratio <= UNLIKE:
        because = f"the volumes of the labels differ at most {ratio:.1f} times, and Dice counts each label alike"
        return Decision(None, because)
    rarest = min(counts, key=lambda name: counts[name])
    middle = float(np.median(list(counts.values())))
    weights = {name: round(float(np.clip((middle / n) ** 0.5, 1, HEAVIEST)), 3) for name, n in counts.items()}
    because = f"{rarest} has {ratio:.0f} times fewer voxels than the largest label: root of the inverse volume"
    return Decision(weights, because)


def _tolerance(labels: Sequence[Label], thin: Mapping[str, str], fingerprint: Fingerprint) -> Decision:
    step = float(np.median(fingerprint.steps))
    known = all(case.physical for case in fingerprint.cases)
    digits = max(3, 2 - math.floor(math.log10(step)))
    value: dict[str, Any] = {label.name: round((1 if label.name in thin else 2) * step, digits) for label in labels}
    because = (
        f"two voxels of the median spacing {step:.3g} {fingerprint.unit}"
        if known
        else "two pixels: the spacing is not known"
    )
    if thin:
        because += f"; one for {', '.join(thin)}, of which two would be the whole"
    return Decision(value, because, MAIER_HEIN)


def _median(values: Sequence[float]) -> float:
    """Infinite where nobody measured."""
    return float(np.median(values)) if len(values) else float("inf")

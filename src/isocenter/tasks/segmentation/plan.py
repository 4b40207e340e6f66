"""Plans for a segmentation from its training masks: labels, loss, weights, tolerances."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isocenter.belief import (
    certainty_decisions,
    covering_decisions,
    interval_decisions,
)
from isocenter.errors import DatasetError, PlanError
from isocenter.tasks.segmentation.partial_labels import partly_decisions
from isocenter.tasks.segmentation.target_codes import MOST
from isocenter.tasks.shared import COARSEST, axes_of, check_loss, coarser, plain_labels
from isocenter.values import Dataset, Decision, Fingerprint, Label, counted_in

# A structure thinner than this (voxels) is nearly all surface; so is a piece of fewer voxels than a cube of 5.
THIN, TINY = 4.0, 125
# Voxels that the thinnest structure of pictures is still wide on the network's grid (median). Ventricles 27 pixels
# wide, six minutes on one busy core: Dice .90 on a grid half as fine, after 1,581 steps, beside .77 after 429.
FINE_ENOUGH = 12
# The same where training sees each picture a few times only. Vessels 8.8 pixels wide, four minutes on two cores: Dice
# .763 on a grid half as fine and .755 on one of two thirds, beside .685 on their own.
FINE_IN_HASTE = 4
# A piece so many times as long as it is wide is a line, as vessels and nerves are. Medians: a hippocampus' halves 5 and
# 7, gliomas with ragged outlines 6, the vessels of a retina 330.
LONG = 30.0
# Where structures fill less than this share of the voxels, nearly every voxel is easily classified as background.
SPARSE = 1e-3
# Labels whose volumes differ more than this many times are weighted, by at most this factor.
UNLIKE, HEAVIEST = 100.0, 10.0
CLDICE = "arXiv:2003.07311"
MAIER_HEIN = "doi:10.1038/s41592-023-02151-z"
LAKSHMINARAYANAN = "arXiv:1612.01474"


def settings_for(dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
    """The fields of a segmentation for these training cases; DatasetError where every mask is empty."""
    partly = partly_decisions(dataset, fingerprint)
    silent = {0, partly["ignore"].value, partly["background"].value}
    voxels = {value: count for value, count in fingerprint.voxels().items() if value not in silent}
    if not voxels:
        where = str(dataset.root or dataset.name)
        raise DatasetError("every training mask is empty", where, "Give masks that mark something")
    declared = tuple(label for label in dataset.classes.get("mask", ()) if label.value not in silent)
    because = "the data set declares them"
    if not declared:
        declared = tuple(Label(value, str(value)) for value in voxels)
        because = f"they are the values of {len(fingerprint)} training masks; none were declared"
    structures = dataset.regions or {label.name: (label.value,) for label in declared}
    counts = {name: sum(voxels.get(value, 0) for value in values) for name, values in structures.items()}
    thin = {} if dataset.regions else _thin(declared, fingerprint)
    unknown = fingerprint.voxels().get(partly["ignore"].value, 0) if partly["ignore"].value is not None else 0
    # A voxel of which nothing is known breaks a line, and so does a slice that nobody drew.
    whole = not dataset.regions and partly["ignore"].value is None and partly["sparse"].value is None
    lines = _lines(declared, fingerprint) if whole else {}
    return {
        "labels": Decision(plain_labels(declared), because),
        "loss": _loss(thin, lines, voxels, sum(fingerprint.voxels().values()) - unknown, partly),
        "centrelines": _centrelines(lines),
        "weights": _weights(counts),
        "tolerance": _tolerance(list(structures), thin, fingerprint),
        "postprocessing": Decision(
            None, "it is chosen on the validation cases after training, and off unless it helps them"
        ),
        "several": _several(declared, fingerprint),
        **partly,
        **certainty_decisions(),
        **covering_decisions(),
        **interval_decisions(),
        "calibrated_map": Decision(
            None,
            "label maps follow the uncalibrated outputs unless calibrated ones surely raise the Dice of unseen cases",
        ),
        "expected_dice": Decision(None, "it is fitted to predictions of unseen cases after training"),
    }


def _several(labels: Sequence[Label], fingerprint: Fingerprint) -> Decision:
    """In which share of the training references each label has several pieces."""
    counts = {label.name: _components(label, fingerprint) for label in labels}
    shares = {name: round(float(np.mean(np.array(own) > 1)), 4) for name, own in counts.items() if own}
    words = [f"label {name} in {sum(n > 1 for n in own)} of {len(own)}" for name, own in counts.items() if own]
    return Decision(shares, f"training references with several pieces: {', '.join(words)}")


def _components(label: Label, fingerprint: Fingerprint) -> list[int]:
    return [case.components[label.value] for case in fingerprint.cases if case.components.get(label.value)]


def decisions(labels: Sequence[Label], fingerprint: Fingerprint) -> dict[str, Decision]:
    """The network, the reduction of pictures, and the metric that selects and judges."""
    return {
        "preprocessing.reduction": _reduction(labels, fingerprint, FINE_ENOUGH),
        COARSEST: _reduction(labels, fingerprint, FINE_IN_HASTE),
        "network.name": Decision("unet", "it gives an output for every voxel", "arXiv:1505.04597"),
        "training.networks": Decision(
            None,
            "where the minutes are enough for several networks, these share them: the loss "
            "of a mean of probabilities is "
            "never above the mean of their losses",
            LAKSHMINARAYANAN,
        ),
        "training.selection": Decision("dice", "it is the mean over labels of the validation cases"),
        "evaluation.primary": Decision("dice", "overlap is what the task asks for", MAIER_HEIN),
    }


def _reduction(labels: Sequence[Label], fingerprint: Fingerprint, enough: float) -> Decision:
    """The factor by which pictures are finer than the thinnest structure needs; volumes keep their grid.

    enough: voxels that have to be left of its width
    """
    if axes_of(fingerprint) != 2:
        return Decision(1.0, "a volume may have few slices along an axis, so patches keep their grid")
    widths = {label.name: _width(label, fingerprint) for label in labels}
    thinnest = min(widths, key=widths.__getitem__)
    if math.isinf(widths[thinnest]):
        return Decision(1.0, "the width of the structures was not measured")
    return coarser(fingerprint, widths[thinnest], enough, f"{thinnest} is {widths[thinnest]:.3g} voxels wide")


def check_settings(
    structures: Sequence[str],
    labels: Sequence[Label],
    loss: str,
    tolerance: Mapping[str, float],
    weights: Mapping[str, float],
    postprocessing: Mapping[str, Any],
    centrelines: Sequence[str] = (),
) -> None:
    """PlanError names the setting that cannot be; the last four are by the name of a structure."""
    values, names = {label.value for label in labels}, set(structures)
    if not labels or min(len(values), len({label.name for label in labels})) < len(labels) or 0 in values:
        remedy = "Give each structure its own value and name"
        raise PlanError("labels must be different and not 0", "task.labels", remedy)
    if len(labels) > MOST:
        problem = f"{len(labels)} labels, and a segmentation learns at most {MOST}"
        raise PlanError(problem, "task.labels", "Leave structures out with --labels, or join some to one value")
    check_loss(loss, bool(weights), centrelines)
    named = (("tolerance", tolerance), ("weights", weights), ("postprocessing", postprocessing))
    for setting, given in (*named, ("centrelines", centrelines)):
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
    reasons = {}
    for label in labels:
        width, piece = _width(label, fingerprint), _median(_pieces(label, fingerprint))
        if width < THIN:
            reasons[label.name] = f"{label.name} is {width:.1f} voxels thin"
        elif piece < TINY:
            reasons[label.name] = f"a piece of {label.name} has {piece:.0f} voxels"
    return reasons


def _lines(labels: Sequence[Label], fingerprint: Fingerprint) -> dict[str, str]:
    """{label: in words why it has a centreline}"""
    reasons = {}
    for label in labels:
        times = [case.elongation[label.value] for case in fingerprint.cases if label.value in case.elongation]
        if times and _median(times) >= LONG:
            reasons[label.name] = (
                f"{label.name} is {_width(label, fingerprint):.1f} voxels thin and {_median(times):.0f} times as long"
            )
    return reasons


def _width(label: Label, fingerprint: Fingerprint) -> float:
    return _median([case.thickness[label.value] for case in fingerprint.cases if label.value in case.thickness])


def _pieces(label: Label, fingerprint: Fingerprint) -> list[float]:
    """Voxels of a piece of the label, the mean of each case that has one."""
    return [
        case.references["mask"][label.value] / case.components[label.value]
        for case in fingerprint.cases
        if case.components.get(label.value) and case.references.get("mask", {}).get(label.value)
    ]


def _centrelines(lines: Mapping[str, str]) -> Decision:
    if not lines:
        return Decision([], "no label is long and thin, so that none has a centreline to measure")
    because = f"{'; '.join(lines.values())} (medians of the training cases): a break costs little overlap"
    return Decision(list(lines), because, CLDICE)


def _loss(
    thin: Mapping[str, str],
    lines: Mapping[str, str],
    voxels: Mapping[int, int],
    known: int,
    partly: Mapping[str, Decision],
) -> Decision:
    """known: voxels, the background's too"""
    all_known = partly["ignore"].value is None
    if lines:
        because = f"{'; '.join(lines.values())} (medians of the training cases): the loss should penalise breaks"
        return Decision("dice+ce+cldice", because, CLDICE)
    if thin and all_known:
        because = f"{'; '.join(thin.values())} (medians of the training cases): nearly all of it is surface"
        return Decision("dice+ce+boundary", because, "arXiv:1905.07852")
    share = sum(voxels.values()) / max(1, known)
    if share < SPARSE:
        because = f"structures fill {100 * share:.3f} % of the voxels: easy background should count little"
        return Decision("dice+focal", because, "doi:10.1016/j.media.2021.102035")
    which = "voxels" if all_known else "known voxels"
    because = (
        f"structures fill {100 * share:.1f} % of the {which}: overlap and voxel-wise terms together train stably "
        "with small and with large ones"
    )
    return Decision("dice+ce", because, "doi:10.1038/s41592-020-01008-z")


def _weights(voxels: Mapping[str, int]) -> Decision:
    counts = {name: count for name, count in voxels.items() if count}
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


def _tolerance(names: Sequence[str], thin: Mapping[str, str], fingerprint: Fingerprint) -> Decision:
    step = float(np.median(fingerprint.steps))
    known = all(case.physical for case in fingerprint.cases)
    digits = max(3, 2 - math.floor(math.log10(step)))
    value: dict[str, Any] = {name: round((1 if name in thin else 2) * step, digits) for name in names}
    because = (
        f"two {counted_in(fingerprint.axes)} of the median spacing {step:.3g} {fingerprint.unit}"
        if known
        else f"two {counted_in(fingerprint.axes)}: the spacing is not known"
    )
    if thin:
        because += f"; one for {', '.join(thin)}, of which two would be the whole"
    return Decision(value, because, MAIER_HEIN)


def _median(values: Sequence[float]) -> float:
    """Infinite where nobody measured."""
    return float(np.median(values)) if len(values) else float("inf")

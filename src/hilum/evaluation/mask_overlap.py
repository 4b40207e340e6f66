"""Overlap of two masks: figures that count voxels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum.errors import GeometryError, UsageError
from hilum.evaluation.metric import Metric
from hilum.lazy import ndimage
from hilum.values import Array, Floats, Geometry, Region, grid_geometry

# Voxels that are compared together: each takes some 40 bytes on the way.
AT_ONCE = 2**20
VOLUME_ERROR = Metric("volume_error", better="aim", aim=0.0, unit="ml")
FALSE_POSITIVE_VOLUME = Metric("false_positive_volume", better="less", unit="ml")
OVERLAP_METRICS = (
    Metric("dice", worst=0.0),
    Metric("iou", "IoU", worst=0.0),
    Metric("sensitivity", worst=0.0),
    Metric("precision", worst=0.0),
    Metric("detected", worst=0.0),
    VOLUME_ERROR,
    FALSE_POSITIVE_VOLUME,
)


@dataclass(frozen=True)
class Overlap:
    """Voxels of one structure in prediction and reference; the sum of several pools their cases.

    Where both are empty the figures are NaN: there was nothing to score, and nobody is praised for it.
    """

    both: int
    predicted: int
    reference: int

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(self.both + other.both, self.predicted + other.predicted, self.reference + other.reference)

    @property
    def dice(self) -> float:
        """Dice, Ecology 1945, doi:10.2307/1932409; 0 where only one is empty."""
        return _share(2 * self.both, self.predicted + self.reference)

    @property
    def iou(self) -> float:
        """Intersection over union (Jaccard); 0 where only one is empty."""
        return _share(self.both, self.predicted + self.reference - self.both)

    @property
    def sensitivity(self) -> float:
        """Share of the reference that was found; NaN for an empty reference, in which nothing can be missed."""
        return _share(self.both, self.reference)

    @property
    def precision(self) -> float:
        """Share of the prediction that is right; 0 for an empty prediction of a structure that is there."""
        return 0.0 if not self.predicted and self.reference else _share(self.both, self.predicted)

    @property
    def is_detected(self) -> float:
        """1 where prediction and reference meet, else 0; NaN for an empty reference."""
        return float(self.both > 0) if self.reference else float("nan")

    def volume_error(self, voxel: float = 1.0) -> float:
        """Predicted less reference volume; voxel: volume of one, in whatever unit the result shall have."""
        return (self.predicted - self.reference) * voxel

    def false_positive_volume(self, voxel: float = 1.0) -> float:
        """Volume predicted where there is nothing, in the unit of `voxel`; NaN where the reference has voxels."""
        return float("nan") if self.reference else self.predicted * voxel


def overlap_of_masks(prediction: ArrayLike, reference: ArrayLike) -> Overlap:
    """The voxels of two masks of one grid."""
    predicted = np.asarray(prediction, dtype=bool)
    true = np.asarray(reference, dtype=bool)
    _refuse_other_shape(predicted, true)
    return Overlap(*(int(np.count_nonzero(mask)) for mask in (predicted & true, predicted, true)))


def dice(prediction: ArrayLike, reference: ArrayLike) -> float:
    """Dice of two masks; NaN where both are empty, 0 where one is."""
    return overlap_of_masks(prediction, reference).dice


def iou(prediction: ArrayLike, reference: ArrayLike) -> float:
    """Intersection over union of two masks; NaN where both are empty, 0 where one is."""
    return overlap_of_masks(prediction, reference).iou


def confusion_counts(prediction: ArrayLike, reference: ArrayLike, labels: Sequence[int]) -> NDArray[np.int64]:
    """(1 + labels, 1 + labels) voxels of each reference (row) and predicted (column) label, in one pass.

    The first row and column are the background: every value that is not among `labels`.
    """
    predicted = np.asarray(prediction)
    true = np.asarray(reference)
    _refuse_other_shape(predicted, true)
    if true.flags.f_contiguous:  # as NIfTI lies in memory: parts of the last axis are in one piece
        predicted = predicted.T
        true = true.T
    size = len(labels) + 1
    counts = np.zeros(size * size, dtype=np.int64)
    rows = max(1, AT_ONCE * len(true) // max(1, true.size))
    for start in range(0, len(true), rows):
        part = slice(start, start + rows)
        pairs = _positions(true[part], labels) * size + _positions(predicted[part], labels)
        counts += np.bincount(pairs.ravel(), minlength=size * size)
    return counts.reshape(size, size)


def overlap_by_label(prediction: ArrayLike, reference: ArrayLike, labels: Sequence[int]) -> dict[int, Overlap]:
    """The Overlap of each label of two label maps."""
    return overlap_from_confusion(confusion_counts(prediction, reference, labels), labels)


def overlap_from_confusion(matrix: NDArray[np.int64], labels: Sequence[int]) -> dict[int, Overlap]:
    """The Overlap of each label, from the `confusion_counts` of two label maps."""
    return {label: overlap_of_places(matrix, [place]) for place, label in enumerate(labels, start=1)}


def overlap_of_places(matrix: NDArray[np.int64], places: Sequence[int]) -> Overlap:
    """The Overlap of a structure that is made of these rows and columns of `confusion_counts`."""
    both = matrix[np.ix_(places, places)]
    predicted = matrix[:, places]
    true = matrix[places]
    return Overlap(*(int(counts.sum()) for counts in (both, predicted, true)))


def boxes_of_structures(maps: Sequence[Array], structures: Mapping[str, tuple[int, ...]]) -> dict[str, Region]:
    """{structure: the box around its voxels in all label maps of one grid, and a voxel more on each side}.

    structures: {name: its values}
    Of a structure that is nowhere, a corner of the grid.
    """
    shape = maps[0].shape
    top = max((max(values) for values in structures.values()), default=0)
    # In the order of memory, as NIfTI has it the other way round: else it takes four times as long.
    turns = [-1 if one.flags.f_contiguous else 1 for one in maps]
    found = [
        [box and box[::turn] for box in ndimage.find_objects(one.T if turn < 0 else one, top)]
        for one, turn in zip(maps, turns, strict=True)
    ]
    boxes = {}
    for name, values in structures.items():
        parts = [box for own in found for value in values if (box := own[value - 1]) is not None]
        axes = zip(*parts, strict=True) if parts else [[slice(0, 1)]] * len(shape)
        ends = [(min(one.start for one in axis), max(one.stop for one in axis)) for axis in axes]
        boxes[name] = tuple(slice(max(low - 1, 0), high + 1) for low, high in ends)
    return boxes


# By so much more Dice, or accuracy, another assignment of labels is no accident.
EXCHANGED = 0.3


def better_fitting_labels(matrix: NDArray[np.int64], labels: Sequence[int]) -> dict[int, tuple[int, float]]:
    """{label: (other label, Dice)} where a prediction fits the reference of another label better by `EXCHANGED`.

    matrix: the `confusion_counts` of two label maps
    """
    sizes = matrix.sum(axis=0)[1:, None] + matrix.sum(axis=1)[None, 1:]
    fits = np.divide(2.0 * matrix[1:, 1:].T, sizes, out=np.zeros(sizes.shape), where=sizes > 0)
    best = fits.argmax(axis=1)
    return {
        label: (labels[best[place]], float(fits[place, best[place]]))
        for place, label in enumerate(labels)
        if fits[place, best[place]] >= fits[place, place] + EXCHANGED
    }


def volume_unit(geometry: Geometry) -> str:
    """The unit of volumes: ml, in 2D mm², of a series its axis's own; voxels or pixels where sizes are not known."""
    if not geometry.physical:
        return grid_geometry.pixels_or_voxels(geometry.ndim)
    return {1: geometry.unit, 2: "mm²"}.get(geometry.ndim, "ml")


def _share(part: int, total: int) -> float:
    return part / total if total else float("nan")


def _positions(values: Array, labels: Sequence[int]) -> NDArray[np.intp]:
    """Each value's place among the labels, counted from 1; 0 for every other value."""
    if len(set(labels)) < len(labels) or min(labels, default=1) < 1:
        raise UsageError(f"labels {list(labels)}", "confusion", "Give different labels greater than 0")
    top = max(labels, default=0)
    is_small = values.dtype == np.uint8  # each value is an index as it is
    places = np.zeros(max(top + 2, 256 if is_small else 0), dtype=np.intp)
    places[np.asarray(labels, dtype=np.intp)] = np.arange(1, len(labels) + 1)
    return np.asarray(places[values if is_small else np.clip(values, 0, top + 1).astype(np.intp)])


def _refuse_other_shape(predicted: Array, reference: Array) -> None:
    if predicted.shape != reference.shape:
        problem = f"a prediction of {predicted.shape} for a reference of {reference.shape}"
        raise GeometryError(problem, "overlap", "Score on the reference's own grid")


def mask_of_values(members: tuple[int, ...], values: Array) -> Array:
    """(*spatial) where a label map has one of these values."""
    return np.asarray(values == members[0] if len(members) == 1 else np.isin(values, members))


def structure_sizes(structures: Sequence[Sequence[int]], values: Array) -> Floats:
    """(structures,) voxels of a label map that have one of the values of each."""
    return np.array([float(np.count_nonzero(mask_of_values(tuple(one), values))) for one in structures])

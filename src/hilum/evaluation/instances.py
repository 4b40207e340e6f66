"""Figures of single objects, from two maps in which each object has its number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum.errors import GeometryError, UsageError
from hilum.evaluation import _weighting
from hilum.values import Floats

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class InstanceOverlap:
    """The voxels that objects of a prediction and of a reference share.

    predicted, reference: (objects,) voxels of each
    pairs:                (pairs, 2) which predicted object meets which reference, counted from 0
    shared:               (pairs,) voxels that they have in common
    Where neither side has an object the figures are NaN: there was nothing to find, and nobody is praised for it.
    """

    predicted: Integers
    reference: Integers
    pairs: Integers
    shared: Integers

    # The 2018 Data Science Bowl takes their mean: Caicedo et al., Nat Methods 2019, doi:10.1038/s41592-019-0612-7
    thresholds: ClassVar[tuple[float, ...]] = tuple(round(0.5 + 0.05 * n, 2) for n in range(10))

    @property
    def iou(self) -> Floats:
        """(pairs,) intersection over union."""
        return np.asarray(self.shared / self._unions)

    def matched_pairs(self, threshold: float) -> int:
        """Pairs with an intersection over union above the threshold: from 0.5 on no object is in two of them."""
        if not 0.5 <= threshold < 1:
            raise UsageError(f"an IoU of {threshold}", "instances", "Give 0.5 to below 1, where pairs are unique")
        return int(np.count_nonzero(self.iou > threshold))

    def ap(self, thresholds: Sequence[float] = thresholds) -> float:
        """TP / (TP + FP + FN), the mean over thresholds: the average precision of the 2018 Data Science Bowl."""
        hits = np.array([self.matched_pairs(threshold) for threshold in thresholds])
        return float(np.mean(_weighting.ratio_or_nan(hits, len(self.predicted) + len(self.reference) - hits)))

    def f1(self, threshold: float = 0.5) -> float:
        """2 TP / (2 TP + FP + FN)."""
        return float(
            _weighting.ratio_or_nan(2 * self.matched_pairs(threshold), len(self.predicted) + len(self.reference))
        )

    @property
    def aji(self) -> float:
        """Aggregated Jaccard index: each reference with the prediction that fits it best; what none took counts too.

        Kumar et al., IEEE Trans Med Imaging 2017, doi:10.1109/TMI.2017.2677499
        """
        best = self._best
        unmet = np.ones(len(self.reference), dtype=bool)
        unmet[self.pairs[best, 1]] = False
        untaken = np.ones(len(self.predicted), dtype=bool)
        untaken[self.pairs[best, 0]] = False
        union = self._unions[best].sum() + self.reference[unmet].sum() + self.predicted[untaken].sum()
        return float(_weighting.ratio_or_nan(self.shared[best].sum(), union))

    @property
    def sq(self) -> float:
        """Segmentation quality: the mean overlap of matched objects; NaN where none is matched."""
        matched = self.iou[self.iou > 0.5]
        return float(matched.mean()) if len(matched) else float("nan")

    @property
    def rq(self) -> float:
        """Recognition quality: F1 above an IoU of 0.5."""
        return self.f1()

    @property
    def pq(self) -> float:
        """Panoptic quality of one class, SQ times RQ. Kirillov et al., CVPR 2019, arXiv:1801.00868"""
        matched = self.iou[self.iou > 0.5]
        return float(_weighting.ratio_or_nan(2 * matched.sum(), len(self.predicted) + len(self.reference)))

    def alike(self, predicted: ArrayLike, reference: ArrayLike) -> InstanceOverlap:
        """The overlap in which only objects of one class meet. predicted, reference: (objects,) their classes."""
        same = np.asarray(predicted)[self.pairs[:, 0]] == np.asarray(reference)[self.pairs[:, 1]]
        return InstanceOverlap(self.predicted, self.reference, self.pairs[same], self.shared[same])

    def within(self, predicted: ArrayLike, reference: ArrayLike) -> InstanceOverlap:
        """The overlap of some of the objects alone. predicted, reference: (objects,) whether each is among them."""
        ours = np.asarray(predicted, dtype=bool)
        theirs = np.asarray(reference, dtype=bool)
        kept = ours[self.pairs[:, 0]] & theirs[self.pairs[:, 1]]
        places = np.stack([np.cumsum(ours)[self.pairs[kept, 0]], np.cumsum(theirs)[self.pairs[kept, 1]]], axis=1) - 1
        return InstanceOverlap(self.predicted[ours], self.reference[theirs], places, self.shared[kept])

    def confusion(self, predicted: Integers, reference: Integers, classes: int) -> Integers:
        """(classes, classes) matched objects: of each class of the reference, how many are called what.

        predicted, reference: (objects,) their classes
        """
        ours, theirs = self.pairs[self.iou > 0.5].T
        counts = np.bincount(reference[theirs] * classes + predicted[ours], minlength=classes**2)
        return np.asarray(counts.reshape(classes, classes))

    @property
    def _unions(self) -> Integers:
        return np.asarray(self.predicted[self.pairs[:, 0]] + self.reference[self.pairs[:, 1]] - self.shared)

    @property
    def _best(self) -> NDArray[np.intp]:
        """The pair with the largest intersection over union of each reference that any prediction meets."""
        order = np.lexsort((-self.iou, self.pairs[:, 1]))
        _, first = np.unique(self.pairs[order, 1], return_index=True)
        return np.asarray(order[first])


def instance_overlap(predicted: ArrayLike, reference: ArrayLike) -> InstanceOverlap:
    """Overlap of objects in two maps (*spatial) of one grid, with 0 for background."""
    ours = np.asarray(predicted)
    theirs = np.asarray(reference)
    if ours.shape != theirs.shape:
        problem = f"a prediction of {ours.shape} for a reference of {theirs.shape}"
        raise GeometryError(problem, "instances", "Score on the reference's own grid")
    _, numbers, sizes = _renumber(ours)
    true, others, true_sizes = _renumber(theirs)
    both = (numbers > 0) & (others > 0)
    keys, shared = np.unique((numbers[both] - 1) * max(1, len(true)) + others[both] - 1, return_counts=True)
    pairs = np.stack(np.divmod(keys, max(1, len(true))), axis=1)
    return InstanceOverlap(sizes, true_sizes, pairs.astype(np.int64), shared.astype(np.int64))


def code_classes(numbers: NDArray[Any], kinds: ArrayLike, classes: int) -> NDArray[Any]:
    """Numbers 1, 2, ... of objects as numbers that state their classes too, of which one class changes nothing.

    numbers: (*spatial), 0 for background; kinds: (objects,) from 0 on
    Number n of class k becomes (n - 1) * classes + k + 1.
    """
    objects = np.arange(len(np.asarray(kinds))) * classes + np.asarray(kinds, dtype=np.int64) + 1
    return np.asarray(np.append(0, objects)[numbers])


def coded_classes(numbers: NDArray[Any], classes: int) -> Integers:
    """(objects,) the class of each object of a map by `code_classes`, in the order of their numbers."""
    values = np.unique(numbers)
    return np.asarray((values[values > 0].astype(np.int64) - 1) % classes)


def _renumber(numbers: NDArray[Any]) -> tuple[NDArray[Any], Integers, Integers]:
    """The objects' numbers, (voxels,) each one's place among them counted from 1, and (objects,) voxels."""
    values, places, counts = np.unique(numbers.ravel(), return_inverse=True, return_counts=True)
    objects = values != 0
    renumbered = np.zeros(len(values), dtype=np.int64)
    renumbered[objects] = np.arange(1, int(objects.sum()) + 1)
    return values[objects], renumbered[places], counts[objects].astype(np.int64)

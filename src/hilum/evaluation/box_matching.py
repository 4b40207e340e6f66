"""Figures of boxes: average precision, and sensitivity at a number of false boxes an image.

Every figure takes `weights`, (..., images) how often each image counts, and gives one number a weighting: (...).
Without weights each image counts once. So a figure and its bootstrap (`bootstrap_statistic`) are one definition.
All boxes are of one class: what is asked of several is asked of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum.errors import UsageError
from hilum.evaluation import _weighting
from hilum.values import BoundingBoxes, Floats

# Lin et al., ECCV 2014, arXiv:1405.0312: recalls at which precision is looked at, overlaps that are averaged over,
# and boxes an image that count.
RECALLS = np.linspace(0.0, 1.0, 101)
MOST_BOXES = 100
# False boxes an image at which sensitivity is averaged: Setio et al., Med Image Anal 2017 (LUNA16),
# doi:10.1016/j.media.2017.06.015
FALSE_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)

Truths = NDArray[np.bool_]


def box_iou(boxes: ArrayLike, others: ArrayLike) -> Floats:
    """(n, m) intersection over union of each of (n, 2 * axes) boxes with each of (m, 2 * axes), by volume."""
    both = _shared_volume(boxes, others)
    return np.asarray(both / (_volumes(boxes)[:, None] + _volumes(others)[None] - both))


def shares_inside(boxes: ArrayLike, others: ArrayLike) -> Floats:
    """(n, m) share of each of (n, 2 * axes) boxes that lies in each of (m, 2 * axes), by volume."""
    return np.asarray(_shared_volume(boxes, others) / _volumes(boxes)[:, None])


def box_hits(boxes: BoundingBoxes, truth: BoundingBoxes, overlap: float | None) -> Truths:
    """(n, m) whether each box hits each reference: by intersection over union from `overlap` on, or by its centre.

    overlap: None where the centre of the box in the reference is enough
    As an ignored reference may stand for many, what counts there is the share of the box that lies in it.
    """
    if overlap is None:
        return _holds_centre(boxes, truth)
    shares = shares_inside(boxes.corners, truth.corners)
    return np.asarray(np.where(truth.ignored, shares, box_iou(boxes.corners, truth.corners)) >= overlap)


@dataclass(frozen=True, eq=False)
class Matches:
    """Predicted boxes of one class, of all images together, and which of them are right.

    scores:     (boxes,)
    image:      (boxes,) number of the image that it is in
    right:      (boxes,) whether it has a reference of its own; what is ignored is not among the boxes
    number:     (boxes,) of each among the boxes of its image
    references: (images,) how many there are to find
    """

    scores: Floats
    image: NDArray[np.intp]
    right: Truths
    number: NDArray[np.intp]
    references: Floats

    @classmethod
    def at(
        cls,
        overlap: float,
        predicted: Sequence[BoundingBoxes],
        references: Sequence[BoundingBoxes],
        *,
        most: int = MOST_BOXES,
    ) -> Matches:
        """The `most` boxes of the highest score of each image, from the highest down.

        A box takes the reference that it overlaps most, at least `overlap`, of those that none has taken; without one
        it is wrong. One that could only have taken an ignored reference is left out; as such a reference may stand for
        many, what counts there is the share of the box that lies in it. As in COCO, arXiv:1405.0312
        Raises UsageError for another number of images, or boxes without a score.
        """
        _refuse_unlike(predicted, references)
        scores: list[Floats] = [np.zeros(0)]
        images = [np.zeros(0, np.intp)]
        right = [np.zeros(0, bool)]
        numbers = [np.zeros(0, np.intp)]
        for number, (boxes, truth) in enumerate(zip(predicted, references, strict=True)):
            highest = np.argsort(-_scores(boxes), kind="stable")[:most]
            best = boxes.at(highest)
            hit, passed = _take_references(best, truth, overlap)
            scores.append(_scores(best)[~passed])
            numbers.append(highest[~passed])
            right.append(hit[~passed])
            images.append(np.full(int((~passed).sum()), number))
        counted = [float((~truth.ignored).sum()) for truth in references]
        image = np.concatenate(images)
        hits = np.concatenate(right)
        places = np.concatenate(numbers)
        return cls(np.concatenate(scores), image, hits, places, np.array(counted))

    def average_precision(self, weights: Floats | None = None) -> Floats:
        """Mean of the precisions at 101 recalls, each the best that has at least that recall; NaN without references.

        Lin et al., ECCV 2014, arXiv:1405.0312, as in its evaluation code.
        """
        counts = _weighting.case_weights(weights, len(self.references))
        total = counts @ self.references
        right, wrong = self._cumulative_counts
        hits = counts @ right
        false = counts @ wrong
        called = hits + false
        precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
        # What a later box brings back in precision an earlier threshold has too, by lowering itself.
        envelope = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
        recall = np.divide(hits, total[..., None], out=np.zeros_like(hits), where=total[..., None] > 0)
        # Of the 101 recalls each box is the first to reach so many.
        first = np.diff(np.searchsorted(RECALLS, recall, side="right"), axis=-1, prepend=0)
        return np.where(total > 0, (envelope * first).sum(axis=-1) / len(RECALLS), np.nan)

    @property
    def curve(self) -> tuple[Floats, Floats]:
        """Recall and precision from the highest score down, each precision the best of its recall and beyond."""
        right, wrong = (one.sum(axis=0) for one in self._cumulative_counts)
        total = self.references.sum()
        if not total or not len(right):
            return np.zeros(0), np.zeros(0)
        return right / total, np.maximum.accumulate((right / (right + wrong))[::-1])[::-1]

    @cached_property
    def _cumulative_counts(self) -> tuple[Floats, Floats]:
        """(images, right boxes) how many right and wrong boxes of each image have come once that one has.

        Precision is at its best where a box is right: the places in between need not be looked at.
        """
        order = np.argsort(-self.scores, kind="stable")
        places = np.flatnonzero(self.right[order])
        images = self.image[order]
        right = self.right[order]
        count = len(self.references)
        return _running(images, right, places, count), _running(images, ~right, places, count)


@dataclass(frozen=True, eq=False)
class Froc:
    """The hits for a free-response curve: sensitivity against false boxes an image.

    scores:       (references,) the highest score of a box that hits it; minus infinity where none does
    image, sizes: (references,) in which image it is, and how large
    false:        (boxes,) scores of boxes that hit nothing; further hits of one reference are neither right nor wrong
    false_image:  (boxes,)
    images:       how many
    Bunch et al., J Appl Photogr Eng 1978; hits as counted in LUNA16, doi:10.1016/j.media.2017.06.015
    """

    scores: Floats
    image: NDArray[np.intp]
    sizes: Floats
    false: Floats
    false_image: NDArray[np.intp]
    images: int

    rates: ClassVar[tuple[float, ...]] = FALSE_RATES

    @classmethod
    def from_boxes(
        cls,
        predicted: Sequence[BoundingBoxes],
        references: Sequence[BoundingBoxes],
        *,
        overlap: float | None = None,
        sizes: Sequence[ArrayLike] | None = None,
    ) -> Froc:
        """overlap: as in `box_hits`; what hits an ignored reference alone is no false box

        sizes: of each image (references,) how large each is; else the geometric mean of its sides, in voxels
        """
        _refuse_unlike(predicted, references)
        best: list[Floats] = [np.zeros(0)]
        size: list[Floats] = [np.zeros(0)]
        false: list[Floats] = [np.zeros(0)]
        image = [np.zeros(0, np.intp)]
        false_image = [np.zeros(0, np.intp)]
        for number, (boxes, truth) in enumerate(zip(predicted, references, strict=True)):
            hit = box_hits(boxes, truth, overlap)
            scores = _scores(boxes)
            counted = ~truth.ignored
            highest = np.where(hit, scores[:, None], -np.inf).max(axis=0, initial=-np.inf)
            box_size = np.asarray(sizes[number], float) if sizes is not None else box_sizes(truth)
            best.append(highest[counted])
            size.append(box_size[counted])
            image.append(np.full(int(counted.sum()), number))
            false.append(scores[~hit.any(axis=1)])
            false_image.append(np.full(len(false[-1]), number))
        return cls(
            np.concatenate(best),
            np.concatenate(image),
            np.concatenate(size),
            np.concatenate(false),
            np.concatenate(false_image),
            len(predicted),
        )

    def sensitivity(self, rate: float, weights: Floats | None = None, *, among: Truths | None = None) -> Floats:
        """Share of the references that are hit by the lowest score with at most `rate` false boxes an image.

        among: (references,) of these alone; the score is that of all. NaN without references
        """
        return self._at((rate,), weights, among)[..., 0]

    def cpm(self, weights: Floats | None = None) -> Floats:
        """Mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false boxes an image: LUNA16's competition metric."""
        return np.asarray(self._at(FALSE_RATES, weights, None).mean(axis=-1))

    @property
    def curve(self) -> tuple[Floats, Floats]:
        """False boxes an image and sensitivity, from the highest score down."""
        met = np.isfinite(self.scores)
        scores = np.unique(np.concatenate([self.scores[met], self.false]))[::-1]
        hits, false = (
            _running_at(own, images, scores, self.images).sum(axis=0)
            for own, images in ((self.scores[met], self.image[met]), (self.false, self.false_image))
        )
        return false / max(1, self.images), hits / max(1, len(self.scores))

    def _at(self, rates: Sequence[float], weights: Floats | None, among: Truths | None) -> Floats:
        """(..., rates) sensitivities. A hit counts where no more false boxes than allowed score as much or more."""
        counts = _weighting.case_weights(weights, self.images)
        is_counted = np.ones(len(self.scores), dtype=bool) if among is None else np.asarray(among, dtype=bool)
        total = counts @ np.bincount(self.image[is_counted], minlength=self.images)
        met = np.isfinite(self.scores)
        allowed = counts.sum(axis=-1)[..., None]
        false = counts @ self._false_by_hit
        counted_weights = counts[..., self.image[met]] * is_counted[met]
        # Rounding must not decide where a rate is met exactly.
        hits = np.stack([(counted_weights * (false <= rate * allowed + 1e-9)).sum(axis=-1) for rate in rates], axis=-1)
        return _weighting.ratio_or_nan(hits, total[..., None])

    @cached_property
    def _false_by_hit(self) -> Floats:
        """(images, references that are hit) false boxes of each image with that score or a higher one."""
        met = self.scores[np.isfinite(self.scores)]
        falling, level = np.unique(-met, return_inverse=True)
        return _running_at(self.false, self.false_image, -falling, self.images)[:, level]


def box_sizes(boxes: BoundingBoxes, steps: Sequence[float] | None = None, flat: int | None = None) -> Floats:
    """(n,) geometric mean of the sides: the side of the square or cube of the same area or volume.

    steps: length of a voxel per axis
    flat:  the axis of a single slice, whose thickness is no side of a box
    """
    lengths = boxes.lengths if steps is None else boxes.lengths * np.asarray(steps, dtype=float)
    sides = lengths if flat is None else np.delete(lengths, flat, axis=1)
    return np.asarray(sides.prod(axis=1) ** (1 / sides.shape[1]))


def _take_references(boxes: BoundingBoxes, truth: BoundingBoxes, overlap: float) -> tuple[Truths, Truths]:
    """(n,) whether each, from the highest score down, takes a reference; and whether it is passed over."""
    hit = np.zeros(len(boxes), bool)
    passed = np.zeros(len(boxes), bool)
    if not len(boxes) or not len(truth):
        return hit, passed
    counted = truth.corners[~truth.ignored]
    ignored = truth.corners[truth.ignored]
    shared = box_iou(boxes.corners, counted)
    inside = shares_inside(boxes.corners, ignored)
    free = np.ones(len(counted), bool)
    for number in range(len(boxes)):
        open_to = np.where(free & (shared[number] >= overlap), shared[number], -1.0)
        if open_to.max(initial=-1.0) >= 0:
            # Of equals the last, as in COCO's own code.
            free[np.flatnonzero(open_to == open_to.max())[-1]] = False
            hit[number] = True
        else:
            passed[number] = bool((inside[number] >= overlap).any())
    return hit, passed


def _holds_centre(boxes: BoundingBoxes, truth: BoundingBoxes) -> Truths:
    """(n, m) whether the centre of each box lies in each reference."""
    centres = boxes.centres[:, None]
    return np.asarray(((centres >= truth.low[None]) & (centres < truth.high[None])).all(axis=-1))


def _shared_volume(boxes: ArrayLike, others: ArrayLike) -> Floats:
    """(n, m) volume that two boxes have in common."""
    first, second = np.asarray(boxes, dtype=float)[:, None], np.asarray(others, dtype=float)[None]
    axes = first.shape[-1] // 2
    low = np.maximum(first[..., :axes], second[..., :axes])
    high = np.minimum(first[..., axes:], second[..., axes:])
    return np.asarray(np.maximum(high - low, 0.0).prod(axis=-1))


def _volumes(boxes: ArrayLike) -> Floats:
    corners = np.asarray(boxes, dtype=float)
    axes = corners.shape[-1] // 2
    return np.asarray((corners[:, axes:] - corners[:, :axes]).prod(axis=-1))


def _running(images: NDArray[np.intp], marks: Truths, places: NDArray[np.intp], count: int) -> Floats:
    """(images, places) how many marked boxes of each image there are up to each place, that one included."""
    steps = np.zeros((count, len(places) + 1))
    # A box counts from the first place on that does not lie before it.
    np.add.at(steps, (images[marks], np.searchsorted(places, np.flatnonzero(marks))), 1.0)
    return np.cumsum(steps[:, :-1], axis=1)


def _running_at(weights: Floats, images: NDArray[np.intp], scores: Floats, count: int) -> Floats:
    """(images, scores) how many of each image have at least each score; scores fall."""
    steps = np.zeros((count, len(scores) + 1))
    np.add.at(steps, (images, np.searchsorted(-scores, -weights)), 1.0)
    return np.cumsum(steps[:, :-1], axis=1)


def _scores(boxes: BoundingBoxes) -> Floats:
    if boxes.scores is None:
        raise UsageError("predicted boxes have no scores", "detection", "Give BoundingBoxes with scores")
    return boxes.scores


def _refuse_unlike(predicted: Sequence[BoundingBoxes], references: Sequence[BoundingBoxes]) -> None:
    if len(predicted) != len(references):
        problem = f"boxes predicted on {len(predicted)} images, references on {len(references)}"
        raise UsageError(problem, "detection", "Give both of every image")

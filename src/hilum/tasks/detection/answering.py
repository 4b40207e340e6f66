"""The answers of a detection: maps of centres, lengths and offsets to boxes with calibrated scores.

A copy of this file travels with a packaged model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.belief import Certainty, UnseenCases, box_belief
from hilum.belief.box_belief import CALLED_FROM, BoxBelief
from hilum.errors import DatasetError
from hilum.evaluation import box_matching, positive_percent, uncertainty
from hilum.evaluation.positive_percent import PositiveScore
from hilum.lazy import ndimage
from hilum.tasks.shared import averages
from hilum.tasks.shared.averages import BETWEEN, WITHIN, Shares
from hilum.tasks.task import Task
from hilum.values import (
    Array,
    BoundingBoxes,
    Case,
    Finding,
    Floats,
    Geometry,
    Measurements,
    Prediction,
    Region,
    Slabs,
    bounding_boxes,
)
from hilum.values.table_cells import PlainCell, TableRow

OVERLAPS = {2: 0.5, 3: 0.1}
HEAD = "boxes"
# Boxes of a lower score are dropped; those between this and the threshold make the curves.
LEAST_SCORE = 0.02
# Boxes of a case that can be explained, by rank.
RANKED = tuple(f"box {rank}" for rank in range(1, 21))


class BoxAnswering(Task):
    """The answers of a detection; the fields are those of `Detection`."""

    classes: tuple[str, ...]
    axes: int
    typical: float
    suppression: float
    threshold: float | None
    certainty: Certainty
    in_voxels: bool
    positive_percent: PositiveScore | None

    @property
    def overlap(self) -> float:
        """Intersection over union from which a reference counts as found."""
        return OVERLAPS[self.axes]

    @property
    def uncertain_quantity(self) -> Callable[[Any], Any]:
        """The log odds of the classes."""
        return partial(box_log_odds, len(self.classes))

    @property
    def saliency_targets(self) -> tuple[str, ...]:
        """The boxes by their rank, and the classes."""
        return (*RANKED, *self.classes)

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The mean of the outputs themselves: lengths have no probabilities."""
        return {HEAD: averages.mean_output([one[HEAD] for one in outputs], shares)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """(classes, ...) that a voxel is a centre of each class."""
        logits = np.asarray(arrays[HEAD], dtype=np.float32)[: len(self.classes)]
        return {HEAD: 1 / (1 + np.exp(-(logits + PRIOR)))}

    @property
    def decoder(self) -> BoxDecoder:
        """The steps from outputs to boxes."""
        return BoxDecoder(self.classes, self.axes, self.typical, LEAST_SCORE, self.suppression)

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """A box for every voxel that is more of a centre than its neighbours, with its calibrated score."""
        boxes = self.decoder(((region, append_disagreement(arrays, HEAD)) for region, arrays in slabs), geometry)
        boxes = box_belief.calibrated_boxes(
            boxes, self.certainty.calibrator, box_belief.voxel_lengths(geometry, self.in_voxels)
        )
        return Prediction(geometry, boxes=boxes, labels=self.labels, threshold=self._level)

    @property
    def member_settings(self) -> tuple[str, ...]:
        """The voxels that an output of 1 is long, and the overlap by which boxes are suppressed."""
        return ("typical", "suppression")

    def fuse(self, predictions: Sequence[Prediction], shares: Shares = None) -> Prediction:
        """Weighted box fusion of the members' boxes, whose scores are then calibrated."""
        boxes = fuse_boxes([box_belief.uncalibrated_boxes(one) for one in predictions], shares)
        steps = box_belief.voxel_lengths(predictions[0].geometry, self.in_voxels)
        calibrated = box_belief.calibrated_boxes(boxes, self.certainty.calibrator, steps)
        return replace(predictions[0], boxes=calibrated, labels=self.labels, threshold=self._level)

    def outputs(self, prediction: Prediction) -> Sequence[TableRow]:
        """A row for each box that is called: label, score, x0, y0[, z0], x1, y1[, z1]; one of blanks without any."""
        boxes = box_belief.boxes_of_prediction(prediction)
        names = bounding_boxes.corner_columns(boxes.axes)
        return box_rows(
            boxes, {name: names.index(name) for name in bounding_boxes.table_columns(boxes.axes)}, prediction.threshold
        )

    def results(self, prediction: Prediction, measured: Measurements = ()) -> list[Finding]:
        """The corners (voxels) and the score of each box that is called."""
        boxes = box_belief.boxes_of_prediction(prediction)
        assert boxes.scores is not None  # noqa: S101 - as decoded
        called = np.flatnonzero(boxes.scores >= prediction.threshold)
        calibrated = boxes.uncalibrated is not None
        rows = [(boxes.names[n], boxes.corners[n].tolist(), "voxels", float(boxes.scores[n])) for n in called]
        found = [Finding(*one, box=row, calibrated=calibrated) for row, one in enumerate(rows)]
        return [*self._percent(boxes.at(called), prediction.geometry), *found]

    def _percent(self, called: BoundingBoxes, geometry: Geometry) -> list[Finding]:
        """The percent of positive cells, where the task asks for it; without a value where cells are too few."""
        if self.positive_percent is None:
            return []
        places = called.centres * geometry.steps
        block = positive_percent.BLOCK
        if not geometry.physical:
            block = max(geometry.shape)  # blocks of a mm are unknown: there is no interval
        made = positive_percent.estimate_percent(places, called.names, self.positive_percent, block=block)
        value = None if np.isnan(made.value) else round(made.value, 4)
        return [Finding(positive_percent.POSITIVE_PERCENT, value, "%", low=made.low, high=made.high)]

    @property
    def probable_findings(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes

    @property
    def valued_findings(self) -> Mapping[str, str]:
        """The percent of positive cells, where it is asked for."""
        return {positive_percent.POSITIVE_PERCENT: "%"} if self.positive_percent is not None else {}

    @property
    def answers(self) -> BoxBelief:
        """Boxes, with the score from which on they are called."""
        return BoxBelief(self.certainty, self.classes, self.overlap, self.threshold)

    def rows(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> UnseenCases:
        """Boxes with the network's scores, and those of the reference."""
        outputs = [
            (box_belief.boxes_of_prediction(one), box_belief.voxel_lengths(one.geometry, self.in_voxels))
            for one in predictions
        ]
        return UnseenCases(
            outputs, [self._reference(case) for case in cases], np.array([case.patient for case in cases])
        )

    def _reference(self, case: Case) -> BoundingBoxes:
        """The case's boxes; DatasetError for a class that was not trained."""
        boxes: BoundingBoxes = case.references["boxes"]
        if unknown := sorted(set(boxes.names) - set(self.classes)):
            raise DatasetError(
                f"boxes of {unknown[0]!r}, which is none of {', '.join(self.classes)}",
                case.id,
                "Declare the class, or correct it",
            )
        return boxes

    @property
    def _level(self) -> float:
        """The score from which on boxes are called."""
        return CALLED_FROM if self.threshold is None else self.threshold


# Decoding of maps of centres, lengths and offsets to boxes, slab by slab.
#
# Zhou et al., arXiv:1904.07850, in any number of axes. NumPy and SciPy only, so that a copy travels with a model.

# A fresh network predicts a centre in one voxel of ten: the loss is calm from the first step.
# Lin et al., ICCV 2017, arXiv:1708.02002, section 3.3; the share is CenterNet's.
PRIOR = float(np.log(0.1 / 0.9))
# Peaks that are looked at, and boxes that are kept: a scan has not so many.
MOST_PEAKS = 2000
MOST_BOXES = 300
# A slide of so many pixels, or more, may have a peak in every so many, and a box.
OF_A_SLIDE = 2**24
PIXELS_OF_A_CELL = 2**8
# Overlap above which boxes of members are one find, as in the paper.
FUSED = 0.55
# Less than this many nats in all views is certainty: nothing of it can be theirs.
CERTAIN = 1e-12
# Voxels of a side that is left of a box which reaches beyond the grid; of less there is nothing.
LEAST_SIDE = 0.5


def box_log_odds(classes: int, outputs: Any) -> Any:
    """(batch, channels, ...) outputs, of arrays and tensors alike, to (batch, classes, ...) log odds."""
    return outputs[:, :classes] + PRIOR


@dataclass(frozen=True)
class BoxDecoder:
    """The steps from outputs to boxes.

    classes:     names, in order of the first channels
    axes:        of the network's grid
    typical:     voxels that an output of 1 is long
    least:       score below which nothing is a peak
    suppression: overlap from which the weaker of two boxes of a class is no other find
    """

    classes: tuple[str, ...]
    axes: int
    typical: float
    least: float
    suppression: float

    def __call__(self, slabs: Iterable[tuple[Region, Array]], geometry: Geometry) -> BoundingBoxes:
        """Outputs (classes + 2 * axes, *region) of finished parts of a grid, in order, to boxes on that grid.

        One more output is the share of the uncertainty of centres about which several views disagree.

        Lengths and offsets are in voxels of the grid's own axes; an axis of a single slice may have none.
        """
        flat = flat_axis(geometry, self.axes)
        spatial = np.delete(geometry.shape, [] if flat is None else flat).astype(float)
        boxes = [
            self.of_peaks(index, values, np.zeros(self.axes), spatial)
            for index, values in self.peaks(_without(slabs, flat))
        ]
        nothing = _nothing(self.axes, boxes[0][3].shape[1] if boxes else 0)
        corners, kinds, scores, doubt = (np.concatenate(one) for one in zip(nothing, *boxes, strict=True))
        remaining = suppress_overlapping(corners, kinds, scores, self.suppression, most_boxes(geometry))
        return BoundingBoxes(
            _with(corners[remaining], flat),
            tuple(self.classes[kind] for kind in kinds[remaining]),
            scores[remaining],
            epistemic=doubt[remaining, 0] if doubt.shape[1] else None,
        )

    def peaks(self, slabs: Iterable[tuple[Region, Array]]) -> Iterator[tuple[NDArray[np.intp], Floats]]:
        """The local maxima of each slab's centres: (n, 1 + axes) class and voxel, (n, channels) the outputs there.

        The neighbouring slabs are compared too, so that it does not matter where the slabs were cut.
        """
        count = len(self.classes)
        least = float(np.log(self.least / (1 - self.least))) - PRIOR
        before: tuple[Region, Array] | None = None
        now: tuple[Region, Array] | None = None
        for following in chain(slabs, [None]):
            if now is not None:
                yield _peaks_of(now, [one for one in (before, following) if one is not None], count, least)
            before = now
            now = following

    def of_peaks(
        self, index: NDArray[np.intp], values: Floats, first: Floats | float, last: Floats | float
    ) -> tuple[Floats, NDArray[np.intp], Floats, Floats]:
        """(n, 1 + axes) class and voxel of each peak, and (n, channels) the outputs there, to boxes.

        first, last: (axes,) edges within which boxes are cut
        Gives (n, 2 * axes) edges, (n,) numbers of classes, (n,) scores and (n, further outputs); boxes of which
        little is left are left out
        """
        count = len(self.classes)
        kinds = index[:, 0]
        lengths = np.maximum(values[:, count : count + self.axes] * self.typical, 1.0)  # nothing smaller can be seen
        # An object's centre is within it.
        end = count + 2 * self.axes
        offsets = np.clip(values[:, count + self.axes : end] * self.typical, -lengths / 2, lengths / 2)
        centres = index[:, 1:] + 0.5 + offsets
        low, high = (np.clip(centres + side * lengths / 2, first, last) for side in (-1, 1))
        scores = 1 / (1 + np.exp(-(values[np.arange(len(kinds)), kinds] + PRIOR)))
        large_enough = ((high - low) >= LEAST_SIDE).all(axis=1)
        return (
            np.concatenate([low, high], axis=1)[large_enough],
            kinds[large_enough],
            scores[large_enough],
            values[large_enough, end:],
        )


def _peaks_of(
    slab: tuple[Region, Array], others: Sequence[tuple[Region, Array]], count: int, least: float
) -> tuple[NDArray[np.intp], Floats]:
    region, array = slab
    wide = array[:count]
    start = [0] * len(region)
    for position, other in others:
        touching = _touching(region, position)
        if touching is None:
            continue
        axis, after = touching
        row = np.take(other[:count], [0] if after else [-1], axis=axis + 1)
        wide = np.concatenate([wide, row] if after else [row, wide], axis=axis + 1)
        start[axis] += 0 if after else 1
    around = ndimage.maximum_filter(wide, (1, *[3] * len(region)), mode="constant", cval=-np.inf)
    cut = (slice(None), *(slice(s, s + n) for s, n in zip(start, array.shape[1:], strict=True)))
    peaks = np.argwhere((wide[cut] == around[cut]) & (wide[cut] >= least))
    heights = array[tuple(peaks.T)]
    most = max(MOST_PEAKS, array[0].size // PIXELS_OF_A_CELL)
    peaks = peaks[np.argsort(-heights, kind="stable")[:most]]
    values = array[(slice(None), *peaks[:, 1:].T)].T.astype(np.float64)
    return peaks + np.array([0, *(part.start for part in region)]), values


def _touching(region: Region, other: Region) -> tuple[int, bool] | None:
    """Along which axis another part touches this one, and whether it comes after it; None where it does not."""
    unlike = [axis for axis, (ours, theirs) in enumerate(zip(region, other, strict=True)) if ours != theirs]
    if len(unlike) != 1:
        return None
    ours = region[unlike[0]]
    theirs = other[unlike[0]]
    if theirs.start == ours.stop or theirs.stop == ours.start:
        return unlike[0], theirs.start == ours.stop
    return None


def most_boxes(geometry: Geometry) -> int:
    """The most boxes of an image: of a slide as many as it has room for."""
    voxels = math.prod(geometry.shape)
    is_slide = geometry.is_picture and voxels >= OF_A_SLIDE
    return voxels // PIXELS_OF_A_CELL if is_slide else MOST_BOXES


def suppress_overlapping(
    corners: Floats, kinds: NDArray[Any], scores: Floats, overlap: float, most: int = MOST_BOXES
) -> NDArray[np.intp]:
    """The numbers of the boxes that overlap no stronger box of their class so much, from the strongest down."""
    order = np.argsort(-scores, kind="stable")[: max(most, MOST_PEAKS)]
    low, high = np.split(corners, 2, axis=1)
    # Boxes that overlap have their centres in the same cell of a grid of the longest side, or in one beside it.
    cells = np.floor((low + high) / 2 / max(float((high - low).max(initial=0.0)), 1.0)).astype(np.intp)
    around = list(product((-1, 0, 1), repeat=low.shape[1]))
    near: dict[tuple[int, ...], list[int]] = {}
    remaining: list[int] = []
    for number in order.tolist():
        if len(remaining) == most:
            break
        cell = (int(kinds[number]), *cells[number].tolist())
        places = ((cell[0], *(one + step for one, step in zip(cell[1:], steps, strict=True))) for steps in around)
        stronger = [one for place in places for one in near.get(place, ())]
        if not stronger or box_matching.box_iou(corners[[number]], corners[stronger]).max() < overlap:
            remaining.append(number)
            near.setdefault(cell, []).append(number)
    return np.array(remaining, dtype=np.intp)


def fuse_boxes(members: Sequence[BoundingBoxes], shares: Shares = None) -> BoundingBoxes:
    """Boxes of several models as one set: weighted box fusion, Solovyev et al., arXiv:1910.13302.

    From the highest score down a box joins the fused box of its class that it overlaps most, if by more than FUSED;
    corners are the mean by scores, and a score is the mean of all members', which is 0 where one found nothing.
    """
    count = len(members)
    weights = [1.0] * count if shares is None else [count * share for share in shares]
    rows = [
        (float(score) * weight, name, corners)
        for one, weight in zip(members, weights, strict=True)
        for score, name, corners in zip(np.ravel(np.asarray(one.scores)), one.names, one.corners, strict=True)
    ]
    clusters: list[tuple[str, list[float], list[Floats], Floats]] = []
    for score, name, corners in sorted(rows, key=lambda row: -row[0]):
        same = [number for number, one in enumerate(clusters) if one[0] == name]
        overlaps = box_matching.box_iou(corners[None], [clusters[number][3] for number in same])[0] if same else []
        if len(overlaps) and np.max(overlaps) > FUSED:
            number = same[int(np.argmax(overlaps))]
            scores = [*clusters[number][1], score]
            boxes = [*clusters[number][2], corners]
            clusters[number] = name, scores, boxes, np.average(boxes, axis=0, weights=scores)
        else:
            clusters.append((name, [score], [corners], corners))
    if not clusters:
        return BoundingBoxes.none(members[0].axes, scored=True)
    # At most as many boxes count as there are members.
    shared = np.array([np.mean(one[1]) * min(len(one[1]), count) / count for one in clusters])
    order = np.argsort(-shared, kind="stable")[:MOST_BOXES]
    corners = np.array([clusters[number][3] for number in order])
    return BoundingBoxes(corners, tuple(clusters[number][0] for number in order), np.minimum(shared[order], 1.0))


def flat_axis(geometry: Geometry, axes: int) -> int | None:
    """The axis of a single slice that a network of two axes does not see."""
    if geometry.ndim == axes:
        return None
    return [axis for axis, size in enumerate(geometry.shape) if size == 1][-1]


def _without(slabs: Iterable[tuple[Region, Array]], flat: int | None) -> Iterator[tuple[Region, Array]]:
    for region, array in slabs:
        if flat is None:
            yield region, array
        else:
            yield (*region[:flat], *region[flat + 1 :]), array.squeeze(flat + 1)


def _with(corners: Floats, flat: int | None) -> Floats:
    """(n, 2 * axes) with the axis of the single slice again."""
    if flat is None:
        return corners
    low, high = np.split(corners, 2, axis=1)
    return np.concatenate([np.insert(low, flat, 0.0, axis=1), np.insert(high, flat, 1.0, axis=1)], axis=1)


def _nothing(axes: int, further: int) -> tuple[Floats, NDArray[np.intp], Floats, Floats]:
    return np.zeros((0, 2 * axes)), np.zeros(0, dtype=np.intp), np.zeros(0), np.zeros((0, further))


def append_disagreement(arrays: Mapping[str, Array], head: str) -> Array:
    """(channels, *region) outputs, and after them the share of uncertainty about which views disagree, if any did."""
    outputs = np.asarray(arrays[head])
    if f"{head}{BETWEEN}" not in arrays:
        return outputs
    within, between = (np.asarray(arrays[f"{head}{end}"]) for end in (WITHIN, BETWEEN))
    return np.concatenate([outputs, between / np.maximum(within + between, CERTAIN)])


def box_rows(boxes: BoundingBoxes, columns: Mapping[str, int], least: float) -> list[dict[str, PlainCell]]:
    """label, score and the corners by name, for each box from a score on; one of blanks where there is none.

    Where views were compared also its uncertainty in nats: that of whether it is there, and the part that is theirs.
    """
    assert boxes.scores is not None  # noqa: S101 - they are predicted
    blank: dict[str, PlainCell] = {"label": None, "score": None, **dict.fromkeys(columns)}
    parts = box_uncertainty(boxes)
    blank |= dict.fromkeys(parts)
    rows: list[dict[str, PlainCell]] = [
        {
            "label": boxes.names[number],
            "score": round(float(boxes.scores[number]), 6),
            **{name: round(float(boxes.corners[number, place]), 3) for name, place in columns.items()},
            **{name: float(values[number]) for name, values in parts.items()},
        }
        for number in range(len(boxes))
        if boxes.scores[number] >= least
    ]
    return rows or [blank]


def box_uncertainty(boxes: BoundingBoxes) -> dict[str, Floats]:
    """{"total", "aleatoric", "epistemic": (n,) nats} of whether each is there; nothing where no views were compared."""
    if boxes.epistemic is None or boxes.scores is None:
        return {}
    total = np.asarray(uncertainty.entropy([boxes.scores, 1 - boxes.scores]), dtype=np.float64)
    epistemic = total * boxes.epistemic
    return {"total": total, "aleatoric": total - epistemic, "epistemic": epistemic}

"""The answers of a detection: maps of centres, lengths and offsets to boxes with calibrated scores.

A copy of this file travels with a packaged model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from isocenter.belief import CALLED_FROM, BoxAnswers, Certainty, Rows, boxes_of, calibrated_boxes, sides_of
from isocenter.errors import DatasetError
from isocenter.tasks.detection.decode import PRIOR, Decoder, log_odds, rows_of, with_doubt
from isocenter.tasks.shared import Shares, mean_of
from isocenter.tasks.task import Task
from isocenter.values import (
    Array,
    BoundingBoxes,
    Case,
    Finding,
    Geometry,
    Measurements,
    Prediction,
    Slabs,
    columns_of,
    table_columns,
)

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

    @property
    def overlap(self) -> float:
        """Intersection over union from which a reference counts as found."""
        return OVERLAPS[self.axes]

    @property
    def measured(self) -> Callable[[Any], Any]:
        """The log odds of the classes."""
        return partial(log_odds, len(self.classes))

    @property
    def saliency_targets(self) -> tuple[str, ...]:
        """The boxes by their rank, and the classes."""
        return (*RANKED, *self.classes)

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The mean of the outputs themselves: lengths have no probabilities."""
        return {HEAD: mean_of([one[HEAD] for one in outputs], shares)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """(classes, ...) that a voxel is a centre of each class."""
        logits = np.asarray(arrays[HEAD], dtype=np.float32)[: len(self.classes)]
        return {HEAD: 1 / (1 + np.exp(-(logits + PRIOR)))}

    @property
    def decoder(self) -> Decoder:
        """The steps from outputs to boxes."""
        return Decoder(self.classes, self.axes, self.typical, LEAST_SCORE, self.suppression)

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """A box for every voxel that is more of a centre than its neighbours, with its calibrated score."""
        boxes = self.decoder(((region, with_doubt(arrays, HEAD)) for region, arrays in slabs), geometry)
        boxes = calibrated_boxes(boxes, self.certainty.calibrator, sides_of(geometry, self.in_voxels))
        return Prediction(geometry, boxes=boxes, labels=self.labels, threshold=self._level)

    def outputs(self, prediction: Prediction) -> Sequence[Mapping[str, Any]]:
        """A row for each box that is called: label, score, x0, y0[, z0], x1, y1[, z1]; one of blanks without any."""
        boxes = boxes_of(prediction)
        names = columns_of(boxes.axes)
        return rows_of(boxes, {name: names.index(name) for name in table_columns(boxes.axes)}, prediction.threshold)

    def results(self, prediction: Prediction, measured: Measurements = ()) -> list[Finding]:
        """The corners (voxels) and the score of each box that is called."""
        boxes = boxes_of(prediction)
        assert boxes.scores is not None  # noqa: S101 - as decoded
        called, calibrated = np.flatnonzero(boxes.scores >= prediction.threshold), boxes.uncalibrated is not None
        rows = [(boxes.names[n], boxes.corners[n].tolist(), "voxels", float(boxes.scores[n])) for n in called]
        return [Finding(*one, box=row, calibrated=calibrated) for row, one in enumerate(rows)]

    @property
    def probable_findings(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes

    @property
    def answers(self) -> BoxAnswers:
        """Boxes, with the score from which on they are called."""
        return BoxAnswers(self.certainty, self.classes, self.overlap, self.threshold)

    def rows(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Rows:
        """Boxes with the network's scores, and those of the reference."""
        outputs = [(boxes_of(one), sides_of(one.geometry, self.in_voxels)) for one in predictions]
        return Rows(outputs, [self._reference(case) for case in cases], np.array([case.patient for case in cases]))

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

"""The answers of an instance segmentation: two maps to numbers of objects, with a score for each.

A copy of this file travels with a packaged model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from isocenter.belief import (
    OBJECT,
    SCORES,
    Candidates,
    Certainty,
    ObjectAnswers,
    ObjectRow,
    Objects,
    Rows,
    confidence_of,
    network_scores,
    object_sizes,
    objects_of,
    scores_in_json,
    sigmoid,
)
from isocenter.files import Spool
from isocenter.tasks.instances.decode import Decoder, smoothing, smoothing_on
from isocenter.tasks.shared import Shares, label_values, mean_of, refuse_other_grid
from isocenter.tasks.task import Task
from isocenter.values import Array, Case, Finding, Geometry, Label, Measurements, Prediction, Slabs, blocks, counted_in

# Until validation cases have decided.
INSIDE, PROMINENCE = 0.5, 0.2
HEAD = "instances"
# Of more objects their number and mean size are findings, and each has its row in measurements.csv alone.
MOST_OBJECTS = 200
NUMBER, MEAN_SIZE = "number of objects", "mean size of objects"
# Maps are kept with half precision between network and watershed: heights need a thousandth.
KEPT = np.dtype(np.float16)
# Measured: two maps, heights in steps, numbers, pieces and the order of all while objects are told apart.
BYTES_PER_VOXEL = 40
# With both maps, while objects are looked for that are not called.
COVERING_BYTES = 64


class ObjectAnswering(Task):
    """The answers of an instance segmentation; the fields are those of `InstanceSegmentation`."""

    steps: tuple[float, ...]
    smallest: float
    inside: float | None
    prominence: float | None
    certainty: Certainty
    in_voxels: bool

    @property
    def bytes_per_voxel(self) -> int:
        """Memory of both maps, which are kept whole."""
        return BYTES_PER_VOXEL if self.certainty.covers_from is None else COVERING_BYTES

    @property
    def saliency_targets(self) -> tuple[str, ...]:
        """The label of the objects."""
        return tuple(label.name for label in self.labels)

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The mean of the outputs themselves: heights have no probabilities."""
        return {HEAD: mean_of([one[HEAD] for one in outputs], shares)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """(1, ...) that a voxel is inside an object."""
        return {HEAD: sigmoid(np.asarray(arrays[HEAD], dtype=np.float32)[:1])}

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """Numbers of objects and their scores; what no slab covers (cut away before the network) is background.

        An object may reach through many slabs: it takes the whole of both maps.
        """
        inside, height = Spool(geometry.shape, KEPT), Spool(geometry.shape, KEPT)
        for region, arrays in slabs:
            outputs = np.asarray(arrays[HEAD], dtype=np.float32)
            inside[region] = sigmoid(outputs[0]).astype(KEPT)
            height[region] = np.clip(outputs[1], 0.0, 1.0).astype(KEPT)
        maps = {"inside": inside.data, "height": height.data}
        numbers, scores, sizes = self._objects(maps, geometry)
        labels = tuple(Label(number, f"{OBJECT} {number}") for number in range(1, int(numbers.max(initial=0)) + 1))
        confidence = confidence_of([label.name for label in labels], scores, sizes, self.certainty.calibrator)
        is_open = None in (self.inside, self.prominence) or self.certainty.risk is not None
        return Prediction(
            geometry, data=numbers, labels=labels, confidence=confidence, untuned=maps if is_open else None
        )

    def outputs(self, prediction: Prediction) -> Mapping[str, Any]:
        """The number of objects, their mean size (mm² or mm³ where that of a voxel is known), and their scores."""
        count, size, unit = size_of_objects(prediction)
        scores = scores_in_json(prediction.confidence.scores) if len(prediction.confidence.scores) == count else None
        return {"count": count, f"mean_size_{unit.replace('²', '2').replace('³', '3')}": size, SCORES: scores}

    def results(self, prediction: Prediction, measured: Measurements = ()) -> list[Finding]:
        """The number of objects and their mean size; of at most `MOST_OBJECTS` also the size and score of each."""
        count, size, unit = size_of_objects(prediction)
        findings = [Finding(NUMBER, value=count), Finding(MEAN_SIZE, value=size, unit=unit)]
        confidence, sizes = prediction.confidence, _sizes(prediction) if count <= MOST_OBJECTS else {}
        return findings + [
            Finding(
                label.name,
                sizes[label.value],
                unit,
                confidence.scores.get(label.name),
                group=label.name,
                label=label.value,
                calibrated=bool(confidence.uncalibrated),
            )
            for label in prediction.labels
            if label.value in sizes
        ]

    @property
    def valued_findings(self) -> tuple[str, ...]:
        """The number of objects and their mean size."""
        return (NUMBER, MEAN_SIZE)

    @property
    def answers(self) -> ObjectAnswers:
        """Objects, each with a score."""
        return ObjectAnswers(self.certainty, self._candidates)

    def rows(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Rows:
        """Objects of images; a clip has none of its own.

        Maps are there while thresholds are open; objects that these part are others than those predicted before.
        """
        pairs = [pair for pair in zip(predictions, cases, strict=True) if not pair[0].frames]
        outputs = [
            ObjectRow(partial(self._shown, one), None if one.untuned is None else partial(self._candidates, one))
            for one, _ in pairs
        ]
        truth = [self._reference(case, one) for one, case in pairs]
        return Rows(outputs, truth, np.array([case.patient for _, case in pairs]))

    @property
    def _decoder(self) -> Decoder:
        inside = INSIDE if self.inside is None else self.inside
        prominence = PROMINENCE if self.prominence is None else self.prominence
        return Decoder(inside, prominence, smooth=smoothing(self.steps))

    def _objects(self, maps: Mapping[str, Any], geometry: Geometry) -> Objects:
        """Numbers of the objects that these maps show, scores of the network, and sizes."""
        inside, height = (np.asarray(maps[name]) for name in ("inside", "height"))
        numbers = replace(self._decoder, **self._on(geometry))(inside, height)
        return numbers, network_scores(numbers, inside), object_sizes(numbers, self._voxel(geometry))

    def _shown(self, prediction: Prediction) -> Objects:
        """The objects of a prediction: anew from its maps, else those that it was decoded to."""
        maps, geometry = prediction.untuned, prediction.geometry
        return objects_of(prediction, self._voxel(geometry)) if maps is None else self._objects(maps, geometry)

    def _candidates(self, prediction: Prediction) -> Candidates:
        """All objects that there may be, and their scores."""
        maps = prediction.untuned or {}
        decoder = replace(self._decoder, **self._on(prediction.geometry))
        return decoder.candidates(*(np.asarray(maps[name], dtype=np.float32) for name in ("inside", "height")))

    def _on(self, geometry: Geometry) -> dict[str, Any]:
        """Decoder on an image's own grid: the smallest object in its voxels, and its sides."""
        return {"smallest": self.smallest / self._voxel(geometry), "smooth": smoothing_on(geometry)}

    def _voxel(self, geometry: Geometry) -> float:
        """The size of a voxel in the unit in which sizes of objects are counted."""
        return 1.0 if self.in_voxels else geometry.voxel_volume or 1.0

    def _reference(self, case: Case, prediction: Prediction) -> Array:
        reference = case.references["instances"]
        refuse_other_grid(prediction, reference, case.id)
        return label_values(reference.data, case.id)


def size_of_objects(prediction: Prediction) -> tuple[int, float | None, str]:
    """Number of objects, their mean size, its unit; no size without an object."""
    assert prediction.data is not None  # noqa: S101 - as decoded
    geometry, count = prediction.geometry, len(prediction.labels)
    voxels = sum(int(np.count_nonzero(part)) for _, part in blocks(prediction.data))
    size = round(voxels / count * (geometry.voxel_volume or 1.0), 6) if count else None
    return count, size, unit_of_size(geometry.ndim, geometry.voxel_volume is not None)


def _sizes(prediction: Prediction) -> dict[int, float]:
    """{number of an object: its size} in the unit of `size_of_objects`."""
    assert prediction.data is not None  # noqa: S101 - as decoded
    voxels = np.zeros(1 + max((label.value for label in prediction.labels), default=0), np.int64)
    for _, part in blocks(prediction.data):
        voxels += np.bincount(np.ravel(part), minlength=len(voxels))
    size = prediction.geometry.voxel_volume or 1.0
    return {label.value: round(float(voxels[label.value]) * size, 6) for label in prediction.labels}


def unit_of_size(axes: int, physical: bool) -> str:
    """The unit in which the size of an object is counted."""
    if physical:
        return "mm²" if axes == 2 else "mm³"
    return counted_in(axes)

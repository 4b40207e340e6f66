"""The answers of an instance segmentation: maps to numbers of objects, with a score for each, and its class.

A copy of this file travels with a packaged model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.belief import Certainty, UnseenCases, certainties, class_belief, object_belief
from hilum.belief.object_belief import OBJECT, SCORES, Candidates, CaseObjects, Numbers, ObjectBelief, ObjectRow
from hilum.belief.prediction_sets import SET
from hilum.errors import DatasetError
from hilum.evaluation import instances
from hilum.evaluation.case_tables import PROBABILITY
from hilum.files.storage.spool import Spool
from hilum.lazy import ndimage
from hilum.report.display import PALETTE
from hilum.tasks.shared import averages, reference_labels
from hilum.tasks.shared.averages import Shares
from hilum.tasks.task import Columns, Task
from hilum.values import (
    Array,
    Case,
    Confidence,
    Deferred,
    Finding,
    Floats,
    Geometry,
    Image,
    Label,
    Measurements,
    Prediction,
    Slabs,
    grid_geometry,
    voxel_images,
)
from hilum.values.prediction import ObjectClasses
from hilum.values.table_cells import PlainCell

# Until validation cases have decided.
INSIDE = 0.5
PROMINENCE = 0.2
HEAD = "instances"
# Of more objects their number and mean size are findings, and each has its row in measurements.csv alone.
MOST_OBJECTS = 200
NUMBER = "number of objects"
MEAN_SIZE = "mean size of objects"
NUMBER_OF = "number of {}"
# Maps are kept with half precision between network and watershed: heights need a thousandth.
KEPT = np.dtype(np.float16)
# Measured: two maps, heights in steps, numbers, pieces and the order of all while objects are told apart.
BYTES_PER_VOXEL = 40
# With both maps, while objects are looked for that are not called.
COVERING_BYTES = 64
# What the maps of classes take each, and before their names among the maps.
CLASS_BYTES = KEPT.itemsize
OF_CLASS = "class "


class ObjectAnswering(Task):
    """The answers of an instance segmentation; the fields are those of `InstanceSegmentation`."""

    steps: tuple[float, ...]
    smallest: float
    inside: float | None
    prominence: float | None
    certainty: Certainty
    in_voxels: bool
    classes: tuple[str, ...]
    thresholds: Mapping[str, float] | None

    @property
    def bytes_per_voxel(self) -> int:
        """Memory of the maps, which are kept whole."""
        decoding = BYTES_PER_VOXEL if self.certainty.covers_from is None else COVERING_BYTES
        return decoding + CLASS_BYTES * len(self.classes)

    @property
    def saliency_targets(self) -> tuple[str, ...]:
        """The label of the objects, or their classes."""
        return tuple(label.name for label in self.labels)

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The mean of the outputs themselves: heights have no probabilities."""
        return {HEAD: averages.mean_output([one[HEAD] for one in outputs], shares)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """(1, ...) that a voxel is inside an object; (classes, ...) inside one of each class."""
        outputs = np.asarray(arrays[HEAD], dtype=np.float32)
        inside = certainties.sigmoid(outputs[:1])
        return {HEAD: inside * certainties.softmax(outputs[1:-1]) if self.classes else inside}

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """Numbers of objects and their scores; what no slab covers (cut away before the network) is background.

        An object may reach through many slabs: it takes the whole of all maps.
        """
        inside = Spool(geometry.shape, KEPT)
        height = Spool(geometry.shape, KEPT)
        of_classes = [Spool(geometry.shape, KEPT) for _ in self.classes]
        for region, arrays in slabs:
            outputs = np.asarray(arrays[HEAD], dtype=np.float32)
            inside[region] = certainties.sigmoid(outputs[0]).astype(KEPT)
            height[region] = np.clip(outputs[-1], 0.0, 1.0).astype(KEPT)
            chances = certainties.softmax(outputs[1:-1]) if of_classes else ()
            for class_map, own in zip(of_classes, chances, strict=True):
                class_map[region] = own.astype(KEPT)
        maps = {"inside": inside.data, "height": height.data}
        maps |= {f"{OF_CLASS}{name}": one.data for name, one in zip(self.classes, of_classes, strict=True)}
        objects = self._called_objects(self._objects(maps, geometry))
        kinds = objects.kinds.tolist()
        labels = [Label(number, f"{OBJECT} {number}") for number in range(1, len(kinds) + 1)]
        if self.classes:
            labels = [self._label_of(number, self.classes[kind]) for number, kind in enumerate(kinds, start=1)]
        confidence = self._confidence(objects, [label.name for label in labels])
        if self.classes and self.certainty.conformal is not None:
            pairs = zip(labels, objects.chances, strict=True)
            sets = {one.name: class_belief.class_set(self.certainty, own, self.classes)[""] for one, own in pairs}
            confidence = replace(confidence, set=sets)
        is_open = None in (self.inside, self.prominence) or self.certainty.risk is not None
        return Prediction(
            geometry,
            data=objects.numbers,
            labels=tuple(labels),
            objects=ObjectClasses(self.classes, objects.chances) if self.classes else None,
            confidence=confidence,
            untuned=maps if is_open else None,
        )

    def outputs(self, prediction: Prediction) -> Columns:
        """The number of objects, their mean size (mm² or mm³ where that of a voxel is known), and their scores.

        Of classes a row for each object: its number in the map, its class, its score, and the chance of each class.
        """
        if prediction.objects is not None:
            return _object_rows(prediction, prediction.objects)
        count, size, unit = size_of_objects(prediction)
        scores = None
        if len(prediction.confidence.scores) == count:
            scores = object_belief.scores_in_json(prediction.confidence.scores)
        return {"count": count, f"mean_size_{unit.replace('²', '2').replace('³', '3')}": size, SCORES: scores}

    def results(self, prediction: Prediction, measured: Measurements = ()) -> list[Finding]:
        """The number of objects and their mean size; of at most `MOST_OBJECTS` also the size and score of each."""
        count, size, unit = size_of_objects(prediction)
        findings = [Finding(NUMBER, value=count), Finding(MEAN_SIZE, value=size, unit=unit)]
        kinds = [label.kind for label in prediction.labels]
        findings += [Finding(NUMBER_OF.format(name), value=kinds.count(name)) for name in self.classes]
        confidence = prediction.confidence
        sizes = _sizes(prediction) if count <= MOST_OBJECTS else {}
        return findings + [
            Finding(
                label.name,
                sizes[label.value],
                unit,
                confidence.scores.get(label.name),
                group=label.name,
                label=label.value,
                calibrated=bool(confidence.uncalibrated),
                kind=label.kind,
            )
            for label in prediction.labels
            if label.value in sizes
        ]

    @property
    def valued_findings(self) -> Mapping[str, str]:
        """The number of objects and their mean size, and the number of each class."""
        return dict.fromkeys((NUMBER, MEAN_SIZE, *(NUMBER_OF.format(name) for name in self.classes)), "")

    @property
    def answers(self) -> ObjectBelief:
        """Objects, each with a score."""
        return ObjectBelief(self.certainty, self._candidates, self._kinds, self.thresholds)

    def _label_of(self, number: int, kind: str) -> Label:
        """The label of an object of a class, in the colour of the class."""
        return Label.of_object(number, kind, PALETTE[self.classes.index(kind) % len(PALETTE)])

    @property
    def _kinds(self) -> tuple[str, ...]:
        """The classes; where there is one, what any object is called."""
        return self.classes or (OBJECT,)

    def rows(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> UnseenCases:
        """Objects of images; a clip has none of its own.

        Maps are there while thresholds are open; objects that these part are others than those predicted before.
        """
        pairs = [pair for pair in zip(predictions, cases, strict=True) if not pair[0].frames]
        outputs = [
            ObjectRow(
                partial(self._predicted_objects, one), None if one.untuned is None else partial(self._candidates, one)
            )
            for one, _ in pairs
        ]
        truth = [self._reference(case, one) for one, case in pairs]
        return UnseenCases(outputs, truth, np.array([case.patient for _, case in pairs]))

    @property
    def _decoder(self) -> ObjectDecoder:
        inside = INSIDE if self.inside is None else self.inside
        prominence = PROMINENCE if self.prominence is None else self.prominence
        return ObjectDecoder(inside, prominence, smooth=smoothing_widths(self.steps))

    def _called_objects(self, objects: CaseObjects) -> CaseObjects:
        """Of classes the objects from the score of each on."""
        if not (self.classes and self.thresholds):
            return objects
        scores = self._confidence(objects, [str(number) for number in range(len(objects.scores))]).scores
        least = np.array([self.thresholds.get(name, 0.0) for name in self.classes])[objects.kinds]
        return objects.only(np.array([*scores.values()]) >= least)

    def _confidence(self, objects: CaseObjects, names: Sequence[str]) -> Confidence:
        """The calibrated scores of these objects."""
        return object_belief.confidence_of_objects(names, objects, self.certainty.calibrator, self._kinds)

    def _objects(self, maps: Mapping[str, Array | Deferred], geometry: Geometry) -> CaseObjects:
        """The objects that these maps show, with the scores of the network, and the chances of their classes.

        A score is the probability of an object of its class: inside times class, each the mean over its voxels.
        """
        inside, height = (np.asarray(maps[name]) for name in ("inside", "height"))
        numbers = replace(self._decoder, **self._on(geometry))(inside, height)
        scores = object_belief.network_scores(numbers, inside)
        sizes = object_belief.object_sizes(numbers, self._voxel(geometry))
        chances = self._chances(numbers, maps)
        return CaseObjects(numbers, scores * chances.max(axis=1), sizes, chances)

    def _chances(self, numbers: Numbers, maps: Mapping[str, Array | Deferred]) -> Floats:
        """(objects, classes) chances of the classes of numbered objects, the mean over the voxels of each."""
        if not self.classes:
            return np.ones((int(numbers.max(initial=0)), 1))
        named = (np.asarray(maps[f"{OF_CLASS}{name}"]) for name in self.classes)
        chances = np.stack([object_belief.network_scores(numbers, one) for one in named], axis=1)
        return np.asarray(chances / chances.sum(axis=1, keepdims=True))

    def _predicted_objects(self, prediction: Prediction) -> CaseObjects:
        """The objects of a prediction: anew from its maps, else those that it was decoded to."""
        maps = prediction.untuned
        geometry = prediction.geometry
        if maps is None:
            return object_belief.objects_of_prediction(prediction, self._voxel(geometry))
        return self._objects(maps, geometry)

    def _candidates(self, prediction: Prediction) -> Candidates:
        """All objects that there may be, and their scores."""
        maps = prediction.untuned or {}
        decoder = replace(self._decoder, **self._on(prediction.geometry))
        return decoder.candidates(*(np.asarray(maps[name], dtype=np.float32) for name in ("inside", "height")))

    def _on(self, geometry: Geometry) -> GridSettings:
        """Decoder on an image's own grid: the smallest object in its voxels, and its sides."""
        return {"smallest": self.smallest / self._voxel(geometry), "smooth": smoothing_widths_on(geometry)}

    def _voxel(self, geometry: Geometry) -> float:
        """The size of a voxel in the unit in which sizes of objects are counted."""
        return 1.0 if self.in_voxels else geometry.voxel_volume or 1.0

    def _reference(self, case: Case, prediction: Prediction) -> Array:
        """The numbers of the annotated objects, with their classes as `instances.code_classes` states them."""
        reference = case.references["instances"]
        reference_labels.refuse_other_grid(prediction, reference, case.id)
        numbers = reference_labels.label_values(reference.data, case.id)
        return coded_objects(numbers, reference, self.classes, case.id) if self.classes else numbers


def coded_objects(numbers: Array, reference: Image, classes: Sequence[str], case: str) -> Array:
    """The numbers of a map's objects with their classes, as `instances.code_classes` states them.

    DatasetError for an object without a class, or of one that is none of these.
    """
    kinds = {label.value: label.kind for label in reference.labels}
    values = np.unique(numbers)
    objects = values[values > 0].tolist()
    if bare := [number for number in objects if kinds.get(number) is None]:
        problem = f"the objects {errors.list_phrase(bare)} have no class"
        raise DatasetError(problem, case, "State the class of each, as in objects.csv")
    if unknown := sorted({str(kinds[number]) for number in objects} - {*classes}):
        problem = f"objects of {unknown[0]!r}, which is none of {', '.join(classes)}"
        raise DatasetError(problem, case, "Declare the class, or correct it")
    dense = np.searchsorted(np.append(0, objects), numbers)
    return instances.code_classes(dense, [classes.index(str(kinds[number])) for number in objects], len(classes))


def _object_rows(prediction: Prediction, classes: ObjectClasses) -> list[dict[str, PlainCell]]:
    """A row for each object of several classes; one of blanks where there is none."""
    chances = [f"{PROBABILITY}{name}" for name in classes.names]
    scores = prediction.confidence.scores
    sets = prediction.confidence.set
    blank = dict.fromkeys((OBJECT, "label", "score", *chances, SET))
    rows = [
        {
            OBJECT: label.value,
            "label": label.kind,
            "score": round(scores[label.name], 6),
            **dict(zip(chances, np.round(own, 6).tolist(), strict=True)),
            SET: certainties.set_in_json(sets.get(label.name)),
        }
        for label, own in zip(prediction.labels, classes.probabilities, strict=True)
    ]
    return rows or [blank]


def size_of_objects(prediction: Prediction) -> tuple[int, float | None, str]:
    """Number of objects, their mean size, its unit; no size without an object."""
    assert prediction.data is not None  # noqa: S101 - as decoded
    geometry = prediction.geometry
    count = len(prediction.labels)
    voxels = sum(int(np.count_nonzero(part)) for _, part in voxel_images.walk_blocks(prediction.data))
    size = round(voxels / count * (geometry.voxel_volume or 1.0), 6) if count else None
    return count, size, unit_of_size(geometry.ndim, geometry.voxel_volume is not None)


def _sizes(prediction: Prediction) -> dict[int, float]:
    """{number of an object: its size} in the unit of `size_of_objects`."""
    assert prediction.data is not None  # noqa: S101 - as decoded
    voxels = np.zeros(1 + max((label.value for label in prediction.labels), default=0), np.int64)
    for _, part in voxel_images.walk_blocks(prediction.data):
        voxels += np.bincount(np.ravel(part), minlength=len(voxels))
    size = prediction.geometry.voxel_volume or 1.0
    return {label.value: round(float(voxels[label.value]) * size, 6) for label in prediction.labels}


def unit_of_size(axes: int, physical: bool) -> str:
    """The unit in which the size of an object is counted."""
    if physical:
        return "mm²" if axes == 2 else "mm³"
    return grid_geometry.pixels_or_voxels(axes)


# Decoding of maps of inside and height to objects, each with a number of its own.
#
# A watershed from seeds: every hill of the height that stands out far enough is one object, which grows downhill over
# what is inside. Naylor et al., IEEE Trans Med Imaging 2019, doi:10.1109/TMI.2018.2865709, in any number of axes; hills
# are told from ripples by their prominence, which mathematical morphology calls dynamics: Grimaud, Proc SPIE 1992,
# doi:10.1117/12.60650. NumPy and SciPy only, so that a copy travels with a model.

# Heights are walked down in so many steps: a prominence is known that finely.
STEPS = 20
# Standard deviation, in the shortest side of a voxel, by which heights are smoothed: the ripples of a network, and of
# the lattice of voxels, are as fine (bench/findings/kinds.md, nuclei one by one).
RIPPLE = 1.0
# Probabilities of inside at which objects are looked for that are not called: each takes a watershed of its own.
LOWER = (0.5, 0.25, 0.1, 0.03)

Places = NDArray[np.intp]


class GridSettings(TypedDict):
    """The fields of `ObjectDecoder` that the grid of an image decides."""

    smallest: float
    smooth: tuple[float, ...]


@dataclass(frozen=True)
class ObjectDecoder:
    """The steps from maps to objects.

    inside:     probability from which a voxel belongs to an object
    prominence: by how much a hill (heights lie in 0..1) rises above the saddle to a higher one, to be an object
    smallest:   voxels; what has fewer is none
    smooth:     standard deviations in voxels, one an axis, by which heights are smoothed before; none without
    """

    inside: float
    prominence: float
    smallest: float = 0.0
    smooth: tuple[float, ...] = ()

    def __call__(self, inside: Array, height: Array) -> Numbers:
        """(*spatial) probability and height to numbers of objects: 1, 2, ... in the order of their first voxels.

        The type holds the largest number: 16 bits up to 65535 objects, then 32.
        """
        marked = np.asarray(inside) >= self.inside
        numbers = np.zeros(marked.shape, dtype=np.int32)
        box = _around(marked)
        if box is not None:
            numbers[box] = _flood(marked[box], self._smooth(height[box]), self.prominence)
        return object_belief.renumber_objects(numbers, self.smallest)

    def candidates(self, inside: Array, height: Array) -> tuple[Numbers, Floats]:
        """All objects that there may be, (*spatial) numbers, and (objects,) their scores.

        Those that are called score 1. Others are found where the probability of inside is lower, at their top nothing
        was found before; their score is the mean of it.
        """
        called = self(inside, height)
        numbers: Numbers = called.astype(np.int32)
        for level in (one for one in LOWER if one < self.inside):
            more = replace(self, inside=level)(inside, height).astype(np.int32)
            tops = ndimage.maximum_position(inside, more, np.arange(1, more.max(initial=0) + 1))
            fresh = np.array([False, *(numbers[top] == 0 for top in tops)])
            np.copyto(numbers, more + numbers.max(initial=0), where=fresh[more] & (numbers == 0))
        numbers = object_belief.renumber_objects(numbers, self.smallest)
        flat = numbers.reshape(-1)
        counts = np.bincount(flat).clip(min=1)
        scores = np.bincount(flat, np.asarray(inside, dtype=np.float64).reshape(-1)) / counts
        scores[np.unique(numbers[called > 0])] = 1.0
        return numbers, scores[1:]

    def _smooth(self, height: Array) -> Floats:
        values = np.asarray(height, dtype=np.float32)
        if not self.smooth:
            return values
        # The one slice of a picture that is kept as a volume has no axis here, and nothing to smooth along it.
        sides = self.smooth if len(self.smooth) == values.ndim else min(self.smooth)
        return np.asarray(ndimage.gaussian_filter(values, sides, mode="nearest"))


def smoothing_widths(steps: Sequence[float]) -> tuple[float, ...]:
    """Standard deviations in voxels by which heights are smoothed on a grid of these sides."""
    return tuple(RIPPLE * min(steps) / step for step in steps)


def smoothing_widths_on(geometry: Geometry) -> tuple[float, ...]:
    """The same on the grid of an image, whose axes come in any order; one of a single slice has nothing to smooth."""
    longer = [step for step, size in zip(geometry.steps, geometry.shape, strict=True) if size > 1]
    shortest = min(longer, default=min(geometry.steps))
    return smoothing_widths([max(step, shortest) for step in geometry.steps])


def _flood(marked: NDArray[np.bool_], height: Floats, prominence: float) -> Numbers:
    """Objects that grow from the tops of their hills downwards, each step as far as the height allows."""
    level = np.where(marked, np.floor(np.clip(height, 0.0, 1.0) * STEPS), -1).astype(np.int8)
    rise = max(1, round(prominence * STEPS))
    # A frame of background, so that every voxel has neighbours and places are numbers of one axis.
    level = np.pad(level, 1, constant_values=-1)
    numbers = np.zeros(level.shape, dtype=np.int32)
    flat = numbers.reshape(-1)
    offsets = _neighbours(level.shape)
    waiting: Places = np.zeros(0, dtype=np.intp)
    count = 0
    for floor, opened in _downwards(level):
        count = _seed_objects(numbers, level, floor, rise, count)
        waiting = np.concatenate([waiting, opened])
        waiting = _grow(flat, waiting[flat[waiting] == 0], level.reshape(-1) >= floor, offsets)
    # What is inside and has no hill worth the name is an object all the same.
    pieces, _ = ndimage.label((level >= 0) & (numbers == 0))
    numbers += np.where(pieces > 0, pieces + count, 0).astype(np.int32)
    return numbers[(slice(1, -1),) * numbers.ndim]


def _downwards(level: NDArray[np.int8]) -> Iterator[tuple[int, Places]]:
    """Each level from the highest to 0, with the places that are as high."""
    flat = level.reshape(-1)
    inside = np.flatnonzero(flat >= 0)
    order = inside[np.argsort(-flat[inside], kind="stable")]
    ends = np.searchsorted(-flat[order], -np.arange(STEPS, -2, -1), side="left")
    for floor, start, stop in zip(range(STEPS, -1, -1), ends[:-1], ends[1:], strict=True):
        yield floor, order[start:stop]


def _seed_objects(numbers: Numbers, level: NDArray[np.int8], floor: int, rise: int, count: int) -> int:
    """Give a number to every piece above the floor that rises far enough and has none; return the highest number."""
    top = floor + rise - 1  # what joins them lies one step below the floor
    if top > STEPS:
        return count
    pieces, above = ndimage.label(level >= floor)
    if not above:
        return count
    fresh = np.zeros(above + 1, dtype=bool)
    fresh[pieces[level >= top]] = True
    fresh[pieces[numbers > 0]] = False
    fresh[0] = False
    if not fresh.any():
        return count
    table = np.where(fresh, np.cumsum(fresh) + count, 0).astype(np.int32)
    np.copyto(numbers, table[pieces], where=fresh[pieces])
    return count + int(fresh.sum())


def _grow(numbers: Numbers, waiting: Places, is_open: NDArray[np.bool_], offsets: Places) -> Places:
    """Numbers handed on from neighbour to neighbour among open places; those that none has reached yet.

    waiting: open places without a number. After the first step only neighbours of what was just reached are looked at.
    """
    around = waiting
    while len(around):
        best = numbers[around[:, None] + offsets].max(axis=1)
        reached = around[best > 0]
        numbers[reached] = best[best > 0]
        around = (reached[:, None] + offsets).reshape(-1)
        around = np.unique(around[is_open[around] & (numbers[around] == 0)])
    return cast("Places", waiting[numbers[waiting] == 0])


def _neighbours(shape: tuple[int, ...]) -> Places:
    """Steps to the neighbours along each axis, in a flattened array."""
    strides = np.cumprod([1, *shape[:0:-1]])[::-1]
    return np.concatenate([strides, -strides]).astype(np.intp)


def _around(marked: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    boxes = ndimage.find_objects(marked.view(np.uint8))
    return boxes[0] if boxes else None

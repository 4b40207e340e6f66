"""Heads, targets, predictions and findings: the outputs asked of a network, its teaching, and its results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from hilum.values import grid_geometry
from hilum.values.bounding_boxes import BoundingBoxes
from hilum.values.grid_geometry import Floats, Geometry
from hilum.values.prompts import Prompts
from hilum.values.spatial_transform import SpatialTransform
from hilum.values.voxel_images import Array, Deferred, Label

Region = tuple[slice, ...]
# Finished parts of the source grid, in order, each with one array a head: (channels, *region) or (channels,).
Slabs = Iterable[tuple[Region, Mapping[str, Array]]]
# Where overlapping windows lie and how they are weighed: two ways of our own, and those of programs whose models run.
Merge = Literal["gaussian", "mean", "nnunet", "monai_gaussian", "monai_constant"]
# Results of one kind that a printed prediction names; of more it says how many there are.
MOST_PRINTED = 8


class Output:
    """The answers common to all kinds of head; each overrides what holds for it.

    parts: heads that it joins; the other attributes are those of `Dense`, `DenseImage` and `SyntheticImage`
    """

    lengths: int = 0
    offsets: int = 0
    heights: int = 0
    unit: float = 1.0
    called: tuple[str, ...] = ()
    of_input: tuple[int, ...] = ()
    condition_classes: tuple[str, ...] = ()
    condition_labels: tuple[str, ...] = ()
    parts: Mapping[str, Vector | Dense | Boxes | Instances] = MappingProxyType({})

    @property
    def count(self) -> int:
        """Numbers asked for: of the image or of each voxel; of boxes, their kinds."""
        return 0

    @property
    def answers(self) -> str:
        """The capability that a family of networks needs: "vector", "dense", "boxes", "objects", or none has it."""
        return ""

    @property
    def is_vector(self) -> bool:
        """Whether its numbers hold for the whole image."""
        return self.answers == "vector"

    @property
    def is_dense(self) -> bool:
        """Whether it has numbers for every voxel."""
        return bool(self.answers) and not self.is_vector

    @property
    def holds_boxes(self) -> bool:
        """Whether its channels state boxes: lengths along the axes, and offsets."""
        return self.lengths > 0

    @property
    def tells_objects(self) -> bool:
        """Whether its channels separate objects of one class by depths in them."""
        return self.heights > 0

    @property
    def conditions(self) -> tuple[int, int] | None:
        """How many classes and labels of a mask may be asked for, of a head that synthesises; None of any other."""
        return None

    @property
    def moves(self) -> bool:
        """Whether it states nothing but a vector, by which each voxel is displaced."""
        return self.is_dense and self.offsets == self.count

    @property
    def holds_numbers(self) -> bool:
        """Whether it states quantities, which may be sizes, and no classes."""
        return False

    @property
    def holds_intensities(self) -> bool:
        """Whether its channels are those of an image, whose unit and grid are the input's."""
        return False

    @property
    def turns(self) -> bool:
        """Whether some of its channels belong to the grid's axes or to the input's scale, and change with them."""
        return self.lengths + self.offsets > 0

    def turn_to_axes(self, array: Array, trace: AxisChange) -> Array:
        """(channels, ...) of the network's grid, its lengths and offsets stated for another grid's axes."""
        plain = self.count - self.lengths - self.offsets
        parts = np.split(np.asarray(array), [plain, plain + self.lengths])
        if self.lengths:
            parts[1] = trace.lengths_back(parts[1])
        if self.offsets:
            parts[2] = trace.lengths_back(parts[2], signed=True)
        return np.concatenate([part for part in parts if len(part)])


class IntensityScale(Protocol):
    """The scale on which a network sees the intensities of a channel."""

    def apply(self, values: Array) -> Array:
        """(...) intensities on the scale."""

    def undo(self, values: Array) -> Array:
        """The inverse of `apply`."""


class AxisChange(Protocol):
    """The steps from one grid to another."""

    @property
    def scales(self) -> Sequence[IntensityScale]:
        """Of the intensities of each channel of the image."""

    def lengths_back(self, lengths: Array, *, signed: bool = False) -> Array:
        """(axes, ...) lengths in voxels of one grid, in those of the other; signed: they are a vector."""


@dataclass(frozen=True)
class Vector(Output):
    """A head of `size` numbers for the whole image.

    holds: "classes", one number each, of which the largest wins; or "numbers", quantities that may be sizes, so that
           the image keeps its scale
    """

    size: int
    holds: Literal["classes", "numbers"] = "classes"

    @property
    def count(self) -> int:
        """Its numbers."""
        return self.size

    @property
    def answers(self) -> str:
        """The kind of head that a network has to have."""
        return "vector"

    @property
    def holds_numbers(self) -> bool:
        """Whether it states quantities, which may be sizes, and no classes."""
        return self.holds == "numbers"


@dataclass(frozen=True)
class Dense(Output):
    """A head of `channels` numbers for every voxel.

    lengths, offsets: so many of the last channels are lengths along the axes, one an axis, and after them a vector:
                      both in any unit of voxels of the network's grid. They turn, mirror and stretch with the grid
    heights:          so many of the last channels are depths in an object, which separate its voxels from another's
    unit:             voxels that a length, an offset or a depth of 1 is long
    called:           what each channel is, where it is not the background and the labels
    """

    channels: int
    lengths: int = 0
    offsets: int = 0
    heights: int = 0
    unit: float = 1.0
    called: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Its channels."""
        return self.channels

    @property
    def answers(self) -> str:
        """The kind of head that a network has to have: by what its last channels are."""
        return "boxes" if self.holds_boxes else "objects" if self.tells_objects else "dense"


@dataclass(frozen=True)
class DenseImage(Dense):
    """A head whose channels are an image: numbers, each on the scale of a channel of the input.

    of_input:   the input's channel on whose scale each of the first channels is, and to which it is added; empty where
                the numbers have a scale of their own
    deviations: so many of the last channels are logarithms of the deviations of the first ones
    """

    of_input: tuple[int, ...] = ()
    deviations: int = 0

    @property
    def holds_intensities(self) -> bool:
        """Whether its channels are those of an image, whose unit and grid are the input's."""
        return True

    @property
    def turns(self) -> bool:
        """Whether its channels have the scale of the input."""
        return bool(self.of_input)

    def turn_to_axes(self, array: Array, trace: AxisChange) -> Array:
        """(channels, ...) outputs in the unit of the source."""
        numbers = np.array(array, dtype=np.float32)
        for place, channel in enumerate(self.of_input):
            scale = trace.scales[channel]
            numbers[place] = scale.undo(numbers[place])
            if self.deviations and len(numbers) == self.count:
                low, high = scale.undo(np.array([0.0, 1.0]))
                numbers[place - self.deviations] += np.log(high - low)
        return numbers

    def turn_from_axes(self, array: Array, trace: AxisChange) -> Array:
        """The inverse of `turn_to_axes`, for targets."""
        numbers = np.array(array, dtype=np.float32)
        for place, channel in enumerate(self.of_input[: len(numbers)]):
            numbers[place] = trace.scales[channel].apply(numbers[place])
        return numbers


@dataclass(frozen=True)
class SyntheticImage(Dense):
    """A head by which whole images are made out of noise: for each voxel the way from the noise to the image.

    condition_classes, condition_labels: names of the classes, and of the labels of a mask, that may be asked for
    """

    condition_classes: tuple[str, ...] = ()
    condition_labels: tuple[str, ...] = ()

    @property
    def conditions(self) -> tuple[int, int]:
        """How many classes, and how many labels, may be asked for."""
        return len(self.condition_classes), len(self.condition_labels)


@dataclass(frozen=True)
class Boxes(Output):
    """Boxes, each of one of so many classes."""

    classes: int

    @property
    def count(self) -> int:
        """Its classes."""
        return self.classes


@dataclass(frozen=True)
class Instances(Output):
    """Objects, each with a number of its own, from which its class follows where there are several."""


@dataclass(frozen=True)
class SeveralHeads(Output):
    """The answers that are known of a case, of several questions: {part: the head that its target is for}."""

    parts: Mapping[str, Vector | Dense | Boxes | Instances] = field()


Head = Vector | Dense | Boxes | Instances | SeveralHeads
# Under this name a batch of such targets says, (batch, parts), of which samples each part is known.
KNOWN = "known"


@dataclass(frozen=True, eq=False)
class Target:
    """The target of one case in training; the kind says how it is cropped, warped and batched.

    head: Vector data are stacked as they are; Dense data, (*spatial) of label values, follow the image voxel by voxel;
          DenseImage data, (channels, *spatial) of numbers, NaN where nothing is known, follow it between voxels;
          Boxes data, (n, 1 + 2 * axes) of class, where it begins on every axis and where it ends (edges in voxels),
          follow it by their corners; Instances data, (*spatial) of whole numbers, follow it voxel by voxel; Several
          have {part: its target}, without the parts of which nothing is known
    structures: of Dense data, groups of values about which patches are centred, each as often as any other; without
                them every channel but the first is one
    outside:    of Dense data, the value of what lies beyond the image; None where its edge goes on as the image's does
    """

    head: Head
    data: Any
    structures: tuple[tuple[int, ...], ...] | None = None
    outside: int | None = None


@dataclass(frozen=True, eq=False)
class Map:
    """A dense result that is no label map: numbers in a unit, on the source grid.

    data:  (*spatial), or (names, *spatial), possibly Deferred
    names: of what there is a map each; empty where it is one
    words: what it shows, where its kind does not say that
    is_image: whether it is what the source's own image became, in its unit
    """

    data: Array | Deferred
    unit: str = ""
    names: tuple[str, ...] = ()
    words: str = ""
    is_image: bool = False


class Variances(TypedDict, total=False):
    """Uncertainty of an answer and its two parts, as `Confidence` has them."""

    total: float
    aleatoric: float
    epistemic: float


@dataclass(frozen=True, eq=False)
class Confidence:
    """The confidence in a prediction; what was not found stays empty.

    set:          {finding, or "" of exclusive classes: the answers that the stated coverage does not rule out}
    low, high:    {target or label: the ends of its interval}
    deviations:   of `Prediction.values`, one standard deviation each in their order
    expected:     {label: Dice that is expected of its mask}
    gate:         of a model without a fitted gate: "cut" where the minutes were over before it had looked at all cases,
                  "limits" where headers alone decide which images get an answer, "none" where every image gets one
    gate_p:       how likely an input of the training's kind is at least as odd as this one
    total:        uncertainty of the answer: entropy in nats, the mean over all voxels of a dense result, the sum over
                  findings; of values the variance. It is `epistemic`, about which several views of the image disagree
                  (networks, draws, mirrored images), and `aleatoric`, the rest, which each of them states
    uncalibrated: {class, finding or object: probability before calibration}
    scores:       {object: probability that it is a true one}, in the order of their numbers in the label map
    features:     (features,) what the network saw in it, where it is compared with other cases
    distances:    {score of the gate: distance from the training cases}
    thresholds:   {class or finding: probability from which on it is called}, where the patient's group has its own
    """

    set: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    low: Mapping[str, float] = field(default_factory=dict)
    high: Mapping[str, float] = field(default_factory=dict)
    deviations: Array | None = None
    expected: Mapping[str, float] = field(default_factory=dict)
    gate: str = ""
    gate_p: float | None = None
    total: float | None = None
    aleatoric: float | None = None
    epistemic: float | None = None
    uncalibrated: Mapping[str, float] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    features: Array | None = None
    distances: Mapping[str, float] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ObjectClasses:
    """The classes of single objects, in the order of their numbers in the label map.

    names:         of the classes
    probabilities: (objects, classes)
    """

    names: tuple[str, ...]
    probabilities: Floats

    @property
    def kinds(self) -> NDArray[np.intp]:
        """(objects,) the place of the most probable class of each among the names."""
        return np.asarray(self.probabilities.argmax(axis=1))


@dataclass(frozen=True, eq=False)
class AttendedTiles:
    """The tiles of a slide that were seen.

    corners:   (tiles, 4) first row and column, and those behind the last, in pixels of the finest level
    attention: (tiles,) share of each in the answer; together 1
    """

    corners: Array
    attention: Array


@dataclass(frozen=True, eq=False)
class Prediction:
    """The result of a task for one case; it prints itself in a few lines.

    case, task:    whose prediction it is, and the kind of problem, once a model has made it
    probabilities: {class: probability} for the whole image
    data:          (*spatial) label map on the source grid, possibly Deferred; of several tasks that of the first
    labels:        what the values of `data` mean
    values:        {target: number} for tasks that measure
    confidence:    how far it can be believed
    boxes:         with scores, on the source grid
    objects:       the classes of the objects that `data` numbers, where there are several
    parts:         of a task that is made of tasks: what each of them says
    threshold:     the score from which on boxes are called
    frames:        of a clip that was looked at frame by frame, each frame's own; `data` is then (frames, *spatial)
    abstained:     why the model gave no answer, where it gave none
    notes:         sentences without which the result would be misread
    maps:          {name: a dense result that is no label map}
    transform:     of a pair: from points of the fixed image to points of the moving one, RAS+ mm
    prompts:       what a person pointed at, of a task that takes prompts
    untuned:       {name: numbers} from which the result was decoded, or a sample of them: what tuning looks at
    tiles:         of a slide that was seen as a bag of tiles: where they lie, and how much each counted
    """

    geometry: Geometry
    probabilities: Mapping[str, float] | None = None
    data: Array | Deferred | None = None
    abstained: str | None = None
    labels: tuple[Label, ...] = ()
    values: Mapping[str, float] | None = None
    boxes: BoundingBoxes | None = None
    objects: ObjectClasses | None = None
    notes: tuple[str, ...] = ()
    confidence: Confidence = Confidence()
    maps: Mapping[str, Map] = field(default_factory=dict)
    transform: SpatialTransform | None = None
    untuned: Mapping[str, Array | Deferred] | None = None
    parts: Mapping[str, Prediction] = field(default_factory=dict)
    frames: tuple[Prediction, ...] = ()
    threshold: float = 0.0
    case: str = ""
    task: str = ""
    prompts: tuple[Prompts, ...] = ()
    tiles: AttendedTiles | None = None

    def __repr__(self) -> str:
        named = ", ".join(filter(None, [self.case, self.task])) or "prediction"
        return "\n".join([f"{named}:", *(f"  {line}" for line in self._results), *(f"  note: {n}" for n in self.notes)])

    @property
    def _results(self) -> Iterator[str]:
        """A line for each kind of result; of several tasks those of each."""
        yield from map(str, self.prompts)
        if self.abstained is not None:
            yield f"no answer: {self.abstained}"
        if self.parts:
            for name, part in self.parts.items():
                yield from (f"{name}: {line}" for line in part._results)
            return
        if self.probabilities:
            likeliest = sorted(self.probabilities.items(), key=lambda item: -item[1])
            yield f"probability: {_shorten_list([f'{name} {value:.3f}' for name, value in likeliest])}"
        if self.values:
            deviations = np.ravel([] if self.confidence.deviations is None else self.confidence.deviations)
            spreads = [f" ± {one:.3g}" for one in deviations] + [""] * len(self.values)
            pairs = zip(self.values.items(), spreads, strict=False)
            yield _shorten_list([f"{name} {value:.4g}{spread}" for (name, value), spread in pairs])
        if self.transform is not None:
            yield repr(self.transform)
        if (called := self.called_boxes) is not None:
            counts = {name: called.names.count(name) for name in dict.fromkeys(called.names)}
            yield f"boxes: {_shorten_list([f'{name} {count}' for name, count in counts.items()]) or 'none'}"
        if self.frames:
            yield f"{len(self.frames)} frames, each with its own result in `frames`"
        elif isinstance(self.data, Deferred):
            yield f"label map of {' x '.join(map(str, self.data.shape))} voxels, computed when it is read"
        elif self.data is not None:
            yield _shorten_list(self._sizes) or "no structure is marked"

    @property
    def _sizes(self) -> list[str]:
        """The size of each structure in ml, of two axes in mm², in voxels where nothing is known of lengths."""
        counts = np.bincount(np.asarray(self.data).ravel())
        size, unit = self.geometry.voxel_size or (1.0, grid_geometry.pixels_or_voxels(self.geometry.ndim))
        structures = [label for label in self.labels if label.value]
        voxels = {label.name: counts[label.value] if label.value < len(counts) else 0 for label in structures}
        return [f"{name} {size * count:.4g} {unit}" for name, count in voxels.items()]

    @property
    def label_maps(self) -> list[tuple[str, Array | Deferred, tuple[Label, ...]]]:
        """(part, label map, labels): the whole's, which is its first part's, called "", and those of further parts."""
        further = [(name, one.data, one.labels) for name, one in self.parts.items() if one.data is not None][1:]
        return [] if self.data is None else [("", self.data, self.labels), *further]

    @property
    def before_calibration(self) -> Prediction:
        """The same with probabilities as the network stated them, where they are known; so of its parts.

        Of boxes those that are called by their calibrated scores.
        """
        parts, confidence = {name: part.before_calibration for name, part in self.parts.items()}, self.confidence
        if confidence.scores:
            scores = confidence.uncalibrated or confidence.scores
            return replace(self, confidence=replace(confidence, scores=scores, uncalibrated={}), parts=parts)
        uncalibrated = dict(
            confidence.uncalibrated
        )  # of values it holds error bars or risks, which are no probabilities
        for part in parts.values():
            uncalibrated |= part.probabilities or {}
        probabilities = self.probabilities and {
            name: uncalibrated.get(name, chance) for name, chance in self.probabilities.items()
        }
        prediction = replace(self, probabilities=probabilities, parts=parts)
        if (called := self.called_boxes) is None or called.uncalibrated is None:
            return prediction
        return replace(prediction, boxes=replace(called, scores=called.uncalibrated, uncalibrated=None), threshold=0.0)

    @property
    def without_tuning_arrays(self) -> Prediction:
        """The same without what tuning looks at, which may be as large as the image; so of its parts."""
        return replace(
            self, untuned=None, parts={name: part.without_tuning_arrays for name, part in self.parts.items()}
        )

    @property
    def called_boxes(self) -> BoundingBoxes | None:
        """The boxes that the model stands by."""
        if self.boxes is None or self.boxes.scores is None:
            return self.boxes
        return self.boxes.at(self.boxes.scores >= self.threshold)


def _shorten_list(texts: list[str]) -> str:
    """The first of them, and how many others there are."""
    others = len(texts) - MOST_PRINTED
    return ", ".join([*texts[:MOST_PRINTED], *([f"and {others} more"] if others > 0 else [])])

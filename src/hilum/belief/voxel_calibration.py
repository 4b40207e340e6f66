"""Probabilities of voxels, calibrated, and what is summed up of them while they pass by: expected Dice and volumes.

A weighted sample of an image's voxels is taken while their outputs stream by; it stands for the whole image. NumPy and
SciPy only: a packaged model carries a copy of this file.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hilum.belief import certainties, value_belief
from hilum.belief.certainties import Certainty
from hilum.belief.dice_decoding import DiceDecoder
from hilum.errors import PlanError
from hilum.evaluation import mask_overlap
from hilum.evaluation.calibration_fit import Calibrator
from hilum.lazy import ndimage
from hilum.transforms import label_resampling
from hilum.values import Array, Confidence, Deferred, Floats, Geometry, Region
from hilum.values.grid_geometry import MM3_PER_ML

# What a prediction keeps of its masks until it is tuned.
SIZES = "sizes"
# By whether labels exclude each other: what is linear in the logarithms, and so cheap for every voxel.
TEMPERATURE = "temperature"
VOXEL_METHODS = {True: (TEMPERATURE, "vector"), False: (TEMPERATURE, "platt")}
# Numbers that become probabilities together, so that a slab of many labels is never held twice.
AT_ONCE = 2**20
# Voxels that are decoded together.
IN_CACHE = 2**16
# Voxels that are expected to be wrong: none times a threshold without end would be no number.
LEAST_DOUBT = 1e-9


@dataclass(frozen=True)
class VoxelCalibration:
    """Map from a network's outputs to probabilities.

    names:     of the channels; of exclusive labels the first is the background's
    exclusive: factors and shifts are of the logarithms of probabilities; else of each region's logarithm of odds
    writes:    the value that each channel marks in label maps
    maps:      whether calibrated outputs make the label map, else those of the network
    for_dice:  whether calibrated probabilities make masks of the largest Dice to expect
    """

    names: tuple[str, ...]
    exclusive: bool
    calibrator: Calibrator
    writes: tuple[int, ...] = ()
    maps: bool = False
    for_dice: bool = False

    def __call__(self, outputs: Array) -> Array:
        """(channels, ...) outputs to as many calibrated probabilities."""
        scores = self._calibrate(outputs) if self.moves else outputs
        return certainties.softmax(scores) if self.exclusive else certainties.sigmoid(scores)

    @property
    def plain(self) -> VoxelCalibration:
        """The same of outputs that nobody has calibrated."""
        return replace(self, calibrator=Calibrator(), maps=False, for_dice=False)

    @property
    def moves(self) -> bool:
        """Whether calibrated probabilities differ from those of the network."""
        return bool(self.calibrator.parameters)

    @property
    def moves_edges(self) -> bool:
        """Whether the most probable label of a voxel can be another one than before: one factor keeps all of them."""
        return self.moves and self.calibrator.method != TEMPERATURE

    def label_values(self, outputs: Array) -> Array:
        """(channels, ...) outputs to label values: of the largest, or of the last region likelier than not.

        Decoding for Dice needs all voxels of an image: `sample_labels` and `VoxelStream` do that.
        """
        if not (self.maps and self.moves_edges):
            return self._largest(outputs)
        outputs = np.asarray(outputs)
        values = np.empty(outputs.shape[1:], dtype=np.min_scalar_type(max(self.writes)))
        for rows in _rows(values, outputs):
            values[rows] = self._largest(self._calibrate(outputs[:, rows]))
        return values

    def sample_labels(self, outputs: Array, weights: Array) -> Array:
        """(channels, n) outputs of sampled voxels, each of which stands for (n,) of an image, to their label values."""
        if not self.for_dice:
            return self.label_values(outputs)
        decoder = DiceDecoder(self.writes, (), exclusive=self.exclusive)
        words = decoder.take(self(outputs), weights)
        decoder.place(words, weights)
        return decoder.label_values(words)

    def _largest(self, scores: Array) -> Array:
        if not self.exclusive:
            return certainties.labels_from_odds(scores, self.writes)
        return cast(
            "Array",
            np.array(self.writes, dtype=np.min_scalar_type(max(self.writes)))[label_resampling.winning_classes(scores)],
        )

    def _calibrate(self, outputs: Array) -> Array:
        """(channels, ...) outputs whose softmax or sigmoid the probabilities are."""
        parameters = self.calibrator.parameters
        if self.calibrator.method == TEMPERATURE:
            numbers = [[parameters["all"][0], 0.0]] * len(self.names)
        elif self.exclusive and len(self.names) == 2:
            factor, shift = parameters[self.names[1]]
            numbers = [[factor, 0.0], [factor, shift]]
        else:
            numbers = [list(parameters[name]) for name in self.names]
        logs = np.array(outputs, dtype=np.float32)
        if self.exclusive:
            logs -= logs.max(axis=0)
            logs -= np.log(np.exp(logs).sum(axis=0))
        for index, (factor, shift) in enumerate(numbers):
            logs[index] *= np.float32(factor)
            logs[index] += np.float32(shift)
        return logs


def _rows(labels: Array, outputs: Array) -> Iterator[slice]:
    """The rows of a part, so many at a time that their outputs are no more than `AT_ONCE`."""
    step = max(1, AT_ONCE * len(labels) // max(1, outputs.size))
    return (slice(row, row + step) for row in range(0, len(labels), step))


def _in_blocks(words: Array) -> Iterator[Array]:
    """(words, ...) codes as (words, n), so many at a time that their probabilities stay in the cache."""
    flat = words.reshape(len(words), -1)
    return (flat[:, start : start + IN_CACHE] for start in range(0, flat.shape[1], IN_CACHE))


def voxel_volume_in_unit(geometry: Geometry) -> float:
    """The volume of a voxel in `volume_unit`: 1 where those are counted."""
    unit = mask_overlap.volume_unit(geometry)
    if geometry.voxel_volume is None or not geometry.physical:
        return 1.0
    return geometry.voxel_volume / (MM3_PER_ML if unit == "ml" else 1.0)


class SoftDice:
    """2 sum(p m) / (sum(p) + sum(m)) of structures, over the parts of an image: the Dice that is expected of a mask.

    p: calibrated probabilities of all voxels, the background that is far away too; m: the mask.
    """

    def __init__(self, structures: Sequence[Sequence[int]], probable: VoxelCalibration) -> None:
        self._structures = structures
        self._probable = probable
        self._names = probable.names[-len(structures) :]
        self._sums = np.zeros((3, len(structures)))

    def take(self, region: Region, labels: Array, outputs: Array) -> None:
        """(*region) the label map of a part, and (channels, *region) its outputs."""
        for rows in _rows(labels, outputs):
            probable = self._probable(outputs[:, rows])[-len(self._structures) :]
            for index, values in enumerate(self._structures):
                mask = labels[rows] == values[0] if len(values) == 1 else np.isin(labels[rows], values)
                chance = probable[index].ravel()
                self._sums[:, index] += chance @ mask.ravel(), chance.sum(), np.count_nonzero(mask)

    def take_sums(self, sums: Floats) -> None:
        """(3, structures) probability within masks, that of all voxels, and voxels of masks, as others summed up."""
        self._sums += sums

    def expect_dice(self, powers: Mapping[str, float]) -> dict[str, float]:
        """{structure: Dice}, of masks that are not empty, each to the power that validation cases have found."""
        structures = zip(self._names, self._sums.T, strict=True)
        return {name: float((2 * both / (size + n)) ** powers[name]) for name, (both, size, n) in structures if n}

    def sizes(self, tidied: Array | None) -> Floats:
        """(2, structures) voxels of each mask, and voxels within or beside it that are expected to be wrong.

        tidied: (*spatial) the label map, where it is no longer the one that was taken
        """
        both, size, marked = self._sums
        if tidied is not None:
            marked = np.asarray(mask_overlap.structure_sizes(self._structures, tidied), dtype=np.float64)
        return np.stack([marked, size + self._sums[2] - 2 * both])

    def confidence(
        self,
        certainty: Certainty,
        powers: Mapping[str, float],
        sizes: Floats,
        geometry: Geometry,
        networks: Sequence[SoftDice] = (),
    ) -> Confidence:
        """The Dice that is expected of each structure, and the interval of its volume.

        networks: the same of each of those whose mean the outputs are, uncalibrated
        """
        marked, doubt = voxel_volume_in_unit(geometry) * sizes
        sums = [one.sizes(None) for one in networks if one._sums.any()]  # else their mean alone is known
        each = voxel_volume_in_unit(geometry) * np.array(sums).reshape(-1, 2, len(self._names))
        by_fold = value_belief.interval_of_folds(
            certainty, self._names, each[:, 0], each[:, 0], np.maximum(each[:, 1], LEAST_DOUBT)
        )
        volumes = dict(zip(self._names, marked.tolist(), strict=True))
        low, high = by_fold or value_belief.interval_ends(certainty, volumes, doubt.tolist())
        low = {name: max(0.0, end) if np.isfinite(end) else end for name, end in low.items()}
        return Confidence(low=low, high=high, expected=self.expect_dice(powers))


class VoxelStream:
    """Notes on a label map while its parts pass by: sampled voxels, the Dice to expect, and intervals of volumes.

    structures: the values of each; powers: as `SoftDice.expected` has them, None before they are found
    samples:    whether voxels are sampled, which tell of calibration afterwards
    codes:      a `Spool` for (words, *spatial) codes of voxels, where masks are decoded for Dice once all have passed
    """

    def __init__(
        self,
        geometry: Geometry,
        structures: Sequence[tuple[int, ...]],
        probable: VoxelCalibration,
        certainty: Certainty,
        powers: Mapping[str, float] | None,
        *,
        samples: bool,
        codes: Any = None,
    ) -> None:
        self._geometry = geometry
        self._probable = probable
        self._certainty = certainty
        self._powers = powers
        self._codes = codes
        self._regions = list[Region]()
        self._decoder = DiceDecoder(probable.writes, structures, exclusive=probable.exclusive)
        most = SAMPLED if certainty.calibration is None else SCORED
        self._sampler = VoxelSampler(geometry, most) if samples else None
        self._soft = None if powers is None else SoftDice(structures, probable)
        self._folds = [SoftDice(structures, probable.plain) for _ in range(certainty.folds)]

    def take(self, region: Region, outputs: Array, each: Array | None) -> Array:
        """(*region) the label map of a part, of which the outputs are noted.

        outputs: (channels, *region); each: those of each fold, one after the other along the channels, where known
        """
        # The largest of outputs that are yet to be resampled is found without all of them; what notes needs them all.
        takers = [one for one in (self._sampler, None if self._codes is not None else self._soft) if one is not None]
        outputs = np.asarray(outputs) if takers or self._codes is not None else outputs
        labels = self._probable.label_values(outputs)
        if self._codes is not None:
            self._keep_codes(self._codes, region, outputs)
        for taker in takers:
            taker.take(region, labels, outputs)
        if self._folds and each is not None:
            for fold, outputs_of_fold in zip(self._folds, np.split(np.asarray(each), len(self._folds)), strict=True):
                fold.take(region, self._probable.plain.label_values(outputs_of_fold), outputs_of_fold)
        return labels

    def decode_for_dice(self) -> Iterator[tuple[Region, Array]]:
        """The label maps of all parts once they have passed; none where masks are not decoded for Dice."""
        if self._codes is None:
            return
        for region in self._regions:
            for block in _in_blocks(self._codes[slice(None), *region]):
                self._decoder.place(block)
        for region in self._regions:
            words = self._codes[slice(None), *region]
            labels = np.concatenate([*map(self._decoder.label_values, _in_blocks(words))])
            yield region, labels.reshape(words.shape[1:])
        if self._soft is not None:
            self._soft.take_sums(self._decoder.sums)

    def _keep_codes(self, codes: Any, region: Region, outputs: Array) -> None:
        """Count the probabilities of a part, and keep their codes."""
        self._regions.append(region)
        words = np.empty((self._decoder.codes.words, *outputs.shape[1:]), np.uint16)
        for rows in _rows(words[0], outputs):
            words[:, rows] = self._decoder.take(self._probable(outputs[:, rows]))
        codes[slice(None), *region] = words

    def state_confidence(self, tidied: Array | None) -> tuple[Confidence, dict[str, Array] | None]:
        """Expected Dice and intervals of volumes, and what is kept to calibrate; tidied: as in `SoftDice.sizes`."""
        untuned = None if self._sampler is None else self._sampler.sample
        if self._soft is None:
            return Confidence(), untuned
        sizes = self._soft.sizes(tidied)
        confidence = self._soft.confidence(self._certainty, self._powers or {}, sizes, self._geometry, self._folds)
        return confidence, None if untuned is None else {**untuned, SIZES: sizes}


def check_voxel_calibration(
    method: str, probable: VoxelCalibration, expected: Mapping[str, float] | None, calibrated_map: bool | None
) -> None:
    """PlanError for a calibration that voxels do not have, or that is not of these channels.

    method: as a person chose it
    """
    methods = ("auto", "none", *VOXEL_METHODS[probable.exclusive])
    for setting, method_named in (("calibration_method", method), ("calibration", probable.calibrator.method)):
        if method_named not in methods:
            problem = f"voxels are not calibrated by {method_named}"
            raise PlanError(problem, f"task.{setting}", f"Choose one of {', '.join(methods)}")
    columns = probable.calibrator.parameters
    structures = probable.names[probable.exclusive :]
    sets_of_names = (
        ({"all"},) if probable.calibrator.method == TEMPERATURE else (set(probable.names), set(structures[-1:]))
    )
    if columns and set(columns) not in sets_of_names:
        remedy = "Leave it to `hilum train`"
        raise PlanError(f"it is of {', '.join(columns)}, not of the channels", "task.calibration", remedy)
    if calibrated_map not in (None, True, False):
        problem = f"{calibrated_map!r} does not say whether calibrated outputs make the label map"
        raise PlanError(problem, "task.calibrated_map", "Give true, false or none")
    if expected is not None and (set(expected) != set(structures) or min(expected.values()) <= 0):
        remedy = f"Give a number above 0 for each of {', '.join(structures)}"
        raise PlanError("there is not one for each structure", "task.expected_dice", remedy)


# Voxels of an image, half of them near edges between labels: to calibrate, and afterwards to be scored.
SAMPLED = 50_000
SCORED = 10_000
# mm (voxels where their size is not known), along each axis, from an edge.
NEAR = 5.0
# Voxels that are looked at together: what they take beside outputs is 30 bytes each.
# What a prediction keeps beside a sample: (axes, 2) where the parts begin and end that came.
LOOKED_AT = "looked_at"
# Keys, places (n, axes) and outputs (n, channels).
_Sample = tuple[Array, Array, Array]


@dataclass(frozen=True, eq=False)
class VoxelSample:
    """Voxels of one image.

    places:  (n, axes) their indices
    outputs: (n, channels) of the network, float32
    weights: (n,) how many voxels each stands for: one over the probability that it was sampled
    """

    places: NDArray[np.int32]
    outputs: NDArray[np.float32]
    weights: NDArray[np.float32]

    @classmethod
    def from_record(cls, untuned: Mapping[str, Array | Deferred]) -> VoxelSample:
        """Read a sample as a prediction keeps it."""
        return cls(*(np.asarray(untuned[one.name]) for one in fields(cls)))

    def at(self, grid: Array) -> Array:
        """(n,) what a map (*spatial) holds there."""
        return cast("Array", np.asarray(grid)[tuple(self.places.T)])


class VoxelSampler:
    """Samples about `most` voxels of an image whose parts come one by one, half of them near edges of its labels.

    Every voxel near an edge has a random key by its place, and those with the smallest keys are kept: a simple random
    sample, however many there will be. The others are sampled one by one, each with the same probability.
    Cohen and Kaplan, Summarizing data using bottom-k sketches, doi:10.1145/1281100.1281133
    """

    def __init__(self, geometry: Geometry, most: int = SAMPLED) -> None:
        self._geometry = geometry
        self._most = most // 2
        self._seed = zlib.crc32(repr(geometry.shape).encode() + geometry.affine.tobytes())
        self._share = min(1.0, self._most / math.prod(geometry.shape))
        self._near = 0
        self._limit = 2**32
        self._ends: list[list[tuple[int, int]]] = []
        self._kept: list[_Sample] = []
        self._others: list[_Sample] = []

    def take(self, region: Region, labels: Array, outputs: Array) -> None:
        """A part of the image: (*region) its label map, and (channels, *region)."""
        near = is_near_edge(labels, self._geometry)
        ends = [part.indices(size)[:2] for part, size in zip(region, self._geometry.shape, strict=True)]
        starts = [start for start, _ in ends]
        self._ends.append(ends)
        step = max(1, AT_ONCE * len(labels) // max(1, labels.size))
        for row in range(0, len(labels), step):
            rows = slice(row, row + step)
            self._take([starts[0] + row, *starts[1:]], near[rows], outputs[:, rows])

    @property
    def sample(self) -> dict[str, Array] | None:
        """The fields of a `VoxelSample`, and what part of the image was looked at; None where no part came."""
        self._shrink()
        parts = [(*part, 1 / self._share) for part in self._others]
        parts += [(*part, self._near / max(1, len(part[0]))) for part in self._kept]
        if not parts:
            return None
        weights = [np.full(len(keys), weight, dtype=np.float32) for keys, *_, weight in parts]
        places, outputs = (np.concatenate([part[n] for part in parts]) for n in (1, 2))
        ends = np.array(self._ends)
        box = np.stack([ends[..., 0].min(axis=0), ends[..., 1].max(axis=0)], axis=1)
        return {"places": places, "outputs": outputs, "weights": np.concatenate(weights), LOOKED_AT: box}

    def _take(self, starts: Sequence[int], near: NDArray[np.bool_], outputs: Array) -> None:
        indices = np.nonzero(near)
        places = np.zeros(len(indices[0]), dtype=np.uint32)
        for axis, start, size in zip(indices, starts, self._geometry.shape, strict=True):
            places = places * np.uint32(size) + (axis + start).astype(np.uint32)
        keys = _mix(places ^ np.uint32(self._seed))
        self._near += len(keys)
        chosen = keys <= self._limit
        self._kept.append(_collect_sample(keys[chosen], [own[chosen] for own in indices], starts, outputs))
        if sum(len(part[0]) for part in self._kept) > 2 * self._most:
            self._shrink()
        # Gaps between voxels that are sampled one by one with a probability have a geometric law.
        random = np.random.default_rng([self._seed, *starts])
        expected = self._share * near.size
        gaps = random.geometric(self._share, size=int(expected + 6 * expected**0.5 + 10))
        others = np.add.accumulate(gaps) - 1  # `cumsum` keeps some 60 bytes each time: a clip would show it
        others = others[others < near.size]
        others = others[~near.reshape(-1)[others]]
        self._others.append(_collect_sample(others, np.unravel_index(others, near.shape), starts, outputs))

    def _shrink(self) -> None:
        """Keep those near edges that have the smallest keys."""
        if self._kept:
            keys, places, outputs = (np.concatenate(each) for each in zip(*self._kept, strict=True))
            if len(keys) > self._most:
                least = np.argpartition(keys, self._most - 1)[: self._most]
                keys = keys[least]
                places = places[least]
                outputs = outputs[least]
                self._limit = int(keys.max())
            self._kept = [(keys, places, outputs)]


def _collect_sample(keys: Array, indices: Sequence[Array], starts: Sequence[int], outputs: Array) -> _Sample:
    index: tuple[Any, ...] = (slice(None), *indices)
    values = outputs[index].T.astype(np.float32)
    return keys, np.stack(indices, axis=1).astype(np.int32) + np.array(starts, dtype=np.int32), values


def is_near_edge(labels: Array, geometry: Geometry) -> NDArray[np.bool_]:
    """(*spatial) where the label changes within `NEAR` along every axis, in a label map or a part of it."""
    edges = np.zeros(labels.shape, dtype=np.uint8)
    for axis in range(labels.ndim):
        along = np.moveaxis(labels, axis, 0)
        marked = np.moveaxis(edges, axis, 0)
        changes = along[1:] != along[:-1]
        marked[1:] |= changes
        marked[:-1] |= changes
    boxes = ndimage.find_objects(edges)
    if not boxes:
        return edges.view(np.bool_)
    steps = geometry.spacing or (1.0,) * labels.ndim
    reach = [max(1, round(NEAR / step)) for step in steps]
    box = tuple(slice(max(0, part.start - n), part.stop + n) for part, n in zip(boxes[0], reach, strict=True))
    part = edges[box].copy()
    for axis, n in enumerate(reach):
        ndimage.maximum_filter1d(part, 2 * n + 1, axis=axis, output=part, mode="constant")
    edges[box] = part
    return edges.view(np.bool_)


def _mix(numbers: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Numbers that look random, each in its place (lowbias32 of the Hash Function Prospector)."""
    mixed = numbers ^ (numbers >> np.uint32(16))
    mixed *= np.uint32(0x7FEB352D)
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0x846CA68B)
    return np.asarray(mixed ^ (mixed >> np.uint32(16)))

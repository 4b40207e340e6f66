"""Masks decoded for Dice: of each structure as many of its most probable voxels as make the largest Dice to expect.

The n most probable voxels of a structure have about the expected Dice 2 sum(their p) / (sum(all p) + n + 1), the
reciprocal moment approximation of RankSEG. One more voxel raises it as long as its p is above half of it: a structure's
mask is all that is likelier than half of its largest expected Dice. NumPy only: a packaged model carries a copy.
Dai and Li, JMLR 24(224), 2023; Wang and Dai, NeurIPS 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hilum.values import Array, Floats

# What makes label maps: the largest output of each voxel, or the Dice to expect of each structure's mask.
Decoding = Literal["argmax", "dice"]
ARGMAX, DICE = get_args(Decoding)
RANKSEG = "JMLR 24(224), 2023"
# Steps of a probability: 12 bits.
STEPS = 4095
# A structure of which no voxel is likelier has no mask.
LEAST_LIKELY = 0.5
# So many channels have a number of 4 bits.
FEW_CHANNELS = 16


@dataclass(frozen=True)
class VoxelCodes:
    """Short codes of the probabilities of voxels: exclusive channels keep the two largest with their numbers.

    Up to 16 channels that is 4 bytes a voxel, up to 256 it is 6; regions that may overlap keep 2 bytes each.
    """

    channels: int
    exclusive: bool

    @property
    def kept(self) -> int:
        """Probabilities that are kept of a voxel; of two exclusive channels the second is what is left."""
        return min(2, self.channels - 1) if self.exclusive else self.channels

    @property
    def words(self) -> int:
        """Words of a voxel, of two bytes each."""
        return self.kept + (self.exclusive and self.channels > FEW_CHANNELS)

    def pack(self, levels: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """(channels, ...) steps of probabilities to (words, ...)."""
        if not self.exclusive:
            return levels
        first, second = np.zeros((2, *levels.shape[1:]), np.uint32)
        for channel, level in enumerate(levels):
            code = level.astype(np.uint32) << np.uint32(8) | np.uint32(channel)
            second = np.maximum(second, np.minimum(first, code))
            first = np.maximum(first, code)
        pair = np.stack([first, second][: self.kept])
        steps = pair >> 8
        numbers = pair & 255
        if self.channels <= FEW_CHANNELS:
            return (steps << 4 | numbers).astype(np.uint16)
        return np.concatenate([steps, numbers[:1] << 8 | numbers[1:]]).astype(np.uint16)

    def split(self, words: Array) -> tuple[Array, Array]:
        """(words, ...) of exclusive channels to (kept, ...) steps of probabilities, and numbers of their channels."""
        if self.channels <= FEW_CHANNELS:
            return words >> 4, words & 15
        return words[:2], np.stack([words[2] >> 8, words[2] & 255])

    def unpack(self, words: Array) -> tuple[Array, Array]:
        """(words, n) to (kept, n) probabilities and the numbers of their channels, with the third of three."""
        if not self.exclusive:
            return words / np.float32(STEPS), np.broadcast_to(np.arange(self.channels)[:, None], words.shape)
        steps, numbers = self.split(words)
        chances = steps / np.float32(STEPS)
        if self.kept == self.channels - 1:
            last = self.channels * (self.channels - 1) // 2 - numbers.sum(axis=0, dtype=np.int64)
            chances = np.concatenate([chances, (1 - chances.sum(axis=0, keepdims=True)).clip(0)])
            numbers = np.concatenate([numbers, last[None].astype(numbers.dtype)])
        return chances, numbers


class DiceDecoder:
    """Decodes the masks of one image in three passes over its voxels, of which only the first needs probabilities.

    `take` counts probabilities and gives codes, `place` sums up what exactly one mask holds, `label_values` decides.
    writes:     the value that each channel marks
    structures: the values of each structure, of which `sums` tell
    exclusive:  whether a voxel has one of the channels; else each is decoded alone, and a later one is on top
    """

    def __init__(self, writes: Sequence[int], structures: Sequence[Sequence[int]], *, exclusive: bool) -> None:
        count = len(writes)
        self.codes = VoxelCodes(count, exclusive)
        self._writes = np.array(writes, dtype=np.min_scalar_type(max(writes)))
        self._structures = structures
        self._exclusive = exclusive
        # Nearly all voxels are surely the first channel's, or no region's: they are counted together.
        self._sure = np.array([[STEPS * exclusive], *[[0]] * (count - 1)], dtype=np.uint16)
        self._histogram = np.zeros((count, STEPS + 1))
        self._sizes = np.zeros(count)
        self._largest = np.zeros(count)
        # Probabilities and voxels that no other mask can hold, those of others that none does, and those of masks.
        self._clear, self._among = np.zeros((2, 2, count))
        self._marked = np.zeros((2, count if exclusive else len(structures)))

    def take(self, chances: Array, weights: Array | None = None) -> NDArray[np.uint16]:
        """(channels, ...) probabilities of some voxels to their codes (words, ...).

        weights: (...) voxels that each stands for; None: each for itself
        """
        flat = chances.reshape(len(chances), -1)
        self._sizes += flat.sum(axis=1) if weights is None else flat @ weights
        self._largest = np.maximum(self._largest, flat.max(axis=1, initial=0.0))
        least = 0.5 / STEPS  # what rounds to a step
        is_sure = flat[0] >= 1 - least if self._exclusive else (flat <= least).all(axis=0)
        doubtful = np.flatnonzero(~is_sure)
        levels = np.rint(flat[:, doubtful] * np.float32(STEPS)).astype(np.uint16)
        weight = None if weights is None else weights[doubtful]
        self._histogram += [np.bincount(level, weight, STEPS + 1) for level in levels]
        rest = np.count_nonzero(is_sure) if weights is None else weights[is_sure].sum()
        self._histogram[np.arange(len(levels)), self._sure[:, 0]] += rest
        words = np.tile(self.codes.pack(self._sure), flat.shape[1])
        words[:, doubtful] = packed = self.codes.pack(levels)
        if self._exclusive:
            self._clear += self._sums_of_first(packed, weight)
            self._clear[:, 0] += rest
        return words.reshape(-1, *chances.shape[1:])

    @cached_property
    def thresholds(self) -> Floats:
        """(channels,) what a probability has to be above: half the largest Dice to expect; infinite without a mask."""
        counts = self._histogram[:, ::-1]
        sums = (counts * np.arange(STEPS, -1, -1) / STEPS).cumsum(axis=1)
        halves = sums / (self._sizes[:, None] + counts.cumsum(axis=1) + 1)
        return np.where(self._largest > LEAST_LIKELY, halves.max(axis=1), np.inf).astype(np.float32)

    def place(self, words: NDArray[np.uint16], weights: Array | None = None) -> None:
        """Sum up the voxels (words, n) that exactly one of exclusive masks holds."""
        if not self._exclusive:
            return
        _, unclear = self._first(words)
        weight = np.ones(len(unclear)) if weights is None else weights[unclear]
        self._clear -= self._sums_of_first(words[:, unclear], weight)
        chances, numbers, selected = self._select(words[:, unclear])
        lone = selected & (selected.sum(axis=0, dtype=np.uint8) == 1)
        weight = np.broadcast_to(weight, lone.shape)[lone]
        among = (chances[lone] * weight, weight)
        self._among += [np.bincount(numbers[lone], one, len(self._writes)) for one in among]

    def label_values(self, words: NDArray[np.uint16]) -> Array:
        """(words, n) codes to the label values of these voxels, which `place` has seen.

        Of several masks, or where there is none, the channel wins whose expected Dice the voxel raises most.
        """
        first, unclear = self._first(words)
        chances, numbers, selected = self._select(words[:, unclear])
        labels = self._writes[first] if self._exclusive else np.zeros(words.shape[1], self._writes.dtype)
        if not self._exclusive:
            labels[unclear] = self._overlay(chances, selected)
            return labels
        has_mask = np.isfinite(self.thresholds)
        eligible = np.where(selected.any(axis=0), selected, (has_mask | ~has_mask.any())[numbers])
        both, count = self._clear + self._among
        size = count + self._sizes + 1
        gain = (chances - (both / size)[numbers]) / (size + 1)[numbers]
        winner = np.where(eligible, gain, -np.inf).argmax(axis=0)[None]
        channels, own = (np.take_along_axis(one, winner, 0)[0] for one in (numbers, chances))
        self._marked += [np.bincount(channels, weight, len(self._writes)) for weight in (own, None)]
        labels[unclear] = self._writes[channels]
        return labels

    def _first(self, words: NDArray[np.uint16]) -> tuple[Array, NDArray[np.intp]]:
        """(n,) the most probable channel, and the places of voxels that another mask than its may hold."""
        limits = np.minimum(self.thresholds * STEPS, np.iinfo(np.uint16).max).astype(np.uint16)
        if not self._exclusive:
            return words[0], np.flatnonzero((words > limits.min()).any(axis=0))
        steps, numbers = self.codes.split(words)
        second = steps[1] if len(steps) > 1 else STEPS - steps[0]
        return numbers[0], np.flatnonzero((steps[0] <= limits[numbers[0]]) | (second > limits.min()))

    def _sums_of_first(self, words: NDArray[np.uint16], weight: Array | None) -> list[Array]:
        """(channels,) probabilities and voxels of the most probable channels."""
        steps, numbers = self.codes.split(words)
        chance = steps[0] / STEPS if weight is None else steps[0] / STEPS * weight
        return [np.bincount(numbers[0], one, len(self._writes)) for one in (chance, weight)]

    def _select(self, words: NDArray[np.uint16]) -> tuple[Array, Array, Array]:
        """Probabilities of voxels, channels, and whether the masks of these hold them."""
        chances, numbers = self.codes.unpack(words)
        return chances, numbers, chances > self.thresholds[numbers]

    def _overlay(self, chances: Array, selected: NDArray[np.bool_]) -> Array:
        """The label map of regions, a later one on top."""
        labels = np.zeros(selected.shape[1:], self._writes.dtype)
        for value, inside in zip(self._writes, selected, strict=True):
            labels[inside] = value
        for index, values in enumerate(self._structures):
            mask = np.isin(labels, values)
            self._marked[:, index] += chances[index][mask].sum(), np.count_nonzero(mask)
        return labels

    @property
    def sums(self) -> Floats:
        """(3, structures) probability within each mask, that of all voxels, and voxels of the mask."""
        own = slice(-len(self._structures), None)
        both, count = (self._marked + self._clear if self._exclusive else self._marked)[:, own]
        return np.stack([both, self._sizes[own], count])

"""Weighted sums of overlapping windows, of which only the rows in progress are held."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from isocenter.runtime.preprocessing import YIELDED_BYTES
from isocenter.values import Array, Region


@dataclass(eq=False)
class Sums:
    """The rows [first, first + len(weight)) of a part of a plane, for each dense head.

    weight: (rows, *plane) of each voxel of a window
    plane:  the part of the other axes that is wanted
    first:  row at which what is held begins
    handed: row up to which means have been handed on
    """

    weight: NDArray[np.float32]
    plane: Region
    first: int
    handed: int
    heads: dict[str, Array] = field(default_factory=dict)
    weights: NDArray[np.float32] = field(init=False)
    _scratch: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        # All in the order of memory in which windows come, whatever axis is walked: a quarter of the time.
        self.weights = np.zeros_like(self.weight, shape=self._shape)
        self._scratch = np.empty_like(self.weight)

    @property
    def _shape(self) -> tuple[int, ...]:
        return (len(self.weight), *(part.stop - part.start for part in self.plane))

    def add(self, corner: tuple[int, ...], outputs: Mapping[str, Array]) -> None:
        """What a network said of the window at this corner, {head: (channels, *window)}."""
        place, inside = self._places(corner)
        self.weights[place] += self.weight[inside]
        for name, output in outputs.items():
            if name not in self.heads:
                shape = (len(output), *self._shape)
                self.heads[name] = np.zeros_like(output, dtype=np.float32, shape=shape)
            for held, channel in zip(self.heads[name], output, strict=True):
                # Into memory that is in the cache already: half the time of a product of its own.
                np.multiply(channel, self.weight, out=self._scratch)
                held[place] += self._scratch[inside]

    def _places(self, corner: tuple[int, ...]) -> tuple[Region, Region]:
        """Where a window lies in what is held, and which part of it does."""
        place, inside = [slice(None)], [slice(None)]  # the rows are the window's own
        for start, size, part in zip(corner[1:], self.weight.shape[1:], self.plane, strict=True):
            low, high = max(start, part.start), min(start + size, part.stop)
            place.append(slice(low - part.start, high - part.start))
            inside.append(slice(low - start, high - start))
        return tuple(place), tuple(inside)

    def finished(self, until: int) -> Iterator[tuple[Region, Mapping[str, Array]]]:
        """The means of rows that receive no more windows, a few at a time; none of a network without dense heads."""
        if not self.heads:
            return
        channels = sum(len(held) for held in self.heads.values())
        rows = max(1, YIELDED_BYTES // (4 * channels * math.prod(self._shape[1:])))
        while self.handed < until:
            end = min(self.handed + rows, until)
            yield (slice(self.handed, end), *self.plane), self._means(self.handed, end)
            self.handed = end

    def _means(self, start: int, stop: int) -> dict[str, Array]:
        rows = slice(start - self.first, stop - self.first)
        return {name: held[:, rows] / self.weights[rows] for name, held in self.heads.items()}

    def advance(self, first: int) -> None:
        """Let go the rows before `first`."""
        gone = min(first - self.first, len(self.weight))
        kept = len(self.weight) - gone
        for held in (self.weights, *(channel for head in self.heads.values() for channel in head)):
            held[:kept] = held[gone:].copy()
            held[kept:] = 0
        self.first = first

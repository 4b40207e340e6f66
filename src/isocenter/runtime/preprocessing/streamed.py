"""Volumes that are prepared region by region, on request, and never held whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from isocenter.runtime.preprocessing.protocol import Trace
from isocenter.transforms import Order, Scale, Taps, along, permuted, taps
from isocenter.values import Image, Reader, Region


@dataclass(eq=False)
class Streamed:
    """(channels, *padded) as a network sees it, part by part, quickest in the order of the trace's slice order.

    scales: of each channel, known from all of its values
    order:  interpolation of intensities
    places: which of `channels` channels each of the image's is; zeros where there is none
    """

    image: Image
    trace: Trace
    scales: tuple[Scale, ...]
    order: Order
    places: tuple[int, ...]
    channels: int
    _read: Reader = field(init=False)

    def __post_init__(self) -> None:
        self._read = self.image.reader()

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, *padded)."""
        return (self.channels, *self.trace.padded)

    def __getitem__(self, region: tuple[slice, ...]) -> NDArray[np.float32]:
        """(channels, *region); slices have a start and a stop."""
        inner, rows = padded_region(self.trace, region[1:])
        array = self._whole(self._resampled(inner))[region[0]]
        for axis, (rows_of_axis, size) in enumerate(zip(rows, self.trace.shape, strict=True), start=1):
            if len(rows_of_axis) != array.shape[axis]:
                array = array.take(np.clip(rows_of_axis, 0, size - 1) - inner[axis - 1].start, axis)  # the edge goes on
        return array

    def _whole(self, inner: NDArray[np.float32]) -> NDArray[np.float32]:
        """All channels, of those that are there."""
        if self.places == tuple(range(self.channels)):
            return inner
        padded = np.zeros((self.channels, *inner.shape[1:]), dtype=inner.dtype)
        padded[list(self.places)] = inner
        return padded

    def _resampled(self, part: Region) -> NDArray[np.float32]:
        """A part of the grid between resampling and padding."""
        steps: list[Taps | None] = []
        source = []
        for old, new, rows in zip(self.trace.kept, self.trace.shape, part, strict=True):
            if old == new:
                steps.append(None)
                source.append(rows)
                continue
            [near], [step] = source_region([taps(old, new, self.order).part(rows)])
            steps.append(step)
            source.append(near)
        array = self._normalised(tuple(source))
        # In the order of `resample`, so that the same comes out to the last bit.
        for axis in sorted(range(len(part)), key=lambda axis: self.trace.shape[axis] / self.trace.kept[axis]):
            if (taps_of := steps[axis]) is not None:
                array = along(array, axis + 1, taps_of)
        return array

    def _normalised(self, part: Region) -> NDArray[np.float32]:
        """A part of the region that was kept, in canonical order."""
        read = self._read((slice(None), *self.trace.region(part)))
        valid = permuted(self.image.measured(read), self.trace.axes, self.trace.flips)
        values = permuted(read, self.trace.axes, self.trace.flips).astype(np.float32, order="C")
        for channel, scale, measured in zip(values, self.scales, valid, strict=True):
            scale.applied(channel, measured)
        return values


def padded_region(trace: Trace, region: Region) -> tuple[Region, list[NDArray[np.intp]]]:
    """The region before padding that a region of the padded grid needs, and its rows there, which may lie beyond."""
    inner, every = [], []
    for part, (before, _), size in zip(region, trace.pad, trace.shape, strict=True):
        rows = np.arange(part.start, part.stop) - before
        held = np.clip(rows, 0, size - 1)
        inner.append(slice(int(held[0]), int(held[-1]) + 1))
        every.append(rows)
    return tuple(inner), every


def source_region(steps: Sequence[Taps]) -> tuple[Region, list[Taps]]:
    """The old samples that these new ones are made of, and the taps counted from the first of them."""
    source, counted = [], []
    for step in steps:
        first = int(step.index.min())
        source.append(slice(first, int(step.index.max()) + 1))
        counted.append(Taps(step.index - first, step.weight))
    return tuple(source), counted

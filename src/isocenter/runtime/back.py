"""Outputs on the network's grid, part by part, back onto the grid of the image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from isocenter.runtime.sums import YIELDED_BYTES
from isocenter.runtime.trace import Trace
from isocenter.transforms import Taps, along
from isocenter.values import Array, Region, Slabs


@dataclass(frozen=True, eq=False)
class _Axis:
    """How rows that are asked for are made of rows of the network's grid; None where they are the same rows."""

    wanted: slice
    step: Taps | None

    def of(self, array: Array, axis: int, first: int) -> Array:
        """An array, whose rows begin with the row `first`, with the rows that are asked for."""
        if self.step is None:
            rows = slice(self.wanted.start - first, self.wanted.stop - first)
            return array[(*[slice(None)] * axis, rows)]
        return np.asarray(along(array, axis, Taps(self.step.index - first, self.step.weight)))


def resampled_back(slabs: Slabs, trace: Trace, wanted: Region) -> Iterator[tuple[Region, Mapping[str, Array]]]:
    """Parts of the padded grid, in the order of the trace's way, as parts of the region that was kept.

    wanted: of that region
    Rows are resampled within their plane when they come, and across it when all are there that a row is made of:
    only those are held.
    """
    way, kept = trace.way, trace.kept
    size, shape = kept[way.axis], trace.shape[way.axis]
    axes = way.order(tuple(_axis(trace, axis, part) for axis, part in enumerate(wanted)))
    rows, *plane = way.region(wanted, size)
    rows_of = _turned(axes[0].step, shape) if way.backwards and axes[0].step is not None else axes[0].step
    held = _Held(rows, rows_of)
    for region, arrays in slabs:
        if not region:
            yield region, arrays
            continue
        place, there = _unpadded(region, arrays, trace)
        if place is None:
            continue
        place = way.region(place, shape)
        for part, flat in _in_plane(place, {name: way.there(one) for name, one in there.items()}, axes[1:]):
            for found, means in held.taken(part, flat):
                yield way.region_back((found, *plane), size), {name: way.back(one) for name, one in means.items()}


def _axis(trace: Trace, axis: int, wanted: slice) -> _Axis:
    if trace.shape[axis] == trace.kept[axis]:
        return _Axis(wanted, None)
    return _Axis(wanted, trace.steps_back(axis).part(wanted))


def _turned(step: Taps, size: int) -> Taps:
    """The same step along an axis that is walked backwards."""
    return Taps(size - 1 - step.index[::-1], step.weight[::-1])


def _unpadded(region: Region, arrays: Mapping[str, Array], trace: Trace) -> tuple[Region | None, Mapping[str, Array]]:
    """A part of the padded grid without the padding, counted from the first real voxel; None where all is padding."""
    place, inside = [], []
    for part, (before, _), size in zip(region, trace.pad, trace.shape, strict=True):
        start, stop = max(part.start - before, 0), min(part.stop - before, size)
        if start >= stop:
            return None, arrays
        place.append(slice(start, stop))
        inside.append(slice(start + before - part.start, stop + before - part.start))
    return tuple(place), {name: array[(slice(None), *inside)] for name, array in arrays.items()}


def _in_plane(
    place: Region, arrays: Mapping[str, Array], axes: tuple[_Axis, ...]
) -> Iterator[tuple[slice, Mapping[str, Array]]]:
    """Rows with their other axes resampled: so many at a time that the larger ones are not many."""
    grown = math.prod(axis.wanted.stop - axis.wanted.start for axis in axes) * sum(map(len, arrays.values())) * 4
    step = max(1, YIELDED_BYTES // grown)
    for start in range(place[0].start, place[0].stop, step):
        rows = slice(start, min(start + step, place[0].stop))
        made = {}
        for name, array in arrays.items():
            flat = np.asarray(array[:, rows.start - place[0].start : rows.stop - place[0].start], dtype=np.float32)
            for axis, (how, part) in enumerate(zip(axes, place[1:], strict=True), start=2):
                flat = how.of(flat, axis, part.start)
            made[name] = flat
        yield rows, made


@dataclass(eq=False)
class _Held:
    """The rows that coming ones are still needed with.

    wanted: rows that are asked for, of the region that was kept
    step:   how they are made of rows of the network's grid, None where they are the same
    """

    wanted: slice
    step: Taps | None
    _first: int = 0
    _done: int = 0
    _rows: Mapping[str, Array] | None = None

    def taken(self, rows: slice, arrays: Mapping[str, Array]) -> Iterator[tuple[slice, Mapping[str, Array]]]:
        """Take rows of the network's grid; what can be made now, a few rows at a time."""
        if self.step is None:
            start, stop = max(rows.start, self.wanted.start), min(rows.stop, self.wanted.stop)
            if start < stop:
                yield (
                    slice(start, stop),
                    {name: array[:, start - rows.start : stop - rows.start] for name, array in arrays.items()},
                )
            return
        if self._rows is None:
            self._first, self._rows = rows.start, arrays
        else:
            self._rows = {name: np.concatenate([held, arrays[name]], axis=1) for name, held in self._rows.items()}
        ready = int(np.searchsorted(self.step.index.max(axis=1), rows.stop - 1, side="right"))
        row_bytes = 4 * sum(held[:, 0].size for held in self._rows.values())
        count = max(1, YIELDED_BYTES // row_bytes)
        for start in range(self._done, ready, count):
            part = self.step.part(slice(start, min(start + count, ready)))
            part = Taps(part.index - self._first, part.weight)
            made = {name: np.asarray(along(held, 1, part)) for name, held in self._rows.items()}
            yield slice(self.wanted.start + start, self.wanted.start + min(start + count, ready)), made
        self._done = max(ready, self._done)
        if self._done < len(self.step.index):
            needed = max(int(self.step.index[self._done].min()), self._first)
            self._rows = {name: held[:, needed - self._first :].copy() for name, held in self._rows.items()}
            self._first = needed

"""Outputs of the network, brought back part by part onto the grid of the image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hilum.runtime.preprocessing.protocol import GridTrace
from hilum.transforms import label_resampling
from hilum.transforms.label_resampling import StretchedOutputs
from hilum.transforms.resampling import Taps
from hilum.values import Array, Region, Slabs

# What follows works on a finished part with several copies of it: a few rows at a time.
YIELDED_BYTES = 2**25


def restore_regions(
    slabs: Slabs, trace: GridTrace, part: Region | None = None
) -> Iterator[tuple[Region, Mapping[str, Array]]]:
    """Finished parts of the network's grid, in order of the trace's slice order, as parts of the source's own grid.

    part: of the region that was kept; the slabs then hold what it needs
    Arrays without spatial axes (a vector head) pass through. Only the rows that a coming slab still needs are held.
    """
    region = part or tuple(slice(0, size) for size in trace.kept_shape)
    return (
        (trace.region(found), {name: trace.unpermute(array) for name, array in arrays.items()})
        if found
        else (found, arrays)
        for found, arrays in resample_back(slabs, trace, region)
    )


def resample_back(
    slabs: Slabs, trace: GridTrace, region_wanted: Region
) -> Iterator[tuple[Region, Mapping[str, Array]]]:
    """Parts of the padded grid, in the order of the trace's slice order, as parts of the region that was kept.

    region_wanted: of that region
    What is resampled is so only when it is asked for (`StretchedOutputs`): labels are found without. Of the
    network's grid those rows are held that a coming one is made of.
    """
    walk, sizes_kept = trace.slice_order, trace.kept_shape
    size, shape = sizes_kept[walk.axis], trace.shape[walk.axis]
    steps = walk.order(tuple(_step(trace, axis, part) for axis, part in enumerate(region_wanted)))
    rows, *plane = walk.region(region_wanted, size)
    first = _turn(steps[0], shape) if walk.backwards and steps[0] is not None else steps[0]
    order = label_resampling.axes_by_growth(list(zip(walk.order(trace.shape), walk.order(sizes_kept), strict=True)))
    passing = PassingRows(rows, first, order)
    for region, arrays in slabs:
        if not region:
            yield region, arrays
            continue
        region_there, unpadded = _unpad(region, arrays, trace)
        if region_there is None:
            continue
        now, *across = walk.region(region_there, shape)
        # Where an axis stays, what is wanted of it is cut out; else its steps are counted from where the slab begins.
        cut = [
            slice(want.start - has.start, want.stop - has.start) if step is None else slice(None)
            for want, has, step in zip(plane, across, steps[1:], strict=True)
        ]
        moved = [
            None if step is None else Taps(step.index - has.start, step.weight)
            for has, step in zip(across, steps[1:], strict=True)
        ]
        walked = {name: walk.apply(one)[(slice(None), slice(None), *cut)] for name, one in unpadded.items()}
        for made_rows, arrays_made in passing.take(now, walked, moved):
            yield (
                walk.region_back((made_rows, *plane), size),
                {name: walk.undo(one) for name, one in arrays_made.items()},
            )


def _step(trace: GridTrace, axis: int, rows: slice) -> Taps | None:
    """Taps that make the rows that are asked for of rows of the network's grid; None where they are the same."""
    step = trace.steps_back(axis)
    return None if step is None else step.part(rows)


def _turn(step: Taps, size: int) -> Taps:
    """The same step along an axis that is walked backwards."""
    return Taps(size - 1 - step.index[::-1], step.weight[::-1])


def _unpad(region: Region, arrays: Mapping[str, Array], trace: GridTrace) -> tuple[Region | None, Mapping[str, Array]]:
    """A part of the padded grid without the padding, counted from the first real voxel; None where all is padding."""
    slices, inside = [], []
    for part, (before, _), size in zip(region, trace.pad, trace.shape, strict=True):
        start, stop = max(part.start - before, 0), min(part.stop - before, size)
        if start >= stop:
            return None, arrays
        slices.append(slice(start, stop))
        inside.append(slice(start + before - part.start, stop + before - part.start))
    return tuple(slices), {name: array[(slice(None), *inside)] for name, array in arrays.items()}


@dataclass(eq=False)
class PassingRows:
    """Rows of one grid that come in order, as rows of another; those are held that coming ones are still made of.

    wanted: rows that are asked for
    step:   how they are made of rows that come, None where they are the same
    order:  in which the axes are resampled
    """

    wanted: slice
    step: Taps | None
    order: tuple[int, ...]
    _first: int = 0
    _done: int = 0
    _rows: dict[str, Array] = field(default_factory=dict)

    def take(self, rows: slice, arrays: Mapping[str, Array], plane: list[Taps | None]) -> Iterator[tuple[slice, Any]]:
        """Take rows; what can be made now, so many rows at a time that they are not many when they are made.

        plane: the steps of the other axes
        """
        if self.step is None:
            start, stop = max(rows.start, self.wanted.start), min(rows.stop, self.wanted.stop)
            here = {name: array[:, start - rows.start : stop - rows.start] for name, array in arrays.items()}
            for part in _few(here, start, stop, plane):
                yield part, self._make(here, slice(part.start - start, part.stop - start), None, plane)
            return
        if self._rows:
            self._rows = {name: np.concatenate([held, arrays[name]], axis=1) for name, held in self._rows.items()}
        else:
            self._first, self._rows = rows.start, dict(arrays)
        ready = int(np.searchsorted(self.step.index.max(axis=1), rows.stop - 1, side="right"))
        for part in _few(self._rows, self._done, ready, plane):
            step = self.step.part(part)
            low, high = int(step.index.min()), int(step.index.max()) + 1
            near = slice(low - self._first, high - self._first)
            target = slice(self.wanted.start + part.start, self.wanted.start + part.stop)
            yield target, self._make(self._rows, near, Taps(step.index - low, step.weight), plane)
        self._done = max(ready, self._done)
        if self._done < len(self.step.index):
            # Without anti-aliasing rows are passed over: one that has not come yet cannot be let go.
            needed = min(max(int(self.step.index[self._done].min()), self._first), rows.stop)
            self._rows = {name: held[:, needed - self._first :].copy() for name, held in self._rows.items()}
            self._first = needed

    def _make(
        self, arrays: Mapping[str, Array], rows: slice, step: Taps | None, plane: list[Taps | None]
    ) -> Mapping[str, Array | StretchedOutputs]:
        parts = {name: np.asarray(array[:, rows], dtype=np.float32) for name, array in arrays.items()}
        if step is None and all(one is None for one in plane):
            return parts
        return {name: StretchedOutputs(part, (step, *plane), self.order) for name, part in parts.items()}


def _few(arrays: Mapping[str, Array], start: int, stop: int, plane: list[Taps | None]) -> Iterator[slice]:
    """Rows from `start` on, a few at a time."""
    shape = next(iter(arrays.values())).shape[2:]
    sizes = [size if step is None else len(step.index) for size, step in zip(shape, plane, strict=True)]
    count = max(1, YIELDED_BYTES // max(1, 4 * math.prod(sizes) * sum(map(len, arrays.values()))))
    for low in range(start, stop, count):
        yield slice(low, min(low + count, stop))

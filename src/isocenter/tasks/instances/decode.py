"""Decoding of maps of inside and height to objects, each with a number of its own.

A watershed from seeds: every hill of the height that stands out far enough is one object, which grows downhill over
what is inside. Naylor et al., IEEE Trans Med Imaging 2019, doi:10.1109/TMI.2018.2865709, in any number of axes; hills
are told from ripples by their prominence, which mathematical morphology calls dynamics: Grimaud, Proc SPIE 1992,
doi:10.1117/12.60650. NumPy and SciPy only, so that a copy travels with a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from isocenter.belief import Numbers, renumbered
from isocenter.lazy import ndimage
from isocenter.values import Array, Floats, Geometry

# Heights are walked down in so many steps: a prominence is known that finely.
STEPS = 20
# Standard deviation, in the shortest side of a voxel, by which heights are smoothed: the ripples of a network, and of
# the lattice of voxels, are as fine (docs/benchmarks/kinds.md, nuclei one by one).
RIPPLE = 1.0
# Probabilities of inside at which objects are looked for that are not called: each takes a watershed of its own.
LOWER = (0.5, 0.25, 0.1, 0.03)

Places = NDArray[np.intp]


@dataclass(frozen=True)
class Decoder:
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
            numbers[box] = _flooded(marked[box], self._smoothed(height[box]), self.prominence)
        return renumbered(numbers, self.smallest)

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
        numbers = renumbered(numbers, self.smallest)
        flat = numbers.reshape(-1)
        counts = np.bincount(flat).clip(min=1)
        scores = np.bincount(flat, np.asarray(inside, dtype=np.float64).reshape(-1)) / counts
        scores[np.unique(numbers[called > 0])] = 1.0
        return numbers, scores[1:]

    def _smoothed(self, height: Array) -> Floats:
        values = np.asarray(height, dtype=np.float32)
        if not self.smooth:
            return values
        # The one slice of a picture that is kept as a volume has no axis here, and nothing to smooth along it.
        sides = self.smooth if len(self.smooth) == values.ndim else min(self.smooth)
        return np.asarray(ndimage.gaussian_filter(values, sides, mode="nearest"))


def smoothing(steps: Sequence[float]) -> tuple[float, ...]:
    """Standard deviations in voxels by which heights are smoothed on a grid of these sides."""
    return tuple(RIPPLE * min(steps) / step for step in steps)


def smoothing_on(geometry: Geometry) -> tuple[float, ...]:
    """The same on the grid of an image, whose axes come in any order; one of a single slice has nothing to smooth."""
    longer = [step for step, size in zip(geometry.steps, geometry.shape, strict=True) if size > 1]
    shortest = min(longer, default=min(geometry.steps))
    return smoothing([max(step, shortest) for step in geometry.steps])


def _flooded(marked: NDArray[np.bool_], height: Floats, prominence: float) -> Numbers:
    """Objects that grow from the tops of their hills downwards, each step as far as the height allows."""
    level = np.where(marked, np.floor(np.clip(height, 0.0, 1.0) * STEPS), -1).astype(np.int8)
    rise = max(1, round(prominence * STEPS))
    # A frame of background, so that every voxel has neighbours and places are numbers of one axis.
    level = np.pad(level, 1, constant_values=-1)
    numbers = np.zeros(level.shape, dtype=np.int32)
    flat, offsets = numbers.reshape(-1), _neighbours(level.shape)
    waiting: Places = np.zeros(0, dtype=np.intp)
    count = 0
    for floor, opened in _downwards(level):
        count = _seeded(numbers, level, floor, rise, count)
        waiting = np.concatenate([waiting, opened])
        waiting = _grown(flat, waiting[flat[waiting] == 0], level.reshape(-1) >= floor, offsets)
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


def _seeded(numbers: Numbers, level: NDArray[np.int8], floor: int, rise: int, count: int) -> int:
    """Give a number to every piece above the floor that rises far enough and has none; how many there are now."""
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


def _grown(numbers: Numbers, waiting: Places, is_open: NDArray[np.bool_], offsets: Places) -> Places:
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
    return waiting[numbers[waiting] == 0]


def _neighbours(shape: tuple[int, ...]) -> Places:
    """Steps to the neighbours along each axis, in a flattened array."""
    strides = np.cumprod([1, *shape[:0:-1]])[::-1]
    return np.concatenate([strides, -strides]).astype(np.intp)


def _around(marked: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    boxes = ndimage.find_objects(marked.view(np.uint8))
    return boxes[0] if boxes else None

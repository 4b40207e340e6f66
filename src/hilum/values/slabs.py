"""Arrays as large as an image, a few planes at a time in the order in which they lie in memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hilum.values import voxel_images
from hilum.values.voxel_images import Array, Deferred

# What is made of so many voxels stays in the processor's cache.
SLAB_VOXELS = 2**19
# Whole numbers within such a range are counted in a table, and not sorted.
TABLE = 2**16


def memory_order(array: Array) -> tuple[int, ...]:
    """The array's axes, the one whose neighbours lie farthest apart in memory first; those of one voxel have none."""
    return tuple(sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]) * (array.shape[axis] > 1)))


def memory_slabs(*arrays: Array, order: Sequence[int] = ()) -> Iterator[tuple[slice, tuple[Array, ...]]]:
    """(Planes of the first axis, these planes of each array), axes as the first array has them in memory.

    order: of the axes, where it is not that of the memory
    """
    turned = [array.transpose(order or memory_order(arrays[0])) for array in arrays]
    size, *plane = turned[0].shape
    step = max(1, SLAB_VOXELS // max(1, math.prod(plane)))
    for start in range(0, size, step):
        planes = slice(start, min(start + step, size))
        yield planes, tuple(array[planes] for array in turned)


def is_true_everywhere(truths: Array) -> bool:
    """Whether all are true; a single truth that stands for a whole array is looked at once."""
    return bool(truths.all() if any(truths.strides) else truths.flat[0])


def is_tabled(kind: np.dtype[Any]) -> bool:
    """Whether all numbers of the type fit into a table: whole ones of 8 and 16 bits."""
    return kind.kind in "bui" and kind.itemsize <= 2


def table_counts(part: Array) -> Array:
    """How often each number of a tabled type is there, in the order of `table_values`."""
    kind = np.dtype(f"u{part.dtype.itemsize}")
    bits = np.ascontiguousarray(part, part.dtype.newbyteorder("=")).view(kind).reshape(-1)
    counts = np.bincount(bits, minlength=2 ** (8 * kind.itemsize))
    return np.roll(counts, len(counts) // 2) if part.dtype.kind == "i" else counts


def table_values(kind: np.dtype[Any]) -> Array:
    """(256,) or (65536,): all numbers of a tabled type, the lowest first."""
    size = 2 ** (8 * kind.itemsize)
    return np.arange(size) - (size // 2 if kind.kind == "i" else 0)


@dataclass
class Extent:
    """The highest value of each plane of the slowest axis, and of each line along it."""

    order: tuple[int, ...]
    planes: list[Array] = field(default_factory=list)
    lines: Array | None = None

    def add(self, part: Array, known: Array | None = None) -> None:
        if known is not None:
            lowest = -np.inf if np.issubdtype(part.dtype, np.inexact) else np.iinfo(part.dtype).min
            part = np.where(known, part, part.dtype.type(lowest))
        self.planes.append(part.reshape(len(part), -1).max(axis=1))
        highest = np.asarray(part.max(axis=0))
        self.lines = highest if self.lines is None else np.maximum(self.lines, highest)

    def box(self, floor: Any) -> tuple[tuple[int, int], ...]:
        """(first, end) along each axis around what lies above the floor; () where nothing does."""
        is_above = np.concatenate(self.planes) > floor
        if not is_above.any() or self.lines is None:
            return ()
        lines = self.lines > floor
        others = (lines.any(axis=tuple(np.delete(range(lines.ndim), axis))) for axis in range(lines.ndim))
        ends = [(int(used[0]), int(used[-1]) + 1) for used in map(np.flatnonzero, (is_above, *others))]
        return tuple(ends[place] for place in np.argsort(self.order).tolist())


def label_voxels(labels: Array | Deferred) -> dict[int | float, int]:
    """{value: voxels}; whole numbers are integers."""
    voxels: Counter[int | float] = Counter()
    parts: Iterable[Array]
    if isinstance(labels, np.ndarray):
        parts = (part for _, (part,) in memory_slabs(labels))
    else:
        parts = (part for _, part in voxel_images.walk_blocks(labels))
    for part in parts:
        for value, count in zip(*(numbers.tolist() for numbers in _value_counts(part)), strict=True):
            voxels[int(value) if value == int(value) else value] += count
    return {value: voxels[value] for value in sorted(voxels)}


def _value_counts(part: Array) -> tuple[Array, Array]:
    """The values in a part, the lowest first, and how often each is there."""
    low, high = part.min(), part.max()
    if part.dtype.kind not in "bui" or int(high) - int(low) >= TABLE:
        return np.unique(part, return_counts=True)
    counts = table_counts(part) if is_tabled(part.dtype) else np.bincount((part - low).reshape(-1).astype(np.intp))
    values = table_values(part.dtype) if is_tabled(part.dtype) else np.arange(len(counts)) + int(low)
    return values[counts > 0], counts[counts > 0]

"""Structures of a label map: pieces, thickness and length of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from isocenter.lazy import ndimage
from isocenter.transforms import is_speck
from isocenter.values import Array

VOLUME = 3  # axes
PASSED_OVER = 2  # steps from slice to slice over one empty slice
# Axis, drawn slices, empty slices between them.
Apart = tuple[int, tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Structure:
    """One label of one mask.

    runs:   voxels, the mean run along each axis, the shortest first; a box a x b x c has its sides
    pieces: voxels of each connected piece, corners touching
    apart:  the axis, drawn slices and empty slices between of a volume that was not drawn throughout, else None
    """

    runs: tuple[float, ...]
    pieces: tuple[int, ...]
    apart: Apart | None = None

    @property
    def thickness(self) -> float:
        """Voxels: the shortest of the mean runs."""
        return self.runs[0]

    @property
    def elongation(self) -> float:
        """How many times its own width a piece is long, were it a straight rod of that cross-section.

        A rod is short along all axes but one: what is flat, such as a ball in thick slices, is no rod. Of a series,
        which has no cross-section, 1.
        """
        if len(self.runs) < 2:
            return 1.0
        *across, _ = self.runs
        return float(np.mean(self.pieces) / (np.prod(across) * across[-1]))

    @property
    def specks(self) -> int:
        """Pieces that are tiny beside the largest."""
        return int(np.count_nonzero(is_speck(np.array(self.pieces))))


def structures(labels: Array) -> Mapping[int, Structure]:
    """{value: structure} of a (*spatial) map of whole numbers, without background."""
    whole = labels if np.issubdtype(labels.dtype, np.integer) else labels.astype(np.int64)
    if not whole.size or whole.min() < 0:
        return {}
    # Counted first: the boxes are as many as the largest number, and an atlas may have numbers of nine digits.
    values, counted = np.unique(whole, return_inverse=True)
    numbers = counted.reshape(whole.shape).astype(np.int32) + int(values[0] != 0)
    named = [int(value) for value in values if value]
    boxes = ndimage.find_objects(numbers)
    return {
        value: _structure(numbers[box] == n, [part.start for part in box])
        for n, (value, box) in enumerate(zip(named, boxes, strict=True), start=1)
    }


def _structure(inside: Array, corner: Sequence[int]) -> Structure:
    """inside: (*spatial) truths, no larger than the structure; corner: where they begin in the map."""
    pieces, _ = ndimage.label(inside, structure=np.ones((3,) * inside.ndim))
    sizes = np.bincount(pieces.ravel())[1:]
    return Structure(_mean_runs(inside), tuple(int(size) for size in sizes), _slices_apart(inside, corner))


def _slices_apart(inside: Array, corner: Sequence[int]) -> Apart | None:
    """(Axis, drawn slices, empty slices between) of a volume in which slices were passed over; None where none were.

    Slices before and after show the same, and one was passed over, or as many gaps are there as not. Pieces of a
    structure lie elsewhere, or farther apart.
    """
    for axis in reversed(range(inside.ndim)) if inside.ndim == VOLUME else ():
        slices = np.moveaxis(inside, axis, 0)
        numbers = np.flatnonzero(slices.any(axis=(1, 2))).tolist()
        wide = [(a, b) for a, b in pairwise(numbers) if b - a > 1]
        gaps = [(a, b) for a, b in wide if _show_the_same(slices[a], slices[b])]
        is_sampled = 2 * len(gaps) >= len(numbers) - 1
        empty = [n + corner[axis] for a, b in gaps if is_sampled or b - a == PASSED_OVER for n in range(a + 1, b)]
        if empty:
            return axis, tuple(n + corner[axis] for n in numbers), tuple(empty)
    return None


def _show_the_same(first: Array, second: Array) -> bool:
    """Whether half of the smaller of two slices of a structure lies in the other."""
    return bool(2 * np.count_nonzero(first & second) >= min(np.count_nonzero(first), np.count_nonzero(second)))


def _mean_runs(inside: Array) -> tuple[float, ...]:
    """Voxels by runs, along each axis (Crofton: a structure that is thin along an axis has many), rising."""
    total = np.count_nonzero(inside)
    runs = [
        np.count_nonzero(inside.take(0, axis=axis)) + np.count_nonzero(_starts(inside, axis))
        for axis in range(inside.ndim)
    ]
    return tuple(sorted(float(total / one) for one in runs))


def _starts(inside: Array, axis: int) -> Array:
    """Where a run begins along an axis, but for those that begin at the edge."""
    moved = np.moveaxis(inside, axis, 0)
    return moved[1:] & ~moved[:-1]

"""Resampling along the axes: from one grid to another over the same field of view.

Written once for NumPy and torch: prediction without torch and training with it give the same voxels. Each axis is a
small banded matrix, so that an axis can be applied on its own, slab by slab. This file needs NumPy alone, so that a
copy of it travels with a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

Order = Literal["linear", "cubic"]

# What is worked on at a time stays in the cache.
SLAB_VOXELS = 2**18
FEWEST_ROWS = 8
# New samples whose weights make one small matrix.
BAND = 32


@dataclass(frozen=True, eq=False)
class Taps:
    """One axis of a resampling: each new sample is a weighted sum of `count` old ones.

    index:  (new, count) of the old samples, clamped to the axis: beyond the edge the edge goes on
    weight: (new, count), summing to 1, or to less where nothing lies beyond the edge
    """

    index: NDArray[np.intp]
    weight: NDArray[np.floating[Any]]

    def part(self, rows: slice) -> Taps:
        """The taps of some of the new samples."""
        return Taps(self.index[rows], self.weight[rows])


@lru_cache(maxsize=256)
def axis_taps(old: int, new: int, order: Order = "linear", widening: float = 1.0) -> Taps:
    """The taps from `old` samples to `new` ones over the same length, edge to edge.

    Going down, the kernel is widened by the ratio (times `widening`), so that what is finer than the new grid is
    averaged instead of folded over (anti-aliasing). Cubic is Keys' kernel with a = -0.5, IEEE Trans ASSP 1981,
    doi:10.1109/TASSP.1981.1163711. A ramp stays a ramp at every ratio: nothing moves by a part of a voxel.
    """
    stretch = max(1.0, widening * old / new)
    reach, kernel = KERNELS[order]
    radius = reach * stretch
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    index = np.floor(centre - radius).astype(np.intp)[:, None] + np.arange(1, int(np.ceil(2 * radius)) + 1)
    distance = (index - centre[:, None]) / stretch
    weight = kernel(np.abs(distance))
    weight = _centre(weight / weight.sum(axis=1, keepdims=True), distance)
    used = np.abs(weight).max(axis=0) > 1e-7
    return Taps(np.clip(index[:, used], 0, old - 1), weight[:, used].astype(np.float32))


def _centre(weight: NDArray[np.float64], distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights with their centre of mass where it should be, at distance 0.

    A widened kernel meets the old samples off centre at ratios that are not whole: up to 0.08 voxels without this.
    """
    size = np.abs(weight)
    lean = size * (distance - (size * distance).sum(axis=1, keepdims=True) / size.sum(axis=1, keepdims=True))
    reach = np.maximum((lean * distance).sum(axis=1, keepdims=True), 1e-12)  # 0 where one sample alone is used
    return cast("NDArray[np.float64]", weight - (weight * distance).sum(axis=1, keepdims=True) * lean / reach)


def _triangle(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(0.0, 1.0 - distance)


def _keys(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


# How far each kernel reaches, in samples, and its weights by distance.
KERNELS: dict[str, tuple[float, Callable[[NDArray[np.float64]], NDArray[np.float64]]]] = {
    "linear": (1.0, _triangle),
    "cubic": (2.0, _keys),
}


def resample_axis(array: Any, axis: int, step: Taps) -> Any:
    """`array` (NumPy or torch, floating) with one axis resampled."""
    return _along_by_products(array, axis, step) if isinstance(array, np.ndarray) else _along_by_taps(array, axis, step)


def _along_by_products(array: NDArray[Any], axis: int, step: Taps) -> NDArray[Any]:
    """A few new rows at a time, each a product with a small matrix: most of its weights are 0, and it is quicker."""
    before, after = array.shape[:axis], array.shape[axis + 1 :]
    rows = array.reshape(math.prod(before), array.shape[axis], math.prod(after))
    out = np.empty((len(rows), len(step.index), rows.shape[2]), dtype=array.dtype)
    for start in range(0, len(step.index), BAND):
        new = slice(start, start + BAND)
        band, near = _band(step.index[new], step.weight[new].astype(array.dtype))
        if after:
            np.matmul(band, rows[:, near], out=out[:, new])
        else:
            np.matmul(rows[:, near, 0], band.T, out=out[:, new, 0])
    return out.reshape(*before, len(step.index), *after)


def _band(index: NDArray[np.intp], weight: NDArray[Any]) -> tuple[NDArray[Any], slice]:
    """(new, near) weights of the old samples that these new ones need, and which samples they are."""
    low, high = int(index.min()), int(index.max()) + 1
    band = np.zeros((len(index), high - low), dtype=weight.dtype)
    for tap in range(index.shape[1]):  # beyond the edge several taps meet the same sample
        band[np.arange(len(index)), index[:, tap] - low] += weight[:, tap]
    return band, slice(low, high)


def _along_by_taps(array: Any, axis: int, step: Taps) -> Any:
    """A tap at a time, on the device where the tensor is."""
    shape = tuple(-1 if other == axis else 1 for other in range(array.ndim))
    total = None
    for index, weight in zip(step.index.T.tolist(), step.weight.T, strict=True):
        # A whole number of any size, also where the tensor is of half precision.
        picked = array.index_select(axis, array[:0].long().new_tensor(index))
        scaled = picked * array.new_tensor(weight).reshape(shape)
        total = scaled if total is None else total + scaled
    return total


def resampling_matrix(old: int, new: int) -> NDArray[Any]:
    """(new, old) weights of an axis as a whole, where few new samples are made of many old ones."""
    step = axis_taps(old, new)
    matrix = np.zeros((new, old), dtype=np.float32)
    band, near = _band(step.index, step.weight)
    matrix[:, near] = band
    return matrix


def resample(array: Any, shape: Sequence[int], order: Order = "linear") -> Any:
    """(channels, *spatial) intensities to (channels, *shape), edge to edge; axes of equal size stay untouched.

    Whole numbers become float32, slab by slab; where no axis changes the array comes back as it is.
    """
    steps = [
        None if old == new else axis_taps(old, new, order) for old, new in zip(array.shape[1:], shape, strict=True)
    ]
    if not any(steps):
        return array
    if not isinstance(array, np.ndarray):
        return _apply_taps(array, steps)
    kind = array.dtype if np.issubdtype(array.dtype, np.floating) else np.dtype(np.float32)
    out = np.empty((len(array), *shape), dtype=kind)
    for rows, step, near in split_into_slabs(
        axis_taps(array.shape[1], shape[0], order), max(array[0, 0].size, out[0, 0].size)
    ):
        out[:, rows] = _apply_taps(array[:, near].astype(kind, copy=False), [steps[0] and step, *steps[1:]])
    return out


def split_into_slabs(step: Taps, plane: int) -> Iterator[tuple[slice, Taps, slice]]:
    """(new rows, their taps counted from the first old row that they need, those old rows) of an axis.

    plane: voxels of one row; as many rows together as a cache holds, but some: each slab needs its neighbours' too
    """
    count = max(FEWEST_ROWS, SLAB_VOXELS // max(plane, 1))
    for start in range(0, len(step.index), count):
        rows = slice(start, min(start + count, len(step.index)))
        part = step.part(rows)
        low, high = int(part.index.min()), int(part.index.max())
        yield rows, Taps(part.index - low, part.weight), slice(low, high + 1)


def _apply_taps(array: Any, steps: Sequence[Taps | None]) -> Any:
    """Each spatial axis by its taps, if it has any."""
    changed = [(len(step.index) / array.shape[axis], axis, step) for axis, step in enumerate(steps, start=1) if step]
    # The axis that shrinks most goes first: every later one has less to do.
    for _, axis, step in sorted(changed, key=lambda item: item[:2]):
        array = resample_axis(array, axis, step)
    return array

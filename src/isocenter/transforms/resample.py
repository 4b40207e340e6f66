"""Resampling along the axes: from one grid to another over the same field of view.

Written once for NumPy and torch: prediction without torch and training with it give the same voxels. Each axis is a
small banded matrix, so that an axis can be applied on its own, slab by slab. This file needs NumPy alone, so that a
copy of it travels with a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Order = Literal["linear", "cubic"]


@dataclass(frozen=True, eq=False)
class Taps:
    """One axis of a resampling: each new sample is a weighted sum of `count` old ones.

    index:  (new, count) of the old samples, clamped to the axis: beyond the edge the edge goes on
    weight: (new, count), summing to 1
    """

    index: NDArray[np.intp]
    weight: NDArray[np.float32]

    def part(self, rows: slice) -> Taps:
        return Taps(self.index[rows], self.weight[rows])


@lru_cache(maxsize=256)
def taps(old: int, new: int, order: Order = "linear") -> Taps:
    """From `old` samples to `new` ones over the same length, edge to edge.

    Going down, the kernel is widened by the ratio, so that what is finer than the new grid is averaged instead of
    folded over (anti-aliasing). Cubic is Keys' kernel with a = -0.5, IEEE Trans ASSP 1981,
    doi:10.1109/TASSP.1981.1163711. A ramp stays a ramp at every ratio: nothing moves by a part of a voxel.
    """
    stretch = max(1.0, old / new)
    radius = (1.0 if order == "linear" else 2.0) * stretch
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    index = np.floor(centre - radius).astype(np.intp)[:, None] + np.arange(1, int(np.ceil(2 * radius)) + 1)
    distance = (index - centre[:, None]) / stretch
    weight = np.maximum(0.0, 1.0 - np.abs(distance)) if order == "linear" else _keys(np.abs(distance))
    weight = _centred(weight / weight.sum(axis=1, keepdims=True), distance)
    used = np.abs(weight).max(axis=0) > 1e-7
    return Taps(np.clip(index[:, used], 0, old - 1), weight[:, used].astype(np.float32))


def _centred(weight: NDArray[np.float64], distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights with their centre of mass where it should be, at distance 0.

    A widened kernel meets the old samples off centre at ratios that are not whole: up to 0.08 voxels without this.
    """
    size = np.abs(weight)
    lean = size * (distance - (size * distance).sum(axis=1, keepdims=True) / size.sum(axis=1, keepdims=True))
    reach = np.maximum((lean * distance).sum(axis=1, keepdims=True), 1e-12)  # 0 where one sample alone is used
    return weight - (weight * distance).sum(axis=1, keepdims=True) * lean / reach


def _keys(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def along(array: Any, axis: int, step: Taps) -> Any:
    """`array` (NumPy or torch, floating) with one axis resampled."""
    shape = tuple(-1 if other == axis else 1 for other in range(array.ndim))
    total = None
    for index, weight in zip(step.index.T, step.weight.T, strict=True):
        factor = weight.reshape(shape)
        if isinstance(array, np.ndarray):
            scaled = array.take(index, axis)
            scaled *= factor.astype(array.dtype)  # in place, as is the sum: a volume of CT is large
        else:  # torch, whose `take` knows no axes
            picked = array[(*[slice(None)] * axis, np.ascontiguousarray(index))]
            scaled = picked * array.new_tensor(factor)
        if total is None:
            total = scaled
        elif isinstance(total, np.ndarray):
            total += scaled
        else:
            total = total + scaled
    return total


def resample(array: Any, shape: Sequence[int], order: Order = "linear") -> Any:
    """(channels, *spatial) intensities to (channels, *shape), edge to edge; axes of equal size stay untouched."""
    # The axis that shrinks most goes first: every later one has less to do.
    axes = sorted(range(len(shape)), key=lambda axis: shape[axis] / array.shape[axis + 1])
    for axis in axes:
        if shape[axis] != array.shape[axis + 1]:
            array = along(array, axis + 1, taps(array.shape[axis + 1], shape[axis], order))
    return array

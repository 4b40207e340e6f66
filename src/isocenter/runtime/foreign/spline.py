"""Resampling as nnU-Net does it: SciPy's splines without anti-aliasing, far slices apart; here axis by axis.

A spline in several axes is the same spline in each of them, one after the other: four samples an axis in place of 64
a voxel. Isensee et al., Nature Methods 2021, doi:10.1038/s41592-020-01008-z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from isocenter.lazy import ndimage
from isocenter.transforms import Taps, along
from isocenter.values import Array

# By how many samples scipy.ndimage.zoom continues an axis before it filters; there the border's influence has died.
CONTINUED = 12


@dataclass(frozen=True)
class Resampling:
    """One of a plan's resampling functions with its arguments.

    order:     of the spline: 0, 1 or 3
    order_far: of the one across slices that lie far apart: 0 or 1
    apart:     whether slices count as far apart; None decides by the spacings
    threshold: how many times the longest side of a voxel is its shortest where they do
    by_share:  labels go by their largest share of a voxel, rather than by half of it
    """

    order: int = 3
    order_far: int = 0
    apart: bool | None = None
    threshold: float = 3.0
    by_share: bool = False

    def far_axis(self, current: Sequence[float], new: Sequence[float]) -> int | None:
        """The one axis whose slices lie far apart, before or else after; None where none does."""
        if self.apart is False:
            return None
        chosen = current
        if self.apart is None:
            wide = [one for one in (current, new) if max(one) / min(one) > self.threshold]
            if not wide:
                return None
            chosen = wide[0]
        longest = [axis for axis, step in enumerate(chosen) if max(chosen) / step == 1]
        return longest[0] if len(longest) == 1 else None

    def steps(self, old: Sequence[int], new: Sequence[int], far: int | None) -> list[Taps | None]:
        """Taps of each axis, by which a new sample is made of old ones; None where it stays. Of order 0 and 1 only."""
        orders = [self.order_far if axis == far else self.order for axis in range(len(old))]
        return [None if a == b else taps(a, b, order) for a, b, order in zip(old, new, orders, strict=True)]


@lru_cache(maxsize=64)
def taps(old: int, new: int, order: int) -> Taps:
    """Taps from `old` samples to `new` ones over the same length; beyond the edge the edge goes on. Order 0 or 1."""
    place = old / new * (np.arange(new) + 0.5) - 0.5
    if order == 0:
        index = np.floor(place + 0.5).astype(np.intp)[:, None]
        return Taps(np.clip(index, 0, old - 1), np.ones((new, 1), dtype=np.float32))
    below = np.floor(place).astype(np.intp)
    share = place - below
    index = np.clip(np.stack([below, below + 1], axis=1), 0, old - 1)
    return Taps(index, np.stack([1 - share, share], axis=1).astype(np.float32))


@lru_cache(maxsize=64)
def _cubic_taps(old: int, new: int) -> Taps:
    """Taps of the coefficients of an axis that is continued at either end."""
    place = old / new * (np.arange(new) + 0.5) - 0.5 + CONTINUED
    below = np.floor(place).astype(np.intp)
    t = (place - below)[:, None]
    weight = np.concatenate(
        [(1 - t) ** 3 / 6, 2 / 3 - t**2 + t**3 / 2, 2 / 3 - (1 - t) ** 2 + (1 - t) ** 3 / 2, t**3 / 6], axis=1
    )
    return Taps(below[:, None] + np.arange(-1, 3), weight.astype(np.float32))


def resampled(image: NDArray[np.float32], shape: Sequence[int], how: Resampling, far: int | None) -> Array:
    """(*spatial) intensities to (*shape), held within what the image (with a far axis: its slice) has.

    far: the axis across which only `order_far` is used
    """
    if image.shape == tuple(shape):
        return image
    near = tuple(axis for axis in range(image.ndim) if axis != far)
    low, high = image.min(axis=near, keepdims=True), image.max(axis=near, keepdims=True)
    for axis in near:
        if image.shape[axis] != shape[axis]:
            image = _along(image, axis, shape[axis], how.order)
    image = np.clip(image, low, high)
    return image if far is None or image.shape[far] == shape[far] else _along(image, far, shape[far], how.order_far)


def resampled_labels(labels: NDArray[np.integer], shape: Sequence[int], how: Resampling, far: int | None) -> Array:
    """(*spatial) label map to (*shape): a label where it has half of a voxel, and the highest of two that have."""
    if labels.shape == tuple(shape):
        return labels
    if how.order == 0 and not how.by_share:
        return resampled(labels.astype(np.float32), shape, how, far).astype(labels.dtype)
    labelled = np.zeros(shape, dtype=labels.dtype)
    most = np.zeros(shape, dtype=np.float32)
    for value in np.unique(labels):
        share = resampled((labels == value).astype(np.float32), shape, how, far)
        # Half of a voxel, but for what float32 rounds off.
        wins = share > most if how.by_share else share >= 0.5 - 1e-6
        labelled[wins] = value
        most = np.maximum(most, share)
    return labelled


def _along(image: Array, axis: int, size: int, order: int) -> Array:
    if order != 3:
        return np.asarray(along(image, axis, taps(image.shape[axis], size, order)))
    ends = [(CONTINUED, CONTINUED) if one == axis else (0, 0) for one in range(image.ndim)]
    continued = np.pad(image, ends, mode="edge")
    filtered = ndimage.spline_filter1d(continued, 3, axis, output=np.float32, mode="nearest")
    return np.asarray(along(filtered, axis, _cubic_taps(image.shape[axis], size)))

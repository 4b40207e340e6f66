"""Axis order, cropping and padding: voxels are moved, never changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isocenter.values import Region


def permuted(array: NDArray[Any], axes: Sequence[int], flips: Sequence[bool]) -> NDArray[Any]:
    """(channels, *spatial) with its spatial axes transposed and then flipped, as `Geometry.permuted` does."""
    moved = array.transpose(0, *[axis + 1 for axis in axes])
    return moved[(slice(None), *[slice(None, None, -1) if flip else slice(None) for flip in flips])]


def unpermuted(array: NDArray[Any], axes: Sequence[int], flips: Sequence[bool]) -> NDArray[Any]:
    """The inverse of `permuted`."""
    back = array[(slice(None), *[slice(None, None, -1) if flip else slice(None) for flip in flips])]
    return back.transpose(0, *[int(axis) + 1 for axis in np.argsort(axes)])


def content(mask: NDArray[np.bool_], margin: int = 0) -> Region:
    """The smallest region that holds every true voxel, with a margin; the whole array where none is true."""
    region = []
    for axis in range(mask.ndim):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if len(used) == 0:
            return tuple(slice(0, size) for size in mask.shape)
        low, high = int(used[0]) - margin, int(used[-1]) + 1 + margin
        region.append(slice(max(0, low), min(mask.shape[axis], high)))
    return tuple(region)


def padding(shape: Sequence[int], smallest: Sequence[int]) -> list[tuple[int, int]]:
    """(before, after) per axis that bring `shape` to at least `smallest`, the image in the middle."""
    short = [max(0, want - have) for have, want in zip(shape, smallest, strict=True)]
    return [(missing // 2, missing - missing // 2) for missing in short]

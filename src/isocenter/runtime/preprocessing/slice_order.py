"""The axis along which a volume is walked: as the first one, forwards or backwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from isocenter.values import Array, Region


@dataclass(frozen=True)
class SliceOrder:
    """A grid seen so that it is walked from the first row of its first axis to the last.

    A file gives its slices in one order only: the walk follows it, and what the network sees stays as it is.

    axis:      of the grid, along which it is walked
    backwards: from its end to its beginning
    """

    axis: int = 0
    backwards: bool = False

    def ordered(self, array: Array) -> Array:
        """(channels, *spatial) as it is walked: a view."""
        moved = np.moveaxis(array, self.axis + 1, 1)
        return moved[:, ::-1] if self.backwards else moved

    def restored(self, array: Array) -> Array:
        """The inverse of `ordered`."""
        return np.moveaxis(array[:, ::-1] if self.backwards else array, 1, self.axis + 1)

    def order(self, axes: tuple[Any, ...]) -> tuple[Any, ...]:
        """What belongs to each axis of the grid, in the order of the walk."""
        return (axes[self.axis], *axes[: self.axis], *axes[self.axis + 1 :])

    def region(self, region: Region, size: int) -> Region:
        """A region of the grid, whose own axis has `size` voxels, as one of the walk."""
        first, *others = self.order(region)
        return (self._turned(first, size), *others)

    def region_back(self, region: Region, size: int) -> Region:
        """The inverse of `region`."""
        first, *others = region
        others.insert(self.axis, self._turned(first, size))
        return tuple(others)

    def _turned(self, part: slice, size: int) -> slice:
        return slice(size - part.stop, size - part.start) if self.backwards else part

"""How an image came onto the grid that a network sees, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isocenter.transforms import unpermuted
from isocenter.values import Array, Geometry, Region


@dataclass(frozen=True)
class Trace:
    """How the grid of a source became the grid that the network sees; enough to go back.

    squeezed: the one axis of the source that has a single slice, left out for a two-dimensional network
    axes, flips: the source's order of (remaining) axes to canonical order
    crop:     region of the canonical grid that was kept
    shape:    of the kept region after resampling
    pad:      (before, after) per axis, added last
    """

    source: Geometry
    squeezed: int | None
    axes: tuple[int, ...]
    flips: tuple[bool, ...]
    crop: Region
    shape: tuple[int, ...]
    pad: tuple[tuple[int, int], ...]
    steps: tuple[float, ...]

    @property
    def padded(self) -> tuple[int, ...]:
        """The spatial shape that the network sees."""
        return tuple(size + low + high for size, (low, high) in zip(self.shape, self.pad, strict=True))

    def region(self, part: Region) -> Region:
        """A region of the cropped canonical grid as a region of the source grid."""
        starts = [kept.start for kept in self.crop]
        full = [slice(p.start + s, p.stop + s) for p, s in zip(part, starts, strict=True)]
        remaining = [size for axis, size in enumerate(self.source.shape) if axis != self.squeezed]
        source: list[slice] = [slice(0)] * len(full)
        for new, (axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            size = remaining[axis]
            source[axis] = slice(size - full[new].stop, size - full[new].start) if flip else full[new]
        if self.squeezed is not None:
            source.insert(self.squeezed, slice(0, 1))
        return tuple(source)

    def unpermuted(self, array: Array) -> Array:
        """(channels, *spatial) of a canonical region back in the source's order of axes."""
        moved = unpermuted(array, self.axes, self.flips)
        return moved if self.squeezed is None else np.expand_dims(moved, self.squeezed + 1)

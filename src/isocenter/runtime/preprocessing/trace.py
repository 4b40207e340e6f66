"""The trace of an image to the network's grid, and back, and the order in which its slices are walked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isocenter.transforms import Taps, taps, unpermuted
from isocenter.values import Array, Geometry, Region


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
        """Values of each axis of the grid, in the order of the walk."""
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


@dataclass(frozen=True)
class Trace:
    """The way from the grid of a source to the grid that the network sees; enough to go back.

    squeezed: the one axis of the source that has a single slice, left out for a two-dimensional network
    axes, flips: the source's order of (remaining) axes to canonical order
    crop:     region of the canonical grid that was kept
    shape:    of the kept region after resampling
    pad:      (before, after) per axis, added last
    back:     how rows of the network's grid become rows of the kept region, None along an axis where they are the same;
              None: edge to edge, as our own preprocessing resamples
    walked:   axis of the network's grid along which it is walked; None: as a file gives its slices
    """

    source: Geometry
    squeezed: int | None
    axes: tuple[int, ...]
    flips: tuple[bool, ...]
    crop: Region
    shape: tuple[int, ...]
    pad: tuple[tuple[int, int], ...]
    steps: tuple[float, ...]
    back: tuple[Taps | None, ...] | None = None
    walked: int | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Voxels of the source along each remaining axis."""
        return tuple(size for axis, size in enumerate(self.source.shape) if axis != self.squeezed)

    @property
    def slice_order(self) -> SliceOrder:
        """The order of the walk over the network's grid: as a file gives its slices, those of its last axis."""
        if self.walked is not None:
            return SliceOrder(self.walked)
        if len(self.axes) < 3:
            return SliceOrder()
        axis = self.axes.index(len(self.axes) - 1)
        return SliceOrder(axis, self.flips[axis])

    def by_smallest_plane(self) -> Trace:
        """The same, walked along its longest axis: for an image that is in memory whole, so that sums are small."""
        return replace(self, walked=int(np.argmax(self.padded)))

    @property
    def kept(self) -> tuple[int, ...]:
        """The shape of the region that was kept, before resampling."""
        return tuple(part.stop - part.start for part in self.crop)

    def steps_back(self, axis: int) -> Taps | None:
        """Taps from rows of the network's grid to rows of the region that was kept; None where they are the same."""
        if self.back is not None:
            return self.back[axis]
        return None if self.shape[axis] == self.kept[axis] else taps(self.shape[axis], self.kept[axis])

    def needed(self, part: Region) -> Region:
        """The region of the padded grid of which a part of the region that was kept is made."""
        region = []
        for axis, (wanted, (before, _)) in enumerate(zip(part, self.pad, strict=True)):
            step = self.steps_back(axis)
            index = np.arange(wanted.start, wanted.stop) if step is None else step.index[wanted]
            region.append(slice(before + int(index.min()), before + int(index.max()) + 1))
        return tuple(region)

    def part(self, region: Region) -> Region | None:
        """The part of the region that was kept which lies in a region of the source; None where nothing does."""
        remaining = [place for axis, place in enumerate(region) if axis != self.squeezed]
        own = []
        for axis, flip, kept in zip(self.axes, self.flips, self.crop, strict=True):
            place, size = remaining[axis], self.sizes[axis]
            start, stop = (size - place.stop, size - place.start) if flip else (place.start, place.stop)
            own.append(slice(max(start, kept.start) - kept.start, min(stop, kept.stop) - kept.start))
        return tuple(own) if all(place.start < place.stop for place in own) else None

    def boxes(self, corners: Array) -> Array:
        """(n, 2 * axes of the source) edges in the source's voxels, to (n, 2 * axes) in those of the padded grid."""
        ndim, sizes = self.source.ndim, self.source.shape
        remaining = [axis for axis in range(ndim) if axis != self.squeezed]
        low, high = [], []
        steps = zip(self.axes, self.flips, self.crop, self.shape, self.pad, strict=True)
        for old, flip, kept, size, (before, _) in steps:
            axis = remaining[old]
            start, stop = corners[:, axis], corners[:, ndim + axis]
            if flip:
                start, stop = sizes[axis] - stop, sizes[axis] - start
            factor = size / (kept.stop - kept.start)
            low.append((start - kept.start) * factor + before)
            high.append((stop - kept.start) * factor + before)
        return np.stack([*low, *high], axis=1)

    def lengths_back(self, lengths: Array, *, signed: bool = False) -> Array:
        """(axes, ...) lengths along the axes of the network's grid, in its voxels, to those of the source in its own.

        signed: they are a vector, which changes its sign where an axis is flipped
        An axis of a single slice that was left out has none.
        """
        factors = [old / new for old, new in zip(self.kept, self.shape, strict=True)]
        factors = [-one if signed and flip else one for one, flip in zip(factors, self.flips, strict=True)]
        scale = np.asarray(factors, dtype=lengths.dtype).reshape(-1, *[1] * (lengths.ndim - 1))
        return np.asarray((lengths * scale)[np.argsort(self.axes)])

    @property
    def padded(self) -> tuple[int, ...]:
        """The spatial shape that the network sees."""
        return tuple(size + low + high for size, (low, high) in zip(self.shape, self.pad, strict=True))

    def region(self, part: Region) -> Region:
        """A region of the cropped canonical grid as a region of the source grid."""
        starts = [kept.start for kept in self.crop]
        full = [slice(p.start + s, p.stop + s) for p, s in zip(part, starts, strict=True)]
        source: list[slice] = [slice(0)] * len(full)
        for new, (axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            size = self.sizes[axis]
            source[axis] = slice(size - full[new].stop, size - full[new].start) if flip else full[new]
        if self.squeezed is not None:
            source.insert(self.squeezed, slice(0, 1))
        return tuple(source)

    def unpermuted(self, array: Array) -> Array:
        """(channels, *spatial) of a canonical region back in the source's order of axes."""
        moved = unpermuted(array, self.axes, self.flips)
        return moved if self.squeezed is None else np.expand_dims(moved, self.squeezed + 1)

"""The protocol of preprocessing, and the trace of an image to the network's grid and back.

The trace has the order in which the image's slices are walked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hilum.transforms import orient, resampling
from hilum.transforms.intensity import ChannelScale
from hilum.transforms.resampling import Taps
from hilum.values import Array, Floats, Geometry, Image, Region, Slabs, StatedSettings

if TYPE_CHECKING:
    from hilum.values.plain_values import PlainValue


@dataclass(frozen=True)
class SliceOrder:
    """A grid seen so that it is walked from the first row of its first axis to the last.

    A file gives its slices in one order only: the walk follows it, and what the network sees stays as it is.

    axis:      of the grid, along which it is walked
    backwards: from its end to its beginning
    """

    axis: int = 0
    backwards: bool = False

    def apply(self, array: Array) -> Array:
        """(channels, *spatial) as it is walked: a view."""
        moved = np.moveaxis(array, self.axis + 1, 1)
        return moved[:, ::-1] if self.backwards else moved

    def undo(self, array: Array) -> Array:
        """The inverse of `apply`."""
        return np.moveaxis(array[:, ::-1] if self.backwards else array, 1, self.axis + 1)

    def order(self, axes: tuple[Any, ...]) -> tuple[Any, ...]:
        """Values of each axis of the grid, in the order of the walk."""
        return (axes[self.axis], *axes[: self.axis], *axes[self.axis + 1 :])

    def region(self, region: Region, size: int) -> Region:
        """A region of the grid, whose own axis has `size` voxels, as one of the walk."""
        first, *others = self.order(region)
        return (self._turn(first, size), *others)

    def region_back(self, region: Region, size: int) -> Region:
        """The inverse of `region`."""
        first, *others = region
        others.insert(self.axis, self._turn(first, size))
        return tuple(others)

    def _turn(self, part: slice, size: int) -> slice:
        return slice(size - part.stop, size - part.start) if self.backwards else part


@dataclass(frozen=True)
class GridTrace:
    """The way from the grid of a source to the grid that the network sees; enough to go back.

    squeezed: the one axis of the source that has a single slice, left out for a two-dimensional network
    axes, flips: the source's order of (remaining) axes to canonical order
    crop:     region of the canonical grid that was kept
    shape:    of the kept region after resampling
    pad:      (before, after) per axis, added last
    back:     how rows of the network's grid become rows of the kept region, None along an axis where they are the same;
              None: edge to edge, as our own preprocessing resamples
    walked:   axis of the network's grid along which it is walked; None: as a file gives its slices
    scales:   of the intensities of each channel of the network; empty where nobody knows them
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
    scales: tuple[ChannelScale, ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Voxels of the source along each remaining axis."""
        return tuple(size for axis, size in enumerate(self.source.shape) if axis != self.squeezed)

    @property
    def voxel_steps(self) -> Floats:
        """Length of a voxel of the network's grid along each of its axes; of an unknown unit where there is no mm."""
        spacing = self.source.spacing or (1.0,) * self.source.ndim
        remaining = [step for axis, step in enumerate(spacing) if axis != self.squeezed]
        pairs = zip(self.axes, self.kept_shape, self.shape, strict=True)
        return np.array([remaining[axis] * kept / size for axis, kept, size in pairs])

    @property
    def slice_order(self) -> SliceOrder:
        """The order of the walk over the network's grid: as a file gives its slices, those of its last axis."""
        if self.walked is not None:
            return SliceOrder(self.walked)
        if len(self.axes) < 3:
            return SliceOrder()
        axis = self.axes.index(len(self.axes) - 1)
        return SliceOrder(axis, self.flips[axis])

    def by_smallest_plane(self) -> GridTrace:
        """The same, walked along its longest axis: for an image that is in memory whole, so that sums are small."""
        return replace(self, walked=int(np.argmax(self.padded_shape)))

    def by_slices(self) -> GridTrace:
        """The same, walked as a file gives its slices."""
        return replace(self, walked=None)

    @property
    def kept_shape(self) -> tuple[int, ...]:
        """The shape of the region that was kept, before resampling."""
        return tuple(part.stop - part.start for part in self.crop)

    def steps_back(self, axis: int) -> Taps | None:
        """Taps from rows of the network's grid to rows of the region that was kept; None where they are the same."""
        if self.back is not None:
            return self.back[axis]
        if self.shape[axis] == self.kept_shape[axis]:
            return None
        return resampling.axis_taps(self.shape[axis], self.kept_shape[axis])

    def needed_region(self, part: Region) -> Region:
        """The region of the padded grid of which a part of the region that was kept is made."""
        region = []
        for axis, (rows, (before, _)) in enumerate(zip(part, self.pad, strict=True)):
            step = self.steps_back(axis)
            index = np.arange(rows.start, rows.stop) if step is None else step.index[rows]
            region.append(slice(before + int(index.min()), before + int(index.max()) + 1))
        return tuple(region)

    def shown(self, region: Region) -> Region:
        """The region of the source's grid that a region of the padded grid shows."""
        part = []
        for rows, (before, _), size, kept in zip(region, self.pad, self.shape, self.kept_shape, strict=True):
            start = min(max(rows.start - before, 0), size - 1)  # beyond the edge lies what is there
            stop = max(min(rows.stop - before, size), start + 1)
            part.append(slice(start * kept // size, -(-stop * kept // size)))
        return self.region(tuple(part))

    def part(self, region: Region) -> Region | None:
        """The part of the region that was kept which lies in a region of the source; None where nothing does."""
        remaining = [place for axis, place in enumerate(region) if axis != self.squeezed]
        parts = []
        for axis, flip, cropped in zip(self.axes, self.flips, self.crop, strict=True):
            rows, size = remaining[axis], self.sizes[axis]
            start, stop = (size - rows.stop, size - rows.start) if flip else (rows.start, rows.stop)
            parts.append(slice(max(start, cropped.start) - cropped.start, min(stop, cropped.stop) - cropped.start))
        return tuple(parts) if all(place.start < place.stop for place in parts) else None

    def boxes(self, corners: Array) -> Array:
        """(n, 2 * axes of the source) edges in the source's voxels, to (n, 2 * axes) in those of the padded grid."""
        ndim, sizes = self.source.ndim, self.source.shape
        remaining = [axis for axis in range(ndim) if axis != self.squeezed]
        low, high = [], []
        steps = zip(self.axes, self.flips, self.crop, self.shape, self.pad, strict=True)
        for old, flip, cropped, size, (before, _) in steps:
            axis = remaining[old]
            start, stop = corners[:, axis], corners[:, ndim + axis]
            if flip:
                start, stop = sizes[axis] - stop, sizes[axis] - start
            factor = size / (cropped.stop - cropped.start)
            low.append((start - cropped.start) * factor + before)
            high.append((stop - cropped.start) * factor + before)
        return np.stack([*low, *high], axis=1)

    def lengths_back(self, lengths: Array, *, signed: bool = False) -> Array:
        """(axes, ...) lengths along the axes of the network's grid, in its voxels, to those of the source in its own.

        signed: they are a vector, which changes its sign where an axis is flipped
        An axis of a single slice that was left out has none.
        """
        factors = [old / new for old, new in zip(self.kept_shape, self.shape, strict=True)]
        factors = [-one if signed and flip else one for one, flip in zip(factors, self.flips, strict=True)]
        scale = np.asarray(factors, dtype=lengths.dtype).reshape(-1, *[1] * (lengths.ndim - 1))
        return np.asarray((lengths * scale)[np.argsort(self.axes)])

    @property
    def padded_shape(self) -> tuple[int, ...]:
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

    def unpermute(self, array: Array) -> Array:
        """(channels, *spatial) of a canonical region back in the source's order of axes."""
        moved = orient.undo_permute(array, self.axes, self.flips)
        return moved if self.squeezed is None else np.expand_dims(moved, self.squeezed + 1)


def as_tuples(settings: StatedSettings) -> dict[str, Any]:
    """Settings of a record with tuples in place of lists, as frozen values hold them."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}


def as_lists(settings: StatedSettings) -> dict[str, PlainValue]:
    """Settings of a frozen value with lists in place of tuples, as records hold them."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}


@dataclass(frozen=True)
class VolumePart:
    """A part of a volume that is predicted at a time; None stands for all of it.

    kept:   on the grid on which slabs are restored
    needed: of the grid that the network sees, for that
    slice_order: in which the part is walked
    """

    kept: Region | None = None
    needed: Region | None = None
    slice_order: SliceOrder = field(default_factory=SliceOrder)


@dataclass(frozen=True)
class HeldParts:
    """The parts of a large volume that are held while it is predicted.

    streamed: bytes as float32 from which on only parts are held of what the network sees of it; None: always all
    restored: only parts of the outputs on their way back; else all, on the network's grid and on the image's own
    shape:    of what the network sees, before it is padded to a window; None where it follows from the spacing
    copies:   bytes for each voxel of that, where all of it is prepared together: normalised, resampled, padded
    """

    streamed: int | None = None
    restored: bool = True
    shape: tuple[int, ...] | None = None
    copies: int = 8


class RegionSource(Protocol):
    """(channels, *spatial) numbers that are read region by region: an array, or parts that are made on request."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, *spatial)."""

    def __getitem__(self, region: tuple[slice, ...], /) -> Array:
        """Numbers of a region; its first slice is of channels."""


class ImageSteps(Protocol):
    """The steps around the network for one image: its input region by region, and outputs on the image's own grid."""

    @property
    def cascade(self) -> float | None:
        """None where the network sees the image alone; else the last channel are numbers of labels marked before."""

    @property
    def marks(self) -> int:
        """Channels after those of the image: labels marked before, or what somebody points at."""

    @property
    def slicewise(self) -> bool:
        """Whether the slices of a volume, along its last axis, go through it one by one."""

    @property
    def tissue(self) -> str:
        """How tissue is told on a slide, beside which nothing is predicted: "otsu", or "none"."""

    @property
    def tiles(self) -> Any:
        """The tiles of which a slide becomes a bag; None where images stay whole."""

    def open_image(self, image: Image, where: str) -> tuple[RegionSource, Any]:
        """The same, where what the network sees may be made part by part."""

    def parts(self, trace: Any, region: Region | None, patch: Sequence[int], channels: int) -> Sequence[VolumePart]:
        """The parts that are predicted one after the other, so that the sums of so many channels need not much memory.

        region: of the source's grid, of what nobody wants the rest
        """

    def restore(self, output_slabs: Slabs, trace: Any, part: Region | None = None) -> Slabs:
        """Finished rows of the network's grid, in the part's slice order, as parts of the source's own grid."""


class PreprocessingKind(ImageSteps, Protocol):
    """A kind of preprocessing; `preprocessing_kinds.preprocessing_of` makes one from a model's record."""

    @property
    def ndim(self) -> int:
        """Axes of the network's grid."""

    @property
    def order_of_axes(self) -> tuple[int, ...]:
        """The axis of an upright image (RAS+) that each axis of the network's grid is."""

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that images have to have, by name and order."""

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """mm between voxels of the network's grid; None where it is the image's own."""

    @property
    def unit(self) -> str:
        """The unit of the spacing: mm, of a series that of its axis."""

    @property
    def frames(self) -> int | None:
        """The number of frames of a clip that are looked at, as further channels; None for still images."""

    @property
    def around(self) -> int:
        """The number of frames before and after each frame of a clip that are further channels."""

    @property
    def moments(self) -> int:
        """The number of frames that the network sees at once; 1 of still images."""

    @property
    def interval(self) -> float | None:
        """The time from one frame that is looked at to the next; None where they are spread evenly over each clip."""

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Fixed number of voxels of the network's grid; None where it follows from the image."""

    @property
    def modality(self) -> str:
        """DICOM's word, or "unknown"."""

    @property
    def reduction(self) -> float:
        """The factor by which the network's grid is coarser than the spacing, or the image's own grid, makes it."""

    def held_parts(self, geometry: Geometry) -> HeldParts:
        """The parts of an image of this geometry that are held while it is predicted."""

    @property
    def settings(self) -> Mapping[str, PlainValue]:
        """Plain values for a model's record."""

    def __call__(self, image: Image, where: str) -> tuple[Any, Any]:
        """(channels, *padded) as the network sees it, and the way back, which knows its `source` geometry."""

    def present(self, image: Image, where: str) -> tuple[bool, ...]:
        """Whether the image has each channel; DatasetError where one is missing that the model needs."""

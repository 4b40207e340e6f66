"""Statistics of a whole image, read a few slices at a time, and columns along its slice order.

Parts of an image need statistics of all of it for their preparation; sums over whole planes would take too much memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import pairwise, product
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hilum.runtime.preprocessing.protocol import GridTrace, VolumePart
from hilum.transforms.intensity import CLIPPED, ChannelScale, Normalisation
from hilum.values import Array, Image, Region, slabs
from hilum.values.slabs import Extent

# Slices of about so many voxels are looked at together.
BLOCK_VOXELS = 2**22
# The bits of a float32, turned so that they are ordered as the values are, in two halves.
HALF = 2**16


def image_content(image: Image) -> Region:
    """The smallest part of a volume's grid that holds all that is more than the lowest measurement of its channel."""
    shape = image.geometry.shape
    walk = tuple(reversed(range(len(shape))))
    lowest: list[Any] = [None] * image.shape[0]
    extents = [Extent(walk) for _ in lowest]
    for _, block in _blocks(image, tuple(slice(0, size) for size in shape)):
        for channel, part in enumerate(block):
            known = None if is_measured(image) else image.is_measured(part)
            if known is None or known.any():
                low = part.min() if known is None else part[known].min()
                lowest[channel] = low if lowest[channel] is None else min(lowest[channel], low)
            extents[channel].add(part.T, None if known is None else known.T)
    found = ((extent, low) for extent, low in zip(extents, lowest, strict=True) if low is not None)
    boxes = [box for extent, low in found if (box := extent.box(low))]
    axes = zip(*boxes, strict=True) if boxes else ([(0, size)] for size in shape)
    return tuple(slice(min(first for first, _ in ends), max(end for _, end in ends)) for ends in axes)


def is_measured(image: Image) -> bool:
    """Whether no voxel can be anything but a measurement."""
    return image.padding is None and image.dtype.kind in "biu"


def channel_scales(image: Image, normalisation: Sequence[Normalisation], region: Region) -> list[ChannelScale]:
    """The normalisation of each channel of a part of a volume's grid.

    The part is gone through as often as that needs: not at all for a window of whole numbers that are all measured.
    """
    return [_scale(_Channel(image, number, region), one) for number, one in enumerate(normalisation)]


@dataclass(frozen=True, eq=False)
class _Channel:
    """The measurements of one channel in a part of the grid."""

    image: Image
    number: int
    region: Region

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """(count,) of some slices after the other."""
        return (measured.astype(np.float32) for measured in self.stored())

    def stored(self) -> Iterator[Array]:
        """The same in their own type."""
        for _, block in _blocks(self.image, self.region, slice(self.number, self.number + 1)):
            measured = block.T.reshape(-1) if is_measured(self.image) else block[self.image.is_measured(block)]
            if measured.size:
                yield measured


def _scale(channel: _Channel, normalisation: Normalisation) -> ChannelScale:
    if normalisation.method != "zscore":
        if is_measured(channel.image):
            return normalisation.scale(0.0)  # nothing will need the lowest value
        lowest = min((float(measured.min()) for measured in channel), default=None)
        return ChannelScale(None) if lowest is None else normalisation.scale(lowest)
    levels: Iterable[tuple[NDArray[np.float32], Any]]  # values, and how often each is there
    ranked: Callable[[Sequence[int]], Sequence[float]]
    if slabs.is_tabled(channel.image.dtype):
        table = slabs.table_values(channel.image.dtype).astype(np.float32)
        of_table = reduce(np.add, map(slabs.table_counts, channel.stored()), np.zeros(len(table), np.int64))
        values, counts = table[of_table > 0], of_table[of_table > 0]
        lowest, highest = (float(values[0]), float(values[-1])) if len(values) else (math.inf, -math.inf)
        levels, ranked = [(values, counts)], partial(_ranked_in_table, values, counts)
    else:
        counts, lowest, highest = np.zeros(HALF, np.int64), math.inf, -math.inf
        for measured in channel:
            counts += np.bincount(_order_bits(measured) >> 16, minlength=HALF)
            lowest, highest = min(lowest, float(measured.min())), max(highest, float(measured.max()))
        levels, ranked = ((measured, 1) for measured in channel), partial(_rank_values, channel, counts)
    if lowest == math.inf:
        return ChannelScale(None)
    count, total, squares = int(counts.sum()), 0.0, 0.0
    low, high = _percentiles(count, ranked)
    if low == high:
        low, high = lowest, highest
    for values, times in levels:
        # About the lower bound, so that squares of large numbers do not hide a small deviation.
        clipped = np.clip(values, low, high).astype(np.float64) - low
        total, squares = total + (times * clipped).sum(), squares + (times * np.square(clipped)).sum()
    mean = total / count
    deviation = math.sqrt(max(squares / count - mean**2, 0.0))
    return normalisation.scale(lowest, (low, high), float(np.float32(low + mean)), float(np.float32(deviation)))


def _percentiles(total: int, ranked: Callable[[Sequence[int]], Sequence[float]]) -> tuple[float, float]:
    """The percentiles of so many measurements, as np.percentile has them of an array in memory."""
    places = [share / 100 * (total - 1) for share in CLIPPED]
    ranks = sorted({rank for place in places for rank in (math.floor(place), math.ceil(place))})
    value = dict(zip(ranks, ranked(ranks), strict=True))
    low, high = (
        value[math.floor(place)] + (value[math.ceil(place)] - value[math.floor(place)]) * (place - math.floor(place))
        for place in places
    )
    return float(np.float32(low)), float(np.float32(high))


def _ranked_in_table(values: NDArray[np.float32], counts: NDArray[np.int64], ranks: Sequence[int]) -> Sequence[float]:
    """The measurements of these ranks, of values of which it is known how often each is there."""
    return cast(
        "Sequence[float]", values[np.searchsorted(np.cumsum(counts), ranks, side="right")].astype(float).tolist()
    )


def _rank_values(channel: _Channel, counts: NDArray[np.int64], ranks: Sequence[int]) -> list[float]:
    """The measurements of these ranks: their upper halves are known, and the lower ones are counted now."""
    ends = np.cumsum(counts)
    upper = [int(np.searchsorted(ends, rank, side="right")) for rank in ranks]
    below = {half: np.zeros(HALF, dtype=np.int64) for half in set(upper)}
    for measured in channel:
        bits = _order_bits(measured)
        halves = bits >> 16
        for half in below:
            below[half] += np.bincount(bits[halves == half] & 0xFFFF, minlength=HALF)
    values = []
    for rank, half in zip(ranks, upper, strict=True):
        before = int(ends[half] - counts[half])
        lower = int(np.searchsorted(np.cumsum(below[half]), rank - before, side="right"))
        values.append(_value(half << 16 | lower))
    return values


def _order_bits(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """(count,) the bits of float32 numbers, turned so that a larger number has larger bits."""
    bits = np.ascontiguousarray(values).ravel().view(np.uint32)
    return np.asarray(bits ^ np.where(bits >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000)))


def _value(ordered: int) -> float:
    bits = np.uint32(ordered ^ (0x80000000 if ordered >> 31 else 0xFFFFFFFF))
    return float(bits.view(np.float32))


def _blocks(image: Image, region: Region, channels: slice = slice(None)) -> Iterator[tuple[slice, Array]]:
    """Slices of the last axis, in which files give them, and (channels, *spatial) what a region has of them."""
    read, (*plane, last) = image.reader(), region
    step = max(1, BLOCK_VOXELS // (math.prod(one.stop - one.start for one in plane) * image.shape[0]))
    for start in range(last.start, last.stop, step):
        rows = slice(start, min(start + step, last.stop))
        yield rows, read((channels, *plane, rows))


# What the sums of one column may take. Columns share the windows that lie across their borders: more memory would
# save little, as two columns of a plane already cost only a window's width more than one.
HELD_BYTES = 2**30
# Of pictures less: with their rows a network's input is held, which of a slide is as wide.
PICTURE_BYTES = 2**27


def most_held(axes: int) -> int:
    """Bytes that the sums of one column of an image with so many axes may take."""
    return HELD_BYTES if axes > 2 else min(HELD_BYTES, PICTURE_BYTES)


def wanted_columns(trace: GridTrace, region: Region | None, patch: Sequence[int], channels: int) -> list[VolumePart]:
    """Columns of what is wanted of the source's grid, as few as there may be; `region` None stands for all of it."""
    region_wanted = tuple(slice(0, size) for size in trace.kept_shape) if region is None else trace.part(region)
    if region_wanted is None:
        return []
    pieces = split_columns(trace, region_wanted, patch, channels)
    if region is None and len(pieces) == 1:
        return [VolumePart(slice_order=trace.slice_order)]  # padding and all: a vector is the mean over every window
    return [VolumePart(one, trace.needed_region(one), trace.slice_order) for one in pieces]


def split_columns(
    trace: GridTrace, part: Region, patch: Sequence[int], channels: int, held: int | None = None
) -> list[Region]:
    """Parts of the region that was kept, each so small that its sums need no more than `held` bytes.

    part:     of that region, which is cut
    channels: of all dense outputs together
    """
    limit, walked = held or most_held(len(part)), trace.slice_order.axis
    counts = [1] * len(part)
    while True:
        pieces = _pieces(part, counts)
        largest = max(pieces, key=lambda piece: held_bytes(trace, piece, patch, channels))
        lengths = [one.stop - one.start for one in trace.needed_region(largest)]
        # A column narrower than a window would be halo for the most part.
        wide = [
            axis
            for axis, one in enumerate(largest)
            if axis != walked and one.stop - one.start > 1 and lengths[axis] > patch[axis]
        ]
        if not wide or held_bytes(trace, largest, patch, channels) <= limit:
            return pieces
        counts[max(wide, key=lambda axis: lengths[axis] / patch[axis])] += 1


def held_bytes(trace: GridTrace, part: Region, patch: Sequence[int], channels: int) -> int:
    """Bytes that are held of a part while it is walked: sums, and rows on their way back, all on the network's grid."""
    walked = trace.slice_order.axis
    plane = math.prod(one.stop - one.start for axis, one in enumerate(trace.needed_region(part)) if axis != walked)
    step = trace.steps_back(walked)
    rows = 0 if step is None else 2 * step.index.shape[1]
    return cast(int, 4 * plane * (patch[walked] * (channels + 1) + rows * channels))


def _pieces(region: Region, counts: Sequence[int]) -> list[Region]:
    axes = []
    for part, count in zip(region, counts, strict=True):
        size = part.stop - part.start
        borders = [part.start + size * n // count for n in range(count + 1)]
        axes.append([slice(low, high) for low, high in pairwise(borders) if low < high])
    return [tuple(piece) for piece in product(*axes)]

"""Statistics of a whole image, read a few slices at a time, and columns along its slice order.

Parts of an image need statistics of all of it for their preparation; sums over whole planes would take too much memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from isocenter.runtime.preprocessing.protocol import Part, Trace
from isocenter.transforms import CLIPPED, Normalisation, Scale
from isocenter.values import Array, Image, Region

# Slices of about so many voxels are looked at together.
BLOCK_VOXELS = 2**22
# The bits of a float32, turned so that they are ordered as the values are, in two halves.
HALF = 2**16


def content_of(image: Image) -> Region:
    """The smallest part of a volume's grid that holds all that is more than the lowest measurement of its channel."""
    shape = image.geometry.shape
    # Of each channel the lowest measurement, and the highest of each row of each axis.
    lowest = [math.inf] * image.shape[0]
    highest = [[np.full(size, -np.inf, np.float32) for size in shape] for _ in lowest]
    for rows, block in _blocks(image, tuple(slice(0, size) for size in shape)):
        for channel, (values, valid) in enumerate(zip(block.astype(np.float32), image.measured(block), strict=True)):
            if not valid.any():
                continue
            lowest[channel] = min(lowest[channel], float(values.min(where=valid, initial=np.inf)))
            values[~valid] = -np.inf
            for axis, most in enumerate(highest[channel]):
                rows_of_most = most[rows] if axis == len(shape) - 1 else most
                np.maximum(
                    rows_of_most,
                    values.max(axis=tuple(other for other in range(len(shape)) if other != axis)),
                    out=rows_of_most,
                )
    region = []
    for axis, size in enumerate(shape):
        used = np.flatnonzero(np.any([rows[axis] > low for rows, low in zip(highest, lowest, strict=True)], axis=0))
        if len(used) == 0:
            return tuple(slice(0, size) for size in shape)
        region.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(region)


def scales_of(image: Image, normalisation: Sequence[Normalisation], region: Region) -> list[Scale]:
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
        for _, block in _blocks(self.image, self.region, slice(self.number, self.number + 1)):
            measured = block[self.image.measured(block)].astype(np.float32)
            if measured.size:
                yield measured


def _scale(channel: _Channel, normalisation: Normalisation) -> Scale:
    if normalisation.method != "zscore":
        if channel.image.dtype.kind in "biu" and channel.image.padding is None:
            return normalisation.scale(0.0)  # nothing will need the lowest value
        lowest = min((float(measured.min()) for measured in channel), default=None)
        return Scale(None) if lowest is None else normalisation.scale(lowest)
    counts, lowest, highest = np.zeros(HALF, np.int64), math.inf, -math.inf
    for measured in channel:
        counts += np.bincount(_ordered(measured) >> 16, minlength=HALF)
        lowest, highest = min(lowest, float(measured.min())), max(highest, float(measured.max()))
    if lowest == math.inf:
        return Scale(None)
    low, high = _percentiles(channel, counts)
    if low == high:
        low, high = lowest, highest
    count, total, squares = 0, 0.0, 0.0
    for measured in channel:
        # About the lower bound, so that squares of large numbers do not hide a small deviation.
        clipped = np.clip(measured, low, high).astype(np.float64) - low
        count, total, squares = count + clipped.size, total + clipped.sum(), squares + np.square(clipped).sum()
    mean = total / count
    deviation = math.sqrt(max(squares / count - mean**2, 0.0))
    return normalisation.scale(lowest, (low, high), float(np.float32(low + mean)), float(np.float32(deviation)))


def _percentiles(channel: _Channel, counts: NDArray[np.int64]) -> tuple[float, float]:
    """The percentiles of all measurements, as np.percentile has them of an array in memory."""
    total = int(counts.sum())
    places = [share / 100 * (total - 1) for share in CLIPPED]
    ranks = sorted({rank for place in places for rank in (math.floor(place), math.ceil(place))})
    value = dict(zip(ranks, _ranked(channel, counts, ranks), strict=True))
    low, high = (
        value[math.floor(place)] + (value[math.ceil(place)] - value[math.floor(place)]) * (place - math.floor(place))
        for place in places
    )
    return float(np.float32(low)), float(np.float32(high))


def _ranked(channel: _Channel, counts: NDArray[np.int64], ranks: Sequence[int]) -> list[float]:
    """The measurements of these ranks: their upper halves are known, and the lower ones are counted now."""
    ends = np.cumsum(counts)
    upper = [int(np.searchsorted(ends, rank, side="right")) for rank in ranks]
    below = {half: np.zeros(HALF, dtype=np.int64) for half in set(upper)}
    for measured in channel:
        bits = _ordered(measured)
        halves = bits >> 16
        for half in below:
            below[half] += np.bincount(bits[halves == half] & 0xFFFF, minlength=HALF)
    values = []
    for rank, half in zip(ranks, upper, strict=True):
        before = int(ends[half] - counts[half])
        lower = int(np.searchsorted(np.cumsum(below[half]), rank - before, side="right"))
        values.append(_value(half << 16 | lower))
    return values


def _ordered(values: NDArray[np.float32]) -> NDArray[np.uint32]:
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


def parts_of(trace: Trace, region: Region | None, patch: Sequence[int], channels: int) -> list[Part]:
    """Columns of what is wanted of the source's grid, as few as there may be; `region` None stands for all of it."""
    region_wanted = tuple(slice(0, size) for size in trace.kept) if region is None else trace.part(region)
    if region_wanted is None:
        return []
    pieces = columns(trace, region_wanted, patch, channels)
    if region is None and len(pieces) == 1:
        return [Part(slice_order=trace.slice_order)]  # padding and all: a vector is the mean over every window
    return [Part(one, trace.needed(one), trace.slice_order) for one in pieces]


def columns(trace: Trace, part: Region, patch: Sequence[int], channels: int, held: int | None = None) -> list[Region]:
    """Parts of the region that was kept, each so small that its sums need no more than `held` bytes.

    part:     of that region, which is cut
    channels: of all dense outputs together
    """
    limit, walked = held or HELD_BYTES, trace.slice_order.axis
    counts = [1] * len(part)
    while True:
        pieces = _pieces(part, counts)
        largest = max(pieces, key=lambda piece: held_bytes(trace, piece, patch, channels))
        lengths = [one.stop - one.start for one in trace.needed(largest)]
        # A column narrower than a window would be halo for the most part.
        wide = [
            axis
            for axis, one in enumerate(largest)
            if axis != walked and one.stop - one.start > 1 and lengths[axis] > patch[axis]
        ]
        if not wide or held_bytes(trace, largest, patch, channels) <= limit:
            return pieces
        counts[max(wide, key=lambda axis: lengths[axis] / patch[axis])] += 1


def held_bytes(trace: Trace, part: Region, patch: Sequence[int], channels: int) -> int:
    """Bytes that are held of a part while it is walked: sums, and rows on their way back, all on the network's grid."""
    walked = trace.slice_order.axis
    plane = math.prod(one.stop - one.start for axis, one in enumerate(trace.needed(part)) if axis != walked)
    step = trace.steps_back(walked)
    rows = 0 if step is None else 2 * step.index.shape[1]
    return 4 * plane * (patch[walked] * (channels + 1) + rows * channels)


def _pieces(region: Region, counts: Sequence[int]) -> list[Region]:
    axes = []
    for part, count in zip(region, counts, strict=True):
        size = part.stop - part.start
        borders = [part.start + size * n // count for n in range(count + 1)]
        axes.append([slice(low, high) for low, high in pairwise(borders) if low < high])
    return [tuple(piece) for piece in product(*axes)]

"""Columns of a volume along its slice order, where sums over the whole plane would take too much memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise, product

from isocenter.runtime.preprocessing.protocol import Part
from isocenter.runtime.preprocessing.trace import Trace
from isocenter.values import Region

# What the sums of one column may take. Columns share the windows that lie across their borders: more memory would
# save little, as two columns of a plane already cost only a window's width more than one.
HELD_BYTES = 2**30


def parts_of(trace: Trace, region: Region | None, patch: Sequence[int], channels: int) -> list[Part]:
    """Columns of what is wanted of the source's grid, as few as there may be; `region` None stands for all of it."""
    wanted = tuple(slice(0, size) for size in trace.kept) if region is None else trace.part(region)
    if wanted is None:
        return []
    pieces = columns(trace, wanted, patch, channels)
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


def _pieces(whole: Region, counts: Sequence[int]) -> list[Region]:
    axes = []
    for part, count in zip(whole, counts, strict=True):
        size = part.stop - part.start
        borders = [part.start + size * n // count for n in range(count + 1)]
        axes.append([slice(low, high) for low, high in pairwise(borders) if low < high])
    return [tuple(piece) for piece in product(*axes)]

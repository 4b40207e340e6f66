"""Pixels inside a closed polygon, as contours of structure sets and outlines of annotations are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hilum.values import Floats

# Corners often lie on pixel centres: rounding decides then, and must decide alike everywhere.
DECIMALS = 5
# Pixels from the first one: a damaged file may state any number, and the difference of two is none.
FARTHEST = 1e9
# Rows that edges of a polygon pass, which are looked at together.
PASSED_AT_ONCE = 1 << 22

Mask = NDArray[np.bool_]


def inside_polygon(corners: Floats, shape: Sequence[int]) -> Mask:
    """(rows, columns) pixels whose centres lie in a closed polygon: a line that comes twice bounds what it did once.

    corners: (points, 2) x and y in pixels; 0 is the centre of the first one
    A pixel belongs to it where the line winds around its centre, not where it does so an odd number of times. Only an
    edge that is passed in both directions leads to a hole, whichever direction the line takes around that.
    Of centres on the line those on the side of smaller numbers belong to it (corners at 3 and 13 hold pixels 3 to 12),
    so that polygons that share an edge share no pixel.
    """
    inside, corners = np.zeros(tuple(shape), bool), np.round(np.clip(corners, -FARTHEST, FARTHEST), DECIMALS)
    low, high = (np.clip(np.ceil(end(axis=0)), 0, shape[::-1]).astype(int) for end in (corners.min, corners.max))
    turns = winding_numbers(corners - low, (high - low)[::-1])
    box = inside[low[1] : high[1], low[0] : high[0]]
    box[...] = turns != 0
    if np.abs(turns).max(initial=0) > 1 and (turns % 2).any() and _has_channel(corners):
        box[...] = turns % 2 == 1
    return inside


def winding_numbers(corners: Floats, shape: Sequence[int]) -> NDArray[np.intp]:
    """(rows, columns) how often a closed polygon winds around each pixel's centre, negative in one direction."""
    rows, columns = shape
    (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, axis=0).T
    # The rows whose centres each edge passes: the first, and how many.
    first, last = (np.clip(np.ceil(end(y0, y1)), 0, rows).astype(int) for end in (np.minimum, np.maximum))
    counts = last - first
    passed = np.zeros(rows * (columns + 1), dtype=np.intp)
    for edges in _few_at_once(counts):
        edge = np.repeat(np.arange(edges.start, edges.stop), counts[edges])
        row = np.arange(len(edge)) - np.repeat(np.cumsum(counts[edges]) - last[edges], counts[edges])
        x = x0[edge] + (row - y0[edge]) * (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
        cell = row * (columns + 1) + np.clip(np.ceil(np.round(x, DECIMALS)), 0, columns).astype(int)
        # From here on to the right the edge has been passed once more, upwards or downwards.
        for is_turn, step in ((y1[edge] > y0[edge], 1), (y1[edge] < y0[edge], -1)):
            passed += step * np.bincount(cell[is_turn], minlength=len(passed))
    return np.cumsum(passed.reshape(rows, columns + 1)[:, :-1], axis=1)


def _has_channel(corners: Floats) -> bool:
    """Whether an edge is passed in both directions, as the channel of a keyhole is."""
    points = [*map(tuple, corners.tolist())]
    edges = {(a, b) for a, b in zip(points, [*points[1:], points[0]], strict=True) if a != b}
    return any((b, a) in edges for a, b in edges)


def _few_at_once(counts: NDArray[np.integer]) -> Iterator[slice]:
    """Edges that pass so many rows, parted where they pass too many to be held: a small file may state millions."""
    ends, start = np.cumsum(counts), 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + PASSED_AT_ONCE, side="right")))
        yield slice(start, stop)
        start = stop

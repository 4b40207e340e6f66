"""Outlines of masks along the outer edges of pixels: closed polygons whose even-odd interior is the mask itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from hilum.lazy import ndimage
from hilum.values import Array

Corners = NDArray[np.int64]
# The corners of a square of four pixels by the pixels that are marked, 1 top left, 2 top right, 4 bottom left, 8 bottom
# right: one corner where their number is odd, two where only a diagonal is marked.
ONE = (1, 2, 4, 7, 8, 11, 13, 14)
FALLING, RISING = 9, 6


def trace_outlines(mask: Array) -> list[Corners]:
    """(points, 2) corners (row, column) of each piece of a mask (rows, columns), in edges: pixel i is from i to i + 1.

    Pieces that touch in a corner alone are two. A hole is joined to what is around it by a line that runs there and
    back (a keyhole), so that every program that fills the polygon leaves it out. PS3.3 C.8.8.6.3
    """
    mask = np.asarray(mask, dtype=bool)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return []
    # A structure is a small part of a slice, and the rest costs as much to look through.
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    pieces, _ = ndimage.label(cut)
    rings = defaultdict[int, list[Corners]](list)
    for loop in _loops(cut):  # from the top on: the outer ring of a piece before its holes
        rings[_piece(loop, pieces)].append(loop)
    corner = np.array([rows[0], columns[0]])
    return [reduce(_keyhole, own) + corner for own in rings.values()]


def _loops(mask: NDArray[np.bool_]) -> Iterator[Corners]:
    """(corners, 2) of each closed line between marked and unmarked pixels, without its points on straight parts.

    On each line of the grid corners lie in pairs that an edge connects: every loop goes from a corner along its row to
    the next one, then along its column.
    """
    framed = np.pad(mask, 1).astype(np.uint8)
    squares = framed[:-1, :-1] + 2 * framed[:-1, 1:] + 4 * framed[1:, :-1] + 8 * framed[1:, 1:]
    single, falling, rising = (np.argwhere(np.isin(squares, kinds)) for kinds in (ONE, (FALLING,), (RISING,)))
    # Of two corners in one place each belongs to another pixel: to whose edges on the left or right, above or below.
    places = np.concatenate([single, falling, falling, rising, rising])
    right = np.repeat([0, 0, 1, 1, 0], [len(single), len(falling), len(falling), len(rising), len(rising)])
    below = np.repeat([0, 0, 1, 0, 1], [len(single), len(falling), len(falling), len(rising), len(rising)])
    rows, columns = places.T
    along_row = _mates(np.lexsort((right, columns, rows)))
    along_column = _mates(np.lexsort((below, rows, columns)))
    left = set(range(len(places)))
    for start in np.lexsort((columns, rows)).tolist():
        if start not in left:
            continue
        loop, corner = [], start
        while corner in left:
            other = along_row[corner]
            loop += [corner, other]
            left -= {corner, other}
            corner = along_column[other]
        yield places[loop]


def _mates(order: NDArray[np.intp]) -> list[int]:
    """Other corner of each pair, of corners that are sorted along the lines of the grid."""
    mates = np.empty(len(order), dtype=np.int64)
    mates[order[0::2]], mates[order[1::2]] = order[1::2], order[0::2]
    return list(map(int, mates))


def _piece(loop: Corners, pieces: Array) -> int:
    """The piece that a loop bounds: inside its topmost corner, of a hole above it."""
    row, column = loop[0]
    inside = pieces[row, column] if row < pieces.shape[0] and column < pieces.shape[1] else 0
    return int(inside or pieces[row - 1, column])


def _keyhole(outer: Corners, hole: Corners) -> Corners:
    """A ring with a hole, joined by the line from the hole's topmost corner up to the edge above."""
    row, column = hole[0]
    ends = np.roll(outer, -1, axis=0)
    first, last = np.minimum(outer[:, 1], ends[:, 1]), np.maximum(outer[:, 1], ends[:, 1])
    above = (outer[:, 0] == ends[:, 0]) & (outer[:, 0] < row) & (first <= column) & (column < last)
    edge = max(np.flatnonzero(above).tolist(), key=lambda n: outer[n, 0])
    at = np.array([[outer[edge, 0], column]])
    return np.concatenate([outer[: edge + 1], at, hole, hole[:1], at, outer[edge + 1 :]])

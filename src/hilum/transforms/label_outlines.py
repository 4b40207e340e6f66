"""Outlines of the pieces of a label map along the edges of its pixels, found strip by strip."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from hilum.values import Array, grouping

# (corners, 2) of (row, column) between pixels, the first not repeated: 0, 0 is the corner of the first pixel.
Ring = NDArray[np.int64]
# Corners of a label, of about 120 bytes each, above which it gets no outlines.
MOST_CORNERS = 4_000_000


@dataclass(frozen=True, eq=False)
class LabelCorners:
    """The corners of all rings of a label, by rows, then columns.

    Pixels that touch at a corner alone are of two pieces, so that there are two corners: the left one goes left.
    row, column: (corners,)
    dips:        (corners,) whether of two at a place the left one goes down and the other up, not the other way round
    opens:       (corners,) whether the pixel below on the right is of the label
    """

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    dips: NDArray[np.int64]
    opens: NDArray[np.int64]


def find_corners(strips: Iterable[Array], width: int, labels: Sequence[int]) -> dict[int, LabelCorners | None]:
    """{label: its corners}, None of more than `MOST_CORNERS`.

    strips: (rows, width) values, one below the other, of which one is held at a time
    """
    found: dict[int, list[NDArray[np.int64]]] = {label: [] for label in labels}
    above = np.zeros((1, width), np.uint8)
    row = 0
    for values in chain(strips, [above]):
        both = np.concatenate([above, values])
        used = np.flatnonzero(both.any(axis=0))
        for label in found if used.size else ():
            if sum(part.shape[1] for part in found[label]) <= MOST_CORNERS:
                left, right = int(used[0]), int(used[-1]) + 1
                found[label].append(_corners_of(both[:, left:right] == label, row, left))
        above = values[-1:]
        row = row + len(values)
    joined = {label: np.concatenate(parts, axis=1) for label, parts in found.items() if parts}
    return {label: LabelCorners(*one) if one.shape[1] <= MOST_CORNERS else None for label, one in joined.items()}


def _corners_of(marked: NDArray[np.bool_], start: int, left: int) -> NDArray[np.int64]:
    """(4, corners) of `LabelCorners`, of each row but the first, which lies above `start`, from column `left`."""
    around = np.pad(marked, ((0, 0), (1, 1)))
    first = around[:-1, :-1]
    second = around[:-1, 1:]
    third = around[1:, :-1]
    fourth = around[1:, 1:]
    touches = (first == fourth) & (second == third) & (first != second)
    row, column = np.nonzero((first ^ second ^ third ^ fourth) | touches)
    parts = np.stack([row + start, column + left, (touches & second)[row, column], fourth[row, column]])
    return np.repeat(parts.astype(np.int64), touches[row, column] + 1, axis=1)


def trace_pieces(corners: LabelCorners) -> Iterator[list[Ring]]:
    """The rings of each piece: the outer one, then its holes."""
    rings, is_outer = _rings(corners)
    pieces = grouping.by_key((owner, ring) for ring, owner in zip(rings, _owners(rings, is_outer), strict=True))
    yield from pieces.values()


def _rings(corners: LabelCorners) -> tuple[list[Ring], list[bool]]:
    """All rings in the order of their first corners, from which each goes to the right, and whether it is an outer one.

    In a row, and in a column, corners are the ends of edges, two by two.
    """
    number = np.arange(len(corners.row))
    order = np.lexsort((np.where(corners.dips, -number, number), corners.row, corners.column))
    along = np.empty_like(number)
    along[order] = order[number ^ 1]
    across = (number ^ 1).tolist()
    down = along.tolist()
    places = np.stack([corners.row, corners.column], axis=1)
    rings = list[Ring]()
    is_outer = list[bool]()
    seen = bytearray(len(number))
    for first in number.tolist():
        ring = list[int]()
        at = first
        while not seen[at]:
            other = across[at]
            seen[at] = seen[other] = 1
            ring += [at, other]
            at = down[other]
        if ring:
            rings.append(places[ring])
            is_outer.append(bool(corners.opens[first]))
    return rings, is_outer


def _owners(rings: Sequence[Ring], is_outer: Sequence[bool]) -> list[int]:
    """The number of the outer ring of each: of a hole that of the ring next to it on the left, in its first row."""
    owner = list(range(len(rings)))
    if all(is_outer):
        return owner
    edges = list[tuple[int, int, int, int]]()
    for number, ring in enumerate(rings):
        ends = np.sort(np.stack([ring[1::2, 0], np.roll(ring[:, 0], -1)[1::2]]), axis=0)
        edges += zip(*ends.tolist(), ring[1::2, 1].tolist(), [number] * ends.shape[1], strict=True)
    begins = iter(sorted(edges))
    ends_after = iter(sorted(edges, key=lambda edge: edge[1]))
    passed = list[tuple[int, int]]()  # (column, ring) of the edges beside a row of pixels
    begun = next(begins, None)
    ended = next(ends_after, None)
    for number, ring in enumerate(rings):
        if is_outer[number]:
            continue
        row, column = ring[0].tolist()
        while begun is not None and begun[0] <= row:
            insort(passed, begun[2:])
            begun = next(begins, None)
        while ended is not None and ended[1] <= row:
            del passed[bisect_left(passed, ended[2:])]
            ended = next(ends_after, None)
        owner[number] = owner[passed[bisect_left(passed, (column, -1)) - 1][1]]
    return owner

"""Levels of a slide as pixels that are read tile by tile, with one cache for all slides of the process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from hilum.errors import FormatError
from hilum.values import Array, Deferred, Geometry, Image, SlideLevel, Source

# Tiles of all slides that are kept decoded: windows that overlap read most of them several times.
CACHED_BYTES = 2**28
# What is not on the glass, or was not scanned, is as white as glass.
GLASS = 255
BYTE = np.dtype(np.uint8)
COLOUR = ("R", "G", "B")
# Pixels of the coarser of two levels by which their sides may disagree: writers round down, up or to whole tiles.
ROUNDING = 2.0
MODALITY = "SM"  # slide microscopy, PS3.3 C.7.3.1.1.1


@dataclass(frozen=True)
class TiledLevel:
    """One level of a slide on disk.

    key:       of the file as it is now, and the level: what is cached belongs to it
    shape:     (rows, columns)
    tile:      (rows, columns) of a tile
    read_tile: gives tile (row, column) as (rows, columns, channels), of the last ones what lies within the level;
               it must survive pickling
    """

    key: tuple[Any, ...]
    shape: tuple[int, int]
    tile: tuple[int, int]
    read_tile: Callable[[int, int], Array]
    channels: int = 3
    dtype: np.dtype[Any] = BYTE

    @property
    def pixels(self) -> Deferred:
        """(channels, rows, columns)."""
        return Deferred((self.channels, *self.shape), self.dtype, self.load, self.region)

    def load(self) -> Array:
        """All of it, which may be more than fits into memory."""
        return self.region((slice(None),) * 3)

    def region(self, region: tuple[slice, ...]) -> Array:
        """(channels, rows, columns) of a region."""
        sizes = (self.channels, *self.shape)
        channels, *axes = (slice(*one.indices(n)[:2]) for one, n in zip(region, sizes, strict=True))
        part = np.empty((self.channels, *(max(0, one.stop - one.start) for one in axes)), self.dtype)
        spans = [
            range(one.start // n, -(-one.stop // n)) if one.start < one.stop else range(0)
            for one, n in zip(axes, self.tile, strict=True)
        ]
        for place in product(*spans):
            tile = _cached(self, place)
            inside, target = [], []
            for number, one, n, size in zip(place, axes, self.tile, tile.shape, strict=False):
                low, high = max(one.start, number * n), min(one.stop, number * n + size)
                inside.append(slice(low - number * n, high - number * n))
                target.append(slice(low - one.start, high - one.start))
            part[(slice(None), *target)] = np.moveaxis(tile[tuple(inside)], -1, 0)
        return part[channels]


_tiles: OrderedDict[tuple[Any, ...], Array] = OrderedDict()
_lock = threading.Lock()
_held = 0


def _cached(level: TiledLevel, place: tuple[int, ...]) -> Array:
    """A tile, of those that were read last the same as before."""
    global _held  # noqa: PLW0603 - one bound for all slides of the process
    key = (*level.key, *place)
    with _lock:
        if (tile := _tiles.get(key)) is not None:
            _tiles.move_to_end(key)
            return tile
    tile = level.read_tile(*place)
    with _lock:
        if key not in _tiles:
            _tiles[key] = tile
            _held += tile.nbytes
        while _held > CACHED_BYTES:
            _held -= _tiles.popitem(last=False)[1].nbytes
    return tile


def slide_image(
    levels: Sequence[TiledLevel],
    spacing: tuple[float, float] | None,
    source: Source,
    notes: Sequence[str] = (),
    channels: tuple[str, ...] = COLOUR,
) -> Image:
    """The slide of these levels, in any order.

    spacing: mm of a pixel of the finest level along rows and columns; None where the file states none
    Raises FormatError for levels that are no reductions of one picture.
    """
    ordered = sorted(levels, key=lambda level: level.shape, reverse=True)
    refuse_unlike_levels([level.shape for level in ordered], source.paths[0])
    known = tuple(SlideLevel(level.pixels) for level in ordered)
    shape = known[0].shape
    grid = Geometry.of_pixels(shape) if spacing is None else Geometry.of_spacing(shape, spacing)
    return Image(
        known[0].pixels, grid, modality=MODALITY, channels=channels, notes=tuple(notes), source=source, levels=known
    )


def unscanned_note(share: float) -> tuple[str, ...]:
    """The note on a share of the finest level without pixels: it is as white as glass, and so no tissue."""
    return (f"{share:.1%} of the slide was never scanned, and is taken for glass",) if share > 0 else ()


def refuse_unlike_levels(shapes: Sequence[tuple[int, ...]], where: str) -> None:
    """Raise FormatError where a level, (rows, columns), has other proportions than the first, finest one."""
    rows, columns = shapes[0]
    for one in shapes[1:]:
        factor = max(rows, columns) / max(one)
        if abs(rows / factor - one[0]) > ROUNDING or abs(columns / factor - one[1]) > ROUNDING:
            problem = f"a level of {one[0]} x {one[1]} pixels is no reduction of {rows} x {columns}"
            raise FormatError(problem, where, "Write the slide anew from its finest level")

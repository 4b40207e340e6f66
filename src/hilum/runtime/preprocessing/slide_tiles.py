"""A slide as a bag: the tiles of its tissue one behind the other, read when they are asked for.

A bag is (channels, tiles, rows, columns): a volume whose first axis has no neighbours. Each tile has a place, its row
and column on the grid of tiles, which begins at the first pixel of the slide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hilum.errors import DatasetError, PlanError
from hilum.runtime.preprocessing import coarse_mask
from hilum.transforms import COLOUR, resampling
from hilum.values import Array, Floats, Image, StatedSettings

if TYPE_CHECKING:
    from hilum.runtime.preprocessing.protocol import RegionSource
    from hilum.transforms.intensity import ChannelScale
    from hilum.values.plain_values import PlainValue

# Share of a tile that has to be dyed: of less, glass with a few cells at its edge would be most of many bags.
TISSUE = 0.1
# What lies beyond the edge of a slide is as white as glass.
BEYOND = 255
# Pixels along a side of the smallest tile.
SMALLEST = 8
# The place of a tile that is not there.
ABSENT = -1
# A last row of tiles that would show less of a slide is none.
ROUNDING = 1e-3


@dataclass(frozen=True)
class Tiles:
    """The tiles of which slides become bags: the plan's section "tiles".

    size:  pixels along each side of a tile
    mm:    along a side of such a pixel; of a slide whose finest pixels are longer, those
    count: tiles of a bag that training samples each time
    """

    size: int = 256
    mm: float = 0.0005
    count: int = 64

    def __post_init__(self) -> None:
        if self.size < SMALLEST:
            raise PlanError(f"tiles of {self.size} pixels a side", "tiles.size", f"Give {SMALLEST} or more")
        if not 0 < self.mm < math.inf or self.count < 1:
            problem = f"{self.count} tiles, whose pixels are {self.mm} mm long"
            raise PlanError(problem, "tiles", "Give a length above 0 and 1 tile or more")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(tiles, rows, columns) of a bag of training."""
        return self.count, self.size, self.size

    @property
    def settings(self) -> dict[str, PlainValue]:
        """Plain values for YAML and JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class TileStack:
    """(channels, tiles, rows, columns) of 8 bits: tiles of a slide, read one by one.

    image:  the slide, in the colours that the network knows
    places: (tiles, 2) row and column of each on the grid of tiles
    sides:  pixels of the finest level that a tile is long, per axis
    size:   pixels along a side of a tile
    """

    image: Image
    places: NDArray[np.int64]
    sides: tuple[float, float]
    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, tiles, rows, columns)."""
        return len(COLOUR), len(self.places), self.size, self.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """8 bits, as scanners have them."""
        return np.dtype(np.uint8)

    @property
    def corners(self) -> NDArray[np.int64]:
        """(tiles, 4) first row and column, and those behind the last, in pixels of the finest level."""
        shape = self.image.geometry.shape
        low, high = (np.rint((self.places + one) * self.sides).astype(np.int64) for one in (0, 1))
        return np.concatenate([low, np.minimum(high, shape)], axis=1)

    @cached_property
    def _level(self) -> tuple[Image, Floats]:
        """The coarsest level that is fine enough, and pixels of it along the sides of a tile."""
        number = self.image.level_within(min(self.sides) / self.size)
        picture = self.image.level(number)
        return picture, np.asarray(self.sides) * picture.geometry.shape / self.image.geometry.shape

    def __getitem__(self, region: tuple[slice, ...]) -> Array:
        channels, which, rows, columns = region
        tiles = [self._read(place) for place in self.places[which]]
        stacked = np.stack(tiles, axis=1) if tiles else np.empty((len(COLOUR), 0, self.size, self.size), np.uint8)
        return stacked[channels, :, rows, columns]

    def _read(self, place: NDArray[np.int64]) -> Array:
        """(channels, rows, columns) of one tile."""
        picture, sides = self._level
        size = np.rint(sides).astype(int)
        start = np.rint(place * sides).astype(int)
        stop = np.minimum(start + size, picture.geometry.shape)
        inside = tuple(slice(int(low), int(high)) for low, high in zip(start, stop, strict=True))
        part = np.full((len(COLOUR), *size), BEYOND, np.uint8)
        part[(slice(None), *(slice(0, int(n)) for n in stop - start))] = picture.pixels[(slice(None), *inside)]
        scaled = resampling.resample(part, (self.size, self.size))
        return np.asarray(scaled if scaled.dtype == np.uint8 else np.rint(scaled).clip(0, BEYOND).astype(np.uint8))


@dataclass(frozen=True, eq=False)
class Bag:
    """(channels, tiles, rows, columns) as the network sees them, region by region.

    stack:   of 8 bits
    scales:  of each channel
    places:  (tiles, 2)
    corners: (tiles, 4) first row and column, and those behind the last, in pixels of the slide's finest level; without
             rows where nobody asks
    """

    stack: RegionSource
    scales: Sequence[ChannelScale]
    places: NDArray[np.int64]
    corners: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 4), np.int64))

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, tiles, rows, columns)."""
        return tuple(self.stack.shape)

    def __getitem__(self, region: tuple[slice, ...]) -> NDArray[np.float32]:
        values = np.array(self.stack[region], dtype=np.float32)
        for scale, channel in zip(self.scales[region[0]], values, strict=True):
            scale.apply_in_place(channel, None)
        return values

    def tile_batch(self, which: Sequence[int]) -> NDArray[np.float32]:
        """(n, channels, rows, columns) of some tiles, each read by itself."""
        every = slice(None)
        return np.concatenate([self[every, n : n + 1, every, every] for n in which], axis=1).swapaxes(0, 1).copy()


def stack_tissue(image: Image, where: str, tiles: Tiles, tissue: str = "otsu") -> TileStack:
    """The tiles of a slide of which a tenth is tissue at least, else those with most; of `tissue` "none" all.

    Raises DatasetError for what is no slide in colours of 8 bits, and for one without tissue; GeometryError where the
    file states no size of its pixels.
    """
    if not image.is_slide or image.channels != COLOUR or image.dtype != np.uint8:
        problem = "is no slide in red, green and blue of 8 bits, and the model answers for tiles of slides"
        raise DatasetError(problem, where, "Give a scanner's file, a DICOM slide, or a tiled TIFF with levels")
    finest = image.stated_spacing
    steps = np.array([tiles.size * max(tiles.mm, *finest) / step for step in finest])
    shape = np.asarray(image.geometry.shape)
    mask = coarse_mask.tissue_of(image, margin=0.0) if tissue == "otsu" else None
    grid = np.ceil(shape / steps - ROUNDING).astype(int).clip(1)
    shares = np.ones(grid) if mask is None else mask.tile_shares(steps, grid)
    places = np.argwhere((shares > 0) & (shares >= min(TISSUE, shares.max())))
    if not len(places):
        raise DatasetError(coarse_mask.NO_TISSUE, where, "Look at it; --set preprocessing.tissue=none takes all of it")
    return TileStack(image, places, (float(steps[0]), float(steps[1])), tiles.size)


def sample_tiles(
    stack: RegionSource, places: NDArray[np.int64], count: int, rng: np.random.Generator
) -> tuple[Array, NDArray[np.int64]]:
    """So many tiles of a bag, none twice, as (channels, count, rows, columns), and their places.

    Of fewer the last are 0, and absent.
    """
    chosen = np.sort(rng.permutation(len(places))[:count])
    every = slice(None)
    sampled = np.concatenate([np.asarray(stack[every, n : n + 1, every, every]) for n in chosen.tolist()], axis=1)
    lacking = count - len(chosen)
    padded = np.pad(sampled, [(0, 0), (0, lacking), (0, 0), (0, 0)])
    return padded, np.pad(places[chosen], [(0, lacking), (0, 0)], constant_values=ABSENT)


def from_settings(settings: StatedSettings | None) -> Tiles | None:
    """Read a model's record; None of a model that sees no bags."""
    return None if settings is None else Tiles(**settings)

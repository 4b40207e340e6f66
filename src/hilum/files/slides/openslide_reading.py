"""Slides in the scanners' own formats, read by OpenSlide (extra `wsi`; LGPL 2.1, linked)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hilum import installation
from hilum.errors import FormatError, UsageError
from hilum.files.format_options import Format, ReadOptions
from hilum.files.slides import tiled_levels
from hilum.files.slides.tiled_levels import GLASS, TiledLevel
from hilum.lazy import openslide
from hilum.values import Array, Image, Source

# Pixels along a side that are asked for at once: the library keeps the scanner's own tiles to itself.
TILE = 512
MPP_COLUMNS, MPP_ROWS = "openslide.mpp-x", "openslide.mpp-y"


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """The slide in a file of a scanner. Raises FormatError for one that OpenSlide cannot open."""
    del options
    stat = path.stat()
    key = (str(path.absolute()), stat.st_mtime_ns, stat.st_size)
    slide = _opened(key)
    sizes = [(rows, columns) for columns, rows in slide.level_dimensions]
    levels = [
        TiledLevel((*key, number), size, (TILE, TILE), partial(_read_tile, key, number))
        for number, size in enumerate(sizes)
    ]
    stated = [_positive(slide.properties.get(name)) for name in (MPP_ROWS, MPP_COLUMNS)]
    rows, columns = stated
    spacing = None if rows is None or columns is None else (rows / 1000, columns / 1000)
    bounds = [_positive(slide.properties.get(f"openslide.bounds-{name}")) for name in ("height", "width")]
    scanned = math.prod(n or size for n, size in zip(bounds, sizes[0], strict=True)) / math.prod(sizes[0])
    notes = tiled_levels.unscanned_note(1 - scanned)
    return {path.stem: tiled_levels.slide_image(levels, spacing, Source("slide", (str(path),)), notes)}


def _positive(text: str | None) -> float | None:
    """A number above 0 that a property states, else None."""
    try:
        value = float(text or 0)
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


@lru_cache(maxsize=4)
def _opened(key: tuple[Any, ...]) -> Any:
    """The slide of a file as it is now."""
    if find_spec("openslide") is None:
        remedy = installation.install_line("wsi")
        raise UsageError("OpenSlide, which reads this format, is not installed", key[0], remedy)
    try:
        return openslide.OpenSlide(key[0])
    except openslide.OpenSlideError as error:
        raise FormatError(f"OpenSlide cannot open it ({error})", key[0], "Get the file again") from error


def _read_tile(key: tuple[Any, ...], number: int, row: int, column: int) -> Array:
    """(rows, columns, 3) of a square of a level; what was never scanned is as white as glass."""
    slide = _opened(key)
    columns, rows = slide.level_dimensions[number]
    factor = slide.level_downsamples[number]
    size = (min(TILE, columns - column * TILE), min(TILE, rows - row * TILE))
    start = (round(column * TILE * factor), round(row * TILE * factor))  # in pixels of level 0
    try:
        pixels = np.asarray(slide.read_region(start, number, size))
    except Exception as error:
        problem = f"pixels of level {number} cannot be read ({error})"
        raise FormatError(problem, key[0], "Get the file again") from error
    return np.where(pixels[..., 3:] > 0, pixels[..., :3], np.uint8(GLASS))


FORMAT = Format("slide", read)

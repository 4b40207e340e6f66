"""Tiled TIFF files as slides: levels in reduced pages or SubIFDs, tiles decoded one by one.

A reduced page says so in NewSubfileType (TIFF 6.0, section 8). What a level claims is checked before it is believed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from hilum.errors import FormatError
from hilum.files import _picture_streams, _tiff_colours
from hilum.files.slides import tiled_levels
from hilum.files.slides.tiled_levels import COLOUR, GLASS, TiledLevel
from hilum.values import Array, Image, Source

# Of more pixels no step should hold a tiled picture as a whole, though it has no levels.
LARGE_PIXELS = 100_000_000
# mm a pixel: resolution tags that say more are about paper, as those of any plain TIFF.
LARGEST_PIXEL = 0.01
UNIT_MM = {2: 25.4, 3: 10.0}  # inch, centimetre
APERIO = re.compile(r"\bMPP\s*=\s*([0-9.]+)")
GET_AGAIN = "Get the file again"
AXES = ("YX", "YXS")
PHOTOMETRIC = tifffile.PHOTOMETRIC


def level_pages(file: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """The pages that are levels of a slide, the finest first; empty where the file is no slide.

    A slide is a tiled picture with reduced pages, or of more than `LARGE_PIXELS`; grey, or red, green and blue.
    """
    first = file.series[0].keyframe
    if first.axes not in AXES or not first.is_tiled or first.dtype is None or len(file.series[0]) != 1:
        return []
    if first.photometric not in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR):
        return []
    if (first.samplesperpixel if first.axes == "YXS" else 1) not in (1, 3):
        return []
    further = [page for page in [*_sub_pages(first), *list(file.pages)[1:]] if _is_reduced(page, first)]
    pages = [first, *sorted(further, key=lambda page: -page.imagelength * page.imagewidth)]
    large = first.imagelength * first.imagewidth > LARGE_PIXELS
    return pages if len(pages) > 1 or large else []


def _sub_pages(first: tifffile.TiffPage) -> list[Any]:
    return list(first.pages or ()) if first.subifds else []


def _is_reduced(page: Any, first: tifffile.TiffPage) -> bool:
    """Whether a page is a smaller level: thumbnails and labels of scanners are in strips, or of another shape."""
    page = page.aspage() if isinstance(page, tifffile.TiffFrame) else page
    alike = page.is_tiled and page.axes == first.axes and page.dtype == first.dtype
    return alike and page.imagewidth < first.imagewidth and (page.is_reduced or _says_nothing(page))


def _says_nothing(page: tifffile.TiffPage) -> bool:
    """Whether a page is not said to be a label or an overview (Aperio writes levels without NewSubfileType)."""
    return not page.is_reduced and not re.match(r"(label|macro)", str(page.description), re.IGNORECASE)


def read_slide(
    pages: Sequence[tifffile.TiffPage], path: Path, spacing: tuple[float, float] | None, notes: Sequence[str] = ()
) -> Image:
    """The slide of these pages. spacing: mm as OME states them; else what the tags say of so small pixels.

    Raises FormatError for levels that disagree or are cut short.
    """
    stat = path.stat()
    key = (str(path.absolute()), stat.st_mtime_ns, stat.st_size)
    for page in pages:
        ends = [at + count for at, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if max(ends, default=0) > stat.st_size or len(ends) < math.prod(page.chunked):
            raise FormatError("is cut short", str(path), GET_AGAIN)
    first = pages[0]
    levels = [
        TiledLevel(
            (*key, number),
            (page.imagelength, page.imagewidth),
            (page.tilelength, page.tilewidth),
            partial(_read_tile, key, number),
            channels=page.samplesperpixel,
            dtype=np.dtype(page.dtype),
        )
        for number, page in enumerate(pages)
    ]
    names = COLOUR if first.samplesperpixel == len(COLOUR) else ("0",)
    source = Source("slide", (str(path),))
    notes = (*notes, *_tiff_colours.settle(first))
    if names == COLOUR:  # a tile without bytes is the background of any other map
        empty = sum(not count for count in first.databytecounts) / len(first.databytecounts)
        notes = (*notes, *tiled_levels.unscanned_note(empty))
    return tiled_levels.slide_image(levels, spacing or stated_spacing(first), source, notes, names)


def stated_spacing(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """mm of a pixel along rows and columns, by Aperio's description or resolution tags too fine for paper."""
    if (found := APERIO.search(str(page.description))) and 0 < float(found[1]) / 1000 < LARGEST_PIXEL:
        return (float(found[1]) / 1000,) * 2
    unit = UNIT_MM.get(int(page.tags.valueof(296, 2)))
    stated = [page.tags.valueof(code) for code in (283, 282)]
    if unit is None or not all(one and one[0] and one[1] for one in stated):
        return None
    rows, columns = (unit * one[1] / one[0] for one in stated)
    return (rows, columns) if max(rows, columns) < LARGEST_PIXEL else None


@lru_cache(maxsize=4)
def _pages_of(key: tuple[Any, ...]) -> list[tifffile.TiffPage]:
    """The levels of a file as it is now; nothing stays open."""
    with tifffile.TiffFile(key[0], is_ndtiff=False, is_mmstack=False) as file:
        pages = level_pages(file)
        for page in pages:
            _tiff_colours.settle(page)
            _ = page.decode, page.jpegtables  # found while the file is open
        return pages


def _read_tile(key: tuple[Any, ...], number: int, row: int, column: int) -> Array:
    """(rows, columns, channels) of one tile. Raises FormatError for a damaged one, or one of another size."""
    page, path = _pages_of(key)[number], key[0]
    index = row * -(-page.imagewidth // page.tilewidth) + column
    shape = (
        min(page.tilelength, page.imagelength - row * page.tilelength),
        min(page.tilewidth, page.imagewidth - column * page.tilewidth),
        page.samplesperpixel,
    )
    at, count = page.dataoffsets[index], page.databytecounts[index]
    if not count:  # never scanned, or a label map's background
        return np.full(shape, GLASS if page.samplesperpixel == len(COLOUR) else 0, page.dtype)
    with Path(path).open("rb") as file:
        file.seek(at)
        stream = file.read(count)
    where = f"tile {row}, {column} of level {number}"
    try:
        _refuse_other_size(stream, page)
        decoded, *_ = page.decode(stream, index, jpegtables=page.jpegtables)
    except Exception as error:
        raise FormatError(f"{where} cannot be decoded ({error})", path, GET_AGAIN) from error
    if decoded is None:
        raise FormatError(f"{where} holds nothing", path, GET_AGAIN)
    return np.ascontiguousarray(decoded[0, : shape[0], : shape[1]])


def _refuse_other_size(stream: bytes, page: tifffile.TiffPage) -> None:
    """Raise ValueError for a coded picture that claims more pixels than a tile has, before it is decoded."""
    if stream.startswith((_picture_streams.JPEG, _picture_streams.CODESTREAM, _picture_streams.JP2)):
        size = _picture_streams.stated_size(stream)
        if size.rows > page.tilelength or size.columns > page.tilewidth:
            raise ValueError(f"it claims {size.rows} x {size.columns} pixels")

"""Whole slide microscopy images of DICOM, a pyramid of tiled objects, read by highdicom. PS3.3 A.32.8"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import highdicom
import numpy as np

from hilum.errors import FormatError
from hilum.files.dicom import tags
from hilum.files.dicom.elements import DicomDataset
from hilum.files.dicom.header_reading import Header
from hilum.files.dicom.uids import JPEG_2000
from hilum.files.slides import tiled_levels
from hilum.files.slides.tiled_levels import TiledLevel
from hilum.values import Array, Image, Source

# The third value of the image type of what is no level: PS3.3 C.8.12.4.1.1
NO_LEVELS = ("LABEL", "OVERVIEW", "THUMBNAIL", "LOCALIZER")
SUBSAMPLED = "YBR_FULL_422"
REMEDY = "Export the slide with one focal plane and one optical path"


def read_slide(heads: Sequence[Header], where: str) -> Image:
    """The slide whose levels are the objects of a series, without its label and overview.

    Raises FormatError for several focal planes, for more than one object a level, and for levels that disagree.
    """
    levels: dict[tuple[int, int], tuple[TiledLevel, DicomDataset, Path]] = {}
    for head in heads:
        dataset = head.dataset
        if set(tags.words(dataset, "ImageType")) & set(NO_LEVELS):
            continue
        if (tags.whole_number(dataset, "TotalPixelMatrixFocalPlanes", head.where) or 1) > 1:
            raise FormatError("has several focal planes", head.where, REMEDY)
        level = _level(head)
        if level.shape in levels:
            raise FormatError(f"has two objects of {level.shape[0]} x {level.shape[1]} pixels", where, REMEDY)
        levels[level.shape] = (level, dataset, head.path)
    if not levels:
        raise FormatError("holds the label or overview of a slide, and none of its levels", where, "Give the slide")
    ordered = [levels[shape] for shape in sorted(levels, reverse=True)]
    spacing = _spacing(ordered[0][1], str(ordered[0][2]))
    source = Source("slide", tuple(str(path) for *_, path in ordered))
    return tiled_levels.slide_image([level for level, *_ in ordered], spacing, source)


def _level(head: Header) -> TiledLevel:
    numbers = [
        tags.whole_number(head.dataset, name, head.where)
        for name in ("TotalPixelMatrixRows", "TotalPixelMatrixColumns", "Rows", "Columns")
    ]
    rows, columns, tile_rows, tile_columns = (number or 0 for number in numbers)
    if min(rows, columns, tile_rows, tile_columns) < 1:
        raise FormatError("does not state the size of its pixel matrix", head.where, "Get the file again")
    if tags.whole_number(head.dataset, "SamplesPerPixel", head.where) != 3:
        raise FormatError("is no slide in colour", head.where, "Convert it to a TIFF of one channel a file")
    if head.transfer_syntax in JPEG_2000 and tags.text(head.dataset, "PhotometricInterpretation") == SUBSAMPLED:
        # PS3.5 8.2.4; the dicomizer of orthanc-wsi 1.1 says so of streams that are red, green and blue
        problem = f"states {SUBSAMPLED}, which no JPEG 2000 stream holds: its colours cannot be known"
        raise FormatError(problem, head.where, "Write the slide anew, uncompressed or as JPEG")
    stat = head.path.stat()
    key = (str(head.path.absolute()), stat.st_mtime_ns, stat.st_size)
    return TiledLevel(
        key, (rows, columns), (tile_rows, tile_columns), partial(_read_tile, key, tile_rows, tile_columns)
    )


def _spacing(dataset: DicomDataset, where: str) -> tuple[float, float] | None:
    """mm of a pixel along rows and columns; None where no functional group states it."""
    shared = tags.first_item(dataset, "SharedFunctionalGroupsSequence")
    measures = None if shared is None else tags.first_item(shared, "PixelMeasuresSequence")
    stated = None if measures is None else tags.numbers(measures, "PixelSpacing", where, 2)
    return (stated[0], stated[1]) if stated is not None and min(stated) > 0 else None


@lru_cache(maxsize=16)
def _opened(key: tuple[Any, ...]) -> highdicom.Image:
    """The object as it is now; its frames are read one by one."""
    return highdicom.imread(key[0], lazy_frame_retrieval=True)


def _read_tile(key: tuple[Any, ...], rows: int, columns: int, row: int, column: int) -> Array:
    """(rows, columns, 3) of one tile of the pixel matrix."""
    try:
        image = _opened(key)
        pixels = image.get_total_pixel_matrix(
            row_start=row * rows,
            row_end=min((row + 1) * rows, int(image.TotalPixelMatrixRows)),
            column_start=column * columns,
            column_end=min((column + 1) * columns, int(image.TotalPixelMatrixColumns)),
            dtype=np.uint8,
            apply_icc_profile=False,
            as_indices=True,
        )
    except Exception as error:
        problem = f"tile {row}, {column} cannot be decoded ({error})"
        raise FormatError(problem, key[0], "Get the file again") from error
    return np.asarray(pixels)

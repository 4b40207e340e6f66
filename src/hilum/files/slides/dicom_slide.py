"""Whole slide microscopy images of DICOM, a pyramid of tiled objects, read by highdicom. PS3.3 A.32.8"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import highdicom
import numpy as np
from numpy.typing import NDArray

from hilum.errors import FormatError
from hilum.files.dicom import tags
from hilum.files.dicom.elements import DicomDataset
from hilum.files.dicom.header_reading import Header
from hilum.files.dicom.reading import colour_spaces, concatenations, pixel_decoding, pixel_layout, stream_colours
from hilum.files.dicom.reading.pixel_layout import PixelLayout
from hilum.files.dicom.uids import JPEG_2000
from hilum.files.slides import tiled_levels
from hilum.files.slides.tiled_levels import GLASS, TiledLevel
from hilum.values import Array, Image, Source

# The third value of the image type of what is no level: PS3.3 C.8.12.4.1.1
NO_LEVELS = ("LABEL", "OVERVIEW", "THUMBNAIL", "LOCALIZER")
SUBSAMPLED = "YBR_FULL_422"
REMEDY = "Export the slide with one focal plane and one optical path"


def read_slide(heads: Sequence[Header], where: str) -> Image:
    """The slide whose levels are the objects of a series, without its label and overview.

    Raises FormatError for several focal planes or optical paths, for more than one object a level, for an object of
    which parts or tiles lack, and for levels that disagree.
    """
    levels: dict[tuple[int, int], tuple[TiledLevel, TilePlaces, list[Header]]] = {}
    left_out = list[str]()
    for parts in concatenations.join_parts(heads):
        head = parts[0]
        if kinds := set(tags.words(head.dataset, "ImageType")) & set(NO_LEVELS):
            left_out += [kind.lower() for kind in NO_LEVELS if kind in kinds]
            continue
        if (tags.whole_number(head.dataset, "TotalPixelMatrixFocalPlanes", head.where) or 1) > 1:
            raise FormatError("has several focal planes", head.where, REMEDY)
        level, places = _level(parts)
        if level.shape in levels:
            raise FormatError(f"has two objects of {level.shape[0]} x {level.shape[1]} pixels", where, REMEDY)
        levels[level.shape] = (level, places, parts)
    if not levels:
        raise FormatError("holds the label or overview of a slide, and none of its levels", where, "Give the slide")
    ordered = [levels[shape] for shape in sorted(levels, reverse=True)]
    _, finest_places, [finest, *_] = ordered[0]
    spacing = _spacing(finest.dataset, finest.where)
    paths = [str(head.path) for *_, parts in ordered for head in parts]
    notes = (
        *tiled_levels.unscanned_note(finest_places.missing_share),
        *stream_colours.contradiction_notes(finest, finest_places.layout),
    )
    notes = (*notes, f"its {', '.join(sorted(left_out))} was left out") if left_out else notes
    return tiled_levels.slide_image([level for level, *_ in ordered], spacing, Source("slide", tuple(paths)), notes)


@dataclass(frozen=True, eq=False)
class TilePlaces:
    """The places of all frames of an object in its pixel matrix.

    parts:   of the object: the file as it is now, and how many frames are before those of this one
    shape:   (rows, columns) of the matrix
    tile:    (rows, columns) of a frame
    layout:  of a frame's pixels
    corners: (frames, 2) row and column of each frame's first pixel, from 0; None where they lie tile after tile
    absent:  colour of what no frame covers
    """

    parts: tuple[tuple[tuple[Any, ...], int], ...]
    shape: tuple[int, int]
    tile: tuple[int, int]
    layout: PixelLayout
    corners: NDArray[np.intp] | None = None
    absent: tuple[int, int, int] = (GLASS,) * 3

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles that cover the matrix, along rows and columns."""
        return -(-self.shape[0] // self.tile[0]), -(-self.shape[1] // self.tile[1])

    @property
    def missing_share(self) -> float:
        """The share of tiles that no frame covers."""
        down, across = self.tiles
        return 0.0 if self.corners is None else max(0.0, 1 - len(self.corners) / (down * across))

    def frames_in_tile(self, row: int, column: int) -> list[tuple[int, int, int]]:
        """(number of the frame from 0, row and column of its first pixel) of those that lie in a tile."""
        top, left = row * self.tile[0], column * self.tile[1]
        if self.corners is None:
            return [(row * self.tiles[1] + column, top, left)]
        apart = np.abs(self.corners - (top, left))
        numbers = np.flatnonzero((apart < self.tile).all(axis=1)).tolist()
        return [(number, *self.corners[number].tolist()) for number in numbers]

    def read_frame(self, number: int) -> Array:
        """(rows, columns, 3) of a frame, counted through all parts from 0."""
        key, before = next((key, before) for key, before in reversed(self.parts) if before <= number)
        stored = _opened(key).get_raw_frame(number - before, as_index=True)
        return pixel_decoding.decode_colour_frame(stored, self.layout, number - before, key[0])


def _level(parts: Sequence[Header]) -> tuple[TiledLevel, TilePlaces]:
    head = parts[0]
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
    layout = pixel_layout.layout_from_header(head.dataset, head.where)
    if layout.dtype != np.uint8:
        raise FormatError(f"is a slide with {layout.allocated} bits a sample", head.where, "Convert it to 8 bits")
    places = _tile_places(parts, (rows, columns), layout)
    key = tuple(key for key, _ in places.parts)
    return TiledLevel(key, (rows, columns), (tile_rows, tile_columns), partial(_read_tile, places)), places


def _tile_places(parts: Sequence[Header], shape: tuple[int, int], layout: PixelLayout) -> TilePlaces:
    """The places of an object's frames, as it is tiled in full or states them; PS3.3 C.7.6.17.3.

    Raises FormatError where frames and tiles are not as many, and for a frame without its place.
    """
    head, frames = parts[0], 0
    keys = []
    for part in parts:
        stat = part.path.stat()
        keys.append(((str(part.path.absolute()), stat.st_mtime_ns, stat.st_size), frames))
        frames += concatenations.frame_count(part)
    corners = _stated_corners(parts, frames)
    lab = tags.numbers(head.dataset, "RecommendedAbsentPixelCIELabValue", head.where, 3)
    absent = (GLASS,) * 3 if lab is None else colour_spaces.rgb_of_cielab(lab)
    places = TilePlaces(tuple(keys), shape, (layout.rows, layout.columns), layout, corners, absent)
    needed = places.tiles[0] * places.tiles[1]
    if corners is None and frames < needed:
        number = tags.whole_number(head.dataset, "InConcatenationNumber", head.where)
        part_of = "" if number is None else f"is part {number} of a concatenation, and "
        problem = f"{part_of}holds {frames} of the {needed} tiles of its pixel matrix"
        remedy = "Get the file again" if number is None else concatenations.TOGETHER
        raise FormatError(problem, head.where, remedy)
    distinct = needed if corners is None else len(np.unique(corners, axis=0))
    if frames > distinct:
        raise FormatError(f"holds {frames} frames for {distinct} tiles", head.where, REMEDY)
    return places


def _stated_corners(parts: Sequence[Header], frames: int) -> NDArray[np.intp] | None:
    """(frames, 2) row and column from 0 of each frame; None where the object is tiled in full."""
    kind = tags.text(parts[0].dataset, "DimensionOrganizationType")
    groups = [(head, item) for head in parts for item in tags.items(head.dataset, "PerFrameFunctionalGroupsSequence")]
    stated = [(head, tags.first_item(item, "PlanePositionSlideSequence")) for head, item in groups]
    if kind == "TILED_FULL" or (kind != "TILED_SPARSE" and not any(place is not None for _, place in stated)):
        return None
    corners = []
    for head, place in stated:
        names = [f"{axis}PositionInTotalImagePixelMatrix" for axis in ("Row", "Column")]
        numbers = [None if place is None else tags.whole_number(place, name, head.where) for name in names]
        if any(number is None for number in numbers):
            raise FormatError("has a frame that does not state its place in the slide", head.where, "Export it again")
        corners.append([number - 1 for number in numbers if number is not None])
    if len(corners) != frames:
        problem = f"states the places of {len(corners)} frames and has {frames}"
        raise FormatError(problem, parts[0].where, "Export it again")
    return np.array(corners, dtype=np.intp).reshape(-1, 2)


def _spacing(dataset: DicomDataset, where: str) -> tuple[float, float] | None:
    """mm of a pixel along rows and columns; None where no functional group states it."""
    shared = tags.first_item(dataset, "SharedFunctionalGroupsSequence")
    measures = None if shared is None else tags.first_item(shared, "PixelMeasuresSequence")
    stated = None if measures is None else tags.numbers(measures, "PixelSpacing", where, 2)
    return (stated[0], stated[1]) if stated is not None and min(stated) > 0 else None


@lru_cache(maxsize=16)
def _opened(key: tuple[Any, ...]) -> highdicom.Image:
    """The object as it is now; its frames are read one by one."""
    # What it logs of an object without a colour profile is no fault of the reader's.
    logging.getLogger("highdicom").setLevel(logging.ERROR)
    return highdicom.imread(key[0], lazy_frame_retrieval=True)


def _read_tile(places: TilePlaces, row: int, column: int) -> Array:
    """(rows, columns, 3) of one tile of the pixel matrix; where no frame is, the colour of what is absent."""
    (rows, columns), (top, left) = places.tile, (row * places.tile[0], column * places.tile[1])
    shape = min(rows, places.shape[0] - top), min(columns, places.shape[1] - left)
    pixels = np.full((*shape, 3), places.absent, np.uint8)
    try:
        for number, frame_top, frame_left in places.frames_in_tile(row, column):
            frame = places.read_frame(number)
            low = max(top, frame_top), max(left, frame_left)
            high = min(top + shape[0], frame_top + rows), min(left + shape[1], frame_left + columns)
            if min(high[0] - low[0], high[1] - low[1]) > 0:
                target = pixels[low[0] - top : high[0] - top, low[1] - left : high[1] - left]
                target[...] = frame[
                    low[0] - frame_top : high[0] - frame_top, low[1] - frame_left : high[1] - frame_left
                ]
    except Exception as error:
        problem = f"tile {row}, {column} cannot be decoded ({error})"
        raise FormatError(problem, places.parts[0][0][0], "Get the file again") from error
    return pixels

"""Siemens mosaics: one file holds a volume as tiles, and its geometry stands in a private header (CSA2)."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from isocenter.errors import FormatError, GeometryError
from isocenter.files.dicom.geometry import Plane
from isocenter.files.dicom.tags import text, words

CSA_CREATOR, CSA_IMAGE_HEADER = "SIEMENS CSA HEADER", 0x10  # (0029,xx10), also after the block was moved
MR_CREATOR, NUMBER_OF_IMAGES = "SIEMENS MR HEADER", 0x0A  # (0019,xx0A)
UIH_GRID = (0x0065, 0x1050)  # number of images in the grid
REMEDY = "Export the series again with private attributes, or convert it at the scanner"
MOST_TAGS, MOST_ITEMS, LONGEST_ITEM = 1000, 10_000, 1 << 24  # more is damage


@dataclass(frozen=True)
class Mosaic:
    """How the tiles of one file lie.

    side:   tiles along each side of the square
    tiles:  how many of them are slices, row by row
    normal: (3,) LPS direction from one slice to the next
    """

    side: int
    tiles: int
    normal: tuple[float, ...]

    def tile_shape(self, rows: int, columns: int) -> tuple[int, int]:
        return rows // self.side, columns // self.side

    def planes(self, whole: Plane, rows: int, columns: int, step: float) -> list[Plane]:
        """The plane of each tile.

        The file's position belongs to the mosaic seen as one huge slice with the same centre as a tile's, so the
        first voxel of a tile lies half the difference in size further in.
        """
        tile_rows, tile_columns = self.tile_shape(rows, columns)
        first = (
            np.asarray(whole.position)
            + whole.along_row * whole.spacing[1] * (columns - tile_columns) / 2
            + whole.along_column * whole.spacing[0] * (rows - tile_rows) / 2
        )
        return [whole.at(first + np.asarray(self.normal) * step * n) for n in range(self.tiles)]


def is_mosaic(dataset: Dataset) -> bool:
    return "MOSAIC" in words(dataset, "ImageType")


def refuse_grid(dataset: Dataset, where: str) -> None:
    """Tiles in private schemes that have no reader here: read as one slice they would lie anywhere.

    Raises FormatError for United Imaging's grids, and for a mosaic in an object of several frames.
    """
    if is_mosaic(dataset) and text(dataset, "NumberOfFrames") not in ("", "0", "1"):
        raise FormatError("is a mosaic of several frames, which is not taken apart here", where, REMEDY)
    if UIH_GRID in dataset and text(dataset, "Manufacturer").startswith("U"):
        raise FormatError("is a United Imaging grid of slices, which is not taken apart here", where, REMEDY)


def mosaic_of(dataset: Dataset, plane: Plane, rows: int, columns: int, where: str) -> Mosaic:
    """How the tiles lie.

    Raises FormatError or GeometryError where the private header does not say, or says nonsense.
    """
    csa = _csa(dataset, where)
    tiles = _tiles(dataset, csa)
    if tiles is None:
        raise FormatError("is a Siemens mosaic whose number of tiles is not told", where, REMEDY)
    side = math.ceil(math.sqrt(tiles))
    if tiles < 1 or rows % side or columns % side:
        raise FormatError(f"is a mosaic of {tiles} tiles that do not fit {rows} x {columns} voxels", where, REMEDY)
    normal = np.array([_number(told) for told in csa.get("SliceNormalVector", ())[:3]])
    if normal.shape != (3,) or abs(abs(normal @ plane.normal) - 1) > 1e-2:  # NaN counts as absent
        if tiles > 1 or normal.shape == (3,):
            raise GeometryError(
                "is a Siemens mosaic that does not tell in which direction its slices follow (SliceNormalVector in "
                "(0029,xx10))",
                where,
                REMEDY,
            )
        normal = plane.normal
    return Mosaic(side, tiles, tuple(float(x) for x in normal))


def _tiles(dataset: Dataset, csa: Mapping[str, tuple[str, ...]]) -> int | None:
    for told in csa.get("NumberOfImagesInMosaic", ())[:1]:
        number = _number(told)
        if not math.isnan(number):
            return int(number)
    value = _private(dataset, 0x0019, MR_CREATOR, NUMBER_OF_IMAGES)
    if isinstance(value, bytes) and len(value) == 2:  # read without its VR, which is US
        return int(struct.unpack("<H", value)[0])
    return int(value) if isinstance(value, int) else None


def _csa(dataset: Dataset, where: str) -> dict[str, tuple[str, ...]]:
    """The private header as {name: values}; empty where there is none."""
    raw = _private(dataset, 0x0029, CSA_CREATOR, CSA_IMAGE_HEADER)
    if not isinstance(raw, bytes) or len(raw) < 16:
        return {}
    try:
        return _parsed(raw)
    except (struct.error, ValueError) as error:
        raise FormatError(f"the private header (0029,xx10) is damaged ({error})", where, REMEDY) from error


def _parsed(raw: bytes) -> dict[str, tuple[str, ...]]:
    """CSA1 and CSA2: a count of tags, then each tag's name and its items as text. nipy.org/nibabel/dicom/siemens_csa"""
    second = raw[:4] == b"SV10"
    at = 8 if second else 0
    count, _ = struct.unpack_from("<II", raw, at)
    at += 8
    if not 0 < count <= MOST_TAGS:
        raise ValueError(f"{count} tags")
    found: dict[str, tuple[str, ...]] = {}
    offset: int | None = None
    for _ in range(count):
        name, _, _, _, items, _ = struct.unpack_from("<64si4s3i", raw, at)
        at += 84
        if not 0 <= items <= MOST_ITEMS:
            raise ValueError(f"{items} items")
        offset = items if offset is None else offset
        values = []
        for _ in range(items):
            lengths = struct.unpack_from("<4i", raw, at)
            at += 16
            length = lengths[1] if second else lengths[0] - offset  # CSA1 counts from the first tag's items
            if not second and (length < 0 or at + length > len(raw)):
                break
            if not 0 <= length <= LONGEST_ITEM:
                raise ValueError(f"an item of {length} bytes")
            values.append(raw[at : at + length].split(b"\0")[0].decode("latin-1").strip())
            at += -(-length // 4) * 4
        found[name.split(b"\0")[0].decode("latin-1")] = tuple(v for v in values if v)
    return found


def _private(dataset: Dataset, group: int, creator: str, element: int) -> object:
    try:
        return dataset.private_block(group, creator)[element].value
    except KeyError:
        return None


def _number(told: str) -> float:
    try:
        return float(told)
    except ValueError:
        return math.nan

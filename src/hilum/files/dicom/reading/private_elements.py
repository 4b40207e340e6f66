"""Private elements of scanner makers: Siemens mosaics with their CSA header, diffusion weighting, PET factors.

A mosaic is one file that holds a volume as tiles; its geometry stands in a private header (CSA1 or CSA2).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hilum.errors import FormatError, GeometryError
from hilum.files.dicom import elements, tags
from hilum.files.dicom.elements import DicomDataset, Elements
from hilum.files.dicom.slice_geometry import Plane

# (group, creator, element), wherever the creator's block lies.
CSA_IMAGE_HEADER = (0x0029, "SIEMENS CSA HEADER", 0x10)
NUMBER_OF_IMAGES = (0x0019, "SIEMENS MR HEADER", 0x0A)
# Siemens writes the direction in the patient's frame; GE's is in the image's and Philips' is in the standard's place.
SIEMENS_DIRECTION = (0x0019, "SIEMENS MR HEADER", 0x0E)
# GE packs further things above 10^6 into the same number.
B_VALUES = (
    (0x2001, "Philips Imaging DD 001", 0x03),
    (0x0019, "SIEMENS MR HEADER", 0x0C),
    (0x0043, "GEMS_PARM_01", 0x39),
)
# Philips' factors from counts to SUVbw, and to Bq/ml.
PET_FACTOR, ACTIVITY_FACTOR = ((0x7053, "Philips PET Private Group", element) for element in (0x00, 0x09))
# Numbers about the image alone, which may stay where all else of a maker goes.
SAFE = (*B_VALUES, SIEMENS_DIRECTION, NUMBER_OF_IMAGES, PET_FACTOR, ACTIVITY_FACTOR)
GE_PACKING = 1_000_000
SINGLE_FRAME = ("", "0", "1")
UIH_GRID = 0x00651050  # number of images in the grid
REMEDY = "Export the series again with private attributes, or convert it at the scanner"
Direction = tuple[float, ...]
MOST_TAGS, MOST_ITEMS, LONGEST_ITEM, MOST_TILES = 1000, 10_000, 1 << 24, 10_000  # more is damage


@dataclass(frozen=True)
class Mosaic:
    """The arrangement of the tiles in one file.

    side:   tiles along each side of the square
    tiles:  how many of them are slices, row by row
    normal: (3,) LPS direction from one slice to the next
    """

    side: int
    tiles: int
    normal: tuple[float, ...]

    def tile_shape(self, rows: int, columns: int) -> tuple[int, int]:
        """(rows, columns) of one tile of a mosaic of this size."""
        return rows // self.side, columns // self.side

    def planes(self, mosaic: Plane, rows: int, columns: int, step: float) -> list[Plane]:
        """The plane of each tile.

        The file's position belongs to the mosaic seen as one huge slice with the same centre as a tile's, so the
        first voxel of a tile lies half the difference in size further in.
        """
        tile_rows, tile_columns = self.tile_shape(rows, columns)
        first = (
            np.asarray(mosaic.position)
            + mosaic.along_row * mosaic.spacing[1] * (columns - tile_columns) / 2
            + mosaic.along_column * mosaic.spacing[0] * (rows - tile_rows) / 2
        )
        return [mosaic.at(first + np.asarray(self.normal) * step * n) for n in range(self.tiles)]


def is_mosaic(dataset: DicomDataset) -> bool:
    """Whether an image is a Siemens mosaic of slices."""
    return "MOSAIC" in tags.words(dataset, "ImageType")


def refuse_private_tiles(dataset: DicomDataset, where: str) -> None:
    """Refuse tiles in private schemes that cannot be read here; as one slice their position would be wrong.

    Raises FormatError for United Imaging's grids, and for a mosaic in an object of several frames.
    """
    if is_mosaic(dataset) and tags.text(dataset, "NumberOfFrames") not in SINGLE_FRAME:
        raise FormatError("is a mosaic of several frames, which is not supported", where, REMEDY)
    if UIH_GRID in dataset and tags.text(dataset, "Manufacturer").startswith("U"):
        raise FormatError("is a United Imaging grid of slices, which is not supported", where, REMEDY)


def mosaic_of(dataset: DicomDataset, plane: Plane, rows: int, columns: int, where: str) -> Mosaic:
    """The arrangement of the tiles.

    Raises FormatError or GeometryError where the private header does not state it, or is not plausible.
    """
    csa = _csa(dataset, where)
    tiles = _tiles(dataset, csa)
    if tiles is None:
        raise FormatError("is a Siemens mosaic that does not state its number of tiles", where, REMEDY)
    side = math.ceil(math.sqrt(max(tiles, 1)))
    if not 1 <= tiles <= MOST_TILES or rows % side or columns % side:
        raise FormatError(f"is a mosaic of {tiles} tiles that do not fit {rows} x {columns} voxels", where, REMEDY)
    normal = np.array([_number(component) for component in csa.get("SliceNormalVector", ())[:3]])
    if normal.shape != (3,) or abs(abs(normal @ plane.normal) - 1) > 1e-2:  # NaN counts as absent
        if tiles > 1 or normal.shape == (3,):
            raise GeometryError(
                "is a Siemens mosaic that does not state in which direction its slices follow (SliceNormalVector in "
                "(0029,xx10))",
                where,
                REMEDY,
            )
        normal = plane.normal
    return Mosaic(side, tiles, tuple(float(x) for x in normal))


def _tiles(dataset: DicomDataset, csa: Mapping[str, tuple[str, ...]]) -> int | None:
    for stated in csa.get("NumberOfImagesInMosaic", ())[:1]:
        number = _number(stated)
        if not math.isnan(number):
            return int(number)
    match private_value(dataset, *NUMBER_OF_IMAGES):
        case bytes(raw) if len(raw) == 2:  # read without its VR, which is US
            return int(struct.unpack("<H", raw)[0])
        case int(count):
            return int(count)
    return None


def _csa(dataset: DicomDataset, where: str) -> dict[str, tuple[str, ...]]:
    """The private header as {name: values}; empty where there is none."""
    raw = private_value(dataset, *CSA_IMAGE_HEADER)
    if not isinstance(raw, bytes) or len(raw) < 16:
        return {}
    try:
        return _parse_csa(raw)
    except (struct.error, ValueError) as error:
        raise FormatError(f"the private header (0029,xx10) is damaged ({error})", where, REMEDY) from error


def _parse_csa(raw: bytes) -> dict[str, tuple[str, ...]]:
    """CSA1 and CSA2: a count of tags, then each tag's name and its items as text. nipy.org/nibabel/dicom/siemens_csa"""
    second = raw[:4] == b"SV10"
    at = 8 if second else 0
    count, _ = struct.unpack_from("<II", raw, at)
    at += 8
    if not 0 < count <= MOST_TAGS:
        raise ValueError(f"{count} tags")
    values_by_tag: dict[str, tuple[str, ...]] = {}
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
        values_by_tag[name.split(b"\0")[0].decode("latin-1")] = tuple(v for v in values if v)
    return values_by_tag


def b_value(dataset: DicomDataset) -> float | None:
    """The diffusion weighting in s/mm2, from the standard's attribute, else from the maker's."""
    b_value = tags.lenient_number(dataset, "DiffusionBValue")
    if b_value is not None:
        return b_value
    values = next((values for place in B_VALUES if (values := private_numbers(dataset, *place))), ())
    if not values:
        return None
    return values[0] % GE_PACKING if values[0] >= GE_PACKING else values[0]


def gradient_direction(dataset: DicomDataset) -> Direction | None:
    """(3,) LPS unit vector of the gradient; None where it is not stated, zeros where there is no weighting."""
    try:
        standard_direction = tags.numbers(dataset, "DiffusionGradientOrientation", "", 3)
    except FormatError:
        standard_direction = None
    direction = standard_direction or private_numbers(dataset, *SIEMENS_DIRECTION)
    return tuple(round(x, 5) for x in direction) if len(direction) == 3 else None


def private_value(dataset: DicomDataset, group: int, creator: str, element: int) -> Any:
    """The value of a private attribute, None where it is absent. PS3.5 7.8.1"""
    # The library takes long to look there itself.
    claims = dataset.creators if isinstance(dataset, Elements) else elements.creator_tags(dataset.keys())
    of_group = (tag for tag in claims if tag >> 16 == group)
    block = next((tag & 0xFF for tag in of_group if str(dataset[tag].value).strip() == creator), None)
    full_tag = None if block is None else group << 16 | block << 8 | element
    return dataset[full_tag].value if full_tag is not None and full_tag in dataset else None


def private_numbers(dataset: DicomDataset, group: int, creator: str, element: int) -> tuple[float, ...]:
    """The numbers of a private attribute; none where it is absent or unreadable."""
    try:
        content = private_value(dataset, group, creator, element)
        values = () if content is None else tuple(float(v) for v in tags.values_in(content))
    except tags.pydicom_errors():
        return ()
    return values if all(math.isfinite(v) for v in values) else ()


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan

"""Slides laid from real tiles of tissue, for tests and benches: where each tile lies is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pydicom
import tifffile
from numpy.typing import NDArray
from pydicom.uid import generate_uid

GLASS = 242
Pixels = NDArray[np.uint8]


def lay_tiles(size: int, tiles: Mapping[tuple[int, int], Pixels], *, noise: int = 0) -> Pixels:
    """(size, size, 3) of glass with tiles at their places (row, column)."""
    slide = np.full((size, size, 3), GLASS, np.uint8)
    if noise:
        slide -= np.random.default_rng(0).integers(0, noise, slide.shape, dtype=np.uint8)
    for (row, column), tile in tiles.items():
        slide[row : row + tile.shape[0], column : column + tile.shape[1]] = tile
    return slide


def halve(pixels: Pixels) -> Pixels:
    """Each two by two pixels as their mean."""
    rows, columns = (size // 2 * 2 for size in pixels.shape[:2])
    cut = pixels[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2, -1)
    return cut.mean(axis=(1, 3)).round().astype(np.uint8)


def levels_of(pixels: Pixels, count: int) -> list[Pixels]:
    """The picture and its halves."""
    levels = [pixels]
    while len(levels) < count:
        levels.append(halve(levels[-1]))
    return levels


def write_tiff(
    path: Path,
    levels: Iterable[Pixels],
    *,
    mm: float | None = 0.0005,
    tile: int = 256,
    in_pages: bool = False,
    compression: str = "zlib",
) -> Path:
    """A tiled TIFF with its levels as SubIFDs, or as reduced pages."""
    first, *further = levels
    resolution = {} if mm is None else {"resolution": (10 / mm, 10 / mm), "resolutionunit": "CENTIMETER"}
    shared = {"tile": (tile, tile), "photometric": "rgb", "compression": compression, "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(first, subifds=0 if in_pages else len(further), **shared, **resolution)
        for one in further:
            file.write(one, subfiletype=1, **shared)
    return path


def write_dicom(folder: Path, levels: Iterable[Pixels], template: Path, *, mm: float = 0.0005, tile: int = 128) -> Path:
    """A file a level, tiles in the order of PS3.3 C.7.6.17.3 (TILED_FULL); template: any slide in colour."""
    folder.mkdir(exist_ok=True)
    for number, pixels in enumerate(levels):
        dataset = pydicom.dcmread(template)
        rows, columns = pixels.shape[:2]
        down, across = -(-rows // tile), -(-columns // tile)
        padded = np.full((down * tile, across * tile, 3), 255, np.uint8)
        padded[:rows, :columns] = pixels
        dataset.Rows = dataset.Columns = tile
        dataset.NumberOfFrames = down * across
        dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns = rows, columns
        dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [mm * 2**number] * 2
        dataset.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED" if number else "NONE"]
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.PixelData = padded.reshape(down, tile, across, tile, 3).swapaxes(1, 2).tobytes()
        dataset.save_as(folder / f"level_{number}.dcm")
    return folder

"""A slide, or a label map of one, as a BigTIFF whose levels are SubIFDs, written tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

from hilum.files.slides.tiled_levels import COLOUR
from hilum.values import Array, Deferred, Image

# Pixels along a side of a tile; a multiple of 16, TIFF 6.0, section 15.
TILE = 256
CM = 10.0


def write_levels(image: Image, path: Path) -> None:
    """Write all levels of a slide; mm a pixel in the resolution tags. A row of tiles is held at a time."""
    spacing = image.spacing
    resolution = None if spacing is None else (CM / spacing[1], CM / spacing[0])
    colours = "rgb" if image.channels == COLOUR else "minisblack"
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for number, level in enumerate(image.levels):
            channels, rows, columns = level.pixels.shape
            file.write(
                _tiles(level.pixels),
                shape=(rows, columns, channels) if channels > 1 else (rows, columns),
                dtype=level.pixels.dtype,
                tile=(TILE, TILE),
                photometric=colours,
                compression="zlib",
                maxworkers=1,
                metadata=None,
                subifds=len(image.levels) - 1 if number == 0 else None,
                subfiletype=int(number > 0),
                resolution=resolution if number == 0 else None,
                resolutionunit="CENTIMETER" if number == 0 and resolution else None,
            )


def _tiles(pixels: Deferred) -> Iterator[Array]:
    """(TILE, TILE[, channels]) after the other, row of tiles by row; beyond the picture all is 0."""
    channels, rows, columns = pixels.shape
    for top in range(0, rows, TILE):
        strip = pixels[slice(0, channels), slice(top, min(top + TILE, rows)), slice(0, columns)]
        beyond = ((0, 0), (0, TILE - strip.shape[1]), (0, -columns % TILE))
        strip = np.moveaxis(np.pad(strip, beyond), 0, -1)
        for left in range(0, columns, TILE):
            tile = np.ascontiguousarray(strip[:, left : left + TILE])
            yield tile if channels > 1 else tile[..., 0]

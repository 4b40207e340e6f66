"""What was drawn on the stored pixels of a photograph, turned with the photograph as EXIF says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from isocenter.files import file_formats
from isocenter.files.pictures import plain_picture
from isocenter.values import BoundingBoxes, Floats, Geometry, Image


def turn_reference(load: Callable[[], Any], files: Sequence[Path], image: Callable[[], Image]) -> Any:
    """A reference on the stored pixels as it lies on the turned ones of its image."""
    value, orientation = load(), orientation_of_files(files)
    match value:
        case Image() if orientation != 1:
            turned = plain_picture.apply_exif_orientation(np.moveaxis(value.data, 0, -1), orientation)
            pixels = np.ascontiguousarray(np.moveaxis(turned, -1, 0))
            return replace(value, pixels=pixels, geometry=Geometry.of_pixels(pixels.shape[1:]))
        case BoundingBoxes() if orientation != 1:
            rows, columns = image().geometry.shape[:: -1 if orientation in plain_picture.SIDEWAYS else 1]
            return replace(value, corners=_turned_corners(value.corners, (rows, columns), orientation))
        case _:
            return value


def orientation_of_files(files: Sequence[Path]) -> int:
    """The EXIF orientation of the first of a case's files that is turned; 1 where none is."""
    opened = (
        plain_picture.exif_orientation(path)
        for path in files
        if file_formats.suffix_of(path) in file_formats.format_entries()["picture"].suffixes
    )
    return next((turn for turn in opened if turn != 1), 1)


def _turned_corners(corners: Floats, shape: tuple[int, int], orientation: int) -> Floats:
    """(n, 4) edges of boxes in a picture of this shape as they lie once `apply_exif_orientation` has turned it."""
    (rows, columns), (y, x) = shape, (corners[:, 0::2], corners[:, 1::2])
    x = columns - x if orientation in plain_picture.MIRRORED else x
    y = rows - y if orientation in plain_picture.FLIPPED else y
    for _ in range(plain_picture.QUARTERS.get(orientation, 0)):
        (y, x), (rows, columns) = (columns - x, y), (columns, rows)
    return np.column_stack([y.min(axis=1), x.min(axis=1), y.max(axis=1), x.max(axis=1)])

"""Planes of an image as radiologists look at them, each pixel a voxel of the source, and a slice as bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from isocenter.report import planes, upright
from isocenter.values import Array, Image

Kind = Literal["volume", "picture", "clip"]
PICTURE = "picture"
# Of a volume that lies upright, by the axis that is scrolled.
NAMES = {2: "axial", 1: "coronal", 0: "sagittal"}
LEVELS = 1 << 16  # of 16 bits
HALF = 1 << 15


@dataclass(frozen=True)
class Side:
    """A side of a plane: the axis of the source's array along which it runs, whether backwards, and mm a step.

    mm: None where the size is not known
    """

    axis: int
    reversed: bool
    mm: float | None


@dataclass(frozen=True)
class View:
    """A plane through the source's array.

    axis:          that is scrolled; None of a picture
    count:         of its slices
    rows, columns: the sides along which its rows follow each other, and its columns
    """

    axis: int | None
    count: int
    rows: Side
    columns: Side

    def cut(self, array: Array, number: int) -> Array:
        """(rows, columns, ...) of slice `number` of an array, (*source, ...), as a view."""
        plane = array if self.axis is None else array[(slice(None),) * self.axis + (number,)]
        if self.rows.axis > self.columns.axis:
            plane = np.swapaxes(plane, 0, 1)
        return plane[:: -1 if self.rows.reversed else 1, :: -1 if self.columns.reversed else 1]


def kind_of(image: Image) -> Kind:
    """A volume, a picture, or a clip: a picture with frames."""
    if image.geometry.is_volume:
        return "volume"
    return "picture" if image.frames is None else "clip"


def source_shape(image: Image) -> tuple[int, ...]:
    """The shape of the array of which views are: that of a volume, a picture, or a clip with its frames."""
    return image.shape[1:] if kind_of(image) == "clip" else image.geometry.shape


def views_of(image: Image) -> Mapping[str, View]:
    """{name: plane} of all planes in which an image has something to show.

    Rows and columns run as radiologists look: the patient's right on the left, front and head on top.
    """
    geometry, spacing = image.geometry, image.geometry.spacing
    mm = [None] * geometry.ndim if spacing is None else list(spacing)
    if geometry.is_picture:
        axis, count = (0, image.frames) if image.frames is not None else (None, 1)
        first = 0 if axis is None else 1
        return {PICTURE: View(axis, count, Side(first, False, mm[0]), Side(first + 1, False, mm[1]))}
    axes, flips = upright(geometry)
    sides = [Side(axis, flip, mm[axis]) for axis, flip in zip(axes, flips, strict=True)]
    return {
        NAMES[plane.through]: View(
            axes[plane.through], geometry.shape[axes[plane.through]], sides[plane.down], sides[plane.across]
        )
        for plane in planes(geometry.permuted(axes, flips))
        if plane.through is not None
    }


@dataclass(frozen=True, eq=False)
class Stored:
    """A slice as bytes. kind: `uint8`, `int16`, `float32` or `rgb8`; a value is slope x stored + intercept."""

    pixels: Array
    kind: str
    slope: float = 1.0
    intercept: float = 0.0


def stored_slice(plane: Array, *, colour: bool) -> Stored:
    """A slice, (rows, columns) or of colours (rows, columns, 3), in the fewest bytes that keep its values.

    Whole numbers are exact where a slice's span is below 65536; others have the precision of float32.
    """
    if colour:
        return Stored(_as_bytes(plane), "rgb8")
    if plane.dtype in (np.bool_, np.uint8):
        return Stored(plane.astype(np.uint8), "uint8")
    if not np.issubdtype(plane.dtype, np.integer):
        return Stored(plane.astype("<f4"), "float32")
    if plane.dtype in (np.int8, np.int16):
        return Stored(plane.astype("<i2"), "int16")
    low, high = int(plane.min()), int(plane.max())
    if low >= -HALF and high < HALF:
        return Stored(plane.astype("<i2"), "int16")
    if high - low < LEVELS:
        return Stored((plane.astype(np.int64) - (low + HALF)).astype("<i2"), "int16", intercept=float(low + HALF))
    return Stored(plane.astype("<f4"), "float32")


def _as_bytes(plane: Array) -> Array:
    """Colours of 8 bits; of more the upper ones."""
    if plane.dtype == np.uint8:
        return plane
    if np.issubdtype(plane.dtype, np.integer):
        return (plane >> (8 * plane.dtype.itemsize - 8)).astype(np.uint8)
    return np.clip(np.rint(plane), 0, 255).astype(np.uint8)

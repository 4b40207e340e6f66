"""Inputs of `register`: images, and label maps that lie on their grids."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from isocenter.errors import FormatError, GeometryError
from isocenter.files import ReadOptions, read_image
from isocenter.values import Image


def opened(source: str | Path | Image, options: ReadOptions) -> Image:
    """The image itself, or that of a path."""
    return source if isinstance(source, Image) else read_image(source, options)


def name_of_source(source: str | Path | Image) -> str:
    """The path that it came from."""
    if not isinstance(source, Image):
        return str(source)
    return source.source.paths[0] if source.source is not None and source.source.paths else "image"


def drawn_on_grid(source: str | Path | Image, image: Image, options: ReadOptions) -> Image:
    """A label map or mask on an image's own grid, its axes turned where only these differ."""
    made = opened(source, options).on_axes_of(image.geometry)
    where = name_of_source(source)
    if made.shape[1:] != image.geometry.shape or not made.geometry.equals(image.geometry):
        problem = f"lies on another grid than its image: {made.geometry.difference(image.geometry)}"
        raise GeometryError(problem, where, "Give one that was drawn on the image")
    if not np.array_equal(made.data, np.rint(made.data)):
        raise FormatError("holds numbers that are no labels", where, "Give whole numbers, one a structure")
    values = made.data[:1]
    kind = np.result_type(np.min_scalar_type(values.min()), np.min_scalar_type(values.max()))
    return made.with_pixels(values.astype(kind if kind.kind in "iu" else np.int32))

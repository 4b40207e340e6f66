"""Mean series of the regions of an atlas in a 4D image, as functional MRI is often analysed."""

from __future__ import annotations

import numpy as np

from isocenter.errors import GeometryError
from isocenter.values import Geometry, Image

# Times between which steps differ by less than this share are even.
EVEN = 1e-3


def region_series(image: Image, atlas: Image, where: str) -> Image:
    """(regions, frames): the mean of the measurements in each region at each time; NaN where there is none.

    atlas: a label map on the image's grid; its labels name the channels
    Raises GeometryError for an image without frames, for another grid, and for an atlas without a region.
    """
    if image.frames is None or atlas.frames is not None:
        raise GeometryError("needs frames, and an atlas without", where, "Give a 4D image and one label map")
    if not atlas.geometry.equals(image.geometry):
        raise GeometryError(
            f"lies on another grid than the atlas: {image.geometry.difference(atlas.geometry)}",
            where,
            "Resample the atlas",
        )
    regions = atlas.data[0]
    values = [int(value) for value in np.unique(regions) if value != 0]
    if not values:
        raise GeometryError("the atlas holds no region", where, "Give a label map with values above 0")
    names = {label.value: label.name for label in atlas.labels}
    series = np.stack([_means(still, regions, values) for still in image.still_frames()], axis=1)
    channels = tuple(names.get(value, str(value)) for value in values)
    return Image(series, _axis(image), modality=image.modality, channels=channels, source=image.source)


def _means(frame: Image, regions: np.ndarray, values: list[int]) -> np.ndarray:
    """(regions,) of the first channel."""
    known = frame.measured(frame.data[0])
    where, signal = regions[known].astype(np.int64), frame.data[0][known].astype(np.float64)
    length = max(values) + 1
    inside = (where >= 0) & (where < length)
    total = np.bincount(where[inside], signal[inside], length)[values]
    count = np.bincount(where[inside], minlength=length)[values]
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def _axis(image: Image) -> Geometry:
    """Of the frames: in s where their times are even, else counted."""
    steps = np.diff(image.times) if image.times is not None else np.empty(0)
    shape = (image.frames or 0,)
    if len(steps) == 0 or steps.min() <= 0 or np.ptp(steps) > EVEN * steps.mean():
        return Geometry.of_pixels(shape)
    assert image.times is not None  # noqa: S101 - there are steps between them
    return Geometry(shape, np.array([[steps.mean(), image.times[0]], [0.0, 1.0]]), oriented=False, unit="s")

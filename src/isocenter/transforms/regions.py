"""Mean series of the regions of an atlas in a 4D image, as functional MRI is often analysed."""

from __future__ import annotations

import numpy as np

from isocenter.errors import GeometryError, listed
from isocenter.values import Geometry, Image

# Times between which steps differ by less than this share are even.
EVEN = 1e-3


def region_series(image: Image, atlas: Image, where: str) -> Image:
    """(regions, frames): the mean of the measurements in each region at each time; NaN where there is none.

    atlas: a label map on the image's grid; its labels name the channels
    Raises GeometryError for an image without frames or with several channels, for another grid, and for an atlas
    without a region, or of shares such as probabilities.
    """
    if image.frames is None or atlas.frames is not None:
        raise GeometryError("needs frames, and an atlas without", where, "Give a 4D image and one label map")
    if len(image.channels) > 1:
        problem = f"has {len(image.channels)} channels ({listed(image.channels)}), and a series is of one"
        raise GeometryError(problem, where, "Convert the one that is meant to a file of its own")
    if not atlas.geometry.equals(image.geometry):
        raise GeometryError(
            f"lies on another grid than the atlas: {image.geometry.difference(atlas.geometry)}",
            where,
            "Resample the atlas",
        )
    found, places = np.unique(atlas.data[0], return_inverse=True)
    if len(atlas.channels) > 1 or found.min() < 0 or (found % 1 != 0).any():
        remedy = "Give a label map: whole numbers, 0 for what is no region"
        raise GeometryError("the atlas holds probabilities or several maps", where, remedy)
    values = [int(value) for value in found if value != 0]
    if not values:
        raise GeometryError("the atlas holds no region", where, "Give a label map with values above 0")
    names = {label.value: label.name for label in atlas.labels}
    regions = places.reshape(image.geometry.shape) - (len(found) - len(values))  # -1 outside, from 0 on in order
    series = np.stack([_means(still, regions, len(values)) for still in image.still_frames()], axis=1)
    channels = tuple(names.get(value, str(value)) for value in values)
    return Image(series, _axis(image), modality=image.modality, channels=channels, source=image.source)


def _means(frame: Image, regions: np.ndarray, count: int) -> np.ndarray:
    """(regions,) of the only channel; regions: the number of each voxel's region, -1 where it is in none."""
    inside = frame.measured(frame.data[0]) & (regions >= 0)
    total = np.bincount(regions[inside], frame.data[0][inside].astype(np.float64), count)
    voxels = np.bincount(regions[inside], minlength=count)
    return np.divide(total, voxels, out=np.full(count, np.nan), where=voxels > 0)


def _axis(image: Image) -> Geometry:
    """The axis of the frames: in s where their times are even, else counted."""
    steps = np.diff(image.times) if image.times is not None else np.empty(0)
    shape = (image.frames or 0,)
    if len(steps) == 0 or steps.min() <= 0 or np.ptp(steps) > EVEN * steps.mean():
        return Geometry.of_pixels(shape)
    assert image.times is not None  # noqa: S101 - there are steps between them
    return Geometry(shape, np.array([[steps.mean(), image.times[0]], [0.0, 1.0]]), oriented=False, unit="s")

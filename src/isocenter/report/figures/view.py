"""An image and what is drawn on it, turned as a screen shows them, slice by slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from isocenter.errors import GeometryError
from isocenter.report.display import Plane, is_colour, turned, upright, window
from isocenter.values import Array, Geometry, Image


@dataclass(frozen=True, eq=False)
class View:
    """An image and its label maps in the order of the screen.

    grid:      the upright grid
    flips:     per axis of the screen, whether the file counts its slices the other way
    values:    (*spatial), or (*spatial, 3) for colours
    low, high: what is black and what is white
    """

    grid: Geometry
    flips: tuple[bool, ...]
    values: Array
    low: float
    high: float
    reference: Array | None = None
    prediction: Array | None = None

    @property
    def maps(self) -> tuple[Array, ...]:
        """The label maps that there are, the reference first."""
        return tuple(drawn for drawn in (self.reference, self.prediction) if drawn is not None)

    def greys(self, plane: Plane, at: int) -> Array:
        """(down, across) or (down, across, 3) of one slice, in 0..1; black where there is no number."""
        values = cut(self.values, plane, at).astype(np.float64)
        return np.nan_to_num(np.clip((values - self.low) / (self.high - self.low), 0.0, 1.0))

    def fullest_slice(self, plane: Plane) -> int:
        """The slice with the most of the reference; without one, of the prediction; else the middle."""
        if plane.through is None:
            return 0
        others = tuple(axis for axis in range(self.grid.ndim) if axis != plane.through)
        for label_map in self.maps:
            if (areas := np.count_nonzero(label_map, axis=others)).any():
                return int(areas.argmax())
        return self.grid.shape[plane.through] // 2

    def steps(self, plane: Plane) -> tuple[float, float]:
        """Length of one voxel across and down."""
        return self.grid.steps[plane.across], self.grid.steps[plane.down]

    def place(self, plane: Plane, at: int) -> str:
        """ "axial, slice 18 of 36", counted as the file counts; empty for a picture."""
        if plane.through is None:
            return ""
        size = self.grid.shape[plane.through]
        return f"{plane.name}, slice {size - at if self.flips[plane.through] else at + 1} of {size}"


def view_of(
    image: Image,
    reference: ArrayLike | None = None,
    prediction: ArrayLike | None = None,
    *,
    channel: int = 0,
    frame: int = 0,
) -> View:
    """One channel (all three of a colour picture) and one frame, with label maps (*spatial) or (1, *spatial).

    Raises GeometryError where a label map does not have the image's shape.
    """
    return _view(image, reference, prediction, upright(image.geometry), channel, frame)


def stored_view(image: Image) -> View:
    """The first channel (all three of a colour picture) as it is stored, of which slices of DICOM are shown."""
    as_stored = tuple(range(image.geometry.ndim)), (False,) * image.geometry.ndim
    return _view(image, None, None, as_stored)


def _view(
    image: Image,
    reference: ArrayLike | None,
    prediction: ArrayLike | None,
    order: tuple[tuple[int, ...], tuple[bool, ...]],
    channel: int = 0,
    frame: int = 0,
) -> View:
    axes, flips = order
    maps = [
        None if given is None else turned(_label_map(given, image.geometry, name), axes, flips)
        for given, name in ((reference, "reference"), (prediction, "prediction"))
    ]
    values = image.data[slice(3) if is_colour(image) else channel]
    if image.frames is not None:
        values = values[:, frame] if is_colour(image) else values[frame]
    is_plain = is_colour(image) and values.dtype == np.uint8
    low, high = (0.0, 255.0) if is_plain else window(image, values, 0 if is_colour(image) else channel)
    values = turned(values, axes, flips)
    if is_colour(image):
        values = np.moveaxis(values, 0, -1)
    return View(image.geometry.permuted(axes, flips), flips, values, low, high, *maps)


def cut(array: Array, plane: Plane, at: int) -> Array:
    """(down, across, ...) of one slice."""
    if plane.through is not None:
        array = array.take(at, axis=plane.through)
    return array.swapaxes(0, 1) if plane.across < plane.down else array


def _label_map(values: ArrayLike, geometry: Geometry, name: str) -> Array:
    array = np.asarray(values)
    if array.shape == (1, *geometry.shape):
        array = array[0]
    if array.shape != geometry.shape:
        raise GeometryError(
            f"shape {array.shape} on an image of {geometry.shape}", name, "Give label values on the image's own grid"
        )
    return array

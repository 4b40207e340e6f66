"""The grid of an image as a page draws it: its planes, and the windows that show it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from isocenter.report import display
from isocenter.report.slice_viewer import WINDOWS
from isocenter.service.reading import sliced_volumes
from isocenter.service.reading.sliced_volumes import PICTURE, SlicedVolume, StoredSlice

WINDOW_SLICES = 5  # of a volume, for its automatic window
MOST_AT_ONE_END = 0.95  # of the voxels: a header's window that leaves more is not shown first


class SideShape(BaseModel):
    """The axis of the source's array along which rows or columns of a plane follow each other; mm: of a step."""

    axis: int
    reversed: bool
    mm: float | None


class PlaneShape(BaseModel):
    """A plane: the axis that is scrolled (none of a picture), how many slices it has, and its sides."""

    axis: int | None
    count: int
    rows: SideShape
    columns: SideShape


class PresetShape(BaseModel):
    """A window that has a name; window: centre and width."""

    name: str
    window: tuple[float, float]


class RangeShape(BaseModel):
    """The lowest and the highest value of an image, padding aside."""

    low: float
    high: float


class GridShape(BaseModel):
    """The grid of an image of a series.

    shape:  of the source's own array: of a volume (columns, rows, slices), a picture (rows, columns), a clip with its
            frames first
    affine: index to RAS+ mm; of a picture of known size its two axes; null where no size is known, and of a clip
    window: centre and width, of the first preset
    oriented: whether left and right are known, which the names of planes otherwise do not state
    frames: volumes that follow each other in time; images: how many grids the series has, channels: of this one
    """

    schema_: str = Field(alias="schema")
    version: int = 1
    kind: Literal["volume", "picture", "clip"]
    shape: list[int]
    affine: list[list[float]] | None
    oriented: bool
    unit: str
    window: tuple[float, float]
    presets: list[PresetShape]
    colour: bool
    planes: dict[str, PlaneShape]
    frames: int
    times: list[float] | None
    channels: list[str]
    images: int
    modality: str
    notes: list[str]


def grid_shape(volume: SlicedVolume, images: int) -> GridShape:
    """The grid of an image. images: of its series"""
    image, kind = volume.image, sliced_volumes.image_kind(volume.image)
    colour = display.is_colour(image)
    windows, notes = _windows(volume)
    return GridShape(
        schema="isocenter.grid",
        kind=kind,
        shape=list(volume.shape),
        affine=_affine(volume),
        oriented=image.geometry.orientation is not None,
        unit=str(image.facts_of(0).get("unit", "")),
        window=next(iter(windows.values()), (127.5, 255.0)),
        presets=[PresetShape(name=name, window=one) for name, one in windows.items()],
        colour=colour,
        planes={name: _plane(view) for name, view in volume.views.items()},
        frames=image.frames or 1 if kind == "volume" else 1,
        times=None if image.times is None else list(image.times),
        channels=["colour"] if colour else list(image.channels),
        images=images,
        modality=image.modality,
        notes=[*image.notes, *notes],
    )


def range_shape(volume: SlicedVolume, channel: int = 0) -> RangeShape:
    """The lowest and the highest value of a channel."""
    name, count = _thick_plane(volume)
    ends = list[float]()
    for frame in range(1 if name == PICTURE else volume.image.frames or 1):
        for k in range(count):
            values = _values(volume.slice(name, k, frame=frame, channel=channel))
            values = display.measured_voxels(volume.image, values)
            ends += [float(values.min()), float(values.max())] if values.size else []
    return RangeShape(low=min(ends, default=0.0), high=max(ends, default=1.0))


def slice_headers(stored: StoredSlice) -> dict[str, str]:
    """The size of a slice and what its numbers mean, as headers of its bytes."""
    rows, columns = stored.pixels.shape[:2]
    return {
        "X-Rows": str(rows),
        "X-Columns": str(columns),
        "X-Type": stored.kind,
        "X-Slope": repr(stored.slope),
        "X-Intercept": repr(stored.intercept),
    }


def _windows(volume: SlicedVolume) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """{name: (centre, width)}, first what is shown, none of colours; and a sentence where that is not the header's."""
    image = volume.image
    if display.is_colour(image):
        return {}, []
    values = _sample(volume)
    greys = {"automatic": display.automatic_window(image, values)}
    notes = list[str]()
    if (stated := display.header_window(image)) is not None:
        shares = [display.share_at_one_end(image, values, one) for one in (stated, greys["automatic"])]
        is_lost = shares[0] > MOST_AT_ONE_END >= shares[1]
        greys = {**greys, "header": stated} if is_lost else {"header": stated, **greys}
        if is_lost:
            notes = [
                f"The header's window shows {100 * shares[0]:.0f} % of the image as black or white alone: the "
                "automatic window is shown."
            ]
    own = {name: ((low + high) / 2, high - low) for name, (low, high) in greys.items()}
    return {**own, **WINDOWS.get(image.modality, {})}, notes


def _plane(view: Any) -> PlaneShape:
    return PlaneShape(
        axis=view.axis, count=view.count, rows=SideShape(**vars(view.rows)), columns=SideShape(**vars(view.columns))
    )


def _affine(volume: SlicedVolume) -> list[list[float]] | None:
    """Four by four; None where the size is not known, and of a clip, whose first axis is time."""
    geometry = volume.image.geometry
    if not geometry.physical or sliced_volumes.image_kind(volume.image) == "clip":
        return None
    if geometry.is_volume:
        return geometry.affine.tolist()
    matrix = np.eye(4)
    matrix[:2, :2], matrix[:2, 3] = geometry.affine[:2, :2], geometry.affine[:2, 2]
    return matrix.tolist()


def _sample(volume: SlicedVolume) -> Any:
    """Values of a few slices of the first channel."""
    name, count = _thick_plane(volume)
    places = sorted({round(n * (count - 1) / (WINDOW_SLICES - 1)) for n in range(WINDOW_SLICES)})
    return np.stack([_values(volume.slice(name, place)) for place in places])


def _values(part: StoredSlice) -> Any:
    return part.pixels * part.slope + part.intercept


def _thick_plane(volume: SlicedVolume) -> tuple[str, int]:
    """The plane of an image whose slices lie in one file each, and their number."""
    name = PICTURE if PICTURE in volume.views else max(volume.views, key=lambda one: volume.views[one].axis or 0)
    return name, volume.views[name].count

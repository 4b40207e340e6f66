"""Images that people look at: planes whose pixels are voxels of the source, slices as bytes, and the grid as JSON.

An image is read once and kept within a limit of memory; the longest unused is given up first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
from pydantic import BaseModel, Field

from hilum.report import display
from hilum.report.slice_viewer import WINDOWS
from hilum.values import Array, Image

Kind = Literal["volume", "picture", "clip"]
PICTURE = "picture"
# Of a volume that lies upright, by the axis that is scrolled.
NAMES = {2: "axial", 1: "coronal", 0: "sagittal"}
LEVELS = 1 << 16  # of 16 bits
HALF = 1 << 15
HEADER = "header"  # the name of the window that the file asks for
WINDOW_SLICES = 5  # of a volume, for its automatic window
MOST_AT_ONE_END = 0.95  # of the voxels: a header's window that leaves more is not shown first


@dataclass(frozen=True)
class PlaneSide:
    """A side of a plane: the axis of the source's array along which it runs, whether backwards, and mm a step.

    mm: None where the size is not known
    """

    axis: int
    reversed: bool
    mm: float | None


@dataclass(frozen=True)
class SlicePlane:
    """A plane through the source's array.

    axis:          that is scrolled; None of a picture
    count:         of its slices
    rows, columns: the sides along which its rows follow each other, and its columns
    """

    axis: int | None
    count: int
    rows: PlaneSide
    columns: PlaneSide

    def cut(self, array: Array, number: int) -> Array:
        """(rows, columns, ...) of slice `number` of an array, (*source, ...), as a view."""
        plane = array if self.axis is None else array[(slice(None),) * self.axis + (number,)]
        if self.rows.axis > self.columns.axis:
            plane = np.swapaxes(plane, 0, 1)
        return plane[:: -1 if self.rows.reversed else 1, :: -1 if self.columns.reversed else 1]


def image_kind(image: Image) -> Kind:
    """A volume, a picture, or a clip: a picture with frames."""
    if image.geometry.is_volume:
        return "volume"
    return "picture" if image.frames is None else "clip"


def source_shape(image: Image) -> tuple[int, ...]:
    """The shape of the array of which views are: that of a volume, a picture, or a clip with its frames."""
    return image.shape[1:] if image_kind(image) == "clip" else image.geometry.shape


def planes_of_image(image: Image) -> Mapping[str, SlicePlane]:
    """{name: plane} of all planes in which an image has something to show.

    Rows and columns run as radiologists look: the patient's right on the left, front and head on top.
    """
    geometry, spacing = image.geometry, image.geometry.spacing
    mm = [None] * geometry.ndim if spacing is None else list(spacing)
    if geometry.is_picture:
        axis, count = (0, image.frames) if image.frames is not None else (None, 1)
        first = 0 if axis is None else 1
        return {PICTURE: SlicePlane(axis, count, PlaneSide(first, False, mm[0]), PlaneSide(first + 1, False, mm[1]))}
    axes, flips = display.screen_order(geometry)
    sides = [PlaneSide(axis, flip, mm[axis]) for axis, flip in zip(axes, flips, strict=True)]
    return {
        NAMES[plane.through]: SlicePlane(
            axes[plane.through], geometry.shape[axes[plane.through]], sides[plane.down], sides[plane.across]
        )
        for plane in display.screen_planes(geometry.permute(axes, flips))
        if plane.through is not None
    }


@dataclass(frozen=True, eq=False)
class StoredSlice:
    """A slice as bytes. kind: `uint8`, `int16`, `float32` or `rgb8`; a value is slope x stored + intercept."""

    pixels: Array
    kind: str
    slope: float = 1.0
    intercept: float = 0.0


def stored_slice(plane: Array, *, colour: bool) -> StoredSlice:
    """A slice, (rows, columns) or of colours (rows, columns, 3), in the fewest bytes that keep its values.

    Whole numbers are exact where a slice's span is below 65536; others have the precision of float32.
    """
    if colour:
        return StoredSlice(_as_bytes(plane), "rgb8")
    if plane.dtype in (np.bool_, np.uint8):
        return StoredSlice(plane.astype(np.uint8), "uint8")
    if not np.issubdtype(plane.dtype, np.integer):
        return StoredSlice(plane.astype("<f4"), "float32")
    if plane.dtype in (np.int8, np.int16):
        return StoredSlice(plane.astype("<i2"), "int16")
    low, high = int(plane.min()), int(plane.max())
    if low >= -HALF and high < HALF:
        return StoredSlice(plane.astype("<i2"), "int16")
    if high - low < LEVELS:
        return StoredSlice((plane.astype(np.int64) - (low + HALF)).astype("<i2"), "int16", intercept=float(low + HALF))
    return StoredSlice(plane.astype("<f4"), "float32")


def _as_bytes(plane: Array) -> Array:
    """Colours of 8 bits; of more the upper ones."""
    if plane.dtype == np.uint8:
        return plane
    if np.issubdtype(plane.dtype, np.integer):
        return (plane >> (8 * plane.dtype.itemsize - 8)).astype(np.uint8)
    return np.clip(np.rint(plane), 0, 255).astype(np.uint8)


# At once: a second image waits for the first, so that the one that somebody looks at is there the sooner.
LOADING = 2


class SlicedVolume:
    """An image whose slices are given one by one, while the whole of it is read in the background.

    whole: its voxels, once they are read; None where memory does not hold them, so that slices come from the files
    """

    def __init__(self, image: Image, array: Future[Array] | None) -> None:
        self.image, self._whole = image, array

    @cached_property
    def views(self) -> dict[str, SlicePlane]:
        """The planes of the image by name."""
        return dict(planes_of_image(self.image))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array that the views cut."""
        return source_shape(self.image)

    @property
    def voxels(self) -> Array:
        """(channels[, frames], *spatial) of the image, as `files.read` gives it."""
        return self.image.data if self._whole is None else self._whole.result()

    def slice(self, plane: str, number: int, *, frame: int = 0, channel: int = 0) -> StoredSlice:
        """Slice `number` of a plane, counted along the source's axis from 0. frame: of a volume with several

        Raises KeyError for a plane that it lacks, IndexError for a slice, frame or channel.
        """
        view, colour = self.views[plane], display.is_colour(self.image)
        volumes = 1 if plane == PICTURE else self.image.frames or 1
        channels = 1 if colour else self.image.shape[0]
        if not (0 <= number < view.count and 0 <= frame < volumes and 0 <= channel < channels):
            raise IndexError(number)
        # What lies in one file each is there before all is read.
        is_quick = image_kind(self.image) != "volume" or view.axis == len(self.shape) - 1
        if self._whole is not None and (self._whole.done() or not is_quick):
            return self._store_slice(self._whole.result(), view, number, frame, channel)
        position = 0 if view.axis is not None else number
        return self._store_slice(self._part(view, number, frame), view, position, 0, channel)

    def _part(self, view: SlicePlane, number: int, frame: int) -> Array:
        """The voxels of one slice, (channels[, frames], *spatial) with one step along what is scrolled."""
        region = [slice(0, size) for size in self.image.shape]
        if image_kind(self.image) == "clip":
            region[1] = slice(number, number + 1)
        elif self.image.frames is not None:
            region[1] = slice(frame, frame + 1)
        if view.axis is not None:
            axis = len(region) - len(self.shape) + view.axis
            region[axis] = slice(number, number + 1)
        return np.asarray(self.image.pixels[tuple(region)])

    def _store_slice(self, voxels: Array, view: SlicePlane, number: int, frame: int, channel: int) -> StoredSlice:
        if image_kind(self.image) == "volume" and self.image.frames is not None:
            voxels = voxels[:, frame]
        if display.is_colour(self.image):
            return stored_slice(view.cut(np.moveaxis(voxels[:3], 0, -1), number), colour=True)
        return stored_slice(view.cut(voxels[channel], number), colour=False)


class VolumeCache:
    """Volumes by key, read when they are first asked for. most: bytes of voxels that are kept at once"""

    def __init__(self, most: float) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, Future[list[SlicedVolume]]] = OrderedDict()
        self._loading = ThreadPoolExecutor(LOADING, thread_name_prefix="volumes")

    def load(self, key: Hashable, read: Callable[[], Sequence[Image]]) -> list[SlicedVolume]:
        """The images that `read` gives for a key, which never changes its meaning. Raises what `read` raises."""
        with self._lock:
            held = self._kept.get(key)
            mine = Future[list[SlicedVolume]]() if held is None else held
            self._kept[key] = mine
            self._kept.move_to_end(key)
        if held is None:
            try:
                mine.set_result([self._open(image) for image in read()])
            except BaseException as error:  # whoever waits for it gets it too
                with self._lock:
                    del self._kept[key]
                mine.set_exception(error)
                raise
            self._give_up()
        return mine.result()

    def _open(self, image: Image) -> SlicedVolume:
        fits = _bytes(image) <= self.most
        return SlicedVolume(image, self._loading.submit(_load_voxels, image) if fits else None)

    def _give_up(self) -> None:
        """Forget what was not asked for longest, until the rest fits; what was asked for last stays."""
        with self._lock:
            while len(self._kept) > 1 and sum(map(_bytes_of, self._kept.values())) > self.most:
                self._kept.popitem(last=False)

    def close(self) -> None:
        """Read nothing more."""
        self._loading.shutdown(wait=False, cancel_futures=True)


def _load_voxels(image: Image) -> Array:
    return image.data


def _bytes(image: Image) -> int:
    return int(np.prod(image.shape, dtype=np.int64)) * image.dtype.itemsize


def _bytes_of(loaded: Future[list[SlicedVolume]]) -> int:
    if not loaded.done():
        return 0
    return sum(_bytes(volume.image) for volume in loaded.result() if volume._whole is not None)


class PresetShape(BaseModel):
    """A window that has a name; window: centre and width.

    curve: points of rising values, each with its brightness from 0 to 1; empty where it is the line through the window
    """

    name: str
    window: tuple[float, float]
    curve: list[tuple[float, float]] = []


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
    falls:  whether that window's line goes from white to black
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
    falls: bool
    colour: bool
    planes: dict[str, SlicePlane]
    frames: int
    times: list[float] | None
    channels: list[str]
    images: int
    modality: str
    notes: list[str]


def grid_shape(volume: SlicedVolume, images: int) -> GridShape:
    """The grid of an image. images: of its series"""
    image, kind = volume.image, image_kind(volume.image)
    colour = display.is_colour(image)
    windows, notes = _windows(volume)
    curve = [] if colour else list(display.header_curve(image) or ())
    presets = [
        PresetShape(name=name, window=one, curve=curve if name == HEADER else []) for name, one in windows.items()
    ]
    return GridShape(
        schema="hilum.grid",
        kind=kind,
        shape=list(volume.shape),
        affine=_affine(volume),
        oriented=image.geometry.orientation is not None,
        unit=str(image.facts_of(0).get("unit", "")),
        window=next(iter(windows.values()), (127.5, 255.0)),
        presets=presets,
        falls=not colour and display.falls(image),
        colour=colour,
        planes=dict(volume.views),
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
    greys = {"automatic": display.automatic_grey_range(image, values)}
    notes = list[str]()
    if (stated := display.header_window(image)) is not None:
        shares = [display.share_at_one_end(image, values, one) for one in (stated, greys["automatic"])]
        is_lost = shares[0] > MOST_AT_ONE_END >= shares[1]
        greys = {**greys, HEADER: stated} if is_lost else {HEADER: stated, **greys}
        if is_lost:
            notes = [
                f"The header's window shows {100 * shares[0]:.0f} % of the image as black or white alone: the "
                "automatic window is shown."
            ]
    own = {name: ((low + high) / 2, high - low) for name, (low, high) in greys.items()}
    return {**own, **WINDOWS.get(image.modality, {})}, notes


def _affine(volume: SlicedVolume) -> list[list[float]] | None:
    """Four by four; None where the size is not known, and of a clip, whose first axis is time."""
    geometry = volume.image.geometry
    if not geometry.physical or image_kind(volume.image) == "clip":
        return None
    if geometry.is_volume:
        return cast("list[list[float]] | None", geometry.affine.tolist())
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

"""Images that people look at: planes whose pixels are voxels of the source, and slices as bytes.

An image is read once and kept within a limit of memory; the longest unused is given up first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from isocenter.report import display
from isocenter.values import Array, Image

Kind = Literal["volume", "picture", "clip"]
PICTURE = "picture"
# Of a volume that lies upright, by the axis that is scrolled.
NAMES = {2: "axial", 1: "coronal", 0: "sagittal"}
LEVELS = 1 << 16  # of 16 bits
HALF = 1 << 15


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

"""Images that people look at: read once, kept within a limit of memory, the longest unused given up first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

import numpy as np

from isocenter.report import is_colour
from isocenter.service.reading.views import PICTURE, Stored, View, kind_of, source_shape, stored_slice, views_of
from isocenter.values import Array, Image

# At once: a second image waits for the first, so that the one that somebody looks at is there the sooner.
LOADING = 2


class Volume:
    """An image whose slices are given one by one, while the whole of it is read in the background.

    whole: its voxels, once they are read; None where memory does not hold them, so that slices come from the files
    """

    def __init__(self, image: Image, whole: Future[Array] | None) -> None:
        self.image, self._whole = image, whole

    @cached_property
    def views(self) -> dict[str, View]:
        """The planes of the image by name."""
        return dict(views_of(self.image))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array that the views cut."""
        return source_shape(self.image)

    @property
    def voxels(self) -> Array:
        """(channels[, frames], *spatial) of the image, as `files.read` gives it."""
        return self.image.data if self._whole is None else self._whole.result()

    def slice(self, plane: str, number: int, *, frame: int = 0, channel: int = 0) -> Stored:
        """Slice `number` of a plane, counted along the source's axis from 0. frame: of a volume with several

        Raises KeyError for a plane that it lacks, IndexError for a slice, frame or channel.
        """
        view, colour = self.views[plane], is_colour(self.image)
        volumes = 1 if plane == PICTURE else self.image.frames or 1
        channels = 1 if colour else self.image.shape[0]
        if not (0 <= number < view.count and 0 <= frame < volumes and 0 <= channel < channels):
            raise IndexError(number)
        # What lies in one file each is there before all is read.
        is_quick = kind_of(self.image) != "volume" or view.axis == len(self.shape) - 1
        if self._whole is not None and (self._whole.done() or not is_quick):
            return self._stored(self._whole.result(), view, number, frame, channel)
        place = 0 if view.axis is not None else number
        return self._stored(self._part(view, number, frame), view, place, 0, channel)

    def _part(self, view: View, number: int, frame: int) -> Array:
        """The voxels of one slice, (channels[, frames], *spatial) with one step along what is scrolled."""
        region = [slice(0, size) for size in self.image.shape]
        if kind_of(self.image) == "clip":
            region[1] = slice(number, number + 1)
        elif self.image.frames is not None:
            region[1] = slice(frame, frame + 1)
        if view.axis is not None:
            place = len(region) - len(self.shape) + view.axis
            region[place] = slice(number, number + 1)
        return np.asarray(self.image.pixels[tuple(region)])

    def _stored(self, voxels: Array, view: View, number: int, frame: int, channel: int) -> Stored:
        if kind_of(self.image) == "volume" and self.image.frames is not None:
            voxels = voxels[:, frame]
        if is_colour(self.image):
            return stored_slice(view.cut(np.moveaxis(voxels[:3], 0, -1), number), colour=True)
        return stored_slice(view.cut(voxels[channel], number), colour=False)


class Volumes:
    """Volumes by key, read when they are first asked for. most: bytes of voxels that are kept at once"""

    def __init__(self, most: float) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, Future[list[Volume]]] = OrderedDict()
        self._loading = ThreadPoolExecutor(LOADING, thread_name_prefix="volumes")

    def of(self, key: Hashable, read: Callable[[], Sequence[Image]]) -> list[Volume]:
        """The images that `read` gives for a key, which never changes its meaning. Raises what `read` raises."""
        with self._lock:
            known = self._kept.get(key)
            mine = Future[list[Volume]]() if known is None else known
            self._kept[key] = mine
            self._kept.move_to_end(key)
        if known is None:
            try:
                mine.set_result([self._opened(image) for image in read()])
            except BaseException as error:  # whoever waits for it gets it too
                with self._lock:
                    del self._kept[key]
                mine.set_exception(error)
                raise
            self._give_up()
        return mine.result()

    def _opened(self, image: Image) -> Volume:
        fits = _bytes(image) <= self.most
        return Volume(image, self._loading.submit(_loaded, image) if fits else None)

    def _give_up(self) -> None:
        """Forget what was not asked for longest, until the rest fits; what was asked for last stays."""
        with self._lock:
            while len(self._kept) > 1 and sum(map(_bytes_of, self._kept.values())) > self.most:
                self._kept.popitem(last=False)

    def close(self) -> None:
        """Read nothing more."""
        self._loading.shutdown(wait=False, cancel_futures=True)


def _loaded(image: Image) -> Array:
    return image.data


def _bytes(image: Image) -> int:
    return int(np.prod(image.shape, dtype=np.int64)) * image.dtype.itemsize


def _bytes_of(kept: Future[list[Volume]]) -> int:
    if not kept.done():
        return 0
    return sum(_bytes(volume.image) for volume in kept.result() if volume._whole is not None)

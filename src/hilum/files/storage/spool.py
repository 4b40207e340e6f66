"""Arrays that are written part by part: a large one lies in a file without a name, never in memory as a whole."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from hilum.errors import ResourceError
from hilum.files.storage import atomic
from hilum.values import Array, Deferred
from hilum.work_state import log

# What takes no more is held in memory.
SPOOLED_BYTES = 2**27
# Voxels of a file that take as much are not held in memory, whatever is done with them.
MAPPED_BYTES = 2**30


def room(shape: Sequence[int], dtype: np.dtype[Any], where: str) -> Array:
    """An empty array; a large one lies in a temporary file without a name, of which the system holds what it likes.

    where: the file whose numbers it is for
    Raises ResourceError where the disk, or the memory, does not have as much.
    """
    needed, folder = math.prod(shape) * dtype.itemsize, Path(tempfile.gettempdir())
    what = f"needs {needed / 2**30:.1f} GiB"
    if needed < MAPPED_BYTES:
        try:
            return np.empty(shape, dtype)
        except MemoryError as error:
            raise ResourceError(f"{what} of memory", where, "Read it in parts") from error
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            # A hole that the disk has no room for would end the process when it is filled.
            (os.posix_fallocate if hasattr(os, "posix_fallocate") else _filled)(file.fileno(), 0, needed)
            log.info("%.1f GiB of voxels go through a temporary file in %s, which is removed", needed / 2**30, folder)
            return np.memmap(file, dtype, "r+", shape=tuple(shape))
    except OSError as error:
        problem = f"{what} for a temporary file in {folder} ({os.strerror(error.errno or 0)})"
        raise ResourceError(problem, where, "Free some space, or name another folder in TMPDIR") from error


def _filled(file: int, start: int, size: int) -> None:
    for at in range(start, size, SPOOLED_BYTES):
        os.pwrite(file, bytes(min(SPOOLED_BYTES, size - at)), at)


class Spool:
    """(*shape) numbers, and `fill` where nothing was written.

    held:   bytes up to which it is held in memory; more lies in a file
    folder: where that file lies; by default where the system keeps such files
    Its rows lie in the file in the order in which they come first, so that parts are written and read at one place.
    Raises ResourceError where the disk is full.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        *,
        fill: float = 0,
        held: int | None = None,
        folder: Path | None = None,
    ) -> None:
        self.shape, self.dtype, self._fill = tuple(shape), np.dtype(dtype), fill
        self._folder = folder or Path(tempfile.gettempdir())
        self._held: Array | None = None
        self._file: FileIO | None = None
        self._order: tuple[int, ...] = ()
        if int(np.prod(shape)) * self.dtype.itemsize <= (SPOOLED_BYTES if held is None else held):
            self._held = np.full(shape, fill, dtype)

    def __setitem__(self, region: tuple[slice, ...], part: Array) -> None:
        if self._held is not None:
            self._held[region] = part
            return
        if self._file is None:
            self._create_file(region)
        rows = range(self.shape[self._order[0]])[region[self._order[0]]]
        inside = (slice(None), *(region[axis] for axis in self._order[1:]))
        takes_planes = all(range(self.shape[axis])[region[axis]] == range(self.shape[axis]) for axis in self._order[1:])
        block = np.empty((len(rows), *self._plane), self.dtype) if takes_planes else self._rows(rows.start, rows.stop)
        block[inside] = part.transpose(self._order)
        self._write(rows.start, block)

    def __getitem__(self, region: tuple[slice, ...]) -> Array:
        if self._held is not None or self._file is None:
            return self.load()[region]
        full = (*region, *(slice(None) for _ in self.shape[len(region) :]))
        rows = range(self.shape[self._order[0]])[full[self._order[0]]]
        if len(rows) == 0 or rows.step != 1:
            return self.load()[full]
        stored = self._rows(rows.start, rows.stop)[(slice(None), *(full[axis] for axis in self._order[1:]))]
        return stored.transpose(np.argsort(self._order))

    def load(self) -> Array:
        """All of it."""
        if self._held is not None:
            return self._held
        if self._file is None:
            return np.full(self.shape, self._fill, self.dtype)
        return self._rows(0, self.shape[self._order[0]]).transpose(np.argsort(self._order))

    @property
    def data(self) -> Array | Deferred:
        """The array, or what reads it in parts."""
        if self._held is not None:
            return self._held
        return Deferred(self.shape, self.dtype, self.load, self.__getitem__)

    def _create_file(self, region: tuple[slice, ...]) -> None:
        shares = [len(range(size)[part]) / size for part, size in zip(region, self.shape, strict=True)]
        walked = min(reversed(range(len(shares))), key=lambda axis: shares[axis])
        # Beneath the axis that is walked the last one changes slowest, as in the files that results become.
        self._order = (walked, *(axis for axis in reversed(range(len(shares))) if axis != walked))
        try:
            self._file = tempfile.TemporaryFile(buffering=0, dir=self._folder)  # noqa: SIM115 - closed when it is let go
            self._file.truncate(int(np.prod(self.shape)) * self.dtype.itemsize)
        except OSError as error:
            raise atomic.unwritable_error(error, self._folder) from error
        if self._fill:
            row = np.full((1, *self._plane), self._fill, self.dtype)
            for number in range(self.shape[walked]):
                self._write(number, row)

    @property
    def _plane(self) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in self._order[1:])

    @property
    def _row_bytes(self) -> int:
        return int(np.prod(self._plane)) * self.dtype.itemsize

    def _rows(self, start: int, stop: int) -> Array:
        rows = np.empty((stop - start, *self._plane), self.dtype)
        file, view = self._at(start), rows.reshape(-1).view(np.uint8).data
        while view and (got := file.readinto(view)):
            view = view[got:]
        return rows

    def _write(self, start: int, rows: Array) -> None:
        view = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
        try:
            file = self._at(start)
            while view:
                view = view[file.write(view) :]
        except OSError as error:
            raise atomic.unwritable_error(error, self._folder) from error

    def _at(self, row: int) -> FileIO:
        assert self._file is not None  # noqa: S101 - `_create_file` has opened it
        self._file.seek(row * self._row_bytes)
        return self._file

    def __reduce__(self) -> tuple[Any, ...]:
        return _hold, (self.load(),)  # a file without a name cannot cross processes


@dataclass(frozen=True, eq=False)
class _Stacked:
    """Several arrays of one shape as the first axis of one."""

    arrays: Sequence[Spool]
    dtype: np.dtype[Any]

    def __call__(self) -> Array:
        return np.stack([one.load() for one in self.arrays]).astype(self.dtype)

    def part(self, region: tuple[slice, ...]) -> Array:
        """The arrays and the part of them that lie in a region."""
        return np.stack([one[region[1:]] for one in self.arrays[region[0]]]).astype(self.dtype)


def stack_spools(arrays: Sequence[Spool], dtype: np.dtype[Any]) -> Deferred:
    """(arrays, *shape) of several arrays of one shape, read in parts."""
    stacked = _Stacked(arrays, dtype)
    return Deferred((len(arrays), *arrays[0].shape), dtype, stacked, stacked.part)


def _hold(array: Array) -> Spool:
    spool = Spool((0,), array.dtype)
    spool.shape, spool._held = array.shape, array
    return spool

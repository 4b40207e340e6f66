"""Blocks of voxels in a file, plain or compressed, read on demand."""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from isocenter.errors import FormatError, ResourceError
from isocenter.files.complex_part import real_part
from isocenter.files.format import Part
from isocenter.values import Array, Deferred

Compression = Literal["none", "gzip", "bzip2", "zlib", "text"]
GZIP: Compression = "gzip"
PACKED, DEFLATED = ("gzip", "bzip2", "zlib"), ("gzip", "zlib")
GZIP_MAGIC = b"\x1f\x8b"
CHUNK = 1 << 22
# RFC 1951: a match of 258 bytes costs at least two bits, so nothing inflates further than this.
LARGEST_INFLATION = 1032


@dataclass(frozen=True)
class Block:
    """The place of a file's voxels and the meaning of their numbers.

    dtype:       with its byte order
    shape:       per axis, the axis that changes fastest first
    axes:        which of these axes become (channels[, frames], *spatial)
    start:       byte of the file at which the (compressed) stream starts
    offset:      byte of the uncompressed stream at which the voxels start
    slope, intercept: value = slope * stored + intercept
    part:        which part of complex voxels is meant
    """

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    start: int = 0
    offset: int = 0
    compression: Compression = "none"
    slope: float = 1.0
    intercept: float = 0.0
    part: Part | None = None

    def __post_init__(self) -> None:
        if min(self.shape, default=0) < 1 or min(self.start, self.offset) < 0:
            problem = f"a volume of {self.shape} voxels from byte {self.start} + {self.offset} on"
            raise FormatError(problem, str(self.path), "The header is damaged: get it again")
        is_complex = np.issubdtype(self.dtype, np.complexfloating)
        if not (is_complex or is_number(self.dtype)) or self.dtype.itemsize > (16 if is_complex else 8):
            raise FormatError(f"voxels of type {self.dtype}", str(self.path), "Convert them to a common number type")
        if is_complex and self.part is None:
            raise FormatError(
                "the voxels are complex numbers",
                str(self.path),
                "Choose what to read with --part magnitude, real, imaginary or phase",
            )
        self._refuse_if_short()

    @property
    def nbytes(self) -> int:
        """The size of all voxels without compression."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def value_dtype(self) -> np.dtype[Any]:
        """Of the values after scaling: the stored type where nothing is scaled, else the float that is exact enough."""
        stored = self.dtype.newbyteorder("=")
        if np.issubdtype(stored, np.complexfloating):
            stored = np.dtype(np.float32 if stored.itemsize == 8 else np.float64)
        if (self.slope, self.intercept) == (1.0, 0.0):
            return stored
        if np.issubdtype(stored, np.floating):
            return stored if stored.itemsize >= 4 else np.dtype(np.float32)
        top = float(np.iinfo(stored).max) if np.issubdtype(stored, np.integer) else 1.0
        # float32 has 24 bits: a step of the stored number must stay a hundred times coarser than rounding.
        exact = top + abs(self.intercept / self.slope) < 2**24 / 100
        return np.dtype(np.float32 if exact else np.float64)

    def deferred(self) -> Deferred:
        """The values, (channels[, frames], *spatial), not read yet."""
        shape = tuple(self.shape[axis] for axis in self.axes)
        return Deferred(shape, self.value_dtype, self.load, self.region, partial(_Cursor, self) if self._slow else None)

    @property
    def _slow(self) -> int | None:
        """The axis whose slices follow each other in a compressed file, where it is an axis of space."""
        slowest = max((axis for axis, size in enumerate(self.shape) if size > 1), default=0)
        return slowest if self.compression in PACKED and slowest in self.axes[1:] else None

    def load(self) -> Array:
        """(channels[, frames], *spatial) values."""
        return self._values(self._stored((slice(None),) * len(self.shape)))

    def region(self, region: tuple[slice, ...]) -> Array:
        """`load()[region]`; of a compressed file no more is inflated than must be passed on the way."""
        if any(not isinstance(part, slice) or part.step not in (None, 1) for part in region):
            return self.load()[region]
        wanted = [slice(None)] * len(self.shape)
        for axis, part in zip(self.axes, region, strict=False):
            wanted[axis] = part
        return self._values(self._stored(tuple(wanted)))

    def _stored(self, wanted: tuple[slice, ...]) -> Array:
        """The voxels as they stand in the file, axes in the file's order."""
        if not is_compressed(self.compression):
            where = self.start + self.offset
            mapped = np.memmap(self.path, self.dtype, "r", offset=where, shape=self.shape, order="F")
            return np.array(mapped[wanted])  # a copy: the file may go away
        if self.compression not in PACKED:
            return self._spelled().reshape(self.shape, order="F")[wanted]
        bounds = [part.indices(size)[:2] for part, size in zip(wanted, self.shape, strict=True)]
        axis, first = len(self.shape) - 1, 0
        while axis > 0 and bounds[axis][1] - bounds[axis][0] == 1:  # one slice of the slowest axis: pass what is before
            first += bounds[axis][0] * prod(self.shape[:axis])
            axis -= 1
        low, high = bounds[axis]
        first += low * prod(self.shape[:axis])
        shape = (*self.shape[:axis], max(0, high - low), *(1 for _ in bounds[axis + 1 :]))
        stored = self._inflated(first, prod(shape)).reshape(shape, order="F")
        return np.asarray(stored[tuple(wanted[:axis])])

    def _inflated(self, first: int, count: int) -> Array:
        """`count` stored numbers from the `first` on."""
        try:
            stored = np.empty(count, self.dtype)
        except MemoryError as error:
            needed = count * self.dtype.itemsize / 2**30
            raise ResourceError(f"needs {needed:.1f} GiB of memory", str(self.path), "Read it in parts") from error
        view = memoryview(stored.view(np.uint8))  # type: ignore[arg-type]
        skip = self.offset + first * self.dtype.itemsize
        with self._stream() as stream:
            done = _skip(stream, skip)
            filled = 0
            while done == skip and filled < len(view) and (got := stream.readinto(view[filled:])):  # type: ignore[attr-defined]
                filled += got
            if done < skip or filled < len(view):
                raise self._short(done + filled)
            if first + count == prod(self.shape):
                stream.read(1)  # the check sum stands past the end, and only then is it verified
        return stored

    def _spelled(self) -> Array:
        """All stored numbers of a file that has them as text."""
        with self.path.open("rb") as file:
            file.seek(self.start + self.offset)
            words = file.read().split()[: prod(self.shape)]
        if len(words) < prod(self.shape):
            raise self._broken(f"the voxels are cut short: {prod(self.shape)} numbers are promised, {len(words)} there")
        try:
            return np.array(words, dtype="S").astype(self.dtype)
        except (ValueError, OverflowError) as error:
            raise self._broken(f"a voxel is no number ({error})") from error

    def _values(self, stored: Array) -> Array:
        values = stored.transpose(self.axes).astype(self.dtype.newbyteorder("="), copy=False)
        if self.part is not None:
            values = real_part(values, self.part, str(self.path))
        if (self.slope, self.intercept) == (1.0, 0.0):
            return np.asarray(values.astype(self.value_dtype, copy=False))
        scaled = np.empty_like(values, dtype=self.value_dtype)
        for index in range(values.shape[-1]):  # in 64 bits, but one slice at a time
            scaled[..., index] = values[..., index].astype(np.float64) * self.slope + self.intercept
        return scaled

    @contextmanager
    def _stream(self) -> Iterator[BinaryIO]:
        """The uncompressed bytes; what a damaged stream raises becomes a FormatError."""
        with self._named(), self.path.open("rb") as file:
            file.seek(self.start)
            with _uncompressed(file, self.compression) as stream:
                yield stream

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except EOFError as error:
            raise self._broken("the compressed voxels end too early") from error
        except (zlib.error, gzip.BadGzipFile, OSError) as error:
            raise self._broken(f"the compressed voxels are damaged ({error})") from error

    def _refuse_if_short(self) -> None:
        """Refuse a file that is cut short before it is read, as far as that is cheap."""
        needed, size = self.offset + self.nbytes, self.path.stat().st_size - self.start
        if not is_compressed(self.compression):
            if size < needed:
                raise self._short(max(size, 0))
        elif self.compression in DEFLATED and size * LARGEST_INFLATION < needed:
            raise self._broken(f"{size} compressed bytes cannot hold the {needed} that the header promises")
        elif self.compression == GZIP and self._promised_by_gzip() != needed % 2**32:
            with self._stream() as stream:  # several members or bytes after the voxels are legal: count
                count = _skip(stream, needed)
                stream.read(1)  # a missing end of the stream raises here
            if count < needed:
                raise self._short(count)

    def _promised_by_gzip(self) -> int:
        """RFC 1952: the last four bytes are the size of what was compressed, modulo 2**32."""
        with self.path.open("rb") as file:
            file.seek(-4, io.SEEK_END)
            return int.from_bytes(file.read(4), "little")

    def _short(self, count: int) -> FormatError:
        return self._broken(
            f"the voxels are cut short: the header promises {self.offset + self.nbytes} bytes and there are {count}"
        )

    def _broken(self, problem: str) -> FormatError:
        return FormatError(problem, str(self.path), "Get the file again from where it came from")


class _Cursor:
    """Parts of a compressed file in the order of its slices: what comes after the last part is not inflated anew.

    The slices of the last part are kept, so that the next one may start among them. One that starts before them
    is read from the start of the file again.
    """

    def __init__(self, block: Block) -> None:
        self._block = block
        self._axis = block._slow or 0
        self._slice = prod(block.shape[: self._axis])
        self._first = self._at = 0
        self._kept = np.empty((*block.shape[: self._axis], 0), block.dtype, order="F")
        self._open = ExitStack()
        self._stream: BinaryIO | None = None

    def __call__(self, region: tuple[slice, ...]) -> Array:
        block = self._block
        wanted = [slice(None)] * len(block.shape)
        for axis, part in zip(block.axes, region, strict=False):
            wanted[axis] = part
        low, high, step = wanted[self._axis].indices(block.shape[self._axis])
        if step != 1 or low >= high:
            return block.region(region)
        with block._named():
            stored = self._slices(low, high)
        after = (1,) * (len(block.shape) - self._axis - 1)
        stored = stored.reshape((*stored.shape, *after), order="F")
        wanted[self._axis] = slice(None)
        return block._values(stored[tuple(wanted)])

    def _slices(self, low: int, high: int) -> Array:
        """(..., high - low) the slices of the slowest axis, as they are stored."""
        if self._stream is None or low < self._first:
            self._restart()
        new = max(low, self._at)
        if new > self._at:
            self._pass((new - self._at) * self._slice * self._block.dtype.itemsize)
        parts = [self._kept[..., low - self._first :]] if low < self._at else []
        if high > new:
            parts.append(self._read(high - new))
        self._kept = parts[0] if len(parts) == 1 else np.asfortranarray(np.concatenate(parts, axis=-1))
        self._first, self._at = low, max(high, self._at)
        return self._kept[..., : high - low]

    def _restart(self) -> None:
        self._open.close()
        self._first = self._at = 0
        self._kept = self._kept[..., :0]
        self._stream = self._open.enter_context(self._block._stream())
        self._pass(self._block.offset)

    def _pass(self, count: int) -> None:
        assert self._stream is not None  # noqa: S101 - `_restart` has opened it
        done = _skip(self._stream, count)
        if done < count:
            raise EOFError

    def _read(self, count: int) -> Array:
        assert self._stream is not None  # noqa: S101 - `_restart` has opened it
        stored = np.empty(count * self._slice, self._block.dtype)
        view, filled = memoryview(stored.view(np.uint8)), 0  # type: ignore[arg-type]
        while filled < len(view) and (got := self._stream.readinto(view[filled:])):  # type: ignore[attr-defined]
            filled += got
        if filled < len(view):
            raise EOFError
        if self._at + count == self._block.shape[self._axis]:
            self._stream.read(1)  # the check sum stands past the end, and only then is it verified
        return stored.reshape((*self._block.shape[: self._axis], count), order="F")


def is_number(dtype: np.dtype[Any]) -> bool:
    """Whether values of this type are integers, floats or truths."""
    return dtype.kind in "biuf"


def is_compressed(compression: Compression) -> bool:
    """Whether the voxels do not lie in the file as they are in memory."""
    return compression != "none"


def compression_of(path: Path) -> Compression:
    """Whether the whole file is a gzip stream, by its first bytes and not by its name."""
    with path.open("rb") as file:
        return GZIP if file.read(2) == GZIP_MAGIC else "none"


def read_head(path: Path, size: int, *, after: int = 0) -> bytes:
    """The first `size` bytes (after some others) of a plain or gzipped file, or as many as there are."""
    with path.open("rb") as file, _uncompressed(file, compression_of(path)) as stream:
        try:
            return stream.read(size) if _skip(stream, after) == after else b""
        except (EOFError, zlib.error, OSError) as error:
            raise FormatError(
                f"the compressed header is damaged ({error})", str(path), "Get the file again from where it came from"
            ) from error


def _uncompressed(file: BinaryIO, compression: Compression) -> BinaryIO:
    return STREAMS[compression](file) if compression in STREAMS else file


class _Inflating(io.RawIOBase):
    """A zlib stream as a file: the standard library has one for gzip only."""

    def __init__(self, file: BinaryIO, wbits: int) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(wbits)

    def readable(self) -> bool:
        """True: the interface of io.RawIOBase."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with inflated bytes; how many there were, 0 at the end."""
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(CHUNK)
            plain = self._inflate.decompress(packed, len(buffer))
            if plain:
                buffer[: len(plain)] = plain
                return len(plain)
            if not packed:
                raise EOFError
        return 0


def inflating(file: BinaryIO, wbits: int = zlib.MAX_WBITS) -> io.BufferedReader:
    """What a zlib stream holds, read in parts; `wbits` below 0 for one without header and check sum."""
    return io.BufferedReader(_Inflating(file, wbits), CHUNK)


def _skip(stream: BinaryIO, count: int) -> int:
    """Pass over `count` bytes; how many there were."""
    done = 0
    while done < count and (got := len(stream.read(min(CHUNK, count - done)))):
        done += got
    return done


STREAMS: dict[Compression, Callable[[BinaryIO], Any]] = {
    "gzip": lambda file: gzip.GzipFile(fileobj=file),
    "bzip2": bz2.BZ2File,
    "zlib": inflating,
}

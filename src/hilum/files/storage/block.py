"""Blocks of voxels in a file, plain or compressed, read on demand."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from hilum.errors import FormatError
from hilum.files import format_options
from hilum.files.format_options import Part
from hilum.files.storage import packed_files, spool
from hilum.files.storage.packed_files import GET_AGAIN, GZIP, HEX, Compression
from hilum.values import Array, Deferred

PACKED, DEFLATED = ("gzip", "bzip2", "zlib", "hex"), ("gzip", "zlib")
# RFC 1951: a match of 258 bytes costs at least two bits, so nothing inflates further than this.
LARGEST_INFLATION = 1032
# A stream that claims to be larger than this, and this many times its own size, is counted before it is believed.
UNCOUNTED_BYTES, UNCOUNTED_RATIO = 1 << 26, 20
# Numbers that are converted at a time: what is held beside the result stays small.
AT_ONCE = 1 << 19
# Each channel has a name in memory, whatever little its voxels take.
MOST_CHANNELS = 1 << 16
LONGEST_WORD = 1 << 10


@dataclass(frozen=True)
class VoxelBlock:
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
        if self.shape[self.axes[0]] > MOST_CHANNELS:
            raise FormatError(
                f"{self.shape[self.axes[0]]} channels", str(self.path), "The header is damaged: get it again"
            )
        is_complex = np.issubdtype(self.dtype, np.complexfloating)
        if not (is_complex or is_number(self.dtype)) or self.dtype.itemsize > (16 if is_complex else 8):
            raise FormatError(f"voxels of type {self.dtype}", str(self.path), "Convert them to a common number type")
        if is_complex and self.part is None:
            raise FormatError(
                "the voxels are complex numbers",
                str(self.path),
                "Choose what to read with --part magnitude, real, imaginary or phase",
            )
        refuse_unusable_scale(
            self.slope, self.intercept, largest_stored(self.dtype), str(self.path), "its scale factors"
        )
        self._refuse_if_short()

    @property
    def nbytes(self) -> int:
        """The size of all voxels without compression."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def value_dtype(self) -> np.dtype[Any]:
        """The type of scaled values: the stored one where nothing is scaled, else the float that is exact enough."""
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

    def defer(self) -> Deferred:
        """The values, (channels[, frames], *spatial), not read yet."""
        shape = tuple(self.shape[axis] for axis in self.axes)
        streams = self._slow is not None and not self._is_large
        return Deferred(shape, self.value_dtype, self.load, self.region, partial(_Cursor, self) if streams else None)

    @property
    def _slow(self) -> int | None:
        """The axis whose slices follow each other in a compressed file, where it is an axis of space."""
        slowest = max((axis for axis, size in enumerate(self.shape) if size > 1), default=0)
        return slowest if self.compression in PACKED and slowest in self.axes[1:] else None

    def load(self) -> Array:
        """(channels[, frames], *spatial) values; large ones stay on disk."""
        return self._on_disk if self._is_large else self.region(())

    @property
    def _is_large(self) -> bool:
        return prod(self.shape) * self.value_dtype.itemsize >= spool.MAPPED_BYTES

    @cached_property
    def _on_disk(self) -> Array:
        """All values, in the file itself where they lie there as they are in memory, else in a temporary one."""
        if packed_files.is_compressed(self.compression) or self._is_scaled or self.dtype != self.value_dtype:
            return self._read_region([(0, size) for size in self.shape]).transpose(self.axes)
        return self._mapped().transpose(self.axes)

    def _mapped(self) -> Array:
        self._refuse_if_short()  # it may have been cut since its header was read
        # Copied where it is written to: the file stays as it is.
        return np.memmap(self.path, self.dtype, "c", self.start + self.offset, self.shape, order="F")

    def __getstate__(self) -> object:
        return {name: value for name, value in self.__dict__.items() if name != "_on_disk"}

    def region(self, region: tuple[slice, ...]) -> Array:
        """`load()[region]`; of a compressed file no more is inflated than must be passed on the way."""
        if self._is_large and packed_files.is_compressed(
            self.compression
        ):  # once: regions of it are asked for again and again
            return self._on_disk[region]
        if any(not isinstance(part, slice) or part.step not in (None, 1) for part in region):
            return self.load()[region]
        slices = [slice(None)] * len(self.shape)
        for axis, part in zip(self.axes, region, strict=False):
            slices[axis] = part
        bounds = [part.indices(size)[:2] for part, size in zip(slices, self.shape, strict=True)]
        return self._read_region(bounds).transpose(self.axes)

    def _read_region(self, bounds: Sequence[tuple[int, int]]) -> Array:
        """The values within (start, stop) along each axis, axes in the file's order; converted a few at a time."""
        sizes = tuple(max(0, high - low) for low, high in bounds)
        if self.compression == "text" and sizes != self.shape:  # where a number stands is known only by those before
            return self._read_region([(0, size) for size in self.shape])[
                tuple(slice(low, high) for low, high in bounds)
            ]
        values = spool.room((prod(sizes),), self.value_dtype, str(self.path))
        if 0 in sizes:
            return values.reshape(sizes, order="F")
        axis = len(sizes) - 1
        while axis > 0 and sizes[axis] == 1:  # one slice of the slowest axis: pass what is before
            axis -= 1
        first = sum(low * prod(self.shape[:n]) for n, (low, _) in enumerate(bounds) if n >= axis)
        inner = tuple(slice(low, high) for low, high in bounds[:axis])
        if self.compression == "text":
            self._fill_from_text(values)
        elif sizes[:axis] == self.shape[:axis]:
            self._fill(values, first)
        elif packed_files.is_compressed(self.compression):
            self._fill_from_slices(values, first, inner)
        else:
            index: tuple[Any, ...] = (*inner, slice(*bounds[axis]), *(low for low, _ in bounds[axis + 1 :]))
            cut = self._mapped()[index]
            step = max(1, AT_ONCE // prod(sizes[:axis]))
            for start in range(0, sizes[axis], step):
                self._place(values, start * prod(sizes[:axis]), cut[..., start : start + step])
        return values.reshape(sizes, order="F")

    def _fill(self, values: Array, first: int) -> None:
        """All of `values` from the stored numbers that follow each other from the `first` on."""
        with self._stream(first) as stream:
            for start in range(0, len(values), AT_ONCE):
                part = values[start : start + AT_ONCE]
                if self.dtype == self.value_dtype and not self._is_scaled:
                    self._next(stream, part, first + start)
                else:
                    stored = np.empty(len(part), self.dtype)
                    part[...] = self._values(self._next(stream, stored, first + start))
            if first + len(values) == prod(self.shape):
                stream.read(1)  # the check sum stands past the end, and only then is it verified

    def _fill_from_slices(self, values: Array, first: int, inner: tuple[slice, ...]) -> None:
        """All of `values` from a part of each slice; the slices follow each other from the `first` number on."""
        plane = self.shape[: len(inner)]
        voxels = prod(own.stop - own.start for own in inner)
        step = max(1, AT_ONCE // prod(plane))
        with self._stream(first) as stream:
            for start in range(0, len(values) // voxels, step):
                count = min(step, len(values) // voxels - start)
                stored = np.empty(prod(plane) * count, self.dtype)
                self._next(stream, stored, first + start * prod(plane))
                self._place(values, start * voxels, stored.reshape((*plane, count), order="F")[inner])

    def _place(self, values: Array, start: int, part: Array) -> None:
        values[start : start + part.size] = self._values(part).ravel(order="F")

    def _next(self, stream: BinaryIO, numbers: Array, before: int) -> Array:
        """The next stored numbers of a stream, in the array that is given; `before`: how many precede them"""
        view, filled = numbers.view(np.uint8).data, 0
        while filled < len(view) and (got := stream.readinto(view[filled:])):  # type: ignore[attr-defined]  # the type of binary files lacks it
            filled += got
        if filled < len(view):
            raise self._short(self.offset + before * self.dtype.itemsize + filled)
        return numbers

    def _fill_from_text(self, values: Array) -> None:
        """All values of a file that has them as text."""
        done, rest = 0, b""
        with self.path.open("rb") as file:
            file.seek(self.start + self.offset)
            while done < len(values) and (text := file.read(AT_ONCE)):
                words = (rest + text).split()
                rest = words.pop() if words and not text[-1:].isspace() else b""
                if len(rest) > LONGEST_WORD:
                    raise self._broken("a voxel is not a number")
                done += self._put_words(values[done:], words)
        done += self._put_words(values[done:], rest.split())
        if done < len(values):
            raise self._broken(f"the voxels are cut short: {len(values)} numbers are promised, {done} there")

    def _put_words(self, room: Array, words: list[bytes]) -> int:
        """Write the numbers of words into the room that there is; return how many."""
        words = words[: len(room)]
        try:
            room[: len(words)] = self._values(np.array(words, dtype="S").astype(self.dtype))
        except (ValueError, OverflowError) as error:
            raise self._broken(f"a voxel is not a number ({error})") from error
        return len(words)

    @property
    def _is_scaled(self) -> bool:
        return (self.slope, self.intercept) != (1.0, 0.0)

    def _values(self, stored: Array) -> Array:
        """The values that stored numbers mean."""
        values = stored.astype(self.dtype.newbyteorder("="), copy=False)
        if self.part is not None:
            values = format_options.real_part(values, self.part, str(self.path))
        if not self._is_scaled:
            return np.asarray(values.astype(self.value_dtype, copy=False))
        scaled = np.empty_like(values, dtype=self.value_dtype)
        for index in range(values.shape[-1] if values.ndim > 1 else 1):  # in 64 bits, but one slice at a time
            part = (..., index) if values.ndim > 1 else ...
            scaled[part] = values[part].astype(np.float64) * self.slope + self.intercept
        return scaled

    @contextmanager
    def _stream(self, first: int = 0) -> Iterator[BinaryIO]:
        """The uncompressed bytes from a stored number on; what a damaged stream raises becomes a FormatError."""
        at = self.offset + first * self.dtype.itemsize
        with packed_files.name_damage(self.path), self.path.open("rb", buffering=0) as file:
            file.seek(self.start)
            if not packed_files.is_compressed(self.compression):
                file.seek(at, io.SEEK_CUR)
                yield file
                return
            with packed_files.decompress_stream(file, self.compression) as stream:
                if (done := packed_files.skip_bytes(stream, at)) < at:
                    raise self._short(done)
                yield stream

    def _refuse_if_short(self) -> None:
        """Refuse a file that is cut short, or that claims more than it holds, before anything is allocated."""
        needed, size = self.offset + self.nbytes, self.path.stat().st_size - self.start
        if self.compression == "none":
            if size < needed:
                raise self._short(max(size, 0))
            return
        if self.compression == "text":
            if size < self.offset + 2 * prod(self.shape) - 1:  # a digit each, and a space between two
                raise self._broken(f"{size} bytes of text cannot be {prod(self.shape)} numbers")
            return
        if self.compression == HEX:
            if size < 2 * needed:
                raise self._short(max(size, 0) // 2)
            return
        if self.compression in DEFLATED and size * LARGEST_INFLATION < needed:
            raise self._broken(f"{size} compressed bytes cannot hold the {needed} that the header promises")
        packed_files.refuse_expansion(size, needed, str(self.path))
        doubtful = needed > max(UNCOUNTED_BYTES, UNCOUNTED_RATIO * size)
        if doubtful or (self.compression == GZIP and self._promised_by_gzip() != needed % 2**32):
            self._count(needed)

    def _count(self, needed: int) -> None:
        """Refuse a stream that ends before so many bytes; several members and bytes after the voxels are legal."""
        with packed_files.name_damage(self.path), self.path.open("rb") as file:
            file.seek(self.start)
            with packed_files.decompress_stream(file, self.compression) as stream:
                if (count := packed_files.skip_bytes(stream, needed)) < needed:
                    raise self._short(count)
                stream.read(1)  # a missing end of the stream raises here

    def _promised_by_gzip(self) -> int:
        """RFC 1952: the last four bytes are the size of what was compressed, modulo 2**32."""
        with self.path.open("rb") as file:
            file.seek(-4, io.SEEK_END)
            return int.from_bytes(file.read(4), "little")

    @property
    def surplus(self) -> int:
        """Bytes behind the voxels, as far as the file states its size."""
        size = {"none": lambda: self.path.stat().st_size - self.start, GZIP: self._promised_by_gzip}
        return max(0, size[self.compression]() - self.offset - self.nbytes) if self.compression in size else 0

    @property
    def surplus_notes(self) -> tuple[str, ...]:
        """The note on bytes behind the voxels; none where there are none."""
        return (f"{self.surplus} bytes behind the voxels were left out.",) if self.surplus else ()

    def refuse_unplaced(self, header: Path, key: str, remedy: str) -> None:
        """Raise FormatError for a file beside its header with more bytes than that describes.

        They may be a header of its own. key: which the header lacks, and which would say where the voxels begin
        """
        if self.surplus:
            named = f"{self.path.name} holds {self.surplus} bytes more than the header describes"
            raise FormatError(f"{named}, and no `{key}` says where", str(header), remedy)

    def _short(self, count: int) -> FormatError:
        return self._broken(
            f"the voxels are cut short: the header promises {self.offset + self.nbytes} bytes and there are {count}"
        )

    def _broken(self, problem: str) -> FormatError:
        return FormatError(problem, str(self.path), GET_AGAIN)


class _Cursor:
    """Parts of a compressed file in the order of its slices: what comes after the last part is not inflated anew.

    The slices of the last part are kept, so that the next one may start among them. One that starts before them
    is read from the start of the file again.
    """

    def __init__(self, block: VoxelBlock) -> None:
        self._block = block
        self._axis = block._slow or 0
        self._slice = prod(block.shape[: self._axis])
        self._first = self._at = 0
        self._kept = np.empty((*block.shape[: self._axis], 0), block.dtype, order="F")
        self._open = ExitStack()
        self._stream: BinaryIO | None = None

    def __call__(self, region: tuple[slice, ...]) -> Array:
        block = self._block
        slices = [slice(None)] * len(block.shape)
        for axis, part in zip(block.axes, region, strict=False):
            slices[axis] = part
        low, high, step = slices[self._axis].indices(block.shape[self._axis])
        if step != 1 or low >= high:
            return block.region(region)
        with packed_files.name_damage(block.path):
            stored = self._slices(low, high)
        after = (1,) * (len(block.shape) - self._axis - 1)
        stored = stored.reshape((*stored.shape, *after), order="F")
        slices[self._axis] = slice(None)
        return block._values(stored[tuple(slices)]).transpose(block.axes)

    def _slices(self, low: int, high: int) -> Array:
        """(..., high - low) the slices of the slowest axis, as they are stored."""
        if self._stream is None or low < self._first:
            self._restart()
        new = max(low, self._at)
        if new > self._at:
            self._pass(new - self._at)
        parts = [self._kept[..., low - self._first :]] if low < self._at else []
        if high > new:
            parts.append(self._read_bytes(high - new))
        self._kept = parts[0] if len(parts) == 1 else np.asfortranarray(np.concatenate(parts, axis=-1))
        self._first, self._at = low, max(high, self._at)
        return self._kept[..., : high - low]

    def _restart(self) -> None:
        self._open.close()
        self._first = self._at = 0
        self._kept = self._kept[..., :0]
        self._stream = self._open.enter_context(self._block._stream())

    def _pass(self, count: int) -> None:
        assert self._stream is not None  # noqa: S101 - `_restart` has opened it
        size = self._slice * self._block.dtype.itemsize
        if (done := packed_files.skip_bytes(self._stream, count * size)) < count * size:
            raise self._block._short(self._block.offset + self._at * size + done)

    def _read_bytes(self, count: int) -> Array:
        assert self._stream is not None  # noqa: S101 - `_restart` has opened it
        at = max(self._at, self._first)
        stored = np.empty(count * self._slice, self._block.dtype)
        self._block._next(self._stream, stored, at * self._slice)
        if at + count == self._block.shape[self._axis]:
            self._stream.read(1)  # the check sum stands past the end, and only then is it verified
        return stored.reshape((*self._block.shape[: self._axis], count), order="F")


def is_number(dtype: np.dtype[Any]) -> bool:
    """Whether values of this type are integers, floats or truths."""
    return dtype.kind in "biuf"


# float32 ends at 3e38 and loses its digits below 1e-38: no quantity in an image comes near either.
LARGEST_VALUE, SMALLEST_SLOPE = 1e30, 1e-30


def refuse_unusable_scale(
    slope: ArrayLike, intercept: ArrayLike, top: float, where: str, fields: str, *, takes_zero: bool = False
) -> None:
    """Raise FormatError for factors with which values are not finite, do not fit float32, or are all the same.

    slope, intercept: one, or one a slice: value = slope * stored + intercept
    top:              the largest stored number; infinite where stored numbers are floats
    fields:           names of the factors in the header
    takes_zero:       whether a slope of 0 is valid: a blank slice, no dose
    """
    slopes, intercepts = np.asarray(slope, np.float64), np.asarray(intercept, np.float64)
    values = np.abs(slopes) * (top if np.isfinite(top) else 1.0) + np.abs(intercepts)
    least = np.where(slopes == 0, SMALLEST_SLOPE, np.abs(slopes)) if takes_zero else np.abs(slopes)
    # Not a number is in no range, so it is refused as well.
    if not ((values <= LARGEST_VALUE) & (least >= SMALLEST_SLOPE)).all():
        factors = f"slope {_extreme(slopes)}, intercept {_extreme(intercepts)}"
        raise FormatError(f"{fields} give no usable values ({factors})", where, "Correct the header")


def largest_stored(dtype: np.dtype[Any]) -> float:
    """The largest magnitude of a stored whole number; infinite for floats."""
    return float(max(np.iinfo(dtype).max, -np.iinfo(dtype).min)) if dtype.kind in "iu" else np.inf


def _extreme(factors: Any) -> str:
    """The factor that is farthest from 0, in words."""
    return f"{factors.flat[np.abs(factors).argmax()]:g}"

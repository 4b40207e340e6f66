"""Tools of all writers of volumes: number types that other programs read, axes in a file's order, even times."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import numpy as np

from hilum.errors import FormatError
from hilum.files.storage import block
from hilum.values import Array, Deferred, FactRule, Geometry, Image, voxel_images

# Smallest first: what a program from before 64-bit integers can still read.
INTEGERS = (np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)
WIDER = {np.dtype(np.bool_): np.uint8, np.dtype(np.float16): np.float32}
# Types that a slice can be written in before all others are seen.
KEPT = frozenset(np.dtype(kind) for kind in ("u1", "i2", "u2", "i4", "u4", "f4", "f8"))
COLOUR_CHANNELS = {3: ("R", "G", "B"), 4: ("R", "G", "B", "A")}


def facts_beside(source: str) -> tuple[FactRule, ...]:
    """What is done with what a header says of the file beside it that holds its voxels."""
    return (
        FactRule(source, "read", "where voxels begin in a file beside the header"),
        FactRule(source, "named", "bytes behind the voxels"),
        FactRule(source, "refused", "a longer header there that is not stated"),
    )


def storable_values(voxels: Array, *, where: str) -> Array:
    """The same values in a type that volume formats know: no bool, no float16, 64-bit integers only where needed."""
    if not block.is_number(voxels.dtype) or voxels.dtype.itemsize > 8:
        raise FormatError(f"voxels of type {voxels.dtype} cannot be written", where, "Write one part, or 64 bit floats")
    if voxels.dtype.newbyteorder("=") in WIDER:
        return voxels.astype(WIDER[voxels.dtype.newbyteorder("=")])
    if np.issubdtype(voxels.dtype, np.integer) and voxels.dtype.itemsize == 8:
        low, high = int(voxels.min()), int(voxels.max())
        fits = next(kind for kind in INTEGERS if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
        return voxels.astype(fits)
    return voxels


def in_file_order(voxels: Array, ndim: int, *, where: str) -> Array:
    """(channels[, frames], *spatial) as (i, j, k, frames, channels); a picture (row, column) as (column, row, 1).

    Raises FormatError for a series of one axis.
    """
    if ndim == 1:
        raise FormatError("a format of volumes holds no series", where, "Write it as .csv")
    if voxels.ndim == ndim + 1:
        voxels = voxels[:, np.newaxis]
    if ndim == 2:
        voxels = voxels.swapaxes(-1, -2)[..., np.newaxis]
    return voxels.transpose(2, 3, 4, 1, 0)


def channels_first(image: Image, where: str) -> Array:
    """The voxels as (channels, i, j[, k][, frames]), or (channels, column, row[, frames]) of a picture."""
    ordered = in_file_order(storable_values(image.data, where=where), image.geometry.ndim, where=where)
    if image.geometry.is_picture:
        ordered = ordered[:, :, 0]
    if image.frames is None:
        ordered = ordered[..., 0, :]
    return np.moveaxis(ordered, -1, 0)


def steps_without_sides(geometry: Geometry, where: str) -> tuple[float, ...]:
    """The voxel size along (i, j[, k]) for a format that holds nothing else of a grid without sides.

    The position is lost: without sides it means nothing. Raises FormatError where axes are turned or flipped.
    """
    linear = geometry.affine[:-1, :-1]
    if not np.allclose(linear, np.diag(geometry.steps), rtol=0, atol=1e-6 * max(geometry.steps)):
        raise FormatError("the format cannot hold rotated axes whose orientation is unknown", where, "Write it as NRRD")
    return geometry.steps if geometry.is_volume else geometry.steps[::-1]


class Writable(Protocol):
    """A file, or something that takes bytes as a file does."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Take the next bytes."""


def write_voxels(file: Writable, voxels: Array) -> None:
    """Voxels with the first axis fastest, one slice of the first two at a time, little-endian."""
    plain = voxels.astype(voxels.dtype.newbyteorder("<"), copy=False)
    if plain.T.flags.c_contiguous:  # they lie in memory as in the file
        file.write(plain.T.data)
        return
    for later in np.ndindex(plain.shape[:1:-1]):
        file.write(plain[(..., *later[::-1])].tobytes(order="F"))


def iterate_slices(image: Image, voxels: int = 2**22) -> Iterator[Array] | None:
    """The voxels of a volume that is not in memory, as (i, j, some k) after (i, j, some k), frame after frame.

    None where they are in memory already, where a clip would have to be decoded again for each frame, where
    there are channels, and where the smallest number type is known only from all voxels.
    """
    pixels = image.pixels
    if not isinstance(pixels, Deferred) or not image.geometry.is_volume or pixels.shape[0] != 1:
        return None
    if pixels.dtype.newbyteorder("=") not in KEPT:
        return None
    if image.frames is None:
        return _ahead(part[0] for _, part in voxel_images.walk_blocks(pixels, voxels))
    return _ahead(_frame_after_frame(pixels, image.frames, voxels)) if pixels.region is not None else None


def _ahead(parts: Iterator[Array]) -> Iterator[Array]:
    """The same parts, each read by a thread of its own while the one before it is written."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, parts, None)
        while (part := coming.result()) is not None:
            coming = pool.submit(next, parts, None)
            yield part


def _frame_after_frame(pixels: Deferred, frames: int, voxels: int) -> Iterator[Array]:
    read, (columns, rows, slices) = pixels.reader(), pixels.shape[2:]
    step = max(1, voxels // (columns * rows))
    for frame in range(frames):
        for start in range(0, slices, step):
            part = slice(start, min(start + step, slices))
            yield read((slice(0, 1), slice(frame, frame + 1), slice(0, columns), slice(0, rows), part))[0, 0]


@contextmanager
def create_file(path: Path, *, compressed: bool) -> Iterator[BinaryIO]:
    """A new file to write to, gzipped or plain; the same content always gives the same bytes."""
    with path.open("xb") as file:
        if not compressed:
            yield file
            return
        # Level 4 is within a few percent of 6 in size at half the time; no name and no date in the stream.
        with gzip.GzipFile("", "wb", 4, file, mtime=0) as stream:
            yield cast("BinaryIO", stream)


# Each frame has a time in memory, whatever little its voxels take.
MOST_FRAMES = 1 << 20


def even_times(step: float | None, frames: int, where: str) -> tuple[float, ...] | None:
    """s of each frame from the first; None where the step is unknown or cannot be.

    Raises FormatError for more frames than anybody takes.
    """
    if frames > MOST_FRAMES:
        raise FormatError(f"claims {frames} frames", where, "The header is damaged: get the file again")
    return tuple(n * step for n in range(frames)) if step is not None and np.isfinite(step) and step > 0 else None


def uniform_step(times: tuple[float, ...] | None) -> float | None:
    """Seconds between frames where they are even within 0.1 %, else None."""
    if times is None or len(times) < 2:
        return None
    steps = np.diff(times)
    step = (times[-1] - times[0]) / (len(times) - 1)
    return float(step) if step > 0 and np.allclose(steps, step, rtol=1e-3, atol=0) else None

"""NumPy's `.npy` and `.npz`: plain arrays of numbers, without size in mm. Nothing in them is ever executed.

Headers are read first, then numbers, some at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from hilum.errors import FormatError
from hilum.files import format_options, label_table, series
from hilum.files.format_options import Format, ReadOptions
from hilum.files.storage import block, packed_files
from hilum.values import Array, Geometry, Image, LazyMapping, Source

WRITTEN = ".npy"
COLOURS = (3, 4)
COLOUR_NAMES = ("R", "G", "B", "A")
COLOURED = "the last axis was read as colours"
AT_ONCE = 1 << 19
MOST_ARRAYS = 10_000
ARRAY_ERRORS = (ValueError, OSError, EOFError, RuntimeError)


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """The array of an `.npy`; the arrays of an `.npz` by name, but not the lists of numbers or names among them.

    One axis is a series, two are (rows, columns), three a volume; bytes with a last axis of 3 or 4 are colours. An
    archive of lists of one length is one series, each list a channel; the first is its axis where its name fits.
    Raises FormatError for objects, text, complex numbers without `part`, and other numbers of axes.
    """
    arrays = stated_arrays(path)
    if "acquisition" in arrays and arrays["acquisition"].is_text:
        raise FormatError("is a measurement, no image", str(path), "Make an image of it: hilum reconstruct")
    lists = [name for name, array in arrays.items() if len(array.shape) < 2 or array.is_text]
    if len(arrays) > 1 and all(len(array.shape) == 1 and block.is_number(array.dtype) for array in arrays.values()):
        return {path.stem: _series(arrays, path)}
    if len(lists) == len(arrays):
        lists = []  # nothing is an image, and the first is refused with the reason
    notes = (f"left out, because they are not images: {', '.join(lists)}",) if lists else ()
    images = {name: array for name, array in arrays.items() if name not in lists}
    if len(images) == 1:
        return {n: label_table.with_own_table(_image(one, options, notes), path) for n, one in images.items()}
    return LazyMapping({name: partial(_image, array, options, notes) for name, array in images.items()})


def write(image: Image, path: Path) -> None:
    """Write an `.npy`: the array as it is, colours last.

    Raises FormatError for what it cannot hold: frames, a place in the patient, channels that are no colours.
    """
    where, elsewhere = str(path), "Write .nii.gz or .nrrd"
    if path.suffix.lower() != WRITTEN:
        raise FormatError(f"{path.suffix} is not written", where, "Write .npy")
    if image.geometry.physical or image.geometry.oriented:
        raise FormatError("an array cannot hold where the voxels lie in mm", where, elsewhere)
    data, colours = image.data, len(image.channels) in COLOURS and image.dtype == np.uint8
    if image.frames is not None or not (len(image.channels) == 1 or colours):
        raise FormatError("an array does not say which axis holds frames or channels", where, elsewhere)
    if not colours and looks_coloured(data.dtype, data.shape[1:]):
        raise FormatError("its last axis would be taken for colours", where, elsewhere)
    write_array(np.moveaxis(data, 0, -1) if colours else data[0], path)


def write_array(array: Array, path: Path) -> None:
    """Write one array as an `.npy`, whole or with an OSError.

    NumPy itself hands numbers to a buffer of C, and does not hear that the disk was full when that was emptied.
    """
    ordered = np.ascontiguousarray(array)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(ordered))
        file.write(ordered.data)


def _series(arrays: Mapping[str, StatedArray], path: Path) -> Image:
    """Lists of one length as the channels of one series."""
    if len({array.shape for array in arrays.values()}) != 1:
        raise FormatError("holds no channels of one length", str(path), "Write as many samples for each channel")
    first = next(iter(arrays.values()))
    columns = np.empty((len(arrays), *first.shape), np.result_type(*(array.dtype for array in arrays.values())))
    for row, array in zip(columns, arrays.values(), strict=True):
        row[...] = load_numbers(array)
    return series.series_image(tuple(arrays), columns, path, "numpy")


def _image(file_array: StatedArray, options: ReadOptions, notes: tuple[str, ...]) -> Image:
    path, where = file_array.path, f"{file_array.path}, array {file_array.name}"
    is_complex = np.issubdtype(file_array.dtype, np.complexfloating)
    if not (is_complex or block.is_number(file_array.dtype)) or file_array.dtype.itemsize > (16 if is_complex else 8):
        problem = f"holds {file_array.dtype} values, not common numbers"
        raise FormatError(problem, where, "Save plain arrays of numbers")
    colours = looks_coloured(file_array.dtype, file_array.shape)
    if len(file_array.shape) not in ((3, 4) if colours else (1, 2, 3)) or 0 in file_array.shape:
        raise FormatError(
            f"an array of shape {file_array.shape} is not an image", where, "Save one image or volume per array"
        )
    array = load_numbers(file_array, partial(format_options.real_part, part=options.part, where=where))
    pixels = np.moveaxis(array, -1, 0) if colours else array[None]
    return Image(
        pixels,
        Geometry.of_pixels(pixels.shape[1:]),
        channels=COLOUR_NAMES[: len(pixels)] if colours else ("0",),
        notes=(*notes, COLOURED) if colours else notes,
        source=Source("numpy", (str(path),)),
    )


def looks_coloured(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
    """Whether the last axis of an array is taken for colours: bytes, three or four of them."""
    return dtype == np.uint8 and len(shape) in (3, 4) and shape[-1] in COLOURS and min(shape[:-1]) > 4


@dataclass(frozen=True)
class StatedArray:
    """The header of an array; packed: bytes that it takes in the file"""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_reversed: bool
    packed: int

    @property
    def is_text(self) -> bool:
        """Whether it holds names, not numbers."""
        return np.issubdtype(self.dtype, np.character)


def stated_arrays(path: Path) -> dict[str, StatedArray]:
    """The headers of all arrays by name; of an `.npy` the one, by the name of the file.

    Raises FormatError for objects, and for an array that claims more than the file holds.
    """
    names = array_names(path) if is_archive(path) else (path.stem,)
    return {name: _stated_array(path, name) for name in names}


def load_array(path: Path, name: str) -> Array:
    """One array of an archive, or the one of an `.npy`; pickled objects are refused."""
    return load_numbers(_stated_array(path, name))


def load_numbers(array: StatedArray, of: Callable[[Array], Array] | None = None) -> Array:
    """An array's numbers in the machine's byte order; `of` changes them, some at a time."""
    change = of or _itself
    kind = change(np.empty(0, array.dtype.newbyteorder("="))).dtype
    values = np.empty(math.prod(array.shape), kind)
    packed_files.refuse_expansion(array.packed, values.nbytes, str(array.path))
    step = max(1, (AT_ONCE * 8) // max(1, array.dtype.itemsize))
    with _member(array.path, array.name) as (stream, _, _):
        _header(stream)
        for start in range(0, len(values), step):
            part = values[start : start + step]
            raw = stream.read(len(part) * array.dtype.itemsize)
            if len(raw) < len(part) * array.dtype.itemsize:
                raise ValueError("it is cut short")
            part[...] = change(np.frombuffer(raw, array.dtype).astype(array.dtype.newbyteorder("="), copy=False))
        stream.read(1)  # an archive's check sum is verified at the end only
    return values.reshape(array.shape, order="F" if array.is_reversed else "C")


def array_names(path: Path) -> tuple[str, ...]:
    """The names of an archive's arrays. Raises FormatError for one without any, or with more than anybody saves."""
    with _errors_named(path), packed_files.open_zip(path) as archive:
        names = tuple(name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy"))
    if not names or len(names) > MOST_ARRAYS:
        raise FormatError(f"holds {len(names) or 'no'} arrays", str(path), "Save arrays with numpy.savez")
    return names


def is_archive(path: Path) -> bool:
    """Whether the file is a ZIP archive, as an `.npz` is."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _itself(values: Array) -> Array:
    return values


def _stated_array(path: Path, name: str) -> StatedArray:
    with _member(path, name) as (stream, size, packed):
        shape, is_reversed, dtype = _header(stream)
        if dtype.hasobject:
            raise ValueError("it holds objects that would have to be executed")
        needed = math.prod(shape) * dtype.itemsize
        if needed > size - stream.tell() or min(shape, default=0) < 0:
            problem = f"claims an array of {shape}, which is more than it holds"
            raise FormatError(problem, str(path), "It is cut short: get the file again")
        packed_files.refuse_expansion(packed, needed, str(path))
        return StatedArray(path, name, tuple(shape), dtype, is_reversed, packed)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return cast("tuple[tuple[int, ...], bool, np.dtype[Any]]", read(stream))


@contextmanager
def _member(path: Path, name: str) -> Iterator[tuple[IO[bytes], int, int]]:
    """(one array's bytes, how many they are, how many of the file they take)."""
    size = path.stat().st_size
    with _errors_named(path):
        if not is_archive(path):
            with path.open("rb") as file:
                yield file, size, size
            return
        with packed_files.open_zip(path) as archive:
            try:
                info = archive.getinfo(f"{name}.npy")
            except KeyError as error:
                raise FormatError(f"holds no array {name!r}", str(path), "Get the file again") from error
            with archive.open(info) as member:
                yield member, info.file_size, info.compress_size


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except ARRAY_ERRORS as error:
        raise FormatError(f"cannot be read ({error})", str(path), "Save plain arrays of numbers") from error


FORMAT = Format("numpy", read, write)

"""The arrays in NumPy's files: their headers first, then their numbers, some at a time. Nothing is ever executed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from isocenter.errors import FormatError
from isocenter.files.storage import opened_zip, refuse_expansion
from isocenter.values import Array

AT_ONCE = 1 << 19
MOST_ARRAYS = 10_000
ARRAY_ERRORS = (ValueError, OSError, EOFError, RuntimeError)


@dataclass(frozen=True)
class StatedArray:
    """What an array's header states; packed: bytes that it takes in the file"""

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
    return {name: _stated(path, name) for name in names}


def load_array(path: Path, name: str) -> Array:
    """One array of an archive, or the one of an `.npy`; pickled objects are refused."""
    return loaded(_stated(path, name))


def loaded(stated: StatedArray, of: Callable[[Array], Array] | None = None) -> Array:
    """An array's numbers in the machine's byte order; `of` changes them, some at a time."""
    change = of or _itself
    kind = change(np.empty(0, stated.dtype.newbyteorder("="))).dtype
    values = np.empty(math.prod(stated.shape), kind)
    refuse_expansion(stated.packed, values.nbytes, str(stated.path))
    step = max(1, (AT_ONCE * 8) // max(1, stated.dtype.itemsize))
    with _member(stated.path, stated.name) as (stream, _, _):
        _header(stream)
        for start in range(0, len(values), step):
            part = values[start : start + step]
            raw = stream.read(len(part) * stated.dtype.itemsize)
            if len(raw) < len(part) * stated.dtype.itemsize:
                raise ValueError("it is cut short")
            part[...] = change(np.frombuffer(raw, stated.dtype).astype(stated.dtype.newbyteorder("="), copy=False))
        stream.read(1)  # an archive's check sum is verified at the end only
    return values.reshape(stated.shape, order="F" if stated.is_reversed else "C")


def array_names(path: Path) -> tuple[str, ...]:
    """The names of an archive's arrays. Raises FormatError for one without any, or with more than anybody saves."""
    with _errors_named(path), opened_zip(path) as archive:
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


def _stated(path: Path, name: str) -> StatedArray:
    with _member(path, name) as (stream, size, packed):
        shape, is_reversed, dtype = _header(stream)
        if dtype.hasobject:
            raise ValueError("it holds objects that would have to be executed")
        needed = math.prod(shape) * dtype.itemsize
        if needed > size - stream.tell() or min(shape, default=0) < 0:
            problem = f"claims an array of {shape}, which is more than it holds"
            raise FormatError(problem, str(path), "It is cut short: get the file again")
        refuse_expansion(packed, needed, str(path))
        return StatedArray(path, name, tuple(shape), dtype, is_reversed, packed)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)


@contextmanager
def _member(path: Path, name: str) -> Iterator[tuple[IO[bytes], int, int]]:
    """(one array's bytes, how many they are, how many of the file they take)."""
    size = path.stat().st_size
    with _errors_named(path):
        if not is_archive(path):
            with path.open("rb") as file:
                yield file, size, size
            return
        with opened_zip(path) as archive:
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

"""NumPy's `.npy` and `.npz`: plain arrays of numbers, without size in mm. Nothing in them is ever executed."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from isocenter.errors import FormatError
from isocenter.files.complex_part import real_part
from isocenter.files.format import Format, ReadOptions
from isocenter.files.series import series
from isocenter.files.storage import is_number
from isocenter.values import Array, Geometry, Image, Source

WRITTEN = ".npy"
COLOURS = (3, 4)
# Deflate packs at most 1032 to 1; beyond this ratio a large array is a claim.
LARGE_BYTES, RATIO = 1 << 30, 200


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """The array of an `.npy`; the arrays of an `.npz` by name, but not the lists of numbers or names among them.

    One axis is a series, two are (rows, columns), three a volume; bytes with a last axis of 3 or 4 are colours. An
    archive of lists of one length is one series, each list a channel; the first is its axis where its name fits.
    Raises FormatError for objects, text, complex numbers without `part`, and other numbers of axes.
    """
    names = _names(path) if _is_archive(path) else (path.stem,)
    arrays = {name: load_array(path, name) for name in names}
    lists = [name for name, array in arrays.items() if array.ndim < 2 or np.issubdtype(array.dtype, np.character)]
    if len(arrays) > 1 and all(array.ndim == 1 and is_number(array.dtype) for array in arrays.values()):
        return {path.stem: series(arrays, path, "numpy")}
    if len(lists) == len(arrays):
        lists = []  # nothing is an image, and the first is refused with the reason
    notes = (f"left out, because they are no images: {', '.join(lists)}",) if lists else ()
    return {name: _image(arrays[name], path, name, options, notes) for name in names if name not in lists}


def load_array(path: Path, name: str) -> Array:
    """One array of an archive, or the one of an `.npy`; pickled objects are refused."""
    try:
        if not _is_archive(path):
            with path.open("rb") as file:
                _check_size(file, path.stat().st_size, path)
            return np.load(path, allow_pickle=False)
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
            packed = archive.getinfo(f"{name}.npy")
            if packed.file_size > LARGE_BYTES and packed.file_size > RATIO * packed.compress_size:
                raise FormatError("unpacks to far more than it is, which may be an attack", str(path), "Do not use it")
            _check_size(member, packed.file_size, path)
        with np.load(path, allow_pickle=False) as archive:
            return archive[name]
    except KeyError as error:
        raise FormatError(f"holds no array {name!r}", str(path), "Get the file again") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        is_pickled = "pickle" in str(error).lower()
        reason = "holds objects that would have to be executed" if is_pickled else str(error)
        raise FormatError(f"cannot be read ({reason})", str(path), "Save plain arrays of numbers") from error


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
    if not colours and _looks_coloured(data[0]):
        raise FormatError("its last axis would be taken for colours", where, elsewhere)
    np.save(path, np.moveaxis(data, 0, -1) if colours else data[0], allow_pickle=False)


def _image(array: Array, path: Path, name: str, options: ReadOptions, notes: tuple[str, ...]) -> Image:
    where = f"{path}, array {name}"
    array = _real(array, where, options)
    colours = _looks_coloured(array)
    pixels = np.moveaxis(array, -1, 0) if colours else array[None]
    if pixels.ndim not in (2, 3, 4) or not pixels.size:
        raise FormatError(f"an array of shape {array.shape} is no image", where, "Save one image or volume an array")
    return Image(
        np.ascontiguousarray(pixels),
        Geometry.of_pixels(pixels.shape[1:]),
        channels=("R", "G", "B", "A")[: len(pixels)] if colours else ("0",),
        notes=(*notes, "the last axis was read as colours") if colours else notes,
        source=Source("numpy", (str(path),)),
    )


def _looks_coloured(array: Array) -> bool:
    return array.dtype == np.uint8 and array.ndim in (3, 4) and array.shape[-1] in COLOURS and min(array.shape[:-1]) > 4


def _real(array: Array, where: str, options: ReadOptions) -> Array:
    array = real_part(array, options.part, where)
    if not is_number(array.dtype) or array.dtype.itemsize > 8:
        raise FormatError(f"holds {array.dtype} values, not common numbers", where, "Save plain arrays of numbers")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _check_size(file: IO[bytes], size: int, path: Path) -> None:
    """Refuse an array whose header claims more than the file holds, before memory is allocated."""
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(file)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > size:
        raise FormatError(f"claims an array of {shape}, which is more than it holds", str(path), "Get the file again")


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _names(path: Path) -> tuple[str, ...]:
    with zipfile.ZipFile(path) as archive:
        names = tuple(name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy"))
    if not names:
        raise FormatError("holds no arrays", str(path), "Save arrays with numpy.savez")
    return names


FORMAT = Format("numpy", read, write)

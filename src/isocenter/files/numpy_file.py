"""NumPy's `.npy` and `.npz`: plain arrays of numbers, without size in mm. Nothing in them is ever executed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from isocenter.errors import FormatError
from isocenter.files import label_table
from isocenter.files.complex_part import real_part
from isocenter.files.format import Format, ReadOptions
from isocenter.files.numpy_arrays import StatedArray, loaded, stated_arrays
from isocenter.files.series import series
from isocenter.files.storage import is_number
from isocenter.values import Geometry, Image, LazyMapping, Source

WRITTEN = ".npy"
COLOURS = (3, 4)


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """The array of an `.npy`; the arrays of an `.npz` by name, but not the lists of numbers or names among them.

    One axis is a series, two are (rows, columns), three a volume; bytes with a last axis of 3 or 4 are colours. An
    archive of lists of one length is one series, each list a channel; the first is its axis where its name fits.
    Raises FormatError for objects, text, complex numbers without `part`, and other numbers of axes.
    """
    arrays = stated_arrays(path)
    lists = [name for name, array in arrays.items() if len(array.shape) < 2 or array.is_text]
    if len(arrays) > 1 and all(len(array.shape) == 1 and is_number(array.dtype) for array in arrays.values()):
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
    if not colours and _looks_coloured(data.dtype, data.shape[1:]):
        raise FormatError("its last axis would be taken for colours", where, elsewhere)
    np.save(path, np.moveaxis(data, 0, -1) if colours else data[0], allow_pickle=False)


def _series(arrays: Mapping[str, StatedArray], path: Path) -> Image:
    """Lists of one length as the channels of one series."""
    if len({array.shape for array in arrays.values()}) != 1:
        raise FormatError("holds no channels of one length", str(path), "Write as many samples for each channel")
    first = next(iter(arrays.values()))
    columns = np.empty((len(arrays), *first.shape), np.result_type(*(array.dtype for array in arrays.values())))
    for row, array in zip(columns, arrays.values(), strict=True):
        row[...] = loaded(array)
    return series(tuple(arrays), columns, path, "numpy")


def _image(stated: StatedArray, options: ReadOptions, notes: tuple[str, ...]) -> Image:
    path, where = stated.path, f"{stated.path}, array {stated.name}"
    is_complex = np.issubdtype(stated.dtype, np.complexfloating)
    if not (is_complex or is_number(stated.dtype)) or stated.dtype.itemsize > (16 if is_complex else 8):
        problem = f"holds {stated.dtype} values, not common numbers"
        raise FormatError(problem, where, "Save plain arrays of numbers")
    colours = _looks_coloured(stated.dtype, stated.shape)
    if len(stated.shape) not in ((3, 4) if colours else (1, 2, 3)) or 0 in stated.shape:
        raise FormatError(
            f"an array of shape {stated.shape} is not an image", where, "Save one image or volume per array"
        )
    array = loaded(stated, partial(real_part, part=options.part, where=where))
    pixels = np.moveaxis(array, -1, 0) if colours else array[None]
    return Image(
        pixels,
        Geometry.of_pixels(pixels.shape[1:]),
        channels=("R", "G", "B", "A")[: len(pixels)] if colours else ("0",),
        notes=(*notes, "the last axis was read as colours") if colours else notes,
        source=Source("numpy", (str(path),)),
    )


def _looks_coloured(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
    return dtype == np.uint8 and len(shape) in (3, 4) and shape[-1] in COLOURS and min(shape[:-1]) > 4


FORMAT = Format("numpy", read, write)

"""MINC 1 and 2, https://en.wikibooks.org/wiki/MINC/Reference, through nibabel; the world is RAS mm."""

from __future__ import annotations

import gzip
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from nibabel.externals.netcdf import netcdf_file
from nibabel.minc1 import Minc1File
from nibabel.minc2 import Minc2File
from numpy.typing import NDArray

from hilum.errors import FormatError, GeometryError
from hilum.files import label_table
from hilum.files.format_options import Format, ReadOptions
from hilum.files.storage import atomic, block, folder_files, packed_files
from hilum.files.storage.packed_files import GZIP_MAGIC
from hilum.values import Array, Deferred, Geometry, Image, Source

CHUNK = 1 << 20
# What nibabel, netCDF and HDF5 raise at a file that is no MINC, or is damaged.
MINC_ERRORS = (AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError)


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """The one volume or series of volumes, axes reversed so that the slice comes last; time becomes frames."""
    with _open_minc(path) as minc:
        names = list(minc._dim_names)  # the only place where nibabel keeps the axes' names
        spatial = [name for name in names if name.endswith("space")]
        if len(spatial) != 3 or set(names) - set(spatial) - {"time"}:
            raise FormatError(f"axes called {', '.join(names)}", str(path), "Only space and time can be read")
        order = tuple(names.index(name) for name in (["time"] if "time" in names else []) + spatial[::-1])
        shape, stored = minc.get_data_shape(), minc.get_data_dtype()
        # Integers stand for other numbers between a lowest and a highest value.
        are_integers = np.issubdtype(stored, np.integer)
        dtype = np.dtype(np.float64) if are_integers else stored.newbyteorder("=")
        affine = np.asarray(minc.get_affine(), dtype=np.float64)
        # nibabel takes 1 for a step and 0 for a start that are not there.
        stepped, placed = (
            all(hasattr(minc._dims[names.index(one)], own) for one in spatial) for own in ("step", "start")
        )
        packed_files.refuse_expansion(path.stat().st_size, prod(shape) * stored.itemsize, str(path))
        if are_integers:
            _refuse_range(minc, path)
    geometry, notes = _geometry(tuple(int(shape[axis]) for axis in order[-3:]), affine, stepped, placed, path)
    pixels = Deferred((1, *(int(shape[axis]) for axis in order)), dtype, partial(_load, path, order, dtype))
    labels, read_from = label_table.labels_of_map(path), folder_files.unique_paths(path, *label_table.own_tables(path))
    image = Image(pixels, geometry, labels=labels, notes=tuple(notes), source=Source("minc", read_from))
    return {path.name.removesuffix(".gz").removesuffix(".mnc"): image}


def _refuse_range(minc: Any, path: Path) -> None:
    """Refuse a lowest and a highest value, of the volume or of each slice, that no numbers lie between."""
    try:
        low, high = _ends(minc, "_image_min"), _ends(minc, "_image_max")
        least, most = minc._get_valid_range()
    except MINC_ERRORS as error:
        raise FormatError(f"its range of values cannot be read ({error})", str(path), "Get the file again") from error
    if least >= most:  # nibabel would cut every number to one of them
        problem = f"its valid_range is {least:g} to {most:g}, which no number lies in"
        raise FormatError(problem, str(path), "Correct the header")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        slope = (high - low) / (most - least)
        intercept = low - least * slope
    block.refuse_unusable_scale(
        slope, intercept, max(abs(least), abs(most)), str(path), "image-min and image-max", takes_zero=True
    )


def _ends(minc: Any, name: str) -> NDArray[np.float64]:
    """A copy of the ends of all slices' ranges: netCDF cannot close a file while its own array is in use."""
    if prod(getattr(minc, name).shape) > prod(minc.get_data_shape()[:2]):
        raise ValueError("more ranges than slices")
    return np.array(minc._get_array(getattr(minc, name)), np.float64)


def _geometry(
    shape: tuple[int, ...], affine: NDArray[np.float64], stepped: bool, placed: bool, path: Path
) -> tuple[Geometry, list[str]]:
    """The grid for reversed axes: MINC stores the slice first."""
    if not stepped:
        return Geometry.of_pixels(shape), ["The header gives no step: size in mm and orientation unknown."]
    notes = [] if placed else ["The header gives no start: position and orientation unknown."]
    try:
        return Geometry(shape[::-1], affine, oriented=placed).permute((2, 1, 0), (False,) * 3), notes
    except GeometryError as error:
        raise GeometryError(error.problem, str(path), "Check the header with mincheader") from error


def _load(path: Path, order: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """(1[, frames], *spatial) values, some slices at a time."""
    with _open_minc(path) as minc:
        shape = minc.get_data_shape()
        values = np.empty(shape, dtype)
        step = max(1, CHUNK // max(1, prod(shape[1:])))
        try:
            for start in range(0, shape[0], step):
                part = (slice(start, min(start + step, shape[0])),)
                values[part] = minc.get_scaled_data(part)
        except MINC_ERRORS as error:
            raise FormatError(f"the voxels cannot be read ({error})", str(path), "Get the file again") from error
    return values.transpose(order)[np.newaxis]


@contextmanager
def _open_minc(path: Path) -> Iterator[Any]:
    """nibabel's file."""
    with _unpack(path) as plain:
        with plain.open("rb") as file:
            second = file.read(4) == b"\x89HDF"
        try:
            if second:
                _refuse_links(plain, path)
            opened: Any = h5py.File(plain) if second else netcdf_file(str(plain))
            minc: Any = Minc2File(opened) if second else Minc1File(opened)
        except MINC_ERRORS as error:
            problem = f"no MINC volume with regular axes ({error})"
            raise FormatError(problem, str(path), "Convert it with mnc2nii") from error
        try:
            yield minc
        finally:
            vars(minc).clear()  # what refers to the file's voxels, so that it can be closed
            opened.close()


@contextmanager
def _unpack(path: Path) -> Iterator[Path]:
    """The file; a gzipped one is unpacked into the system's folder of temporary files meanwhile.

    Raises FormatError where far more comes out of it than voxels pack to, ResourceError where the disk is full.
    """
    with path.open("rb") as file:
        if file.read(2) != GZIP_MAGIC:
            yield path
            return
    most, size = packed_files.most_unpacked(path.stat().st_size), 0
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "unpacked.mnc"
        with gzip.open(path) as stream, plain.open("wb") as copy:
            while chunk := _next_of(stream, path):
                size += len(chunk)
                if size > most:
                    packed_files.refuse_expansion(path.stat().st_size, size, str(path))
                try:
                    copy.write(chunk)
                except OSError as error:
                    raise atomic.unwritable_error(error, plain) from error
        yield plain


def _next_of(stream: gzip.GzipFile, path: Path) -> bytes:
    try:
        return stream.read(CHUNK)
    except (EOFError, OSError, zlib.error) as error:
        raise FormatError(f"cannot be unpacked ({error})", str(path), "Get the file again") from error


def _refuse_links(plain: Path, path: Path) -> None:
    """Refuse an HDF5 file that keeps a part of itself in other files.

    Which files is left to the folder in which the program runs, so those in the image's own folder are refused too.
    """
    with h5py.File(plain) as file:
        groups, visited = [file["/"]], set()
        while groups:
            group = groups.pop()
            address = h5py.h5o.get_info(group.id).addr
            names = [] if address in visited else list(group)
            visited.add(address)
            for name in names:
                link = group.get(name, getlink=True)
                if isinstance(link, h5py.SoftLink):  # to a place in this file that is looked at where it stands
                    continue
                part = group[name] if isinstance(link, h5py.HardLink) else None
                if part is None or (isinstance(part, h5py.Dataset) and _is_elsewhere(part)):
                    raise FormatError(f"keeps {name!r} in another file", str(path), "Save it as one file")
                groups += [part] if isinstance(part, h5py.Group) else []


def _is_elsewhere(part: h5py.Dataset) -> bool:
    return bool(part.is_virtual or part.id.get_create_plist().get_external_count())


FORMAT = Format("minc", read)

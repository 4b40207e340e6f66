"""MINC 1 and 2, https://en.wikibooks.org/wiki/MINC/Reference, through nibabel; the world is RAS mm."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from nibabel.minc1 import Minc1Image
from nibabel.minc2 import Minc2Image
from numpy.typing import NDArray

from isocenter.errors import FormatError, GeometryError
from isocenter.files import label_table
from isocenter.files.format import Format, ReadOptions
from isocenter.files.storage import GZIP_MAGIC, each_once
from isocenter.values import Array, Deferred, Geometry, Image, Source


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """The one volume or series of volumes, axes reversed so that the slice comes last; time becomes frames."""
    with _opened(path) as minc:
        names = list(_file(minc)._dim_names)  # the only place where nibabel keeps the axes' names
        spatial = [name for name in names if name.endswith("space")]
        if len(spatial) != 3 or set(names) - set(spatial) - {"time"}:
            raise FormatError(f"axes called {', '.join(names)}", str(path), "Only space and time can be read")
        order = tuple(names.index(name) for name in (["time"] if "time" in names else []) + spatial[::-1])
        shape = tuple(int(minc.shape[axis]) for axis in order)
        dtype = (
            np.dtype(np.float64)
            if np.issubdtype(minc.get_data_dtype(), np.integer)
            else minc.get_data_dtype().newbyteorder("=")
        )
        affine = np.asarray(minc.affine, dtype=np.float64)
        axes = dict(zip(names, _file(minc)._dims, strict=True))
        # nibabel takes 1 for a step and 0 for a start that are not there.
        stepped = all(hasattr(axes[name], "step") for name in spatial)
        placed = all(hasattr(axes[name], "start") for name in spatial)
    geometry, notes = _geometry(shape[-3:], affine, stepped, placed, path)
    pixels = Deferred((1, *shape), dtype, partial(_load, path, order))
    labels, read_from = label_table.of_file(path), each_once(path, *label_table.own_tables(path))
    image = Image(pixels, geometry, labels=labels, notes=tuple(notes), source=Source("minc", read_from))
    return {path.name.removesuffix(".gz").removesuffix(".mnc"): image}


def _geometry(
    shape: tuple[int, ...], affine: NDArray[np.float64], stepped: bool, placed: bool, path: Path
) -> tuple[Geometry, list[str]]:
    """The grid for reversed axes: MINC stores the slice first."""
    if not stepped:
        return Geometry.of_pixels(shape), ["The header gives no step: size in mm and orientation unknown."]
    notes = [] if placed else ["The header gives no start: position and orientation unknown."]
    try:
        return Geometry(shape[::-1], affine, oriented=placed).permuted((2, 1, 0), (False,) * 3), notes
    except GeometryError as error:
        raise GeometryError(error.problem, str(path), "Check the header with mincheader") from error


def _load(path: Path, order: tuple[int, ...]) -> Array:
    with _opened(path) as minc:
        try:
            values = np.asarray(minc.dataobj)
        except (OSError, ValueError, EOFError) as error:
            raise FormatError(f"the voxels cannot be read ({error})", str(path), "Get the file again") from error
    return values.transpose(order)[np.newaxis]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """nibabel's image; a gzipped file is unpacked into the system's folder of temporary files while it is open."""
    with path.open("rb") as file:
        packed = file.read(2) == GZIP_MAGIC
    with tempfile.TemporaryDirectory() as folder:
        plain = path
        if packed:
            plain = Path(folder) / "unpacked.mnc"
            with gzip.open(path) as stream, plain.open("wb") as copy:
                while chunk := stream.read(1 << 20):
                    copy.write(chunk)
        with plain.open("rb") as file:
            kind: Any = Minc2Image if file.read(4) == b"\x89HDF" else Minc1Image
        try:
            if kind is Minc2Image:
                _refuse_links(plain, path)
            image = kind.from_filename(str(plain))
        except (KeyError, ValueError, OSError, TypeError) as error:
            raise FormatError(
                f"no MINC volume with regular axes ({error})", str(path), "Convert it with mnc2nii"
            ) from error
        yield image


def _refuse_links(plain: Path, path: Path) -> None:
    """Refuse an HDF5 file that keeps a part of itself in other files.

    Which files is left to the folder in which the program runs, so those in the image's own folder are refused too.
    """
    with h5py.File(plain) as file:
        groups, seen = [file["/"]], set()
        while groups:
            group = groups.pop()
            address = h5py.h5o.get_info(group.id).addr
            names = [] if address in seen else list(group)
            seen.add(address)
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


def _file(image: Any) -> Any:
    return image.dataobj.minc_file


FORMAT = Format("minc", read)

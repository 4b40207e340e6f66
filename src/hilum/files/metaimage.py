"""The MetaImage format (.mha, .mhd), https://itk.org/Wiki/ITK/MetaIO/Documentation: ITK's own volumes, in LPS mm."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hilum.errors import FormatError, GeometryError
from hilum.files import _voxel_files, _world, label_table
from hilum.files._world import MM
from hilum.files.format_options import Format, ReadOptions
from hilum.files.storage import folder_files, packed_files
from hilum.files.storage.block import VoxelBlock
from hilum.files.storage.packed_files import Compression
from hilum.values import Array, Geometry, Image, Source

# MetaIO's MET_LONG has four bytes on every system.
TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
NAMES = {np.dtype(kind): name for name, kind in TYPES.items() if name not in {"MET_LONG", "MET_ULONG"}}
LARGEST_HEADER = 1 << 20
LAST_KEY = "ElementDataFile"
TRUE, FALSE = ("t", "1"), ("f", "0")  # MetaIO looks at the first letter only
BYTE_ORDERS = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
UNSTATED = ("", "?")  # a unit of distance, which is then mm
OPPOSITE = str.maketrans("LRAPIS", "RLPASI")


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """The one volume of the file; a fourth axis becomes frames, several values a voxel become channels."""
    header, end = _header(path)
    sizes = tuple(int(n) for n in _numbers(header, "DimSize", path))
    if len(sizes) not in (2, 3, 4) or len(sizes) != int(_numbers(header, "NDims", path)[0]) or min(sizes) < 1:
        raise _damage_error(path, f"axes of {header['DimSize']!r}")
    geometry, notes = _geometry(header, sizes, path)
    block = _block(header, end, sizes, path)
    image = Image(
        block.defer(),
        geometry,
        labels=label_table.labels_of_map(path),
        notes=(*notes, *block.surplus_notes),
        source=Source("metaimage", folder_files.unique_paths(path, block.path, *label_table.own_tables(path))),
    )
    return {path.stem: image}


def write(image: Image, path: Path) -> None:
    """One compressed .mha; a shear is kept, times of frames are not, sides must be known or no axis turned.

    Raises FormatError for what MetaImage cannot hold.
    """
    if path.name.lower().endswith(".mhd"):
        raise FormatError("MetaImage is written as a single file", str(path), "Choose a name that ends in .mha")
    if image.geometry.is_picture and image.frames is not None:
        raise FormatError("MetaImage cannot distinguish frames of a picture from slices", str(path), "Write it as NRRD")
    ordered = _voxel_files.channels_first(image, str(path))
    packed = _compress(ordered)
    sizes = ordered.shape[1:]
    lines = ["ObjectType = Image", f"NDims = {len(sizes)}", "BinaryData = True", "BinaryDataByteOrderMSB = False"]
    lines += ["CompressedData = True", f"CompressedDataSize = {sum(len(part) for part in packed)}"]
    lines += _space_lines(image.geometry, len(sizes), str(path))
    lines += [f"DimSize = {_spell(sizes)}"]
    lines += [f"ElementNumberOfChannels = {ordered.shape[0]}"] if ordered.shape[0] > 1 else []
    lines += [f"ElementType = {NAMES[ordered.dtype]}", "ElementDataFile = LOCAL"]
    with _voxel_files.create_file(path, compressed=False) as file:
        file.write(("\n".join(lines) + "\n").encode())
        file.writelines(packed)


def _header(path: Path) -> tuple[dict[str, str], int]:
    """Keys with their text, and the first byte after the header."""
    with path.open("rb") as file:
        head = file.read(LARGEST_HEADER)
    header: dict[str, str] = {}
    end = 0
    while LAST_KEY not in header:
        stop = head.find(b"\n", end)
        key, equals, text = head[end : stop if stop >= 0 else None].decode("latin-1").partition("=")
        if not equals or (stop < 0 and key.strip() != LAST_KEY):
            raise _damage_error(path, "the header has no ElementDataFile")
        header[key.strip()] = text.strip()
        end = stop + 1 if stop >= 0 else len(head)
    return header, end


def _geometry(header: Mapping[str, str], sizes: tuple[int, ...], path: Path) -> tuple[Geometry, list[str]]:
    """LPS mm from direction, spacing, offset and unit; without direction sides are unknown, without spacing size."""
    n, ndim = len(sizes), min(len(sizes), 3)
    shape = sizes[:3] if n > 2 else sizes[::-1]
    steps = _first(header, ("ElementSpacing", "ElementSize"), path, n)
    if steps is None:
        return Geometry.of_pixels(shape), ["The header gives no voxel size: size in mm unknown."]
    matrix = _first(header, ("TransformMatrix", "Rotation", "Orientation"), path, n * n)
    offset = _first(header, ("Offset", "Position", "Origin"), path, n)
    # Each run of n numbers is the direction of one axis: the transpose of ITK's direction matrix.
    direction = np.eye(n) if matrix is None else matrix.reshape(n, n).T
    if n == 4 and (direction[:3, 3].any() or direction[3, :3].any()):
        raise GeometryError("the fourth axis runs through space", str(path), "Split the file into volumes")
    affine = np.eye(ndim + 1)
    affine[:-1, :-1] = (direction * steps)[:ndim, :ndim]
    affine[:-1, -1] = 0.0 if offset is None else offset[:ndim]
    oriented = ndim == 3 and matrix is not None and offset is not None
    notes = [] if oriented else ["The header gives no direction or no position: orientation unknown."]
    affine = _world.swap_lps_ras(affine) if oriented else _world.swap_rows_and_columns(affine) if ndim == 2 else affine
    word = header.get("DistanceUnits", "")
    unit = 1.0 if word in UNSTATED else MM.get(word.lower())
    if unit is None:
        notes.append(f"The header's unit {word} is none of length: size in mm unknown.")
    affine[:-1] *= unit or 1.0
    try:
        return Geometry(shape, affine, oriented=oriented, physical=unit is not None), notes
    except GeometryError as error:
        raise GeometryError(error.problem, str(path), "Check TransformMatrix and ElementSpacing") from error


def _block(header: Mapping[str, str], end: int, sizes: tuple[int, ...], path: Path) -> VoxelBlock:
    name = header.get("ElementType", "").removesuffix("_ARRAY")
    if name not in TYPES:
        raise FormatError(f"voxels of type {name!r} cannot be read", str(path), "Save them as a common number type")
    orders = {_is_true(header, key, path) for key in BYTE_ORDERS if key in header}
    if len(orders) > 1:
        raise _damage_error(path, f"{' and '.join(BYTE_ORDERS)} contradict each other")
    big = True in orders
    dtype = np.dtype(TYPES[name]).newbyteorder(">" if big else "<")
    shape = (_whole(header, "ElementNumberOfChannels", path, 1), *sizes)
    axes = {2: (0, 2, 1), 3: (0, 1, 2, 3), 4: (0, 4, 1, 2, 3)}[len(sizes)]
    slope, intercept = (
        _numbers(header, name, path)[0] if (name := f"ElementToIntensityFunction{part}") in header else otherwise
        for part, otherwise in (("Slope", 1.0), ("Offset", 0.0))
    )
    data, start = _voxels_at(header, end, prod(shape) * dtype.itemsize, path)
    block = VoxelBlock(data, dtype, shape, axes, start, 0, _compression(header, path), slope, intercept)
    if not _is_local(header) and "HeaderSize" not in header:
        remedy = "Write `HeaderSize = -1` where they stand before the voxels, else `HeaderSize = 0`"
        block.refuse_unplaced(path, "HeaderSize", remedy)
    return block


def _voxels_at(header: Mapping[str, str], end: int, size: int, path: Path) -> tuple[Path, int]:
    """(the file with the voxels, the byte at which they start); HeaderSize -1 puts them at the end of their file."""
    data, local = _data_file(header, path), _is_local(header)
    skip = _whole(header, "HeaderSize", path, 0)
    if skip == -1 and not packed_files.is_compressed(_compression(header, path)):
        return data, data.stat().st_size - size
    return data, end if local else skip


def _is_local(header: Mapping[str, str]) -> bool:
    return header[LAST_KEY].upper() == "LOCAL"


def _data_file(header: Mapping[str, str], path: Path) -> Path:
    return path if _is_local(header) else folder_files.inside_folder(header[LAST_KEY], path)


def _parts(path: Path) -> tuple[Path, ...]:
    return path, _data_file(_header(path)[0], path)


def _compression(header: Mapping[str, str], path: Path) -> Compression:
    if not _is_true(header, "BinaryData", path, otherwise=True):
        return "text"
    return "zlib" if _is_true(header, "CompressedData", path) else "none"


def _whole(header: Mapping[str, str], name: str, path: Path, otherwise: int) -> int:
    return int(_numbers(header, name, path)[0]) if name in header else otherwise


def _first(header: Mapping[str, str], names: tuple[str, ...], path: Path, count: int) -> NDArray[np.float64] | None:
    """The numbers of the first of these keys that is there."""
    name = next((name for name in names if name in header), None)
    if name is None:
        return None
    numbers = np.array(_numbers(header, name, path))
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise _damage_error(path, f"{name} is {header[name]!r}")
    return numbers


def _numbers(header: Mapping[str, str], name: str, path: Path) -> list[float]:
    try:
        numbers = [float(word) for word in header[name].split()]
    except (KeyError, ValueError) as error:
        raise _damage_error(path, f"{name} is {header.get(name, 'missing')!r}") from error
    if not numbers:
        raise _damage_error(path, f"{name} is empty")
    return numbers


def _is_true(header: Mapping[str, str], name: str, path: Path, *, otherwise: bool = False) -> bool:
    """The truth in a field that may be absent."""
    letter = header.get(name, str(otherwise))[:1].lower()
    if letter not in (*TRUE, *FALSE):
        raise _damage_error(path, f"{name} is {header[name]!r}")
    return letter in TRUE


def _damage_error(path: Path, problem: str) -> FormatError:
    return FormatError(problem, str(path), "The MetaImage header is damaged: get the file again")


def _compress(ordered: Array) -> list[bytes]:
    """The voxels as one zlib stream; its size stands in the header, so it is made before the file."""

    class Parts:
        """A file in memory, compressed as it is written."""

        def __init__(self) -> None:
            self.deflate, self.done = zlib.compressobj(4), list[bytes]()

        def write(self, plain: bytes | memoryview) -> None:
            """Compress the next bytes."""
            self.done.append(self.deflate.compress(plain))

    parts = Parts()
    _voxel_files.write_voxels(parts, ordered)
    return [*parts.done, parts.deflate.flush()]


def _space_lines(geometry: Geometry, n: int, where: str) -> list[str]:
    more = [1.0] * (n - geometry.ndim)  # of the frames, whose times MetaImage does not know
    if not geometry.oriented:
        steps = _voxel_files.steps_without_sides(geometry, where)
        if geometry.physical:
            return [f"ElementSpacing = {_spell([*steps, *more])}"]
        if not np.array_equal(steps, np.ones(geometry.ndim)):
            raise FormatError("MetaImage holds voxel sizes only in mm", where, "Write it as NRRD")
        return []
    if not geometry.is_volume or not geometry.physical:
        raise FormatError("MetaImage holds an orientation only for three axes in mm", where, "Write it as NRRD")
    affine = _world.swap_lps_ras(geometry.affine)
    direction = np.eye(n)
    direction[:3, :3] = affine[:3, :3] / np.array(geometry.steps)
    letters = (geometry.orientation or "???").translate(OPPOSITE)  # MetaIO names where an axis comes from
    return [
        f"TransformMatrix = {_spell(direction.T.ravel())}",
        f"Offset = {_spell([*affine[:3, 3], *(0.0 for _ in more)])}",
        f"CenterOfRotation = {_spell([0] * n)}",
        f"AnatomicalOrientation = {letters}",
        f"ElementSpacing = {_spell([*geometry.steps, *more])}",
    ]


def _spell(numbers: object) -> str:
    return " ".join(str(n) for n in np.asarray(numbers).tolist())


FACTS = _voxel_files.facts_beside("MetaImage")
FORMAT = Format("metaimage", read, write, parts=_parts, facts=FACTS)

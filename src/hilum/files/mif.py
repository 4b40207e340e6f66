"""MRtrix images (.mif, .mif.gz, .mih), https://mrtrix.readthedocs.io/en/latest/getting_started/image_data.html."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hilum.errors import FormatError, GeometryError
from hilum.files import _voxel_files, label_table
from hilum.files.format_options import Format, ReadOptions
from hilum.files.storage import folder_files, packed_files
from hilum.files.storage.block import VoxelBlock
from hilum.values import Geometry, Image, Source

TYPES = {
    "int8": "i1",
    "uint8": "u1",
    "int16": "i2",
    "uint16": "u2",
    "int32": "i4",
    "uint32": "u4",
    "int64": "i8",
    "uint64": "u8",
    "float32": "f4",
    "float64": "f8",
    "cfloat32": "c8",
    "cfloat64": "c16",
}
LARGEST_HEADER = 1 << 22
FIRST_LINE, SAME_FILE = "mrtrix image", "."


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """The one volume or series of volumes of the file; a fourth axis becomes frames."""
    header = _header(path)
    sizes, strides = _numbers(header, "dim", path), _strides(header, path)
    if not 3 <= len(sizes) <= 4 or len(strides) != len(sizes) or min(sizes) < 1:
        raise FormatError(f"axes of {header['dim'][0]}", str(path), "Give three axes of space and at most one more")
    geometry, notes = _geometry(header, tuple(int(n) for n in sizes[:3]), path)
    # Voxels stay in the file's order; where an axis is stored backwards, the grid is flipped instead.
    geometry = geometry.permute((0, 1, 2), tuple(backwards for _, backwards in strides[:3]))
    if len(strides) == 4 and strides[3][1]:
        raise FormatError("the volumes are stored backwards", str(path), "Give it strides of 4 with mrconvert")
    block = _block(header, path, tuple(int(n) for n in sizes), [rank for rank, _ in strides], options)
    image = Image(
        block.defer(),
        geometry,
        labels=label_table.labels_of_map(path),
        notes=(*notes, *block.surplus_notes),
        source=Source("mif", folder_files.unique_paths(path, block.path, *label_table.own_tables(path))),
    )
    return {path.name.removesuffix(".gz").rpartition(".")[0] or path.name: image}


def _header(path: Path) -> dict[str, list[str]]:
    """Keys with the text of each of their lines."""
    lines = packed_files.read_head(path, LARGEST_HEADER).partition(b"\nEND")[0].decode("utf-8", "replace").splitlines()
    header: dict[str, list[str]] = {}
    for line in lines[1:]:
        key, colon, text = line.partition(":")
        if colon:
            header.setdefault(key.strip().lower(), []).append(text.strip())
    missing = [key for key in ("dim", "vox", "layout", "datatype", "file") if key not in header]
    if not lines or lines[0].strip() != FIRST_LINE or missing:
        raise FormatError(f"no MRtrix header (no {', '.join(missing)})", str(path), "Get the file again")
    return header


def _numbers(header: Mapping[str, list[str]], key: str, path: Path) -> list[float]:
    try:
        return [float(word) for line in header[key] for word in line.replace(",", " ").split()]
    except ValueError as error:
        raise FormatError(
            f"{key} is {header[key]}", str(path), "The MRtrix header is damaged: get the file again"
        ) from error


def _strides(header: Mapping[str, list[str]], path: Path) -> list[tuple[int, bool]]:
    """Per axis (its rank in the file, 0 the fastest; whether it is stored backwards). "-0" has a sign too."""
    words = [word.strip() for word in header["layout"][0].split(",")]
    if sorted(word.lstrip("+-") for word in words) != sorted(str(n) for n in range(len(words))):
        raise FormatError(f"layout is {header['layout'][0]!r}", str(path), "The MRtrix header is damaged")
    return [(int(word.lstrip("+-")), word.startswith("-")) for word in words]


def _geometry(header: Mapping[str, list[str]], shape: tuple[int, ...], path: Path) -> tuple[Geometry, list[str]]:
    steps = np.array(_numbers(header, "vox", path)[:3])
    if len(steps) < 3 or not (np.isfinite(steps).all() and (steps > 0).all()):
        return Geometry.of_pixels(shape), ["The header gives no voxel size: size in mm unknown."]
    if "transform" not in header:
        return Geometry.of_spacing(shape, steps.tolist()), ["The header gives no transform: orientation unknown."]
    transform = np.array(_numbers(header, "transform", path))
    if transform.size < 12:
        raise FormatError("the transform is incomplete", str(path), "The MRtrix header is damaged: get the file again")
    affine = np.eye(4)
    affine[:3] = transform[:12].reshape(3, 4) * [*steps, 1.0]
    try:
        return Geometry(shape, affine), []
    except GeometryError as error:
        raise GeometryError(error.problem, str(path), "Check the transform with mrinfo") from error


def _block(
    header: Mapping[str, list[str]], path: Path, sizes: tuple[int, ...], ranks: list[int], options: ReadOptions
) -> VoxelBlock:
    name = header["datatype"][0].lower()
    kind = TYPES.get(name.removesuffix("le").removesuffix("be"))
    if kind is None:
        raise FormatError(f"voxels of type {header['datatype'][0]!r}", str(path), "Convert them with mrconvert")
    dtype = np.dtype(kind).newbyteorder(">" if name.endswith("be") else "<")
    data, offset = _data_place(header, path)
    intercept, slope = [*_numbers(header, "scaling", path), 0.0, 1.0][:2] if "scaling" in header else (0.0, 1.0)
    stored = tuple(sizes[ranks.index(rank)] for rank in range(len(sizes)))
    axes = (ranks[3], *ranks[:3]) if len(sizes) == 4 else tuple(ranks)
    compression = packed_files.compression_of(data)
    axes = (len(sizes), *axes)
    block = VoxelBlock(data, dtype, (*stored, 1), axes, 0, offset, compression, slope, intercept, options.part)
    if data != path and header["file"][0] == data.name:
        remedy = f"Write `file: {data.name} {block.surplus}` where they stand before the voxels, else with 0"
        block.refuse_unplaced(path, "file: NAME OFFSET", remedy)
    return block


def _data_place(header: Mapping[str, list[str]], path: Path) -> tuple[Path, int]:
    """(the file with the voxels, the byte at which they start)."""
    where, _, offset = header["file"][0].rpartition(" ")
    where, offset = (where, offset) if offset.isdigit() and where else (header["file"][0], "0")
    return path if where == SAME_FILE else folder_files.inside_folder(where, path), int(offset)


def _parts(path: Path) -> tuple[Path, ...]:
    return path, _data_place(_header(path), path)[0]


FACTS = _voxel_files.facts_beside("MRtrix")
FORMAT = Format("mif", read, parts=_parts, facts=FACTS)

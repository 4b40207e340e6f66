"""FreeSurfer's MGH and MGZ, https://surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/MghFormat."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.spatialimages import HeaderDataError

from hilum.errors import FormatError, GeometryError
from hilum.files import _voxel_files, label_table, mgh_colour_table
from hilum.files.format_options import Format, ReadOptions
from hilum.files.storage import folder_files, packed_files
from hilum.files.storage.block import VoxelBlock
from hilum.values import FactRule, Geometry, Image, Label, Source

VOXELS_AT = 284
GOOD_RAS_AT = 28


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """The one volume or series of volumes of the file; a fourth axis becomes frames."""
    head = packed_files.read_head(path, VOXELS_AT)
    if len(head) < VOXELS_AT:
        raise FormatError(f"a header of {len(head)} bytes where {VOXELS_AT} are needed", str(path), "Get it again")
    try:
        header = MGHHeader(head, check=False)
        if int(header["version"]) != 1:
            raise FormatError(f"MGH version {int(header['version'])}", str(path), "Check what kind of file it is")
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise FormatError(f"the header is damaged ({error})", str(path), "Get the file again") from error
    *spatial, frames = (int(n) for n in header["dims"])
    axes = (4, 3, 0, 1, 2) if frames > 1 else (3, 0, 1, 2)
    shape = (*spatial, frames, 1) if frames > 1 else (*spatial, 1)
    block = VoxelBlock(
        path, dtype.newbyteorder(">"), shape, axes, offset=VOXELS_AT, compression=packed_files.compression_of(path)
    )
    geometry, notes = _geometry(header, tuple(spatial), _good_ras(head), path)
    image = Image(
        block.defer(),
        geometry,
        times=_times(path, VOXELS_AT + block.nbytes, frames),
        labels=label_table.labels_of_map(path) or _own_labels(path, VOXELS_AT + block.nbytes, dtype),
        notes=tuple(notes),
        source=Source("mgh", folder_files.unique_paths(path, *label_table.own_tables(path)), header),
    )
    return {path.name.removesuffix(".gz").rpartition(".")[0] or path.name: image}


def _good_ras(head: bytes) -> bool:
    """Whether the header marks its sizes and directions as valid; nibabel overwrites the flag."""
    return int.from_bytes(head[GOOD_RAS_AT : GOOD_RAS_AT + 2], "big", signed=True) > 0


def _geometry(header: MGHHeader, shape: tuple[int, ...], good: bool, path: Path) -> tuple[Geometry, list[str]]:
    if not good:
        note = "The header marks its sizes and directions as invalid: size in mm and orientation unknown."
        return Geometry.of_pixels(shape), [note]
    try:
        geometry = Geometry(shape, np.asarray(header.get_affine(), dtype=np.float64))
    except GeometryError as error:
        raise GeometryError(error.problem, str(path), "Check the header with mri_info") from error
    lengths = np.linalg.norm(header["Mdc"], axis=1)
    odd = not np.allclose(lengths, 1.0, atol=1e-3)
    note = "The header's direction cosines are not of length 1; they are used as they stand, as FreeSurfer does."
    return geometry, [note] if odd else []


def _own_labels(path: Path, at: int, dtype: np.dtype[Any]) -> tuple[Label, ...]:
    """The labels behind the voxels of whole numbers."""
    if not np.issubdtype(dtype, np.integer):
        return ()
    return mgh_colour_table.read_labels(packed_files.read_head(path, mgh_colour_table.LONGEST, after=at), str(path))


def _times(path: Path, at: int, frames: int) -> tuple[float, ...] | None:
    """Seconds of each frame: the repetition time (ms) is the first number behind the voxels."""
    footer = packed_files.read_head(path, 4, after=at) if frames > 1 else b""
    step = float(np.frombuffer(footer, ">f4")[0]) / 1000 if len(footer) == 4 else 0.0
    return _voxel_files.even_times(step, frames, str(path))


FACTS = (
    FactRule("MGH", "read", "table of labels behind the voxels, time between frames"),
    FactRule("MGH", "named", "sizes and directions that the header marks as invalid"),
)
FORMAT = Format("mgh", read, facts=FACTS)

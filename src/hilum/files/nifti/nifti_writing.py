"""Writing NIfTI: the same voxel in the same place in mm, or a refusal."""

from __future__ import annotations

import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from hilum.errors import FormatError, GeometryError
from hilum.files import _voxel_files, synthetic_marks
from hilum.files._voxel_files import COLOUR_CHANNELS
from hilum.files.nifti import nifti_header
from hilum.files.nifti.nifti_header import FIELDS, NiftiHeader
from hilum.files.synthetic_marks import SYNTHETIC
from hilum.values import Geometry, Image

# How far (mm) a corner may move by writing (the geometry contract).
WRITE_TOLERANCE = 1e-4
# A quaternion in float32 loses precision near half a turn: a qform that is further off (voxels) is left out.
QFORM_TOLERANCE = 0.01
LARGEST_NIFTI1_AXIS = 32767
CIFTI_EXTENSION = 32


def write(image: Image, path: Path) -> None:
    """A single file, gzipped if the name ends in .gz; NIfTI-2 where NIfTI-1 cannot hold the size or the position.

    A header read from NIfTI is copied where it still describes the grid; scaling is always 1. A single frame is no
    axis of its own, and a picture becomes one slice of (column, row).
    Raises FormatError for a grid that NIfTI cannot hold.
    """
    name = path.name.lower()
    if not name.endswith((".nii", ".nii.gz")):
        raise FormatError("NIfTI is written as a single file", str(path), "Choose a name that ends in .nii or .nii.gz")
    slices = _voxel_files.iterate_slices(image)
    if slices is not None:
        header = _header(image, (*image.geometry.shape, image.frames or 1, 1), image.dtype, False, str(path))
        with _voxel_files.create_file(path, compressed=name.endswith(".gz")) as file:
            header.write_to(file)
            for part in slices:
                _voxel_files.write_voxels(file, part)
        return
    voxels = _voxel_files.storable_values(image.data, where=str(path))
    coloured = voxels.dtype == np.uint8 and image.channels == COLOUR_CHANNELS.get(len(image.channels))
    ordered = _voxel_files.in_file_order(voxels, image.geometry.ndim, where=str(path))
    header = _header(image, ordered.shape, ordered.dtype, coloured, str(path))
    if coloured:
        ordered = np.moveaxis(ordered, -1, 0)  # colour fastest
    with _voxel_files.create_file(path, compressed=name.endswith(".gz")) as file:
        header.write_to(file)
        _voxel_files.write_voxels(file, ordered)


def _header(image: Image, ordered: tuple[int, ...], dtype: np.dtype[Any], coloured: bool, where: str) -> NiftiHeader:
    """The header for voxels of shape (i, j, k, frames, channels) and this type."""
    shape = ordered[:4] if coloured else ordered
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    dtype = np.dtype([(name, "u1") for name in image.channels]) if coloured else dtype
    header = _copy_header(image, shape, dtype) or _new(image.geometry, shape, where)
    header.set_dtype(dtype)
    header.set_shape(shape)
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    header["cal_min"], header["cal_max"] = 0.0, 0.0
    if mark := image.facts.get(SYNTHETIC):
        header["descrip"] = synthetic_marks.description(mark)
    if len(shape) > 4:
        header.set_intent("vector")
    elif image.labels:
        header.set_intent("label")
    if image.frames is not None and image.frames > 1:
        # NIfTI knows one step between frames; times that are uneven are left out, they are then unknown.
        step = _voxel_files.uniform_step(image.times)
        header["pixdim"][4] = step or 0.0
        header.set_units(seconds=bool(step))
    return header


def _copy_header(image: Image, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NiftiHeader | None:
    """The source's own header as a single little-endian file, if it is NIfTI and still describes this grid."""
    source = image.source.header if image.source is not None and image.source.format == "nifti" else None
    if source is None or not nifti_header.is_nifti(source):
        return None
    try:
        same = nifti_header.geometry_of(source, "")[0].equals(image.geometry, WRITE_TOLERANCE)
    except GeometryError:  # forms that disagree were read with `prefer`; they must not be written again
        return None
    if not same or max(shape) > LARGEST_NIFTI1_AXIS:
        return None
    version = next(version for version, kind in FIELDS.items() if kind.itemsize == int(source["sizeof_hdr"]))
    header = NiftiHeader(version, source.as_byteswapped("<").binaryblock)
    # Fields that describe the values, not the grid, hold only for the same kind of values.
    if tuple(source.get_data_shape()) == shape and source.get_data_dtype().newbyteorder("=") == dtype:
        header.extensions = _extensions(source)
    else:
        header.set_intent("none")
        header["slice_code"], header["slice_start"], header["slice_end"], header["slice_duration"] = 0, 0, 0, 0
    return header


def _extensions(source: Any) -> bytes:
    """The extensions of nibabel's header as they stand in a little-endian file."""
    file = BytesIO()
    for extension in source.extensions:
        if extension.get_code() != CIFTI_EXTENSION:
            extension.write_to(file, byteswap=sys.byteorder == "big")
    return file.getvalue()


def _new(geometry: Geometry, shape: tuple[int, ...], where: str) -> NiftiHeader:
    """A header for this grid: NIfTI-1 if its float32 hold the position, else NIfTI-2."""
    for version in FIELDS:
        if version == 1 and max(shape) > LARGEST_NIFTI1_AXIS:
            continue
        header = NiftiHeader(version)
        header.set_shape(shape)
        if not geometry.oriented:
            _set_steps(header, geometry, where)
            return header
        _set_forms(header, geometry, where)
        try:
            held = replace(geometry, affine=header.sform).equals(geometry, WRITE_TOLERANCE)
        except GeometryError:  # of float32 no grid is left
            held = False
        if held:
            return header
    raise FormatError("NIfTI cannot hold this position exactly", where, "Check the affine: it is far from the body")


def _set_forms(header: NiftiHeader, geometry: Geometry, where: str) -> None:
    """sform always; qform too where it means the same: a shear has none."""
    if not geometry.is_volume or not geometry.physical:
        raise FormatError("NIfTI holds an orientation only for three axes in mm", where, "Write it as NRRD")
    header.set_units(mm=True)
    header.set_sform(geometry.affine)
    header["pixdim"][1:4] = geometry.steps
    if geometry.is_sheared:  # also of a single slice, where no voxel would show it
        return
    without = header.fields.copy()
    header.set_qform(geometry.affine)
    if nifti_header.apart_in_voxels(geometry, header.qform) > QFORM_TOLERANCE:
        header.fields = without


def _set_steps(header: NiftiHeader, geometry: Geometry, where: str) -> None:
    """Voxel sizes and both codes 0: sides stay unknown, and so does the size where it was."""
    steps = _voxel_files.steps_without_sides(geometry, where)
    header["pixdim"][1:4] = steps if len(steps) == 3 else (*steps, 0.0)
    header.set_units(mm=geometry.physical)

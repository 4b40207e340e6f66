"""Cartesian k-space of ISMRMRD, the format of raw MR data of all makers, read by its own library.

Inati et al., Magn Reson Med 2017, doi:10.1002/mrm.26089
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from isocenter.errors import FormatError, UsageError
from isocenter.values import Array

DATASET = "dataset"
# What counts one measurement of a series; lines of several averages are averaged.
SERIES = ("contrast", "phase", "repetition", "set", "kspace_encode_step_2")
# No part of an image's k-space.
OTHER = (
    "NOISE_MEASUREMENT",
    "NAVIGATION_DATA",
    "PHASECORR_DATA",
    "HPFEEDBACK_DATA",
    "DUMMYSCAN_DATA",
    "RTFEEDBACK_DATA",
)
OTHER_LINES = (*OTHER, "PARALLEL_CALIBRATION")
# A header may promise so many times what the file's samples fill.
MOST_EMPTY = 64


class KSpace(NamedTuple):
    """data: (slices, coils, rows along the readout, columns); columns: which were measured; pixel_mm: of the image."""

    data: Array
    columns: Array
    pixel_mm: tuple[float, float, float]


def is_ismrmrd(path: Path) -> bool:
    """Whether a file is HDF5 with a header of ISMRMRD."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return f"{DATASET}/xml" in file
    except OSError:
        return False


def read_kspace(path: Path) -> KSpace:
    """The k-space of a file, with the readout cut to the field of the image.

    Raises FormatError for a trajectory that is not Cartesian, a volume or a series, and numbers that do not fit one
    another; UsageError without the extra `reconstruction`.
    """
    try:
        import ismrmrd
    except ImportError as error:
        raise UsageError("ismrmrd is not installed", str(path), "pip install 'isocenter[reconstruction]'") from error
    try:
        file = ismrmrd.Dataset(str(path), DATASET, create_if_needed=False)
        try:
            encoding = ismrmrd.xsd.CreateFromDocument(file.read_xml_header()).encoding[0]
            skipped = [getattr(ismrmrd, f"ACQ_IS_{name}") for name in OTHER_LINES]
            every = [file.read_acquisition(number) for number in range(file.number_of_acquisitions())]
        finally:
            file.close()
        lines = [one for one in every if not any(one.is_flag_set(flag) for flag in skipped)]
        return _filled(encoding, lines, path)
    except (FormatError, MemoryError):
        raise
    except Exception as error:  # its parsers raise whatever they meet
        raise FormatError(f"cannot be read as ISMRMRD ({error})", str(path), "Get the file again") from error


def _filled(encoding: Any, lines: list[Any], path: Path) -> KSpace:
    trajectory = str(getattr(encoding.trajectory, "value", encoding.trajectory))
    if trajectory != "cartesian":
        raise FormatError(f"holds k-space on a {trajectory} trajectory", str(path), "Cartesian k-space alone is read")
    if not lines:
        raise FormatError("holds no line of k-space", str(path), "Get the file again")
    for name in SERIES:
        if len(found := {int(getattr(one.idx, name)) for one in lines}) > 1:
            problem = f"holds {len(found)} values of {name}: a series or a volume"
            raise FormatError(problem, str(path), "Give a file of one measurement of slices")
    encoded, image = encoding.encodedSpace, encoding.reconSpace
    rows, columns, coils = int(encoded.matrixSize.x), int(encoded.matrixSize.y), int(lines[0].data.shape[0])
    slices = 1 + max(int(one.idx.slice) for one in lines)
    measured = sum(one.data.size for one in lines)
    if slices * coils * rows * columns > MOST_EMPTY * measured:
        problem = f"states k-space of {slices} x {coils} x {rows} x {columns}, of which it holds {measured} numbers"
        raise FormatError(problem, str(path), "Get the file again")
    limits = encoding.encodingLimits.kspace_encoding_step_1
    shift = columns // 2 - (int(limits.center) if limits is not None else columns // 2)
    data = np.zeros((slices, coils, rows, columns), np.complex64)
    counts = np.zeros((slices, columns))
    for one in lines:
        place, first = int(one.idx.kspace_encode_step_1) + shift, rows // 2 - int(one.center_sample)
        if not (0 <= place < columns and first >= 0 and first + one.data.shape[1] <= rows and len(one.data) == coils):
            raise FormatError("has a line that lies outside of its k-space", str(path), "Get the file again")
        data[one.idx.slice, :, first : first + one.data.shape[1], place] += one.data
        counts[one.idx.slice, place] += 1
    data /= np.maximum(counts, 1)[:, None, None, :]
    kept = int(image.matrixSize.x)
    field = float(encoded.fieldOfView_mm.x) * kept / rows
    if kept < rows and math.isclose(field, float(image.fieldOfView_mm.x), rel_tol=1e-3):
        data = _cut_readout(data, kept)
    spacing = (float(image.fieldOfView_mm.x) / kept, float(encoded.fieldOfView_mm.y) / columns)
    if data.shape[2] == rows:
        spacing = (float(encoded.fieldOfView_mm.x) / rows, spacing[1])
    return KSpace(data, np.asarray(counts.all(axis=0)), (*spacing, float(encoded.fieldOfView_mm.z)))


def _cut_readout(data: Array, kept: int) -> Array:
    """The k-space of the middle rows of the image: a readout is measured over more than the field that is shown."""
    axis, first = 2, (data.shape[2] - kept) // 2
    image = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(data, axes=axis), axis=axis, norm="ortho"), axes=axis)
    middle = np.fft.ifftshift(image[:, :, first : first + kept], axes=axis)
    return np.fft.fftshift(np.fft.fft(middle, axis=axis, norm="ortho"), axes=axis).astype(np.complex64)

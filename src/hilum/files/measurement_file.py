"""Measurements of scanners: NumPy arrays with an acquisition in JSON, and the k-space of fastMRI and ISMRMRD."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from hilum import errors, installation
from hilum.errors import FormatError, UsageError
from hilum.files import numpy_file
from hilum.files.storage import structured_text
from hilum.values import Acquisition, Array, Measurement

ACQUISITION, DATA, ARRAYS = "acquisition", "data", ("mask", "sensitivities")
SUFFIXES = (".npz", ".npy", ".h5")
# Of fastMRI: Zbontar et al., arXiv:1811.08839
KSPACE, HEADER, MASK = "kspace", "ismrmrd_header", "mask"
AXES, SIZES = ("x", "y", "z"), ("fieldOfView_mm", "matrixSize")
REMEDY = "Give an .npz with the array acquisition, --acquisition FILE.json, or an .h5 of fastMRI or ISMRMRD"
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


def read_measurement(path: Path, acquisition: Path | None = None) -> Measurement:
    """The measurement of a file, called by the name of it.

    acquisition: JSON file that says how it was measured, where the file itself does not
    Raises FormatError for a file that is none, or whose data are none of its acquisition.
    """
    case = path.name.removesuffix(path.suffix)
    if path.suffix.lower() == ".h5":
        return _read_ismrmrd(path, case) if is_ismrmrd(path) else _read_fastmri(path, case)
    if path.suffix.lower() not in SUFFIXES:
        raise FormatError("is no measurement", str(path), REMEDY)
    headers = numpy_file.stated_arrays(path)
    names = {path.stem: DATA} if path.suffix.lower() == ".npy" else {name: name for name in headers}
    arrays = {names[name]: headers[name] for name in headers if names[name] in (ACQUISITION, DATA, *ARRAYS)}
    record = _stated_record(path, arrays, acquisition)
    if DATA not in arrays:
        raise FormatError("holds no array data", str(path), "Add it: what was measured")
    loaded = {name: numpy_file.load_numbers(one) for name, one in arrays.items() if name != ACQUISITION}
    data = loaded.pop(DATA)
    if isinstance(record, Mapping):
        record = {**record, **loaded}
        if "angles_deg" in record and data.ndim:
            record.setdefault("bins", data.shape[-1])
    return Measurement.from_array(case, Acquisition.from_record(record, str(path)), data)


def list_measurements(path: Path) -> list[Path]:
    """The file itself, or the measurements of a folder, by name; FormatError for a folder without any."""
    if not path.is_dir():
        return [path]
    found = sorted(one for one in path.iterdir() if one.suffix.lower() in SUFFIXES and one.is_file())
    if not found:
        raise FormatError("holds no measurement", str(path), REMEDY)
    return found


def _stated_record(path: Path, arrays: Mapping[str, numpy_file.StatedArray], acquisition: Path | None) -> Any:
    """The JSON that says how it was measured: of the file given, else of the array."""
    if acquisition is not None:
        try:
            return structured_text.load_json(acquisition)
        except (OSError, ValueError) as error:
            raise FormatError(f"is no JSON ({error})", str(acquisition), "State an acquisition in it") from error
    if ACQUISITION not in arrays:
        raise FormatError("does not say how it was measured", str(path), REMEDY)
    header = arrays[ACQUISITION]
    if not header.is_text or math.prod(header.shape) != 1:
        raise FormatError("holds an acquisition that is no text", str(path), "Save JSON in it, as numpy.array(text)")
    text = numpy_file.load_numbers(header).reshape(-1)[0]
    try:
        return structured_text.parse_json(text.decode("utf-8") if isinstance(text, bytes) else str(text))
    except ValueError as error:
        raise FormatError(f"holds an acquisition that is no JSON ({error})", str(path), "Correct it") from error


def _read_ismrmrd(path: Path, case: str) -> Measurement:
    data, columns, spacing = read_kspace(path)
    record = {
        "kind": "cartesian",
        "image": {"shape": list(data.shape[2:]), "spacing_mm": list(spacing)},
        "coils": data.shape[1],
        "mask": None if columns.all() else np.broadcast_to(columns, data.shape[2:]),
    }
    return Measurement.from_array(case, Acquisition.from_record(record, str(path)), data)


def _read_fastmri(path: Path, case: str) -> Measurement:
    """Slices of one coil or several, rows along the readout; the header states the field of view."""
    import h5py

    remedy = "Get the file again"
    with (
        errors.foreign_errors(lambda error: FormatError(f"cannot be read ({error})", str(path), remedy)),
        h5py.File(path, "r") as file,
    ):
        if not isinstance(file.get(KSPACE), h5py.Dataset):
            raise FormatError("holds no Cartesian k-space as fastMRI has it", str(path), REMEDY)
        kspace = np.asarray(file[KSPACE][()])
        columns = np.asarray(file[MASK][()]).reshape(-1) if MASK in file else None
        header = file[HEADER][()] if HEADER in file else b""
    if kspace.ndim not in (3, 4) or kspace.dtype.kind != "c":
        problem = f"holds k-space of {kspace.dtype} and the shape {kspace.shape}"
        raise FormatError(problem, str(path), "Give complex (slices, [coils,] rows, columns)")
    rows, size = kspace.shape[-2:]
    trajectory, spacing = _read_header(header, path)
    if trajectory != "cartesian":
        raise FormatError(f"holds k-space on a {trajectory} trajectory", str(path), "Cartesian k-space alone is read")
    if columns is None:
        sampled = np.abs(kspace).reshape(-1, size).any(axis=0)
        columns = sampled if not sampled.all() else None
    if columns is not None and len(columns) != size:
        raise FormatError(f"has a mask of {len(columns)} for {size} columns", str(path), "Get the file again")
    record = {
        "kind": "cartesian",
        "image": {"shape": [rows, size], "spacing_mm": spacing},
        "coils": kspace.shape[1] if kspace.ndim == 4 else 0,
        "mask": None if columns is None else np.broadcast_to(columns.astype(bool), (rows, size)),
    }
    return Measurement.from_array(case, Acquisition.from_record(record, str(path)), kspace)


def _read_header(text: bytes, path: Path) -> tuple[str, Array]:
    """(trajectory, mm of a pixel and of a slice) of a header in the XML of ISMRMRD; 1 mm where there is none.

    Inati et al., Magn Reson Med 2017, doi:10.1002/mrm.26089
    """
    if not text:
        return "cartesian", np.ones(3)
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - Python's parser limits entities since 3.11
    except ElementTree.ParseError as error:
        raise FormatError(f"has a header that is no XML ({error})", str(path), "Get the file again") from error
    space = ".//{*}encodedSpace/{*}%s/{*}%s"
    try:
        sizes = [[float(root.findtext(space % (one, axis), "")) for axis in AXES] for one in SIZES]
    except ValueError as error:
        raise FormatError("has a header without field of view", str(path), "Get the file again") from error
    trajectory = root.findtext(".//{*}trajectory", "cartesian").strip().lower()
    return trajectory, np.divide(sizes[0], np.maximum(sizes[1], 1))


# Cartesian k-space of ISMRMRD, the format of raw MR data of all makers, read by its own library.
#
# Inati et al., Magn Reson Med 2017, doi:10.1002/mrm.26089


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
        raise UsageError("ismrmrd is not installed", str(path), installation.install_line("reconstruction")) from error
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

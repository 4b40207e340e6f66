"""Measurements of scanners: NumPy arrays with an acquisition in JSON, and the k-space of fastMRI and ISMRMRD."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from isocenter import errors
from isocenter.errors import FormatError
from isocenter.files import ismrmrd_file, numpy_file
from isocenter.files.storage import structured_text
from isocenter.values import Acquisition, Array, Measurement

ACQUISITION, DATA, ARRAYS = "acquisition", "data", ("mask", "sensitivities")
SUFFIXES = (".npz", ".npy", ".h5")
# Of fastMRI: Zbontar et al., arXiv:1811.08839
KSPACE, HEADER, MASK = "kspace", "ismrmrd_header", "mask"
AXES, SIZES = ("x", "y", "z"), ("fieldOfView_mm", "matrixSize")
REMEDY = "Give an .npz with the array acquisition, --acquisition FILE.json, or an .h5 of fastMRI or ISMRMRD"


def read_measurement(path: Path, acquisition: Path | None = None) -> Measurement:
    """The measurement of a file, called by the name of it.

    acquisition: JSON file that says how it was measured, where the file itself does not
    Raises FormatError for a file that is none, or whose data are none of its acquisition.
    """
    case = path.name.removesuffix(path.suffix)
    if path.suffix.lower() == ".h5":
        return _read_ismrmrd(path, case) if ismrmrd_file.is_ismrmrd(path) else _read_fastmri(path, case)
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


def _stated_record(path: Path, arrays: Mapping[str, Any], acquisition: Path | None) -> Any:
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
    data, columns, spacing = ismrmrd_file.read_kspace(path)
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

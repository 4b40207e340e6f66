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
from hilum.values import Acquisition, Array, FactRule, Measurement

ACQUISITION, DATA, ARRAYS = "acquisition", "data", ("mask", "sensitivities")
SUFFIXES = (".npz", ".npy", ".h5")
# Of fastMRI: Zbontar et al., arXiv:1811.08839
KSPACE, HEADER, MASK = "kspace", "ismrmrd_header", "mask"
AXES = ("x", "y", "z")
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
    "SURFACECOILCORRECTIONSCAN_DATA",
)
OTHER_LINES = (*OTHER, "PARALLEL_CALIBRATION")
# A header may promise so many times what the file's samples fill.
MOST_EMPTY = 64
OF_MR = "ISMRMRD, fastMRI"
FACTS = (
    FactRule(OF_MR, "read", "reversed lines"),
    FactRule(OF_MR, "read", "oversampled and asymmetric readouts"),
    FactRule(OF_MR, "read", "discarded samples"),
    FactRule(OF_MR, "read", "masks of one axis"),
    FactRule(OF_MR, "refused", "reversed lines with data for their phase"),
    FactRule(OF_MR, "refused", "several encodings"),
)


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
        if MASK in loaded and record.get("kind") == "cartesian" and data.ndim >= 2:
            loaded[MASK] = _spread_mask(loaded[MASK], data, path)
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


def _spread_mask(mask: Array, data: Array, path: Path) -> Array:
    """The mask of rows and columns, where a mask of columns or of rows alone is stated.

    Raises FormatError for one of a square image whose axis nothing tells: data beyond it are not zero.
    """
    rows, columns = data.shape[-2:]
    if mask.shape in ((1, columns), (rows, 1)):
        return np.broadcast_to(mask, (rows, columns))
    if mask.ndim != 1 or len(mask) not in (rows, columns):
        return mask
    as_columns = np.broadcast_to(mask, (rows, columns)) if len(mask) == columns else None
    as_rows = np.broadcast_to(mask[:, None], (rows, columns)) if len(mask) == rows else None
    if as_columns is None or as_rows is None:
        only = as_rows if as_columns is None else as_columns
        return np.asarray(only)
    for spread in (as_columns, as_rows):
        if not np.any(data[..., spread == 0]):
            return spread
    problem = f"has a mask of {len(mask)} for an image of {rows} x {columns}: of its rows, or of its columns"
    raise FormatError(problem, str(path), "Give the mask as (rows, columns), or with an axis of length 1")


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
    data, sampled, spacing = read_kspace(path)
    record = {
        "kind": "cartesian",
        "image": {"shape": list(data.shape[2:]), "spacing_mm": list(spacing)},
        "coils": data.shape[1],
        "mask": None if sampled.all() else sampled,
    }
    return Measurement.from_array(case, Acquisition.from_record(record, str(path)), data)


def _read_fastmri(path: Path, case: str) -> Measurement:
    """Slices of one coil or several, rows along the readout; the header states the field of view.

    The readout is cut to the field of the image, as that of ISMRMRD.
    """
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
    trajectory, encoded, kept = _read_header(header, path)
    if trajectory != "cartesian":
        raise FormatError(f"holds k-space on a {trajectory} trajectory", str(path), "Cartesian k-space alone is read")
    if columns is None:
        sampled = np.abs(kspace).reshape(-1, size).any(axis=0)
        columns = sampled if not sampled.all() else None
    if columns is not None and len(columns) != size:
        raise FormatError(f"has a mask of {len(columns)} for {size} columns", str(path), "Get the file again")
    # k-space covers the encoded field however many of its rows and columns were kept.
    fields = [1.0 * rows, 1.0 * size, 1.0] if encoded is None else list(encoded)
    if encoded is not None and kept is not None and _is_oversampled(rows, fields[0], *kept):
        kspace = _cut_readout(kspace, kept[0])
        fields[0] = kept[1]
        rows = kept[0]
    record = {
        "kind": "cartesian",
        "image": {"shape": [rows, size], "spacing_mm": [fields[0] / rows, fields[1] / size, fields[2]]},
        "coils": kspace.shape[1] if kspace.ndim == 4 else 0,
        "mask": None if columns is None else np.broadcast_to(columns.astype(bool), (rows, size)),
    }
    return Measurement.from_array(case, Acquisition.from_record(record, str(path)), kspace)


class StatedSpaces(NamedTuple):
    """The header of ISMRMRD's XML.

    encoded: mm that k-space covers along rows and columns, and mm of a slice; None without a header
    shown:   rows of the image, and mm that they cover; None where they are not stated
    """

    trajectory: str
    encoded: tuple[float, float, float] | None = None
    shown: tuple[int, float] | None = None


def _is_oversampled(rows: int, field: float, kept: int, shown_field: float) -> bool:
    """Whether a readout covers more than the field of the image, whose rows are as large as its own."""
    return 0 < kept < rows and math.isclose(field * kept / rows, shown_field, rel_tol=1e-3)


def _read_header(text: bytes, path: Path) -> StatedSpaces:
    """What a header in the XML of ISMRMRD states of the field of view.

    Inati et al., Magn Reson Med 2017, doi:10.1002/mrm.26089
    """
    if not text:
        return StatedSpaces("cartesian")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - Python's parser limits entities since 3.11
    except ElementTree.ParseError as error:
        raise FormatError(f"has a header that is no XML ({error})", str(path), "Get the file again") from error
    space = ".//{*}%s/{*}%s/{*}%s"
    try:
        fields = [float(root.findtext(space % ("encodedSpace", "fieldOfView_mm", axis), "")) for axis in AXES]
        slices = float(root.findtext(space % ("encodedSpace", "matrixSize", "z"), ""))
    except ValueError as error:
        raise FormatError("has a header without field of view", str(path), "Get the file again") from error
    rows, width = (root.findtext(space % ("reconSpace", one, "x"), "") for one in ("matrixSize", "fieldOfView_mm"))
    try:
        shown = int(rows), float(width)
    except ValueError:
        shown = None
    trajectory = root.findtext(".//{*}trajectory", "cartesian").strip().lower()
    return StatedSpaces(trajectory, (fields[0], fields[1], fields[2] / max(slices, 1)), shown)


# Cartesian k-space of ISMRMRD, the format of raw MR data of all makers, read by its own library.
#
# Inati et al., Magn Reson Med 2017, doi:10.1002/mrm.26089


class KSpace(NamedTuple):
    """data: (slices, coils, rows along the readout, columns); sampled: (rows, columns); pixel_mm: of the image."""

    data: Array
    sampled: Array
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

    Lines that were read backwards are turned round. Of an asymmetric echo, what was not read is not sampled: its
    readout stays as wide as it was encoded.

    Raises FormatError for a trajectory that is not Cartesian, a volume or a series, lines of several encodings, lines
    whose phase must be corrected, and numbers that do not fit one another; UsageError without the extra
    `reconstruction`.
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
            phase_flag, backwards = ismrmrd.ACQ_IS_PHASECORR_DATA, ismrmrd.ACQ_IS_REVERSE
            every = [file.read_acquisition(number) for number in range(file.number_of_acquisitions())]
        finally:
            file.close()
        lines = [one for one in every if not any(one.is_flag_set(flag) for flag in skipped)]
        reversed_lines = [one for one in lines if one.is_flag_set(backwards)]
        if reversed_lines and any(one.is_flag_set(phase_flag) for one in every):
            # Lines of both directions disagree in phase (EPI); without the correction each object has a ghost.
            problem = f"holds {len(reversed_lines)} lines that were read backwards, and data that correct their phase"
            raise FormatError(problem, str(path), "Correct the phase with the maker's or ISMRMRD's tools before")
        return _filled(encoding, lines, backwards, path)
    except (FormatError, MemoryError):
        raise
    except Exception as error:  # its parsers raise whatever they meet
        raise FormatError(f"cannot be read as ISMRMRD ({error})", str(path), "Get the file again") from error


def _filled(encoding: Any, lines: list[Any], backwards: int, path: Path) -> KSpace:
    trajectory = str(getattr(encoding.trajectory, "value", encoding.trajectory))
    if trajectory != "cartesian":
        raise FormatError(f"holds k-space on a {trajectory} trajectory", str(path), "Cartesian k-space alone is read")
    if not lines:
        raise FormatError("holds no line of k-space", str(path), "Get the file again")
    if len(spaces := {int(one.encoding_space_ref) for one in lines}) > 1:
        raise FormatError(f"holds lines of {len(spaces)} encodings", str(path), "Give a file of one encoding")
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
    counts = np.zeros((slices, rows, columns), np.uint16)
    for one in lines:
        place, first = int(one.idx.kspace_encode_step_1) + shift, rows // 2 - int(one.center_sample)
        # center_sample counts along k-space, whichever way the line was read.
        samples = one.data[:, ::-1] if one.is_flag_set(backwards) else one.data
        before, after = int(one.discard_pre), int(one.discard_post)
        if one.is_flag_set(backwards):
            before, after = after, before
        inside = 0 <= place < columns and first >= 0 and first + samples.shape[1] <= rows
        if not inside or len(samples) != coils or before + after >= samples.shape[1]:
            raise FormatError("has a line that lies outside of its k-space", str(path), "Get the file again")
        samples = samples[:, before : samples.shape[1] - after]
        read = slice(first + before, first + before + samples.shape[1])
        data[one.idx.slice, :, read, place] += samples
        counts[one.idx.slice, read, place] += 1
    data /= np.maximum(counts, 1)[:, None]
    sampled = np.asarray(counts.all(axis=0))
    columns_read = sampled.any(axis=0)
    kept, shown_field = int(image.matrixSize.x), float(image.fieldOfView_mm.x)
    field = float(encoded.fieldOfView_mm.x)
    # The image along a readout of which a part lacks is known only when all of it has been reconstructed.
    if np.array_equal(sampled, np.broadcast_to(columns_read, sampled.shape)) and _is_oversampled(
        rows, field, kept, shown_field
    ):
        data = _cut_readout(data, kept)
        sampled = np.broadcast_to(columns_read, data.shape[2:])
        rows, field = kept, shown_field
    spacing = (field / rows, float(encoded.fieldOfView_mm.y) / columns, float(encoded.fieldOfView_mm.z))
    return KSpace(data, sampled, spacing)


def _cut_readout(data: Array, kept: int) -> Array:
    """The k-space of the middle rows of the image: a readout is measured over more than the field that is shown."""
    axis, first = -2, (data.shape[-2] - kept) // 2
    image = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(data, axes=axis), axis=axis, norm="ortho"), axes=axis)
    middle = np.fft.ifftshift(image[..., first : first + kept, :], axes=axis)
    return np.fft.fftshift(np.fft.fft(middle, axis=axis, norm="ortho"), axes=axis).astype(np.complex64)

"""The data set of an object in the transfer syntax that everybody takes: implicit VR, lowest byte first."""

from __future__ import annotations

from pathlib import Path

from isocenter.errors import FormatError
from isocenter.files.dicom.header import read_object
from isocenter.files.dicom.tags import pydicom_errors
from isocenter.files.dicom.warnings import quiet
from isocenter.lazy import pydicom


def implicit_data_set(path: Path) -> bytes:
    """The data set behind group 2 of a file, without compression, its values as they are. PS3.5 A.1

    Raises FormatError.
    """
    dataset, file = read_object(path), pydicom.filebase.DicomBytesIO()
    file.is_implicit_VR = file.is_little_endian = True
    try:
        with quiet():
            pydicom.filewriter.write_dataset(file, dataset)
    except pydicom_errors() as error:
        raise FormatError(f"cannot be put into implicit VR ({error})", str(path), "Get the file again") from error
    return bytes(file.getvalue())

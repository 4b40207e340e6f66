"""The data set of an object in a native transfer syntax, as an association carries it."""

from __future__ import annotations

from isocenter.errors import FormatError
from isocenter.files.dicom.syntaxes import IMPLICIT
from isocenter.files.dicom.tags import pydicom_errors
from isocenter.files.dicom.warnings import quiet
from isocenter.lazy import pydicom


def encoded(dataset: pydicom.Dataset, syntax: str, where: str) -> bytes:
    """A data set without group 2, lowest byte first, its values as they are. PS3.5 A.1 and A.2

    syntax: of implicit or of explicit VR; where: its file
    Raises FormatError.
    """
    file = pydicom.filebase.DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = syntax == IMPLICIT, True
    try:
        with quiet():
            pydicom.filewriter.write_dataset(file, dataset)
    except pydicom_errors() as error:
        raise FormatError(
            f"cannot be put into {pydicom.uid.UID(syntax).name} ({error})", where, "Get it again"
        ) from error
    return bytes(file.getvalue())

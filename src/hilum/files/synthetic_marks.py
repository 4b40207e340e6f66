"""The mark of a synthetic image in its file: text `Synthetic` of a PNG, `descrip` of NIfTI, `SyntheticData` of DICOM.

The first two hold the hash of the model that synthesised it.
PNG (ISO 15948), 11.3.4.3; nifti1.h and nifti2.h, descrip; PS3.3 C.12.1, Synthetic Data (0008,001C)
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from hilum.errors import FormatError
from hilum.files.dicom import header_reading, tags
from hilum.files.dicom.elements import MAGIC_END
from hilum.values import Case, Dataset

# The fact of an image that writers make a mark of: the SHA-256 of the model that synthesised it.
SYNTHETIC = "synthetic"
KEYWORD = "Synthetic"
PNG, NIFTI = ".png", (".nii", ".nii.gz")
# Where `descrip` begins in a header of NIfTI-1 and NIfTI-2, by the size in its first four bytes, and how long it is.
DESCRIPTION = {struct.pack("<i", 348): 148, struct.pack("<i", 540): 240}
LARGEST_HEADER, DESCRIBED = 540, 80
# The signature of a PNG and its chunk IHDR, behind which the mark stands; room in a NIfTI header.
BEFORE, ROOM = 33, 80


def marked_png(stream: bytes, mark: str) -> bytes:
    """A PNG with the mark as a chunk of text."""
    body = b"tEXt" + f"{KEYWORD}\0{mark}".encode("latin-1")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return stream[:BEFORE] + chunk + stream[BEFORE:]


def description(mark: str) -> bytes:
    """The mark as a NIfTI header has it."""
    return f"{KEYWORD} {mark}".encode("latin-1")[: ROOM - 1]


def read_mark(path: Path) -> str:
    """The mark of a file; empty where it has none, or cannot be read, which its reader says."""
    name = path.name.lower()
    if name.endswith(PNG):
        return _read_png(path)
    return _read_nifti(path) if name.endswith(NIFTI) else _read_dicom(path)


def _read_png(path: Path) -> str:
    import PIL.Image  # not where volumes alone are read

    from hilum.files.video import PIL_ERRORS

    try:
        with PIL.Image.open(path) as opened:
            return str(opened.info.get(KEYWORD, ""))
    except PIL_ERRORS:
        return ""


def _read_nifti(path: Path) -> str:
    """The description in the first bytes of a file, of which no more is read."""
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
            header = file.read(LARGEST_HEADER)
    except (OSError, EOFError, zlib.error):
        return ""
    start = DESCRIPTION.get(header[:4], DESCRIPTION.get(header[3::-1], len(header)))
    word, _, mark = header[start : start + DESCRIBED].rstrip(b"\0").partition(b" ")
    return mark.decode("latin-1") if word == KEYWORD.encode() else ""


def _read_dicom(path: Path) -> str:
    """YES where the object states that it was made artificially."""
    try:
        with path.open("rb") as file:
            is_dicom = file.read(MAGIC_END).endswith(b"DICM")
        stated = tags.text(header_reading.read_header(path).dataset, "SyntheticData") if is_dicom else ""
    except (OSError, FormatError):
        return ""
    return stated if stated == "YES" else ""


def marked_cases(dataset: Dataset) -> tuple[str, ...]:
    """The cases of which a file is marked as synthetic."""
    return tuple(case.id for case in dataset if any(map(read_mark, _files_with_marks(case))))


def _files_with_marks(case: Case) -> Iterator[Path]:
    """The files of a case, of slices in one folder the first: a series states the same in each."""
    folders_of_slices = set[Path]()
    for path in case.files:
        is_slice = not path.name.lower().endswith((PNG, *NIFTI))
        if is_slice and path.parent in folders_of_slices:
            continue
        if is_slice:
            folders_of_slices.add(path.parent)
        yield path

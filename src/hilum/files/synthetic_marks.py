"""The mark of a drawn image in its file: text `Synthetic` of a PNG, `descrip` of a NIfTI header, with a model's hash.

PNG (ISO 15948), 11.3.4.3; nifti1.h and nifti2.h, descrip
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

from hilum.values import Dataset

# The fact of an image that writers make a mark of: the SHA-256 of the weights that drew it.
SYNTHETIC = "synthetic"
KEYWORD = "Synthetic"
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
    if name.endswith(".png"):
        return _read_png(path)
    return _read_nifti(path) if name.endswith((".nii", ".nii.gz")) else ""


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


def marked_cases(dataset: Dataset) -> tuple[str, ...]:
    """The cases of which a file is marked as drawn."""
    return tuple(case.id for case in dataset if any(map(read_mark, case.files)))

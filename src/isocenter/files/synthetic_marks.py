"""The mark of a drawn image in its file: text `Synthetic` of a PNG, `descrip` of a NIfTI header, with a model's hash.

PNG (ISO 15948), 11.3.4.3; nifti1.h and nifti2.h, descrip
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

from isocenter.values import Dataset

# The fact of an image that writers make a mark of: the SHA-256 of the weights that drew it.
SYNTHETIC = "synthetic"
KEYWORD = b"Synthetic"
# Of a PNG the signature and the chunk IHDR, behind which the mark stands; a NIfTI header, and where descrip begins.
BEFORE, HEADER = 33, 540
DESCRIP = {348: 148, 540: 240}
DESCRIP_BYTES = 80


def marked_png(stream: bytes, mark: str) -> bytes:
    """A PNG with the mark as a chunk of text."""
    body = b"tEXt" + KEYWORD + b"\0" + mark.encode("latin-1")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return stream[:BEFORE] + chunk + stream[BEFORE:]


def description(mark: str) -> bytes:
    """The mark as a NIfTI header has it."""
    return KEYWORD + b" " + mark.encode("latin-1")[: DESCRIP_BYTES - len(KEYWORD) - 2]


def read_mark(path: Path) -> str:
    """The mark of a file; empty where it has none, or cannot be read, which its reader says."""
    name = path.name.lower()
    try:
        if name.endswith(".png"):
            with path.open("rb") as file:
                head = file.read(BEFORE + 8 + len(KEYWORD) + 1 + DESCRIP_BYTES)
            length, kind = struct.unpack_from(">I4s", head, BEFORE)
            word, _, mark = head[BEFORE + 8 : BEFORE + 8 + length].partition(b"\0")
            return mark.decode("latin-1") if kind == b"tEXt" and word == KEYWORD else ""
        if name.endswith((".nii", ".nii.gz")):
            with gzip.open(path) if name.endswith(".gz") else path.open("rb") as file:
                head = file.read(HEADER)
            size = next(size for size in DESCRIP if size in (struct.unpack_from(end, head)[0] for end in ("<i", ">i")))
            word, _, mark = head[DESCRIP[size] :][:DESCRIP_BYTES].rstrip(b"\0").partition(b" ")
            return mark.decode("latin-1") if word == KEYWORD else ""
    except (OSError, EOFError, zlib.error, struct.error, StopIteration):
        pass
    return ""


def marked_cases(dataset: Dataset) -> tuple[str, ...]:
    """The cases of which a file is marked as drawn."""
    return tuple(case.id for case in dataset if any(map(read_mark, case.files)))

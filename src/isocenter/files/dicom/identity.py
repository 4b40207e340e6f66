"""Which object a DICOM file holds: its UIDs, found in the first bytes, whatever kind of object it is."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from isocenter.errors import FormatError
from isocenter.files.dicom.elements import (
    DEEPEST,
    HEAD_SIZES,
    MAGIC_END,
    UNDEFINED,
    UnusualError,
    behind_sequence,
    element_head,
)
from isocenter.files.dicom.header import read_header
from isocenter.files.dicom.syntaxes import BIG_ENDIAN, DEFLATED, IMPLICIT
from isocenter.files.dicom.tags import named, text

SYNTAX, SERIES = 0x00020010, 0x0020000E
KEYWORDS = {
    SYNTAX: "TransferSyntaxUID",
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x0020000D: "StudyInstanceUID",
    SERIES: "SeriesInstanceUID",
}
_TAG = struct.Struct("<HH")
_UID = re.compile(r"[0-9.]{1,64}")  # PS3.5 9.1; zeros that lead a component are wrong there, and common


class Identity(NamedTuple):
    """Which object a file holds.

    offset: bytes before the data set, which are the same for no two programs that write the file
    """

    study: str
    series: str
    instance: str
    sop_class: str
    syntax: str
    offset: int


def read_identity(path: Path) -> Identity:
    """The UIDs of one file. Raises FormatError where it is not DICOM, or lacks one of them."""
    found, offset = _plain(path)
    if found.keys() != KEYWORDS.keys():
        head = read_header(path)
        found = {tag: text(head.dataset, keyword) for tag, keyword in KEYWORDS.items()}
        found[SYNTAX] = head.transfer_syntax or IMPLICIT
    for tag, keyword in KEYWORDS.items():
        if not _UID.fullmatch(found[tag]):
            raise FormatError(f"{named(keyword)} is missing or no UID", str(path), "Have it sent with all its UIDs")
    syntax, sop_class, instance, study, series = (found[tag] for tag in KEYWORDS)
    return Identity(study, series, instance, sop_class, syntax, offset)


def _plain(path: Path) -> tuple[dict[int, str], int]:
    """The UIDs as far as they are found without the DICOM library, and where the data set begins."""
    found: dict[int, str] = {}
    offset = 0
    with path.open("rb", buffering=0) as file:
        for size in HEAD_SIZES:
            file.seek(0)
            raw = file.read(size)
            try:
                if raw[MAGIC_END - 4 : MAGIC_END] != b"DICM":
                    break
                offset = _enter(raw, MAGIC_END, found, last=0x0002FFFF)
                syntax = found.get(SYNTAX, IMPLICIT)
                if syntax == DEFLATED:
                    raw, at = zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw[offset:], size), 0
                else:
                    at = offset
                if syntax != BIG_ENDIAN:
                    _enter(raw, at, found, last=SERIES, is_implicit=syntax == IMPLICIT)
                break
            except (struct.error, IndexError):  # it goes on behind what was read
                continue
            except (UnusualError, UnicodeDecodeError, zlib.error):
                break
    return found, offset


def _enter(raw: bytes, at: int, found: dict[int, str], *, last: int, is_implicit: bool = False) -> int:
    """Enter the UIDs of the elements from an offset up to the tag `last`; the offset of what comes behind."""
    while True:
        group, element = _TAG.unpack_from(raw, at)
        if group << 16 | element > last:  # asked first: behind group 2 VRs may be implicit
            return at
        tag, vr, start, length = element_head(raw, at, is_implicit=is_implicit)
        end = start + length if length != UNDEFINED else behind_sequence(raw, start, vr, is_implicit, DEEPEST)
        if tag in KEYWORDS:
            if end > len(raw):
                raise IndexError
            found[tag] = raw[start:end].rstrip(b" \0").decode("ascii")
            if tag == SERIES:
                return end
        at = end

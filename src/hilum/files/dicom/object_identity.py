"""The identity of the object in a DICOM file: its UIDs, found in the first bytes, whatever kind of object it is.

Of one object in several files the same bytes are read once; another content with the same UID is refused.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from hilum.errors import FormatError, GeometryError
from hilum.files.dicom import elements, header_reading, tags
from hilum.files.dicom.elements import DEEPEST, HEAD_SIZES, MAGIC_END, SHORT_LENGTH, UNDEFINED, UnusualError
from hilum.files.dicom.header_reading import Header
from hilum.files.dicom.uids import BIG_ENDIAN, DEFLATED, IMPLICIT

SYNTAX, SERIES = 0x00020010, 0x0020000E
KEYWORDS = {
    SYNTAX: "TransferSyntaxUID",
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x0020000D: "StudyInstanceUID",
    SERIES: "SeriesInstanceUID",
}
COMPARED_AT_ONCE = 1 << 20  # bytes
_SHORT = struct.Struct("<HH2sH")
_UID = re.compile(r"[0-9.]{1,64}")  # PS3.5 9.1; zeros that lead a component are wrong there, and common


class ObjectIdentity(NamedTuple):
    """The identity of the object in a file.

    offset: bytes before the data set; two programs that write one object differ in them
    """

    study: str
    series: str
    instance: str
    sop_class: str
    syntax: str
    offset: int


def read_identity(path: Path, start: bytes = b"") -> ObjectIdentity:
    """The UIDs of one file; start: its first bytes, where they are known.

    Raises FormatError where it is not DICOM, or lacks one of them.
    """
    uids, offset = _plain(start)
    for size in HEAD_SIZES:
        if uids.keys() != KEYWORDS.keys():
            with path.open("rb", buffering=0) as file:
                uids, offset = _plain(file.read(size))
    if uids.keys() != KEYWORDS.keys():
        head = header_reading.read_header(path)
        uids = {tag: tags.text(head.dataset, keyword) for tag, keyword in KEYWORDS.items()}
        uids[SYNTAX] = head.transfer_syntax or IMPLICIT
    for tag, keyword in KEYWORDS.items():
        if not _UID.fullmatch(uids[tag]):
            raise FormatError(
                f"{tags.keyword_with_tag(keyword)} is missing or no UID", str(path), "Have it sent with all its UIDs"
            )
    syntax, sop_class, instance, study, series = (uids[tag] for tag in KEYWORDS)
    return ObjectIdentity(study, series, instance, sop_class, syntax, offset)


def is_same_object(first: Path, identity: ObjectIdentity, other: Path, others: ObjectIdentity) -> bool:
    """Whether two files hold one object: the same UIDs, the same transfer syntax, and a data set equal byte for byte.

    own, others: the identities of the two files
    """
    if identity[:5] != others[:5] or first.stat().st_size - identity.offset != other.stat().st_size - others.offset:
        return False
    with first.open("rb") as file, other.open("rb") as second:
        file.seek(identity.offset)
        second.seek(others.offset)
        while data := file.read(COMPARED_AT_ONCE):
            if data != second.read(COMPARED_AT_ONCE):
                return False
    return True


def _plain(start: bytes) -> tuple[dict[int, str], int]:
    """The UIDs as far as they are found in a file's first bytes, and where the data set begins."""
    uids: dict[int, str] = {}
    offset = 0
    with suppress(struct.error, IndexError, UnusualError, UnicodeDecodeError, zlib.error):
        if start[MAGIC_END - 4 : MAGIC_END] == b"DICM":
            offset = _enter(start, MAGIC_END, uids, last=0x0002FFFF)
            syntax, at = uids.get(SYNTAX, IMPLICIT), offset
            if syntax == DEFLATED:
                start, at = zlib.decompressobj(-zlib.MAX_WBITS).decompress(start[offset:], HEAD_SIZES[-1]), 0
            if syntax != BIG_ENDIAN:
                _enter(start, at, uids, last=SERIES, is_implicit=syntax == IMPLICIT)
    return uids, offset


def _enter(raw: bytes, at: int, uids: dict[int, str], *, last: int, is_implicit: bool = False) -> int:
    """Enter the UIDs of the elements from an offset up to the tag `last`; the offset of what comes behind."""
    short = frozenset[bytes]() if is_implicit else SHORT_LENGTH
    while True:
        group, element, vr, length = _SHORT.unpack_from(raw, at)
        tag = group << 16 | element
        if tag > last:  # asked first: behind group 2 VRs may be implicit
            return at
        start = at + 8
        if vr not in short:
            _, vr, start, length = elements.element_head(raw, at, is_implicit=is_implicit)
        end = (
            start + length
            if length != UNDEFINED
            else elements.offset_behind_sequence(raw, start, vr, is_implicit, DEEPEST)
        )
        if tag in KEYWORDS:
            if end > len(raw):
                raise IndexError
            uids[tag] = raw[start:end].rstrip(b" \0").decode("ascii")
            if tag == SERIES:
                return end
        at = end


@dataclass
class Originals:
    """The objects of one series, each in the file in which it comes first.

    first:  {SOP Instance UID: that file}
    copies: {file: the first file of the same object}
    rivals: {file: the first file with its UID, which holds another object}
    """

    first: dict[str, Path] = field(default_factory=dict)
    copies: dict[Path, Path] = field(default_factory=dict)
    rivals: dict[Path, Path] = field(default_factory=dict)

    def add(self, head: Header) -> bool:
        """Take one more file; False where it is a copy."""
        uid = tags.text(head.dataset, "SOPInstanceUID")
        first = self.first.setdefault(uid, head.path) if uid else head.path
        if first == head.path:
            return True
        is_copy = _holds_the_same(head.path, first)
        (self.copies if is_copy else self.rivals)[head.path] = first
        return not is_copy

    def join(self, other: Originals) -> None:
        """Take the objects of another series that turned out to be this one; one with a UID of here is a rival."""
        self.copies |= other.copies
        self.rivals |= other.rivals
        for uid, path in other.first.items():
            first = self.first.setdefault(uid, path)
            if first != path:
                self.rivals[path] = first


def drop_copies(heads: Sequence[Header], where: str) -> tuple[list[Header], tuple[str, ...]]:
    """(The headers without those of copies, a note of each copy).

    Raises GeometryError for two files with one UID and different contents: which of them is meant cannot be known.
    """
    originals = Originals()
    originals_only = [head for head in heads if originals.add(head)]
    for path, first in originals.rivals.items():
        raise GeometryError(
            f"{first.name} and {path.name} have one {tags.keyword_with_tag('SOPInstanceUID')} and different contents",
            where,
            "Keep the one that is meant, or give each a UID of its own",
        )
    return originals_only, tuple(
        f"{path.name} is a copy of {first.name}: it is read once" for path, first in originals.copies.items()
    )


def _holds_the_same(path: Path, first: Path) -> bool:
    try:
        return is_same_object(path, read_identity(path), first, read_identity(first))
    except FormatError:  # without all its UIDs
        return False

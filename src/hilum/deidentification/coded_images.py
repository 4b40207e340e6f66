"""Coded images without the text that may stand beside the picture: comments, thumbnails, and bytes behind its end.

What decodes to pixels keeps its bytes. JPEG (ITU-T T.81 B.1.1 and T.871), JPEG-LS (T.87), JPEG 2000 (T.800 annex A)
"""

from __future__ import annotations

import re
import struct

from hilum.errors import FormatError

JPEG, CODESTREAM = b"\xff\xd8", b"\xff\x4f\xff\x51"
SCAN, END, FILL = 0xDA, 0xD9, 0xFF
# Of a JPEG and a JPEG-LS the segments from which pixels are made: frames, tables, scans and their parameters.
OF_PIXELS = frozenset((*range(0xC0, 0xD0), *range(0xDA, 0xE0), 0xF7, 0xF8)) - {0xC8}
JFIF, EXIF, OF_TRANSFORM, ADOBE = 0xE0, 0xE1, 0xE8, 0xEE
JFIF_HEAD, ADOBE_HEAD = 12, 12  # bytes before a thumbnail's size, and of all that Adobe states
# Within coded data: what is not stuffed, by a byte in JPEG and by a bit in JPEG-LS, and is no restart.
MARKER = re.compile(rb"\xff+([\x80-\xcf\xd8-\xfe])")
# Of a JPEG 2000 stream: comments, the start of a tile's part, and the end.
COMMENT, TILE_PART, END_OF_STREAM = b"\xff\x64", b"\xff\x90", b"\xff\xd9"
CUT = "is cut short, or is no whole JPEG"


def strip_jpeg(content: bytes, where: str, *, orientation: int = 1) -> bytes:
    """A JPEG or JPEG-LS of the segments that make its pixels, and of an EXIF that holds the orientation alone.

    Raises FormatError for a cut one.
    """
    kept, at = [content[:2]], 2
    is_turned = orientation != 1
    while at + 2 <= len(content) and content[at] == FILL:
        code, end = content[at + 1], at + 2
        if code == END:
            return b"".join([*kept, content[at:end]])
        if code == FILL:
            at += 1
            continue
        length = int.from_bytes(content[end : end + 2], "big")
        body = content[end + 2 : end + length]
        if code == SCAN:
            marker = MARKER.search(content, end + length)
            if marker is None:
                break
            kept.append(content[at : marker.start()])
            at = marker.start()
            continue
        segment = _bare_segment(code, body)
        if is_turned and code != JFIF:  # which stands first, T.871
            kept.append(_orientation_segment(orientation))
            is_turned = False
        kept.append(segment)
        at = end + length
    raise FormatError(CUT, where, "Get the file again")


def _bare_segment(code: int, body: bytes) -> bytes:
    """A segment without what no pixel needs; nothing where all of it is of that kind."""
    if code == JFIF and body.startswith(b"JFIF\0"):
        return _segment(code, body[:JFIF_HEAD] + bytes(2))  # a thumbnail of no columns and no rows
    if code == ADOBE and body.startswith(b"Adobe"):
        return _segment(code, body[:ADOBE_HEAD])
    is_transform = code == OF_TRANSFORM and body.startswith(b"mrfx") and len(body) == 5  # of colours, of JPEG-LS
    return _segment(code, body) if code in OF_PIXELS or is_transform else b""


def _segment(code: int, body: bytes) -> bytes:
    return bytes((FILL, code)) + (len(body) + 2).to_bytes(2, "big") + body


def _orientation_segment(orientation: int) -> bytes:
    """An EXIF with one entry, the orientation. EXIF 2.32, 4.6.2 and table 4"""
    head = struct.pack("<2sHI", b"II", 42, 8)
    entries = struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    return _segment(EXIF, b"Exif\0\0" + head + entries)


def strip_jpeg_2000(content: bytes, where: str) -> bytes:
    """A JPEG 2000 stream without the comments of its head, and without what follows its end.

    Raises FormatError for a cut one.
    """
    kept, at = [content[:2]], 2
    while content[at : at + 2] != TILE_PART:
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(content):
            raise FormatError(CUT, where, "Get the file again")
        if content[at : at + 2] != COMMENT:
            kept.append(content[at : at + 2 + length])
        at += 2 + length
    end = _tiles_end(content, at)
    if content[end : end + 2] != END_OF_STREAM:
        raise FormatError(CUT, where, "Get the file again")
    return b"".join([*kept, content[at : end + 2]])


def _tiles_end(content: bytes, at: int) -> int:
    """Where the parts of the tiles end, of which the last one may state no length. T.800 A.4.2"""
    while content[at : at + 2] == TILE_PART:
        length = int.from_bytes(content[at + 6 : at + 10], "big")
        if length == 0:
            return content.find(END_OF_STREAM, at)  # which coded data never holds
        at += length
    return at


def strip_frame(frame: bytes, where: str) -> bytes:
    """One coded frame without what stands beside its pixels; of other kinds of coding as it is."""
    if frame.startswith(JPEG):
        return strip_jpeg(frame, where)
    if frame.startswith(CODESTREAM):
        return strip_jpeg_2000(frame, where)
    return frame

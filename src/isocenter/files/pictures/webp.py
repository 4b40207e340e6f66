"""WebP pictures, RFC 9649: Pillow takes two pictures' memory before it looks at one, so they are read without it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import imagecodecs
import PIL.Image

from isocenter.errors import FormatError
from isocenter.files.coded import stated
from isocenter.values import Array

MOVING = 0x02  # of the flags in VP8X
ORIENTATION = 0x0112  # EXIF 2.32, table 4


def is_webp(path: Path) -> bool:
    """Whether a file starts as a WebP picture."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[:4] == b"RIFF" and head[8:] == b"WEBP"


def read_webp(path: Path) -> tuple[Array, int]:
    """((rows, columns, channels), EXIF orientation).

    Raises ValueError, RuntimeError or DecompressionBombError for what cannot be decoded, FormatError for a moving one.
    """
    stream = path.read_bytes()
    size, chunks = stated(stream), dict(_chunks(stream))
    if size.rows * size.columns > (PIL.Image.MAX_IMAGE_PIXELS or size.rows * size.columns):
        raise PIL.Image.DecompressionBombError(f"{size.rows} x {size.columns} pixels")
    if chunks.get(b"VP8X", b"\0")[0] & MOVING:
        raise FormatError("a moving picture", str(path), "Save its frames as TIFF")
    return imagecodecs.webp_decode(stream), _orientation(chunks)


def webp_orientation(path: Path) -> int:
    """The EXIF orientation of a WebP picture; 1 where it states none."""
    return _orientation(dict(_chunks(path.read_bytes())))


def _orientation(chunks: Mapping[bytes, bytes]) -> int:
    exif = PIL.Image.Exif()
    exif.load(chunks.get(b"EXIF", b""))
    return int(exif.get(ORIENTATION, 1))


def _chunks(stream: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, body) of each chunk of the RIFF file."""
    at = 12
    while at + 8 <= len(stream):
        kind, length = struct.unpack_from("<4sI", stream, at)
        yield kind, stream[at + 8 : at + 8 + length]
        at += 8 + length + length % 2

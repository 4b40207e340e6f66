"""The claims of a coded picture's first bytes: nothing is decoded before they are known.

JPEG (ITU-T T.81), JPEG-LS (T.87), JPEG 2000 (T.800, annexes A and I), JPEG XL (ISO/IEC 18181-1, annex D), PNG and
WebP.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

JPEG, CODESTREAM, PNG = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\x89PNG\r\n\x1a\n"
JP2 = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
SYCC = b"\x01\0\0\0\0\0\x12"  # an enumerated colour space: method 1, number 18
JPEG_XL, JPEG_XL_BOXES = b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n"
STARTS_OF_FRAME = (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7)
LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)
APP0, APP14 = 0xE0, 0xEE  # where JFIF and Adobe state what the components are
RGB, YCBCR = "RGB", "YCBCR"
MODELS = {RGB: "red, green and blue", YCBCR: "luminance with chrominance"}
OF_ADOBE, OF_NAMES = "Adobe's marker", "the names of its components"
START_OF_SCAN, END_OF_IMAGE, PARAMETERS, OVERSIZE = 0xDA, 0xD9, 0xF8, 4
# Markers without a length; none belongs between the start of a stream and its first scan.
BARE = (0x01, *range(0xD0, 0xDA))
# The decoder keeps some kB for each tile: smaller ones than anybody writes may not be many.
MANY_TILES, SMALLEST_TILE = 4096, 1 << 14
PNG_SAMPLES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}


@dataclass(frozen=True)
class StatedSize:
    """The size of a coded picture, samples a pixel, and bits a sample where they are stated."""

    rows: int
    columns: int
    samples: int
    bits: int | None = None

    @property
    def values(self) -> int:
        """The number of values that it decodes to."""
        return self.rows * self.columns * self.samples


def stated_size(stream: bytes) -> StatedSize:
    """The size that a stream states. Raises ValueError for one that is of no known kind, or is damaged."""
    try:
        if stream.startswith(JPEG):
            _, frame = start_of_frame(stream)
            return frame.size
        if stream.startswith((CODESTREAM, JP2)):
            return _jpeg_2000(stream)
        if stream.startswith((JPEG_XL, JPEG_XL_BOXES)):
            return _jpeg_xl(stream)
        if stream.startswith(PNG):
            columns, rows, bits, colour = struct.unpack_from(">IIBB", stream, 16)
            return StatedSize(rows, columns, PNG_SAMPLES[colour], bits)
        if stream[:4] == b"RIFF" and stream[8:12] == b"WEBP":
            return _webp(stream)
    except (struct.error, IndexError, KeyError) as error:
        raise ValueError(f"its header is damaged ({error})") from error
    raise ValueError("it is not a compressed picture of a known kind")


@dataclass(frozen=True)
class JpegFrame:
    """The frame header of a JPEG or JPEG-LS stream; components: [(name, sampling factors)]."""

    size: StatedSize
    components: tuple[tuple[int, int], ...]

    @property
    def names(self) -> str:
        """The names of all components as letters."""
        return "".join(chr(name) for name, _ in self.components)


def start_of_frame(stream: bytes) -> tuple[int, JpegFrame]:
    """(marker, frame header) of a JPEG or JPEG-LS stream. Raises ValueError without one before the first scan."""
    for code, body in segments_of_jpeg(stream):
        if code == PARAMETERS and body[:1] == bytes([OVERSIZE]):
            raise ValueError("it states its size twice")
        if code in STARTS_OF_FRAME and len(body) >= 6 + 3 * body[5]:
            bits, rows, columns, count = struct.unpack_from(">BHHB", body)
            components = tuple((body[6 + 3 * n], body[7 + 3 * n]) for n in range(count))
            return code, JpegFrame(StatedSize(rows, columns, count, bits), components)
    raise ValueError("no JPEG stream")


@dataclass(frozen=True)
class StatedColours:
    """The colour model that a JPEG stream states of itself, and the words for where it does.

    model: RGB or YCBCR
    """

    model: str
    where: str


def stated_colours(stream: bytes) -> StatedColours | None:
    """The colour model of three JPEG components as their stream states it; None where it states none.

    JFIF, which is luminance with chrominance by its standard, goes before Adobe's marker, and both go before the names
    of the components: the order of libjpeg. Chrominance that is coarser shows itself.
    """
    _, frame = start_of_frame(stream)
    if frame.size.samples != 3:
        return None
    segments = list(segments_of_jpeg(stream))
    if any(code == APP0 and body.startswith(b"JFIF\0") for code, body in segments):
        return StatedColours(YCBCR, "JFIF")
    transforms = [body[11] for code, body in segments if code == APP14 and body[:5] == b"Adobe" and len(body) >= 12]
    if transforms:
        return StatedColours(YCBCR if transforms[0] else RGB, OF_ADOBE)
    if frame.names == RGB:
        return StatedColours(RGB, OF_NAMES)
    if len({sampling for _, sampling in frame.components}) > 1:
        return StatedColours(YCBCR, "its coarser chrominance")
    return None


def has_end(stream: bytes) -> bool:
    """Whether a JPEG stream goes on to its end marker; previews inside its head have ends of their own."""
    at = 2 + sum(4 + len(body) for _, body in segments_of_jpeg(stream))
    # In a scan FF stands before 00, a restart or another FF; any other marker ends it.
    return any(mark[0][1] == END_OF_IMAGE for mark in re.finditer(rb"\xff[^\x00\xd0-\xd7\xff]", stream[at:]))


def segments_of_jpeg(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, body) of each segment before the first scan."""
    at = 2
    while at + 4 <= len(stream) and stream[at] == 0xFF:
        code = stream[at + 1]
        if code == 0xFF:  # fill bytes may stand before a marker
            at += 1
            continue
        if code == START_OF_SCAN:
            return
        if code in BARE:
            raise ValueError("no JPEG stream")
        length = int.from_bytes(stream[at + 2 : at + 4], "big")
        yield code, stream[at + 4 : at + 2 + length]
        at += 2 + length


def _codestream_of_jpeg_2000(stream: bytes) -> bytes:
    """The codestream itself, which may stand in a box of a JP2 file. Raises ValueError without one."""
    if stream.startswith(JP2):
        stream = next((body for kind, body in _boxes(stream) if kind == b"jp2c"), b"")
    if not stream.startswith(CODESTREAM) or len(stream) < 43:
        raise ValueError("no JPEG 2000 codestream")
    return stream


def is_sycc(stream: bytes) -> bool:
    """Whether the boxes of a JP2 file state luminance with chrominance (sYCC), T.800 I.5.3.3; a codec undoes it."""
    if not stream.startswith(JP2):
        return False
    inner = dict(_boxes(dict(_boxes(stream)).get(b"jp2h", b"")))
    return inner.get(b"colr", b"")[:7] == SYCC


def _jpeg_2000(stream: bytes) -> StatedSize:
    boxes = dict(_boxes(stream)) if stream.startswith(JP2) else {}
    palette = dict(_boxes(boxes.get(b"jp2h", b""))).get(b"pclr", bytes(3))
    stream = _codestream_of_jpeg_2000(stream)
    right, bottom, left, top, wide, high, _, _, samples, bits = struct.unpack_from(">8IHB", stream, 8)
    columns, rows = right - left, bottom - top
    tiles = -(-columns // max(wide, 1)) * -(-rows // max(high, 1))
    if tiles > MANY_TILES and wide * high < SMALLEST_TILE:
        raise ValueError(f"it claims {tiles} tiles")
    return StatedSize(rows, columns, max(samples, palette[2]), (bits & 0x7F) + 1)


class _Bits:
    """Bits of a JPEG XL header, the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._rest, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def __call__(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("its header is cut short")
        value = self._rest & ((1 << count) - 1)
        self._rest >>= count
        return value

    def choice(self, *kinds: tuple[int, int]) -> int:
        """One of four (constant, bits that are added to it)."""
        constant, count = kinds[self(2)]
        return constant + self(count)


RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def _jpeg_xl(stream: bytes) -> StatedSize:
    if stream.startswith(JPEG_XL_BOXES):
        bodies = {b"jxlc": 0, b"jxlp": 4}  # of the second kind each part begins with its number
        parts = ((bodies.get(kind), body) for kind, body in _boxes(stream))
        stream = next((body[skip:] for skip, body in parts if skip is not None), b"")
    if not stream.startswith(JPEG_XL):
        raise ValueError("no JPEG XL codestream")
    bits = _Bits(stream[2:64])
    rows, columns = _size_of_jpeg_xl(bits)
    if bits(1):  # all else as usual: 8 bits, no further channels
        return StatedSize(rows, columns, 3, 8)
    if bits(1):
        bits(3)  # orientation
        if bits(1):  # the size at which to show it
            _size_of_jpeg_xl(bits)
        if bits(1) or bits(1):
            raise ValueError("it is animated, or has a preview")
    if bits(1):
        depth = bits.choice((32, 0), (16, 0), (24, 0), (1, 6))
        bits(4)
    else:
        depth = bits.choice((8, 0), (10, 0), (12, 0), (1, 6))
    bits(1)
    return StatedSize(rows, columns, 3 + bits.choice((0, 0), (1, 0), (2, 4), (1, 12)), depth)


def _size_of_jpeg_xl(bits: _Bits) -> tuple[int, int]:
    """(rows, columns)."""
    small = bits(1)

    def length() -> int:
        return 8 * (bits(5) + 1) if small else bits.choice((1, 9), (1, 13), (1, 18), (1, 30))

    rows, ratio = length(), bits(3)
    if ratio == 0:
        return rows, length()
    numerator, denominator = RATIOS[ratio - 1]
    return rows, rows * numerator // denominator


def _boxes(stream: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, body) of the boxes of an ISO base media file."""
    at = 0
    while at + 8 <= len(stream):
        length, head = int.from_bytes(stream[at : at + 4], "big"), 8
        if length == 1:
            length, head = int.from_bytes(stream[at + 8 : at + 16], "big"), 16
        end = at + length if length else len(stream)
        yield stream[at + 4 : at + 8], stream[at + head : end]
        if end < at + head:
            raise ValueError("its boxes overlap")
        at = end


def _webp(stream: bytes) -> StatedSize:
    kind = stream[12:16]
    if kind == b"VP8X":
        columns, rows = (int.from_bytes(stream[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        packed = int.from_bytes(stream[21:25], "little")
        columns, rows = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        columns, rows = (int.from_bytes(stream[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    else:
        raise ValueError("no WebP picture")
    return StatedSize(rows, columns, 4, 8)

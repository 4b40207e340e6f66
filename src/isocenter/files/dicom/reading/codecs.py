"""Compressed DICOM frames to samples: the one file that knows the codec library (imagecodecs, BSD)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import uid

from isocenter.files.dicom.syntaxes import DEFLATED_IMAGE_FRAME, JPEG, JPEG_2000, JPEG_LS, JPEG_XL

Samples = NDArray[Any]

# What decoders raise at a damaged frame: each codec has its own kind of RuntimeError, and ValueError is ours.
CODEC_ERRORS = (
    ArithmeticError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip


def decompress(
    frame: bytes, *, syntax: str, rows: int, columns: int, samples: int, bits: int, photometric: str
) -> Samples:
    """One frame, (rows, columns) or (rows, columns, samples), as the codec gives it; colour streams of JPEG and
    JPEG 2000 as RGB where the codec undoes the colour transform, see `photometric_after`.

    bits: Bits Allocated; 1 for packed masks
    Raises ValueError for a frame that cannot be decoded; the caller knows the file.
    """
    if syntax in JPEG | JPEG_LS | JPEG_2000:
        _check_end(frame)
    if syntax in JPEG:
        return _jpeg(frame, rows, columns, photometric)
    if syntax in JPEG_LS:
        _same_size(_jpeg_size(frame), rows, columns)
        return imagecodecs.jpegls_decode(frame)
    if syntax in JPEG_2000:
        return _jpeg_2000(frame, rows, columns)
    if syntax in JPEG_XL:
        return imagecodecs.jpegxl_decode(frame)
    if syntax == uid.RLELossless:
        return _packed(lambda limit: _rle(frame, bits, limit), rows, columns, samples, bits, planar=True)
    if syntax == DEFLATED_IMAGE_FRAME:
        return _packed(lambda limit: _inflate(frame, limit), rows, columns, samples, bits, planar=False)
    raise ValueError("no decoder for this transfer syntax")


def is_known(syntax: str) -> bool:
    """Whether `decompress` has a decoder for a transfer syntax."""
    return syntax in JPEG | JPEG_LS | JPEG_2000 | JPEG_XL | {uid.RLELossless, DEFLATED_IMAGE_FRAME}


def keeps_words(syntax: str) -> bool:
    """Whether samples come out in the words they were stored in, with all bits; other codecs give only samples."""
    return syntax in (uid.RLELossless, DEFLATED_IMAGE_FRAME)


def photometric_after(frame: bytes, syntax: str, photometric: str) -> str:
    """The photometric interpretation of what `decompress` gives.

    Lossy JPEG streams become RGB by their own markers; JPEG 2000 undoes its component transform (YBR_RCT and
    YBR_ICT, PS3.5 8.2.4) but not a YBR_FULL that was there before; JPEG XL gives RGB.
    """
    undone = photometric in ("YBR_RCT", "YBR_ICT", "XYB") or (
        syntax in JPEG and _start_of_frame(frame)[3] == 3 and not _is_lossless(frame)
    )
    return "RGB" if undone else photometric


def precision(frame: bytes, syntax: str) -> int | None:
    """Bits per sample of the stream itself, where it states them: JPEG 2000's SIZ, JPEG's and JPEG-LS's SOF."""
    if syntax in JPEG_2000:
        start = frame.find(b"\xff\x4f\xff\x51")
        return (frame[start + 42] & 0x7F) + 1 if start >= 0 else None
    if syntax in JPEG | JPEG_LS:
        return _start_of_frame(frame)[0]
    return None


def _jpeg(frame: bytes, rows: int, columns: int, photometric: str) -> Samples:
    bits, height, width, components, _ = _start_of_frame(frame)
    _same_size((height, width), rows, columns)
    if components != 3 or bits > 8 or _is_lossless(frame):  # a lossless stream has no colour transform of its own
        return imagecodecs.jpeg8_decode(frame)
    return imagecodecs.jpeg8_decode(frame, colorspace=_jpeg_colour(frame, photometric), outcolorspace="RGB")


def _jpeg_colour(frame: bytes, photometric: str) -> str:
    """The colour space of a three-component JPEG stream. Its own markers know better than the header around it:
    Adobe's transform flag, JFIF (which is YCbCr by its standard), R, G, B as component names, coarser chroma."""
    adobe = _segment(frame, 0xEE)
    components = _start_of_frame(frame)[4]
    if adobe is not None and adobe[:5] == b"Adobe" and len(adobe) >= 12:
        is_rgb = adobe[11] != 1
    elif [name for name, _ in components] == [ord("R"), ord("G"), ord("B")]:
        is_rgb = True
    else:
        coarser = _segment(frame, 0xE0) is not None or len({sampling for _, sampling in components}) > 1
        is_rgb = photometric == "RGB" and not coarser
    return "RGB" if is_rgb else "YCBCR"


def _jpeg_2000(frame: bytes, rows: int, columns: int) -> Samples:
    start = frame.find(b"\xff\x4f\xff\x51")  # also inside the boxes of a JP2 file
    if start < 0 or len(frame) < start + 42:
        raise ValueError("no JPEG 2000 codestream")
    right, bottom, left, top = (int.from_bytes(frame[start + n : start + n + 4], "big") for n in (8, 12, 16, 20))
    _same_size((bottom - top, right - left), rows, columns)
    return imagecodecs.jpeg2k_decode(frame)


def _packed(
    unpack: Callable[[int], bytes], rows: int, columns: int, samples: int, bits: int, *, planar: bool
) -> Samples:
    """Samples of a frame whose codec knows bytes only; a 1-bit frame is packed, lowest bit first (PS3.5 8.1.1)."""
    count = rows * columns * samples
    need = (count * bits + 7) // 8
    data = unpack(need)
    if len(data) < need:
        raise ValueError(f"{len(data)} bytes instead of {need}")
    if bits == 1:
        flat: Samples = np.unpackbits(np.frombuffer(data, np.uint8), count=count, bitorder="little")
    else:
        flat = np.frombuffer(data[:need], f"<u{bits // 8}")
    if samples == 1:
        return flat.reshape(rows, columns)
    if planar:
        return np.moveaxis(flat.reshape(samples, rows, columns), 0, -1)
    return flat.reshape(rows, columns, samples)


def _rle(frame: bytes, bits: int, limit: int) -> bytes:
    """PS3.5 annex G: up to 15 segments, one for each byte of each sample, the highest byte first."""
    if len(frame) < 64:
        raise ValueError("no RLE header")
    count, *offsets = np.frombuffer(frame, "<u4", 16).tolist()
    wide = max(bits // 8, 1)
    ends = [*offsets[1:count], len(frame)]
    if not 1 <= count <= 15 or count % wide or not all(64 <= a <= b for a, b in zip(offsets, ends, strict=False)):
        raise ValueError(f"{count} RLE segments")
    size = limit // count
    segments = [_segment_of_rle(frame[start:end], size) for start, end in zip(offsets, ends, strict=False)]
    # By sample, then by byte, highest first; the words wanted have the lowest first.
    planes = np.stack(segments).reshape(count // wide, wide, size)[:, ::-1]
    return planes.swapaxes(1, 2).tobytes()


def _segment_of_rle(segment: bytes, size: int) -> NDArray[np.uint8]:
    if size > 64 * len(segment):  # PS3.5 G.3: two bytes make at most 128
        raise ValueError(f"{len(segment)} bytes of RLE cannot make {size}")
    data = imagecodecs.packbits_decode(segment)
    if len(data) < size:
        raise ValueError(f"an RLE segment of {len(data)} bytes instead of {size}")
    return np.frombuffer(data, np.uint8, size)


def _inflate(frame: bytes, limit: int) -> bytes:
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(frame, limit)


def _check_end(frame: bytes) -> None:
    """Decoders fill up what is missing; the end marker, which JPEG, JPEG-LS and JPEG 2000 share, shows a cut."""
    if b"\xff\xd9" not in frame[-16:]:  # an odd frame is padded, by some with more than one byte
        raise ValueError("it has no end: it is cut short")


def _same_size(stream: tuple[int, int], rows: int, columns: int) -> None:
    """Before anything is allocated: the stream must be of the size that the header states."""
    if stream != (rows, columns):
        raise ValueError(f"the compressed picture is {stream[0]} x {stream[1]}, the header states {rows} x {columns}")


def _jpeg_size(frame: bytes) -> tuple[int, int]:
    return _start_of_frame(frame)[1:3]


def _is_lossless(frame: bytes) -> bool:
    return any(_segment(frame, code) is not None for code in (0xC3, 0xC7, 0xCB, 0xCF))


def _start_of_frame(frame: bytes) -> tuple[int, int, int, int, list[tuple[int, int]]]:
    """(bits, rows, columns, number of components, [(name, sampling factors)]) of a JPEG or JPEG-LS stream."""
    for code in (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7):
        body = _segment(frame, code)
        if body is not None and len(body) >= 6 + 3 * body[5]:
            rows, columns = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            components = [(body[6 + 3 * n], body[7 + 3 * n]) for n in range(body[5])]
            return body[0], rows, columns, body[5], components
    raise ValueError("no JPEG stream")


def _segment(frame: bytes, code: int) -> bytes | None:
    """The body of the first marker segment with this code before the compressed data."""
    at = 2
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        if frame[at + 1] == 0xFF:  # fill bytes may stand before a marker
            at += 1
            continue
        if frame[at + 1] == 0xDA and code != 0xDA:
            return None
        length = int.from_bytes(frame[at + 2 : at + 4], "big")
        if frame[at + 1] == code:
            return frame[at + 4 : at + 2 + length]
        at += 2 + length
    return None

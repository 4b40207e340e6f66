"""Compressed DICOM frames to samples: the one file that knows the codec library (imagecodecs, BSD)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from hilum.files import _picture_streams
from hilum.files._picture_streams import RGB, StatedSize
from hilum.files.dicom.reading import stream_colours
from hilum.files.dicom.uids import CODED, DEFLATED_IMAGE_FRAME, JPEG, JPEG_2000, JPEG_LS, JPEG_XL, MARKED, RLE

Samples = NDArray[Any]
MOST_SAMPLES = 4  # of colours and opacity, whatever the header states

# What decoders raise at a damaged frame: each codec has its own kind of RuntimeError, and ValueError is ours.
CODEC_ERRORS = (
    ArithmeticError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip


def decompress(
    frame: bytes, *, syntax: str, rows: int, columns: int, samples: int, bits: int, photometric: str
) -> Samples:
    """One frame, (rows, columns) or (rows, columns, samples), as the codec gives it; colour streams of JPEG and
    JPEG 2000 as RGB where the codec undoes the colour transform, see `stream_colours`.

    bits: Bits Allocated; 1 for packed masks
    Raises ValueError for a frame that cannot be decoded; the caller knows the file.
    """
    if syntax in MARKED:
        _check_end(frame)
    if syntax in MARKED | JPEG_XL:
        _check_size(_picture_streams.stated_size(frame), rows, columns, samples)
    if syntax in JPEG:
        return _jpeg(frame, photometric)
    if syntax in JPEG_LS:
        return imagecodecs.jpegls_decode(frame)
    if syntax in JPEG_2000:
        return imagecodecs.jpeg2k_decode(frame)
    if syntax in JPEG_XL:
        return imagecodecs.jpegxl_decode(frame)
    if syntax == RLE:
        return _decode_bytes(lambda limit: _rle(frame, bits, limit), rows, columns, samples, bits, planar=True)
    if syntax == DEFLATED_IMAGE_FRAME:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS).decompress
        return _decode_bytes(lambda limit: inflate(frame, limit), rows, columns, samples, bits, planar=False)
    raise ValueError("no decoder for this transfer syntax")


def has_decoder(syntax: str) -> bool:
    """Whether `decompress` has a decoder for a transfer syntax."""
    return syntax in CODED


def keeps_stored_words(syntax: str) -> bool:
    """Whether samples come out in the words they were stored in, with all bits; other codecs give only samples."""
    return syntax in (RLE, DEFLATED_IMAGE_FRAME)


def stream_precision(frame: bytes, syntax: str) -> int | None:
    """Bits per sample of the stream itself, where it states them: JPEG 2000's SIZ, JPEG's and JPEG-LS's SOF."""
    return _picture_streams.stated_size(frame).bits if syntax in MARKED else None


def _jpeg(frame: bytes, photometric: str) -> Samples:
    _, header = _picture_streams.start_of_frame(frame)
    if header.size.samples != 3:
        return imagecodecs.jpeg8_decode(frame)
    # To a marker in a lossless stream the decoder would answer that it cannot transform: it shall not try.
    space = stream_colours.space_of_jpeg(frame, photometric) if stream_colours.is_lossy_colour(frame) else RGB
    return imagecodecs.jpeg8_decode(frame, colorspace=space, outcolorspace=RGB)


def _decode_bytes(
    unpack: Callable[[int], bytes | memoryview], rows: int, columns: int, samples: int, bits: int, *, planar: bool
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


def _rle(frame: bytes, bits: int, limit: int) -> memoryview:
    """PS3.5 annex G: up to 15 segments, one for each byte of each sample, the highest byte first."""
    if len(frame) < 64:
        raise ValueError("no RLE header")
    count, *offsets = np.frombuffer(frame, "<u4", 16).tolist()
    wide = max(bits // 8, 1)
    ends = [*offsets[1:count], len(frame)]
    if not 1 <= count <= 15 or count % wide or not all(64 <= a <= b for a, b in zip(offsets, ends, strict=False)):
        raise ValueError(f"{count} RLE segments")
    size = limit // count
    words = np.empty((count // wide, size), f"<u{wide}")
    room = bytearray(size)
    for n, (start, end) in enumerate(zip(offsets, ends, strict=False)):
        part, word = np.frombuffer(_segment_of_rle(frame[start:end], room), np.uint8), words[n // wide]
        if n % wide == 0:
            word[:] = part
        else:  # whole words are moved in half of the time of single bytes
            np.left_shift(word, 8, out=word)
            np.bitwise_or(word, part, out=word)
    return words.view(np.uint8).reshape(-1).data


def has_rle_surplus(frame: bytes, size: int) -> bool:
    """Whether a segment makes more bytes than a frame of so many needs, but for one that fills it up. PS3.5 G.3.1"""
    count, *offsets = np.frombuffer(frame, "<u4", 16).tolist()
    ends = [*offsets[1:count], len(frame)]
    segments = [frame[start:end] for start, end in zip(offsets, ends, strict=False)]
    return any(len(imagecodecs.packbits_decode(one)) > size // max(count, 1) + 1 for one in segments)


def _segment_of_rle(segment: bytes, room: bytearray) -> bytes | bytearray | memoryview:
    """The bytes of a segment, in `room` where it holds no more than belong there."""
    size = len(room)
    if size > 64 * len(segment):  # PS3.5 G.3: two bytes make at most 128
        raise ValueError(f"{len(segment)} bytes of RLE cannot make {size}")
    try:
        data = imagecodecs.packbits_decode(segment, out=room)  # its size is then not counted first
    except RuntimeError:  # some writers encode what follows the last row too
        data = imagecodecs.packbits_decode(segment)[:size]
    if len(data) < size:
        raise ValueError(f"an RLE segment of {len(data)} bytes instead of {size}")
    return data


def _check_end(frame: bytes) -> None:
    """Decoders fill up what is missing; the end marker, which JPEG, JPEG-LS and JPEG 2000 share, shows a cut."""
    if b"\xff\xd9" not in frame[-16:]:  # an odd frame is padded, by some with more than one byte
        raise ValueError("it has no end: it is cut short")


def _check_size(stream: StatedSize, rows: int, columns: int, samples: int) -> None:
    """Before anything is allocated: the stream must be of the size that the header states.

    JPEG XL does not state here whether it is grey; its alpha channel is left out later.
    """
    if (stream.rows, stream.columns) != (rows, columns):
        problem = f"the compressed picture is {stream.rows} x {stream.columns}, the header states {rows} x {columns}"
        raise ValueError(problem)
    if stream.samples > max(samples, MOST_SAMPLES):
        raise ValueError(f"the compressed picture has {stream.samples} samples, the header states {samples}")

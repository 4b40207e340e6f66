"""The stored values of a DICOM object's pixels, for every transfer syntax, bit layout and colour model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hilum.errors import FormatError
from hilum.files import video
from hilum.files.dicom import tags
from hilum.files.dicom.elements import DicomDataset
from hilum.files.dicom.reading import codecs, colour_spaces, pixel_layout, stream_colours
from hilum.files.dicom.reading.pixel_layout import ELEMENTS, GET_AGAIN, SUBSAMPLED, PixelLayout
from hilum.files.dicom.uids import VIDEO
from hilum.files.storage import packed_files
from hilum.lazy import pydicom

Stored = NDArray[Any]
MOST_THREADS = 8  # more only wait for the disk
MOST_HELD = 1 << 25  # bytes of frames that are decompressed side by side
Coloured = tuple[Stored, str]  # a frame, and the photometric interpretation that it then has
FULL_RANGE = ("YBR_FULL", SUBSAMPLED)


def has_pixels(dataset: DicomDataset) -> bool:
    """Whether the object holds a picture at all."""
    return any(keyword in dataset for keyword in ELEMENTS)


def decode_frames(
    dataset: DicomDataset, where: str, frames: Sequence[int] | None = None, *, indices: bool = False
) -> Stored:
    """(frames, rows, columns) or (frames, rows, columns, 3) stored values, or only those of some frames.

    Bits beyond Bits Stored are masked, the sign extended, colour models made RGB, MONOCHROME1 kept as stored.
    indices: give the numbers that a palette colours, not the colours
    Raises FormatError for what cannot be decoded, for pixel data shorter or longer than the header states, and for
    a header that asks for more memory than its data can be meant for.
    """
    layout = _layout(dataset, where, indices)
    numbers = _frame_numbers(layout, frames, where)
    out = np.empty((len(numbers), *layout.shape[1:]), layout.dtype)
    for n, frame in enumerate(_decode_each(dataset, layout, numbers, where)):
        out[n] = frame
    return out


def iterate_frames(
    dataset: DicomDataset, where: str, frames: Sequence[int] | None = None, *, indices: bool = False
) -> Iterator[Stored]:
    """The same frames one by one, so that they are never all in memory."""
    layout = _layout(dataset, where, indices)
    yield from _decode_each(dataset, layout, _frame_numbers(layout, frames, where), where)


def _layout(dataset: DicomDataset, where: str, indices: bool) -> PixelLayout:
    layout = pixel_layout.layout_from_header(dataset, where)
    if indices and layout.is_palette:
        return replace(layout, photometric="MONOCHROME2", dtype=np.dtype(f"u{max(layout.allocated // 8, 1)}"))
    return layout


def _frame_numbers(layout: PixelLayout, frames: Sequence[int] | None, where: str) -> Sequence[int]:
    numbers = range(layout.frames) if frames is None else [int(n) for n in frames]
    if any(not 0 <= n < layout.frames for n in numbers):
        raise FormatError(f"has {layout.frames} frames, not frame {max(numbers) + 1}", where, "Ask for one of them")
    return numbers


def _decode_each(dataset: DicomDataset, layout: PixelLayout, numbers: Sequence[int], where: str) -> Iterator[Stored]:
    if layout.syntax in VIDEO:
        yield from _video(dataset, layout, numbers, where)
        return
    frames = _decode_compressed if layout.is_encapsulated else _native
    for frame, photometric in frames(dataset, layout, numbers, where):
        yield _apply_colours(frame, replace(layout, photometric=photometric), dataset, where)


def _native(dataset: DicomDataset, layout: PixelLayout, numbers: Sequence[int], where: str) -> Iterator[Coloured]:
    data = dataset[layout.keyword].value or b""
    layout = correct_subsampling(layout, len(data))
    if len(data) < layout.size:
        raise FormatError(f"{len(data)} bytes of pixels where the header needs {layout.size}", where, GET_AGAIN)
    refuse_surplus(layout, data[layout.size :], where)
    if layout.is_big_endian and layout.allocated == 8 and dataset[layout.keyword].VR == "OW":
        data = np.frombuffer(data[: len(data) & ~1], ">u2").astype("<u2").tobytes()  # words were swapped, PS3.5 8.1.1
    return ((_native_frame(data, layout, n), layout.photometric) for n in numbers)


def refuse_surplus(layout: PixelLayout, surplus: bytes, where: str) -> None:
    """Raise FormatError where what follows native pixels shows that the header states their size wrongly."""
    if not layout.is_padding(surplus):
        raise FormatError(
            f"{layout.size + len(surplus)} bytes of pixels where the header states {layout.size}",
            where,
            "Correct its Rows, Columns or NumberOfFrames, or get it again",
        )


def correct_subsampling(layout: PixelLayout, size: int) -> PixelLayout:
    """Pixels called YBR_FULL_422 that are not subsampled are common; their length shows it."""
    full = layout.frames * layout.rows * layout.columns * 3
    if layout.is_subsampled and full <= size < full + 2:
        return replace(layout, photometric="YBR_FULL")
    return layout


def _native_frame(data: bytes, layout: PixelLayout, frame: int) -> Stored:
    """(rows, columns[, samples]) of one frame as it lies in the file."""
    if layout.allocated == 1:  # frames of bits follow each other without a gap, lowest bit first
        start = frame * layout.frame_bits
        packed = np.frombuffer(data, np.uint8, (start + layout.frame_bits + 7) // 8 - start // 8, start // 8)
        bits = np.unpackbits(packed, bitorder="little")[start % 8 :][: layout.frame_bits]
        return bits.reshape(layout.rows, layout.columns)
    words = np.dtype(layout.word).newbyteorder(">" if layout.is_big_endian else "<")
    count = layout.frame_bits // layout.allocated
    flat = np.frombuffer(data, words, count, frame * count * words.itemsize)
    if layout.is_subsampled:
        return colour_spaces.ybr_full_of_422(flat, layout.rows, layout.columns)
    if layout.samples == 1:
        plane = flat.reshape(layout.rows, layout.columns)
        return plane if layout.is_floating else keep_stored_bits(plane, layout)
    if layout.planar:
        return np.moveaxis(flat.reshape(layout.samples, layout.rows, layout.columns), 0, -1)
    return flat.reshape(layout.rows, layout.columns, layout.samples)


def _decode_compressed(
    dataset: DicomDataset, layout: PixelLayout, numbers: Sequence[int], where: str
) -> Iterator[Coloured]:
    if not codecs.has_decoder(layout.syntax):
        uid = pydicom.uid.UID(layout.syntax)
        named = uid if uid.name == uid else f"{uid.name} ({uid})"  # a UID is its own name where none is registered
        syntax_name = f"transfer syntax {named}" if uid.is_valid else "a transfer syntax that is no UID"
        raise FormatError(
            f"there is no decoder for {syntax_name}",
            where,
            "Decompress it with the software it came from",
        )
    data = dataset[layout.keyword].value or b""
    packed_files.refuse_expansion(len(data), len(numbers) * layout.frame_bits // 8, where)
    chosen = {n: frame for n, frame in enumerate(encoded_frames(dataset, layout, where)) if n in set(numbers)}
    return _several(lambda n: decompress_frame(chosen[n], layout, n, where), numbers, max(1, layout.frame_bits // 8))


def decode_colour_frame(stored: bytes, layout: PixelLayout, number: int, where: str) -> Stored:
    """(rows, columns, 3) of one frame from the bytes that hold it and no other.

    Raises FormatError for what cannot be decoded.
    """
    if layout.is_encapsulated:
        frame, photometric = decompress_frame(stored, layout, number, where)
        return _as_rgb(frame, replace(layout, photometric=photometric), where)
    return _as_rgb(_native_frame(stored, layout, 0), layout, where)


def _several(decompress: Callable[[int], Coloured], frames: Sequence[int], frame_bytes: int) -> Iterator[Coloured]:
    """Frames in order, a few at a time in threads: the codecs let others run, and no more than these are held."""
    threads = min(MOST_THREADS, os.cpu_count() or 1, len(frames), max(1, MOST_HELD // frame_bytes))
    if threads < 2:
        yield from map(decompress, frames)
        return
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(frames), threads):
            yield from pool.map(decompress, frames[start : start + threads])


def encoded_frames(dataset: DicomDataset, layout: PixelLayout, where: str) -> list[bytes]:
    """The compressed bytes of every frame. Raises FormatError where there are fewer or more than the header states."""
    offsets = dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths")
    data = dataset[layout.keyword].value or b""
    try:
        frames = list(
            pydicom.encaps.generate_frames(
                data, number_of_frames=layout.frames, extended_offsets=offsets if all(offsets) else None
            )
        )
    except tags.pydicom_errors() as error:
        raise FormatError(f"the compressed frames cannot be separated ({error})", where, GET_AGAIN) from error
    if len(frames) != layout.frames:
        raise FormatError(f"{len(frames)} compressed frames, the header states {layout.frames}", where, GET_AGAIN)
    return frames


def decompress_frame(frame: bytes, layout: PixelLayout, number: int, where: str) -> Coloured:
    """The stored values of a compressed frame. Raises FormatError for one that cannot be decoded."""
    try:
        samples = codecs.decompress(
            frame,
            syntax=layout.syntax,
            rows=layout.rows,
            columns=layout.columns,
            samples=layout.samples,
            bits=layout.allocated,
            photometric=layout.photometric,
        )
        photometric = stream_colours.photometric_after(frame, layout.syntax, layout.photometric)
        precision = codecs.stream_precision(frame, layout.syntax) or samples.dtype.itemsize * 8
    except codecs.CODEC_ERRORS as error:
        raise FormatError(f"frame {number + 1} cannot be decompressed ({error})", where, GET_AGAIN) from error
    shape = (layout.rows, layout.columns) + ((layout.samples,) if layout.samples > 1 else ())
    if samples.shape != shape:
        raise FormatError(f"frame {number + 1} decompresses to {samples.shape}, not {shape}", where, GET_AGAIN)
    if layout.samples > 1:
        return samples, photometric
    if codecs.keeps_stored_words(layout.syntax):
        return keep_stored_bits(samples, layout), photometric
    return keep_stored_bits(samples, replace(layout, stored=min(precision, layout.stored)), shift=0), photometric


def _apply_colours(frame: Stored, layout: PixelLayout, dataset: DicomDataset, where: str) -> Stored:
    if layout.is_palette and not layout.is_floating:
        return colour_spaces.rgb_of_palette(frame, dataset, where)
    return _as_rgb(frame, layout, where)


def _as_rgb(frame: Stored, layout: PixelLayout, where: str) -> Stored:
    """A frame of grey as it is, one of colours as red, green and blue."""
    if layout.is_floating or layout.samples == 1 or layout.photometric == "RGB":
        return frame
    if layout.photometric in FULL_RANGE and frame.dtype.itemsize == 1:
        return colour_spaces.rgb_of_ybr_full(frame)
    raise FormatError(
        f"{layout.allocated} bit {layout.photometric} cannot be made RGB",
        where,
        "Convert it to RGB with the software it came from",
    )


def keep_stored_bits(samples: Stored, layout: PixelLayout, *, shift: int | None = None) -> Stored:
    """Only the stored bits of each sample, the highest of them as its sign: what else lies in the word is an overlay.

    It also sets right a compressed stream that claims another signedness than the header.
    """
    bits, size = layout.stored, samples.dtype.itemsize
    shift = layout.high - bits + 1 if shift is None else shift
    fills_its_type = bits == 8 * size and np.issubdtype(samples.dtype, np.integer)
    if fills_its_type and samples.dtype.isnative:  # every bit is one of the value
        return samples.view(f"{'i' if layout.signed else 'u'}{size}")
    word = np.ascontiguousarray(samples).astype(f"u{size}", casting="unsafe")
    if layout.signed:
        return (word << (8 * size - bits - shift)).view(f"i{size}") >> (8 * size - bits)
    if bits == 8 * size:
        return word
    return cast("Stored", (word >> shift) & np.array((1 << bits) - 1, word.dtype))


def _video(dataset: DicomDataset, layout: PixelLayout, numbers: Sequence[int], where: str) -> Iterator[Stored]:
    """An MPEG-2, H.264 or HEVC bit stream through the reader of video files."""
    with tempfile.TemporaryDirectory() as folder:
        stream = Path(folder) / "stream.bin"
        stream.write_bytes(b"".join(_fragments(dataset, where)))
        clip_facts = video.survey_clip(stream, where)
        if (clip_facts.frames, clip_facts.rows, clip_facts.columns) != (layout.frames, layout.rows, layout.columns):
            size = f"{clip_facts.frames} frames of {clip_facts.rows} x {clip_facts.columns}"
            stated_size = f"{layout.frames} of {layout.rows} x {layout.columns}"
            raise FormatError(f"the clip has {size}, the header states {stated_size}", where, GET_AGAIN)
        clip = enumerate(video.iterate_clip(stream, where))
        if list(numbers) == sorted(numbers):  # as they come: none of them is held
            asked = set(numbers)
            yield from (frame for n, frame in clip if n in asked)
            return
        chosen = {n: frame for n, frame in clip if n in set(numbers)}
    yield from (chosen[n] for n in numbers)


def _fragments(dataset: DicomDataset, where: str) -> Iterator[bytes]:
    buffer = pydicom.filebase.DicomBytesIO(dataset["PixelData"].value)
    try:
        pydicom.encaps.parse_basic_offsets(buffer)
        yield from pydicom.encaps.generate_fragments(buffer)
    except tags.pydicom_errors() as error:
        raise FormatError(f"the clip cannot be taken out ({error})", where, GET_AGAIN) from error

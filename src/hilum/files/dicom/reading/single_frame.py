"""One frame of an object that may be large: as it is stored, decoded, or as a picture; and whole objects decoded."""

from __future__ import annotations

import copy
from io import BytesIO
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from hilum.errors import FormatError
from hilum.files.dicom import header_reading, library_warnings, tags
from hilum.files.dicom.header_reading import Header
from hilum.files.dicom.reading import codecs, display_windows, pixel_decoding, pixel_layout, pixel_values
from hilum.files.dicom.reading.codecs import CODEC_ERRORS
from hilum.files.dicom.reading.display_windows import DisplayWindow
from hilum.files.dicom.reading.pixel_decoding import Stored
from hilum.files.dicom.reading.pixel_layout import GET_AGAIN, PixelLayout
from hilum.files.dicom.uids import BIG_ENDIAN, EXPLICIT, IMPLICIT, NATIVE, VIDEO
from hilum.lazy import pydicom

MOST_DECODED = 1 << 30  # bytes of an object that is decoded in memory
WORD_BYTES = {"OW": 2, "OL": 4, "OF": 4, "OV": 8, "OD": 8}  # PS3.5 6.2
OF_ALL_FRAMES = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")


def stored_frame(head: Header, number: int) -> bytes:
    """The bytes of a frame as they lie in the file, compressed or not; number: from 0. Raises FormatError."""
    layout = _layout(head, number)
    try:
        return _compressed_bytes(head, number) if head.is_compressed else _native(head, number, layout)
    except tags.pydicom_errors() as error:
        raise FormatError(f"frame {number + 1} cannot be taken out ({error})", head.where, GET_AGAIN) from error


def native_frame(head: Header, number: int) -> bytes:
    """The words of a frame without compression, lowest byte first; of a palette its indices.

    Stored bits lie where the header's HighBit says, PS3.5 8.1.1. Colours of compressed frames come as RGB.
    Raises FormatError.
    """
    layout = _layout(head, number)
    if layout.syntax in (IMPLICIT, EXPLICIT):
        return stored_frame(head, number)
    pixels = _decode(head, number, indices=True)
    if layout.allocated == 1:
        return np.packbits(pixels.astype(bool), bitorder="little").tobytes()
    if layout.samples == 1 and not layout.is_floating:
        pixels = pixels << (layout.high - layout.stored + 1)
    return pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()


def is_decodable(syntax: str) -> bool:
    """Whether objects of a transfer syntax can be given without compression."""
    return syntax in (*NATIVE, *VIDEO) or codecs.has_decoder(syntax)


def native_object(path: Path) -> bytes:
    """An object as a file without compression: explicit VR, lowest byte first (PS3.5 A.2). Colours come as RGB.

    Raises FormatError where pixels cannot be decoded, or are too many.
    """
    head = header_reading.read_header(path)
    if path.stat().st_size > MOST_DECODED:
        raise FormatError("is too large to be re-encoded", head.where, "Ask for it as it is stored")
    dataset = header_reading.read_object(path)
    if head.is_compressed:
        layout, frames = _layout(head, 0), header_reading.frame_count(head)
        if layout.frame_bits % 8 or frames * layout.frame_bits > 8 * MOST_DECODED:
            raise FormatError(
                "is too large to be decoded, or has pixels of one bit", head.where, "Ask for it as it is stored"
            )
        pixels = b"".join(native_frame(head, number) for number in range(frames))
        if 8 * len(pixels) != frames * layout.frame_bits:
            raise FormatError("its frames are not as large as its header says", head.where, GET_AGAIN)
        if layout.samples > 1:
            dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
        for keyword in OF_ALL_FRAMES:
            dataset.pop(keyword, None)
        dataset.add_new("PixelData", "OB" if layout.allocated <= 8 else "OW", pixels + bytes(len(pixels) % 2))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(EXPLICIT)
    file = BytesIO()
    try:
        with library_warnings.collect_warnings():
            if head.transfer_syntax == BIG_ENDIAN:
                dataset.walk(_lowest_first)
            pydicom.dcmwrite(file, dataset, implicit_vr=False, little_endian=True, enforce_file_format=True)
    except tags.pydicom_errors() as error:
        raise FormatError(f"cannot be re-encoded ({error})", head.where, "Ask for it as it is stored") from error
    return file.getvalue()


def _lowest_first(dataset: pydicom.Dataset, element: pydicom.DataElement) -> None:
    """Turn the words of an element round that pydicom takes as mere bytes; all others it writes in the new order."""
    if element.VR in WORD_BYTES and element.value:
        words = np.frombuffer(element.value, np.dtype(f"u{WORD_BYTES[element.VR]}"))
        dataset[element.tag].value = words.byteswap().tobytes()


def displayed_frame(head: Header, number: int, window: DisplayWindow | None = None) -> NDArray[np.uint8]:
    """(rows, columns) or (rows, columns, 3) of a frame as a screen shows it, MONOCHROME1 with its lowest value white.

    window: in place of the stated one, in values of the modality LUT

    Raises FormatError.
    """
    layout = _layout(head, number)
    pixels = _decode(head, number)
    if layout.colour:
        return (pixels >> (pixels.dtype.itemsize * 8 - 8)).astype(np.uint8)
    values = np.nan_to_num(pixel_values.rescale_stored(pixels, head.dataset, number, where=head.where))
    return np.rint(
        display_windows.display_brightness(values, head.dataset, number, where=head.where, window=window) * 255
    ).astype(np.uint8)


def _layout(head: Header, number: int) -> PixelLayout:
    header_reading.check_pixels(head)
    if number >= header_reading.frame_count(head):
        raise FormatError(f"has {header_reading.frame_count(head)} frames", head.where, "Ask for one of them")
    layout = pixel_layout.layout_from_header(head.dataset, head.where)
    if head.is_compressed:
        return layout
    layout = pixel_decoding.correct_subsampling(layout, head.length or 0)
    if (head.length or 0) > layout.size + 1:
        pixel_decoding.refuse_surplus(layout, _surplus(head, layout), head.where)
    return layout


def _surplus(head: Header, layout: PixelLayout) -> bytes:
    """The bytes that follow the native pixels in their element."""
    if head.offset is None:  # all is deflated
        return bytes(header_reading.read_object(head.path)[layout.keyword].value)[layout.size :]
    with head.path.open("rb") as file:
        file.seek(head.offset + layout.size)
        return file.read((head.length or 0) - layout.size)


def _decode(head: Header, number: int, *, indices: bool = False) -> Stored:
    """A frame's stored values, or its colours: of an object that holds nothing else, but of a clip."""
    layout = pixel_layout.layout_from_header(head.dataset, head.where)
    try:
        with library_warnings.collect_warnings():
            if layout.syntax in (*VIDEO, BIG_ENDIAN):  # whose words lie as the pixels' own representation says
                return cast(
                    "Stored",
                    pixel_decoding.decode_frames(
                        header_reading.read_object(head.path), head.where, [number], indices=indices
                    )[0],
                )
            frame = stored_frame(head, number)
            single = copy.copy(head.library)
            for keyword in OF_ALL_FRAMES:
                single.pop(keyword, None)
            single.NumberOfFrames = 1
            single[layout.keyword].value = pydicom.encaps.encapsulate([frame]) if head.is_compressed else frame
            return cast("Stored", pixel_decoding.decode_frames(single, head.where, indices=indices)[0])
    except tags.pydicom_errors() + CODEC_ERRORS as error:
        raise FormatError(f"frame {number + 1} cannot be decoded ({error})", head.where, GET_AGAIN) from error


def _compressed_bytes(head: Header, number: int) -> bytes:
    tables = [head.dataset.get(keyword) for keyword in OF_ALL_FRAMES]
    with head.path.open("rb") as file:
        file.seek(head.offset or 0)
        return bytes(
            pydicom.encaps.get_frame(
                pydicom.filebase.DicomFileLike(file),
                number,
                extended_offsets=(tables[0], tables[1]) if all(tables) else None,
                number_of_frames=header_reading.frame_count(head),
            )
        )


def _native(head: Header, number: int, layout: PixelLayout) -> bytes:
    """Frames of bits follow each other without a gap: one that begins within a byte is moved to its start."""
    start = number * layout.frame_bits
    first, end = start // 8, (start + layout.frame_bits + 7) // 8
    if head.offset is None:  # all is deflated
        data = bytes(header_reading.read_object(head.path)[layout.keyword].value)[first:end]
    else:
        with head.path.open("rb") as file:
            file.seek(head.offset + first)
            data = file.read(end - first)
    if start % 8 == 0:
        return data
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[start % 8 :][: layout.frame_bits]
    return np.packbits(bits, bitorder="little").tobytes()

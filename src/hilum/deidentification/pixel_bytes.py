"""The pixel data of an object without what no picture needs: bytes behind the last pixel, text beside coded frames.

Native pixels are cut where the last of them ends, PS3.5 8.1.1; coded frames keep the segments from which pixels are
made; and bits of a word outside of those that are stored show whether an overlay was left in them, PS3.5 8.1.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.deidentification import coded_images
from hilum.files.dicom import tags
from hilum.files.dicom.elements import DicomDataset
from hilum.files.dicom.reading import codecs, pixel_decoding, pixel_layout
from hilum.files.dicom.reading.pixel_layout import ELEMENTS, PixelLayout
from hilum.files.dicom.uids import JPEG, JPEG_2000, JPEG_LS, NATIVE, RLE
from hilum.lazy import pydicom

OFFSET_TABLES = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
STRIPPED = JPEG | JPEG_LS | JPEG_2000


def bare_pixels(dataset: pydicom.Dataset, where: str) -> None:
    """Take out what lies behind and beside the pixels of an object; their values stay as they are.

    Raises FormatError where so much lies behind them that the header must be wrong, and for frames that cannot be
    told apart.
    """
    if not pixel_decoding.has_pixels(dataset):
        return
    layout = pixel_layout.layout_from_header(dataset, where)
    for keyword in ELEMENTS.keys() - {layout.keyword}:  # an object has one of them, PS3.3 C.7.6.24
        dataset.pop(keyword, None)
    if layout.syntax in NATIVE:
        _cut_behind(dataset, layout, where)
    elif layout.syntax in STRIPPED:
        _strip_frames(dataset, layout, where)


def _cut_behind(dataset: pydicom.Dataset, layout: PixelLayout, where: str) -> None:
    content = dataset[layout.keyword].value or b""
    layout = pixel_decoding.correct_subsampling(layout, len(content))
    surplus = content[layout.size :]
    if not surplus:
        return
    pixel_decoding.refuse_surplus(layout, surplus, where)
    dataset[layout.keyword].value = content[: layout.size] + bytes(layout.size % 2)


def _strip_frames(dataset: pydicom.Dataset, layout: PixelLayout, where: str) -> None:
    frames = pixel_decoding.encoded_frames(dataset, layout, where)
    bare = [coded_images.strip_frame(frame, where) for frame in frames]
    held_bytes = sum(len(frame.rstrip(b"\0")) for frame in frames)
    if sum(len(frame.rstrip(b"\0")) for frame in bare) == held_bytes:
        return
    for keyword in OFFSET_TABLES:
        if keyword in dataset:
            del dataset[keyword]
    dataset.PixelData = pydicom.encaps.encapsulate(bare)
    dataset["PixelData"].is_undefined_length = True


def holds_more_than_pixels(dataset: DicomDataset, where: str) -> bool:
    """Whether words hold bits outside of those that are stored, or coded segments more than a frame."""
    if "PixelData" not in dataset:
        return False
    if _has_embedded_overlay(dataset):
        return True
    layout = pixel_layout.layout_from_header(dataset, where)
    if layout.syntax in NATIVE:
        return _has_foreign_bits(dataset, layout)
    if layout.syntax != RLE:
        return False
    size = -(-layout.frame_bits // 8)
    frames = pixel_decoding.encoded_frames(dataset, layout, where)
    return any(codecs.has_rle_surplus(frame, size) for frame in frames)


def _has_embedded_overlay(dataset: DicomDataset) -> bool:
    """Whether an overlay may lie in unused bits of the pixels, PS3.3 C.9.2 (retired)."""
    of_overlays = {tag & 0xFFFF for tag in dataset.keys() if tag >> 24 == 0x60}  # noqa: SIM118 - tags, not elements
    return 0x0102 in of_overlays and 0x3000 not in of_overlays


def _has_foreign_bits(dataset: DicomDataset, layout: PixelLayout) -> bool:
    """Whether a bit above or below those stored is set, and is no copy of the sign nor a part of the padding value."""
    if layout.allocated < 8 or layout.stored == layout.allocated or layout.is_floating:
        return False
    content = dataset["PixelData"].value or b""
    word = np.dtype(layout.word).newbyteorder(">" if layout.is_big_endian else "<")
    words = np.frombuffer(content[: len(content) // word.itemsize * word.itemsize], word).astype(word.newbyteorder("="))
    below = layout.high + 1 - layout.stored
    value: NDArray[Any] = (words >> below) & ((1 << layout.stored) - 1)
    outside = words ^ (value << below)
    padding = tags.lenient_number(dataset, "PixelPaddingValue")
    if padding is not None:  # some writers choose one that takes more bits than they state
        outside[words == int(padding) % (1 << layout.allocated)] = 0
    if not outside.any():
        return False
    copies = (1 << layout.allocated) - (1 << (layout.high + 1))
    is_negative = (value >> (layout.stored - 1)) & 1 == 1
    return not (layout.signed and bool(((outside == 0) | (is_negative & (outside == copies))).all()))

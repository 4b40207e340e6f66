"""Uncompressed grey pixels of a DICOM file, straight from their place in the file to their place in the volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from isocenter.errors import FormatError
from isocenter.files.dicom.header import Header
from isocenter.files.dicom.reading.pixel_layout import GET_AGAIN, MONOCHROME, Layout
from isocenter.files.dicom.reading.pixels import stored_bits
from isocenter.files.dicom.reading.value_map import ValueMap

PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)


@dataclass(frozen=True)
class Plain:
    """Where the pixels of a file lie and what they mean, so that its header is not read a second time.

    offset: bytes from the file's start to its first frame
    values: what the stored values of every frame mean
    """

    offset: int
    layout: Layout
    values: ValueMap

    @property
    def stored(self) -> np.dtype[Any]:
        """The words that lie in the file."""
        kind = "u" if self.layout.keyword == "PixelData" else "f"
        return np.dtype(f"<{kind}{self.layout.allocated // 8}")


def plain_of(head: Header, layout: Layout, values: ValueMap) -> Plain | None:
    """None for what has to be decoded, and for pixels of another length than the header says: decoding tells why."""
    if head.offset is None or head.is_compressed or layout.syntax not in PLAIN:
        return None
    if layout.photometric not in MONOCHROME or layout.allocated % 8:
        return None
    frame, length = layout.frame_bits // 8, head.length or 0
    if not 0 <= length - frame * layout.frames < max(frame, 2):
        return None
    return Plain(head.offset, layout, values)


def put_plain(file: BinaryIO, plain: Plain, frame: int, where: str, target: NDArray[Any]) -> None:
    """One frame's values into `target` (rows, columns). Raises FormatError where the file is no longer that long."""
    size = plain.layout.frame_bits // 8
    file.seek(plain.offset + frame * size)
    straight = _is_itself(plain) and _are_same_words(plain.layout.dtype, target)
    words = target if straight else np.empty((plain.layout.rows, plain.layout.columns), plain.stored)
    if file.readinto(words) != size:  # type: ignore[attr-defined]
        raise FormatError("the pixel data are cut short", where, GET_AGAIN)
    if not straight:
        whole = words if words.dtype.kind == "f" else stored_bits(words, plain.layout)
        target[...] = plain.values(whole)


def _is_itself(plain: Plain) -> bool:
    """Whether a stored word is its value: every bit of it counts, and the line is 1 and 0."""
    layout, values = plain.layout, plain.values
    is_line = values.table is None and values.mirror is None and not values.strict
    return is_line and (values.slope, values.intercept) == (1, 0) and layout.stored == layout.allocated


def _are_same_words(dtype: np.dtype[Any], target: NDArray[Any]) -> bool:
    return target.dtype == dtype and dtype.newbyteorder("<") == dtype and target.flags.c_contiguous

"""The layout of a DICOM object's pixels, checked from its header before any of them is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hilum.errors import FormatError
from hilum.files.dicom import tags
from hilum.files.dicom.elements import DicomDataset
from hilum.files.dicom.reading import colour_spaces
from hilum.files.dicom.uids import BIG_ENDIAN, EXPLICIT, IMPLICIT, NATIVE

GET_AGAIN = "The file is damaged or cut short: get it again"
MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
# {element with pixels: bits of a floating point pixel, None for integers}, PS3.3 C.7.6.24 and C.7.6.25
ELEMENTS = {"PixelData": None, "FloatPixelData": 32, "DoubleFloatPixelData": 64}
SUBSAMPLED = "YBR_FULL_422"
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "YBR_PARTIAL_420", "YBR_PARTIAL_422", "XYB")
# Retired terms. Any other text of a header may be about a person, and is not repeated.
RETIRED_COLOURS = ("HSV", "ARGB", "CMYK")


@dataclass(frozen=True)
class PixelLayout:
    """The layout of one object's pixels.

    keyword: the element that holds them: PixelData, FloatPixelData or DoubleFloatPixelData
    samples: 1 or 3, as stored; a palette is stored as 1
    dtype:   of what `decode` gives
    """

    keyword: str
    syntax: str
    frames: int
    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    high: int
    signed: bool
    planar: bool
    photometric: str
    dtype: np.dtype[Any]

    @property
    def colour(self) -> bool:
        """Whether `decode` gives RGB."""
        return self.photometric not in MONOCHROME

    @property
    def is_floating(self) -> bool:
        """Whether pixels are stored as floating point numbers."""
        return ELEMENTS[self.keyword] is not None

    @property
    def is_palette(self) -> bool:
        """Whether pixels are numbers into colour tables."""
        return self.photometric == PALETTE

    @property
    def is_big_endian(self) -> bool:
        """Whether words have their highest byte first."""
        return self.syntax == BIG_ENDIAN

    @property
    def word(self) -> str:
        """NumPy's name of a stored word, little endian."""
        return f"<{'f' if self.is_floating else 'u'}{self.allocated // 8}"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that `decode` gives: (frames, rows, columns) or (frames, rows, columns, 3)."""
        return (self.frames, self.rows, self.columns) + ((3,) if self.colour else ())

    @property
    def frame_bits(self) -> int:
        """Bits of one frame as it is stored without compression."""
        per_pixel = 2 if self.is_subsampled else self.samples
        return self.rows * self.columns * per_pixel * self.allocated

    @property
    def size(self) -> int:
        """Bytes of all frames without compression."""
        return (self.frames * self.frame_bits + 7) // 8

    def is_padding(self, surplus: bytes) -> bool:
        """Whether bytes behind native pixels are padding, and no sign of rows, columns or frames that are not stated.

        Fewer than those would take are, and zeros that are fewer than a frame. PS3.5 8.1.1 knows one byte of it, but
        some writers fill up more.
        """
        line = self.frame_bits * self.frames // max(self.rows, self.columns)
        least = min(line, self.frame_bits) // 8
        return len(surplus) < max(least, 2) or (8 * len(surplus) < self.frame_bits and not any(surplus))

    @property
    def is_encapsulated(self) -> bool:
        """Whether frames are compressed, each in fragments of its own, PS3.5 A.4."""
        return self.syntax not in NATIVE  # the DICOM library's list of the others ends before JPEG XL

    @property
    def is_subsampled(self) -> bool:
        """Whether two pixels share their colours, PS3.3 C.7.6.3.1.2; of native pixels only."""
        return self.photometric == SUBSAMPLED and not self.is_encapsulated


def layout_from_header(dataset: DicomDataset, where: str) -> PixelLayout:
    """The layout from the header. Raises FormatError for a header that makes no picture."""
    keyword = _keyword(dataset)
    if keyword is None:
        raise FormatError("holds no picture", where, "Leave this file out")
    floating = floating_bits(dataset)
    allocated = _whole(dataset, "BitsAllocated", where)
    stored = allocated if floating else _whole(dataset, "BitsStored", where, allocated)
    high = stored - 1 if floating else _whole(dataset, "HighBit", where, stored - 1, least=0)
    samples = _whole(dataset, "SamplesPerPixel", where, 1)
    photometric = str(dataset.get("PhotometricInterpretation", "") or "").strip().upper()
    signed = _whole(dataset, "PixelRepresentation", where, 0, least=0) == 1
    if allocated not in (1, 8, 16, 32, 64) or not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        raise FormatError(
            f"BitsStored {stored}, BitsAllocated {allocated} and HighBit {high} do not fit together", where, GET_AGAIN
        )
    if floating and (allocated, samples) != (floating, 1):
        raise FormatError(f"floating point pixels of {allocated} bits and {samples} samples", where, GET_AGAIN)
    _check_photometric(photometric, samples, where)
    syntax = transfer_syntax(dataset, where)
    if photometric == PALETTE:
        dtype = colour_spaces.palette_dtype(dataset, where)
    elif floating:
        dtype = np.dtype(f"f{allocated // 8}")
    else:
        dtype = np.dtype(f"{'i' if signed and samples == 1 else 'u'}{max(allocated // 8, 1)}")
    return PixelLayout(
        keyword=keyword,
        syntax=syntax,
        frames=_whole(dataset, "NumberOfFrames", where, 1, least=0) or 1,  # some writers put 0 for one
        rows=_whole(dataset, "Rows", where),
        columns=_whole(dataset, "Columns", where),
        samples=samples,
        allocated=allocated,
        stored=stored,
        high=high,
        signed=signed,
        planar=samples > 1 and _whole(dataset, "PlanarConfiguration", where, 0, least=0) == 1,
        photometric=photometric,
        dtype=dtype,
    )


def floating_bits(dataset: DicomDataset) -> int | None:
    """Bits of a floating point pixel, None of integers: the element that holds the pixels decides.

    BitsStored does not: it should be absent with floating point pixels, but some writers state it.
    PS3.3 C.7.6.24 and C.7.6.25
    """
    keyword = _keyword(dataset)
    return None if keyword is None else ELEMENTS[keyword]


def _keyword(dataset: DicomDataset) -> str | None:
    return next((keyword for keyword in ELEMENTS if keyword in dataset), None)


def transfer_syntax(dataset: DicomDataset, where: str) -> str:
    """The stated transfer syntax; for an object without file meta group the native one it was read with."""
    syntax = tags.file_meta(dataset).get("TransferSyntaxUID")
    if syntax:
        return str.__str__(syntax)
    implicit, little = dataset.original_encoding
    if implicit is None:
        raise FormatError("the transfer syntax is not stated", where, "Get the file again from its source")
    return IMPLICIT if implicit else EXPLICIT if little else BIG_ENDIAN


def _check_photometric(photometric: str, samples: int, where: str) -> None:
    fits = samples == 1 if photometric in (*MONOCHROME, PALETTE) else samples == 3 and photometric in COLOURS
    if not fits:
        is_term = photometric in (*MONOCHROME, PALETTE, *COLOURS, *RETIRED_COLOURS)
        named = photometric if is_term else f"{'an unknown' if photometric else 'no'} photometric interpretation"
        raise FormatError(
            f"{samples} samples of {named} are not a known colour model",
            where,
            "Convert it to RGB or MONOCHROME2 with the software it came from",
        )


def _whole(dataset: DicomDataset, keyword: str, where: str, default: int | None = None, least: int = 1) -> int:
    """A whole number of the header. An absent or empty one is `default`, or refused without one."""
    try:
        value = dataset.get(keyword)
        value = default if value in (None, "") else value
        if value is None:
            raise FormatError(f"{keyword} is missing", where, GET_AGAIN)
        number = int(value)
    except (ValueError, TypeError) as error:
        raise FormatError(f"{keyword} is not a number", where, GET_AGAIN) from error
    if number < least:
        raise FormatError(f"{keyword} is {number}", where, GET_AGAIN)
    return number

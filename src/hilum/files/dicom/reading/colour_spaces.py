"""DICOM's colour models to RGB: palettes, luminance with chrominance, CIELab; PS3.3 C.7.6.3.1, C.7.9 and C.10.7.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.errors import FormatError
from hilum.files.dicom.elements import DicomDataset

Samples = NDArray[Any]

AT_ONCE = 1 << 18  # samples: on the way they have 32 or 64 bits
COLOURS = ("Red", "Green", "Blue")
LARGEST_TABLE = 1 << 16

D65 = np.array([0.95047, 1.0, 1.08883])  # CIE 15, 2 degree observer
SRGB_OF_XYZ = np.array(  # IEC 61966-2-1
    [[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]]
)


def rgb_of_ybr_full(ybr: Samples) -> NDArray[np.uint8]:
    """(rows, ..., 3) 8-bit luminance and chrominance over their full range to RGB, PS3.3 C.7.6.3.1.2."""
    rgb = np.empty(ybr.shape, np.uint8)
    step = max(1, AT_ONCE * len(ybr) // max(1, ybr.size))
    for start in range(0, len(ybr), step):
        rgb[start : start + step] = _rgb_of_ybr(ybr[start : start + step])
    return rgb


def _rgb_of_ybr(ybr: Samples) -> NDArray[np.uint8]:
    luminance, blue, red = (ybr[..., n].astype(np.float32) for n in range(3))
    blue, red = blue - 128, red - 128
    rgb = np.stack(
        [luminance + 1.402 * red, luminance - 0.344136 * blue - 0.714136 * red, luminance + 1.772 * blue], axis=-1
    )
    return np.clip(np.floor(rgb + 0.5), 0, 255).astype(np.uint8)


def ybr_full_of_422(packed: Samples, rows: int, columns: int) -> Samples:
    """Bytes Y Y Cb Cr a pair of pixels, PS3.3 C.7.6.3.1.2, to (rows, columns, 3)."""
    pairs = packed.reshape(-1, 4)
    chroma = np.repeat(pairs[:, None, 2:], 2, axis=1)
    return np.concatenate([pairs[:, :2, None], chroma], axis=2).reshape(rows, columns, 3)


def rgb_of_cielab(value: Sequence[float]) -> tuple[int, int, int]:
    """A CIELab value in 16-bit steps (PS3.3 C.10.7.1.1) as sRGB (IEC 61966-2-1), relative to white D65.

    The standard states D50; the common writers, dcmqi and highdicom, use D65, and so do we.
    """
    light, a, b = value[0] / 0xFFFF * 100, value[1] / 0xFFFF * 255 - 128, value[2] / 0xFFFF * 255 - 128
    f = (light + 16) / 116
    steps = np.array([f + a / 500, f, f - b / 200])
    xyz = np.where(steps > 6 / 29, steps**3, 3 * (6 / 29) ** 2 * (steps - 4 / 29)) * D65
    linear = np.clip(SRGB_OF_XYZ @ xyz, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = np.rint(encoded * 255).astype(int).tolist()
    return red, green, blue


def palette_dtype(dataset: DicomDataset, where: str) -> np.dtype[Any]:
    """The type that `rgb_of_palette` returns: 8 or 16 bit, as the table's descriptor states."""
    _, _, bits = _descriptor(dataset, "Red", where)
    return np.dtype(np.uint8 if bits <= 8 else np.uint16)


def rgb_of_palette(index: Samples, dataset: DicomDataset, where: str) -> Samples:
    """(...) numbers into the colour tables to (..., 3) RGB, PS3.3 C.7.6.3.1.5 and C.7.9.2.

    Numbers below the first mapped one take the first entry, those above the last take the last.
    Raises FormatError for a table that is missing or shorter than stated.
    """
    tables = [_descriptor(dataset, colour, where) for colour in COLOURS]
    colours = [_table(dataset, colour, *own[::2], where) for colour, own in zip(COLOURS, tables, strict=True)]
    rgb = np.empty((*index.shape, 3), np.result_type(*colours))
    step = max(1, AT_ONCE * len(index) // max(1, index.size))
    for start in range(0, len(index), step):
        numbers = index[start : start + step].astype(np.int64)
        for n, ((entries, first, _), table) in enumerate(zip(tables, colours, strict=True)):
            rgb[start : start + step, ..., n] = table[np.clip(numbers - first, 0, entries - 1)]
    return rgb


def _descriptor(dataset: DicomDataset, colour: str, where: str) -> tuple[int, int, int]:
    """(entries, first mapped number, bits an entry)."""
    descriptor = dataset.get(f"{colour}PaletteColorLookupTableDescriptor")
    if descriptor is None or len(descriptor) != 3:
        raise FormatError(f"a PALETTE COLOR picture without {colour.lower()} table", where, "Get the file again")
    entries, first, bits = (int(n) for n in descriptor)
    return entries % 65536 or 65536, first, bits


def _table(dataset: DicomDataset, colour: str, entries: int, bits: int, where: str) -> Samples:
    dtype = np.uint8 if bits <= 8 else np.uint16
    big = dataset.original_encoding[1] is False
    plain = dataset.get(f"{colour}PaletteColorLookupTableData")
    if plain is not None:
        # 8-bit entries may be packed or one in each 16-bit word: the length shows which.
        wide = len(plain) >= 2 * entries
        words = np.frombuffer(plain, (">u2" if big else "<u2") if wide else np.uint8)
    else:
        segmented = dataset.get(f"Segmented{colour}PaletteColorLookupTableData", b"")
        width = 1 if bits <= 8 else 2
        try:
            words = expand_segments(np.frombuffer(segmented, f"{'>' if big else '<'}u{width}"))
        except ValueError as error:
            raise FormatError(str(error), where, "Convert it to RGB with the software it came from") from error
    if len(words) < entries:
        raise FormatError(
            f"the {colour.lower()} table has {len(words)} entries instead of {entries}", where, "Get the file again"
        )
    return words[:entries].astype(dtype)


def expand_segments(segments: Samples) -> Samples:
    """A segmented colour table written out, PS3.3 C.7.9.2: discrete and linear segments.

    Raises ValueError for an indirect segment: readers disagree whether its offset counts bytes or entries.
    """
    words = segments.astype(np.int64).tolist()
    table: list[int] = []
    at = 0
    while at + 2 < len(words):
        kind, length = words[at], words[at + 1]
        if kind == 0:
            table.extend(words[at + 2 : at + 2 + length])
            at += 2 + length
        elif kind == 1 and table:
            steps = np.linspace(table[-1], words[at + 2], length + 1)[1:]
            table.extend(np.floor(steps + 0.5).astype(int).tolist())
            at += 3
        else:
            raise ValueError(f"a segment of kind {kind} in a segmented colour table")
        if len(table) > LARGEST_TABLE:
            raise ValueError("a segmented colour table that is longer than any")
    return np.array(table, dtype=segments.dtype.newbyteorder("="))

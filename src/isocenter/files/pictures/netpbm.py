"""Netpbm's grey and colour maps (PGM, PPM): Pillow stretches 12 bits to 16 and cuts colours of 16 bits to 8.

netpbm.sourceforge.net/doc/pgm.html and ppm.html: magic, columns, rows and the highest value as text, then samples.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from isocenter.values import Array

GREY, COLOUR = b"25", b"36"
AS_TEXT = b"23"
GAP = rb"(?:\s|#[^\r\n]{0,4096}[\r\n])+"
HEAD = re.compile(rb"P([2356])" + 3 * (GAP + rb"(\d{1,9})") + rb"\s")
HIGHEST = 65535


def is_netpbm(path: Path) -> bool:
    """Whether a file starts as a grey or a colour map."""
    with path.open("rb") as file:
        head = file.read(3)
    return head[:1] == b"P" and head[1:2] in (*_each(GREY), *_each(COLOUR)) and head[2:3] in b" \t\r\n#"


def read_netpbm(path: Path) -> Array:
    """(rows, columns, channels) as they are stored, of 8 or 16 bits.

    Raises ValueError for a damaged header, samples that are missing, and values above the highest that it states.
    """
    stream = path.read_bytes()
    if (fit := HEAD.match(stream)) is None:
        raise ValueError("its header states no columns, rows and highest value")
    columns, rows, highest = (int(fit[place]) for place in (2, 3, 4))
    if not (columns and rows and 0 < highest <= HIGHEST):
        raise ValueError(f"it states {columns} x {rows} pixels up to {highest}")
    channels = 3 if fit[1] in COLOUR else 1
    count, kind = rows * columns * channels, np.dtype(np.uint8 if highest < 256 else np.uint16)
    if fit[1] in AS_TEXT:
        words = stream[fit.end() :].split(maxsplit=min(count, len(stream)))[:count]
        samples = np.array([int(word) for word in words], dtype=np.int64)
    else:
        body = memoryview(stream)[fit.end() : fit.end() + count * kind.itemsize]
        samples = np.frombuffer(body, kind.newbyteorder(">"), len(body) // kind.itemsize)
    if len(samples) < count:
        raise ValueError(f"it is cut short: {len(samples)} of {count} samples")
    if not 0 <= samples.min() <= samples.max() <= highest:
        raise ValueError(f"it states {highest} as the highest value and holds {samples.min()} to {samples.max()}")
    return samples.reshape(rows, columns, channels).astype(kind)


def _each(characters: bytes) -> list[bytes]:
    return [bytes([one]) for one in characters]

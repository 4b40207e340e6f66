"""JPEG streams whose markers and names of components are arguments, whatever their samples are."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np

Pixels = np.ndarray[Any, Any]
SAMPLES = (100, 60, 200)  # of each pixel of `SQUARE`, which are
AS_RGB, AS_YCBCR = (100, 60, 200), (201, 72, 0)  # these colours by one model or the other, T.871 7
SQUARE = np.full((16, 16, 3), SAMPLES, np.uint8)
JFIF = b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
LOSSLESS_FRAME, LOSSY_FRAME, START_OF_SCAN = 0xC3, 0xC0, 0xDA


def adobe(transform: int) -> bytes:
    """Adobe's marker with the number of its transform."""
    return b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0" + bytes([transform])


def stream(*markers: bytes, names: bytes = b"\1\2\3", coarser: bool = False, lossless: bool = False) -> bytes:
    """The samples of `SQUARE`, behind these markers and no other."""
    if lossless:
        coded = imagecodecs.jpeg8_encode(SQUARE, lossless=True, colorspace="RGB", outcolorspace="RGB")
    else:
        sampling = "420" if coarser else "444"
        coded = imagecodecs.jpeg8_encode(
            SQUARE, level=100, colorspace="YCBCR", outcolorspace="YCBCR", subsampling=sampling
        )
    made, at = bytearray(coded[:2] + b"".join(markers)), 2
    while True:
        code, length = coded[at + 1], int.from_bytes(coded[at + 2 : at + 4], "big")
        segment = bytearray(coded[at : at + 2 + length])
        if code in (LOSSY_FRAME, LOSSLESS_FRAME):
            segment[10::3] = names
        if code == START_OF_SCAN:
            segment[5:11:2] = names
            return bytes(made + segment + coded[at + 2 + length :])
        if code not in (0xE0, 0xEE):
            made += segment
        at += 2 + length

"""The index of an AVI: frames that have no picture of their own, because the one before them is shown again.

https://learn.microsoft.com/windows/win32/directshow/avi-riff-file-reference
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Bytes of the head of the file, and of each chunk in it.
RIFF_HEAD, HEAD = 12, 8
LONGEST_INDEX = 1 << 26
# One a chunk; the length of a frame that is shown again is 0.
INDEX_ROW = np.dtype([("kind", "S4"), ("flags", "<u4"), ("offset", "<u4"), ("length", "<u4")])
OF_PICTURES = (b"dc", b"db")


def count_repeats(path: Path) -> int:
    """The frames of an AVI that have no picture of their own, because the one before is shown again; 0 of others."""
    index = _avi_index(path)
    if index is None:
        return 0
    is_picture = np.array([bytes(kind)[2:] in OF_PICTURES for kind in index["kind"]], dtype=bool)
    return int(np.count_nonzero(is_picture & (index["length"] == 0)))


def _avi_index(path: Path) -> NDArray[Any] | None:
    """The index at the end of an AVI; None of another clip, and of one without an index."""
    size, at = path.stat().st_size, RIFF_HEAD
    with path.open("rb") as file:
        head = file.read(RIFF_HEAD)
        if head[:4] != b"RIFF" or head[8:] != b"AVI ":
            return None
        while at + HEAD <= size:
            file.seek(at)
            kind, length = struct.unpack("<4sI", file.read(HEAD))
            if kind == b"idx1":
                content = file.read(min(length, LONGEST_INDEX))
                return np.frombuffer(content, INDEX_ROW, len(content) // INDEX_ROW.itemsize)
            at += HEAD + length + length % 2
    return None

"""The edit list of a clip in ISO base media or QuickTime: which of the stored frames are shown. ISO/IEC 14496-12, 8.6.6

A phone, or a program that cuts without coding anew, leaves all frames in the file and lists those that are shown.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# A box of the tables of a clip is no longer than this.
LONGEST_TABLES = 1 << 26
HEAD, LONG_HEAD = 8, 16
# Start of an edit that shows nothing for a while.
EMPTY = -1
TABLES = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"})


@dataclass(frozen=True)
class FilmEdits:
    """The frames that a clip stores, and how many of them its edit list shows from beginning to end.

    Of a frame in which an edit begins or ends, players show the rest or not.
    """

    stored: int
    whole: int


def read_edits(path: Path) -> FilmEdits | None:
    """The frames of the first track of pictures; None where there is no edit list, or no table that can be read."""
    try:
        tables = _film_tables(path)
        if tables is None:
            return None
        film_scale = _scale(next(content for kind, content in _boxes(tables) if kind == b"mvhd"))
        for kind, track in _boxes(tables):
            found = dict(_inner_boxes(track)) if kind == b"trak" else {}
            if found.get(b"hdlr", b"")[8:12] == b"vide" and b"elst" in found:
                return _shown_frames(found, film_scale)
    except (ArithmeticError, IndexError, KeyError, StopIteration, ValueError, struct.error):
        return None
    return None


def _film_tables(path: Path) -> bytes | None:
    """The content of the box of all tables, wherever it lies in the file."""
    whole = path.stat().st_size
    with path.open("rb") as file:
        at = 0
        while at + HEAD <= whole:
            file.seek(at)
            head = file.read(LONG_HEAD)
            size, kind = struct.unpack_from(">I4s", head)
            start = HEAD
            if size == 1:
                size, start = struct.unpack_from(">Q", head, HEAD)[0], LONG_HEAD
            size = size or whole - at
            if size < start:
                return None
            if kind == b"moov":
                file.seek(at + start)
                return file.read(size - start) if size <= LONGEST_TABLES else None
            at += size
    return None


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of the boxes that follow each other."""
    at = 0
    while at + HEAD <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        if size < HEAD:
            return
        yield kind, content[at + HEAD : at + size]
        at += size


def _inner_boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes of a track, with those that lie within others."""
    for kind, inner in _boxes(content):
        if kind in TABLES:
            yield from _inner_boxes(inner)
        # The handler of the track comes before that of its data.
        elif kind != b"hdlr" or inner[8:12] == b"vide":
            yield kind, inner


def _scale(header: bytes) -> int:
    """Units of time a second, of the header of a clip or of its track's media."""
    return int(struct.unpack_from(">I", header, 20 if header[0] == 1 else 12)[0])


def _shown_frames(found: dict[bytes, bytes], film_scale: int) -> FilmEdits:
    """Frames that lie in one of the parts that the edit list shows."""
    starts, ends = _frame_times(found)
    media_scale = _scale(found[b"mdhd"])
    edits = found[b"elst"]
    form = ">QqI" if edits[0] == 1 else ">IiI"
    (count,) = struct.unpack_from(">I", edits, 4)
    whole = np.zeros(len(starts), dtype=bool)
    rounding = -(-media_scale // film_scale)
    for number in range(min(count, len(edits) // struct.calcsize(form))):
        duration, start, _ = struct.unpack_from(form, edits, 8 + number * struct.calcsize(form))
        if start != EMPTY:
            # Without a duration an edit goes on to the end.
            end = start + duration * media_scale / film_scale if duration else np.inf
            whole |= (starts >= start) & (ends <= end + rounding)
    return FilmEdits(len(starts), int(np.count_nonzero(whole)))


def _frame_times(found: dict[bytes, bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """When each frame begins and ends to be shown, in units of its track: so long after it is decoded."""
    durations = _runs(found[b"stts"], ">u4")
    starts = np.cumsum(durations) - durations
    offsets = _runs(found[b"ctts"], ">i4") if b"ctts" in found else np.zeros(0, np.int64)
    starts[: len(offsets)] += offsets[: len(starts)]
    return starts, starts + durations


def _runs(table: bytes, kind: str) -> NDArray[np.int64]:
    """The values of a table of (how often, value). Raises ValueError for more than a clip has."""
    (count,) = struct.unpack_from(">I", table, 4)
    pairs = np.frombuffer(table, np.dtype([("times", ">u4"), ("value", kind)]), count, 8)
    times = pairs["times"].astype(np.int64)
    if times.sum() > LONGEST_TABLES:
        raise ValueError("more frames than a clip has")
    return np.repeat(pairs["value"].astype(np.int64), times)

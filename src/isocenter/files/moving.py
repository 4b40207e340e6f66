"""Animated GIFs: frames in colour, with the times at which they are shown. GIF89a, section 23."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image

from isocenter.errors import FormatError
from isocenter.files.storage.packed import refuse_expansion
from isocenter.files.video import picked
from isocenter.values import Array, Deferred, Geometry, Image, Source

# What Pillow's readers raise at a damaged file, and at one so large that it may be an attack.
PIL_ERRORS = (
    PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning, ArithmeticError, AttributeError, EOFError,
    LookupError, OSError, RuntimeError, SyntaxError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip
MAGIC, END = b"GIF8", b";"
LONGEST_PADDING = 1 << 16
# Pillow goes by the first bytes, and of the many kinds that it knows one hands them to another program (PostScript).
KINDS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "JPEG2000")


def is_moving(path: Path) -> bool:
    """Whether it is a GIF of several frames; False for what cannot be opened."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return False
    try:
        with open_header(path) as opened:
            return bool(getattr(opened, "is_animated", False))
    except PIL_ERRORS:
        return False


def open_header(path: Path) -> PIL.Image.Image:
    """The picture with its header read, and no pixel. Raises one of `PIL_ERRORS`."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
        return PIL.Image.open(path, "r", KINDS)


def frames_of(opened: PIL.Image.Image) -> int:
    """The number of frames of a picture; formats of single pictures do not state it."""
    return getattr(opened, "n_frames", 1)


def read_moving(path: Path) -> Image:
    """One colour image with frames in time, on a grid that counts pixels; frames are decoded when asked for.

    Raises FormatError for a file cut short.
    """
    _refuse_claims(path)
    shown, size = list[float](), (0, 0)
    for frame, seconds in _frames(path):
        size = frame.shape[:2]
        shown.append(seconds)
    timed = all(seconds > 0 for seconds in shown[:-1])
    shape = (3, len(shown), *size)
    return Image(
        Deferred(shape, np.dtype(np.uint8), partial(_all, path, shape), partial(_region, path, shape)),
        Geometry.of_pixels(size),
        channels=("R", "G", "B"),
        times=tuple(round(float(time), 6) for time in np.cumsum([0.0, *shown[:-1]])) if timed else None,
        notes=() if timed else ("the film states no frame times",),
        source=Source("picture", (str(path),)),
    )


def _refuse_claims(path: Path) -> None:
    """Refuse what is cut short, and frames that take a few bytes each and a whole picture in memory."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LONGEST_PADDING))
        if not file.read().rstrip(b"\0").endswith(END):
            raise FormatError("does not end as a GIF does", str(path), "It is cut short: get it again")
    try:
        with open_header(path) as opened:
            (columns, rows), frames = opened.size, frames_of(opened)
    except PIL_ERRORS as error:
        raise FormatError(f"is not a complete film ({error})", str(path), "Get the file again") from error
    refuse_expansion(path.stat().st_size, 3 * columns * rows * frames, str(path))


def _frames(path: Path) -> Iterator[tuple[Array, float]]:
    """((rows, columns, 3), s for which it is shown) after one another."""
    try:
        with PIL.Image.open(path, "r", KINDS) as opened:
            for number in range(opened.n_frames):  # type: ignore[attr-defined]
                opened.seek(number)
                yield np.asarray(opened.convert("RGB")), float(opened.info.get("duration", 0)) / 1000
    except (OSError, EOFError, SyntaxError, ValueError) as error:
        raise FormatError(f"is not a complete film ({error})", str(path), "Get the file again") from error


def _all(path: Path, shape: tuple[int, ...]) -> Array:
    """(3, frames, rows, columns)"""
    return _region(path, shape, (slice(None),) * 4)


def _region(path: Path, shape: tuple[int, ...], region: tuple[slice, ...]) -> Array:
    """A part of it; every frame before it has to be decoded, but is not kept."""
    channels, frames, *inside = (*region, *(slice(None),) * (4 - len(region)))
    wanted = range(shape[1])[frames]
    film = (frame for frame, _ in _frames(path))
    return picked(film, wanted, (*shape[2:], 3), tuple(inside), path)[channels]

"""Video formats (MP4, AVI, MOV, MKV, bit streams inside DICOM) and animated GIFs as frames with their times."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import FormatError
from hilum.files import avi_index, clip_edits, pixel_aspect
from hilum.files.format_options import Format, ReadOptions
from hilum.files.storage import packed_files
from hilum.lazy import cv2
from hilum.values import Array, Deferred, FactRule, Geometry, Image, Source

Frame = NDArray[np.uint8]

REMEDY = "The file is damaged or of an unknown kind: play it, or convert it to MP4 with H.264"
# Matroska and bare streams state only their duration, from which the number of frames is guessed.
GUESSED = 0.02
EXACT = (b"ftyp", b"RIFF")
# (offset, bytes) of which one starts every clip: FFmpeg also follows lists of other files and addresses of the web.
# ISO base media and QuickTime, AVI, Matroska; bit streams of MPEG-2, H.264 and HEVC, and MPEG's transport stream.
STARTS = (
    *((4, kind) for kind in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")),
    (8, b"AVI "), (0, b"\x1aE\xdf\xa3"), (0, b"\0\0\1"), (0, b"\0\0\0\1"), (0, b"G"),
)  # fmt: skip
LONGEST_START = 12
# Bytes of all frames of a clip, and how many times its own size: of a still picture each frame takes some 100 bytes.
LARGEST_CLIP, LARGEST_RATIO = 1 << 36, 50_000


@dataclass(frozen=True)
class ClipFacts:
    """The contents of a clip, from decoding it once.

    times: s of each frame from the first; None where the clip states none, as a bare bit stream
    notes: what the clip states and its frames do not show, in words
    """

    frames: int
    rows: int
    columns: int
    times: tuple[float, ...] | None
    notes: tuple[str, ...] = ()


def read_video(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """One colour image with frames in time, on a grid that counts pixels; frames are decoded when asked for.

    Raises FormatError for a clip without frames, or with fewer than it states.
    """
    del options
    facts = survey_clip(path, str(path))
    shape = (3, facts.frames, facts.rows, facts.columns)
    pixels = Deferred(
        shape,
        np.dtype(np.uint8),
        partial(_all, path, shape),
        partial(_region, path, shape),
        partial(_ClipParts, path, shape),
    )
    image = Image(
        pixels,
        Geometry.of_pixels(shape[2:]),
        channels=("R", "G", "B"),
        times=facts.times,
        notes=facts.notes if facts.times else (*facts.notes, "the clip states no frame times"),
        source=Source("video", (str(path),)),
    )
    return {path.stem: image}


def survey_clip(path: Path, where: str) -> ClipFacts:
    """Size, number and times of the frames that are shown: of a clip with an edit list, those that it shows.

    Times are each frame's own presentation time, so a variable frame rate is kept.
    Raises FormatError for a clip without frames, or with fewer than it states.
    """
    times: list[float] = []
    size, most = (0, 0), max(LARGEST_CLIP, LARGEST_RATIO * path.stat().st_size)
    with _open_clip(path, where) as capture:
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        aspect = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
        while True:
            has_frame, frame = capture.read()
            if not has_frame:
                break
            if times and frame.shape[:2] != size:
                raise FormatError("changes its size between frames", where, "Convert it to one size")
            size = frame.shape[:2]
            if frame.size * len(times) > most:
                raise FormatError(f"goes on after {len(times)} frames, which may be an attack", where, REMEDY)
            times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    if not times:
        raise FormatError("holds no frame", where, REMEDY)
    notes = []
    edits = clip_edits.read_edits(path)
    if edits is not None and edits.whole <= len(times) < edits.stored:
        count = len(times)
        notes.append(f"{edits.stored} frames are stored, of which the clip's edit list shows {len(times)}")
    repeats = avi_index.count_repeats(path)
    if repeats:
        count -= repeats
        shown_again = errors.count_phrase(repeats, "frame has", "frames have")
        notes.append(f"{shown_again} no picture of their own, because the one before is shown again: left out")
    notes += pixel_aspect.aspect_notes(*aspect)
    if len(times) < (count if _knows_its_length(path) else count * (1 - GUESSED) - 1):
        raise FormatError(
            f"holds {len(times)} frames where {int(count)} are stated", where, "It is cut short: get it again"
        )
    return ClipFacts(len(times), int(size[0]), int(size[1]), _from_first(times), tuple(notes))


def iterate_clip(path: Path, where: str) -> Iterator[Frame]:
    """(rows, columns, 3) RGB, one frame after the other."""
    with _open_clip(path, where) as capture:
        while True:
            has_frame, frame = capture.read()
            if not has_frame:
                return
            yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), dtype=np.uint8)


@contextmanager
def _open_clip(path: Path, where: str) -> Iterator[Any]:
    if not _starts_as_clip(path):
        raise FormatError("is not a clip of a known kind", where, REMEDY)
    # FFmpeg's messages about a damaged clip are not printed: our error has them.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        try:
            if not capture.isOpened():
                raise FormatError("no clip can be read from it", where, REMEDY)
            yield capture
        finally:
            capture.release()
    finally:
        cv2.utils.logging.setLogLevel(level)


def _starts_as_clip(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(LONGEST_START)
    return any(head[at : at + len(magic)] == magic for at, magic in STARTS)


def _knows_its_length(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(LONGEST_START)
    return any(magic in head for magic in EXACT)


def _from_first(times: list[float]) -> tuple[float, ...] | None:
    """Times from the first frame; None where they do not grow."""
    if len(times) > 1 and not (np.diff(times) > 0).all():
        return None
    return tuple(round(time - times[0], 6) for time in times)


def _all(path: Path, shape: tuple[int, ...]) -> Frame:
    return _region(path, shape, (slice(None),) * 4)


class _ClipParts:
    """Parts of a clip in the order of its frames: those before a part are not decoded anew."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._path, self._shape = path, shape
        self._at, self._frames = 0, iterate_clip(path, str(path))

    def __call__(self, region: tuple[slice, ...]) -> Frame:
        start, stop, step = region[1].indices(self._shape[1]) if len(region) > 1 else (0, self._shape[1], 1)
        if step != 1 or start < self._at or start >= stop:
            return _region(self._path, self._shape, region)
        clip = islice(self._frames, start - self._at, stop - self._at)
        self._at = stop
        return pick_frames(clip, range(stop - start), (*self._shape[2:], 3), _whole(region[2:]), self._path)[region[0]]


def _region(path: Path, shape: tuple[int, ...], region: tuple[slice, ...]) -> Frame:
    """A part of the clip; everything before it has to be decoded, but is not kept."""
    numbers = range(shape[1])[region[1]] if len(region) > 1 else range(shape[1])
    return pick_frames(iterate_clip(path, str(path)), numbers, (*shape[2:], 3), _whole(region[2:]), path)[region[0]]


def _whole(inside: tuple[slice, ...]) -> tuple[slice, ...]:
    """The part of a frame, along both axes."""
    return (*inside, *(slice(None) for _ in range(2 - len(inside))))


def pick_frames(
    clip: Iterator[Array], numbers: range, shape: tuple[int, ...], inside: tuple[slice, ...], path: Path
) -> Array:
    """(channels, wanted, *inside) of a clip of frames (rows, columns, channels); no frame is held but in the result.

    Raises FormatError where the clip ends before the last that is wanted.
    """
    size = tuple(len(range(n)[own]) for n, own in zip(shape, (*inside, slice(None)), strict=True))
    chosen = np.empty((len(numbers), *size), np.uint8)
    places, decoded = {number: place for place, number in enumerate(numbers)}, 0
    for number, frame in enumerate(islice(clip, max(numbers, default=-1) + 1)):
        if number in places:
            chosen[places[number]] = frame[inside]
            decoded += 1
    if decoded < len(numbers):
        raise FormatError("has changed since it was opened", str(path), "Read it again")
    return np.moveaxis(chosen, -1, 0)


FACTS = (
    FactRule("clips", "read", "the frames that an edit list shows"),
    FactRule("clips", "named", "the number of frames that an edit list leaves out"),
    FactRule("clips", "named", "pixels that are not square"),
    FactRule("clips", "named", "frames without a picture of their own (AVI)"),
    FactRule("clips", "refused", "fewer frames than an edit list shows"),
)
FORMAT = Format("video", read_video, facts=FACTS)


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


def count_frames(opened: PIL.Image.Image) -> int:
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
        Deferred(shape, np.dtype(np.uint8), partial(_all_of_gif, path, shape), partial(_region_of_gif, path, shape)),
        Geometry.of_pixels(size),
        channels=("R", "G", "B"),
        times=tuple(round(float(time), 6) for time in np.cumsum([0.0, *shown[:-1]])) if timed else None,
        notes=() if timed else ("the clip states no frame times",),
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
            (columns, rows), count = opened.size, count_frames(opened)
    except PIL_ERRORS as error:
        raise FormatError(f"is not a complete clip ({error})", str(path), "Get the file again") from error
    packed_files.refuse_expansion(path.stat().st_size, 3 * columns * rows * count, str(path))


def _frames(path: Path) -> Iterator[tuple[Array, float]]:
    """((rows, columns, 3), s for which it is shown) after one another."""
    try:
        with PIL.Image.open(path, "r", KINDS) as opened:
            for number in range(opened.n_frames):  # type: ignore[attr-defined]  # of kinds with frames
                opened.seek(number)
                yield np.asarray(opened.convert("RGB")), float(opened.info.get("duration", 0)) / 1000
    except (OSError, EOFError, SyntaxError, ValueError) as error:
        raise FormatError(f"is not a complete clip ({error})", str(path), "Get the file again") from error


def _all_of_gif(path: Path, shape: tuple[int, ...]) -> Array:
    """(3, frames, rows, columns)"""
    return _region_of_gif(path, shape, (slice(None),) * 4)


def _region_of_gif(path: Path, shape: tuple[int, ...], region: tuple[slice, ...]) -> Array:
    """A part of it; every frame before it has to be decoded, but is not kept."""
    channels, times, *inside = (*region, *(slice(None),) * (4 - len(region)))
    numbers = range(shape[1])[times]
    clip = (frame for frame, _ in _frames(path))
    return pick_frames(clip, numbers, (*shape[2:], 3), tuple(inside), path)[channels]

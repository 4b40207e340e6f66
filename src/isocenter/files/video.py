"""Films (MP4, AVI, MOV, MKV, and the bit streams inside DICOM) as frames with their times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from isocenter.errors import FormatError
from isocenter.files.format import Format, ReadOptions
from isocenter.values import Geometry, Image, Source

Frames = NDArray[np.uint8]

REMEDY = "The file is damaged or of an unknown kind: play it, or convert it to MP4 with H.264"


def read_video(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """One colour image with frames in time, on a grid that counts pixels.

    Raises FormatError for a film without frames or with fewer than it says.
    """
    frames, times = read_frames(path, str(path))
    pixels = np.moveaxis(frames, -1, 0)  # (3, frames, rows, columns)
    image = Image(
        pixels,
        Geometry.of_pixels(frames.shape[1:3]),
        channels=("R", "G", "B"),
        times=times,
        source=Source("video", (str(path),)),
        notes=() if times else ("the film states no frame times",),
    )
    return {path.stem: image}


def read_frames(path: Path, where: str) -> tuple[Frames, tuple[float, ...] | None]:
    """((frames, rows, columns, 3) RGB, s of each frame from the first); no times for a bare bit stream.

    Times are each frame's own presentation time, so a variable frame rate is kept.
    """
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise FormatError("no video stream can be read", where, REMEDY)
        stated = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        frames, times = _all(capture)
    finally:
        capture.release()
    if not frames:
        raise FormatError("holds no frame", where, REMEDY)
    if len(frames) < stated:
        raise FormatError(f"holds {len(frames)} frames and says {stated}", where, "It is cut short: get it again")
    return np.stack(frames), _from_first(times)


def _all(capture: Any) -> tuple[list[Frames], list[float]]:
    frames, times = [], []
    for frame, time in _read(capture):
        frames.append(frame)
        times.append(time)
    return frames, times


def _read(capture: Any) -> Iterator[tuple[Frames, float]]:
    while True:
        there, frame = capture.read()
        if not there:
            return
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), capture.get(cv2.CAP_PROP_POS_MSEC) / 1000


def _from_first(times: list[float]) -> tuple[float, ...] | None:
    """Times that do not grow are none."""
    if len(times) > 1 and not (np.diff(times) > 0).all():
        return None
    return tuple(round(time - times[0], 6) for time in times)


FORMAT = Format("video", read_video)

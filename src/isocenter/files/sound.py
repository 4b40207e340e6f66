"""The WAV format: sounds and other signals at an even rate, such as heart and lung sounds; numbers as stored."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.io import wavfile

from isocenter.errors import FormatError
from isocenter.files.format import Format, ReadOptions
from isocenter.values import Geometry, Image, Source

SAMPLES, KIND_OF_SAMPLES, LARGE = b"data", b"fmt ", b"RF64"
CUT = "Reached EOF prematurely"  # SciPy's warning for fewer samples than the header states


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """One image of one axis in s, (channels, samples).

    Raises FormatError for what is no sound of plain samples, and for one cut short.
    """
    del options  # a sound leaves nothing to decide
    width = _bytes_of_a_sample(path)
    try:
        with warnings.catch_warnings(record=True) as kept:
            warnings.simplefilter("always")
            rate, samples = wavfile.read(path)
    except (ValueError, OSError, EOFError) as error:
        reason = f"cannot be read as WAV ({error})"
        raise FormatError(reason, str(path), "Get the file again, or save it as plain samples (PCM)") from error
    if any(CUT in str(one.message) for one in kept) or not len(samples) or rate <= 0:
        raise FormatError("holds fewer samples than its header states", str(path), "It is cut short: get it again")
    if width == 3:  # SciPy puts them into the upper bytes of four
        samples >>= 8
    pixels = np.reshape(samples, (len(samples), -1)).T
    geometry = Geometry(pixels.shape[1:], np.array([[1.0 / rate, 0.0], [0.0, 1.0]]), oriented=False, unit="s")
    return {path.stem: Image(pixels, geometry, source=Source("sound", (str(path),)))}


def _bytes_of_a_sample(path: Path) -> int:
    """The number of bytes of each sample.

    Raises FormatError for samples that the file does not hold: memory for all that is claimed would be asked for.
    """
    size, width = path.stat().st_size, 0
    with path.open("rb") as file:
        form = file.read(4)
        order = ">" if form == b"RIFX" else "<"
        at = 12
        while at + 8 <= size:
            file.seek(at)
            kind, length = struct.unpack(f"{order}4sI", file.read(8))
            if kind == KIND_OF_SAMPLES and len(stated := file.read(14)) == 14:
                channels, frame_bytes = struct.unpack(f"{order}2xH8xH", stated)
                width = frame_bytes // max(1, channels)
            # Of a large file the sizes stand elsewhere, and only there.
            if kind == SAMPLES and form != LARGE and at + 8 + length > size:
                problem = "holds fewer samples than its header states"
                raise FormatError(problem, str(path), "It is cut short: get it again")
            at += 8 + length + length % 2
    return width


FORMAT = Format("sound", read)

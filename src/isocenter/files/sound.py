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

SAMPLES, LARGE = b"data", b"RF64"
CUT = "Reached EOF prematurely"  # SciPy's warning for fewer samples than the header states


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """One image of one axis in s, (channels, samples).

    Raises FormatError for what is no sound of plain samples, and for one cut short.
    """
    del options  # a sound leaves nothing to decide
    _refuse_if_short(path)
    try:
        with warnings.catch_warnings(record=True) as kept:
            warnings.simplefilter("always")
            rate, samples = wavfile.read(path)
    except (ValueError, OSError, EOFError) as error:
        reason = f"cannot be read as WAV ({error})"
        raise FormatError(reason, str(path), "Get the file again, or save it as plain samples (PCM)") from error
    if any(CUT in str(one.message) for one in kept) or not len(samples) or rate <= 0:
        raise FormatError("holds fewer samples than its header states", str(path), "It is cut short: get it again")
    pixels = np.reshape(samples, (len(samples), -1)).T
    geometry = Geometry(pixels.shape[1:], np.array([[1.0 / rate, 0.0], [0.0, 1.0]]), oriented=False, unit="s")
    return {path.stem: Image(pixels, geometry, source=Source("sound", (str(path),)))}


def _refuse_if_short(path: Path) -> None:
    """Refuse samples that the file does not hold: memory for all that is claimed would be asked for."""
    size = path.stat().st_size
    with path.open("rb") as file:
        kind = file.read(4)
        if kind == LARGE:  # its sizes stand elsewhere, and only there
            return
        order = ">" if kind == b"RIFX" else "<"
        at = 12
        while at + 8 <= size:
            file.seek(at)
            kind, length = struct.unpack(f"{order}4sI", file.read(8))
            if kind == SAMPLES and at + 8 + length > size:
                raise FormatError(
                    "holds fewer samples than its header states", str(path), "It is cut short: get it again"
                )
            at += 8 + length + length % 2


FORMAT = Format("sound", read)

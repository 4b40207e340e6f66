"""Frames in time: as many of each clip, evenly spread, whatever its length. This file needs NumPy alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from isocenter.errors import GeometryError
from isocenter.values import Array, Image


def evenly(frames: int, wanted: int) -> list[int]:
    """Which frames stand for a clip: the middle of each of `wanted` equal parts; of a shorter clip some come twice."""
    return [int((n + 0.5) * frames / wanted) for n in range(wanted)]


def thinned(image: Image, wanted: int, where: str) -> Image:
    """A clip with `wanted` frames, (channels, wanted, *spatial); only they are read.

    Raises GeometryError for an image without frames.
    """
    if image.frames is None:
        raise GeometryError(f"has no frames, and the model looks at {wanted} of a clip", where, "Give the whole clip")
    chosen, read = evenly(image.frames, wanted), image.reader()
    every = (slice(None),) * image.geometry.ndim
    parts = {n: read((slice(None), slice(n, n + 1), *every)) for n in dict.fromkeys(chosen)}
    times = None if image.times is None else tuple(image.times[n] for n in chosen)
    return replace(image, pixels=np.concatenate([parts[n] for n in chosen], axis=1), times=times)


def frames_as_channels(data: Array, frames: int | None) -> Array:
    """(channels, frames, *spatial) as (channels * frames, *spatial), the frames of the first channel first."""
    return data if frames is None else data.reshape(-1, *data.shape[2:])

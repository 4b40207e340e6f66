"""Selection of frames from clips of any length. This file needs NumPy alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hilum import errors
from hilum.errors import GeometryError
from hilum.values import Array, Image

FRAME = "frame"  # the unit of intervals that count frames
# Of the slots up to a clip's last frame that have one; with fewer it is not one frame or another that was lost.
DENSE_ENOUGH = 0.5


def spread_frames_evenly(frames: int, count: int) -> list[int]:
    """The frames that stand for a clip: the middle of each of `wanted` parts; of a shorter clip some come twice."""
    return [int((n + 0.5) * frames / count) for n in range(count)]


def frames_at_steps(times: Sequence[float], step: float, count: int) -> list[int | None]:
    """The frame nearest to each of the times 0, step, 2 step, ... from the first; None where none is within half.

    Every slot has another frame; what comes after the last slot has none.
    """
    places = (np.asarray(times, dtype=float) - min(times)) / step
    slots: list[int | None] = [None] * count
    for number in np.argsort(abs(places - np.floor(places + 0.5)), kind="stable").tolist():
        slot = math.floor(places[number] + 0.5)
        if slot < count and slots[slot] is None:
            slots[slot] = number
    return slots


def frames_in_slots(image: Image, count: int, interval: float | None, unit: str | None, where: str) -> list[int | None]:
    """The frame in each of `wanted` slots; None where the clip has none.

    interval: from slot to slot, in s, or in frames where `unit` is "frame"; None spreads them evenly over the clip
    Raises GeometryError for an image without frames, with one alone, or of which not all that happens has a slot.
    """
    if image.frames is None:
        raise GeometryError(f"has no frames, and the model takes {count} of a clip", where, "Give the whole clip")
    if image.frames < min(2, count):
        problem = f"has {errors.count_phrase(image.frames, 'frame')}, and the model needs what changes with time"
        raise GeometryError(problem, where, "Give the whole clip")
    if interval is None:
        return [*spread_frames_evenly(image.frames, count)]
    times: Sequence[float] | None = range(image.frames) if unit == FRAME else image.times
    if times is None:
        problem = f"it does not state the times of its frames, and the model takes one every {interval:g} s"
        raise GeometryError(problem, where, "Give a clip with times, as DICOM and NIfTI (pixdim[4]) can state them")
    slots = frames_at_steps(times, interval, count)
    lasts = max(times) - min(times)
    unit = unit or "s"
    lasting = f"lasts {lasts:.3g} {unit}{'s' * (unit == FRAME)}, and the model takes a frame every {interval:g}"
    if lasts / interval + 0.5 >= count:
        remedy = "Give a part of it, or plan with more preprocessing.frames or a longer preprocessing.interval"
        raise GeometryError(f"{lasting}, {count} times at most", where, remedy)
    filled = [n for n, one in enumerate(slots) if one is not None]
    if len(filled) < min(2, count):
        raise GeometryError(lasting, where, "Give a longer clip, or plan with a shorter preprocessing.interval")
    if len(filled) < DENSE_ENOUGH * (filled[-1] + 1):
        problem = f"has {image.frames} frames, {lasting}"
        remedy = "Give a clip with more of them, or plan with a longer preprocessing.interval"
        raise GeometryError(problem, where, remedy)
    return slots


def thin_clip(image: Image, chosen: Sequence[int]) -> Image:
    """A clip of these frames, (channels, chosen, *spatial); only they are read."""
    read = image.reader()
    every = (slice(None),) * image.geometry.ndim
    parts = {n: read((slice(None), slice(n, n + 1), *every)) for n in dict.fromkeys(chosen)}
    times = None if image.times is None else tuple(image.times[n] for n in chosen)
    return replace(image, pixels=np.concatenate([parts[n] for n in chosen], axis=1), times=times)


def with_frames_around(image: Image, around: int) -> Image:
    """A frame of a clip with so many before and after it, (channels, 2 around + 1, *spatial); of a still image itself.

    What has no neighbours is taken for a clip that does not move.
    """
    if not around or image.frames is not None:
        return image
    steps = range(-around, around + 1)
    frames = [image.data if step == 0 or image.neighbours is None else image.neighbours(step) for step in steps]
    return replace(image, pixels=np.stack(frames, axis=1), times=None, neighbours=None)


def frames_as_channels(data: Array, frames: int | None) -> Array:
    """(channels, frames, *spatial) as (channels * frames, *spatial), the frames of the first channel first."""
    return data if frames is None else data.reshape(-1, *data.shape[2:])


def place_in_slots(frames: Array, slots: Sequence[int | None]) -> Array:
    """(frames, *spatial) of one channel as (slots, *spatial), NaN where a slot has none."""
    filled = [n for n, one in enumerate(slots) if one is not None]
    if len(filled) == len(slots):
        return frames
    spread = np.full((len(slots), *frames.shape[1:]), np.nan, dtype=frames.dtype)
    spread[filled] = frames
    return spread

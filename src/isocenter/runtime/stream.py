"""Frames through a model of still images: as a stream that keeps nothing, or as one result of a clip."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import GeometryError
from isocenter.values import Array, Geometry, Image, Prediction

# Latencies are counted in steps of 1 % from 1 µs on, which reach beyond an hour: their number does not grow.
SHORTEST, STEP, STEPS = 1e-6, math.log(1.01), 2300
# Frames of a file that are read together.
READ_AHEAD = 8
# The columns of `measurements` that hold a size, and the names of their relative changes.
SIZES = {
    "volume_ml": "ejection_fraction_percent",
    "area_mm2": "fractional_area_change_percent",
    "voxels": "fractional_change_percent",
}


@dataclass(eq=False)
class Latency:
    """Seconds from a frame to its result, counted so that memory does not grow; percentiles are right within 1 %."""

    count: int = 0
    longest: float = 0.0
    _steps: NDArray[np.int64] = field(default_factory=lambda: np.zeros(STEPS, np.int64))

    def add(self, seconds: float) -> None:
        """Count one frame."""
        self.count += 1
        self.longest = max(self.longest, seconds)
        step = math.log(max(seconds, SHORTEST) / SHORTEST) / STEP
        self._steps[min(int(step), STEPS - 1)] += 1

    def percentile(self, share: float) -> float:
        """Seconds within which this share (0 to 100) of the frames had their result; NaN without any."""
        if not self.count:
            return math.nan
        step = int(np.searchsorted(np.cumsum(self._steps), share / 100 * self.count))
        return min(SHORTEST * math.exp(STEP * (step + 0.5)), self.longest)

    @property
    def p50(self) -> float:
        """Median, s."""
        return self.percentile(50)

    @property
    def p99(self) -> float:
        """99th percentile, s."""
        return self.percentile(99)

    def __str__(self) -> str:
        figures = f"p50 {1000 * self.p50:.3g} ms, p99 {1000 * self.p99:.3g} ms, longest {1000 * self.longest:.3g} ms"
        return f"{self.count} frames: {figures}"


@dataclass(eq=False)
class Stream:
    """One prediction per frame, in order; `latency` counts their seconds, without those of reading a frame.

    predict:  of a frame as an image
    channels: of the model, for frames that are arrays (channels, *spatial)
    """

    predict: Callable[[Image], Prediction]
    channels: tuple[str, ...]
    frames: Iterable[Image | Array]
    latency: Latency = field(default_factory=Latency)

    def __iter__(self) -> Iterator[Prediction]:
        for frame in self.frames:
            started = time.perf_counter()
            prediction = self.predict(_image_of(frame, self.channels))
            self.latency.add(time.perf_counter() - started)
            yield prediction


def _image_of(frame: Image | Array, channels: tuple[str, ...]) -> Image:
    """The frame as an image; an array of another number of channels has no names, and the model refuses it."""
    if isinstance(frame, Image):
        return frame
    names = channels if len(channels) == len(frame) else ()
    return Image(frame, Geometry.of_pixels(frame.shape[1:]), channels=names)


def frames_of(image: Image, where: str) -> Iterator[Image]:
    """Each frame of a film as an image of its own, a few read at a time; GeometryError for an image without frames."""
    if image.frames is None:
        raise GeometryError("has no frames", where, "Predict it as an image")
    read = image.reader()
    for start in range(0, image.frames, READ_AHEAD):
        part = read((slice(None), slice(start, min(start + READ_AHEAD, image.frames))))
        for number in range(part.shape[1]):
            pixels = np.ascontiguousarray(part[:, number])
            yield Image(
                pixels,
                image.geometry,
                modality=image.modality,
                channels=image.channels,
                padding=image.padding,
                facts=image.facts,
                source=image.source,
            )


def predict_frames(image: Image, predict: Callable[[Image, int], Prediction]) -> Prediction:
    """One prediction of a clip; predict: of a frame as an image, and its number."""
    # What a frame was decoded from would be far larger than the label maps of a long clip.
    each = tuple(predict(still, number).decided for number, still in enumerate(image.still_frames()))
    return _in_a_row(image.geometry, each)


def _in_a_row(geometry: Geometry, frames: tuple[Prediction, ...]) -> Prediction:
    """Predictions of frames as one: its `data`, where there are label maps, is (frames, *spatial); so of its parts.

    There is an answer where one frame has an answer.
    """
    reason = None if any(frame.abstained is None for frame in frames) else frames[0].abstained
    maps = [np.asarray(frame.data) for frame in frames if frame.data is not None]
    labels = max((frame.labels for frame in frames), key=len)  # of single objects the frame with most has all numbers
    parts = {part: _in_a_row(geometry, tuple(frame.parts[part] for frame in frames)) for part in frames[0].parts}
    data = np.stack(maps) if maps else None
    return Prediction(geometry, data=data, abstained=reason, labels=labels, frames=frames, parts=parts)


def size_changes(frames: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """One row per label: its largest and smallest size, and the difference in percent of the largest.

    frames: rows of `measurements` of each frame
    For volumes of a ventricle over a heartbeat that is the ejection fraction, (EDV - ESV) / EDV, for areas the
    fractional area change. Lang et al., J Am Soc Echocardiogr 2015, doi:10.1016/j.echo.2014.10.003
    """
    rows = []
    for each in zip(*frames, strict=True):
        size = next(name for name in SIZES if name in each[0])
        largest, smallest = (bound(float(row[size]) for row in each) for bound in (max, min))
        change = 100 * (largest - smallest) / largest if largest else float("nan")
        rows.append(
            {
                "label": each[0]["label"],
                f"largest_{size}": largest,
                f"smallest_{size}": smallest,
                SIZES[size]: round(change, 6),
            }
        )
    return rows

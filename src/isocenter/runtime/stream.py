"""Frame after frame through a model, as they come from a film, a probe or a camera: nothing of them is kept."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import GeometryError
from isocenter.values import Array, Geometry, Image, Prediction

if TYPE_CHECKING:
    from isocenter.runtime.model import Model

# Latencies are counted in steps of 1 % from 1 µs on, which reach beyond an hour: their number does not grow.
SHORTEST, STEP, STEPS = 1e-6, math.log(1.01), 2300
# Frames of a file that are read together.
READ_AHEAD = 8


@dataclass(eq=False)
class Latency:
    """Seconds from a frame to its result, counted so that memory does not grow; percentiles are right within 1 %."""

    count: int = 0
    longest: float = 0.0
    _steps: NDArray[np.int64] = field(default_factory=lambda: np.zeros(STEPS, np.int64))

    def add(self, seconds: float) -> None:
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
        return self.percentile(50)

    @property
    def p99(self) -> float:
        return self.percentile(99)

    def __str__(self) -> str:
        said = f"p50 {1000 * self.p50:.3g} ms, p99 {1000 * self.p99:.3g} ms, longest {1000 * self.longest:.3g} ms"
        return f"{self.count} frames: {said}"


@dataclass(eq=False)
class Stream:
    """One prediction for each frame, in their order; `latency` says how long they took, without reading the frame."""

    model: Model
    frames: Iterable[Image | Array]
    mirror: bool | None = None
    latency: Latency = field(default_factory=Latency)

    def __iter__(self) -> Iterator[Prediction]:
        channels = self.model.preprocessing.channels
        for frame in self.frames:
            begun = time.perf_counter()
            prediction = self.model.predict(_image_of(frame, channels), mirror=self.mirror)
            self.latency.add(time.perf_counter() - begun)
            yield prediction


def _image_of(frame: Image | Array, channels: tuple[str, ...]) -> Image:
    """A frame that is an array has the model's channels, or is refused by it for having others."""
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

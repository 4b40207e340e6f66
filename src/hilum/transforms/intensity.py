"""Normalisation of intensities, channel by channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Method = Literal["zscore", "window", "range"]
Tails = Literal["linear", "log"]
# Percentiles of its own measurements between which a z-score takes mean and deviation.
CLIPPED = (0.5, 99.5)


@dataclass(frozen=True)
class Normalisation:
    """Normalisation of one channel.

    zscore: by the image's own mean and standard deviation, of values clipped at its own 0.5th and 99.5th percentile,
            or at none where these two are the same value
    window: clipped to [low, high] in the file's unit (HU, SUV), then by `mean` and `deviation` of the training cases
    range:  [low, high] mapped to [0, 1] and then by `mean` and `deviation` of the training cases
    tails:  what a z-score makes of values beyond its percentiles: None clips them, "linear" keeps them, and of "log"
            z deviations beyond become ln(1 + z)
    """

    method: Method
    low: float | None = None
    high: float | None = None
    mean: float = 0.0
    deviation: float = 1.0
    tails: Tails | None = None

    def apply(self, channel: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(*spatial) normalised; voxels without a measurement get the lowest measured value."""
        return self.apply_and_keep(channel, valid)[0]

    def apply_and_keep(
        self, channel: NDArray[Any], valid: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], ChannelScale]:
        """The same, and the scale by which it was done."""
        # Our own copy, changed in place: a volume of CT is large. Later steps are quicker where rows lie together.
        values = np.array(channel, dtype=np.float32, order="C")
        if not valid.any():
            return np.zeros_like(values), ChannelScale(None)
        lowest = float(values.min(where=valid, initial=np.inf))
        if not self._by_image:
            scale = self.scale(lowest)
            return scale.apply_in_place(values, valid), scale
        values[~valid] = lowest
        measured = values[valid]
        low, high = np.percentile(measured, CLIPPED).astype(np.float32)
        if low == high:  # what is to be seen fills less than a percentile
            low, high = measured.min(), measured.max()
        np.clip(measured, low, high, out=measured)
        scale = self.scale(lowest, (float(low), float(high)), float(measured.mean()), float(measured.std()))
        return scale.apply_in_place(values, valid), scale

    def scale(
        self, lowest: float, bounds: tuple[float, float] = (0.0, 0.0), mean: float = 0.0, deviation: float = 1.0
    ) -> ChannelScale:
        """The arithmetic for each value of an image with these statistics.

        lowest: of its measurements
        bounds: its percentiles, which a z-score clips at; mean and deviation are those of what is clipped
        """
        if self._by_image:
            return ChannelScale(lowest, *bounds, ((mean, max(deviation, 1e-6)),), self.tails)
        assert self.low is not None and self.high is not None  # noqa: S101 - the plan's schema sees to it
        to_range = ((self.low, self.high - self.low),) if self.method == "range" else ()
        return ChannelScale(lowest, self.low, self.high, (*to_range, (self.mean, self.deviation)))

    @property
    def _by_image(self) -> bool:
        """Whether the scale is that of the image's own values, not of the training cases."""
        return self.method == "zscore"


@dataclass(frozen=True)
class ChannelScale:
    """The arithmetic for each value of a channel; it needs these few numbers of all its values.

    lowest: what stands for no measurement; None where nothing was measured, and all becomes 0
    steps:  (taken away, divided by), one after the other
    tails:  as in `Normalisation`; there is one step then
    """

    lowest: float | None
    low: float = 0.0
    high: float = 0.0
    steps: tuple[tuple[float, float], ...] = ()
    tails: Tails | None = None

    def apply_in_place(self, values: NDArray[np.float32], valid: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        """(*spatial) values, changed in place. valid: where they are measurements; None: everywhere"""
        if self.lowest is None:
            values[...] = 0
            return values
        if valid is not None:
            values[~valid] = self.lowest
        if self.tails == "log":
            [(_, deviation)] = self.steps
            for bound, side in ((self.low, -1), (self.high, 1)):
                beyond = values < bound if side < 0 else values > bound
                excess = np.abs(values[beyond] - np.float32(bound)) / deviation
                values[beyond] = bound + side * deviation * np.log1p(excess)
        elif self.tails is None:
            np.clip(values, self.low, self.high, out=values)
        for offset, divisor in self.steps:
            values -= offset
            values /= divisor
        return values

    def apply(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """(...) numbers of the file's unit on this scale: nothing is clipped, and NaN stays."""
        scaled = np.array(values, dtype=np.float32)
        for offset, divisor in self.steps:
            scaled = (scaled - np.float32(offset)) / np.float32(divisor)
        return scaled

    def undo(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """The inverse of `apply`; without steps, where nothing was measured, the numbers as they are."""
        restored = np.array(values, dtype=np.float32)
        for offset, divisor in reversed(self.steps):
            restored = restored * np.float32(divisor) + np.float32(offset)
        return restored

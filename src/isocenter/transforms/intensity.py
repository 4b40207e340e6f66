"""Intensities brought to a scale that a network can learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Method = Literal["zscore", "window", "range"]


@dataclass(frozen=True)
class Normalisation:
    """How one channel is normalised.

    zscore: by the image's own mean and standard deviation, after clipping at its own 0.5th and 99.5th percentile
    window: clipped to [low, high] in the file's unit (HU), then by `mean` and `deviation` of the training cases
    range:  [low, high] mapped to [0, 1] and then by `mean` and `deviation` of the training cases
    """

    method: Method
    low: float | None = None
    high: float | None = None
    mean: float = 0.0
    deviation: float = 1.0

    def apply(self, channel: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(*spatial) normalised; what is no measurement becomes the lowest value that is one."""
        # Our own copy, changed in place: a volume of CT is large. Later steps are quicker where rows lie together.
        values = np.array(channel, dtype=np.float32, order="C")
        if not valid.any():
            return np.zeros_like(values)
        values[~valid] = values.min(where=valid, initial=np.inf)
        if self.method == "zscore":
            measured = values[valid]
            low, high = np.percentile(measured, (0.5, 99.5)).astype(np.float32)
            np.clip(measured, low, high, out=measured)
            np.clip(values, low, high, out=values)
            values -= measured.mean()
            values /= max(float(measured.std()), 1e-6)
            return values
        assert self.low is not None and self.high is not None  # noqa: S101 - the plan's schema sees to it
        np.clip(values, self.low, self.high, out=values)
        if self.method == "range":
            values -= self.low
            values /= self.high - self.low
        values -= self.mean
        values /= self.deviation
        return values

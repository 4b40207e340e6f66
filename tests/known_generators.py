"""Known numbers in place of random ones, and smooth images."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.ndimage
import torch


class KnownGenerator:
    """In place of a generator: every number is the largest that could have come, or `share` of the way there."""

    def __init__(self, share: float = 1.0) -> None:
        self.share = share

    def uniform(self, low: float = 0.0, high: float = 1.0, size: Any = None) -> Any:
        number = low + self.share * (high - low)
        return number if size is None else np.full(size, number)

    def random(self, size: Any = None) -> Any:
        return 1 - self.share if size is None else np.full(size, 1 - self.share)

    def integers(self, low: int, high: int | None = None) -> int:
        first, last = (0, low - 1) if high is None else (low, high - 1)
        return round(first + self.share * (last - first))


def known_generators(share: float = 1.0, count: int = 1) -> Any:
    """One a sample."""
    return [KnownGenerator(share)] * count


def generators(seed: int, count: int = 1) -> list[np.random.Generator]:
    return [np.random.default_rng((seed, n)) for n in range(count)]


def smooth(shape: tuple[int, ...], seed: int = 0, channels: int = 1, batch: int = 1) -> torch.Tensor:
    """(batch, channels, *shape), so smooth that reading between voxels is close to the truth; of deviation 1."""
    noise = np.random.default_rng(seed).normal(size=(batch, channels, *shape))
    image = scipy.ndimage.gaussian_filter(noise, (0, 0, *[1.5] * len(shape)))
    return torch.from_numpy((image / image.std()).astype(np.float32))

"""Statistics of the measurements of one channel, from slabs of its stored type: no copy of the image is made.

Whole numbers of 8 and 16 bits are counted in one table, so that every percentile is exact. Of other types a histogram
of the upper half of their bits says where the percentiles lie, and one of the lower half what they are: exact for 32
bits, and for 64 within 1e-6 of the range. What is small is sorted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hilum.values import Array, Floats, slabs
from hilum.values.slabs import Extent

PERCENTILES = {
    "min": 0.0, "low": 0.5, "p5": 5.0, "p25": 25.0, "median": 50.0, "p75": 75.0, "p95": 95.0, "high": 99.5, "max": 100.0
}  # fmt: skip
# So few measurements are sorted.
FEW = 2**16
# Numbers of 32 bits are counted by their upper and then by their lower half.
HALF, HALF_VALUES = 16, 2**16
# Numbers of 64 bits that lie so many of their ranges away from 0 are taken from the lowest before they are rounded.
FAR = 8
Ranks = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Intensities:
    """The measurements of a channel in a few numbers.

    statistics: min, max, mean, deviation and percentiles; low and high are the 0.5th and the 99.5th
    clipped:    share of the measurements at the very highest value
    box:        (first, end) along each axis around all that lies above the lowest value; () where all are equal
    broken:     voxels that are not finite
    """

    statistics: Mapping[str, float]
    clipped: float
    box: tuple[tuple[int, int], ...]
    broken: int

    @property
    def is_constant(self) -> bool:
        """Whether all measurements are equal."""
        return self.statistics["min"] == self.statistics["max"]

    @property
    def window(self) -> tuple[float, float]:
        """The 0.5th and the 99.5th percentile."""
        return self.statistics["low"], self.statistics["high"]


def measure_intensities(values: Array, valid: Array | np.bool_ = np.True_) -> Intensities:
    """values: (*axes) of one channel; valid: where they are measurements, which is somewhere."""
    values = values.view(np.uint8) if values.dtype == bool else values
    valid = np.broadcast_to(valid, values.shape)
    tally = _Tally(values.dtype, Extent(slabs.memory_order(values)))
    for part, known in _slabs(values, valid):
        tally.add(part, known)
    moments = tally.moments
    places = (moments.count - 1) * (np.array(list(PERCENTILES.values())) / 100)
    below = np.floor(places).astype(np.intp)
    above = np.minimum(below + 1, moments.count - 1)
    ranks = np.unique([*below, *above])
    is_tabled = slabs.is_tabled(values.dtype)
    numbers, highest = tally.values_at_ranks(ranks) if is_tabled else _values_at_ranks(values, valid, ranks, moments)
    first, second = (numbers[np.searchsorted(ranks, one)] for one in (below, above))
    # What is rounded lies beyond neither end.
    ends = float(moments.low), float(moments.high)
    percentiles = dict(zip(PERCENTILES, _between(first, second, places - below).clip(*ends).tolist(), strict=True))
    statistics = {
        **percentiles,
        "min": ends[0],
        "max": ends[1],
        "mean": moments.mean,
        "deviation": float(np.sqrt(moments.squares / moments.count)),
    }
    return Intensities(statistics, highest / moments.count, tally.extent.box(moments.low), tally.broken)


def sample_measurements(values: Array, valid: Array, size: int) -> Array:
    """(size,) measurements sampled at random: every n-th voxel of a volume may lie in one plane of air."""
    counts = [part.size if known is None else np.count_nonzero(known) for part, known in _slabs(values, valid)]
    ends: Array = np.cumsum(np.array(counts, dtype=np.int64))
    places = np.random.default_rng(0).integers(int(ends[-1]), size=size)
    if ends[-1] == values.size:
        return np.asarray(values[np.unravel_index(places, values.shape)])
    sampled = [
        _measurements(part, known)[places[(places >= end - count) & (places < end)] - (end - count)]
        for (part, known), count, end in zip(_slabs(values, valid), counts, ends, strict=True)
    ]
    return np.concatenate(sampled)


def _slabs(values: Array, valid: Array) -> Iterator[tuple[Array, Array | None]]:
    """Each slab and where it holds measurements; None: everywhere."""
    for _, (part, known) in slabs.memory_slabs(values, valid):
        yield part, None if slabs.is_true_everywhere(known) else known


def _measurements(part: Array, known: Array | None) -> Array:
    return part.reshape(-1) if known is None else part[known]


def _between(first: Floats, second: Floats, share: Floats) -> Floats:
    """Linear between two numbers, exact at both, as `np.percentile` rounds it."""
    apart = second - first
    return np.where(share < 0.5, first + apart * share, second - apart * (1 - share))


@dataclass
class _Moments:
    """Count, mean and sum of squared differences from it, slab by slab; Chan, Golub and LeVeque, Am Stat 1983."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: Any = None
    high: Any = None

    @classmethod
    def of_counts(cls, numbers: Array, counts: Array) -> _Moments:
        """Of numbers, each so often as it is counted."""
        count = int(counts.sum())
        mean = int((numbers * counts).sum()) / count
        low, high = numbers[counts > 0][[0, -1]]
        return cls(count, mean, float(((numbers - mean) ** 2 * counts).sum()), low, high)

    def add(self, measured: Array) -> None:
        mean, low, high = float(measured.mean(dtype=np.float64)), measured.min(), measured.max()
        total, apart = self.count + len(measured), mean - self.mean
        squares = float(measured.var(dtype=np.float64)) * len(measured)
        self.squares += squares + apart**2 * (self.count * len(measured) / total)
        self.mean = mean if self.count == 0 else self.mean + apart * len(measured) / total
        self.low, self.high = (low, high) if self.count == 0 else (min(self.low, low), max(self.high, high))
        self.count = total


@dataclass
class _Tally:
    """What is gathered slab by slab; of a tabled type how often each of its numbers is there."""

    kind: np.dtype[Any]
    extent: Extent
    counts: Array | None = None
    broken: int = 0
    _moments: _Moments = field(default_factory=_Moments)

    def add(self, part: Array, known: Array | None) -> None:
        measured = _measurements(part, known)
        self.extent.add(part, known)
        if known is not None and np.issubdtype(self.kind, np.inexact):
            self.broken += int(np.count_nonzero(~np.isfinite(part)))
        if slabs.is_tabled(self.kind):
            counts = slabs.table_counts(measured)
            self.counts = counts if self.counts is None else self.counts + counts
        elif len(measured):
            self._moments.add(measured)

    @property
    def moments(self) -> _Moments:
        return self._moments if self.counts is None else _Moments.of_counts(slabs.table_values(self.kind), self.counts)

    def values_at_ranks(self, ranks: Ranks) -> tuple[Floats, int]:
        """The numbers at these places in their order, and how often the highest is there."""
        counts = np.zeros(1, dtype=np.int64) if self.counts is None else self.counts
        numbers = slabs.table_values(self.kind)[np.searchsorted(np.cumsum(counts), ranks, side="right")]
        return numbers.astype(np.float64), int(counts[np.flatnonzero(counts)[-1]])


def _values_at_ranks(values: Array, valid: Array, ranks: Ranks, moments: _Moments) -> tuple[Floats, int]:
    """`_Tally.ranked` of a type that no table can hold."""
    if moments.count <= FEW:
        ordered = np.sort(np.concatenate([_measurements(part, known) for part, known in _slabs(values, valid)]))
        return ordered[ranks].astype(np.float64), int(np.count_nonzero(ordered == ordered[-1]))
    keys = _Keys.from_kind(values.dtype, moments)
    upper = np.zeros(HALF_VALUES, dtype=np.int64)
    for part, known in _slabs(values, valid):
        upper += np.bincount(keys.keys(_measurements(part, known)) >> HALF, minlength=HALF_VALUES)
    ends = np.cumsum(upper)
    bins, bin_of_rank = np.unique(np.searchsorted(ends, ranks, side="right"), return_inverse=True)
    lower = np.zeros((len(bins), HALF_VALUES), dtype=np.int64)
    slot = np.full(HALF_VALUES, -1, dtype=np.intp)
    slot[bins] = np.arange(len(bins)) * HALF_VALUES
    for part, known in _slabs(values, valid):
        found = keys.keys(_measurements(part, known))
        start = slot[found >> HALF]
        np.add.at(lower.reshape(-1), (start + (found & (HALF_VALUES - 1)))[start >= 0], 1)
    within = ranks - (ends - upper)[bins][bin_of_rank]
    halves = [
        np.searchsorted(np.cumsum(lower[own]), at, side="right") for own, at in zip(bin_of_rank, within, strict=True)
    ]
    return keys.numbers((bins[bin_of_rank] << HALF) + np.array(halves)), int(lower[-1][halves[-1]])


@dataclass(frozen=True)
class _Keys:
    """Whole numbers of 32 bits that have the order of the measurements.

    origin:   what is taken from the measurements first
    is_whole: whether they are whole numbers, and the key is what lies above the origin; else it is made of the bits of
              a float32, whose order is theirs but for the sign
    """

    origin: Any
    is_whole: bool

    @classmethod
    def from_kind(cls, kind: np.dtype[Any], moments: _Moments) -> _Keys:
        if kind.kind in "iu":
            return cls(moments.low, int(moments.high) - int(moments.low) < 2**32)
        low, high = float(moments.low), float(moments.high)
        is_far = kind.itemsize > 4 and high - low < max(abs(low), abs(high)) / FAR
        return cls(moments.low if is_far else kind.type(0), False)

    def keys(self, measured: Array) -> NDArray[np.uint32]:
        if self.is_whole:
            return cast("NDArray[np.uint32]", (measured - self.origin).astype(np.uint32))
        wide = np.float32 if measured.dtype.kind == "f" and measured.dtype.itemsize <= 4 else np.float64
        # Plus 0, because -0 is the same number and has other bits.
        single = np.subtract(measured, self.origin, dtype=wide).astype(np.float32) + np.float32(0)
        return _without_sign(single.view(np.int32)).view(np.uint32) ^ np.uint32(2**31)

    def numbers(self, keys: Array) -> Floats:
        """The measurements of such keys."""
        if self.is_whole:
            return keys.astype(np.float64) + float(self.origin)
        bits = (keys.astype(np.uint32) ^ np.uint32(2**31)).view(np.int32)
        return _without_sign(bits).view(np.float32).astype(np.float64) + float(self.origin)


def _without_sign(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Negative numbers with their other bits turned, so that their order is that of whole numbers; its own inverse."""
    return bits ^ ((bits >> 31) & np.int32(2**31 - 1))

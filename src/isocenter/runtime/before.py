"""What a network before has marked in an image, brought to the grid of the one that comes after it.

This file needs NumPy alone, so that a copy of it travels with a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import partial

import numpy as np
from numpy.typing import NDArray

from isocenter.runtime.preprocessing import Preprocessing, Streamed, Trace, padded_region, source_region
from isocenter.runtime.windows import Source
from isocenter.transforms import label_taps, permuted, voted
from isocenter.values import Array, Deferred, Image, Label, Prediction, Reader, Region


@dataclass(frozen=True, eq=False)
class Told(Preprocessing):
    """The preprocessing of one image in which labels have been marked: their numbers are the last channel.

    numbers: (*spatial) on the image's own grid; 0 for the background, then the labels in their order
    """

    numbers: Array | Deferred = field(default_factory=lambda: np.zeros((), np.uint8))

    @classmethod
    def by(cls, preprocessing: Preprocessing, numbers: Array | Deferred) -> Told:
        """A preprocessing told of one image's labels."""
        return cls(**{one.name: getattr(preprocessing, one.name) for one in fields(Preprocessing)}, numbers=numbers)

    def __call__(self, image: Image, where: str) -> tuple[NDArray[np.float32], Trace]:
        seen, trace = super().__call__(image, where)
        marked = self.labels(np.asarray(self.numbers), trace)
        return np.concatenate([seen, marked[None].astype(np.float32)]), trace

    def opened(self, image: Image, where: str) -> tuple[Source, Trace]:
        seen, trace = super().opened(image, where)
        return (Beside(seen, Marked(self.numbers, trace)) if isinstance(seen, Streamed) else seen), trace


@dataclass(frozen=True, eq=False)
class Beside:
    """(channels + 1, *padded): an image that is made part by part, and the labels beside it."""

    image: Streamed
    labels: Marked

    @property
    def shape(self) -> tuple[int, ...]:
        channels, *spatial = self.image.shape
        return (channels + 1, *spatial)

    def __getitem__(self, region: tuple[slice, ...]) -> NDArray[np.float32]:
        every = (slice(None), *region[1:])
        return np.concatenate([self.image[every], self.labels[region[1:]][None]])[region[0]]


@dataclass(eq=False)
class Marked:
    """(*padded) numbers of labels on the network's grid, part by part, as `Preprocessing.labels` makes all of them."""

    numbers: Array | Deferred
    trace: Trace
    _read: Reader = field(init=False)

    def __post_init__(self) -> None:
        self._read = self.numbers.reader() if isinstance(self.numbers, Deferred) else self.numbers.__getitem__

    def __getitem__(self, region: Region) -> NDArray[np.float32]:
        trace = self.trace
        inner, rows = padded_region(trace, region)
        wanted = list(zip(trace.kept, trace.shape, inner, strict=True))
        source, steps = source_region([label_taps(old, new).part(one) for old, new, one in wanted])
        read = np.asarray(self._read(trace.region(source)))
        if trace.squeezed is not None:
            read = read.squeeze(trace.squeezed)
        made = voted(permuted(read[None], trace.axes, trace.flips)[0], steps).astype(np.float32)
        for axis, (own, size) in enumerate(zip(rows, trace.shape, strict=True)):
            made = made.take(np.clip(own, 0, size - 1) - inner[axis].start, axis)
            beyond = [1] * made.ndim
            beyond[axis] = -1
            made *= ((own >= 0) & (own < size)).reshape(beyond)  # beyond the image nothing is marked
        return made


def numbered(prediction: Prediction, labels: Sequence[Label]) -> Deferred:
    """(*spatial) label values of a result as numbers: 0 for the background, then the labels in their order."""
    values = [0, *(label.value for label in labels)]
    table = np.zeros(max(values) + 1, np.min_scalar_type(len(values)))
    table[values] = range(len(values))
    data = prediction.data
    assert data is not None  # noqa: S101 - a task that cascades has a label map
    return Deferred(tuple(data.shape), table.dtype, partial(_whole, data, table), None, partial(_in_parts, data, table))


def _whole(data: Array | Deferred, table: Array) -> Array:
    return np.asarray(table[np.asarray(data)])


def _in_parts(data: Array | Deferred, table: Array) -> Reader:
    read = data.reader() if isinstance(data, Deferred) else data.__getitem__
    return lambda region: table[np.asarray(read(region))]

"""Sliding windows over an image: cut out, run through the network in batches, and merged by weights.

Only the rows in progress are held.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, islice, product
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from hilum.runtime.preprocessing.protocol import RegionSource, SliceOrder
from hilum.runtime.preprocessing.restore import YIELDED_BYTES
from hilum.values import Array, Merge, Region

# Called with what is done and with all.
Progress = Callable[[int, int], None]


def window_starts(size: int, patch: int, overlap: float, merge: Merge = "gaussian") -> list[int]:
    """The starts of the windows along one axis: evenly spread, at least `overlap` of a window shared with the next.

    MONAI's own ("monai_...") follow each other by whole voxels, and the last is moved back to end with the image.
    """
    if size <= patch:
        return [0]
    if merge.startswith("monai"):
        step = max(int(patch * (1 - overlap)), 1)
        return [*range(0, size - patch, step), size - patch]
    count = int(np.ceil((size - patch) / (patch * (1 - overlap)))) + 1
    # With a small patch and much overlap two may round to the same place: once is enough.
    return cast("list[int]", np.unique(np.linspace(0, size - patch, count).round().astype(int)).tolist())


@lru_cache(maxsize=8)
def window_importance(patch: tuple[int, ...], merge: Merge) -> NDArray[np.float32]:
    """(*patch) weight of each voxel of a window: less at its edge, where the network sees less context.

    Gaussian with a standard deviation of an eighth of the window, as in Isensee et al., Nature Methods 2021,
    doi:10.1038/s41592-020-01008-z; never below 1e-3, so that no voxel is without weight. "nnunet" is that program's
    own: about the voxel past the middle, ten at most, and in float16, whose least positive number is its least.
    """
    return WEIGHTS[merge](patch)


def _even(patch: tuple[int, ...]) -> NDArray[np.float32]:
    return np.ones(patch, dtype=np.float32)


def _gaussian(patch: tuple[int, ...]) -> NDArray[np.float32]:
    return np.maximum(_bell(patch, [(size - 1) / 2 for size in patch]), 1e-3).astype(np.float32)


def _nnunet(patch: tuple[int, ...]) -> NDArray[np.float32]:
    half = (10 * _bell(patch, [size // 2 for size in patch])).astype(np.float16)
    return np.where(half > 0, half, half.min(where=half > 0, initial=np.inf)).astype(np.float32)


def _bell(patch: tuple[int, ...], middle: Sequence[float]) -> NDArray[np.float64]:
    weight = np.ones((), dtype=np.float64)
    for size, centre in zip(patch, middle, strict=True):
        weight = np.multiply.outer(weight, np.exp(-0.5 * ((np.arange(size) - centre) / (size / 8)) ** 2))
    return weight


WEIGHTS: Mapping[Merge, Callable[[tuple[int, ...]], NDArray[np.float32]]] = {
    "gaussian": _gaussian,
    "mean": _even,
    "nnunet": _nnunet,
    "monai_gaussian": _gaussian,
    "monai_constant": _even,
}


@dataclass(frozen=True, eq=False)
class Skipping:
    """Windows that are passed over, and the outputs of what no other window sees.

    sees:    whether a region of the network's grid holds something to see
    outputs: of a head by its name and number of channels, (channels,)
    """

    sees: Callable[[Region], bool]
    outputs: Callable[[str, int], NDArray[np.float32]]


def slide_windows(
    network: Network,
    image: RegionSource,
    patch: Sequence[int],
    *,
    overlap: float = 0.5,
    batch: int = 1,
    merge: Merge = "gaussian",
    progress: Progress | None = None,
    wanted: Region | None = None,
    slice_order: SliceOrder | None = None,
    skipping: Skipping | None = None,
) -> Iterator[tuple[Region, Mapping[str, Array]]]:
    """(channels, *spatial) through the network: finished rows as they become final, in order of the first axis.

    wanted:      part of the image: windows that do not touch it are skipped, and its voxels are the same as without it
    slice_order: the axis along which rows follow each other, and whether backwards
    skipping:    windows that are passed over; of a part without any other one is seen, for the sake of its outputs
    Yields (region, {head: (channels, *region)}) in order; a vector head comes once, last, with an empty region, as
    the mean over windows. An image smaller than the patch is continued beyond its far edges, and cut back. Of
    windows without any contrast, as beside the body, those of one value are run once.
    progress is told how many windows are done, and of how many.
    """
    walk, image_size, patch = slice_order or SliceOrder(), tuple(image.shape[1:]), tuple(patch)
    size = image_size[walk.axis]
    spatial = tuple(max(have, need) for have, need in zip(image_size, patch, strict=True))
    parts = wanted or tuple(slice(0, length) for length in image_size)
    axes = zip(spatial, patch, parts, strict=True)
    grid = walk.order(tuple(_touching(*axis, overlap, merge) for axis in axes))
    if walk.backwards:  # rows are counted from the end of the image itself, before which it may be continued
        grid = ([size - start - patch[walk.axis] for start in reversed(grid[0])], *grid[1:])
    rows, *plane = walk.region(parts, size)
    weight = walk.apply(window_importance(patch, merge)[None])[0]
    sums = Sums(weight, tuple(plane), grid[0][0], rows.start, None if skipping is None else skipping.outputs)
    vectors: dict[str, list[Array]] = {}
    corners: dict[int, list[Corner]] = {row: [] for row in grid[0]}
    for corner in product(*grid):
        window = walk.region_back(_window(corner, walk.order(patch)), size)
        if skipping is None or skipping.sees(window):
            corners[corner[0]].append(corner)
    if not any(corners.values()):
        corners[grid[0][0]].append(next(product(*grid)))
    done, all_windows = 0, sum(map(len, corners.values()))
    following = dict(zip(grid[0], [*grid[0][1:], rows.stop], strict=True))
    ends = tuple((min(axis), max(axis)) for axis in list(zip(*chain(*corners.values()), strict=True))[1:])
    windows = Windows(image, walk, walk.order(patch), ends)
    # A batch may begin in one row and end in the next.
    window_outputs = run_windows(network, windows, chain(*corners.values()), batch)
    for row in grid[0]:
        for corner, outputs in islice(window_outputs, len(corners[row])):
            dense = {name: output for name, output in outputs.items() if output.ndim > 1}
            for name in outputs.keys() - dense.keys():
                vectors.setdefault(name, []).append(outputs[name])
            if dense:
                sums.add(corner, {name: walk.apply(output) for name, output in dense.items()})
            del outputs, dense  # else they are held while the network makes the next
            done += 1
            if progress is not None:
                progress(done, all_windows)
        for region, means in sums.take_finished(min(following[row], rows.stop)):
            yield (
                walk.region_back(region, size),
                {name: walk.undo(mean) for name, mean in means.items()},
            )
        sums.advance(following[row])
    if vectors:
        yield (), {name: np.mean(values, axis=0) for name, values in vectors.items()}


def window_count(
    spatial: Sequence[int],
    patch: Sequence[int],
    overlap: float,
    wanted: Region | None = None,
    merge: Merge = "gaussian",
    skipping: Skipping | None = None,
) -> int:
    """The number of windows that `slide_windows` sees of an image of this shape."""
    parts = wanted or tuple(slice(0, size) for size in spatial)
    axes = zip(spatial, patch, parts, strict=True)
    grid = [_touching(max(size, n), n, part, overlap, merge) for size, n, part in axes]
    if skipping is None:
        return math.prod(map(len, grid))
    return max(1, sum(skipping.sees(_window(corner, patch)) for corner in product(*grid)))


def _window(corner: Sequence[int], patch: Sequence[int]) -> Region:
    return tuple(slice(start, start + n) for start, n in zip(corner, patch, strict=True))


def part_of_windows(spatial: Sequence[int], patch: Sequence[int], overlap: float, most: int) -> tuple[int, ...]:
    """Voxels per axis of a part with so many windows at most, about as many along each axis."""
    counts, shape = [1] * len(patch), tuple(map(min, spatial, patch))
    while True:
        room = [n / size for n, size in zip(spatial, shape, strict=True)]
        counts[room.index(max(room))] += 1
        if max(room) <= 1 or math.prod(counts) > most:
            return shape
        longer = (math.ceil(n * (1 + (count - 1) * (1 - overlap))) for n, count in zip(patch, counts, strict=True))
        shape = tuple(map(min, spatial, longer))


def _touching(size: int, patch: int, part: slice, overlap: float, merge: Merge) -> list[int]:
    """The places where the windows of one axis begin that have something of a part."""
    return [
        start
        for start in window_starts(size, patch, overlap, merge)
        if start < part.stop and start + patch > part.start
    ]


# (batch, channels, *patch), and where it is told something (batch, entries), to {head: (batch, channels, *patch) or
# (batch, size)}
Network = Callable[..., Mapping[str, NDArray[np.float32]]]


class BagNetwork(Protocol):
    """A network of bags, whose tiles and whose features may be given apart."""

    def encoded(self, tiles: NDArray[np.float32]) -> tuple[Array, ...]:
        """Features of tiles, (tiles, features), of each network."""

    def pooled(self, features: Sequence[Array], places: NDArray[np.int64]) -> Mapping[str, Array]:
        """The answer of a bag, of features (tiles, features) of each network and their places."""


# The row, column, ... at which a window begins, in the order of the walk.
Corner = tuple[int, ...]

# Windows of one value that are remembered: beside a body there is one, and perhaps a second where a file was padded.
REMEMBERED = 4


@dataclass(eq=False)
class Windows:
    """Cuts windows, row after row; of a source that is no array only the rows of one window are held.

    patch: in the order of the walk, as are all corners
    ends:  where the first and the last window begin along each axis but the one that is walked
    """

    image: RegionSource
    slice_order: SliceOrder
    patch: tuple[int, ...]
    ends: tuple[tuple[int, int], ...]
    _row: int | None = None
    _slab: Array = field(default_factory=lambda: np.empty(0))
    _held: tuple[int, Array] | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Voxels per axis of the image, in slice order."""
        return self.slice_order.order(tuple(self.image.shape[1:]))

    def cut_window(self, corner: Corner) -> Array:
        """(channels, *patch) as the network sees it."""
        if corner[0] != self._row:
            self._row, self._slab = corner[0], self._continue_edges(corner[0])
        starts = [start - low for start, (low, _) in zip(corner[1:], self.ends, strict=True)]
        inside = [slice(start, start + n) for start, n in zip(starts, self.patch[1:], strict=True)]
        return self.slice_order.undo(self._slab[(slice(None), slice(None), *inside)])

    def _continue_edges(self, row: int) -> Array:
        """The rows of the windows that begin here; where the image is smaller than a window its edge goes on."""
        low, high = max(row, 0), min(row + self.patch[0], self.sizes[0])
        beyond = [(low - row, row + self.patch[0] - high)]
        beyond += [(0, max(0, n - size)) for n, size in zip(self.patch[1:], self.sizes[1:], strict=True)]
        rows = self._rows(low, high)
        return np.pad(rows, [(0, 0), *beyond], mode="edge") if np.any(beyond) else rows

    def _rows(self, low: int, high: int) -> Array:
        """Rows of the image, in the order of the walk; those that the last windows had are not made again."""
        if isinstance(self.image, np.ndarray):
            return self.slice_order.apply(self.image)[(slice(None), slice(low, high), *self._plane)]
        first, held = self._held or (low, None)
        overlap = held[:, low - first :] if held is not None and first <= low < first + held.shape[1] else None
        start = low if overlap is None else low + overlap.shape[1]
        part = self.slice_order.region_back((slice(start, high), *self._plane), self.sizes[0])
        new = self.slice_order.apply(self.image[(slice(None), *part)])
        self._held = (low, new if overlap is None else np.concatenate([overlap, new], axis=1))
        return self._held[1]

    @property
    def _plane(self) -> Region:
        axes = zip(self.ends, self.patch[1:], self.sizes[1:], strict=True)
        return tuple(slice(first, min(last + n, size)) for (first, last), n, size in axes)


def run_windows(
    network: Network, windows: Windows, corners: Iterable[Corner], batch: int
) -> Iterator[tuple[Corner, Mapping[str, Array]]]:
    """Outputs of the network for the windows at these corners, in their order."""
    alike: dict[bytes | None, Mapping[str, Array]] = {}  # what it says of windows of one value
    waiting: list[tuple[Corner, int | Mapping[str, Array]]] = []  # for a place in the batch, or for their turn
    cut: list[Array] = []
    fresh: dict[bytes, int] = {}
    for corner in corners:
        window = windows.cut_window(corner)
        value = _one_value(window)
        if value in alike:
            waiting.append((corner, alike[value]))
        else:
            index = len(cut) if value is None else fresh.setdefault(value, len(cut))
            waiting.append((corner, index))
            if index == len(cut):
                cut.append(window)
        if not cut or len(cut) == batch:
            yield from _run_batch(network, cut, waiting, fresh, alike)
    yield from _run_batch(network, cut, waiting, fresh, alike)


def _run_batch(
    network: Network,
    cut: list[Array],
    waiting: list[tuple[Corner, int | Mapping[str, Array]]],
    fresh: dict[bytes, int],
    alike: dict[bytes | None, Mapping[str, Array]],
) -> Iterator[tuple[Corner, Mapping[str, Array]]]:
    """Run the batch and tell of all that waited for it; what is of one value is remembered."""
    outputs = network(np.ascontiguousarray(np.stack(cut))) if cut else {}
    of_windows = [{name: output[n] for name, output in outputs.items()} for n in range(len(cut))]
    for value, index in list(fresh.items())[: REMEMBERED - len(alike)]:
        alike[value] = {name: output.copy() for name, output in of_windows[index].items()}
    for corner, output in waiting:
        yield corner, of_windows[output] if isinstance(output, int) else output
    for held in (cut, waiting, fresh):
        held.clear()


def _one_value(window: Array) -> bytes | None:
    """The value of each channel where it has but one; None where there is something to see."""
    first = window[(slice(None), *(slice(1) for _ in window.shape[1:]))]
    last = window[(slice(None), *(slice(-1, None) for _ in window.shape[1:]))]
    return first.tobytes() if (first == last).all() and (window == first).all() else None


@dataclass(eq=False)
class Sums:
    """The rows [first, first + len(weight)) of a part of a plane, for each dense head.

    weight: (rows, *plane) of each voxel of a window
    plane:  the part of the other axes that is wanted
    first:  row at which what is held begins
    handed: row up to which means have been handed on
    unseen: outputs of a head where no window lay; None where all of them are added
    """

    weight: NDArray[np.float32]
    plane: Region
    first: int
    handed: int
    unseen: Callable[[str, int], NDArray[np.float32]] | None = None
    heads: dict[str, Array] = field(default_factory=dict)
    weights: NDArray[np.float32] = field(init=False)
    _scratch: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        # All in the order of memory in which windows come, whatever axis is walked: a quarter of the time.
        self.weights = np.zeros_like(self.weight, shape=self._shape)
        self._scratch = np.empty_like(self.weight)

    @property
    def _shape(self) -> tuple[int, ...]:
        return (len(self.weight), *(part.stop - part.start for part in self.plane))

    def add(self, corner: tuple[int, ...], outputs: Mapping[str, Array]) -> None:
        """Add the outputs of a network for the window at this corner, {head: (channels, *window)}."""
        rows, inside = self._places(corner)
        self.weights[rows] += self.weight[inside]
        for name, output in outputs.items():
            if name not in self.heads:
                shape = (len(output), *self._shape)
                self.heads[name] = np.zeros_like(output, dtype=np.float32, shape=shape)
            for held, channel in zip(self.heads[name], output, strict=True):
                # Into memory that is in the cache already: half the time of a product of its own.
                np.multiply(channel, self.weight, out=self._scratch)
                held[rows] += self._scratch[inside]

    def _places(self, corner: tuple[int, ...]) -> tuple[Region, Region]:
        """Places of a window in what is held, and the part of it that lies there."""
        rows, inside = [slice(None)], [slice(None)]  # the rows are the window's own
        for start, size, part in zip(corner[1:], self.weight.shape[1:], self.plane, strict=True):
            low, high = max(start, part.start), min(start + size, part.stop)
            rows.append(slice(low - part.start, high - part.start))
            inside.append(slice(low - start, high - start))
        return tuple(rows), tuple(inside)

    def take_finished(self, until: int) -> Iterator[tuple[Region, Mapping[str, Array]]]:
        """The means of rows that receive no more windows, a few at a time; none of a network without dense heads."""
        if not self.heads:
            return
        channels = sum(len(held) for held in self.heads.values())
        rows = max(1, YIELDED_BYTES // (4 * channels * math.prod(self._shape[1:])))
        while self.handed < until:
            end = min(self.handed + rows, until)
            if self.handed < self.first:  # let go before the first window was seen
                end = min(end, self.first)
            yield (slice(self.handed, end), *self.plane), self._means(self.handed, end)
            self.handed = end

    def _means(self, start: int, stop: int) -> dict[str, Array]:
        rows = slice(start - self.first, stop - self.first)
        if self.unseen is None:
            return {name: held[:, rows] / self.weights[rows] for name, held in self.heads.items()}
        weights = self.weights[rows] if start >= self.first else np.zeros((stop - start, *self._shape[1:]), np.float32)
        is_empty, means = weights == 0, {}
        for name, held in self.heads.items():
            values = self.unseen(name, len(held)).reshape(-1, *[1] * weights.ndim)
            sums = held[:, rows] if start >= self.first else np.zeros((1, *weights.shape), np.float32)
            means[name] = np.where(is_empty, values, sums / np.where(is_empty, 1, weights))
        return means

    def advance(self, first: int) -> None:
        """Let go the rows before `first`."""
        gone = min(first - self.first, len(self.weight))
        left = len(self.weight) - gone
        for held in (self.weights, *(channel for head in self.heads.values() for channel in head)):
            held[:left] = held[gone:].copy()
            held[left:] = 0
        self.first = first

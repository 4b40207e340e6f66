"""Windows cut out of an image, and the network's outputs for them, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from isocenter.runtime.preprocessing import SliceOrder, Source
from isocenter.values import Array, Region

# (batch, channels, *patch), and where it is told something (batch, entries), to {head: (batch, channels, *patch) or
# (batch, size)}
Network = Callable[..., Mapping[str, NDArray[np.float32]]]
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

    image: Source
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

    def cut(self, corner: Corner) -> Array:
        """(channels, *patch) as the network sees it."""
        if corner[0] != self._row:
            self._row, self._slab = corner[0], self._continued(corner[0])
        starts = [start - low for start, (low, _) in zip(corner[1:], self.ends, strict=True)]
        inside = [slice(start, start + n) for start, n in zip(starts, self.patch[1:], strict=True)]
        return self.slice_order.restored(self._slab[(slice(None), slice(None), *inside)])

    def _continued(self, row: int) -> Array:
        """The rows of the windows that begin here; where the image is smaller than a window its edge goes on."""
        low, high = max(row, 0), min(row + self.patch[0], self.sizes[0])
        beyond = [(low - row, row + self.patch[0] - high)]
        beyond += [(0, max(0, n - size)) for n, size in zip(self.patch[1:], self.sizes[1:], strict=True)]
        rows = self._rows(low, high)
        return np.pad(rows, [(0, 0), *beyond], mode="edge") if np.any(beyond) else rows

    def _rows(self, low: int, high: int) -> Array:
        """Rows of the image, in the order of the walk; those that the last windows had are not made again."""
        if isinstance(self.image, np.ndarray):
            return self.slice_order.ordered(self.image)[(slice(None), slice(low, high), *self._plane)]
        first, held = self._held or (low, None)
        known = held[:, low - first :] if held is not None and first <= low < first + held.shape[1] else None
        start = low if known is None else low + known.shape[1]
        part = self.slice_order.region_back((slice(start, high), *self._plane), self.sizes[0])
        new = self.slice_order.ordered(self.image[(slice(None), *part)])
        self._held = (low, new if known is None else np.concatenate([known, new], axis=1))
        return self._held[1]

    @property
    def _plane(self) -> Region:
        axes = zip(self.ends, self.patch[1:], self.sizes[1:], strict=True)
        return tuple(slice(first, min(last + n, size)) for (first, last), n, size in axes)


def run(
    network: Network, windows: Windows, corners: Iterable[Corner], batch: int
) -> Iterator[tuple[Corner, Mapping[str, Array]]]:
    """What the network says of the windows at these corners, in their order."""
    alike: dict[bytes | None, Mapping[str, Array]] = {}  # what it says of windows of one value
    waiting: list[tuple[Corner, int | Mapping[str, Array]]] = []  # for a place in the batch, or for their turn
    cut: list[Array] = []
    fresh: dict[bytes, int] = {}
    for corner in corners:
        window = windows.cut(corner)
        value = _one_value(window)
        if value in alike:
            waiting.append((corner, alike[value]))
        else:
            place = len(cut) if value is None else fresh.setdefault(value, len(cut))
            waiting.append((corner, place))
            if place == len(cut):
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
    each = [{name: output[n] for name, output in outputs.items()} for n in range(len(cut))]
    for value, place in list(fresh.items())[: REMEMBERED - len(alike)]:
        alike[value] = {name: output.copy() for name, output in each[place].items()}
    for corner, output in waiting:
        yield corner, each[output] if isinstance(output, int) else output
    for held in (cut, waiting, fresh):
        held.clear()


def _one_value(window: Array) -> bytes | None:
    """The value of each channel where it has but one; None where there is something to see."""
    first = window[(slice(None), *(slice(1) for _ in window.shape[1:]))]
    last = window[(slice(None), *(slice(-1, None) for _ in window.shape[1:]))]
    return first.tobytes() if (first == last).all() and (window == first).all() else None

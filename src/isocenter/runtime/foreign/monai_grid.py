"""The grid after a bundle's transforms, axis by axis: undone a few rows at a time, and made region by region.

MONAI makes and undoes its transforms for whole images only: of each it notes what it did, and those notes are followed
here. Cropping, padding, turning and linear resampling along the image's own axes are the same region by region.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isocenter.runtime.preprocessing.image_statistics import BLOCK_VOXELS
from isocenter.runtime.preprocessing.streamed import source_region
from isocenter.runtime.preprocessing.trace import SliceOrder, Trace
from isocenter.transforms import Stretched, Taps, growing, permuted
from isocenter.values import Floats, Geometry, Image, Reader, Region

# Voxels by which an axis may lean over the whole image: NIfTI keeps directions in float32.
LEAN = 1e-3
# What MONAI takes for no change of a grid (`AFFINE_TOL`).
UNCHANGED = 1e-3
# Rows with a smaller share of an image lie beyond it, but for rounding.
LEAST = 1e-7


@dataclass(frozen=True, eq=False)
class Change:
    """The change that one transform makes of the grid.

    axes:  of the grid before, in the order in which they come then
    flips: which of them it turns round
    steps: how rows become others after that; None along an axis that stays
    """

    axes: tuple[int, ...]
    flips: tuple[bool, ...]
    steps: tuple[Taps | None, ...]


def changes(
    operations: Sequence[Mapping[str, Any]],
    affine: Floats,
    shape: Sequence[int],
    pad: Sequence[tuple[int, int]],
    source: Geometry,
) -> tuple[Trace, list[Change]] | None:
    """Changes from the network's grid back to the source's, each on the way there; the padding is the last.

    operations: MONAI's notes of the transforms, in the order in which they were applied
    affine:     after them
    shape:      after them, and before `pad` is added
    None where one of them is not a change along each axis.
    """
    ndim = source.ndim
    padded = [low + size + high for (low, high), size in zip(pad, shape, strict=True)]
    steps = [Taps(np.arange(size)[:, None], np.ones((size, 1))) for size in padded]
    path = _Path(steps, list(range(ndim)), [False] * ndim, _square(affine, ndim))
    made = [_shifted(path, [-low for low, _ in pad], shape)]
    path.affine = _square(affine, ndim)
    for operation in reversed(single(operations)):
        change = _undone(path, operation)
        if change is None:
            return None
        made.append(change)
    if tuple(len(step.index) for step in path.steps) != source.shape:
        return None
    spacing = tuple(np.linalg.norm(_square(affine, ndim)[:-1, :-1], axis=0).tolist())
    trace = _trace(path, padded, source, spacing)
    return None if trace is None else (trace, made[::-1])


@dataclass(eq=False)
class _Path:
    """The part of a way back that is gone: for each axis of the grid there, how its rows are made of the network's.

    axes:   of the network's grid, by which each of them goes
    flips:  whether it goes against it
    affine: of the grid there
    """

    steps: list[Taps]
    axes: list[int]
    flips: list[bool]
    affine: Floats


def _square(affine: Any, ndim: int) -> Floats:
    """(ndim + 1, ndim + 1), of a matrix that may have more axes."""
    given, square = np.asarray(affine, dtype=np.float64), np.eye(ndim + 1)
    square[:ndim, :ndim], square[:ndim, ndim] = given[:ndim, :ndim], given[:ndim, -1]
    return square


def single(operations: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Notes of which each is of one change: MONAI keeps a crop and the padding after it in one."""
    notes = []
    for operation in operations:
        done = operation["extra_info"]
        notes += [done.get("crop_info", operation), *([done["pad_info"]] if "pad_info" in done else [])]
    return notes


def _undone(path: _Path, operation: Mapping[str, Any]) -> Change | None:
    """Go one change back; None where that cannot be done axis by axis."""
    done, size = operation["extra_info"], [int(length) for length in operation["orig_size"]]
    match operation["class"]:
        case "Orientation":
            return _turned(path, _square(done["original_affine"], len(size)))
        case "SpatialResample" if done["mode"] == "bilinear" and done["padding_mode"] == "border":
            return _resampled(path, _square(done["src_affine"], len(size)), size)
        case _ if "cropped" in done:
            return _shifted(path, done["cropped"][::2], size)
        case _ if "padded" in done and not any(done["padded"][0]):
            return _shifted(path, [-low for low, _ in done["padded"][1:]], size)
        case _:
            return None


def _turned(path: _Path, before: Floats) -> Change:
    turn = np.linalg.solve(before, path.affine)[:-1, :-1]
    became = np.abs(turn).argmax(axis=1).tolist()  # for each axis before, the one that it is then
    against = [bool(turn[own, axis] < 0) for own, axis in enumerate(became)]
    path.axes = [path.axes[axis] for axis in became]
    path.flips = [path.flips[axis] != flip for axis, flip in zip(became, against, strict=True)]
    order = [slice(None, None, -1 if flip else 1) for flip in against]
    path.steps = [path.steps[axis].part(rows) for axis, rows in zip(became, order, strict=True)]
    path.affine = before
    axes = np.argsort(became).tolist()
    return Change(tuple(axes), tuple(against[axis] for axis in axes), (None,) * len(axes))


def _resampled(path: _Path, before: Floats, size: Sequence[int]) -> Change | None:
    """Linear, and beyond its edge the image goes on."""
    place, now = np.linalg.solve(path.affine, before), [len(step.index) for step in path.steps]
    lean = np.abs(place[:-1, :-1] - np.diag(np.diag(place)[:-1])) @ np.asarray(size, dtype=float)
    if lean.max() > LEAN:
        return None
    path.affine = before
    if now == list(size) and np.allclose(place, np.eye(len(place)), atol=UNCHANGED):
        return _stayed([None] * len(size))
    steps: list[Taps | None] = []
    for axis, (old, new) in enumerate(zip(now, size, strict=True)):
        scale, offset = place[axis, axis], place[axis, -1]
        path.steps[axis] = _after(path.steps[axis], _linear(scale * np.arange(new) + offset, old))
        steps.append(_linear((np.arange(old) - offset) / scale, new))
    return _stayed(steps)


def _linear(position: Floats, size: int) -> Taps:
    position = np.clip(position, 0, size - 1)
    below = np.floor(position).astype(np.intp)
    share = position - below
    return Taps(np.stack([below, np.minimum(below + 1, size - 1)], axis=1), np.stack([1 - share, share], axis=1))


def _shifted(path: _Path, lows: Sequence[int], size: Sequence[int]) -> Change:
    """Cropped from `lows` on, of which the rest becomes 0; from below 0 on where it was padded."""
    steps: list[Taps | None] = []
    for axis, (low, new) in enumerate(zip(lows, size, strict=True)):
        old = len(path.steps[axis].index)
        path.steps[axis] = _after(path.steps[axis], _rows(-low, new, old))
        steps.append(None if old == new and not low else _rows(low, old, new))
    moved = np.eye(len(size) + 1)
    moved[:-1, -1] = [-low for low in lows]
    path.affine = path.affine @ moved
    return _stayed(steps)


def _rows(low: int, count: int, size: int) -> Taps:
    """Taps of so many rows from `low` on, of an axis of this size; 0 beyond it."""
    rows = np.arange(low, low + count)
    inside = (rows >= 0) & (rows < size)
    return Taps(np.clip(rows, 0, size - 1)[:, None], inside[:, None].astype(np.float64))


def _stayed(steps: Sequence[Taps | None]) -> Change:
    """A change without a turn."""
    return Change(tuple(range(len(steps))), (False,) * len(steps), tuple(steps))


def _after(first: Taps, second: Taps) -> Taps:
    """Both steps as one."""
    weight = first.weight[second.index] * second.weight[..., None]
    return Taps(first.index[second.index].reshape(len(weight), -1), weight.reshape(len(weight), -1))


def _trace(path: _Path, padded: Sequence[int], source: Geometry, spacing: tuple[float, ...]) -> Trace | None:
    """The trace in the order of the network's axes; what no row of the network's grid takes part in is cut away."""
    order = [path.axes.index(axis) for axis in range(source.ndim)]
    crop, shape, pad, back = [], [], [], []
    for own, size in zip(order, padded, strict=True):
        step = path.steps[own].part(slice(None, None, -1 if path.flips[own] else 1))
        used = np.flatnonzero(step.weight.sum(axis=1) > LEAST)
        if not len(used):
            return None
        crop.append(slice(int(used[0]), int(used[-1]) + 1))
        step = step.part(crop[-1])
        stays = _stays(step)
        first, last = (int(step.index[0, 0]), int(step.index[-1, 0])) if stays else (0, size - 1)
        pad.append((first, size - 1 - last))
        shape.append(last - first + 1)
        back.append(None if stays else step)
    flips = tuple(path.flips[own] for own in order)
    return Trace(source, None, tuple(order), flips, tuple(crop), tuple(shape), tuple(pad), spacing, tuple(back))


def _stays(step: Taps) -> bool:
    """Whether rows are only counted from another one on."""
    index: NDArray[np.intp] = step.index
    return index.shape[1] == 1 and bool((np.diff(index[:, 0]) == 1).all() and (step.weight == 1).all())


@dataclass(eq=False)
class Regions:
    """(channels, *padded) as the network of a bundle sees a large volume, each region made when it is asked for.

    walk:  the order in which the file gives its slices
    steps: changes of the grid, and functions of intensities alone, in the order of the bundle
    """

    image: Image
    shape: tuple[int, ...]
    walk: SliceOrder
    steps: Sequence[Change | Callable[[NDArray[np.float32]], NDArray[np.float32]]]
    _read: Reader = field(init=False)

    def __post_init__(self) -> None:
        self._read = self.image.reader()

    def __getitem__(self, region: tuple[slice, ...]) -> NDArray[np.float32]:
        axes = zip(region[1:], self.shape[1:], strict=True)
        wanted = [slice(*part.indices(size)[:2]) for part, size in axes]
        sizes, axis = [part.stop - part.start for part in wanted], self.walk.axis
        made = np.empty((self.shape[0], *sizes), dtype=np.float32)
        # A voxel of a coarser grid is made of many, in double precision: a few rows at a time.
        finer = math.prod(self.image.geometry.shape) / math.prod(self.shape[1:])
        count = max(1, int(BLOCK_VOXELS / (finer * math.prod(sizes) / sizes[axis])))
        starts = range(wanted[axis].start, wanted[axis].stop, count)
        for start in reversed(starts) if self.walk.backwards else starts:
            rows = slice(start, min(start + count, wanted[axis].stop))
            inside = [slice(None)] * (axis + 1) + [slice(rows.start - starts.start, rows.stop - starts.start)]
            made[tuple(inside)] = self._after(len(self.steps), (*wanted[:axis], rows, *wanted[axis + 1 :]))
        return made[region[0]]

    def _after(self, count: int, region: Region) -> NDArray[np.float32]:
        """(channels, *region) after so many steps."""
        if not count:
            return np.asarray(self._read((slice(None), *region)), dtype=np.float32)
        step = self.steps[count - 1]
        if not isinstance(step, Change):
            return step(self._after(count - 1, region))
        parts = [None if taps is None else taps.part(part) for taps, part in zip(step.steps, region, strict=True)]
        near, counted = [], []
        for part, taps in zip(region, parts, strict=True):
            [own], [from_there] = ((part,), (None,)) if taps is None else source_region([taps])
            near.append(own)
            counted.append(from_there)
        before: list[slice] = [slice(0)] * len(near)
        sizes = self._sizes(count - 1)
        for own, axis, flip in zip(near, step.axes, step.flips, strict=True):
            before[axis] = slice(sizes[axis] - own.stop, sizes[axis] - own.start) if flip else own
        made = permuted(self._after(count - 1, tuple(before)), step.axes, step.flips)
        order = growing([(a.stop - a.start, b.stop - b.start) for a, b in zip(near, region, strict=True)])
        return np.asarray(Stretched(made, tuple(counted), order))

    def _sizes(self, count: int) -> tuple[int, ...]:
        """Voxels along each axis after so many steps."""
        sizes = self.image.geometry.shape
        for step in self.steps[:count]:
            if isinstance(step, Change):
                moved = [sizes[axis] for axis in step.axes]
                sizes = tuple(n if taps is None else len(taps.index) for n, taps in zip(moved, step.steps, strict=True))
        return sizes

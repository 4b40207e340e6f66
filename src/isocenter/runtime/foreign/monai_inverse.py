"""The transforms of a bundle undone axis by axis, so that outputs go back a few rows at a time.

MONAI undoes its transforms for whole images only: of each it notes what it did, and those notes are followed here.
Cropping, padding, turning and linear resampling along the image's own axes are the same row by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isocenter.runtime.preprocessing import Trace
from isocenter.transforms import Taps
from isocenter.values import Floats, Geometry

# Voxels by which an axis may lean over the whole image: NIfTI keeps directions in float32.
LEAN = 1e-3
# What MONAI takes for no change of a grid (`AFFINE_TOL`).
UNCHANGED = 1e-3
# Rows with a smaller share of an image lie beyond it, but for rounding.
LEAST = 1e-7


def way_back(
    operations: Sequence[Mapping[str, Any]],
    affine: Floats,
    shape: Sequence[int],
    pad: Sequence[tuple[int, int]],
    source: Geometry,
) -> Trace | None:
    """From the network's grid back to the source's; None where that is not one way along each axis.

    operations: MONAI's notes of the transforms, in the order in which they were applied
    affine:     after them
    shape:      after them, and before `pad` is added
    """
    ndim = source.ndim
    steps = [_kept(low, size) for (low, _), size in zip(pad, shape, strict=True)]
    way = _Way(steps, list(range(ndim)), [False] * ndim, _square(affine, ndim))
    for operation in reversed(list(_single(operations))):
        if not _undo(way, operation):
            return None
    if tuple(len(step.index) for step in way.steps) != source.shape:
        return None
    padded = [low + size + high for (low, high), size in zip(pad, shape, strict=True)]
    return _trace(way, padded, source, tuple(np.linalg.norm(_square(affine, ndim)[:-1, :-1], axis=0).tolist()))


@dataclass(eq=False)
class _Way:
    """How far a way back has come: for each axis of the grid there, how its rows are made of the network's.

    axes:   of the network's grid, by which each of them goes
    flips:  whether it goes against it
    affine: of the grid there
    """

    steps: list[Taps]
    axes: list[int]
    flips: list[bool]
    affine: Floats


def _kept(low: int, size: int) -> Taps:
    """Rows from `low` on, as they are."""
    return Taps(np.arange(low, low + size)[:, None], np.ones((size, 1)))


def _square(affine: Any, ndim: int) -> Floats:
    """(ndim + 1, ndim + 1), of a matrix that may have more axes."""
    given, square = np.asarray(affine, dtype=np.float64), np.eye(ndim + 1)
    square[:ndim, :ndim], square[:ndim, ndim] = given[:ndim, :ndim], given[:ndim, -1]
    return square


def _single(operations: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Notes of which each is of one change: MONAI keeps a crop and the padding after it in one."""
    for operation in operations:
        done = operation["extra_info"]
        yield done.get("crop_info", operation)
        if "pad_info" in done:
            yield done["pad_info"]


def _undo(way: _Way, operation: Mapping[str, Any]) -> bool:
    """Go one change back, or say that it cannot be done axis by axis."""
    done, size = operation["extra_info"], [int(length) for length in operation["orig_size"]]
    match operation["class"]:
        case "Orientation":
            return _turned(way, _square(done["original_affine"], len(size)))
        case "SpatialResample" if done["mode"] == "bilinear" and done["padding_mode"] == "border":
            return _resampled(way, _square(done["src_affine"], len(size)), size)
        case _ if "cropped" in done:
            lows = done["cropped"][::2]
            _shifted(way, lows, size)
        case _ if "padded" in done and not any(done["padded"][0]):
            lows = [-low for low, _ in done["padded"][1:]]
            _shifted(way, lows, size)
        case _:
            return False
    return True


def _turned(way: _Way, before: Floats) -> bool:
    turn = np.linalg.solve(before, way.affine)[:-1, :-1]
    from_axes = np.abs(turn).argmax(axis=1)  # for each axis before, the one that it became
    way.axes = [way.axes[axis] for axis in from_axes]
    against = [bool(turn[own, axis] < 0) for own, axis in enumerate(from_axes)]
    way.flips = [way.flips[axis] != flip for axis, flip in zip(from_axes, against, strict=True)]
    way.steps = [
        way.steps[axis].part(slice(None, None, -1 if flip else 1))
        for axis, flip in zip(from_axes, against, strict=True)
    ]
    way.affine = before
    return True


def _resampled(way: _Way, before: Floats, size: Sequence[int]) -> bool:
    """Linear, and beyond its edge the image goes on."""
    place = np.linalg.solve(way.affine, before)
    lean = np.abs(place[:-1, :-1] - np.diag(np.diag(place)[:-1])) @ np.asarray(size, dtype=float)
    if lean.max() > LEAN:
        return False
    stays = [len(step.index) for step in way.steps] == list(size)
    if not stays or not np.allclose(place, np.eye(len(place)), atol=UNCHANGED):
        for axis, (step, new) in enumerate(zip(way.steps, size, strict=True)):
            last = len(step.index) - 1
            position = np.clip(place[axis, axis] * np.arange(new) + place[axis, -1], 0, last)
            below = np.floor(position).astype(np.intp)
            index = np.stack([below, np.minimum(below + 1, last)], axis=1)
            share = position - below
            way.steps[axis] = _after(step, Taps(index, np.stack([1 - share, share], axis=1)))
    way.affine = before
    return True


def _shifted(way: _Way, lows: Sequence[int], size: Sequence[int]) -> None:
    """Cropped from `lows` on, of which the rest becomes 0; from below 0 on where it was padded."""
    for axis, (low, step, new) in enumerate(zip(lows, way.steps, size, strict=True)):
        rows = np.arange(new) - low
        inside = (rows >= 0) & (rows < len(step.index))
        taps = Taps(np.clip(rows, 0, len(step.index) - 1)[:, None], inside[:, None].astype(np.float64))
        way.steps[axis] = _after(step, taps)
    moved = np.eye(len(size) + 1)
    moved[:-1, -1] = [-low for low in lows]
    way.affine = way.affine @ moved


def _after(first: Taps, second: Taps) -> Taps:
    """Both steps as one."""
    weight = first.weight[second.index] * second.weight[..., None]
    return Taps(first.index[second.index].reshape(len(weight), -1), weight.reshape(len(weight), -1))


def _trace(way: _Way, padded: Sequence[int], source: Geometry, spacing: tuple[float, ...]) -> Trace | None:
    """In the order of the network's axes; what no row of the network's grid takes part in is cut away."""
    order = [way.axes.index(axis) for axis in range(source.ndim)]
    crop, shape, pad, back = [], [], [], []
    for own, size in zip(order, padded, strict=True):
        step = way.steps[own].part(slice(None, None, -1 if way.flips[own] else 1))
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
    flips = tuple(way.flips[own] for own in order)
    return Trace(source, None, tuple(order), flips, tuple(crop), tuple(shape), tuple(pad), spacing, tuple(back))


def _stays(step: Taps) -> bool:
    """Whether rows are only counted from another one on."""
    index: NDArray[np.intp] = step.index
    return index.shape[1] == 1 and bool((np.diff(index[:, 0]) == 1).all() and (step.weight == 1).all())

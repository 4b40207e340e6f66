"""Sliding windows over an image, merged by weights, of which only the rows in progress are held."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice, product

import numpy as np
from numpy.typing import NDArray

from isocenter.runtime.preprocessing import SliceOrder, Source
from isocenter.runtime.windows.batches import Network as Network  # noqa: PLC0414 - known by this name from here
from isocenter.runtime.windows.batches import Windows, run
from isocenter.runtime.windows.sums import Sums
from isocenter.values import Array, Merge, Region

# Called with what is done and with all.
Progress = Callable[[int, int], None]


def starts(size: int, patch: int, overlap: float, merge: Merge = "gaussian") -> list[int]:
    """Where the windows of one axis begin: evenly spread, at least `overlap` of a window shared with the next.

    MONAI's own ("monai_...") follow each other by whole voxels, and the last is moved back to end with the image.
    """
    if size <= patch:
        return [0]
    if merge.startswith("monai"):
        step = max(int(patch * (1 - overlap)), 1)
        return [*range(0, size - patch, step), size - patch]
    count = int(np.ceil((size - patch) / (patch * (1 - overlap)))) + 1
    # With a small patch and much overlap two may round to the same place: once is enough.
    return np.unique(np.linspace(0, size - patch, count).round().astype(int)).tolist()


@lru_cache(maxsize=8)
def importance(patch: tuple[int, ...], merge: Merge) -> NDArray[np.float32]:
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


def slide(
    network: Network,
    image: Source,
    patch: Sequence[int],
    *,
    overlap: float = 0.5,
    batch: int = 1,
    merge: Merge = "gaussian",
    progress: Progress | None = None,
    wanted: Region | None = None,
    slice_order: SliceOrder | None = None,
) -> Iterator[tuple[Region, Mapping[str, Array]]]:
    """(channels, *spatial) through the network: finished rows as they become final, in order of the first axis.

    wanted:      part of the image: windows that do not touch it are skipped, and its voxels are the same as without it
    slice_order: the axis along which rows follow each other, and whether backwards
    Yields (region, {head: (channels, *region)}) in order; a vector head comes once, last, with an empty region, as
    the mean over windows. An image smaller than the patch is continued beyond its far edges, and cut back. Of
    windows without any contrast, as beside the body, those of one value are run once.
    progress is told how many windows are done, and of how many.
    """
    walk, own, patch = slice_order or SliceOrder(), tuple(image.shape[1:]), tuple(patch)
    size = own[walk.axis]
    spatial = tuple(max(have, need) for have, need in zip(own, patch, strict=True))
    parts = wanted or tuple(slice(0, length) for length in own)
    axes = zip(spatial, patch, parts, strict=True)
    grid = walk.order(tuple(_touching(*axis, overlap, merge) for axis in axes))
    if walk.backwards:  # rows are counted from the end of the image itself, before which it may be continued
        grid = ([size - start - patch[walk.axis] for start in reversed(grid[0])], *grid[1:])
    rows, *plane = walk.region(parts, size)
    sums = Sums(walk.ordered(importance(patch, merge)[None])[0], tuple(plane), grid[0][0], rows.start)
    vectors: dict[str, list[Array]] = {}
    done, all_windows = 0, math.prod(len(axis) for axis in grid)
    following = dict(zip(grid[0], [*grid[0][1:], rows.stop], strict=True))
    windows = Windows(image, walk, walk.order(patch), tuple((axis[0], axis[-1]) for axis in grid[1:]))
    seen = run(network, windows, product(*grid), batch)  # a batch may begin in one row and end in the next
    for row in grid[0]:
        for corner, outputs in islice(seen, all_windows // len(grid[0])):
            dense = {name: output for name, output in outputs.items() if output.ndim > 1}
            for name in outputs.keys() - dense.keys():
                vectors.setdefault(name, []).append(outputs[name])
            if dense:
                sums.add(corner, {name: walk.ordered(output) for name, output in dense.items()})
            del outputs, dense  # else they are held while the network makes the next
            done += 1
            if progress is not None:
                progress(done, all_windows)
        for region, means in sums.finished(min(following[row], rows.stop)):
            yield (
                walk.region_back(region, size),
                {name: walk.restored(mean) for name, mean in means.items()},
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
) -> int:
    """How many windows `slide` sees of an image of this shape."""
    parts = wanted or tuple(slice(0, size) for size in spatial)
    axes = zip(spatial, patch, parts, strict=True)
    return math.prod(len(_touching(max(size, n), n, part, overlap, merge)) for size, n, part in axes)


def _touching(size: int, patch: int, part: slice, overlap: float, merge: Merge) -> list[int]:
    """Where the windows of one axis begin that have something of a part."""
    return [start for start in starts(size, patch, overlap, merge) if start < part.stop and start + patch > part.start]

"""A network over an image of any size: windows in order, and only the rows that still receive some are held."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice, product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from isocenter.values import Array, Region

# Called with what is done and with all.
Progress = Callable[[int, int], None]
# (batch, channels, *patch) to {head: (batch, channels, *patch) or (batch, size)}
Network = Callable[[NDArray[np.float32]], Mapping[str, NDArray[np.float32]]]

# What follows works on a finished part with several copies of it: large planes are handed on a few rows at a time.
YIELDED_VOXELS = 2**20


def starts(size: int, patch: int, overlap: float) -> list[int]:
    """Where the windows of one axis begin: evenly spread, at least `overlap` of a window shared with the next."""
    if size <= patch:
        return [0]
    count = int(np.ceil((size - patch) / (patch * (1 - overlap)))) + 1
    # With a small patch and much overlap two may round to the same place: once is enough.
    return np.unique(np.linspace(0, size - patch, count).round().astype(int)).tolist()


@lru_cache(maxsize=8)
def importance(patch: tuple[int, ...], merge: Literal["gaussian", "mean"]) -> NDArray[np.float32]:
    """(*patch) weight of each voxel of a window: less at its edge, where the network sees less context.

    Gaussian with a standard deviation of an eighth of the window, as in Isensee et al., Nature Methods 2021,
    doi:10.1038/s41592-020-01008-z; never below 1e-3, so that no voxel is without weight.
    """
    if merge == "mean":
        return np.ones(patch, dtype=np.float32)
    weight = np.ones((), dtype=np.float64)
    for size in patch:
        distance = (np.arange(size) - (size - 1) / 2) / (size / 8)
        weight = np.multiply.outer(weight, np.exp(-0.5 * distance**2))
    return np.maximum(weight, 1e-3).astype(np.float32)


def slide(
    network: Network,
    image: NDArray[np.float32],
    patch: Sequence[int],
    *,
    overlap: float = 0.5,
    batch: int = 1,
    merge: Literal["gaussian", "mean"] = "gaussian",
    progress: Progress | None = None,
) -> Iterator[tuple[Region, Mapping[str, Array]]]:
    """(channels, *spatial) through the network: finished rows of the first axis as they become final.

    Yields (region, {head: (channels, *region)}) in order; a vector head comes once, last, with an empty region, as
    the mean over windows. An image smaller than the patch is continued beyond its far edges, and cut back.
    progress is told how many windows are done, and of how many.
    """
    own, patch = image.shape[1:], tuple(patch)
    short = [max(0, length - size) for length, size in zip(patch, own, strict=True)]
    if any(short):
        image = np.pad(image, [(0, 0), *((0, missing) for missing in short)], mode="edge")
    spatial = image.shape[1:]
    inside = tuple(slice(0, size) for size in own[1:])
    grid = [starts(size, length, overlap) for size, length in zip(spatial, patch, strict=True)]
    weight = importance(patch, merge)
    sums: dict[str, Array] = {}
    weights = np.zeros((patch[0], *spatial[1:]), dtype=np.float32)
    vectors: dict[str, list[Array]] = {}
    rows = max(1, YIELDED_VOXELS // math.prod(own[1:]))
    done, all_windows = 0, math.prod(len(axis) for axis in grid)
    following = dict(zip(grid[0], [*grid[0][1:], spatial[0]], strict=True))
    seen = _run(network, image, list(product(*grid)), patch, batch)  # a batch may begin in one row and end in the next
    for row in grid[0]:
        for corner, outputs in islice(seen, all_windows // len(grid[0])):
            place = (slice(None), *(slice(start, start + n) for start, n in zip(corner[1:], patch[1:], strict=True)))
            for name, output in outputs.items():
                if output.ndim == 1:
                    vectors.setdefault(name, []).append(output)
                    continue
                if name not in sums:
                    sums[name] = np.zeros((len(output), patch[0], *spatial[1:]), dtype=np.float32)
                sums[name][(slice(None), *place)] += output * weight
            weights[place] += weight
            done += 1
            if progress is not None:
                progress(done, all_windows)
        finished = following[row] - row
        real = min(finished, own[0] - row)  # rows of the image itself
        for start in range(0, real if sums else 0, rows):
            part = (slice(start, min(start + rows, real)), *inside)
            means = {name: total[(slice(None), *part)] / weights[part] for name, total in sums.items()}
            yield (slice(row + part[0].start, row + part[0].stop), *inside), means
        for held in (weights[None], *sums.values()):
            held[:, : patch[0] - finished] = held[:, finished:].copy()
            held[:, patch[0] - finished :] = 0
    if vectors:
        yield (), {name: np.mean(values, axis=0) for name, values in vectors.items()}


def _run(
    network: Network, image: NDArray[np.float32], corners: list[tuple[int, ...]], patch: tuple[int, ...], batch: int
) -> Iterator[tuple[tuple[int, ...], Mapping[str, Array]]]:
    """The windows at these corners, a batch at a time; each with its corner."""
    for first in range(0, len(corners), batch):
        chosen = corners[first : first + batch]
        cut = [
            image[(slice(None), *(slice(start, start + n) for start, n in zip(corner, patch, strict=True)))]
            for corner in chosen
        ]
        outputs = network(np.stack(cut))
        for n, corner in enumerate(chosen):
            yield corner, {name: output[n] for name, output in outputs.items()}

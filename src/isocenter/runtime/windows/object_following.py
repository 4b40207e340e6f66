"""The windows of a large image that a network sees where somebody points: those with a prompt, then their neighbours.

A neighbour is seen as long as the object reaches the edge towards it. A copy of this file travels with a model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isocenter.runtime.cascade import StackedSource
from isocenter.runtime.prompting import PromptSource
from isocenter.runtime.windows import slide
from isocenter.values import Merge, Region

if TYPE_CHECKING:
    from isocenter.runtime.preprocessing.protocol import GridTrace, RegionSource
    from isocenter.runtime.prompting import ImagePrompts
    from isocenter.runtime.windows.pipeline import WindowSettings
    from isocenter.runtime.windows.slide import Network


def follow_objects(
    prompts: ImagePrompts, data: RegionSource, trace: GridTrace, network: Network, windows: WindowSettings, merge: Merge
) -> tuple[RegionSource, Callable[[Region], bool] | None]:
    """What the network sees, with what a first look marked as the earlier mask, and whether a window is to be seen.

    data:    with channels of the prompts after those of the image
    network: of the image with the channels of one label
    An image that is seen whole stays as it is, and all of it is seen.
    """
    axes, overlap = zip(trace.padded_shape, windows.patch, strict=True), windows.overlap
    grid = [[slice(k, k + n) for k in slide.window_starts(size, n, overlap, merge)] for size, n in axes]
    if all(len(places) == 1 for places in grid):
        return data, None
    source = PromptSource(prompts.placed, trace)
    image = data.image if isinstance(data, StackedSource) else np.asarray(data)[: -source.shape[0]]
    for n, one in enumerate(prompts.placed):
        if one is not None:
            source.reached[n] = _follow_label(PromptSource((one,), trace), image, network, grid)
    stacked = StackedSource(image, source)
    return (stacked if isinstance(data, StackedSource) else stacked.whole), source.shows


def _follow_label(
    source: PromptSource, image: RegionSource, network: Network, grid: Sequence[Sequence[slice]]
) -> NDArray[np.bool_]:
    """(*padded) what a first look marks of one label, window after window."""
    every = {
        place: tuple(axis[n] for axis, n in zip(grid, place, strict=True)) for place in np.ndindex(*map(len, grid))
    }
    pointed = [place for place, region in every.items() if source.shows(region)]
    found = source.reached[0] = source.earlier_mask(0, tuple(slice(0, size) for size in source.trace.padded_shape)) > 0
    waiting, known = deque(pointed), set(pointed)
    while waiting:
        place = waiting.popleft()
        region = every[place]
        [answer] = network(StackedSource(image, source)[(slice(None), *region)][None]).values()
        inside = np.asarray(answer)[0, 1] > np.asarray(answer)[0, 0]
        found[region] = inside if place in pointed else inside | found[region]
        for axis, step in product(range(inside.ndim), (-1, 1)):
            neighbour = (*place[:axis], place[axis] + step, *place[axis + 1 :])
            if neighbour in every and neighbour not in known and inside.take(-(step > 0), axis=axis).any():
                known.add(neighbour)
                waiting.append(neighbour)
    return found

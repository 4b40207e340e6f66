"""The windows of a large image that a network sees where somebody points: those with a prompt, then their neighbours.

A neighbour is seen as long as the object reaches the edge towards it. A copy of this file travels with a model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isocenter.runtime.cascade import LabelSource, StackedSource
from isocenter.runtime.prompting import PromptSource
from isocenter.runtime.windows import slide
from isocenter.runtime.windows.slide import Network, Skipping
from isocenter.transforms import prompt_channels
from isocenter.values import Merge, Region

if TYPE_CHECKING:
    from isocenter.runtime.preprocessing.protocol import GridTrace, RegionSource
    from isocenter.runtime.prompting import ImagePrompts
    from isocenter.values.prompts import PlacedPrompts


def follow_objects(
    prompts: ImagePrompts,
    data: RegionSource,
    trace: GridTrace,
    network: Network,
    patch: Sequence[int],
    overlap: float,
    merge: Merge,
    outputs: Callable[[str, int], NDArray[np.float32]],
) -> tuple[RegionSource, Skipping | None]:
    """What the network sees, with what a first look marked as the earlier mask, and the windows that are passed over.

    data:    with channels of the prompts after those of the image
    network: of the image with the channels of one label
    outputs: of what no window shows
    An image that is seen whole stays as it is, and nothing of it is passed over.
    """
    shape = trace.padded_shape
    grid = [slide.window_starts(size, length, overlap, merge) for size, length in zip(shape, patch, strict=True)]
    if all(len(starts) == 1 for starts in grid):
        return data, None
    source = PromptSource(prompts.placed, trace)
    image = data.image if isinstance(data, StackedSource) else np.asarray(data)[: -source.shape[0]]  # type: ignore[call-overload]
    windows = [[slice(start, start + length) for start in starts] for starts, length in zip(grid, patch, strict=True)]
    for n, one in enumerate(prompts.placed):
        if one is not None:
            source.reached[n] = _follow_label(one, image, trace, network, windows)
    if isinstance(data, StackedSource):
        data = replace(data, further=source)
    else:
        for n, reached in source.reached.items():
            data[n * prompt_channels.COUNT + prompt_channels.PREVIOUS - source.shape[0]] = reached  # type: ignore[index]

    def sees(window: Region) -> bool:
        """Whether somebody points into a window, or an object was found there."""
        return source.is_pointed_at(window) or any(reached[window].any() for reached in source.reached.values())

    return data, Skipping(sees, outputs)


def _follow_label(
    placed: PlacedPrompts,
    image: RegionSource,
    trace: GridTrace,
    network: Network,
    windows: Sequence[Sequence[slice]],
) -> NDArray[np.bool_]:
    """(*padded) what a first look marks of one label, window after window."""
    whole = tuple(slice(0, size) for size in trace.padded_shape)
    found = np.zeros(trace.padded_shape, dtype=np.bool_)
    if placed.previous is not None:
        found |= LabelSource(placed.previous.astype(np.uint8), trace)[whole] > 0
    source = PromptSource((placed,), trace, {0: found})
    region_of: Callable[[Sequence[int]], Region] = lambda place: tuple(  # noqa: E731 - one expression
        windows[axis][n] for axis, n in enumerate(place)
    )
    places = [one for one in product(*map(range, map(len, windows))) if source.is_pointed_at(region_of(one))]
    waiting, known = deque(places), set(places)
    while waiting:
        place = waiting.popleft()
        region = region_of(place)
        [answer] = network(StackedSource(image, source)[(slice(None), *region)][None]).values()
        inside = np.asarray(answer)[0, 1] > np.asarray(answer)[0, 0]
        found[region] = inside if place in places else inside | found[region]
        for axis, step in product(range(inside.ndim), (-1, 1)):
            neighbour = (*place[:axis], place[axis] + step, *place[axis + 1 :])
            is_there = 0 <= neighbour[axis] < len(windows[axis]) and neighbour not in known
            if is_there and inside.take(0 if step < 0 else -1, axis=axis).any():
                known.add(neighbour)
                waiting.append(neighbour)
    return found

"""How closely windows follow each other where the time is limited."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from isocenter.errors import counted
from isocenter.runtime.windows import Source
from isocenter.runtime.windows.batches import Network

# Shares of a window that the next one covers too, from the most careful on.
OVERLAPS = (0.5, 0.375, 0.25, 0.125, 0.0)

log = logging.getLogger("isocenter")


def overlap_within(
    seconds: float, planned: float, network: Network, image: Source, patch: Sequence[int], count: Callable[[float], int]
) -> float:
    """The largest overlap, no more than was planned, with which the windows of an image take about so many seconds.

    count: how many windows there are with an overlap
    One window from the middle of the image is timed. Where even without overlap it takes longer, it does.
    """
    inner = [min(length, size) for length, size in zip(patch, image.shape[1:], strict=True)]
    starts = [(size - length) // 2 for size, length in zip(image.shape[1:], inner, strict=True)]
    window = image[(slice(None), *(slice(start, start + n) for start, n in zip(starts, inner, strict=True)))]
    window = np.pad(window, [(0, 0), *((0, n - size) for n, size in zip(patch, inner, strict=True))], mode="edge")
    batch = np.ascontiguousarray(window[None], dtype=np.float32)
    network(batch)  # the first one prepares more than the later ones
    begun = time.perf_counter()
    network(batch)
    each = time.perf_counter() - begun
    steps = [planned, *(one for one in OVERLAPS if one < planned)]
    chosen = next((one for one in steps if count(one) * each <= seconds), 0.0)
    windows = count(chosen)
    log.info("overlap %g: %s of %.3g s, about %.3g s", chosen, counted(windows, "window"), each, windows * each)
    return chosen

"""The way of an image through a model: prepared, seen by the network window by window, brought back and decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from isocenter.runtime.pace import overlap_within
from isocenter.runtime.windows.averaging import mirrored
from isocenter.runtime.windows.slide import Network, Progress, slide, window_count
from isocenter.values import Array, Image, Prediction, Region, Slabs

if TYPE_CHECKING:
    from isocenter.runtime.preprocessing import Prepares, Trace
    from isocenter.tasks import Task

# Is given a part of a grid, and {head: (classes, *region) or (classes,)} its probabilities.
Beside = Callable[[Region, Mapping[str, Array]], None]


def passed(
    image: Image,
    where: str,
    *,
    task: Task,
    preprocessing: Prepares,
    network: Network,
    patch: tuple[int, ...],
    overlap: float,
    batch: int,
    flips: tuple[int, ...],
    left_right: int | None,
    progress: Progress | None = None,
    beside: Beside | None = None,
    region: Region | None = None,
    seconds: float | None = None,
) -> Prediction:
    """The result on the image's own grid. This file needs NumPy alone, so that a copy of it travels with a model.

    flips:      axes of the window along which it is also seen mirrored
    left_right: the axis of the network's grid that the model was planned for
    region:     of the image's grid: windows that do not touch it are not run, and nothing is said of what lies beyond
    seconds:    in which the windows should be done, if need be with less overlap
    """
    data, trace = preprocessing.opened(image, where)
    seen = mirrored(network, task, flips, trace, left_right, marked=preprocessing.cascade is not None)
    channels = sum(head.count for head in task.heads.values() if head.is_dense)
    parts = preprocessing.parts(trace, region, patch, channels)

    def windows(overlap: float) -> list[int]:
        return [window_count(data.shape[1:], patch, overlap, part.needed) for part in parts]

    if seconds is not None:
        overlap = overlap_within(seconds, overlap, seen, data, patch, lambda one: sum(windows(one)))
    counts = windows(overlap)

    def restored() -> Slabs:
        for number, part in enumerate(parts):
            slabs = slide(
                seen,
                data,
                patch,
                overlap=overlap,
                batch=batch,
                merge=task.merge,
                progress=_of_all(progress, sum(counts[:number]), sum(counts)),
                wanted=part.needed,
                way=part.way,
            )
            yield from _with_axes(preprocessing.restored(slabs, trace, part.kept), task, trace)

    slabs = restored() if region is None else _within(restored(), region)
    prediction = task.decode(slabs if beside is None else _told(slabs, task, beside), trace.source)
    notes = _in_parts(task, data.shape[1:], patch)
    return replace(prediction, notes=(*prediction.notes, *notes)) if notes else prediction


def _in_parts(task: Task, spatial: tuple[int, ...], patch: tuple[int, ...]) -> list[str]:
    """That a number, which may be a size, is the mean over windows none of which shows the whole image."""
    sized = any(head.holds_numbers for head in task.heads.values())
    if not sized or all(size <= n for size, n in zip(spatial, patch, strict=True)):
        return []
    seen, held = (" x ".join(map(str, one)) for one in (spatial, patch))
    return [
        f"the image has {seen} voxels at the model's spacing and the network sees {held} of them at once: the result "
        "is a mean over windows, which is wrong for what the size of something decides. Cut the image to the part that "
        "the model was trained on"
    ]


def _with_axes(slabs: Slabs, task: Task, trace: Trace) -> Slabs:
    """Slabs on the source's grid, of which also what belongs to axes is said of those of the source."""
    turning = {name: head for name, head in task.heads.items() if head.turns}
    if not turning:
        yield from slabs
        return
    for region, arrays in slabs:
        yield region, {**arrays, **{name: head.turned(arrays[name], trace) for name, head in turning.items()}}


def _of_all(progress: Progress | None, before: int, count: int) -> Progress | None:
    """Progress of one part, told as progress of all of them."""
    return None if progress is None else lambda done, _: progress(before + done, count)


def _within(slabs: Slabs, region: Region) -> Slabs:
    """What of the slabs lies in a region of the same grid."""
    for found, arrays in slabs:
        both = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(found, region, strict=bool(found))]
        if all(one.start < one.stop for one in both):
            own = [slice(one.start - a.start, one.stop - a.start) for one, a in zip(both, found, strict=bool(found))]
            yield tuple(both), {name: array[(slice(None), *own)] for name, array in arrays.items()}


def _told(slabs: Slabs, task: Task, beside: Beside) -> Slabs:
    """The same slabs, their probabilities told to someone else on the way."""
    for region, arrays in slabs:
        made = {name: np.asarray(array) for name, array in arrays.items()}
        beside(region, task.probabilities(made))
        yield region, made

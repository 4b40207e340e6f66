"""The way of an image through a model: prepared, seen by the network window by window, brought back and decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from isocenter.runtime.members import mirrored
from isocenter.runtime.windows import Network, Progress, slide
from isocenter.values import Array, Image, Prediction, Region, Slabs

if TYPE_CHECKING:
    from isocenter.runtime.prepares import Prepares
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
) -> Prediction:
    """The result on the image's own grid. This file needs NumPy alone, so that a copy of it travels with a model.

    flips:      axes of the window along which it is also seen mirrored
    left_right: the axis of the network's grid that the model was planned for
    """
    data, trace = preprocessing(image, where)
    slabs = slide(
        mirrored(network, task, flips, trace, left_right),
        data,
        patch,
        overlap=overlap,
        batch=batch,
        merge=task.merge,
        progress=progress,
    )
    restored = preprocessing.restored(slabs, trace)
    return task.decode(restored if beside is None else _told(restored, task, beside), trace.source)


def _told(slabs: Slabs, task: Task, beside: Beside) -> Slabs:
    """The same slabs, their probabilities told to someone else on the way."""
    for region, arrays in slabs:
        beside(region, task.probabilities(arrays))
        yield region, arrays

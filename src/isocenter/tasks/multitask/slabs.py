"""What several tasks make of one stream of slabs: each reads it from one end to the other, and none holds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from typing import TypeVar

import numpy as np

from isocenter.values import Array, Geometry, Prediction, Slabs

R = TypeVar("R")


def at_once(slabs: Slabs, readers: Sequence[Callable[[Slabs], R]]) -> list[R]:
    """What each reader makes of the slabs; a slab is let go when all have read it.

    Raises what a reader raises.
    """
    if len(readers) == 1:
        found = readers[0](slabs)
        for _ in slabs:  # what stands behind the last that it wanted
            pass
        return [found]
    if not readers:
        for _ in slabs:
            pass
        return []
    return _in_threads(slabs, readers)


def _in_threads(slabs: Slabs, readers: Sequence[Callable[[Slabs], R]]) -> list[R]:
    """Each reader in a thread of its own, one slab behind the stream at the most."""
    waiting: list[Queue[object]] = [Queue(maxsize=1) for _ in readers]
    with ThreadPoolExecutor(max_workers=len(readers)) as pool:
        done = [pool.submit(_read, reader, queue) for reader, queue in zip(readers, waiting, strict=True)]
        try:
            for slab in slabs:
                for queue in waiting:
                    queue.put(slab)
        finally:
            for queue in waiting:
                queue.put(None)
        return [one.result() for one in done]


def _read(reader: Callable[[Slabs], R], queue: Queue[object]) -> R:
    """What the reader makes of the slabs of a queue, which is emptied whatever becomes of the reader."""
    stream = iter(queue.get, None)
    try:
        return reader(stream)  # type: ignore[arg-type]
    finally:
        for _ in stream:
            pass


def kept_apart(slabs: Slabs, whole: list[Mapping[str, Array]]) -> Slabs:
    """The slabs of voxels; what holds for the image as a whole is laid aside."""
    for region, arrays in slabs:
        if region:
            yield region, arrays
        else:
            whole.append(arrays)


def mean(each: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Of what each part of a large grid says of the image as a whole."""
    return {key: np.mean([np.asarray(one[key]) for one in each], axis=0) for key in each[0]}


def together(geometry: Geometry, parts: Mapping[str, Prediction]) -> Prediction:
    """One prediction: the label map and the boxes of the part that has some, all probabilities and values."""
    mapped = next((one for one in parts.values() if one.data is not None), None)
    boxed = next((one for one in parts.values() if one.boxes is not None), None)
    said = {key: value for one in parts.values() for key, value in (one.probabilities or {}).items()}
    measured = {key: value for one in parts.values() for key, value in (one.values or {}).items()}
    return Prediction(
        geometry,
        probabilities=said or None,
        data=None if mapped is None else mapped.data,
        labels=() if mapped is None else mapped.labels,
        values=measured or None,
        boxes=None if boxed is None else boxed.boxes,
        parts=parts,
    )

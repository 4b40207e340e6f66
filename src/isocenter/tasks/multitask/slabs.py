"""One stream of slabs for several decoders: each reads it from end to end, and none holds it as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import Queue
from typing import TypeVar

import numpy as np

from isocenter.values import Array, Geometry, Map, Prediction, Slabs

R = TypeVar("R")


def read_by_each(slabs: Slabs, readers: Sequence[Callable[[Slabs], R]]) -> list[R]:
    """The result of each reader of the slabs; a slab is let go when all have read it.

    Raises what a reader raises.
    """
    if len(readers) == 1:
        result = readers[0](slabs)
        for _ in slabs:  # what follows the last slab that the reader wanted
            pass
        return [result]
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
        return [future.result() for future in done]


def _read(reader: Callable[[Slabs], R], queue: Queue[object]) -> R:
    """The reader's result from the slabs of a queue, which is emptied even where the reader fails."""
    stream = iter(queue.get, None)
    try:
        return reader(stream)  # type: ignore[arg-type]
    finally:
        for _ in stream:
            pass


def dense_slabs(slabs: Slabs, vectors: list[Mapping[str, Array]]) -> Slabs:
    """The slabs of voxels; outputs for the whole image, which have no region, are added to `vectors`."""
    for region, arrays in slabs:
        if region:
            yield region, arrays
        else:
            vectors.append(arrays)


def mean(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The mean of the outputs for the whole image that each part of a large grid gave."""
    return {key: np.mean([np.asarray(one[key]) for one in parts], axis=0) for key in parts[0]}


def with_parts(prediction: Prediction, changed: Mapping[str, Prediction]) -> Prediction:
    """The same with other results of some parts, whose boxes, maps and notes are its own too."""
    parts, maps = {**prediction.parts, **changed}, joined_maps(prediction.maps, changed)
    boxed = next((one for one in parts.values() if one.boxes is not None), prediction)
    notes = (*prediction.notes, *dict.fromkeys(note for one in changed.values() for note in one.notes))
    return replace(prediction, parts=parts, maps=maps, boxes=boxed.boxes, threshold=boxed.threshold, notes=notes)


def joined_maps(maps: Mapping[str, Map], parts: Mapping[str, Prediction]) -> dict[str, Map]:
    """These maps and those of parts; one of a name that there is already has that of its part before it."""
    joined = dict(maps)
    for name, part in parts.items():
        joined |= {f"{name}_{kind}" if kind in joined else kind: drawn for kind, drawn in part.maps.items()}
    return joined


def joined_prediction(geometry: Geometry, parts: Mapping[str, Prediction]) -> Prediction:
    """One prediction: the label map and the boxes of the part that has some, all probabilities and values."""
    mapped = next((one for one in parts.values() if one.data is not None), None)
    boxed = next((one for one in parts.values() if one.boxes is not None), None)
    probabilities = {key: value for one in parts.values() for key, value in (one.probabilities or {}).items()}
    values = {key: value for one in parts.values() for key, value in (one.values or {}).items()}
    return Prediction(
        geometry,
        probabilities=probabilities or None,
        data=None if mapped is None else mapped.data,
        labels=() if mapped is None else mapped.labels,
        values=values or None,
        boxes=None if boxed is None else boxed.boxes,
        threshold=0.0 if boxed is None else boxed.threshold,
        parts=parts,
    )

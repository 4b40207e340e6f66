"""One stream of slabs for several readers, who each read it from one end to the other, and none of whom holds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from typing import TypeVar

from isocenter.values import Slabs

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

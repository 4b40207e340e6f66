"""Where to compute, said aloud."""

from __future__ import annotations

from isocenter.prediction import announce
from isocenter.runtime import choose_device, use_threads
from isocenter.values import Decision


def announced_device(name: str, threads: int | None = None) -> Decision:
    """The device and the reason, also in the log: a GPU that was not found should not go unnoticed.

    threads: cores to use; all if none is given
    """
    if threads is not None:
        use_threads(threads)
    chosen = choose_device(name)
    announce(chosen)
    return chosen

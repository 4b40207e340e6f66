"""The device that computes, said aloud."""

from __future__ import annotations

from dataclasses import replace

from isocenter.runtime import announce, choose_device, use_threads
from isocenter.values import Decision


def announced_device(name: str, threads: int | None = None, *, because: str = "") -> Decision:
    """The device and the reason, also in the log: a GPU that was not found should not go unnoticed.

    threads: cores to use; all if none is given
    because: the reason of a device that a plan names, in place of that it was asked for
    """
    if threads is not None:
        use_threads(threads)
    chosen = choose_device(name)
    if because:
        chosen = replace(chosen, because=because)
    announce(chosen)
    return chosen

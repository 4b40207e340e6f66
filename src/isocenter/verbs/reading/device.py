"""Where to compute, said aloud."""

from __future__ import annotations

import logging

from isocenter.runtime import choose_device, use_threads
from isocenter.values import Decision

log = logging.getLogger("isocenter")


def announced_device(name: str, threads: int | None = None) -> Decision:
    """The device and the reason, also in the log: a GPU that was not found should not go unnoticed.

    threads: cores to use; all if none is given
    """
    if threads is not None:
        use_threads(threads)
    chosen = choose_device(name)
    announce(chosen)
    return chosen


def announce(computing: Decision | None) -> None:
    """A device, or a backend on a device, and the reason."""
    if computing is not None:
        log.info("computing on %s: %s", computing.value, computing.because)

"""Where to compute, said aloud."""

from __future__ import annotations

import logging

from isocenter.runtime import choose_device
from isocenter.values import Decision

log = logging.getLogger("isocenter")


def announced_device(name: str) -> Decision:
    """The device and the reason, also in the log: a GPU that was not found should not go unnoticed."""
    chosen = choose_device(name)
    log.info("computing on %s: %s", chosen.value, chosen.because)
    return chosen

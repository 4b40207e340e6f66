"""The start of a command, and the thing that it is working on.

Each case is logged where work on it begins and ends, so that whoever outlives a crash can name it. Nothing is shown
unless a handler is set on the logger "isocenter.work", as the command line does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

work = logging.getLogger("isocenter.work")
BEGUN, ENDED = "begun", "ended"
# time.monotonic() at which the command line was entered, before it has imported what a verb needs.
_entered: ContextVar[float | None] = ContextVar("entered", default=None)


@contextmanager
def command_timed() -> Iterator[None]:
    """Within, minutes count from now, or from when a command around it was entered."""
    token = _entered.set(command_began())
    try:
        yield
    finally:
        _entered.reset(token)


def command_began() -> float:
    """time.monotonic() at which the command began; now, where there is no command but a call in Python."""
    entered = _entered.get()
    return time.monotonic() if entered is None else entered


@contextmanager
def at_work(case: str) -> Iterator[None]:
    """This case is being worked on within."""
    work.debug(BEGUN, extra={"case": case})
    try:
        yield
    finally:
        work.debug(ENDED, extra={"case": case})

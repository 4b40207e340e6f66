"""The start of a command, the thing that it is working on, how far it is, and what Ctrl-C does to it.

Each case is logged where work on it begins and ends, so that whoever outlives a crash can name it. Nothing is shown
unless a handler is set on the logger "hilum.work", as the command line does.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any

log = logging.getLogger("hilum")
work = logging.getLogger("hilum.work")
progress = logging.getLogger("hilum.progress")
BEGUN, ENDED = "begun", "ended"
# By this variable a command knows the folder of the job that it is.
JOB = "HILUM_JOB"
# time.monotonic() at which the command line was entered, before it has imported what a verb needs.
_entered: ContextVar[float | None] = ContextVar("entered", default=None)


@contextmanager
def time_command() -> Iterator[None]:
    """Within, minutes count from now, or from when a command around it was entered."""
    token = _entered.set(command_start())
    try:
        yield
    finally:
        _entered.reset(token)


def command_start() -> float:
    """time.monotonic() at which the command began; now, where there is no command but a call in Python."""
    entered = _entered.get()
    return time.monotonic() if entered is None else entered


@contextmanager
def mark_case_at_work(case: str) -> Iterator[None]:
    """This case is being worked on within."""
    work.debug(BEGUN, extra={"case": case})
    try:
        yield
    finally:
        work.debug(ENDED, extra={"case": case})


def report_progress(what: str, done: int, total: int, seconds_left: float | None, **columns: Any) -> None:
    """State how far a piece of work is, for a job's progress; nobody hears it elsewhere.

    columns: of a training, as in `log.csv`
    """
    record = {"what": what, "done": done, "of": total, "seconds_left": seconds_left, **columns}
    progress.debug("%s: %d of %d", what, done, total, extra={"progress": record})


@contextmanager
def defer_interrupt() -> Iterator[Callable[[], bool]]:
    """Gives a function that tells whether Ctrl-C was pressed; a second press ends at once, with KeyboardInterrupt.

    Outside the main thread, where no signal arrives, nothing is deferred.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    pressed = False

    def hold(number: int, frame: FrameType | None) -> None:
        """Remember the first interrupt; the second one interrupts."""
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.default_int_handler)


@contextmanager
def finish_despite_interrupt() -> Iterator[None]:
    """Ctrl-C within interrupts at the end, as what is done is being kept; a second press interrupts at once.

    Where Ctrl-C is ignored, as in a background job of a shell script, it stays so.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        yield
        return
    with defer_interrupt() as is_pressed:
        yield
    if is_pressed():
        raise KeyboardInterrupt

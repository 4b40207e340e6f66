"""Warnings and log records of the DICOM library, kept and not printed, also where several threads read at once.

`warnings.catch_warnings` swaps settings of the whole process: two threads that leave it in another order than they
entered it would leave all warnings off for good. Here all share one swap, undone by whoever is last.
"""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()


class _Kept(threading.local):
    """The list that a thread's warnings go to, None where it does not collect them."""

    kept: list[str] | None = None


_state = _Kept()
_open: list[Any] = []  # the one swap, and one entry for each further reader
# Some of what is odd pydicom logs, without the name of the file.
LOGGER = logging.getLogger("pydicom")
# Where its messages hold values of a header: in quotation marks, and behind "ignoring" without them.
VALUES = re.compile(r"""['"].*['"]|(?<=ignoring: ).+""", re.DOTALL)


@contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Collect the different warnings of this thread while inside, in their order; nothing is shown.

    Raised or logged: the caller knows which file they are about. The values that they quote, which may be those of a
    patient, are left out.
    """
    texts: list[str] = []
    outer = _state.kept
    _enter()
    _state.kept = texts
    try:
        yield texts
    finally:
        _state.kept = outer
        _leave()


def _enter() -> None:
    with _lock:
        if not _open:
            swap = warnings.catch_warnings()
            swap.__enter__()
            warnings.simplefilter("always")
            warnings.showwarning = _keep
            LOGGER.addFilter(_is_for_others)
            _open.append(swap)
        else:
            _open.append(None)


def _leave() -> None:
    with _lock:
        last = _open.pop()
        if not _open:
            LOGGER.removeFilter(_is_for_others)
            last.__exit__(None, None, None)


def _is_for_others(record: logging.LogRecord) -> bool:
    """Whether a log record is handled as usual: those of a thread that collects warnings are not."""
    if _state.kept is None:
        return True
    if record.levelno >= logging.WARNING:
        _keep(record.getMessage())
    return False


def _keep(message: Warning | str, *_: Any, **__: Any) -> None:
    if _state.kept is None:
        return
    # From the first quotation mark to the last: a value may hold some too.
    text = VALUES.sub("'...'", str(message))
    if text not in _state.kept:
        _state.kept.append(text)

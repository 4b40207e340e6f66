"""What the DICOM library warns about and logs is heard and kept, not printed; also where several threads read at once.

`warnings.catch_warnings` swaps settings of the whole process: two threads that leave it in another order than they
entered it would leave all warnings off for good. Here all share one swap, undone by whoever is last.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_state = threading.local()
_open: list[Any] = []  # the one swap, and one entry for each further reader
# Some of what is odd the library logs, without the name of the file.
LOGGER = logging.getLogger("pydicom")


@contextmanager
def quiet() -> Iterator[list[str]]:
    """The different warnings of this thread while inside, in their order; nothing is shown.

    Raised or logged: whoever asks knows which file they are about.
    """
    heard: list[str] = []
    outer = getattr(_state, "heard", None)
    _enter()
    _state.heard = heard
    try:
        yield heard
    finally:
        _state.heard = outer
        _leave()


def _enter() -> None:
    with _lock:
        if not _open:
            swap = warnings.catch_warnings()
            swap.__enter__()
            warnings.simplefilter("always")
            warnings.showwarning = _hear
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
    """Whether a log record goes on its way: not what a thread says that is heard here."""
    if getattr(_state, "heard", None) is None:
        return True
    if record.levelno >= logging.WARNING:
        _hear(record.getMessage())
    return False


def _hear(message: Warning | str, *_: Any, **__: Any) -> None:
    heard = getattr(_state, "heard", None)
    if heard is not None and str(message) not in heard:
        heard.append(str(message))

"""What the DICOM library warns about is heard and kept, not printed; also where several threads read at once.

`warnings.catch_warnings` swaps settings of the whole process: two threads that leave it in another order than they
entered it would leave all warnings off for good. Here all share one swap, undone by whoever is last.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_state = threading.local()
_open: list[Any] = []  # the one swap, and one entry for each further reader


@contextmanager
def quiet() -> Iterator[list[str]]:
    """The different warnings of this thread while inside, in their order; nothing is shown."""
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
            _open.append(swap)
        else:
            _open.append(None)


def _leave() -> None:
    with _lock:
        last = _open.pop()
        if not _open:
            last.__exit__(None, None, None)


def _hear(message: Warning | str, *_: Any, **__: Any) -> None:
    heard = getattr(_state, "heard", None)
    if heard is not None and str(message) not in heard:
        heard.append(str(message))

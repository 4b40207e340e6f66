"""Freed memory stays with this process while a network computes: the system need not clear the same pages again.

The C library gives each large array back to the system as soon as it is freed, and asks for it anew at the next step;
every page is then mapped and cleared once more. On two cores of a virtual machine that took a fifth of a training step
in bfloat16 and two fifths of one in float32 (`bench/training_steps.py`).
"""

from __future__ import annotations

import ctypes
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

# Of mallopt(3), by its numbers in <malloc.h>.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4
NEVER = -1
MIB = 2**20
# What glibc comes to by itself after a large array was freed (`DEFAULT_MMAP_THRESHOLD_MAX`), and its other defaults.
USUAL = {MMAP_THRESHOLD: 32 * MIB, TRIM_THRESHOLD: 64 * MIB, TOP_PAD: 128 * 1024, MMAP_MAX: 65536}
KEPT = {MMAP_MAX: 0, TRIM_THRESHOLD: NEVER, TOP_PAD: 64 * MIB}


@dataclass
class Holders:
    """The number of holders at this time; the first sets what the last takes back."""

    count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


_within = Holders()


@contextmanager
def kept_memory() -> Iterator[None]:
    """Within, what is freed is kept for what comes next; at the end it goes back to the system.

    The most that is held at once grows: by a tenth in a training in bfloat16, by a quarter in float32, as freed pieces
    do not always fit what comes next. Does nothing where the C library is not glibc.
    """
    library = _glibc()
    if library is None:
        yield
        return
    with _within.lock:
        _within.count += 1
        if _within.count == 1:
            _set(library, KEPT)
    try:
        yield
    finally:
        with _within.lock:
            _within.count -= 1
            if _within.count == 0:
                _set(library, USUAL)
                library.malloc_trim(0)


def give_back() -> None:
    """Let the system have what is freed, also where it lies between pieces that are still used."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> Any:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _set(library: Any, options: dict[int, int]) -> None:
    for option, value in options.items():
        library.mallopt(option, value)

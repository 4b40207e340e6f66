"""Freed memory stays while a network computes, and goes back to the system afterwards."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep")
SCRIPT = """
import resource
import sys

import numpy as np

from hilum.runtime.hardware import keep_freed_memory

LARGE = 64 * 2**20


def pages(times):
    \"\"\"How many pages the system had to clear for arrays that are made and freed.\"\"\"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        np.ones(LARGE, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()


outside = pages(10)
with keep_freed_memory():
    with keep_freed_memory():
        pages(1)
    inside = pages(10)
print(outside, inside, resident() / LARGE)
"""


@glibc
def test_what_is_freed_is_used_again_within_and_given_back_after() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    outside, inside, left = (float(word) for word in done.stdout.split())
    assert outside >= 10 * 64 / 2  # pages have 2 MiB where the system gives large ones
    assert inside < outside / 10
    assert left < 1 + 0.9  # of the arrays nothing is left; the interpreter and NumPy hold some


def test_where_another_c_library_is_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    from hilum.runtime import hardware as module

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    module._glibc.cache_clear()
    try:
        with module.keep_freed_memory():
            assert module._within.count == 0
    finally:
        monkeypatch.undo()
        module._glibc.cache_clear()

"""The fuzz run of bench/ for tests: its reader of damaged files, and how it measures memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))

from fuzz import FAILURES, Outcome, examples, fuzzed, peak_memory, read_all, reset_peak

Result = TypeVar("Result")

__all__ = ["FAILURES", "Outcome", "examples", "fuzzed", "peak_of", "read_all"]


def peak_of(call: Callable[[], Result]) -> tuple[int, Result]:
    """(the most bytes that were in use meanwhile beyond those before, the result); 0 bytes where nobody counts them."""
    before = reset_peak()
    result = call()
    return max(0, peak_memory() - before), result

"""Memory of a prediction: predicted before it begins, and kept within bounds while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.runtime.memory.allocator import give_back, kept_memory
    from isocenter.runtime.memory.predicted import Expected, expected_memory, fitting_memory

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

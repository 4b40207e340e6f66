"""Sliding windows over an image of any size, merged by weights, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.runtime.windows.averaging import POOLED, Averaged, flipped_axes, members_of
    from isocenter.runtime.windows.pipeline import BLANK, Receiver, WindowSettings, run_pipeline
    from isocenter.runtime.windows.slide import Progress

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

"""Regression: measured values of the whole image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.tasks.regression.scores import Measured, agreement_rows

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

"""Classification: classes that exclude each other, or grades, for the whole image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.tasks.classification.losses import effective_weights

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

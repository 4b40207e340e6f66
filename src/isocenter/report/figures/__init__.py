"""Pictures from values: slices with outlines, charts with intervals.

Matplotlib is loaded with the first picture: what only predicts does without.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from isocenter.report.figures.figure import Figure

if TYPE_CHECKING:
    from isocenter.report.figures.charts import (
        confusion,
        histogram,
        label_scores,
        reliability,
        roc,
        scatter,
        training_curves,
    )
    from isocenter.report.figures.slices import contact_sheet, contours

__all__ = [
    "Figure",
    "confusion",
    "contact_sheet",
    "contours",
    "histogram",
    "label_scores",
    "reliability",
    "roc",
    "scatter",
    "training_curves",
]

_SLICES = ("contact_sheet", "contours")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "slices" if name in _SLICES else "charts"
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return __all__

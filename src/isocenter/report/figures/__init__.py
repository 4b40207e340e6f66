"""Pictures from values: slices with outlines, charts with intervals.

Matplotlib is loaded with the first picture: what only predicts does without.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from isocenter.report.figures.figure import Figure

if TYPE_CHECKING:
    from isocenter.report.figures.charts import histogram, label_scores, scatter, training_curves
    from isocenter.report.figures.cohort import class_balance, profiles
    from isocenter.report.figures.detection import box_precision_recall, boxes, froc
    from isocenter.report.figures.differences import agreement, bland_altman
    from isocenter.report.figures.discrimination import confusion, precision_recall, reliability, roc
    from isocenter.report.figures.instances import objects
    from isocenter.report.figures.lines import traces
    from isocenter.report.figures.sheets import contact_sheet, pair_sheet
    from isocenter.report.figures.slices import contours
    from isocenter.report.figures.survival import (
        SurvivalCurve,
        kaplan_meier,
        observed_against_predicted,
        survival_curve,
        time_ticks,
    )

__all__ = [
    "Figure",
    "SurvivalCurve",
    "agreement",
    "bland_altman",
    "box_precision_recall",
    "boxes",
    "class_balance",
    "confusion",
    "contact_sheet",
    "contours",
    "froc",
    "histogram",
    "kaplan_meier",
    "label_scores",
    "objects",
    "observed_against_predicted",
    "pair_sheet",
    "precision_recall",
    "profiles",
    "reliability",
    "roc",
    "scatter",
    "survival_curve",
    "time_ticks",
    "traces",
    "training_curves",
]

_HOMES = {
    "agreement": "differences",
    "bland_altman": "differences",
    "SurvivalCurve": "survival",
    "box_precision_recall": "detection",
    "boxes": "detection",
    "class_balance": "cohort",
    "confusion": "discrimination",
    "contact_sheet": "sheets",
    "contours": "slices",
    "kaplan_meier": "survival",
    "objects": "instances",
    "observed_against_predicted": "survival",
    "froc": "detection",
    "pair_sheet": "sheets",
    "precision_recall": "discrimination",
    "profiles": "cohort",
    "reliability": "discrimination",
    "roc": "discrimination",
    "survival_curve": "survival",
    "time_ticks": "survival",
    "traces": "lines",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name, "charts")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return __all__

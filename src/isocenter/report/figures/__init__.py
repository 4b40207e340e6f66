"""Pictures from values: slices with outlines, charts with intervals."""

from isocenter.report.figures.charts import (
    confusion,
    histogram,
    label_scores,
    reliability,
    roc,
    scatter,
    training_curves,
)
from isocenter.report.figures.figure import Figure
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

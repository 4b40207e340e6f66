"""Figures that say how good a model is, each with its interval; values in, values out."""

from isocenter.evaluation.classification import (
    Confusion,
    auroc,
    average_precision,
    brier,
    ece,
    log_loss,
    one_against_rest,
    precision_recall_curve,
    reliability,
    roc_curve,
)
from isocenter.evaluation.distance import Surface, SurfaceDistance, elements, surface_distance
from isocenter.evaluation.intervals import bootstrap, bootstrap_statistic, clopper_pearson, median, wilson
from isocenter.evaluation.overlap import Overlap, confusion, dice, iou, overlap, overlaps, volume_unit

__all__ = [
    "Confusion",
    "Overlap",
    "Surface",
    "SurfaceDistance",
    "auroc",
    "average_precision",
    "bootstrap",
    "bootstrap_statistic",
    "brier",
    "clopper_pearson",
    "confusion",
    "dice",
    "ece",
    "elements",
    "iou",
    "log_loss",
    "median",
    "one_against_rest",
    "overlap",
    "overlaps",
    "precision_recall_curve",
    "reliability",
    "roc_curve",
    "surface_distance",
    "volume_unit",
    "wilson",
]

"""Figures that say how good a model is, each with its interval; values in, values out."""

from isocenter.evaluation.classification import (
    Confusion,
    auroc,
    average_precision,
    brier,
    calibration_error,
    ece,
    log_loss,
    one_against_rest,
    precision_recall_curve,
    reliability,
    roc_curve,
)
from isocenter.evaluation.curves import roc_band
from isocenter.evaluation.detection import Froc, Matches, box_iou, box_sizes
from isocenter.evaluation.distance import Surface, SurfaceDistance, elements, surface_distance
from isocenter.evaluation.intervals import (
    bootstrap,
    bootstrap_statistic,
    clopper_pearson,
    median,
    proportion,
    reweighted,
    wilson,
)
from isocenter.evaluation.overlap import Overlap, confusion, dice, iou, overlap, overlaps, volume_unit
from isocenter.evaluation.predictive import predictive_values
from isocenter.evaluation.summary import mean_rows, pooled_rows
from isocenter.evaluation.table import (
    Table,
    case_table,
    check_table,
    class_names,
    metric_columns,
    rows_from_json,
    rows_to_json,
)

__all__ = [
    "Confusion",
    "Froc",
    "Matches",
    "Overlap",
    "Surface",
    "SurfaceDistance",
    "Table",
    "auroc",
    "average_precision",
    "bootstrap",
    "bootstrap_statistic",
    "box_iou",
    "box_sizes",
    "brier",
    "calibration_error",
    "case_table",
    "check_table",
    "class_names",
    "clopper_pearson",
    "confusion",
    "dice",
    "ece",
    "elements",
    "iou",
    "log_loss",
    "mean_rows",
    "median",
    "metric_columns",
    "one_against_rest",
    "overlap",
    "overlaps",
    "pooled_rows",
    "precision_recall_curve",
    "predictive_values",
    "proportion",
    "reliability",
    "reweighted",
    "roc_band",
    "roc_curve",
    "rows_from_json",
    "rows_to_json",
    "surface_distance",
    "volume_unit",
    "wilson",
]

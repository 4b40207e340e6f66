"""Figures of a model's quality, each with its confidence interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.evaluation import (
        biomarkers,
        box_matching,
        calibration,
        calibration_fit,
        case_tables,
        centrelines,
        classification,
        conformal,
        distance,
        fairness,
        feature_rank,
        image_copies,
        image_fidelity,
        inserted_spheres,
        instances,
        intervals,
        label_errors,
        lesions,
        mask_overlap,
        membership,
        metric,
        positive_percent,
        region_shape,
        regression,
        screening,
        significance,
        site_pooling,
        survival,
        tracks,
        uncertainty,
        vessel_diameters,
    )
    from hilum.evaluation.case_tables import ALL, Table
    from hilum.evaluation.intervals import Seed
    from hilum.evaluation.metric import Metric, Metrics
    from hilum.evaluation.significance.paired_tests import CaseValues
    from hilum.evaluation.vessel_diameters import narrowing

lazy_index(__name__)

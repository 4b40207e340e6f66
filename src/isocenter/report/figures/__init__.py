"""Pictures from values: slices with outlines, charts with intervals.

Matplotlib is loaded with the first picture: what only predicts does without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.report.blocks import Figure
    from isocenter.report.figures.charts import (
        agreement,
        bland_altman,
        courses,
        forest,
        histogram,
        label_scores,
        over_time,
        scatter,
        training_curves,
    )
    from isocenter.report.figures.cohort import class_balance, flow_of_cases, profiles
    from isocenter.report.figures.detection import box_precision_recall, boxes, froc
    from isocenter.report.figures.discrimination import (
        confusion,
        decision,
        precision_recall,
        reliability,
        risk_coverage,
        roc,
    )
    from isocenter.report.figures.heat_map import bars, heat
    from isocenter.report.figures.registration import bent_grid, checkerboard, jacobian_map
    from isocenter.report.figures.result_page import ResultPage
    from isocenter.report.figures.sheets import contact_sheet, one_below_another, pair_sheet
    from isocenter.report.figures.slices import contours, objects, traces
    from isocenter.report.figures.survival import (
        SurvivalCurve,
        kaplan_meier,
        observed_against_predicted,
        survival_curve,
        time_ticks,
    )

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

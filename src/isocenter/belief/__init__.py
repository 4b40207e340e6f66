"""Belief: how far an answer holds. Calibration, sets and intervals, thresholds, and the measures of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.belief.assurance import (
        COVERS_FROM,
        FALSE,
        HIGH,
        LOW,
        MISSED,
        SET,
        SET_METRICS,
        Found,
        assured_classes,
        assured_covering,
        assured_each,
        covering_decisions,
        covering_rows,
        crossed_classes,
        crossed_each,
        interval_decisions,
        interval_rows,
        set_decisions,
        set_rows,
    )
    from isocenter.belief.calibration import (
        LEAST_CHANCE,
        calibrated,
        certainty_decisions,
        log_odds,
        spread_of_many,
    )
    from isocenter.belief.calibration_scores import (
        CALIBRATION_METRICS,
        LOG_LOSS_CHANGE,
        binary_calibration_rows,
        calibration_rows,
        of_before,
        rows_of_many,
        slope_rows,
        stated_chance,
    )
    from isocenter.belief.certainty import (
        ABSENT,
        BY_PRESENCE,
        CERTAINTY,
        COVERING,
        INTERVALS,
        METHODS_OF_MANY,
        PRESENT,
        SETS,
        USUAL_RISK,
        Certainty,
        finite,
        groups_of_finding,
        in_json,
        probabilities_of,
    )
    from isocenter.belief.doubt import DOUBT_METRICS, Doubted, doubt_rows
    from isocenter.belief.group_thresholds import (
        BY_GROUP,
        GroupThresholds,
        grouped_decisions,
        tuned_by_group,
    )
    from isocenter.belief.operating_points import (
        FEWEST_UNSEEN,
        NOBODY,
        NOT_KEPT,
        PREVALENCE,
        THRESHOLDS,
        UNKEPT,
        OperatingPoint,
        calling_decisions,
        check_numbers,
        chosen_thresholds,
        level_between,
        levels_in_words,
    )

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

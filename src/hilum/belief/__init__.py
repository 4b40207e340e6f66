"""Belief: how far an answer holds. Calibration, sets and intervals, thresholds, and the measures of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.belief import (
        box_belief,
        calibration_scores,
        certainties,
        class_belief,
        covering_results,
        dice_decoding,
        error_bars,
        label_belief,
        object_belief,
        operating_points,
        prediction_sets,
        time_belief,
        value_belief,
        voxel_belief,
        voxel_calibration,
        voxel_scores,
    )
    from hilum.belief.certainties import Certainty
    from hilum.belief.covering_results import UnseenCases

lazy_index(__name__)

"""Belief: how far an answer holds. Calibration, sets and intervals, thresholds, and the measures of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.belief import (
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
    from isocenter.belief.certainties import Certainty
    from isocenter.belief.covering_results import UnseenCases

lazy_index(__name__)

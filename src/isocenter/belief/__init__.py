"""Belief: how far an answer holds. Calibration, sets and intervals, thresholds, and the measures of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.belief.boxes import (
        CALLED_FROM,
        MAIER_HEIN,
        BoxAnswers,
        box_calibration_rows,
        boxes_of,
        calibrated_boxes,
        sides_of,
    )
    from isocenter.belief.calibration_scores import (
        CALIBRATION_METRICS,
        DOUBT_METRICS,
        LOG_LOSS_CHANGE,
        Doubted,
        binary_calibration_rows,
        calibration_rows,
        doubt_rows,
        of_before,
        slope_rows,
        stated_chance,
    )
    from isocenter.belief.certainty import (
        ABSENT,
        BY_PRESENCE,
        CERTAINTY,
        COVERING,
        HOLD_TOGETHER,
        INTERVALS,
        METHODS_OF_MANY,
        OF_VOXELS,
        PRESENT,
        SETS,
        USUAL_RISK,
        Certainty,
        certainty_decisions,
        chance_of,
        excluding_nothing,
        finite,
        in_json,
        probabilities_of,
        sigmoid,
        softmax,
        uncalibrated_of,
    )
    from isocenter.belief.classes import Classes, class_set
    from isocenter.belief.covering import (
        ADDED_MAPS,
        FALSE,
        MISSED,
        AddedResults,
        Answers,
        Rows,
        covering_rows,
        fewest_for_risk,
        risk_decisions,
    )
    from isocenter.belief.labels import Labels, label_sets
    from isocenter.belief.objects import (
        OBJECT,
        SCORES,
        Candidates,
        Numbers,
        ObjectAnswers,
        ObjectRow,
        Objects,
        confidence_of,
        network_scores,
        object_calibration_rows,
        object_sizes,
        objects_of,
        renumbered,
        score_columns,
        scores_in_json,
    )
    from isocenter.belief.operating_points import (
        BY_GROUP,
        FEWEST_UNSEEN,
        NOBODY,
        PREVALENCE,
        THRESHOLDS,
        UNKEPT,
        Calls,
        GroupThresholds,
        OperatingPoint,
        calling_decisions,
        check_numbers,
        grouped_decisions,
        levels_in_words,
    )
    from isocenter.belief.prediction_sets import (
        HIGH,
        LOW,
        SET,
        SET_METRICS,
        interval_decisions,
        interval_rows,
        set_decisions,
        set_rows,
    )
    from isocenter.belief.times import BOUNDS, TIME, LowerBound, Times
    from isocenter.belief.values import INTERVAL_METHODS, Values, by_fold, interval, quantiles, variances, widened
    from isocenter.belief.voxel_calibration import (
        VoxelProbabilities,
        VoxelStream,
        check_voxels,
        voxel_in_unit,
    )
    from isocenter.belief.voxel_scores import ECE, VOXEL_METRICS, voxel_columns, voxel_rows
    from isocenter.belief.voxels import FEWEST_PATIENTS, MARGIN, VoxelAnswers, surely_rises

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

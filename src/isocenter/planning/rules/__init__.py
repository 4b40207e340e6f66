"""The rules of planning: one file for each group of decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.planning.rules.anatomy import left_right, names_of
    from isocenter.planning.rules.augmentation import flips_at_test
    from isocenter.planning.rules.cascade import (
        CASCADE,
        CROSS_FITS,
        MINUTES_A_TRAINING,
        TRAININGS,
        cascade_decision,
        compared_configurations,
        least_minutes,
        low_resolution,
        marks_decision,
    )
    from isocenter.planning.rules.context_fusion import MANY_ENTRIES, fusion_decisions
    from isocenter.planning.rules.covariates import context_decision, image_only, sided_covariate
    from isocenter.planning.rules.grid import (
        FEW_SLICES,
        REDUCTION,
        Grid,
        GridNeeds,
        flat,
        grid_for,
        in_haste,
        window_for,
    )
    from isocenter.planning.rules.groups import groups_decision, refuse_groups
    from isocenter.planning.rules.learning import (
        LEAST_BATCH,
        VERY_LONG,
        WITH_SGD,
        batch_decision,
        training,
        usual_batch,
    )
    from isocenter.planning.rules.modalities import EARLY, Holes, absent_decision, dropout_decision, with_presence
    from isocenter.planning.rules.preprocessing import CLIPS, channels_of, frames_of, lasting
    from isocenter.planning.rules.profiles import NNUNET, profile_for
    from isocenter.planning.rules.shortcuts import Retest
    from isocenter.planning.rules.split import Parts, counts_of, folds_decision, split_folds

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

"""Kinds of problem. A new kind is one file and its line in `index.TASKS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.tasks.catalogue import (
        build,
        channels_of,
        kind,
        kind_for,
        learns_from_references,
        names,
        needs_of,
        uncalibrated,
        untuned,
        voxel_bytes,
    )
    from isocenter.tasks.fitting import (
        Evidence,
        aligned,
        deciding_part,
        fitted,
        found_settings,
        needs_alignment,
        with_calibration,
        with_sets,
        with_sets_of_folds,
    )
    from isocenter.tasks.index import TASKS
    from isocenter.tasks.multitask import part_tables
    from isocenter.tasks.properties import (
        added_results,
        by_covariates,
        dense_channels,
        fewest_samples,
        head_of,
        joined_maps,
        leaves,
        marks_labels,
        may_miss,
        mirrored_channels,
        own_outputs,
        part_names,
        part_of,
        picks_a_label,
        picks_a_side,
        refuse_unknown_sides,
        rows_in,
        stated_image,
        suffices,
        sureness,
    )
    from isocenter.tasks.settings import (
        compared_by,
        following,
        found_after_training,
        registered_settings,
        search_values,
        setting_sentences,
        settings_of,
        target_settings,
        task_from,
        unkept_rules,
    )
    from isocenter.tasks.shared import (
        BETWEEN,
        COARSEST,
        EACH,
        MEASURES,
        OUTPUT,
        STATE_SIDES,
        WITHIN,
        Ratio,
        Shares,
        have_sides,
        mean_of,
        measured_findings,
        numbered_teeth,
        ratios_from,
        sided_names,
        unknown_sides,
    )
    from isocenter.tasks.task import IMAGES, Guess, Origin, Outputs, Task

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

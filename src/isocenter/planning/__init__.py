"""Every decision before training: from data, machine and budget to a plan with reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.planning.changes import (
        ENDED_EARLY,
        FOLD_BATCHES,
        FOLD_SCALES,
        FOLD_SEARCHES,
        before_run,
        for_fold,
        shared_by_folds,
        untrained,
        with_memory,
        with_settings,
        without_cascade,
    )
    from isocenter.planning.checks import check_wishes, settings
    from isocenter.planning.machine import Machine, cores, this_machine
    from isocenter.planning.memory import CACHED_SHARE
    from isocenter.planning.plan import make_plan
    from isocenter.planning.plan_file import (
        GROUPS,
        parse_value,
        plan_text,
        read_plan,
        registered,
        registered_groups,
        registered_margin,
    )
    from isocenter.planning.plan_prose import is_silent, overview, paragraphs, prose, sentences_of
    from isocenter.planning.planned import COVARIATES, EVERYTHING, SCALE, TOO_LARGE, Planned, relative_to, training_ids
    from isocenter.planning.rules.cascade import CASCADE, CROSS_FITS, compared_configurations, low_resolution
    from isocenter.planning.rules.context_fusion import MANY_ENTRIES
    from isocenter.planning.rules.groups import refuse_groups
    from isocenter.planning.rules.inner_folds import with_inner_folds
    from isocenter.planning.rules.learning import LEAST_BATCH
    from isocenter.planning.rules.normalisation import constant_problems
    from isocenter.planning.rules.objectives import with_objective_settings
    from isocenter.planning.rules.preprocessing import normalised_problems
    from isocenter.planning.rules.profiles import profile_for
    from isocenter.planning.rules.shortcuts import Retest
    from isocenter.planning.rules.split import Parts, counts_of, folds_decision, split, split_folds
    from isocenter.planning.search import (
        Between,
        Domain,
        OneOf,
        Room,
        Space,
        changed,
        own_choices,
        space,
        space_of,
        space_record,
        tried,
        words,
    )
    from isocenter.planning.sections import Evaluation, Network, Search, Settings, Splitting, Training, check_value
    from isocenter.planning.wishes import Wishes

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

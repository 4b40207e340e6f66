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
    from isocenter.planning.inputs import Wishes
    from isocenter.planning.memory import Machine, cached_memory, cores, this_machine
    from isocenter.planning.plan import make_plan
    from isocenter.planning.plan_file import (
        GROUPS,
        parse_value,
        plan_text,
        read_plan,
        recipe,
        registered,
        registered_groups,
        registered_margin,
    )
    from isocenter.planning.plan_prose import is_silent, overview, paragraphs, prose, sentences_of
    from isocenter.planning.planned import (
        COVARIATES,
        EVERYTHING,
        FURTHER,
        LEAVE_OUT,
        SCALE,
        TOO_LARGE,
        Planned,
        relative_to,
        training_ids,
    )
    from isocenter.planning.rules.cascade import CASCADE, CROSS_FITS, compared_configurations, low_resolution
    from isocenter.planning.rules.covariates import MANY_ENTRIES
    from isocenter.planning.rules.groups import refuse_groups
    from isocenter.planning.rules.learning import TAKEN, with_transfer
    from isocenter.planning.rules.normalisation import constant_problems
    from isocenter.planning.rules.objectives import with_objective_settings
    from isocenter.planning.rules.preprocessing import Retest, normalised_problems
    from isocenter.planning.rules.profiles import profile_for
    from isocenter.planning.rules.split import Parts, counts_of, folds_decision, split, split_folds, with_inner_folds
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
    from isocenter.planning.sections import (
        LEAST_BATCH,
        Evaluation,
        Network,
        Search,
        Settings,
        Splitting,
        Training,
        Transfer,
    )
    from isocenter.planning.typed import check_value

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

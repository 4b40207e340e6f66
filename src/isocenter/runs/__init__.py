"""The trainings of a run: which ones there are and in which order, and how the minutes are dealt among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.runs.decisions import log_decisions, with_outcome, with_reasons, with_searches
    from isocenter.runs.minutes import (
        AS_STEPS,
        FEWEST_LOOKED,
        Minutes,
        SearchLength,
        Stages,
        afforded,
        covariates_seconds,
        deadline,
        fitting_seconds,
        fresh_model,
        longest_looking,
        looking_seconds,
        of_mean_size,
        stages_in_words,
    )
    from isocenter.runs.roles import (
        BOTH,
        BY_SLICES,
        BY_VOLUMES,
        CONFIGURATIONS,
        MOST_UNSEEN,
        NETWORKS,
        NNUNET,
        compares,
        configuration,
        configuration_plan,
        configurations,
        evenly,
        first_stage_plan,
        fold_by_case,
        has_cascade,
        inner_folds,
        networks_decision,
        next_of,
        searched,
        training_of,
        trial,
        wants_control,
        why_single,
    )
    from isocenter.runs.training import (
        CONFIGURED,
        IMAGE_ONLY,
        INNER,
        MORE,
        SEARCH,
        Costs,
        Finished,
        Role,
        Training,
        Trial,
    )
    from isocenter.runs.trials import TRIED, Search, SearchResult, result_in, selected, trials_in

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

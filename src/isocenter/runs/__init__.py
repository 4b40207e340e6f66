"""The trainings of a run: which ones there are and in which order, and how the minutes are dealt among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.runs.configuration_results import configuration_notes, configuration_sections, configured
    from isocenter.runs.covariate_baseline import CovariateShare, covariates_stated
    from isocenter.runs.distributed import in_all_processes
    from isocenter.runs.fit import prepared
    from isocenter.runs.foresight import watched_reading
    from isocenter.runs.gate import gate_of_site, guarded_by
    from isocenter.runs.initial_weights import Source, source_of
    from isocenter.runs.loop import log_decisions, trained, with_reasons, with_searches, with_stop
    from isocenter.runs.minutes import (
        AS_STEPS,
        FEWEST_LOOKED,
        UNCUT,
        Cuts,
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
        model_with,
        of_mean_size,
        stages_in_words,
    )
    from isocenter.runs.plan_request import (
        PLAN_SUFFIXES,
        POSITIVE,
        USUAL_MINUTES,
        PlanRequest,
        planned,
        positive_among,
        positives_chosen,
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
        configuration_plan,
        configurations,
        first_stage_plan,
        fold_by_case,
        has_cascade,
        networks_decision,
        next_of,
        searched,
        training_of,
        trial,
        wants_control,
        why_single,
    )
    from isocenter.runs.run_end import (
        ENVIRONMENT,
        Trained,
        less_than_one_pass,
        notes_of,
        training_log,
        write_environment,
        write_notes,
        write_report,
    )
    from isocenter.runs.run_folder import (
        MARKS,
        MOST,
        NOTES,
        REPORT,
        START,
        RunFolder,
        ValidationImages,
        new_run,
        planned_from,
        resumed_run,
        validation_images,
    )
    from isocenter.runs.run_report import RunReport, search_sections, selecting
    from isocenter.runs.search import refuse_unsearchable
    from isocenter.runs.teacher import distillation_of
    from isocenter.runs.training import (
        CONFIGURED,
        IMAGE_ONLY,
        SEARCH,
        Costs,
        Finished,
        Role,
        Training,
        Trial,
        evenly,
    )
    from isocenter.runs.trials import TRIED, Search, SearchResult, result_in, selected, trials_in
    from isocenter.runs.tuning import OutOfFold, Unseen
    from isocenter.runs.validation_course import epoch_limit, training_length

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

"""The trainings of a run: which ones there are and in which order, and how the minutes are dealt among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.runs import (
        configuration_results,
        covariate_baseline,
        distributed,
        foresight,
        gate,
        initial_weights,
        label_trainings,
        plan_request,
        privacy_record,
        run_end,
        run_folder,
        run_report,
        run_search,
        search_trials,
        split_changes,
        teacher_models,
        training_jobs,
        training_loop,
        tuning,
        validation_course,
    )

lazy_index(__name__)

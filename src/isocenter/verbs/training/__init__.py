"""The parts of `train`: run folder, time budget, one training, folds, the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.verbs.training.cascade_stage import Before
    from isocenter.verbs.training.covariate_baseline import covariates_seconds, covariates_stated
    from isocenter.verbs.training.distributed import in_all_processes
    from isocenter.verbs.training.fit import Job, predicted, prepared, say_decided, tuned, with_decided, with_outcome
    from isocenter.verbs.training.folds import OutOfFold, cross_validated
    from isocenter.verbs.training.image_only_control import evaluated_untold, image_job, is_wanted, trained_untold
    from isocenter.verbs.training.initial_weights import weights_of
    from isocenter.verbs.training.run_end import (
        ENVIRONMENT,
        EVALUATION,
        evaluated,
        notes_of,
        training_log,
        write_environment,
        write_report,
    )
    from isocenter.verbs.training.run_folder import MARKS, NOTES, REPORT, Begun, begin, planned_from, resumed, state_of
    from isocenter.verbs.training.run_report import report
    from isocenter.verbs.training.search import Found, found_in, refuse_unsearchable, searched
    from isocenter.verbs.training.search_report import search_sections
    from isocenter.verbs.training.time_budget import Afterwards, fresh_model, shared_deadline

__all__ = [
    "ENVIRONMENT",
    "EVALUATION",
    "MARKS",
    "NOTES",
    "REPORT",
    "Afterwards",
    "Before",
    "Begun",
    "Found",
    "Job",
    "OutOfFold",
    "begin",
    "covariates_seconds",
    "covariates_stated",
    "cross_validated",
    "evaluated",
    "evaluated_untold",
    "found_in",
    "fresh_model",
    "image_job",
    "in_all_processes",
    "is_wanted",
    "notes_of",
    "planned_from",
    "predicted",
    "prepared",
    "refuse_unsearchable",
    "report",
    "resumed",
    "say_decided",
    "search_sections",
    "searched",
    "shared_deadline",
    "state_of",
    "trained_untold",
    "training_log",
    "tuned",
    "weights_of",
    "with_decided",
    "with_outcome",
    "write_environment",
    "write_report",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

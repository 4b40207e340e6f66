"""The parts of `train`: run folder, time budget, one training, folds, the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.verbs.training.configurations import configuration_notes, configuration_sections, configured
    from isocenter.verbs.training.covariate_baseline import CovariateShare, covariates_stated
    from isocenter.verbs.training.distributed import in_all_processes
    from isocenter.verbs.training.fit import prepared
    from isocenter.verbs.training.gate import gate_of_site, guarded_by
    from isocenter.verbs.training.initial_weights import weights_of
    from isocenter.verbs.training.loop import OutOfFold, trained
    from isocenter.verbs.training.run_end import (
        ENVIRONMENT,
        Trained,
        less_than_one_pass,
        notes_of,
        training_log,
        write_environment,
        write_notes,
        write_report,
    )
    from isocenter.verbs.training.run_folder import (
        MARKS,
        NOTES,
        REPORT,
        START,
        RunFolder,
        new_run,
        planned_from,
        resumed_run,
    )
    from isocenter.verbs.training.run_report import RunReport, search_sections, selecting
    from isocenter.verbs.training.search import refuse_unsearchable
    from isocenter.verbs.training.tuning import predicted
    from isocenter.verbs.training.validation_course import training_length

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

"""Reading for all verbs: data set, device, output folder, progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.verbs.reading.check_report import SEVERITIES, case_record, check_page
    from isocenter.verbs.reading.dataset import (
        looked_through,
        open_dataset,
        open_labelled,
        opened_and_looked_through,
        path_of,
        refuse_unfit,
        with_references,
    )
    from isocenter.verbs.reading.device import announced_device
    from isocenter.verbs.reading.failures import failed_rows, failures_among, no_result
    from isocenter.verbs.reading.inputs import Covariates, Input, covered, open_inputs
    from isocenter.verbs.reading.name_values import pairs
    from isocenter.verbs.reading.options import (
        ALLOW_LARGE,
        VOXELS,
        ReadingKeywords,
        ReadingOptions,
    )
    from isocenter.verbs.reading.output_folder import refuse_missing, refuse_taken, result_folder
    from isocenter.verbs.reading.progress import Tracker, tracked, watched

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

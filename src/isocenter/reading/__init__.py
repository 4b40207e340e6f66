"""From a path to a data set that was looked through: options, cases, what could not be read, and folders of results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.reading.alignment import Alignment, aligned_case, write_alignment
    from isocenter.reading.dataset import (
        Data,
        looked_through,
        open_dataset,
        open_for,
        open_labelled,
        opened_and_looked_through,
        path_of,
        refuse_unfit,
        with_references,
    )
    from isocenter.reading.device import announced_device
    from isocenter.reading.failures import failed_rows, failures_among, no_result
    from isocenter.reading.image_pairs import first_guess, pair_of_images, pairs_of, pairs_table
    from isocenter.reading.inputs import Covariates, Input, covered, open_inputs
    from isocenter.reading.name_values import pairs
    from isocenter.reading.options import ALLOW_LARGE, VOXELS, ReadingKeywords, ReadingOptions
    from isocenter.reading.output_folder import refuse_missing, refuse_taken, result_folder

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

"""Data sets from a path: options, cases, what could not be read, and folders of results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.reading.alignment import aligned_case, write_alignment
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
    from isocenter.reading.image_pairs import FIXED, MOVING, first_guess, pair_of_images, pairs_of, pairs_table
    from isocenter.reading.inputs import covered, drawn_on_grid, name_of_source, open_inputs, opened_image
    from isocenter.reading.options import ALLOW_LARGE, VOXELS, Alignment, Covariates, Input, ReadingOptions, pairs
    from isocenter.reading.results import (
        case_outcomes,
        failed_rows,
        failures_among,
        no_result,
        refuse_missing,
        refuse_taken,
        result_folder,
    )

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

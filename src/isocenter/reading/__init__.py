"""Data sets from a path: options, cases, what could not be read, and folders of results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.reading import (
        alignment,
        dataset_reading,
        image_pairs,
        image_targets,
        images_of_maps,
        imputation,
        input_cases,
        measured_images,
        prompt_reading,
        reading_options,
        verb_results,
    )
    from isocenter.reading.reading_options import ReadingOptions

lazy_index(__name__)

"""Data sets from a path: options, cases, what could not be read, and folders of results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.reading import (
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
    from hilum.reading.reading_options import ReadingOptions

lazy_index(__name__)

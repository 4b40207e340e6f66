"""A case predicted: read, computed, written; where cases are computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.prediction.answers import FORMATS, Wanted
    from isocenter.prediction.case import Asked, Done, Explains, computed, image_of, in_memory, noted
    from isocenter.prediction.findings_file import FINDINGS, Examined, findings_record, model_named, write_findings
    from isocenter.prediction.moved_files import SERIES, write_dicom_pair
    from isocenter.prediction.result_files import (
        EXPLANATION,
        PROGRAM,
        algorithm_of,
        kinds_of_maps,
        with_own_names,
        write_maps,
    )
    from isocenter.prediction.where import Here, Predictor, There, announce, in_full, loaded_model
    from isocenter.prediction.withheld import confidence_columns

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

"""A case predicted: read, computed, written; where cases are computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.prediction.answers import FORMATS, Wanted
    from isocenter.prediction.case import Asked, Done, Explains, computed
    from isocenter.prediction.findings_file import FINDINGS, Examined, findings_record, write_findings
    from isocenter.prediction.result_files import (
        EXPLANATION,
        SERIES,
        algorithm_named,
        kinds_of_maps,
        model_named,
        with_own_names,
        write_dicom_pair,
        write_maps,
    )
    from isocenter.prediction.where import Here, Predictor, There, image_of, in_full, in_memory, loaded_model
    from isocenter.prediction.withheld import confidence_columns, noted

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

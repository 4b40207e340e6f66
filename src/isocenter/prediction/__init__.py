"""A case predicted: read, computed, written; where cases are computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.prediction.answers import FORMATS, Wanted
    from isocenter.prediction.case import Asked, Done, Explains, computed
    from isocenter.prediction.findings_file import FINDINGS, Examined, findings_record, write_findings
    from isocenter.prediction.model_name import PROGRAM, algorithm_of, model_named
    from isocenter.prediction.moved_files import SERIES, write_dicom_pair
    from isocenter.prediction.read_ahead import image_of, in_memory
    from isocenter.prediction.result_files import (
        EXPLANATION,
        kinds_of_maps,
        with_own_names,
        write_maps,
    )
    from isocenter.prediction.where import Here, Predictor, There, in_full, loaded_model
    from isocenter.prediction.withheld import confidence_columns, noted

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

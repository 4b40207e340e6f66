"""A case predicted: read, computed, written; where cases are computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.prediction import (
        answers,
        case_prediction,
        earlier_study,
        findings_file,
        lesion_follow_up,
        model_advice,
        model_reconstruction,
        predictors,
        result_files,
        slide_results,
        withholding,
    )

lazy_index(__name__)

"""Scores of cases with their parts, groups, tests of the model and lineage: what `evaluation/` in a run holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.scoring import (
        answered_cases,
        auditing,
        case_scoring,
        case_selection,
        data_record,
        evaluation_notes,
        explaining,
        image_subsets,
        model_comparison,
        model_verdict,
        other_versions,
    )

lazy_index(__name__)

"""The grounds of a model's answer: maps, their tests, and the places that they mark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.explanation import (
        answer_maps,
        case_on_grid,
        concept_tests,
        counterfactuals,
        evidence_places,
        explanation_methods,
        faithfulness,
    )

lazy_index(__name__)

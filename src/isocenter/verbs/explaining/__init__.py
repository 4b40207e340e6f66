"""Explanations for all verbs: cases through methods, and the pages that show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.verbs.explaining.cohort import (
        COLUMNS,
        Explainer,
        Looked,
        Made,
        cohort_findings,
        each_case,
        with_references,
        with_tests,
    )
    from isocenter.verbs.explaining.concepts import CONCEPTS, Cohort, concepts_of, refuse_clips, refuse_concepts
    from isocenter.verbs.explaining.counterfactuals import (
        COUNTERFACTUALS,
        counterfactuals_of,
        kinds_of_maps,
        with_gradients,
    )
    from isocenter.verbs.explaining.report import (
        explanation_page,
        findings_sentence,
        method_blocks,
        verdict_sentence,
    )
    from isocenter.verbs.explaining.tests_of_methods import (
        Tested,
        keep,
        kept_content,
        kept_records,
        spread_out,
        tested_methods,
    )

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

"""Explanations for all verbs: cases through methods, and the pages that show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.verbs.explaining.case_by_case import Looked, each_case
    from isocenter.verbs.explaining.cohort import COLUMNS, Explainer, Made
    from isocenter.verbs.explaining.cohort_results import cohort_findings, with_references, with_tests
    from isocenter.verbs.explaining.concepts import CONCEPTS, Cohort, concepts_of, refuse_clips, refuse_concepts
    from isocenter.verbs.explaining.counterfactuals import (
        COUNTERFACTUALS,
        counterfactuals_of,
        kinds_of_maps,
        with_gradients,
    )
    from isocenter.verbs.explaining.kept import keep, kept_content, kept_records
    from isocenter.verbs.explaining.report import (
        explanation_page,
        findings_sentence,
        method_blocks,
        verdict_sentence,
    )
    from isocenter.verbs.explaining.tests_of_methods import Tested, spread_out, tested_methods

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

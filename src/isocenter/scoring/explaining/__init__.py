"""Explanations of cases, for `evaluate`, which loads torch and captum only where somebody asks for maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.scoring.explaining.cohort import COLUMNS, Explainer, Made, with_references, with_tests
    from isocenter.scoring.explaining.report import method_blocks, verdict_sentence

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

"""Explanations for all verbs: cases through methods, and the pages that show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.verbs.explaining.cohort import COLUMNS, Explainer, Made
    from isocenter.verbs.explaining.report import explanation_page

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

"""Pictures from values: slices with outlines, charts with intervals.

Matplotlib is loaded with the first picture: what only predicts does without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.report.figures import (
        box_figures,
        charts,
        cohort_figures,
        discrimination_figures,
        drawing,
        enhancement_figures,
        heat_map,
        registration_figures,
        result_page,
        sheets,
        slice_figures,
        survival_figures,
    )

lazy_index(__name__)

"""Groups of people, and how far a model's figures lie apart among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.evaluation.fairness.attributes import (
        NONE,
        UNKNOWN,
        covariates_by_name,
        default_groups,
        groups_of,
        in_order,
    )
    from isocenter.evaluation.fairness.gaps import (
        FEW,
        Dealt,
        Gap,
        abstention_gap,
        adjusted_gaps,
        can_be_dealt,
        classes_of,
        dealt,
        few_in,
        gap_of_estimates,
        gap_of_recipe,
        rate_gaps,
    )
    from isocenter.evaluation.fairness.neighbours import Alike, neighbour_gap
    from isocenter.evaluation.fairness.shift import (
        OTHERS,
        Balance,
        Patients,
        Shifted,
        encoded,
        group_shift,
        matched,
        propensity,
        shift_words,
        standardised_difference,
    )

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

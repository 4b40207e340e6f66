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
    from isocenter.evaluation.fairness.dealing import Dealt, can_be_dealt, dealt
    from isocenter.evaluation.fairness.gaps import (
        FEW,
        Gap,
        abstention_gap,
        adjusted_gaps,
        classes_of,
        few_in,
        gap_of_estimates,
        gap_of_recipe,
        rate_gaps,
    )
    from isocenter.evaluation.fairness.matching import encoded, matched, propensity, standardised_difference
    from isocenter.evaluation.fairness.neighbours import Alike, neighbour_gap
    from isocenter.evaluation.fairness.shift import OTHERS, Balance, Patients, Shifted, group_shift, shift_words

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

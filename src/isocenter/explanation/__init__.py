"""The grounds of a model's answer: maps, their tests, and the places that they mark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.explanation.case_on_grid import (
        WHOLE,
        CaseOnGrid,
        Objective,
        Subject,
        UnfitError,
        refuse_unknown_target,
    )
    from isocenter.explanation.concepts import (
        Concept,
        Seen,
        Surrogate,
        additive_surrogate,
        refuse_few,
        seen_by_network,
        tcav,
    )
    from isocenter.explanation.counterfactuals import (
        Counterfactual,
        Flip,
        changeable,
        counterfactual,
        flipping_covariates,
    )
    from isocenter.explanation.faithfulness import (
        FEWEST,
        TESTED,
        TESTS_VERSION,
        Window,
        plain_estimate,
        tried,
        verdict_of,
    )
    from isocenter.explanation.maps import Explanation, explained
    from isocenter.explanation.methods import ALL, AUTO, METHODS, USUAL, Method, named_methods
    from isocenter.explanation.places import PLACED, Small, against, findings_of, map_measures, marked_in, values_of

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

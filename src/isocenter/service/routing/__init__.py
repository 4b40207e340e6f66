"""The choice of the model that answers a series: facts of series, conditions of rules, and reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.service.routing.answers import box_inside, study_answers
    from isocenter.service.routing.facts import (
        IMAGE,
        ModelFacts,
        SeriesFacts,
        attributes_of,
        cases_of,
        facts_of,
        folder_of,
    )
    from isocenter.service.routing.rules import (
        Condition,
        Routed,
        Routing,
        StudyAnswers,
        inputs_hash,
        rules_of,
        series_hash,
        study_routing,
    )

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

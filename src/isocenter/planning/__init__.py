"""Every decision before training: from data, machine and budget to a plan with reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.planning import (
        plan_changes,
        plan_checks,
        plan_file,
        plan_inputs,
        plan_result,
        plan_sections,
        plan_text,
        planner,
        rules,
        search_domains,
        training_memory,
        typed_sections,
    )
    from isocenter.planning.plan_result import PlannedTraining
    from isocenter.planning.plan_sections import PlanSettings

lazy_index(__name__)

"""Every decision before training: from data, machine and budget to a plan with reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.planning import (
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
    from hilum.planning.plan_result import PlannedTraining
    from hilum.planning.plan_sections import PlanSettings

lazy_index(__name__)

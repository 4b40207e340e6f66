"""Objectives: the terms that training lowers. A new one is one file and its line in `catalogue.OBJECTIVES`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.objectives.catalogue import OBJECTIVES, needs_of, objective_kind, objective_names
    from isocenter.objectives.distillation import Distillation
    from isocenter.objectives.objective import SUPERVISED, Embedded, Needs, Objective, Positives, Seen, Step

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

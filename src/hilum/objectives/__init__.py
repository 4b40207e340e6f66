"""Objectives: the terms that training lowers. A new one is a file and its line in `objective_catalogue.OBJECTIVES`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.objectives import dann, distillation, flow, image_text, objective_catalogue, objective_terms

lazy_index(__name__)

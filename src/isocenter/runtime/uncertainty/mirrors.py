"""Uncertainty as the disagreement between mirrored views of a window."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from isocenter.errors import PlanError
from isocenter.runtime.inference import TTA
from isocenter.runtime.uncertainty.method import Basis, Without

if TYPE_CHECKING:
    from isocenter.runtime.windows.pipeline import WindowSettings


class Mirrors(Without):
    """The disagreement between mirrored views, which the network also sees for it where nothing else asks for them."""

    def lacking(self, basis: Basis) -> str:
        """Why there are no mirrored views; empty where there are."""
        try:
            basis.flips()
        except PlanError as error:
            return basis.silent or f"no mirrored view is true to anatomy ({error.problem})"
        return basis.silent

    def windows(self, basis: Basis, planned: WindowSettings) -> WindowSettings:
        """The windows, also mirrored."""
        return replace(planned, flips=planned.flips or basis.flips(), differ=basis.differ)


METHOD = Mirrors(TTA)

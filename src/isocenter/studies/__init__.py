"""Studies: how many participants a study needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.studies.looks import Look, bounds, crossing
    from isocenter.studies.proportions import null_variance
    from isocenter.studies.readers import pilot_inputs
    from isocenter.studies.sizing import DESIGNS, Simulated, Size, known_inputs, sized

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

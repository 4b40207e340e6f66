"""The uncertainty of a model's answers, and the part of it in which several views of an image disagree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.runtime.uncertainty.disagreement import Disagreement
    from isocenter.runtime.uncertainty.last_layers import LastLayers
    from isocenter.runtime.uncertainty.methods import last_layers_of, with_uncertainty
    from isocenter.runtime.uncertainty.receiver import EPISTEMIC, TOTAL, Uncertainty

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)

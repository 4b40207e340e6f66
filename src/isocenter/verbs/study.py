"""`study`: how large a study has to be."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from isocenter import studies
from isocenter.errors import UsageError
from isocenter.keywords import named_keywords
from isocenter.studies import Size


@named_keywords()
def study_size(design: str, *, assignments: Mapping[str, Any] | None = None, simulate: int = 0, seed: int = 0) -> Size:
    """How many participants, clusters or events a study needs; or its power, or the effect that it finds.

    design:      proportion, proportions, paired-proportions, means, auroc, survival, prediction-model, stepped-wedge
    assignments: its inputs, such as {"expected": 0.9, "at_least": 0.8}; of n, power and the effect one is left out
    simulate:    studies that are made up and tested, to check the power
    Raises UsageError for an unknown design or input, a value out of bounds, and an effect of 0.
    """
    if find_spec("statsmodels") is None:
        raise UsageError("statsmodels is not installed", "study size", "pip install 'isocenter[documents]'")
    if simulate < 0:
        raise UsageError(f"simulate is {simulate}", "--simulate", "Give a number of studies, such as 1000")
    return studies.sized(design, assignments or {}, simulate=simulate, seed=seed)

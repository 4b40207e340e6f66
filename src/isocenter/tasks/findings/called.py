"""The findings that are called: those from their threshold on.

A copy of this file travels with a packaged model.
"""

from __future__ import annotations

from collections.abc import Mapping

from isocenter.belief import probabilities_of
from isocenter.values import Prediction

# Where no rule has found another.
DEFAULT_THRESHOLD = 0.5


def called_findings(prediction: Prediction, thresholds: Mapping[str, float]) -> dict[str, bool]:
    """{finding: whether its probability reaches its threshold, the patient's own where there is one}"""
    levels = {**thresholds, **prediction.confidence.thresholds}
    return {
        name: chance >= levels.get(name, DEFAULT_THRESHOLD) for name, chance in probabilities_of(prediction).items()
    }

"""Decisions about a task's probabilities: those of plans, and those by unseen cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from isocenter.belief.certainty import AUTO, Certainty
from isocenter.evaluation import USUAL_SPREAD, Unseen, chosen_calibrator
from isocenter.values import Decision, Floats

# The logarithm of less is no number.
LEAST_CHANCE = 1e-300
# The largest probability of float64 below 1 is so far from it.
ROUNDING = 2**-53
GUO = "arXiv:1706.04599"


def calibrated(certainty: Certainty, unseen: Unseen) -> tuple[Certainty, dict[str, Decision]]:
    """Add a calibration by these cases, unless there is one, and its decision."""
    if certainty.calibration is not None:
        return certainty, {}
    choice = chosen_calibrator(certainty.calibration_method, unseen)
    decision = Decision(choice.calibrator.settings, choice.because, GUO)
    return replace(certainty, calibration=choice.calibrator), {"task.calibration": decision}


def certainty_decisions() -> dict[str, Decision]:
    """The settings of a task whose probabilities are calibrated, before any case has found something."""
    because = (
        "auto takes the simplest method that is not surely worse than the best in patients that it was not fitted on"
    )
    return {
        "calibration_method": Decision(AUTO, because, GUO),
        "calibration": Decision(None, "it is fitted to predictions of unseen cases after training"),
    }


def spread_of_many(patients: np.ndarray) -> float:
    """`Unseen.spread` of answers of which a patient has many, such as boxes; patients: (answers,)

    Each is an answer of its own, so that what so many say outweighs what was expected before.
    """
    return USUAL_SPREAD * max(1.0, len(patients) / max(1, len(np.unique(patients)))) ** 0.5


def log_odds(chances: Floats) -> Floats:
    """Logarithms of the odds of probabilities, which are finite at 0 and 1 too."""
    return np.asarray(np.log(chances.clip(LEAST_CHANCE)) - np.log1p(-chances.clip(max=1 - ROUNDING)))

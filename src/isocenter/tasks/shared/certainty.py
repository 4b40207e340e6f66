"""How far a task's results can be believed: what unseen cases found about its probabilities, as settings of the task.

A copy of this file travels with a packaged model, and needs NumPy only there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from isocenter.errors import PlanError
from isocenter.evaluation import METHODS, Calibrator
from isocenter.values import Prediction

AUTO = "auto"
# The names of its settings in the plan's section "task".
CERTAINTY = ("calibration_method", "calibration")


@dataclass(frozen=True)
class Certainty:
    """What holds for the probabilities of a task.

    calibration_method: "auto" or one of `METHODS`
    calibration:        the calibrator that cases which did not train have found; None until then
    """

    calibration_method: str = AUTO
    calibration: Calibrator | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Certainty:
        """From a task's settings, of which an older plan may lack any; PlanError names the one that cannot be."""
        method, given = str(settings.get("calibration_method", AUTO)), settings.get("calibration")
        if method not in (AUTO, *METHODS):
            remedy = f"Choose one of {', '.join((AUTO, *METHODS))}"
            raise PlanError(f"there is no calibration {method!r}", "task.calibration_method", remedy)
        try:
            return cls(method, None if given is None else Calibrator.of(given))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problem = f"impossible calibration ({type(error).__name__}: {error})"
            raise PlanError(problem, "task.calibration", "Leave it to `isocenter train` or `calibrate`") from error

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values from which `of` makes an equal one."""
        return {
            "calibration_method": self.calibration_method,
            "calibration": None if self.calibration is None else self.calibration.settings,
        }

    @property
    def calibrator(self) -> Calibrator:
        """What is applied to probabilities; a calibrator that changes nothing until one is found."""
        return self.calibration or Calibrator()


def probabilities_of(prediction: Prediction) -> Mapping[str, float]:
    """{class or finding: probability}"""
    assert prediction.probabilities is not None  # noqa: S101 - `decode` always gives them
    return prediction.probabilities

"""The certainty of a task's results: findings of unseen cases about its probabilities, as settings of the task.

A copy of this file travels with a packaged model, and needs NumPy only there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from isocenter.errors import PlanError
from isocenter.evaluation import (
    EVERYONE,
    METHODS,
    SET_METHODS,
    SIZE,
    Calibrator,
    Conformal,
)
from isocenter.values import Prediction, is_missing, level_in

AUTO = "auto"
# The names of its settings in the plan's section "task".
CERTAINTY = ("calibration_method", "calibration")
# Those of sets and intervals, and those of them that need no choice of method.
INTERVALS = ("coverage", "conformal")
SETS = (*INTERVALS, "conformal_method", "conformal_by")
# Those of masks that miss little.
COVERING = ("risk", "risk_delta", "covering")
# Ends of the names of settings that hold only beside the other settings with which they were found.
HOLD_TOGETHER = ("conformal", "covering")
# Of the calibration of boxes and objects, which have a size.
METHODS_OF_MANY = (*METHODS, SIZE)
PRESENT, ABSENT = "present", "absent"
BY_CLASS, BY_PRESENCE = "class", "presence"
# Of each structure, what a covering mask may miss where nobody asks for another share.
USUAL_RISK = 0.1


@dataclass(frozen=True)
class Certainty:
    """What holds for the probabilities of a task.

    calibration_method: "auto" or one of `METHODS`, of boxes and objects one of `METHODS_OF_MANY`
    calibration:        the calibrator that cases which did not train have found; None until then
    coverage:           of new patients, the share whose true answer sets and intervals are to hold
    conformal_method:   "auto" or one of `SET_METHODS`, for sets of classes
    conformal_by:       whether it is to hold for "all" together, in each "class", or for each value of a covariate with
                        this name; "auto": in each class where these have the cases
    conformal:          the thresholds that cases which did not train have found; None until then
    risk:               of each structure, the share that its covering mask may miss on average; None: there is no mask
    risk_delta:         how likely it may miss more than that; None: it holds on average over calibration parts
    covering:           thresholds of these masks, of 1 less the probability of a voxel; None until they are found
    """

    calibration_method: str = AUTO
    calibration: Calibrator | None = None
    coverage: float = 0.9
    conformal_method: str = AUTO
    conformal_by: str = AUTO
    conformal: Conformal | None = None
    risk: float | None = None
    risk_delta: float | None = None
    covering: Conformal | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any], methods: Sequence[str] = METHODS) -> Certainty:
        """From a task's settings, of which an older plan may lack any; PlanError names the one that cannot be.

        methods: of calibration
        """
        method, given = str(settings.get("calibration_method", AUTO)), settings.get("calibration")
        if method not in (AUTO, *methods):
            remedy = f"Choose one of {', '.join((AUTO, *methods))}"
            raise PlanError(f"there is no calibration {method!r}", "task.calibration_method", remedy)
        name, thresholds = "calibration", dict[str, Conformal | None]()
        try:
            calibration = None if given is None else Calibrator.of(given)
            for name in ("conformal", "covering"):
                thresholds[name] = None if settings.get(name) is None else Conformal.of(settings[name])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problem = f"impossible {name} ({type(error).__name__}: {error})"
            raise PlanError(problem, f"task.{name}", "Leave it to `isocenter train` or `calibrate`") from error
        given_risks = {name: settings.get(name) for name in ("risk", "risk_delta")}
        risk, delta = (None if one is None else _share(name, one, "0.1") for name, one in given_risks.items())
        return cls(
            method, calibration, *_wishes(settings), thresholds["conformal"], risk, delta, thresholds["covering"]
        )

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values from which `of` makes an equal one."""
        return {
            "calibration_method": self.calibration_method,
            "calibration": None if self.calibration is None else self.calibration.settings,
        }

    @property
    def of_sets(self) -> dict[str, Any]:
        """The same, of sets."""
        given = {"conformal_method": self.conformal_method, "conformal_by": self.conformal_by}
        return {**self.of_intervals, **given}

    @property
    def of_intervals(self) -> dict[str, Any]:
        """The same, of intervals."""
        return {"coverage": self.coverage, "conformal": None if self.conformal is None else self.conformal.settings}

    @property
    def of_covering(self) -> dict[str, Any]:
        """The same, of masks that miss little."""
        covering = None if self.covering is None else self.covering.settings
        return {"risk": self.risk, "risk_delta": self.risk_delta, "covering": covering}

    @property
    def covers_from(self) -> dict[str, float] | None:
        """{structure: the probability from which on a voxel is in its covering mask}; None before it is found."""
        covering = self.covering
        return (
            None if covering is None else {name: max(0.0, 1 - covering.threshold(name)) for name in covering.thresholds}
        )

    @property
    def calibrator(self) -> Calibrator:
        """What is applied to probabilities; a calibrator that changes nothing until one is found."""
        return self.calibration or Calibrator()

    @property
    def folds(self) -> int:
        """How many folds there are by what each of which sets go; 0 where they do not."""
        return 0 if self.conformal is None else max(map(len, self.conformal.crossed.values()), default=0)

    def crossed(self, head: str) -> dict[str, int]:
        """As `Decoding.crossed`, of a task with this head."""
        return {head: self.folds} if self.folds else {}

    @property
    def covariate(self) -> str | None:
        """The covariate for each value of which sets hold; None where they hold by class, or over all."""
        conformal = self.conformal
        return None if conformal is None or conformal.by in (EVERYONE, BY_CLASS) else conformal.by

    def limit_of(self, value: Any) -> float | None:
        """The threshold of a value of the covariate by which sets hold; None of one that has none, or is not known."""
        stated: Mapping[str, float] = {} if self.conformal is None else self.conformal.thresholds
        levels = {level_in(name): limit for name, limit in sorted(stated.items(), key=itemgetter(1))}
        return None if is_missing(value) else levels.get(level_in(value))


def _wishes(settings: Mapping[str, Any]) -> tuple[float, str, str]:
    """Coverage, method and groups; PlanError names the one that cannot be."""
    coverage = _share("coverage", settings.get("coverage", Certainty.coverage), "0.9")
    method, by = (str(settings.get(name, AUTO)) for name in ("conformal_method", "conformal_by"))
    if method not in (AUTO, *SET_METHODS):
        remedy = f"Choose one of {', '.join((AUTO, *SET_METHODS))}"
        raise PlanError(f"there is no method {method!r}", "task.conformal_method", remedy)
    if not by:
        raise PlanError("names nothing", "task.conformal_by", "Give auto, all, class, or the name of a covariate")
    return coverage, method, by


def _share(name: str, given: Any, example: str) -> float:
    """A setting that is a share; PlanError where it is none."""
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < 1:
        remedy = f"Give more than 0 and less than 1, as in {example}"
        raise PlanError(f"a {name} of {given!r}", f"task.{name}", remedy)
    return float(given)


def in_json(answers: Sequence[str] | None) -> str | None:
    """A set as a column has it; None where there is none."""
    return None if answers is None else json.dumps(list(answers), ensure_ascii=False)


def finite(end: float | None) -> float | None:
    """An end of an interval as a column has it; None where there is none."""
    return end if end is not None and math.isfinite(end) else None


def probabilities_of(prediction: Prediction) -> Mapping[str, float]:
    """{class or finding: probability}"""
    assert prediction.probabilities is not None  # noqa: S101 - `decode` always gives them
    return prediction.probabilities


def uncalibrated_of(prediction: Prediction) -> Mapping[str, float]:
    """{class or finding: probability before calibration}; of a prediction without such its probabilities."""
    return prediction.confidence.uncalibrated or probabilities_of(prediction)

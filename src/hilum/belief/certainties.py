"""The certainty of a task's results: findings of unseen cases about its probabilities, as settings of the task.

A copy of this file travels with a packaged model, and needs NumPy only there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter, itemgetter
from typing import Annotated, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum import errors
from hilum.errors import PlanError
from hilum.evaluation import calibration_fit
from hilum.evaluation.calibration_fit import METHODS, SIZE, USUAL_SPREAD, Calibrator, UnseenOutputs
from hilum.evaluation.conformal import EVERYONE, SET_METHODS, Conformal
from hilum.values import Decision, Floats, Prediction, Setting, StatedSettings, covariate_values

AUTO = "auto"
# The names of its settings in the plan's section "task".
CERTAINTY = ("calibration_method", "calibration")
# Those of sets and intervals, and those of them that need no choice of method.
INTERVALS = ("coverage", "conformal")
SETS = (*INTERVALS, "conformal_method", "conformal_by")
# Those of masks that miss little, and of label maps, which have all of these.
COVERING = ("risk", "risk_delta", "covering")
OF_VOXELS = (*CERTAINTY, *COVERING, *INTERVALS)
# By the setting whose thresholds are infinite; {} is for whom.
BOUNDLESS = {
    "conformal": "Sets and intervals exclude nothing{}: too few to find a threshold.",
    "covering": "Covering results exclude nothing{}: no threshold is shown to miss little enough.",
}
# Ends of the names of settings that hold only beside the other settings with which they were found.
HOLD_TOGETHER = ("conformal", "covering")
# Of the calibration of boxes and objects, which have a size.
METHODS_OF_MANY = (AUTO, *METHODS, SIZE)
PRESENT = "present"
ABSENT = "absent"
BY_CLASS = "class"
BY_PRESENCE = "presence"
# Of each structure, what a covering mask may miss where nobody asks for another share.
USUAL_RISK = 0.1


def _without_calibration(settings: StatedSettings) -> dict[str, Decision]:
    """Look for no calibration where a person wants none."""
    if settings.get("calibration_method") != "none":
        return {}
    return {"task.calibration": Decision(Calibrator().settings, "no calibration, as task.calibration_method says")}


def _found_setting(name: str, reads: Callable[[StatedSettings], Any], settings: StatedSettings | None) -> Any:
    """A setting that unseen cases have found, or None; PlanError where it is none."""
    try:
        return None if settings is None else reads(settings)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"impossible {name} ({errors.describe_cause(error)})"
        raise PlanError(problem, f"task.{name}", "Leave it to `hilum train` or `calibrate`") from error


def _share(name: str, example: str, value: Any) -> float:
    """A setting that is a share; PlanError where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        remedy = f"Give more than 0 and less than 1, as in {example}"
        raise PlanError(f"a {name} of {value!r}", f"task.{name}", remedy)
    return float(value)


def _share_or_none(name: str, example: str, value: Any) -> float | None:
    return None if value is None else _share(name, example, value)


def _group_names(value: Any) -> str:
    """The groups within which sets hold; PlanError where it names none."""
    if not str(value):
        raise PlanError("names nothing", "task.conformal_by", "Give auto, all, class, or the name of a covariate")
    return str(value)


def _found_by_unseen(name: str, kind: type[Calibrator] | type[Conformal]) -> Setting:
    """What is None until cases that did not train have found it."""
    read = partial(_found_setting, name, kind.from_record)
    return Setting(always=True, read=read, plain=attrgetter("settings"), tuned=True)


@dataclass(frozen=True)
class Certainty:
    """Calibration, sets and thresholds that hold for the probabilities of a task.

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

    calibration_method: Annotated[
        str, Setting(choices=(AUTO, *METHODS), noun="calibration", follows=_without_calibration)
    ] = AUTO
    calibration: Annotated[Calibrator | None, _found_by_unseen("calibration", Calibrator)] = None
    coverage: Annotated[float, Setting(read=partial(_share, "coverage", "0.9"))] = 0.9
    conformal_method: Annotated[str, Setting(choices=(AUTO, *SET_METHODS), noun="method")] = AUTO
    conformal_by: Annotated[str, Setting(read=_group_names)] = AUTO
    conformal: Annotated[Conformal | None, _found_by_unseen("conformal", Conformal)] = None
    risk: Annotated[float | None, Setting(read=partial(_share_or_none, "risk", "0.1"))] = None
    risk_delta: Annotated[float | None, Setting(read=partial(_share_or_none, "risk_delta", "0.1"))] = None
    covering: Annotated[Conformal | None, _found_by_unseen("covering", Conformal)] = None

    @property
    def covers_from(self) -> dict[str, float] | None:
        """{structure: the probability from which on a voxel is in its covering mask}; None before it is found."""
        covering = self.covering
        return (
            None if covering is None else {name: max(0.0, 1 - covering.threshold(name)) for name in covering.thresholds}
        )

    @property
    def calibrator(self) -> Calibrator:
        """The map applied to probabilities; it changes nothing until one is found."""
        return self.calibration or Calibrator()

    @property
    def takes_temperature(self) -> bool:
        """Whether no calibration is found yet, and a temperature may be one."""
        return self.calibration is None and self.calibration_method in (AUTO, "temperature")

    @property
    def is_calibrated(self) -> bool:
        """Whether probabilities are changed by a calibration that unseen cases have found."""
        return self.calibrator.method != "none"

    @property
    def folds(self) -> int:
        """Number of folds whose own sets are combined; 0 where sets do not go by folds."""
        return 0 if self.conformal is None else max(map(len, self.conformal.crossed.values()), default=0)

    def folds_by_head(self, head: str) -> dict[str, int]:
        """The `Task.folds_by_head` of a task with this head."""
        return {head: self.folds} if self.folds else {}

    @property
    def covariate(self) -> str | None:
        """The covariate for each value of which sets hold; None where they hold by class, or over all."""
        conformal = self.conformal
        return None if conformal is None or conformal.by in (EVERYONE, BY_CLASS) else conformal.by

    def limit_of(self, value: Any) -> float | None:
        """The threshold of a value of the covariate by which sets hold; None of one that has none, or is not known."""
        limits: Mapping[str, float] = {} if self.conformal is None else self.conformal.thresholds
        levels = {covariate_values.level_in(name): limit for name, limit in sorted(limits.items(), key=itemgetter(1))}
        return None if covariate_values.is_missing(value) else levels.get(covariate_values.level_in(value))


def set_in_json(answers: Sequence[str] | None) -> str | None:
    """A set as a column has it; None where there is none."""
    return None if answers is None else json.dumps(list(answers), ensure_ascii=False)


def finite_end(end: float | None) -> float | None:
    """An end of an interval as a column has it; None where there is none."""
    return end if end is not None and math.isfinite(end) else None


def stated_probabilities(prediction: Prediction) -> Mapping[str, float]:
    """{class or finding: probability}"""
    assert prediction.probabilities is not None  # noqa: S101 - `decode` always gives them
    return prediction.probabilities


def uncalibrated_probabilities(prediction: Prediction) -> Mapping[str, float]:
    """{class or finding: probability before calibration}; of a prediction without such its probabilities."""
    return prediction.confidence.uncalibrated or stated_probabilities(prediction)


def sets_excluding_nothing(settings: StatedSettings) -> Iterator[str]:
    """Sentences on sets, intervals and covering results of a task with these settings that exclude nothing."""
    for setting_name, words in BOUNDLESS.items():
        if (found := settings.get(setting_name)) is None:
            continue
        conformal = Conformal.from_record(found)
        if conformal.lacking:
            yield f"No sets: {conformal.lacking}."
        names = [name for name, limit in conformal.thresholds.items() if not np.isfinite(limit)]
        if names:
            yield words.format(_for_whom(conformal, names))


def _for_whom(conformal: Conformal, names: Sequence[str]) -> str:
    """The labels without a threshold, with their patients; no label where one threshold holds for all."""
    patients = {name: f"({errors.count_phrase(conformal.n.get(name, 0), 'patient')})" for name in names}
    if list(patients) == [EVERYONE]:
        return f" {patients[EVERYONE]}"
    are_patients = conformal.by == BY_PRESENCE
    return f" for {'patients ' * are_patients}{errors.list_phrase(f'{name} {many}' for name, many in patients.items())}"


# The logarithm of less is no number.
LEAST_CHANCE = 1e-300
# The largest probability of float64 below 1 is so far from it.
ROUNDING = 2**-53
GUO = "arXiv:1706.04599"


def add_calibration(certainty: Certainty, unseen: UnseenOutputs) -> tuple[Certainty, dict[str, Decision]]:
    """Add a calibration by these cases, unless there is one, and its decision."""
    if certainty.calibration is not None:
        return certainty, {}
    choice = calibration_fit.choose_calibrator(certainty.calibration_method, unseen)
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


def spread_of_many_answers(patients: np.ndarray) -> float:
    """`UnseenOutputs.spread` of answers of which a patient has many, such as boxes; patients: (answers,)

    Each is an answer of its own, so that what so many say outweighs what was expected before.
    """
    return cast(float, USUAL_SPREAD * max(1.0, len(patients) / max(1, len(np.unique(patients)))) ** 0.5)


def log_odds(chances: Floats) -> Floats:
    """Logarithms of the odds of probabilities, which are finite at 0 and 1 too."""
    return np.asarray(np.log(chances.clip(LEAST_CHANCE)) - np.log1p(-chances.clip(max=1 - ROUNDING)))


# Outputs of a network to probabilities: of exclusive classes, and of structures that overlap.
#
# NumPy only, and nothing of ours: a packaged model carries a copy of this part.


def softmax(outputs: ArrayLike, axis: int = 0) -> NDArray[np.floating]:
    """Probabilities of classes that lie along an axis."""
    logits = np.asarray(outputs)
    if logits.dtype.kind != "f" or logits.dtype.itemsize < 4:
        logits = logits.astype(np.float32)
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def sigmoid(outputs: ArrayLike) -> NDArray[np.floating]:
    """The probability of each structure from its log odds."""
    return np.asarray(np.exp(-np.logaddexp(np.float32(0), -np.asarray(outputs, dtype=np.float32))))


def chances_from_log_odds(odds: ArrayLike) -> NDArray[np.float64]:
    """Logarithms of odds to probabilities, in double precision."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -np.asarray(odds, dtype=np.float64))))


def labels_from_odds(outputs: ArrayLike, values: Sequence[int]) -> NDArray[np.integer]:
    """(structures, *spatial) log odds to (*spatial): the value of each where it is likelier than not, later on top."""
    logits = np.asarray(outputs)
    labels = np.zeros(logits.shape[1:], dtype=np.min_scalar_type(max(values)))
    for logit, value in zip(logits, values, strict=True):
        labels[logit > 0] = value
    return labels

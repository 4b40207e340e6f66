"""The certainty of a task's results: findings of unseen cases about its probabilities, as settings of the task.

A copy of this file travels with a packaged model, and needs NumPy only there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np

from isocenter.errors import PlanError
from isocenter.evaluation import (
    EVERYONE,
    METHODS,
    NEVER_EMPTY,
    SET_METHODS,
    SIZE,
    Calibrator,
    Conformal,
    class_scores,
    cross_interval,
    cross_sets,
    ordered_ends,
    prediction_sets,
    widest,
)
from isocenter.values import Decision, Floats, Prediction, Sentence, is_missing, level_in, setting

AUTO = "auto"
# The names of its settings in the plan's section "task".
CERTAINTY = ("calibration_method", "calibration")
# Those of sets and intervals, and those of them that need no choice of method.
INTERVALS = ("coverage", "conformal")
SETS = (*INTERVALS, "conformal_method", "conformal_by")
# Those of masks that miss little.
COVERING = ("risk", "risk_delta", "covering")
# Of the calibration of boxes and objects, which have a size.
METHODS_OF_MANY = (AUTO, *METHODS, SIZE)
PRESENT, ABSENT = "present", "absent"
BY_CLASS, BY_PRESENCE = "class", "presence"
# Of each structure, what a covering mask may miss where nobody asks for another share.
USUAL_RISK = 0.1


def _without_calibration(settings: Mapping[str, Any]) -> dict[str, Decision]:
    """Where a person wants no calibration, none is looked for."""
    if settings.get("calibration_method") != "none":
        return {}
    return {"task.calibration": Decision(Calibrator().settings, "no calibration, as task.calibration_method says")}


def _found(name: str, made: Callable[[Mapping[str, Any]], Any], given: Mapping[str, Any] | None) -> Any:
    """A setting that unseen cases have found, or None; PlanError where it is none."""
    try:
        return None if given is None else made(given)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"impossible {name} ({type(error).__name__}: {error})"
        raise PlanError(problem, f"task.{name}", "Leave it to `isocenter train` or `calibrate`") from error


def _share(name: str, example: str, given: Any) -> float:
    """A setting that is a share; PlanError where it is none."""
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < 1:
        remedy = f"Give more than 0 and less than 1, as in {example}"
        raise PlanError(f"a {name} of {given!r}", f"task.{name}", remedy)
    return float(given)


def _share_or_none(name: str, example: str, given: Any) -> float | None:
    return None if given is None else _share(name, example, given)


def _named(given: Any) -> str:
    """The groups within which sets hold; PlanError where it names none."""
    if not str(given):
        raise PlanError("names nothing", "task.conformal_by", "Give auto, all, class, or the name of a covariate")
    return str(given)


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

    calibration_method: str = setting(
        AUTO,
        Sentence(
            "Probabilities are calibrated by the method {value}",
            open="The method of calibration is chosen after training",
        ),
        choices=(AUTO, *METHODS),
        noun="calibration",
        follows=_without_calibration,
    )
    calibration: Calibrator | None = setting(
        None,
        Sentence("The calibration is {value}", "No calibration is fitted yet", always=True),
        read=partial(_found, "calibration", Calibrator.of),
        plain=attrgetter("settings"),
        tuned=True,
    )
    coverage: float = setting(
        0.9,
        Sentence("Prediction sets and intervals should contain the truth in {percent} of new patients"),
        read=partial(_share, "coverage", "0.9"),
    )
    conformal_method: str = setting(
        AUTO,
        Sentence(
            "Sets of classes use the score {value}",
            open="The score of sets of classes follows from the kind of classes",
        ),
        choices=(AUTO, *SET_METHODS),
        noun="method",
    )
    conformal_by: str = setting(
        AUTO,
        Sentence(
            "Their coverage holds by the rule {value}",
            open="Whether it holds in each class is decided after training",
        ),
        read=_named,
    )
    conformal: Conformal | None = setting(
        None,
        Sentence("Thresholds of sets or intervals are found", "No sets or intervals are found yet", always=True),
        read=partial(_found, "conformal", Conformal.of),
        plain=attrgetter("settings"),
        tuned=True,
    )
    risk: float | None = setting(
        None,
        Sentence("A covering mask may miss {percent} of its structure", "No covering masks are made"),
        read=partial(_share_or_none, "risk", "0.1"),
    )
    risk_delta: float | None = setting(
        None,
        Sentence("It may miss more in {percent} of calibration sets"),
        read=partial(_share_or_none, "risk_delta", "0.1"),
    )
    covering: Conformal | None = setting(
        None,
        Sentence("Thresholds of covering masks are found", "No covering masks are found yet", always=True),
        read=partial(_found, "covering", Conformal.of),
        plain=attrgetter("settings"),
        tuned=True,
    )

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

    def class_set(
        self,
        probabilities: Sequence[float],
        classes: Sequence[str],
        group: Any = None,
        each: Floats | None = None,
    ) -> dict[str, tuple[str, ...]]:
        """{"": the classes that the coverage does not rule out}, of grades without gaps; nothing before it is found.

        group: the value of the covariate by which sets hold; where nobody knows it the widest threshold decides
        each:  (folds, classes) probabilities by each of the folds whose mean the model is, uncalibrated
        """
        conformal = self.conformal
        if conformal is None:
            return {}
        offered = np.array([probabilities]) if each is None else each
        steps = [conformal.steps(name, len(offered)) for name in classes]
        crossed = all(steps)
        scores = class_scores(offered if crossed else [probabilities], conformal.method)  # type: ignore[arg-type]
        limits = [conformal.threshold(name) for name in classes]
        if self.covariate is not None:
            limit = self.limit_of(group)
            limits = [widest(conformal.thresholds) if limit is None else limit] * len(classes)
        kept = prediction_sets(scores[0], limits)
        if crossed:
            own = zip(steps, np.split(scores, len(classes), axis=1), strict=True)
            kept = np.array([cross_sets(one, score, conformal.level)[0] for one, score in own if one is not None])
        if conformal.method in NEVER_EMPTY:
            kept[np.argmax(probabilities)] = True
        if conformal.method == "contiguous" and kept.any():
            kept[kept.argmax() : len(kept) - kept[::-1].argmax()] = True
        return {"": tuple(compress(classes, kept))}

    def finding_sets(
        self, probabilities: Mapping[str, float], each: Floats | None = None
    ) -> dict[str, tuple[str, ...]]:
        """{finding: present, absent, or both where it stays undecided}; without thresholds of both a finding has none.

        each: (folds, findings) probabilities by each of the folds whose mean the model is, uncalibrated
        """
        conformal = self.conformal
        if conformal is None:
            return {}
        made = {}
        for place, (name, chance) in enumerate(probabilities.items()):
            groups = groups_of_finding(name)
            if not all(group in conformal.thresholds for group in groups):
                continue
            kept = prediction_sets([1 - chance, chance], [conformal.threshold(group) for group in groups])
            if each is not None:
                steps = [conformal.steps(group, len(each)) for group in groups]
                own = zip(steps, (1 - each[:, place], each[:, place]), strict=True)
                crossed = [cross_sets(one, score, conformal.level) for one, score in own if one is not None]
                kept = kept if None in steps else np.array(crossed)
            if not kept.any():  # where neither is ruled in, the likelier answer: that covers no less
                kept = np.array([chance, 1 - chance]) >= 0.5
            made[name] = tuple(compress((PRESENT, ABSENT), kept))
        return made

    def interval(self, values: Mapping[str, float], deviations: Sequence[float]) -> tuple[dict[str, float], ...]:
        """{target: lower end} and {target: upper end}; nothing before thresholds are found."""
        if self.conformal is None:
            return {}, {}
        wide = [self.conformal.threshold(name) * one for name, one in zip(values, deviations, strict=True)]
        return tuple(
            {name: value + side * half for (name, value), half in zip(values.items(), wide, strict=True)}
            for side in (-1, 1)
        )

    def crossed_interval(
        self, names: Sequence[str], low: Floats, high: Floats, widths: Floats
    ) -> tuple[dict[str, float], dict[str, float]] | None:
        """{target: lower end} and {target: upper end} by folds whose mean the model is; None where thresholds decide.

        low, high: (folds, targets) what each of them says: one value, or its quantiles
        widths:    (folds, targets) its error bars as they came, or 1
        """
        conformal = self.conformal
        steps = [] if conformal is None else [conformal.steps(name, len(low)) for name in names]
        if conformal is None or None in steps:
            return None
        columns = zip(names, steps, low.T, high.T, widths.T, strict=True)
        ends = {
            name: cross_interval(own, below, above, wide, conformal.level)
            for name, own, below, above, wide in columns
            if own is not None
        }
        return {name: one for name, (one, _) in ends.items()}, {name: one for name, (_, one) in ends.items()}

    def widened(self, low: Mapping[str, float], high: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
        """Both ends further out by the threshold of each target, or further in; as they are before it is found."""
        out = {name: 0.0 if self.conformal is None else self.conformal.threshold(name) for name in low}
        ends = {name: ordered_ends(end - out[name], high[name] + out[name]) for name, end in low.items()}
        return {name: one for name, (one, _) in ends.items()}, {name: one for name, (_, one) in ends.items()}


def groups_of_finding(finding: str) -> tuple[str, str]:
    """The groups of patients within each of whom sets of a finding hold: those who have it, and those who do not."""
    return f"with {finding}", f"without {finding}"


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

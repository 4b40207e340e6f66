"""Answers that are one of several classes: calibration, thresholds of calls, and sets that hold the true class.

A copy of what decodes travels with a packaged model, and needs NumPy only there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from hilum import errors
from hilum.belief import certainties, prediction_sets
from hilum.belief.certainties import AUTO, BY_CLASS, LEAST_CHANCE, Certainty
from hilum.belief.covering_results import Belief, UnseenCases
from hilum.belief.operating_points import Calls
from hilum.belief.prediction_sets import CONFORMAL
from hilum.evaluation import conformal
from hilum.evaluation.calibration_fit import USUAL_SPREAD, Scale, UnseenOutputs
from hilum.evaluation.conformal import EVERYONE, NEVER_EMPTY
from hilum.values import Decision, Floats, Prediction, covariate_values
from hilum.values.covariate_values import CovariateValues

if TYPE_CHECKING:
    from hilum.evaluation.conformal import Method


def class_set(
    certainty: Certainty,
    probabilities: Sequence[float],
    classes: Sequence[str],
    group: Any = None,
    each: Floats | None = None,
) -> dict[str, tuple[str, ...]]:
    """{"": the classes that the coverage does not rule out}, of grades without gaps; nothing before it is found.

    group: the value of the covariate by which sets hold; where nobody knows it the widest threshold decides
    each:  (folds, classes) probabilities by each of the folds whose mean the model is, uncalibrated
    """
    guarantee = certainty.conformal
    if guarantee is None:
        return {}
    offered = np.array([probabilities]) if each is None else each
    steps = [guarantee.steps(name, len(offered)) for name in classes]
    crossed = all(steps)
    scores = conformal.class_scores(offered if crossed else [probabilities], cast("Method", guarantee.method))
    limits = [guarantee.threshold(name) for name in classes]
    if certainty.covariate is not None:
        limit = certainty.limit_of(group)
        limits = [conformal.widest_threshold(guarantee.thresholds) if limit is None else limit] * len(classes)
    is_in_set = conformal.prediction_sets(scores[0], limits)
    if crossed:
        folds = zip(steps, np.split(scores, len(classes), axis=1), strict=True)
        is_in_set = np.array(
            [conformal.cross_sets(one, score, guarantee.level)[0] for one, score in folds if one is not None]
        )
    if guarantee.method in NEVER_EMPTY:
        is_in_set[np.argmax(probabilities)] = True
    if guarantee.method == "contiguous" and is_in_set.any():
        is_in_set[is_in_set.argmax() : len(is_in_set) - is_in_set[::-1].argmax()] = True
    return {"": tuple(compress(classes, is_in_set))}


@dataclass(frozen=True)
class ClassBelief(Belief):
    """Answers that are one of several classes; of its rows outputs are (cases, classes) probabilities, truth indices.

    ordered:   the classes are grades
    positives: the classes that thresholds are of
    calls:     thresholds of these, and by groups of people
    """

    certainty: Certainty
    names: tuple[str, ...]
    ordered: bool
    positives: tuple[str, ...]
    calls: Calls

    @property
    def by_covariates(self) -> Callable[[Prediction, CovariateValues], Prediction] | None:
        """The set and the thresholds of the patient's group; None where neither goes by groups."""
        return self._by_covariates if self.certainty.covariate or self.calls.grouped.levels else None

    def _by_covariates(self, prediction: Prediction, covariates: CovariateValues) -> Prediction:
        if self.calls.grouped.levels:
            prediction = self.calls.grouped.state_thresholds(prediction, covariates)
        if self.certainty.covariate is None:
            return prediction
        name = str(self.certainty.covariate)
        probabilities = certainties.stated_probabilities(prediction)
        group = covariates.get(name)
        notes = prediction.notes
        sets = class_set(self.certainty, [probabilities[one] for one in self.names], self.names, group)
        if self.certainty.limit_of(group) is None:
            notes = (*notes, f"{name} is unknown, or none of the calibrating cases had it: the widest set is stated")
        return replace(prediction, confidence=replace(prediction.confidence, set=sets), notes=notes)

    @property
    def takes_temperature(self) -> bool:
        """Where classes have no order."""
        return self.certainty.takes_temperature and not self.ordered

    def outputs(self, rows: UnseenCases) -> UnseenOutputs:
        """Log probabilities of the classes."""
        scale: Scale = "grades" if self.ordered else "classes"
        logs = np.log(rows.outputs.clip(LEAST_CHANCE))
        return UnseenOutputs(logs, rows.truth, rows.patients, self.names, scale, spread=USUAL_SPREAD)

    def calibrate(self, rows: UnseenCases) -> dict[str, Decision]:
        """A calibration, and then thresholds by the rule of the operating point."""
        if self.certainty.calibration is not None and not self.calls.is_open:
            return {}
        unseen = self.outputs(rows)
        certainty, decisions = certainties.add_calibration(self.certainty, unseen)
        likely = np.exp(unseen.apply_calibrator(certainty.calibrator))
        places = {name: self.names.index(name) for name in self.positives}
        columns = {name: (likely[:, place], (rows.truth == place).astype(float)) for name, place in places.items()}
        return {**decisions, **self.calls.find_thresholds(columns, rows)}

    def sets(self, rows: UnseenCases, *, exact: bool) -> dict[str, Decision]:
        """Thresholds of sets of classes. A class without any of these cases is in every set."""
        if self.certainty.conformal is not None:
            return {}
        logs = np.log(rows.outputs.clip(LEAST_CHANCE))
        likely = np.exp(self.certainty.calibrator.classes(logs, self.names, ordered=self.ordered))
        return find_class_sets(self.certainty, self.names, likely, rows, ordered=self.ordered, exact=exact)

    def sets_of_folds(self, rows: UnseenCases) -> dict[str, Decision]:
        """The scores of folds; none where sets hold by a covariate. A class without any case is in every set."""
        guarantee = self.certainty.conformal
        truth = rows.truth
        if guarantee is None or self.certainty.covariate is not None:
            return {}
        scores = conformal.class_scores(rows.outputs, cast("Method", guarantee.method))[np.arange(len(truth)), truth]
        groups = {} if guarantee.by == BY_CLASS else {EVERYONE: np.full(len(truth), True)}
        by_class = {name: truth == place for place, name in enumerate(self.names)}
        groups |= {name: own for name, own in by_class.items() if guarantee.by == BY_CLASS or not own.any()}
        scored = {name: (scores[own], rows.folds[own], rows.patients[own]) for name, own in groups.items()}
        return prediction_sets.add_fold_scores(guarantee, scored, int(rows.folds.max()) + 1)


def find_class_sets(
    certainty: Certainty, names: Sequence[str], likely: Floats, rows: UnseenCases, *, ordered: bool, exact: bool
) -> dict[str, Decision]:
    """Thresholds of sets of classes by calibrated probabilities, (cases, classes), and the truth of rows."""
    truth = rows.truth
    owners = rows.patients
    usual = "contiguous" if ordered else "lac"
    method = usual if certainty.conformal_method == AUTO else certainty.conformal_method
    counts = [len(np.unique(owners[truth == place])) for place in range(len(names))]
    by = certainty.conformal_by
    needed = conformal.fewest_for_group(certainty.coverage)
    if by == AUTO:
        by = BY_CLASS if min(counts) >= needed else EVERYONE
    scores = conformal.class_scores(likely, cast("Method", method))[np.arange(len(truth)), truth]
    groups: list[str | None] = [names[place] for place in truth] if by == BY_CLASS else [EVERYONE] * len(truth)
    if by not in (BY_CLASS, EVERYONE):  # of cases without the covariate nothing is known
        groups = [
            None if covariate_values.is_missing(one.get(by)) else covariate_values.level_in(one[by])
            for one in rows.covariates
        ]
    is_known = np.array([one is not None for one in groups], dtype=bool)
    named = [one for one in groups if one is not None]
    limits = conformal.mondrian_thresholds(scores[is_known], named, certainty.coverage, owners[is_known]) or {
        EVERYONE: (math.inf, 0)
    }
    absent = {name: (math.inf, 0) for name, count in zip(names, counts, strict=True) if not count}
    if absent and by not in (BY_CLASS, EVERYONE):  # no value of the covariate says anything of such a class
        limits = {name: (math.inf, people) for name, (_, people) in limits.items()}
        absent = {}
    decisions = prediction_sets.threshold_decision(
        certainty.coverage, method, by, {**limits, **absent}, [owners[is_known]], exact=exact
    )
    if certainty.conformal_by == AUTO and by == EVERYONE:
        fewest = errors.count_phrase(min(counts), "patient")
        rarest = f"{fewest} of {names[int(np.argmin(counts))]}, {needed} needed"
        because = decisions[CONFORMAL].because
        because += f"; over all classes together, a rare one may be held less often: {rarest}"
        decisions = {CONFORMAL: replace(decisions[CONFORMAL], because=because)}
    return decisions

"""What the table of a classification's cases comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from isocenter.evaluation import (
    Confusion,
    auroc,
    average_precision,
    bootstrap,
    bootstrap_statistic,
    calibration_error,
    one_against_rest,
    predictive_values,
    proportion,
)
from isocenter.values import Estimate, Floats, Row

METRICS = frozenset(
    {
        *("auroc", "accuracy", "average_precision", "balanced_accuracy", "f1", "mcc", "brier", "ece"),
        *("sensitivity", "specificity", "ppv", "npv"),
    }
)
MOST_PROBABLE = "; by the most probable class"


@dataclass(frozen=True, eq=False)
class Answers:
    """Probabilities beside the truth.

    probabilities: (cases, classes); reference: (cases,) index of the class; patients: (cases,)
    brier:         (cases,)
    thresholds:    {class: probability from which on it counts}, by `rule` from validation cases; of two classes
                   without one 0.5 for the second, of several the most probable class
    prevalence:    {class: share of all people}; that of these cases where none is stated
    """

    classes: Sequence[str]
    probabilities: Floats
    reference: np.ndarray
    patients: np.ndarray
    brier: Floats
    rule: str
    thresholds: Mapping[str, float]
    prevalence: Mapping[str, float]

    @property
    def predicted(self) -> np.ndarray:
        return np.asarray(self.probabilities.argmax(axis=1))

    def called(self, index: int) -> tuple[np.ndarray, str]:
        """(cases,) whether the class is called at its operating point, and in words where that lies."""
        if len(self.classes) == 2 and index == 0:
            called, words = self.called(1)
            return ~called, words
        name = self.classes[index]
        if name in self.thresholds:
            level = self.thresholds[name]
            return self.probabilities[:, index] >= level, f"; {name} from {level:.3g} on ({self.rule}, validation)"
        if len(self.classes) == 2:
            return self.predicted == 1, f"; {name} from 0.5 on (default)"
        return self.predicted == index, MOST_PROBABLE


def summary_rows(answers: Answers, *, seed: int) -> list[Row]:
    """Over all classes, AUROC first; then one class against the rest, calls at the operating point."""
    return [
        *_overall(answers, seed),
        *(row for n in range(len(answers.classes)) for row in _of_class(answers, n, seed)),
    ]


def _overall(answers: Answers, seed: int) -> Iterator[Row]:
    probabilities, reference, size = answers.probabilities, answers.reference, len(answers.classes)
    predicted = answers.predicted

    def interval(figure: Callable[[Floats], Floats], note: str = "", exact: bool = True) -> Estimate:
        estimate = bootstrap_statistic(figure, answers.patients, strata=reference, seed=seed, exact=exact)
        return replace(estimate, method=estimate.method + note)

    def confused(weights: Floats) -> Confusion:
        return Confusion.of(predicted, reference, size, weights)

    for metric, figure in (("auroc", auroc), ("average_precision", average_precision)):
        several = "; unweighted mean of one class against the rest" if size > 2 else ""
        yield Row(metric, "all", interval(partial(one_against_rest, figure, probabilities, reference), several))
    yield Row("accuracy", "all", _noted(proportion(predicted == reference, answers.patients, seed=seed), MOST_PROBABLE))
    yield Row("balanced_accuracy", "all", interval(lambda w: confused(w).balanced_accuracy, MOST_PROBABLE))
    of = f"; of {answers.classes[1]}" if size == 2 else "; unweighted mean of the classes"
    yield Row("f1", "all", interval(lambda w: confused(w).f1, of + MOST_PROBABLE, exact=False))
    yield Row("mcc", "all", interval(lambda w: confused(w).mcc, MOST_PROBABLE, exact=False))
    yield Row("brier", "all", bootstrap(answers.brier, answers.patients, seed=seed))
    yield Row("ece", "all", _calibration(answers, seed))


def _of_class(answers: Answers, index: int, seed: int) -> Iterator[Row]:
    name, patients = answers.classes[index], answers.patients
    truth, scores = answers.reference == index, answers.probabilities[:, index]
    called, at = answers.called(index)
    for metric, figure in (("auroc", auroc), ("average_precision", average_precision)):
        estimate = bootstrap_statistic(partial(figure, scores, truth), patients, strata=truth, seed=seed)
        yield Row(metric, name, estimate)
    if truth.any():
        yield Row("sensitivity", name, _noted(proportion(called[truth], patients[truth], seed=seed), at))
    if not truth.all():
        yield Row("specificity", name, _noted(proportion(~called[~truth], patients[~truth], seed=seed), at))
    prevalence = answers.prevalence.get(name)
    values = predictive_values(called, truth, patients, prevalence=prevalence, seed=seed)
    for metric, value in zip(("ppv", "npv"), values, strict=True):
        yield Row(metric, name, _noted(value, at))
    estimate = bootstrap_statistic(
        lambda weights: Confusion.of(called, truth, 2, weights).f1, patients, strata=truth, seed=seed, exact=False
    )
    yield Row("f1", name, _noted(estimate, at))


def _calibration(answers: Answers, seed: int) -> Estimate:
    """Of the second of two classes; of several, of the one that was said."""
    if len(answers.classes) == 2:
        return calibration_error(answers.probabilities[:, 1], answers.reference == 1, answers.patients, seed=seed)
    right = answers.predicted == answers.reference
    return calibration_error(answers.probabilities.max(axis=1), right, answers.patients, seed=seed)


def _noted(estimate: Estimate, note: str) -> Estimate:
    return replace(estimate, method=estimate.method + note)

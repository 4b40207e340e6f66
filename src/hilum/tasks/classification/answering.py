"""The answers of a classification: outputs of a network to probabilities of classes, and to what is called.

A copy of this file travels with a packaged model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from hilum.belief import Certainty, UnseenCases, certainties, class_belief
from hilum.belief.class_belief import ClassBelief
from hilum.belief.operating_points import Calls, GroupThresholds, OperatingPoint
from hilum.belief.prediction_sets import SET
from hilum.errors import DatasetError
from hilum.evaluation import calibration_fit
from hilum.tasks.classification import ordinal
from hilum.tasks.classification.ordinal import BETWEEN, NONE, CallingRule
from hilum.tasks.shared import averages
from hilum.tasks.shared.averages import Shares
from hilum.tasks.task import Task
from hilum.values import Array, Case, Confidence, Finding, Floats, Geometry, Measurements, Prediction, Slabs
from hilum.values.table_cells import TableRow


def class_index(case: Case, classes: Sequence[str]) -> int:
    """The number of the case's class; DatasetError for one that was not trained."""
    name = case.references["class"]
    if name not in classes:
        remedy = "Name it in the table or the folder as the model does, declare it, or leave the case out"
        raise DatasetError(f"class {name!r} is none of {', '.join(classes)}", case.id, remedy)
    return classes.index(name)


class ClassAnswering(Task):
    """The answers of a classification; the fields are those of `Classification`."""

    classes: tuple[str, ...]
    point: OperatingPoint
    prior_shift: Mapping[str, float] | None
    thresholds: Mapping[str, float] | None
    order: str
    costs: tuple[tuple[float, ...], ...] | None
    grouped: GroupThresholds
    certainty: Certainty

    @property
    def is_ordered(self) -> bool:
        """Whether the classes are grades."""
        return self.order != NONE

    @property
    def calling(self) -> CallingRule:
        """The rule by which a class is predicted."""
        by_group_of = self.positives[0] if self.grouped.levels else ""
        return CallingRule.from_costs(self.order, self.costs, len(self.classes), by_group_of=by_group_of)

    @property
    def probability_heads(self) -> tuple[str, ...]:
        """The head, unless its outputs lie between grades."""
        return () if self.order in BETWEEN else ("class",)

    @property
    def saliency_targets(self) -> tuple[str, ...]:
        """The classes, or the ends of their order."""
        return ordinal.extreme_grades(self.classes) if self.order in BETWEEN else self.classes

    @property
    def folds_by_head(self) -> Mapping[str, int]:
        """{head: folds} whose sets the mean of folds combines."""
        return self.certainty.folds_by_head("class")

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The logarithm of the mean probability; of outputs between grades the mean itself."""
        logits = [one["class"] for one in outputs]
        return {
            "class": averages.mean_output(logits, shares)
            if self.order in BETWEEN
            else averages.log_mean(logits, shares=shares)
        }

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """(classes, ...) probabilities, brought back to the shares of the training cases."""
        return {"class": np.moveaxis(self._likely(np.moveaxis(np.asarray(arrays["class"]), 0, -1)), -1, 0)}

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """(classes,) logits of one case to probabilities."""
        [(_, arrays)] = slabs  # a vector head is one slab
        logs = self._logs(np.asarray(arrays["class"]))
        chances = [np.exp(one).tolist() for one in (self._calibrate(logs), calibration_fit.normalise_logs(logs))]
        calibrated, uncalibrated = (dict(zip(self.classes, one, strict=True)) for one in chances)
        by_fold = averages.outputs_of_each(arrays, "class", ordinal.count_outputs(self.order, len(self.classes)))
        by_fold = None if by_fold is None else np.exp(calibration_fit.normalise_logs(self._logs(by_fold)))
        sets = class_belief.class_set(self.certainty, chances[0], self.classes, each=by_fold)
        return Prediction(
            geometry, probabilities=calibrated, confidence=Confidence(set=sets, uncalibrated=uncalibrated)
        )

    def called_class(self, prediction: Prediction) -> str:
        """The class that is called."""
        return self.classes[self.calling.of_prediction(prediction, self.classes, self.thresholds or {})]

    def outputs(self, prediction: Prediction) -> TableRow:
        """The class that is called, the probability of each, and the set of those that are not ruled out."""
        probabilities = certainties.stated_probabilities(prediction)
        chances = {f"probability_{name}": p for name, p in probabilities.items()}
        return {
            "predicted": self.called_class(prediction),
            **chances,
            SET: certainties.set_in_json(prediction.confidence.set.get("")),
        }

    def results(self, prediction: Prediction, measured: Measurements = ()) -> list[Finding]:
        """The probability of each class, which of them is called, and the set of those that are not ruled out."""
        named = self.called_class(prediction)
        possible = prediction.confidence.set.get("")
        kind = "grade" if self.is_ordered else "class"
        return [
            Finding(
                name,
                probability=p,
                group=kind,
                called=name == named,
                possible=possible if name == named else None,
                calibrated=self.certainty.is_calibrated,
            )
            for name, p in certainties.stated_probabilities(prediction).items()
        ]

    @property
    def probable_findings(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes

    @property
    def grades(self) -> tuple[str, ...]:
        """The classes, where they are grades."""
        return self.classes if self.is_ordered else ()

    @property
    def answers(self) -> ClassBelief:
        """Classes, with thresholds of the positive ones."""
        instead = "0.5" if len(self.classes) == 2 else "the class that is called"
        calls = Calls(self.point, self.thresholds, self.grouped, instead)
        return ClassBelief(self.certainty, self.classes, self.is_ordered, self.positives, calls)

    def rows(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> UnseenCases:
        """Probabilities of the classes before calibration, and the index of the class."""
        outputs = [[certainties.uncalibrated_probabilities(one)[name] for name in self.classes] for one in predictions]
        truth = [class_index(case, self.classes) for case in cases]
        patients = [case.patient for case in cases]
        return UnseenCases(np.array(outputs), np.array(truth), np.array(patients), [case.covariates for case in cases])

    def _likely(self, outputs: Floats) -> Floats:
        """(..., outputs) to (..., classes) probabilities, calibrated once unseen cases have found how."""
        return np.exp(self._calibrate(self._logs(outputs)))

    def _logs(self, outputs: Floats) -> Floats:
        """(..., outputs) to (..., classes) log probabilities, brought back to the shares of the training cases."""
        shift = [(self.prior_shift or {}).get(name, 0.0) for name in self.classes]
        return cast("Floats", ordinal.log_probabilities(self.order, outputs) + np.array(shift))

    def _calibrate(self, logs: Floats) -> Floats:
        """(..., classes) log probabilities as unseen cases have found them to be right."""
        return self.certainty.calibrator.classes(logs, self.classes, ordered=self.is_ordered)

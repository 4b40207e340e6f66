"""Outputs of a network to probabilities of classes, and to what is stated of a case by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from isocenter.belief import Certainty, class_set
from isocenter.evaluation import normalised
from isocenter.tasks.classification.ordinal import NONE, log_probabilities, outputs_of
from isocenter.tasks.shared import each_of
from isocenter.values import Array, Confidence, Floats, Geometry, Prediction


@dataclass(frozen=True)
class Likelihood:
    """How probable each class is.

    order:       how the network predicts classes that are grades (`ordinal.ORDERS`)
    prior_shift: {class: added to its logit}, so that probabilities refer to the shares of the training cases
    certainty:   what calibrates them, and the sets that they make
    """

    classes: tuple[str, ...]
    order: str
    prior_shift: Mapping[str, float]
    certainty: Certainty

    def __call__(self, outputs: Floats) -> Floats:
        """(..., outputs) to (..., classes) probabilities, calibrated once unseen cases have found how."""
        return np.exp(self.calibrated(self.logs(outputs)))

    def logs(self, outputs: Floats) -> Floats:
        """(..., outputs) to (..., classes) log probabilities, brought back to the shares of the training cases."""
        shift = [self.prior_shift.get(name, 0.0) for name in self.classes]
        return log_probabilities(self.order, outputs) + np.array(shift)

    def calibrated(self, logs: Floats) -> Floats:
        """(..., classes) log probabilities as unseen cases have found them to be right."""
        return self.certainty.calibrator.classes(logs, self.classes, ordered=self.order != NONE)

    def decoded(self, arrays: Mapping[str, Array], head: str, geometry: Geometry) -> Prediction:
        """What is stated of one case. arrays: {head: (outputs,)}, and what each of several networks says."""
        logs = self.logs(np.asarray(arrays[head]))
        each = [np.exp(one).tolist() for one in (self.calibrated(logs), normalised(logs))]
        stated, given = (dict(zip(self.classes, one, strict=True)) for one in each)
        by_fold = each_of(arrays, head, outputs_of(self.order, len(self.classes)))
        by_fold = None if by_fold is None else np.exp(normalised(self.logs(by_fold)))
        sets = class_set(self.certainty, each[0], self.classes, each=by_fold)
        return Prediction(geometry, probabilities=stated, confidence=Confidence(set=sets, uncalibrated=given))

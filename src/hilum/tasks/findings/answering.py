"""The answers of findings: outputs of a network to probabilities, and to what is called.

A copy of this file travels with a packaged model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hilum.belief import Certainty, UnseenCases, certainties, label_belief
from hilum.belief.certainties import ABSENT, PRESENT
from hilum.belief.label_belief import LabelBelief
from hilum.belief.operating_points import Calls, GroupThresholds, OperatingPoint
from hilum.belief.prediction_sets import SET
from hilum.tasks.findings import losses
from hilum.tasks.findings.losses import BALANCED
from hilum.tasks.shared import averages
from hilum.tasks.shared.averages import Shares
from hilum.tasks.task import Task
from hilum.values import Array, Case, Confidence, Finding, Floats, Geometry, Measurements, Prediction, Slabs
from hilum.values.table_cells import TableRow

# Where no rule has found another.
DEFAULT_THRESHOLD = 0.5


def called_findings(prediction: Prediction, thresholds: Mapping[str, float]) -> dict[str, bool]:
    """{finding: whether its probability reaches its threshold, the patient's own where there is one}"""
    levels = {**thresholds, **prediction.confidence.thresholds}
    return {
        name: chance >= levels.get(name, DEFAULT_THRESHOLD)
        for name, chance in certainties.stated_probabilities(prediction).items()
    }


class FindingAnswering(Task):
    """The answers of findings; the fields are those of `Findings`."""

    findings: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]] | None
    loss_name: str
    point: OperatingPoint
    thresholds: Mapping[str, float] | None
    grouped: GroupThresholds
    certainty: Certainty

    @property
    def saliency_targets(self) -> tuple[str, ...]:
        """The findings."""
        return self.findings

    @property
    def folds_by_head(self) -> Mapping[str, int]:
        """{head: folds} whose sets the mean of folds combines."""
        return self.certainty.folds_by_head("findings")

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The mean of the log odds."""
        return {"findings": averages.mean_output([one["findings"] for one in outputs], shares)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """(findings, ...) probabilities, brought back to the shares of the training cases."""
        return {"findings": np.moveaxis(self._likely(np.moveaxis(np.asarray(arrays["findings"]), 0, -1)), -1, 0)}

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """(findings,) log odds of one case to a probability of each."""
        [(_, arrays)] = slabs  # a vector head is one slab
        odds = self._odds(np.asarray(arrays["findings"]))
        chances = [certainties.chances_from_log_odds(one).tolist() for one in (self._calibrate(odds), odds)]
        calibrated, uncalibrated = (dict(zip(self.findings, one, strict=True)) for one in chances)
        by_fold = averages.outputs_of_each(arrays, "findings", len(self.findings))
        sets = label_belief.label_sets(
            self.certainty,
            calibrated,
            None if by_fold is None else certainties.chances_from_log_odds(self._odds(by_fold)),
        )
        confidence = Confidence(set=sets, uncalibrated=uncalibrated)
        return Prediction(geometry, probabilities=calibrated, confidence=confidence)

    def outputs(self, prediction: Prediction) -> TableRow:
        """The probability of each finding, and whether it is called."""
        probabilities = certainties.stated_probabilities(prediction)
        called = called_findings(prediction, self.thresholds or {})
        return {
            **{f"probability_{name}": probabilities[name] for name in self.findings},
            **{f"called_{name}": called[name] for name in self.findings},
            **{f"{SET}_{name}": certainties.set_in_json(prediction.confidence.set.get(name)) for name in self.findings},
        }

    def results(self, prediction: Prediction, measured: Measurements = ()) -> list[Finding]:
        """Whether each finding is called, with its probability, and what is not ruled out of it."""
        called = called_findings(prediction, self.thresholds or {})
        sets = prediction.confidence.set
        calibrated = self.certainty.is_calibrated
        return [
            Finding(name, value=called[name], probability=p, possible=sets.get(name), calibrated=calibrated)
            for name, p in certainties.stated_probabilities(prediction).items()
        ]

    @property
    def probable_findings(self) -> tuple[str, ...]:
        """The findings."""
        return self.findings

    @property
    def answers(self) -> LabelBelief:
        """Findings, with a threshold for each."""
        calls = Calls(self.point, self.thresholds, self.grouped, str(DEFAULT_THRESHOLD))
        return LabelBelief(self.certainty, self.findings, calls)

    def rows(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> UnseenCases:
        """Probabilities of the findings before calibration, and whether each is there, NaN where it is not known."""
        outputs = [[certainties.uncalibrated_probabilities(one)[name] for name in self.findings] for one in predictions]
        truth = np.stack([np.asarray(self.target(case).data, dtype=np.float64) for case in cases])
        patients = np.array([case.patient for case in cases])
        return UnseenCases(np.array(outputs), truth, patients, [case.covariates for case in cases])

    @property
    def _balance(self) -> Floats:
        """(findings, 2) how much absence and presence count in the loss."""
        counts = self.counts or {}
        absent, present = (
            np.array([counts[name][side] for name in self.findings], dtype=np.float64) for side in (ABSENT, PRESENT)
        )
        return losses.balance_weights(absent, present)

    def _likely(self, outputs: Floats) -> Floats:
        """(..., findings) log odds to probabilities, calibrated once unseen cases have found how."""
        return certainties.chances_from_log_odds(self._calibrate(self._odds(outputs)))

    def _calibrate(self, odds: Floats) -> Floats:
        return self.certainty.calibrator.odds(odds, self.findings)

    def _odds(self, outputs: Floats) -> Floats:
        """(..., findings) log odds, brought back to the shares of the training cases."""
        odds = np.asarray(outputs, dtype=np.float64)
        if self.loss_name in BALANCED:
            odds = odds - np.log(self._balance[:, 1] / self._balance[:, 0])
        return odds

"""The answers of survival: outputs of a network to the risk, the chance of no event over time, and a lower bound.

A copy of this file travels with a packaged model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from hilum.belief import Certainty, UnseenCases, certainties
from hilum.belief.time_belief import TIME, TimeBelief, TimeLowerBound
from hilum.errors import DatasetError
from hilum.evaluation.survival import Steps
from hilum.tasks.shared import averages
from hilum.tasks.shared.averages import BETWEEN, Shares
from hilum.tasks.survival import hazard_models
from hilum.tasks.survival.hazard_models import LEAST, MODELS, RISK, HazardConstants, HazardModel
from hilum.tasks.task import Task
from hilum.values import Array, Case, Confidence, Finding, Floats, Geometry, Measurements, Prediction, Slabs
from hilum.values.prediction import Variances
from hilum.values.table_cells import TableRow

# Columns of survival by each horizon, and that which was predicted for a case's own time.
SURVIVAL = "survival_"
AT_TIME = f"{SURVIVAL}at_time"
# The column of a lower bound on the observed time.
TIME_LOW = "time_low"
# Parts of the time until the last horizon over which errors are integrated, and at which curves are stated.
PARTS = 20
MEDIAN = "median_survival"
# Findings with a number.
HAZARD = "Log of the cumulative hazard"
MEDIAN_TIME = "Median survival"
# Digits of a number that a plan and a model keep: more would not be seen.
DIGITS = 6


class SurvivalAnswering(Task):
    """The answers of a survival; the fields are those of `Survival`."""

    model: str
    horizons: tuple[float, ...]
    scale: float
    edges: tuple[float, ...]
    followed: float
    censoring: Mapping[str, Sequence[float]]
    unit: str
    baseline: Mapping[str, Sequence[float]] | None
    slope: float | None
    bound: str
    hazard_factor: float | None
    certainty: Certainty

    @property
    def is_absolute(self) -> bool:
        """Whether probabilities are known, and not only how risks compare."""
        return not self._hazard_model.relative or self.baseline is not None

    @property
    def saliency_targets(self) -> tuple[str, ...]:
        """The risk."""
        return RISK

    @property
    def folds_by_head(self) -> Mapping[str, int]:
        """{head: folds} whose bounds their mean combines."""
        return self.certainty.folds_by_head("event")

    @property
    def has_own_zero(self) -> bool:
        """Not of relative risks: each network has a zero of its own."""
        return not self._hazard_model.relative

    def align_zero(
        self, predictions: Sequence[Prediction], theirs: Sequence[Prediction], ours: Sequence[Prediction]
    ) -> list[Prediction]:
        """Risks of another network brought to the zero of the model's."""
        return shift_to_zero(predictions, theirs, ours)

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The mean of the outputs themselves: of log hazard ratios, logits, or logarithms of Weibull's parameters."""
        return {"event": averages.mean_output([one["event"] for one in outputs], shares)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """The probability of the event by the last horizon; of intervals in each; of Weibull also by half of it.

        Before the baseline is known, of a cumulative hazard of 1.
        """
        outputs = np.asarray(arrays["event"], dtype=np.float64)
        if self._hazard_model.discrete:
            return {"event": -np.expm1(-self._constants.hazard_factor * np.logaddexp(0.0, outputs))}
        last = self.horizons[-1]
        when = np.array([last / 2, last][-len(outputs) :])
        return {"event": -np.expm1(-self._hazard_model.curve(outputs, when, self._constants))}

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """Outputs of one case to risk, survival by the horizons and between, and the median where it is reached."""
        [(_, arrays)] = slabs  # a vector head is one slab
        outputs = np.asarray(arrays["event"], dtype=np.float64)
        values = {"risk": self._risk(outputs)}
        if self.is_absolute:
            when = np.array(sorted({*comparison_times(self.horizons[-1]).tolist(), *self.horizons}))
            survival = np.exp(-self._hazard_model.curve(outputs, when, self._constants))
            values |= {survival_column(time): float(one) for time, one in zip(when, survival, strict=True)}
            median = hazard_models.median_event_time(self.model, outputs, self._constants, self.followed)
            values |= {} if median is None else {MEDIAN: round_significant(median)}
        raw = self._raw_risk(outputs)
        of_folds = averages.outputs_of_each(arrays, "event", len(outputs))
        by_fold = [self._raw_risk(one) for one in ([] if of_folds is None else of_folds)]
        low = self._bound.state_bound(self.certainty, self._usual_time(raw), by_fold)
        between = arrays.get(f"event{BETWEEN}")
        spread = Variances() if between is None else hazard_models.risk_variances(between)
        return Prediction(geometry, values=values, confidence=Confidence(low=low, uncalibrated={"risk": raw}, **spread))

    def _raw_risk(self, outputs: Floats) -> float:
        """The risk, or the log hazard ratio, before any case that did not train had a say."""
        curve = replace(self._constants, hazard_factor=1.0)
        return float(outputs[0]) if self._hazard_model.relative else self._risk(outputs, curve)

    def _usual_time(self, raw: float) -> float:
        """The time by which the cumulative hazard would be 1 if it grew evenly; raw: risk, or log hazard ratio."""
        risk = self._constants.slope * raw + self._risk(np.zeros(1)) if self._hazard_model.relative else raw
        return self.horizons[-1] * float(np.exp(-risk))

    def outputs(self, prediction: Prediction) -> TableRow:
        """Risk, survival by each horizon, the median, blank where it is not reached, and a lower bound of the time."""
        values = prediction_columns(prediction)
        columns = (*(survival_column(one) for one in self.horizons), MEDIAN)
        low = {TIME_LOW: certainties.finite_end(prediction.confidence.low.get(TIME))}
        return {"risk": values["risk"], **{name: values.get(name) for name in columns}, **low}

    def results(self, prediction: Prediction, measured: Measurements = ()) -> list[Finding]:
        """The risk, the probability of the event by each horizon, the median where it is reached, and a lower bound."""
        values = prediction_columns(prediction)
        low = certainties.finite_end(prediction.confidence.low.get(TIME))
        findings = [Finding(HAZARD, value=values["risk"], unit="1")]
        for horizon in self.horizons:
            if (chance := values.get(survival_column(horizon))) is not None:
                calibrated = self.hazard_factor is not None
                findings.append(Finding(self._event_by(horizon), probability=1 - chance, calibrated=calibrated))
        if MEDIAN in values:
            findings.append(Finding(MEDIAN_TIME, value=values[MEDIAN], unit=self.unit))
        if low is not None:
            findings.append(Finding("Time of the event", unit=self.unit, low=low))
        return [replace(one, group="survival") for one in findings]

    @property
    def probable_findings(self) -> tuple[str, ...]:
        """The names of the events by each horizon, whose probabilities a model of relative risks does not know."""
        return tuple(map(self._event_by, self.horizons)) if self.is_absolute else ()

    @property
    def valued_findings(self) -> Mapping[str, str]:
        """The risk, and the median where it is reached."""
        return {HAZARD: "", MEDIAN_TIME: self.unit}

    def _event_by(self, horizon: float) -> str:
        return f"Event by {horizon:g} {self.unit}".rstrip()

    @property
    def answers(self) -> TimeBelief:
        """Times, with a lower bound."""
        return TimeBelief(self.certainty, self._bound)

    def rows(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> UnseenCases:
        """The risk before calibration and the time that is expected; time and event."""
        risks = [one.confidence.uncalibrated["risk"] for one in predictions]
        outputs = np.array([(risk, self._usual_time(risk)) for risk in risks])
        truth = np.array([time_and_event(case) for case in cases], dtype=np.float64)
        return UnseenCases(outputs, truth, np.array([case.patient for case in cases]))

    @property
    def _hazard_model(self) -> HazardModel:
        return MODELS[self.model]

    @property
    def _constants(self) -> HazardConstants:
        hazard = self.baseline or {"time": (), "hazard": ()}
        numbers = self.slope or 1.0, self.hazard_factor or 1.0
        return HazardConstants(self.scale, self.edges, tuple(hazard["time"]), tuple(hazard["hazard"]), *numbers)

    def _risk(self, outputs: Floats, curve: HazardConstants | None = None) -> float:
        hazard = self._hazard_model.curve(outputs, np.array([self.horizons[-1]]), curve or self._constants)
        return float(np.log(np.maximum(hazard[0], LEAST)))

    @property
    def _bound(self) -> TimeLowerBound:
        return TimeLowerBound(self.bound, self.horizons, self._follow_up_curve)

    @property
    def _follow_up_curve(self) -> Steps:
        return curve_from_plain(self.censoring, "share")


def survival_column(time: float) -> str:
    """The column with the probability of no event by this time."""
    return f"{SURVIVAL}{time:g}"


def comparison_times(horizon: float) -> Floats:
    """Times, evenly from 0 to the last horizon, at which a survival curve is compared with what happened."""
    return np.linspace(0.0, horizon, PARTS + 1)


def time_and_event(case: Case) -> tuple[float, bool]:
    """The case's time and whether it was the event; DatasetError for a time that is 0, negative or infinite."""
    time, happened = case.references["event"]
    if not 0 < float(time) < math.inf:
        raise DatasetError(f"the time is {time}", case.id, "Times count from the image on: correct it, or leave it out")
    return float(time), bool(happened)


def prediction_columns(prediction: Prediction) -> Mapping[str, float]:
    """The numbers of a prediction, by their columns."""
    assert prediction.values is not None  # noqa: S101 - `decode` always gives them
    return prediction.values


def shift_to_zero(
    predictions: Sequence[Prediction], theirs: Sequence[Prediction], ours: Sequence[Prediction]
) -> list[Prediction]:
    """Predictions of another network whose log hazard ratios have the zero of the model's.

    theirs, ours: of the same cases, by that network and by the model
    A partial likelihood says how cases compare: each network's ratios have a zero of their own. Means of the same cases
    differ by that and by what the networks disagree about, not by which cases they are.
    """
    risk, raw = (float(np.mean(own) - np.mean(other)) for own, other in zip(_risks(ours), _risks(theirs), strict=True))
    return [
        replace(
            prediction,
            values={**(prediction.values or {}), "risk": one + risk},
            confidence=replace(prediction.confidence, uncalibrated={"risk": other + raw}),
        )
        for prediction, one, other in zip(predictions, *_risks(predictions), strict=True)
    ]


def _risks(predictions: Sequence[Prediction]) -> tuple[list[float], list[float]]:
    """The risks, and those before calibration."""
    risks = [float((one.values or {})["risk"]) for one in predictions]
    return risks, [float(one.confidence.uncalibrated["risk"]) for one in predictions]


def curve_from_plain(plain: Mapping[str, Sequence[float]], name: str) -> Steps:
    """The curve of the plain numbers that `curve` made."""
    return Steps(np.array(plain["time"], dtype=float), np.array(plain[name], dtype=float))


def round_significant(value: float, digits: int = DIGITS) -> float:
    """The value with so many significant digits."""
    return float(f"{value:.{digits}g}")

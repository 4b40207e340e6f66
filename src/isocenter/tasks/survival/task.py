"""Survival: the time to an event, where not everybody was followed until it happened."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from isocenter.belief import BOUNDS, INTERVALS, TIME, Certainty, LowerBound, Rows, Times, finite
from isocenter.errors import PlanError, counted
from isocenter.evaluation import CaseValues, Metrics, Seed, Steps, Table, harrell_c
from isocenter.lazy import pandas as pd
from isocenter.tasks.shared import BETWEEN, Shares, each_of, mean_of
from isocenter.tasks.survival.curves import LEAST, MODELS, HazardModel, Known, median_time, plain_curve, variances
from isocenter.tasks.survival.losses import LOSSES, RISK, log_hazard, rising
from isocenter.tasks.survival.pictures import MEDIAN, SurvivalPictures, values_of
from isocenter.tasks.survival.plan import (
    calibrated,
    check_settings,
    decisions,
    event_count,
    rounded,
    settings_for,
    site_factor,
    steps_of,
    with_zero_of,
)
from isocenter.tasks.survival.scores import (
    AT_TIME,
    METRICS,
    TIME_LOW,
    Outcomes,
    bound_rows,
    case_error,
    error_values,
    event_of,
    moments,
    summary_rows,
    survival_at,
    survival_column,
)
from isocenter.tasks.task import Origin, Outputs, Uncertain
from isocenter.values import (
    Array,
    Case,
    Confidence,
    Dataset,
    Decision,
    Fingerprint,
    Floats,
    Geometry,
    Head,
    Label,
    Merge,
    Prediction,
    Row,
    Sentence,
    Slabs,
    Split,
    Target,
    Vector,
    plain_settings,
    setting,
    settings_group,
)

if TYPE_CHECKING:
    from torch import Tensor


def _unit(given: Any) -> str:
    """The unit of times of a plan, which may know none."""
    return str(given or "")


@dataclass(frozen=True)
class Survival(SurvivalPictures):
    """The time to an event, predicted as risk and as the probability that it has not happened by the horizons.

    The risk is the logarithm of the cumulative hazard at the last horizon: comparable between models, higher is sooner.

    model:       "cox" (partial likelihood), "hazards" (discrete time) or "weibull" (accelerated failure time)
    horizons:    rising times by which probabilities are stated; the last bounds what is scored
    scale:       the time that counts as 1 for the network
    edges:       ends of the intervals of discrete time
    followed:    the longest time of a training case: nothing is predicted beyond it
    censoring:   {"time", "share"} of training cases who would still be followed if nobody had the event
    unit:        in which times are counted; empty where it is unknown
    event_free:  {"time", "share"} of training cases to whom the event had not happened
    baseline:    {"time", "hazard"} cumulative, of a log hazard ratio of 0; None until it is estimated after training
    certainty:   the lower bound of times that is to hold, and what makes it so
    bound:       what the lower bound of times is of: "observed", valid whatever censors, or "event", if nothing that
                 ends an observation has to do with the patient
    slope:       what log hazard ratios are multiplied by; median_risk: of validation cases; None as the baseline
    hazard_factor: what cumulative hazards of a model without a baseline are multiplied by, of a site; None until then
    weighed:     the censoring by which its tables weigh errors, where another model's has taken its place
    """

    model: str = setting(words=Sentence("The model is {value}"), choices=tuple(MODELS))
    horizons: tuple[float, ...] = setting(
        words=Sentence("Probabilities are predicted by the times {value}"), registered="horizons", compared=True
    )
    scale: float = setting(words=Sentence("A time of {value} counts as 1"))
    edges: tuple[float, ...] = setting(words=Sentence("Intervals of time end at {value}"))
    followed: float = setting(words=Sentence("Nobody was followed for longer than {value}"))
    censoring: Mapping[str, Sequence[float]] = setting(
        words=Sentence("Censored cases are accounted for by weights ({value})"), read=plain_curve, compared=True
    )
    unit: str = setting("", Sentence("Times are counted in {value}", "The unit of times is not known"), read=_unit)
    baseline: Mapping[str, Sequence[float]] | None = setting(
        None,
        Sentence("The baseline hazard is {value}", "No baseline hazard is known yet"),
        read=plain_curve,
        tuned=True,
    )
    median_risk: float | None = setting(
        None, Sentence("Risks are parted at {value}", "No risk is set yet at which cases are parted"), tuned=True
    )
    event_free: Mapping[str, Sequence[float]] | None = setting(
        None, Sentence("Of the training cases so many were free of the event ({value})"), read=plain_curve
    )
    slope: float | None = setting(
        None,
        Sentence("Log hazard ratios are multiplied by {value}", "No slope of log hazard ratios is known yet"),
        tuned=True,
    )
    bound: str = setting(
        "observed",
        Sentence("Lower bounds are those of the {value} time"),
        choices=tuple(BOUNDS),
        noun="bound of the time",
    )
    hazard_factor: float | None = setting(
        None,
        Sentence("Cumulative hazards are multiplied by {value}", "Cumulative hazards are those of training"),
        tuned=True,
    )
    weighed: Mapping[str, Sequence[float]] | None = field(default=None, compare=False)
    certainty: Certainty = settings_group(Certainty, *INTERVALS)

    name: ClassVar[str] = "survival"
    needs: ClassVar[frozenset[str]] = frozenset({"event"})
    merge: ClassVar[Merge] = "mean"
    selects_by: ClassVar[str] = "harrell_c"
    uncertainty: ClassVar[Uncertain] = "values"
    tuned_on: ClassVar[tuple[Split, ...]] = ("val", "train")

    @property
    def saliency_targets(self) -> tuple[str, ...]:
        """The risk."""
        return RISK

    metrics: ClassVar[Metrics] = METRICS

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Model, horizons and censoring for these training cases; DatasetError where fewer than two had the event."""
        return settings_for(dataset, fingerprint)

    def checked(self) -> Survival:
        """With the weights of its tables; PlanError names the setting that cannot be."""
        check_settings(plain_settings(self))
        return replace(self, weighed=self.censoring)

    @property
    def heads(self) -> Mapping[str, Head]:
        """One vector of numbers: sizes count, because a large structure may be a hazard."""
        return {"event": Vector(len(self.labels), holds="numbers")}

    @property
    def labels(self) -> tuple[Label, ...]:
        """The meaning of the network's outputs."""
        return tuple(Label(value, name) for value, name in enumerate(self._hazard_model.outputs(self.edges)))

    def compared_cases(self, cases: Sequence[Case]) -> int | None:
        """Of a partial likelihood the cases with an event, each compared with the other cases of a batch."""
        return event_count(cases) if self._hazard_model.relative else None

    @property
    def mirrored(self) -> tuple[int, ...]:
        """The outputs stay as they are when left and right change sides."""
        return tuple(range(len(self.labels)))

    @property
    def crossed(self) -> Mapping[str, int]:
        """What bounds of the mean of folds go by."""
        return self.certainty.crossed("event")

    @property
    def measured(self) -> Callable[[Any], Any]:
        """The log of the cumulative hazard by the last horizon."""
        return partial(log_hazard, self.model, self.horizons[-1], self._known)

    def case_values(self, table: Table) -> Sequence[CaseValues]:
        """What discrimination and errors by the horizons are made of."""
        return error_values(self.outcomes, table)

    @property
    def has_own_zero(self) -> bool:
        """Not of relative risks: each network has a zero of its own."""
        return not self._hazard_model.relative

    def aligned(
        self, predictions: Sequence[Prediction], theirs: Sequence[Prediction], ours: Sequence[Prediction]
    ) -> list[Prediction]:
        """Risks of another network brought to the zero of the model's."""
        return with_zero_of(predictions, theirs, ours)

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """A network with one answer for the image, two kinds of c to select and judge, for Cox a large batch."""
        return decisions(fingerprint, in_batches=self._hazard_model.relative)

    def under(self, drawn: str) -> dict[str, Decision]:
        """Nothing; PlanError where cases are drawn otherwise than they come."""
        if drawn != "natural":
            problem = f"cases with a time have no classes that could be {drawn}"
            raise PlanError(problem, "training.sampling", "Give natural")
        return {}

    def target(self, case: Case) -> Target:
        """(2,) time, and 1 where the event happened then, 0 where the case was censored."""
        return Target(self.heads["event"], np.array(event_of(case), dtype=np.float32))

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """Minus the log likelihood of the model; target: (batch, 2) time and event."""
        return LOSSES[self.model](outputs["event"].float(), target.float(), self._known)

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        """(batch, outputs) of the network, and (batch, 2) time and event."""
        return {"outputs": outputs["event"].float(), "target": target.float()}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """Harrell's c of the validation cases; where no two of them can be compared, minus the loss."""
        outputs, target = collected["outputs"], collected["target"]
        risks = [self._risk(one) for one in outputs.cpu().numpy().astype(float)]
        concordance = math.nan
        if np.isfinite(risks).all():
            concordance = float(harrell_c(risks, *target.cpu().numpy().T))
        return concordance if math.isfinite(concordance) else -float(self.loss({"event": outputs}, target))

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The mean of the outputs themselves: of log hazard ratios, logits, or logarithms of Weibull's parameters."""
        return {"event": mean_of([one["event"] for one in outputs], shares)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """The probability of the event by the last horizon; of intervals in each; of Weibull also by half of it.

        Before the baseline is known, of a cumulative hazard of 1.
        """
        outputs = np.asarray(arrays["event"], dtype=np.float64)
        if self._hazard_model.discrete:
            return {"event": -np.expm1(-self._known.hazard_factor * np.logaddexp(0.0, outputs))}
        last = self.horizons[-1]
        when = np.array([last / 2, last][-len(outputs) :])
        return {"event": -np.expm1(-self._hazard_model.curve(outputs, when, self._known))}

    def fitted(self, predictions: Sequence[Prediction], cases: Sequence[Case], origin: Origin) -> dict[str, Decision]:
        """Slope, baseline and median risk of these cases; origin: as `calibrated` has it.

        All belong to one network's weights: those of a plan of another training are estimated anew.
        """
        times, happened = np.array([event_of(case) for case in cases], dtype=float).T
        if not happened.any():
            return {}
        task, made = self, dict[str, Decision]()
        risks = np.array([values_of(prediction)["risk"] for prediction in predictions])
        if self._hazard_model.relative:
            ratios = (risks - self._risk(np.zeros(1))) / self._known.slope
            made = calibrated(times, happened, ratios, self.event_free, origin=origin)
            task = replace(task, slope=made["task.slope"].value, baseline=made["task.baseline"].value)
            risks = task._known.slope * ratios + task._risk(np.zeros(1))
        elif origin == "site":
            decision = site_factor(list(map(values_of, predictions)), times, happened, self.horizons[-1], self._known)
            made["task.hazard_factor"] = decision
            risks = risks + np.log(decision.value / self._known.hazard_factor)
        middle = rounded(float(np.median(risks)))
        because = f"half of {counted(len(cases), 'case')} have a higher one: curves are parted there"
        return {**made, "task.median_risk": Decision(middle, because)}

    def rows(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Rows:
        """The risk before calibration and the time that is expected; time and event."""
        risks = [one.confidence.uncalibrated["risk"] for one in predictions]
        outputs = np.array([(risk, self._usual_time(risk)) for risk in risks])
        truth = np.array([event_of(case) for case in cases], dtype=np.float64)
        return Rows(outputs, truth, np.array([case.patient for case in cases]))

    @property
    def answers(self) -> Times:
        """Times, with a lower bound."""
        return Times(self.certainty, self._bound)

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """Outputs of one case to risk, survival by the horizons and between, and the median where it is reached."""
        [(_, arrays)] = slabs  # a vector head is one slab
        outputs = np.asarray(arrays["event"], dtype=np.float64)
        values = {"risk": self._risk(outputs)}
        if self.is_absolute:
            when = np.array(sorted({*moments(self.horizons[-1]).tolist(), *self.horizons}))
            survival = np.exp(-self._hazard_model.curve(outputs, when, self._known))
            values |= {survival_column(time): float(one) for time, one in zip(when, survival, strict=True)}
            median = median_time(self.model, outputs, self._known, self.followed)
            values |= {} if median is None else {MEDIAN: rounded(median)}
        raw, each = self._uncalibrated(outputs), each_of(arrays, "event", len(outputs))
        by_fold = [self._uncalibrated(one) for one in ([] if each is None else each)]
        low = self._bound.stated(self.certainty, self._usual_time(raw), by_fold)
        between = arrays.get(f"event{BETWEEN}")
        spread: dict[str, Any] = {} if between is None else variances(between)
        return Prediction(geometry, values=values, confidence=Confidence(low=low, uncalibrated={"risk": raw}, **spread))

    def _uncalibrated(self, outputs: Floats) -> float:
        """The risk, or the log hazard ratio, before any case that did not train had a say."""
        return float(outputs[0]) if self._hazard_model.relative else replace(self, hazard_factor=None)._risk(outputs)

    def _usual_time(self, raw: float) -> float:
        """The time by which the cumulative hazard would be 1 if it grew evenly; raw: risk, or log hazard ratio."""
        risk = self._known.slope * raw + self._risk(np.zeros(1)) if self._hazard_model.relative else raw
        return self.horizons[-1] * float(np.exp(-risk))

    @property
    def is_absolute(self) -> bool:
        """Whether probabilities are known, and not only how risks compare."""
        return not self._hazard_model.relative or self.baseline is not None

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case: time, event, risk, survival by each horizon, median survival, brier (integrated)."""
        rows = []
        for prediction, case in zip(predictions, cases, strict=True):
            (time, event), values = event_of(case), values_of(prediction)
            rows.append(
                {
                    "case": case.id,
                    "patient": case.patient,
                    "label": "all",
                    "time": time,
                    "event": event,
                    **self.outputs(prediction),
                    AT_TIME: survival_at(values, time, self.horizons[-1]),
                    "brier": case_error(values, time, event, self.horizons[-1], self._followed),
                }
            )
        return pd.DataFrame(rows)

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """Uno's c, Harrell's c, integrated Brier score; then AUC, Brier score and calibration by each horizon."""
        return [*summary_rows(self.outcomes(table), seed=seed), *bound_rows(table, self._bound.reached, seed=seed)]

    def outputs(self, prediction: Prediction) -> Mapping[str, Any]:
        """Risk, survival by each horizon, the median, blank where it is not reached, and a lower bound of the time."""
        values = values_of(prediction)
        columns = (*(survival_column(one) for one in self.horizons), MEDIAN)
        low = {TIME_LOW: finite(prediction.confidence.low.get(TIME))}
        return {"risk": values["risk"], **{name: values.get(name) for name in columns}, **low}

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """(batch,) a number that rises with the risk."""
        return rising(self.model, outputs["event"], target)

    @property
    def _hazard_model(self) -> HazardModel:
        return MODELS[self.model]

    @property
    def _known(self) -> Known:
        hazard = self.baseline or {"time": (), "hazard": ()}
        numbers = self.slope or 1.0, self.hazard_factor or 1.0
        return Known(self.scale, self.edges, tuple(hazard["time"]), tuple(hazard["hazard"]), *numbers)

    def _risk(self, outputs: Floats) -> float:
        hazard = self._hazard_model.curve(outputs, np.array([self.horizons[-1]]), self._known)
        return float(np.log(np.maximum(hazard[0], LEAST)))

    @property
    def _bound(self) -> LowerBound:
        return LowerBound(self.bound, self.horizons, self._followed)

    @property
    def _followed(self) -> Steps:
        return steps_of(self.censoring, "share")

    def outcomes(self, table: Table) -> Outcomes:
        if self.weighed not in (None, self.censoring):  # these errors stand for other people than those beside them
            table = table.assign(brier=math.nan)
        return Outcomes.of(table, self.horizons, self.unit, self._followed, self.median_risk)

"""Regression: one or several measured numbers for the whole image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from isocenter.belief import (
    HIGH,
    INTERVAL_METHODS,
    INTERVALS,
    LOW,
    Certainty,
    Rows,
    Values,
    by_fold,
    finite,
    interval,
    interval_rows,
    quantiles,
    variances,
    widened,
)
from isocenter.errors import DatasetError
from isocenter.evaluation import CaseValues, Metrics, Seed, Table
from isocenter.lazy import pandas as pd
from isocenter.lazy import torch
from isocenter.tasks.regression.losses import (
    BARS,
    LEAST_LOG,
    LOSSES,
    MOST_LOG,
    NOISES,
    normal_inverse_gamma,
    pinball,
    weighted_likelihood,
)
from isocenter.tasks.regression.pictures import HEAD, ValuePictures
from isocenter.tasks.regression.plan import check_settings, decisions, error_factors, open_factors, settings_for
from isocenter.tasks.regression.scores import (
    METRICS,
    case_rows,
    error_values,
    labelled,
    measured_of,
    summary_rows,
    values_of,
    with_ends,
)
from isocenter.tasks.settings import LOSS
from isocenter.tasks.shared import BETWEEN, Shares, crossed, each_of, mean_of, place_of_target
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
    Target,
    Vector,
    setting,
    settings_group,
)

if TYPE_CHECKING:
    from torch import Tensor


def _units(given: Mapping[str, str] | None) -> dict[str, str]:
    """Units of a plan, which knows none or those of some targets."""
    return {str(name): str(unit or "") for name, unit in (given or {}).items()}


@dataclass(frozen=True)
class Regression(ValuePictures):
    """One or several measured numbers.

    targets:      names, in the order of the head's outputs
    units:        {target: unit}; empty where it is unknown
    mean:         {target: of the training cases}, by which and by `deviation` the network's outputs are standardised
    deviation:    {target: standard deviation of the training cases}
    noise:        "gaussian": the network predicts an error bar for each case; "quantiles": the two ends of an interval;
                  "evidential": an error bar, and how much evidence there is for value and bar; "none": nothing
    loss_name:    "huber", "mse" or "mae", of standardised values; with noise the likelihood takes its place
    error_factor: {target: by what its error bar is multiplied}; None until validation cases have decided
    certainty:    the intervals that are to hold, and what makes them so
    """

    targets: tuple[str, ...] = setting(words=Sentence("The model measures {value}"), target=True)
    units: Mapping[str, str] = setting(words=Sentence("The units are {each}", "No unit is known"), read=_units)
    mean: Mapping[str, float] = setting(words=Sentence("The mean is {each}"), target=True)
    deviation: Mapping[str, float] = setting(
        words=Sentence("The standard deviation is {each}"), target=True, compared=True
    )
    noise: Literal["none", "gaussian", "quantiles", "evidential"] = setting(
        "none",
        Sentence("The network predicts its own error bar, by {value} noise", "The network predicts no error bar"),
        follows=open_factors,
    )
    loss_name: Literal["huber", "mse", "mae"] = setting("huber", LOSS, name="loss", search=("huber", "mse", "mae"))
    error_factor: Mapping[str, float] | None = setting(
        None, Sentence("Error bars are multiplied by {each}", "No factor of error bars is set yet"), tuned=True
    )
    certainty: Certainty = settings_group(Certainty, *INTERVALS)

    name: ClassVar[str] = "regression"
    needs: ClassVar[frozenset[str]] = frozenset({"value"})
    merge: ClassVar[Merge] = "mean"
    selects_by: ClassVar[str] = "r2"
    uncertainty: ClassVar[Uncertain] = "values"
    metrics: ClassVar[Metrics] = METRICS

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Targets, units and standardisation from these training cases; DatasetError for one that cannot be learnt."""
        return settings_for(dataset, fingerprint)

    def checked(self) -> Regression:
        """With numbers of its targets alone; PlanError names the setting that cannot be."""
        mean, deviation = ({name: own[name] for name in self.targets} for own in (self.mean, self.deviation))
        units = {name: self.units.get(name, "") for name in self.targets}
        check_settings(self.targets, mean, deviation, self.error_factor or {})
        return replace(self, units=units, mean=mean, deviation=deviation)

    @property
    def heads(self) -> Mapping[str, Head]:
        """One vector: the values and, with noise, the logarithms of their variances after them."""
        return {HEAD: Vector(len(self.targets) * (1 + NOISES[self.noise]), holds="numbers")}

    @property
    def labels(self) -> tuple[Label, ...]:
        """The targets, in the order of the outputs."""
        return tuple(Label(number, name) for number, name in enumerate(self.targets))

    @property
    def mirrored(self) -> tuple[int, ...] | None:
        """A value stays as it is when left and right change sides; one that names a side becomes its counterpart's."""
        order, count = crossed(self.targets), len(self.targets)
        if order is None:
            return None
        return tuple(part * count + place for part in range(1 + NOISES[self.noise]) for place in order)

    @property
    def is_noisy(self) -> bool:
        """Whether the network predicts an error bar for each case."""
        return self.noise in ("gaussian", "evidential")

    @property
    def saliency_targets(self) -> tuple[str, ...]:
        """The measured values."""
        return self.targets

    @property
    def crossed(self) -> Mapping[str, int]:
        """What intervals of the mean of folds go by."""
        return self.certainty.crossed(HEAD)

    @property
    def states_evidence(self) -> bool:
        """Whether error bars are those of a normal inverse-gamma distribution."""
        return self.noise == "evidential"

    def case_values(self, table: Table) -> Sequence[CaseValues]:
        """What errors and their standardised means are made of."""
        return error_values(self.deviation, table)

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """A network with one answer for the image, no scaling of images, R² to select and MAE to judge."""
        return decisions()

    def under(self, sampling: str) -> dict[str, Decision]:
        """Nothing follows from the sampling."""
        return {}

    def target(self, case: Case) -> Target:
        """(targets,) standardised values, NaN where the case has none; DatasetError where it has none at all."""
        values = self._references(case)
        return Target(self.heads[HEAD], ((values - self._mean) / self._deviation).astype(np.float32))

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """The mean over the values that are known."""
        values, logs = outputs[HEAD].float().tensor_split([len(self.targets)], dim=1)
        # A hole is filled before anything is computed: no gradient survives a NaN, not even one multiplied by 0.
        known = target.isfinite()
        truth = torch.where(known, target, 0.0).float()
        if self.noise == "evidential":
            cost = normal_inverse_gamma(values, logs, truth)
        elif self.is_noisy:
            cost = weighted_likelihood(values, logs, truth)
        elif self.noise == "quantiles":
            cost = pinball(values, logs, truth, self.certainty.coverage)
        else:
            cost = LOSSES[self.loss_name](values, truth)
        return (cost * known).sum() / known.sum().clamp(min=1)

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        """(batch, targets) standardised values and references, NaN where there is none."""
        return {"value": outputs[HEAD].float()[:, : len(self.targets)], "target": target.float()}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """Mean over the targets of R² against the variance of the training cases, which is 1 of standardised values.

        Against that of a few validation cases a target that hardly varies among them would decide alone.
        """
        predicted, reference = (collected[key].double().cpu().numpy() for key in ("value", "target"))
        known = np.isfinite(reference)
        errors = [np.mean((predicted[own, n] - reference[own, n]) ** 2) for n, own in enumerate(known.T) if own.any()]
        return 1 - float(np.mean(errors)) if errors else float("nan")

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The mean of values; of error bars the geometric mean, which leaves out how far networks differ."""
        return {HEAD: mean_of([np.asarray(one[HEAD], dtype=np.float32) for one in outputs], shares)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """No probabilities, but values in deviations of the training cases and, with noise, their error bars."""
        values, errors = self._standardised(np.asarray(arrays[HEAD], dtype=np.float64))
        return {HEAD: values if errors is None else np.concatenate([values, errors])}

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """Standardised outputs of one case to values in their units."""
        [(_, arrays)] = slabs  # a vector head is one slab
        values, errors = self._standardised(np.asarray(arrays[HEAD], dtype=np.float64))
        measured = dict(zip(self.targets, (values * self._deviation + self._mean).tolist(), strict=True))
        if errors is not None and not self.is_noisy:
            low, high = self._by_fold(arrays) or widened(self.certainty, *quantiles(measured, errors, self._deviation))
            of_views: dict[str, Any] = variances(self._deviation, None, arrays.get(f"{HEAD}{BETWEEN}"))
            return Prediction(geometry, values=measured, confidence=Confidence({}, low, high, **of_views))
        bars = None if errors is None else errors * self._deviation
        wide = np.ones(len(values)) if bars is None else bars
        low, high = self._by_fold(arrays) or interval(self.certainty, measured, wide.tolist())
        given = {} if bars is None else dict(zip(self.targets, (bars / self._factors).tolist(), strict=True))
        spread: dict[str, Any] = variances(self._deviation, bars, arrays.get(f"{HEAD}{BETWEEN}"))
        confidence = Confidence({}, low, high, bars, uncalibrated=given, **spread)
        return Prediction(geometry, values=measured, confidence=confidence)

    def _by_fold(self, arrays: Mapping[str, Array]) -> tuple[dict[str, float], dict[str, float]] | None:
        """Both ends of intervals by what each of the folds says; None where thresholds decide."""
        rows = each_of(arrays, HEAD, self.heads[HEAD].count)
        if rows is None:
            return None
        given, errors = replace(self, error_factor=None)._standardised(rows.T)
        values, wide = given.T * self._deviation + self._mean, None if errors is None else errors.T
        return by_fold(self.certainty, self.targets, values, wide, self._deviation)

    def _standardised(self, outputs: Floats) -> tuple[Floats, Floats | None]:
        """(targets, ...) values and their error bars, one standard deviation each."""
        count = len(self.targets)
        if self.noise == "none":
            return outputs, None
        bars = BARS[self.noise]
        errors = np.exp(0.5 * np.clip(outputs[count : count * (1 + bars)], LEAST_LOG, MOST_LOG))
        factors = np.tile(self._factors, bars)
        return outputs[:count], errors * factors.reshape(-1, *[1] * (outputs.ndim - 1))

    def fitted(self, predictions: Sequence[Prediction], cases: Sequence[Case], origin: Origin) -> dict[str, Decision]:
        """Factors that make error bars as large as the errors of these cases, unless they are set."""
        if not self.is_noisy or self.error_factor is not None:
            return {}
        _, decision = error_factors(self.targets, measured_of(self.score(predictions, cases), self.targets))
        return {"task.error_factor": decision}

    def rows(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Rows:
        """Values and error bars as they came, 1 without any, or both quantiles; the references."""
        truth = np.stack([self._references(case) for case in cases])
        outputs = np.array([self._stated(one) for one in predictions])
        return Rows(outputs, truth, np.array([case.patient for case in cases]))

    def _stated(self, prediction: Prediction) -> list[list[float]]:
        confidence = prediction.confidence
        if self.noise == "quantiles":
            return [[end[name] for name in self.targets] for end in (confidence.low, confidence.high)]
        values = values_of(self.targets, prediction)[0]
        bars = [confidence.uncalibrated.get(name, 1.0) for name in self.targets]
        return [[values[name] for name in self.targets], bars]

    @property
    def answers(self) -> Values:
        """Numbers, with intervals."""
        factors = self._factors if self.is_noisy else np.ones(len(self.targets))
        return Values(self.certainty, self.targets, INTERVAL_METHODS[self.noise], factors)

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case and target that it has a reference of, in the target's unit.

        difference: predicted less reference; standardised_difference: its size in deviations of the training cases
        """
        ordered = {name: self.deviation[name] for name in self.targets}
        pairs = zip(predictions, cases, strict=True)
        return pd.DataFrame([row for a, b in pairs for row in case_rows(a, b, self._references(b), ordered)])

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """Figures of each target in its unit, of several first their standardised means; patients are resampled."""
        wide = [
            row
            for label, unit in labelled(self.units).items()
            for row in interval_rows(label, with_ends(table[table["label"] == label], self.certainty), unit, seed=seed)
        ]
        return [*summary_rows(measured_of(table, self.targets), self.units, self.deviation, seed=seed), *wide]

    def outputs(self, prediction: Prediction) -> Mapping[str, Any]:
        """Each value in its unit, with noise its error bar (one standard deviation), and its interval."""
        values, errors = values_of(self.targets, prediction)
        return {
            **{f"value_{name}": value for name, value in values.items()},
            **{f"error_{name}": value for name, value in errors.items()},
            **{f"{LOW}_{name}": finite(prediction.confidence.low.get(name)) for name in self.targets},
            **{f"{HIGH}_{name}": finite(prediction.confidence.high.get(name)) for name in self.targets},
        }

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """(batch,) the standardised value, without a target the mean of all."""
        values = outputs[HEAD][:, : len(self.targets)]
        return values.mean(dim=1) if target is None else values[:, place_of_target(target, self.targets)]

    def _references(self, case: Case) -> Floats:
        """(targets,) in their units, NaN where the case has none; DatasetError where it has none of them."""
        given: Mapping[str, float] = case.references[HEAD]
        values = np.array([given.get(name, np.nan) for name in self.targets], dtype=np.float64)
        if not np.isfinite(values).any() or np.isinf(values).any():
            problem = f"has no value of {', '.join(self.targets)}, only {', '.join(given) or 'nothing'}"
            raise DatasetError(problem, case.id, "Name its columns with --column value:NAME=COLUMN, or leave it out")
        return values

    @property
    def _factors(self) -> Floats:
        return np.array([(self.error_factor or {}).get(name, 1.0) for name in self.targets])

    @property
    def _mean(self) -> Floats:
        return np.array([self.mean[name] for name in self.targets])

    @property
    def _deviation(self) -> Floats:
        return np.array([self.deviation[name] for name in self.targets])

"""The answers of a regression: standardised outputs of a network to values in their units, with their intervals.

A copy of this file travels with a packaged model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from hilum.belief import Certainty, UnseenCases, certainties, value_belief
from hilum.belief.prediction_sets import HIGH, LOW
from hilum.belief.value_belief import INTERVAL_METHODS, ValueBelief
from hilum.errors import DatasetError
from hilum.tasks.regression.losses import LEAST_LOG, MOST_LOG, NOISES
from hilum.tasks.shared import averages
from hilum.tasks.shared.averages import BETWEEN, Shares
from hilum.tasks.task import Task
from hilum.values import Array, Case, Confidence, Finding, Floats, Geometry, Measurements, Prediction, Slabs
from hilum.values.table_cells import TableRow

HEAD = "value"


def predicted_values(targets: Sequence[str], prediction: Prediction) -> tuple[dict[str, float], dict[str, float]]:
    """{target: value} and, with noise, {target: error bar}."""
    assert prediction.values is not None  # noqa: S101 - `decode` always gives them
    values = dict(prediction.values)
    if prediction.confidence.deviations is None:
        return values, {}
    errors = np.asarray(prediction.confidence.deviations, dtype=np.float64).tolist()
    return values, dict(zip(targets, errors, strict=True))


class ValueAnswering(Task):
    """The answers of a regression; the fields are those of `Regression`."""

    targets: tuple[str, ...]
    units: Mapping[str, str]
    mean: Mapping[str, float]
    deviation: Mapping[str, float]
    noise: Literal["none", "gaussian", "quantiles"]
    error_factor: Mapping[str, float] | None
    certainty: Certainty

    @property
    def is_noisy(self) -> bool:
        """Whether the network predicts an error bar for each case."""
        return self.noise == "gaussian"

    @property
    def saliency_targets(self) -> tuple[str, ...]:
        """The measured values."""
        return self.targets

    @property
    def folds_by_head(self) -> Mapping[str, int]:
        """{head: folds} whose intervals their mean combines."""
        return self.certainty.folds_by_head(HEAD)

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The mean of values; of error bars the geometric mean, which leaves out how far networks differ."""
        return {HEAD: averages.mean_output([np.asarray(one[HEAD], dtype=np.float32) for one in outputs], shares)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """No probabilities, but values in deviations of the training cases and, with noise, their error bars."""
        values, errors = self._standardise(np.asarray(arrays[HEAD], dtype=np.float64), self._factors)
        return {HEAD: values if errors is None else np.concatenate([values, errors])}

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """Standardised outputs of one case to values in their units."""
        [(_, arrays)] = slabs  # a vector head is one slab
        values, errors = self._standardise(np.asarray(arrays[HEAD], dtype=np.float64), self._factors)
        measured = dict(zip(self.targets, (values * self._deviation + self._mean).tolist(), strict=True))
        if errors is not None and not self.is_noisy:
            low, high = self._by_fold(arrays) or value_belief.widen_ends(
                self.certainty, *value_belief.value_quantiles(measured, errors, self._deviation)
            )
            of_views = value_belief.value_variances(self._deviation, None, arrays.get(f"{HEAD}{BETWEEN}"))
            return Prediction(geometry, values=measured, confidence=Confidence({}, low, high, **of_views))
        bars = None if errors is None else errors * self._deviation
        wide = np.ones(len(values)) if bars is None else bars
        low, high = self._by_fold(arrays) or value_belief.interval_ends(self.certainty, measured, wide.tolist())
        uncalibrated = {} if bars is None else dict(zip(self.targets, (bars / self._factors).tolist(), strict=True))
        spread = value_belief.value_variances(self._deviation, bars, arrays.get(f"{HEAD}{BETWEEN}"))
        confidence = Confidence({}, low, high, bars, uncalibrated=uncalibrated, **spread)
        return Prediction(geometry, values=measured, confidence=confidence)

    def _by_fold(self, arrays: Mapping[str, Array]) -> tuple[dict[str, float], dict[str, float]] | None:
        """Both ends of intervals by what each of the folds says; None where thresholds decide."""
        rows = averages.outputs_of_each(arrays, HEAD, self.heads[HEAD].count)
        if rows is None:
            return None
        of_folds, errors = self._standardise(rows.T, np.ones(len(self.targets)))
        values = of_folds.T * self._deviation + self._mean
        wide = None if errors is None else errors.T
        return value_belief.ends_by_fold(self.certainty, self.targets, values, wide, self._deviation)

    def _standardise(self, outputs: Floats, factors: Floats) -> tuple[Floats, Floats | None]:
        """(targets, ...) values and their error bars, one standard deviation each; factors: (targets,) of the bars."""
        count = len(self.targets)
        if self.noise == "none":
            return outputs, None
        bars = NOISES[self.noise]
        errors = np.exp(0.5 * np.clip(outputs[count : count * (1 + bars)], LEAST_LOG, MOST_LOG))
        return outputs[:count], errors * np.tile(factors, bars).reshape(-1, *[1] * (outputs.ndim - 1))

    def outputs(self, prediction: Prediction) -> TableRow:
        """Each value in its unit, with noise its error bar (one standard deviation), and its interval."""
        values, errors = predicted_values(self.targets, prediction)
        return {
            **{f"value_{name}": value for name, value in values.items()},
            **{f"error_{name}": value for name, value in errors.items()},
            **{f"{LOW}_{name}": certainties.finite_end(prediction.confidence.low.get(name)) for name in self.targets},
            **{f"{HIGH}_{name}": certainties.finite_end(prediction.confidence.high.get(name)) for name in self.targets},
        }

    def results(self, prediction: Prediction, measured: Measurements = ()) -> list[Finding]:
        """Each value in its unit, with its interval."""
        values = predicted_values(self.targets, prediction)[0]
        confidence = prediction.confidence
        ends = {
            name: (certainties.finite_end(confidence.low.get(name)), certainties.finite_end(confidence.high.get(name)))
            for name in values
        }
        return [
            Finding(name, value, self.units[name], low=ends[name][0], high=ends[name][1])
            for name, value in values.items()
        ]

    @property
    def valued_findings(self) -> Mapping[str, str]:
        """The targets."""
        return {name: self.units[name] for name in self.targets}

    @property
    def answers(self) -> ValueBelief:
        """Numbers, with intervals."""
        factors = self._factors if self.is_noisy else np.ones(len(self.targets))
        return ValueBelief(self.certainty, self.targets, INTERVAL_METHODS[self.noise], factors)

    def rows(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> UnseenCases:
        """Values and error bars as they came, 1 without any, or both quantiles; the references."""
        truth = np.stack([self._references(case) for case in cases])
        outputs = np.array([self._ends_or_bars(one) for one in predictions])
        return UnseenCases(outputs, truth, np.array([case.patient for case in cases]))

    def _ends_or_bars(self, prediction: Prediction) -> list[list[float]]:
        confidence = prediction.confidence
        if self.noise == "quantiles":
            return [[end[name] for name in self.targets] for end in (confidence.low, confidence.high)]
        values = predicted_values(self.targets, prediction)[0]
        bars = [confidence.uncalibrated.get(name, 1.0) for name in self.targets]
        return [[values[name] for name in self.targets], bars]

    def _references(self, case: Case) -> Floats:
        """(targets,) in their units, NaN where the case has none; DatasetError where it has none of them."""
        references: Mapping[str, float] = case.references[HEAD]
        values = np.array([references.get(name, np.nan) for name in self.targets], dtype=np.float64)
        if not np.isfinite(values).any() or np.isinf(values).any():
            problem = f"has no value of {', '.join(self.targets)}, only {', '.join(references) or 'nothing'}"
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

"""Answers that are measured numbers: intervals that hold, and the uncertainty of several views.

A copy of what decodes travels with a packaged model, and needs NumPy only there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hilum.belief import prediction_sets
from hilum.belief.certainties import Certainty
from hilum.belief.covering_results import Belief, UnseenCases
from hilum.evaluation import conformal
from hilum.values import Array, Decision, Floats
from hilum.values.prediction import Variances

# How intervals are scored by what a network says of its error; the last is conformalised quantile regression.
BY_QUANTILES = "cqr"
INTERVAL_METHODS = {"none": "absolute", "gaussian": "normalised", "quantiles": BY_QUANTILES}


@dataclass(frozen=True, eq=False)
class ValueBelief(Belief):
    """Numbers of targets; of its rows outputs are (cases, 2, targets) values and error bars, or both ends of intervals.

    truth of rows: (cases, targets), NaN where there is none
    method:  one of those in `INTERVAL_METHODS`
    factors: (targets,) by which error bars are multiplied
    """

    certainty: Certainty
    targets: tuple[str, ...]
    method: str
    factors: Floats

    def sets(self, rows: UnseenCases, *, exact: bool) -> dict[str, Decision]:
        """Widths of intervals, in error bars where there are any."""
        if self.certainty.conformal is not None:
            return {}
        scores = {name: (own, rows.patients[known]) for name, own, known in self._target_errors(rows, self.factors)}
        return prediction_sets.find_conformal_thresholds(self.certainty, self.method, "target", scores, exact=exact)

    def sets_of_folds(self, rows: UnseenCases) -> dict[str, Decision]:
        """The scores of folds, in error bars as they came."""
        if self.certainty.conformal is None:
            return {}
        missed = self._target_errors(rows, np.ones(len(self.targets)))
        scores = {name: (own, rows.folds[known], rows.patients[known]) for name, own, known in missed}
        return prediction_sets.add_fold_scores(self.certainty.conformal, scores, int(rows.folds.max()) + 1)

    def _target_errors(self, rows: UnseenCases, factors: Floats) -> Iterator[tuple[str, Floats, NDArray[np.bool_]]]:
        """Each target, how far off it is in the cases in which it is known, and which these are."""
        for index, name in enumerate(self.targets):
            first = rows.outputs[:, 0, index]
            second = rows.outputs[:, 1, index]
            true = rows.truth[:, index]
            if self.method == BY_QUANTILES:
                scores = conformal.quantile_scores(first, second, true)
            else:
                scores = conformal.value_scores(first, true, second * factors[index])
            is_known = np.isfinite(true)
            yield name, scores[is_known], is_known


def interval_ends(
    certainty: Certainty, values: Mapping[str, float], deviations: Sequence[float]
) -> tuple[dict[str, float], ...]:
    """{target: lower end} and {target: upper end}; nothing before thresholds are found."""
    if certainty.conformal is None:
        return {}, {}
    limits = map(certainty.conformal.threshold, values)
    wide = {name: limit * one for name, limit, one in zip(values, limits, deviations, strict=True)}
    return tuple({name: value + side * wide[name] for name, value in values.items()} for side in (-1, 1))


def interval_of_folds(
    certainty: Certainty, names: Sequence[str], low: Floats, high: Floats, widths: Floats
) -> tuple[dict[str, float], dict[str, float]] | None:
    """{target: lower end} and {target: upper end} by folds whose mean the model is; None where thresholds decide.

    low, high: (folds, targets) what each of them says: one value, or its quantiles
    widths:    (folds, targets) its error bars as they came, or 1
    """
    guarantee = certainty.conformal
    steps = [] if guarantee is None else [guarantee.steps(name, len(low)) for name in names]
    if guarantee is None or None in steps:
        return None
    columns = zip(names, steps, low.T, high.T, widths.T, strict=True)
    ends = {
        name: conformal.cross_interval(own, below, above, wide, guarantee.level)
        for name, own, below, above, wide in columns
        if own is not None
    }
    return {name: one for name, (one, _) in ends.items()}, {name: one for name, (_, one) in ends.items()}


def widen_ends(
    certainty: Certainty, low: Mapping[str, float], high: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """Both ends further out by the threshold of each target, or further in; as they are before it is found."""
    out = {name: 0.0 if certainty.conformal is None else certainty.conformal.threshold(name) for name in low}
    ends = {name: conformal.ordered_ends(end - out[name], high[name] + out[name]) for name, end in low.items()}
    return {name: one for name, (one, _) in ends.items()}, {name: one for name, (_, one) in ends.items()}


def ends_by_fold(
    certainty: Certainty, targets: Sequence[str], values: Floats, errors: Floats | None, deviation: Floats
) -> tuple[dict[str, float], dict[str, float]] | None:
    """Both ends of intervals by what each of several folds says; None where thresholds decide.

    values: (folds, targets)
    errors: (folds, targets) error bars as they came, standardised, or (folds, 2 targets) how far quantiles lie away
    """
    wide = np.ones_like(values) if errors is None else errors
    if wide.shape == values.shape:
        return interval_of_folds(certainty, targets, values, values, wide if errors is None else wide * deviation)
    below, above = (one * deviation for one in np.split(wide, 2, axis=1))
    return interval_of_folds(certainty, targets, values - below, values + above, np.ones_like(values))


def value_quantiles(measured: Mapping[str, float], wide: Floats, deviation: Floats) -> Iterator[dict[str, float]]:
    """{target: lower quantile} and {target: upper one}; wide: how far they lie below and above, standardised."""
    for side, column in zip((-1, 1), np.split(wide, 2), strict=True):
        away = (side * column * deviation).tolist()
        yield {name: value + far for (name, value), far in zip(measured.items(), away, strict=True)}


def value_variances(deviation: Floats, bars: Floats | None, between: Array | None) -> Variances:
    """Epistemic variance of several views, with error bars the others too; of several targets standardised."""
    if between is None:
        return {}
    scale = deviation if len(deviation) > 1 else np.ones(1)
    epistemic = float(np.sum(np.asarray(between, dtype=np.float64) * (deviation / scale) ** 2))
    if bars is None:
        return {"epistemic": epistemic}
    aleatoric = float(np.sum((bars / scale) ** 2))
    return {"total": aleatoric + epistemic, "aleatoric": aleatoric, "epistemic": epistemic}

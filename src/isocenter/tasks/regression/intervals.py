"""Intervals of predicted values that hold, made from how far off they are, and the uncertainty of several views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from isocenter.belief import Certainty
from isocenter.evaluation import quantile_scores, value_scores
from isocenter.tasks.regression.scores import values_of
from isocenter.values import Array, Floats, Prediction

# A target, scores of the cases in which it is known, and which of all these are.
Missed = tuple[str, Floats, NDArray[np.bool_]]


def missed(
    targets: Sequence[str],
    predictions: Sequence[Prediction],
    references: Floats,
    factors: Floats | None = None,
    *,
    between: bool,
) -> list[Missed]:
    """How far off each target is, in error bars where there are any.

    references: (cases, targets), NaN where there is none
    factors:    (targets,) by which error bars are multiplied; None leaves them as they came
    between:    the predictions have quantiles, beyond which it counts
    """
    made = list[Missed]()
    for place, name in enumerate(targets):
        true = references[:, place]
        if between:
            ends = np.array([(one.confidence.low[name], one.confidence.high[name]) for one in predictions])
            scores = quantile_scores(ends[:, 0], ends[:, 1], true)
        else:
            values = np.array([values_of(targets, one)[0][name] for one in predictions])
            bars = np.array([one.confidence.uncalibrated.get(name, 1.0) for one in predictions])
            scores = value_scores(values, true, bars * (1.0 if factors is None else factors[place]))
        known = np.isfinite(true)
        made.append((name, scores[known], known))
    return made


def by_fold(
    certainty: Certainty, targets: Sequence[str], values: Floats, errors: Floats | None, deviation: Floats
) -> tuple[dict[str, float], dict[str, float]] | None:
    """Both ends of intervals by what each of several folds says; None where thresholds decide.

    values: (folds, targets)
    errors: (folds, targets) error bars as they came, standardised, or (folds, 2 targets) how far quantiles lie away
    """
    wide = np.ones_like(values) if errors is None else errors
    if wide.shape == values.shape:
        return certainty.crossed_interval(targets, values, values, wide if errors is None else wide * deviation)
    below, above = (one * deviation for one in np.split(wide, 2, axis=1))
    return certainty.crossed_interval(targets, values - below, values + above, np.ones_like(values))


def quantiles(measured: Mapping[str, float], wide: Floats, deviation: Floats) -> Iterator[dict[str, float]]:
    """{target: lower quantile} and {target: upper one}; wide: how far they lie below and above, standardised."""
    for side, own in zip((-1, 1), np.split(wide, 2), strict=True):
        away = (side * own * deviation).tolist()
        yield {name: value + far for (name, value), far in zip(measured.items(), away, strict=True)}


def variances(deviation: Floats, bars: Floats | None, between: Array | None) -> dict[str, float]:
    """Of several views epistemic variance, and with error bars the others; of several targets standardised."""
    if between is None:
        return {}
    scale = deviation if len(deviation) > 1 else np.ones(1)
    epistemic = float(np.sum(np.asarray(between, dtype=np.float64) * (deviation / scale) ** 2))
    if bars is None:
        return {"epistemic": epistemic}
    aleatoric = float(np.sum((bars / scale) ** 2))
    return {"total": aleatoric + epistemic, "aleatoric": aleatoric, "epistemic": epistemic}

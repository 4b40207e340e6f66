"""Measured values beside their references: estimates of how far they agree, with limits of agreement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from hilum.evaluation import Seed, intervals, regression
from hilum.evaluation.intervals import IntervalScale
from hilum.evaluation.regression import AGREEMENT_METRICS
from hilum.report import Figure
from hilum.report.figures import charts
from hilum.values import Estimate, Floats, Row

# (cases,) predicted and reference values, (..., cases) weights to a figure for each weighting.
Compared = Callable[[Floats, Floats, Floats], Floats]
# Figures that do not change where a model shifts or stretches its scale, and so must not mix the scales of several.
SCALE_FREE = (regression.pearson, regression.spearman)
# Figures of -1 to 1, by the scale of their intervals.
SCALES: Mapping[Compared, IntervalScale] = {
    regression.pearson: "correlation",
    regression.spearman: "rank correlation",
    regression.concordance_correlation: "correlation",
    regression.absolute_agreement: "correlation",
}


@dataclass(frozen=True, eq=False)
class MeasuredQuantity:
    """One quantity of the cases that have a reference of it, in its unit.

    predicted, reference: (cases,); patients: (cases,) whose; cases: (cases,) ids
    errors: (cases,) one standard deviation as the network predicts it; None where it predicts none
    """

    target: str
    predicted: Floats
    reference: Floats
    patients: np.ndarray
    cases: np.ndarray
    errors: Floats | None = None


def compared_estimate(measured: MeasuredQuantity, figure: Compared, unit: str, seed: Seed) -> Estimate:
    """A figure of predicted and reference values, with patients resampled."""
    statistic = partial(figure, measured.predicted, measured.reference)
    return bootstrap_of(figure)(statistic, measured.patients, unit=unit, seed=seed)


def bootstrap_of(figure: Compared) -> Callable[..., Estimate]:
    """`bootstrap_statistic` with what it has to know of a figure."""
    compares = figure in SCALE_FREE
    scale = SCALES.get(figure)
    return partial(intervals.bootstrap_statistic, exact=False, compares=compares, scale=scale)


def agreement_rows(measured: MeasuredQuantity, unit: str, *, seed: Seed) -> list[Row]:
    """Bias, the two limits of agreement, the intraclass correlation, and bias as a share of the mean reference."""
    estimates = [
        compared_estimate(measured, regression.mean_bias, unit, seed),
        _limit(-1, measured, unit, seed),
        _limit(1, measured, unit, seed),
        compared_estimate(measured, regression.absolute_agreement, "", seed),
    ]
    if (measured.reference > 0).all():  # else it is a share of nothing
        estimates.append(compared_estimate(measured, regression.relative_bias, "%", seed))
    return [Row(metric.name, measured.target, own) for metric, own in zip(AGREEMENT_METRICS, estimates, strict=False)]


def agreement_figure(measured: MeasuredQuantity, title: str, unit: str) -> Figure:
    """The Bland-Altman plot."""
    mean, lower, upper = (row.estimate for row in agreement_rows(measured, unit, seed=0)[:3])
    limits = (lower, upper)
    return charts.bland_altman(measured.reference, measured.predicted, title, bias=mean, limits=limits, unit=unit)


def _limit(side: Literal[-1, 1], measured: MeasuredQuantity, unit: str, seed: Seed) -> Estimate:
    """The lower (-1) or the upper (1) limit of agreement."""

    def limit(predicted: Floats, reference: Floats, weights: Floats) -> Floats:
        """Limit for each weighting."""
        lower, upper = regression.limits_of_agreement(predicted, reference, weights)
        return lower if side < 0 else upper

    estimate = compared_estimate(measured, limit, unit, seed)
    return intervals.figure_of_differences(
        estimate, measured.predicted - measured.reference, measured.patients, seed=seed, side=side
    )

"""What the table of a regression's cases comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from isocenter.evaluation import (
    Seed,
    Table,
    bias,
    bootstrap_statistic,
    concordance,
    gaussian_nll,
    is_covered,
    limits_of_agreement,
    mean_absolute_error,
    median,
    pearson,
    proportion,
    r2,
    root_mean_squared_error,
    spearman,
)
from isocenter.values import Estimate, Floats, Row

# Named one by one: a packaged model carries this line, and none of the figures.
METRICS = frozenset(
    {
        *("mae", "rmse", "median_absolute_error", "r2", "pearson", "spearman", "concordance"),
        *("bias", "loa_lower", "loa_upper", "interval_coverage", "nll"),
    }
)

# (cases,) predicted and reference values, (..., cases) weights to a figure for each weighting.
Compared = Callable[[Floats, Floats, Floats], Floats]

# In the unit of the target; of several targets they are taken in deviations of the training cases.
WITH_UNIT: Mapping[str, Compared] = {"mae": mean_absolute_error, "rmse": root_mean_squared_error}
WITHOUT_UNIT: Mapping[str, Compared] = {
    "r2": r2,
    "pearson": pearson,
    "spearman": spearman,
    "concordance": concordance,
}
# Figures that do not mind how one model shifts or stretches its scale, and so must not mix the scales of several.
OF_ONE_SCALE = (pearson, spearman)
AGREEMENT = ("bias", "loa_lower", "loa_upper")
STANDARDISED = "SD"


@dataclass(frozen=True, eq=False)
class Measured:
    """One target of the cases that have a reference of it, in its unit.

    predicted, reference: (cases,); patients: (cases,) whose; cases: (cases,) ids
    errors: (cases,) one standard deviation, as the network says it; None where it says none
    """

    target: str
    predicted: Floats
    reference: Floats
    patients: np.ndarray
    cases: np.ndarray
    errors: Floats | None = None


def measured_of(table: Table, targets: Sequence[str]) -> list[Measured]:
    """The targets of a table of cases, in their order; without those that no case has."""
    found = []
    for name in targets:
        own = table[table["label"] == name]
        if own.empty:
            continue
        errors = own["error_bar"].to_numpy(float) if "error_bar" in own else None
        said, true = own["predicted"].to_numpy(float), own["reference"].to_numpy(float)
        found.append(Measured(name, said, true, own["patient"].to_numpy(str), own["case"].to_numpy(str), errors))
    return found


def summary_rows(
    measured: Sequence[Measured], units: Mapping[str, str], deviation: Mapping[str, float], *, seed: Seed
) -> list[Row]:
    """Of several targets first their unweighted mean, in deviations of the training cases; then each in its unit."""
    rows = list(_overall(measured, deviation, seed)) if len(measured) > 1 else []
    return [*rows, *(row for one in measured for row in _of_target(one, units[one.target], seed))]


def agreement_rows(one: Measured, unit: str, *, seed: Seed) -> list[Row]:
    """Bias and the two limits of agreement."""
    lower, upper = (_limit(side) for side in (0, 1))
    figures: Mapping[str, Compared] = dict(zip(AGREEMENT, (bias, lower, upper), strict=True))
    return [Row(metric, one.target, _estimate(one, figure, unit, seed)) for metric, figure in figures.items()]


def _of_target(one: Measured, unit: str, seed: Seed) -> Iterator[Row]:
    for metric, figure in WITH_UNIT.items():
        yield Row(metric, one.target, _estimate(one, figure, unit, seed))
    apart = np.abs(one.predicted - one.reference)
    yield Row("median_absolute_error", one.target, median(apart, one.patients, unit=unit))
    for metric, figure in WITHOUT_UNIT.items():
        yield Row(metric, one.target, _estimate(one, figure, "", seed))
    yield from agreement_rows(one, unit, seed=seed)
    if one.errors is not None:
        covered = is_covered(one.predicted, one.errors, one.reference)
        yield Row("interval_coverage", one.target, proportion(covered, one.patients, seed=seed))
        errors = one.errors

        def likelihood(said: Floats, true: Floats, weights: Floats) -> Floats:
            return gaussian_nll(said, errors, true, weights)

        estimate = _estimate(one, likelihood, "", seed)
        yield Row("nll", one.target, replace(estimate, method=f"{estimate.method}; nats, of the value in its unit"))


def _overall(measured: Sequence[Measured], deviation: Mapping[str, float], seed: Seed) -> Iterator[Row]:
    for metric, figure in WITH_UNIT.items():
        scales = [deviation[one.target] for one in measured]
        yield Row(metric, "all", _mean_of_targets(measured, figure, scales, STANDARDISED, seed))
    for metric, figure in WITHOUT_UNIT.items():
        yield Row(metric, "all", _mean_of_targets(measured, figure, [1.0] * len(measured), "", seed))


def _mean_of_targets(
    measured: Sequence[Measured], figure: Compared, scales: Sequence[float], unit: str, seed: Seed
) -> Estimate:
    """Unweighted mean over the targets; a case is drawn with all its targets, and those that it has not count in none.

    scales: by which each target is divided
    """
    cases = np.concatenate([one.cases for one in measured])
    ids, first, place = np.unique(cases, return_index=True, return_inverse=True)
    owners = np.concatenate([one.patients for one in measured])[first]
    ends = np.cumsum([len(one.cases) for one in measured])
    places = np.split(place, ends[:-1])

    def statistic(weights: Floats) -> Floats:
        each = [
            figure(one.predicted / scale, one.reference / scale, weights[:, own])
            for one, scale, own in zip(measured, scales, places, strict=True)
        ]
        return np.mean(each, axis=0)

    how: dict[str, Any] = {"seed": seed, "exact": False, "compares": figure in OF_ONE_SCALE}
    estimate = bootstrap_statistic(statistic, owners, unit=unit, **how)
    note = "; unweighted mean of the targets"
    note += ", each in standard deviations of its training cases" if unit else ""
    return replace(estimate, n=len(ids), method=estimate.method + note)


def _estimate(one: Measured, figure: Compared, unit: str, seed: Seed) -> Estimate:
    statistic = partial(figure, one.predicted, one.reference)
    how: dict[str, Any] = {"seed": seed, "exact": False, "compares": figure in OF_ONE_SCALE}
    return bootstrap_statistic(statistic, one.patients, unit=unit, **how)


def _limit(side: int) -> Compared:
    """The lower (0) or the upper (1) limit of agreement as a figure."""

    def limit(said: Floats, true: Floats, weights: Floats) -> Floats:
        return limits_of_agreement(said, true, weights)[side]

    return limit

"""The scores of a regression: errors, correlation and agreement of each target, and means over several targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar, cast

import numpy as np

from hilum.belief import Certainty, certainties, prediction_sets
from hilum.belief.prediction_sets import HIGH, LOW, SET_METRICS
from hilum.evaluation import CaseValues, Metric, Metrics, Seed, Table, case_tables, intervals, regression
from hilum.evaluation.regression import AGREEMENT_METRICS, ERROR_BAR_METRICS, VALUE_METRICS
from hilum.evaluation.significance import paired_tests
from hilum.lazy import pandas as pd
from hilum.report import Figure, wording
from hilum.report.figures import charts, slice_figures
from hilum.tasks import properties
from hilum.tasks.regression import answering
from hilum.tasks.regression.answering import HEAD, ValueAnswering
from hilum.tasks.shared import measurements
from hilum.tasks.shared.measurements import Compared, MeasuredQuantity
from hilum.tasks.task import BlindGuess
from hilum.values import Case, Estimate, Floats, Prediction, Row
from hilum.values.table_cells import PlainCell

TARGET = "target"
# The size of the error of a case, in deviations of the training cases.
STANDARDISED_DIFFERENCE = Metric("standardised_difference", better="less", may_judge=False)
METRICS = Metrics(
    (*VALUE_METRICS, *AGREEMENT_METRICS, *ERROR_BAR_METRICS, STANDARDISED_DIFFERENCE, *SET_METRICS),
    label_word=TARGET,
    of_case=STANDARDISED_DIFFERENCE.name,
).mark_audited(audited=("mae", "coverage"), calibration="coverage")
# In the unit of the target; of several targets they are taken in deviations of the training cases.
WITH_UNIT: Mapping[str, Compared] = {"mae": regression.mean_absolute_error, "rmse": regression.root_mean_squared_error}
WITHOUT_UNIT: Mapping[str, Compared] = {
    "r2": regression.r2,
    "pearson": regression.pearson,
    "spearman": regression.spearman,
    "concordance": regression.concordance_correlation,
}
STANDARDISED = "SD"
# Targets whose charts stand in a report.
MOST_CHARTS = 4
V = TypeVar("V")


class ValueScoring(ValueAnswering):
    """The scores of a regression, and what reports show of them."""

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case and target that it has a reference of, in the target's unit.

        difference: predicted less reference; standardised_difference: its size in deviations of the training cases
        """
        ordered = {name: self.deviation[name] for name in self.targets}
        pairs = zip(predictions, cases, strict=True)
        return pd.DataFrame([row for a, b in pairs for row in target_case_rows(a, b, self._references(b), ordered)])

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """Figures of each target in its unit, of several first their standardised means; patients are resampled."""
        wide = [
            row
            for label, unit in by_target_label(self.units).items()
            for row in prediction_sets.interval_rows(
                label, with_infinite_ends(table[table["label"] == label], self.certainty), unit, seed=seed
            )
        ]
        return [
            *value_summary_rows(measured_targets(table, self.targets), self.units, self.deviation, seed=seed),
            *wide,
        ]

    def rank(self, table: Table) -> list[str]:
        """Case ids by the mean over targets of the standardised difference."""
        means = table.groupby("case", sort=False)["standardised_difference"].mean()
        return [str(case) for case in means.sort_values(kind="stable").index]

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """The image, with the values and their references in the caption."""
        values, errors = answering.predicted_values(self.targets, prediction)
        reference = case.references.get(HEAD, {})
        parts = []
        for name, value in values.items():
            bar = f" \N{PLUS-MINUS SIGN} {wording.number_text(errors[name])}" if errors else ""
            true = f" (reference {wording.number_text(reference[name])})" if name in reference else ""
            unit = f" {self.units[name]}" if self.units[name] else ""
            parts.append(f"{name} {wording.number_text(value)}{bar}{unit}{true}")
        return [
            slice_figures.contours(
                properties.first_image(case), None, None, (), title=case.id, caption="; ".join(parts)
            )
        ]

    def overview(self, table: Table) -> list[Figure]:
        """Predictions over references, and differences over size, of the first targets."""
        pictures = []
        for measured in measured_targets(table, self.targets)[:MOST_CHARTS]:
            name = measured.target
            unit = self.units[measured.target]
            bars = None if measured.errors is None else 1.96 * measured.errors
            title = f"{name}: predicted and reference"
            chart = charts.agreement_plot(measured.reference, measured.predicted, title, unit=unit, error_bars=bars)
            pictures.append(chart)
            pictures.append(measurements.agreement_figure(measured, f"{name}: differences", unit))
        return pictures

    def case_values(self, table: Table) -> Sequence[CaseValues]:
        """Values of which errors and their standardised means are made."""
        return target_error_values(self.deviation, table)

    def guess(self, table: Table) -> BlindGuess:
        """The mean of the training cases for every case."""
        means = table["label"].map(by_target_label(self.mean)).astype(float)
        apart = means - table["reference"]
        guessed = table.assign(
            predicted=means,
            difference=apart,
            standardised_difference=apart.abs() / table["label"].map(by_target_label(self.deviation)).astype(float),
        )
        return BlindGuess(guessed, {"": "always giving the mean of the training cases"}, ("mae",))


def measured_targets(table: Table, targets: Sequence[str]) -> list[MeasuredQuantity]:
    """The targets of a table of cases, in their order; without those that no case has."""
    measured = []
    for name in targets:
        rows = table[table["label"] == case_tables.figure_label(name, TARGET)]
        if rows.empty:
            continue
        errors = rows["error_bar"].to_numpy(float) if "error_bar" in rows else None
        predicted = rows["predicted"].to_numpy(float)
        reference = rows["reference"].to_numpy(float)
        patients = rows["patient"].to_numpy(str)
        cases = rows["case"].to_numpy(str)
        measured.append(MeasuredQuantity(name, predicted, reference, patients, cases, errors))
    return measured


def by_target_label(values: Mapping[str, V]) -> dict[str, V]:
    """Values by target, by the label of its rows in tables."""
    return {case_tables.figure_label(name, TARGET): value for name, value in values.items()}


def target_case_rows(
    prediction: Prediction, case: Case, references: Floats, deviation: Mapping[str, float]
) -> Iterator[dict[str, PlainCell]]:
    """A row for each target of a case; references: (targets,), NaN where it has none; deviation: {target: its own}"""
    values, errors = answering.predicted_values(tuple(deviation), prediction)
    for name, reference in zip(deviation, references.tolist(), strict=True):
        if np.isnan(reference):
            continue
        difference = values[name] - reference
        yield {
            "case": case.id,
            "patient": case.patient,
            "label": case_tables.figure_label(name, TARGET),
            "difference": difference,
            "standardised_difference": abs(difference) / deviation[name],
            **({"error_bar": errors[name]} if errors else {}),
            LOW: certainties.finite_end(prediction.confidence.low.get(name)),
            HIGH: certainties.finite_end(prediction.confidence.high.get(name)),
            "reference": reference,
            "predicted": values[name],
        }


def with_infinite_ends(rows: Table, certainty: Certainty) -> Table:
    """Rows of a target, with infinite ends where those of its intervals are blank: nothing is left out there."""
    if certainty.conformal is None or LOW not in rows:
        return rows
    ends = {LOW: -np.inf, HIGH: np.inf}
    return rows.assign(**{side: rows[side].astype(float).fillna(end) for side, end in ends.items()})


def value_summary_rows(
    measured: Sequence[MeasuredQuantity], units: Mapping[str, str], deviation: Mapping[str, float], *, seed: Seed
) -> list[Row]:
    """Figures of each target in its unit; of several first their mean, in deviations of the training cases."""
    rows = list(_overall(measured, deviation, seed)) if len(measured) > 1 else []
    return [*rows, *(row for one in measured for row in _of_target(one, units[one.target], seed))]


def target_error_values(deviation: Mapping[str, float], table: Table) -> list[CaseValues]:
    """Values of which the MAE of each target, and of several that of all, in training deviations, is made."""
    sized = table.assign(mae=table["difference"].abs())[["case", "patient", "label", "mae"]]
    if table["label"].nunique() < 2:
        return paired_tests.column_values(sized, METRICS)
    # Not the column of standardised differences: beside another model the deviations are those of its training cases.
    of_all = paired_tests.column_values(
        sized.assign(mae=sized["mae"] / sized["label"].map(by_target_label(deviation)).astype(float)), METRICS
    )
    return [
        *(one for one in of_all if one.label == "all"),
        *(one for one in paired_tests.column_values(sized, METRICS) if one.label != "all"),
    ]


def _of_target(measured: MeasuredQuantity, unit: str, seed: Seed) -> Iterator[Row]:
    target = case_tables.figure_label(measured.target, TARGET)
    patients = measured.patients
    apart = measured.predicted - measured.reference
    yield Row("mae", target, measurements.compared_estimate(measured, regression.mean_absolute_error, unit, seed))
    error = measurements.compared_estimate(measured, regression.root_mean_squared_error, unit, seed)
    yield Row("rmse", target, intervals.figure_of_differences(error, apart, patients, seed=seed))
    yield Row("median_absolute_error", target, intervals.median(np.abs(apart), patients, unit=unit))
    for metric, figure in WITHOUT_UNIT.items():
        yield Row(metric, target, measurements.compared_estimate(measured, figure, "", seed))
    yield from measurements.agreement_rows(replace(measured, target=target), unit, seed=seed)
    if measured.errors is not None:
        yield from _of_error_bars(replace(measured, target=target), measured.errors, seed)


def _of_error_bars(measured: MeasuredQuantity, errors: Floats, seed: Seed) -> Iterator[Row]:
    covered = regression.is_covered(measured.predicted, errors, measured.reference)
    yield Row("interval_coverage", measured.target, intervals.proportion(covered, measured.patients, seed=seed))

    def likelihood(predicted: Floats, reference: Floats, weights: Floats) -> Floats:
        """The negative log-likelihood under the error bars, for each weighting."""
        return regression.gaussian_nll(predicted, errors, reference, weights)

    estimate = measurements.compared_estimate(measured, likelihood, "", seed)
    note = f"{estimate.method}; nats, of the value in its unit"
    yield Row("nll", measured.target, replace(estimate, method=note))


def _overall(measured: Sequence[MeasuredQuantity], deviation: Mapping[str, float], seed: Seed) -> Iterator[Row]:
    for metric, figure in WITH_UNIT.items():
        scales = [deviation[one.target] for one in measured]
        yield Row(metric, "all", _mean_of_targets(measured, figure, scales, STANDARDISED, seed))
    for metric, figure in WITHOUT_UNIT.items():
        yield Row(metric, "all", _mean_of_targets(measured, figure, [1.0] * len(measured), "", seed))


def _mean_of_targets(
    measured: Sequence[MeasuredQuantity], figure: Compared, scales: Sequence[float], unit: str, seed: Seed
) -> Estimate:
    """Unweighted mean over the targets; a case is resampled with all its targets; those that it has not count in none.

    scales: by which each target is divided
    """
    cases = np.concatenate([one.cases for one in measured])
    ids, first, case_of = np.unique(cases, return_index=True, return_inverse=True)
    owners = np.concatenate([one.patients for one in measured])[first]
    ends = np.cumsum([len(one.cases) for one in measured])
    places = np.split(case_of, ends[:-1])

    def statistic(weights: Floats) -> Floats:
        """The mean over the targets, for each weighting."""
        figures_of_targets = [
            figure(one.predicted / scale, one.reference / scale, weights[:, own])
            for one, scale, own in zip(measured, scales, places, strict=True)
        ]
        return cast("Floats", np.mean(figures_of_targets, axis=0))

    labels = {one.target: np.isin(ids, one.cases) for one in measured}
    bootstrap = measurements.bootstrap_of(figure)
    estimate = bootstrap(statistic, owners, unit=unit, seed=seed, labels=labels)
    note = "; unweighted mean of the targets"
    note += ", each in standard deviations of its training cases" if unit else ""
    return replace(estimate, n=len(ids), method=estimate.method + note)

"""Measured values in reports: pictures, charts, and a guess beside them."""

from __future__ import annotations

from collections.abc import Mapping

from isocenter.belief import finite
from isocenter.evaluation import Table
from isocenter.report import Figure, figures, number
from isocenter.tasks.properties import stated_image
from isocenter.tasks.regression.scores import labelled, measured_of, values_of
from isocenter.tasks.shared import agreement_figure
from isocenter.tasks.task import Guess, Task
from isocenter.values import Case, Finding, Prediction

HEAD = "value"
# Targets whose charts stand in a report.
MOST_CHARTS = 4


class ValuePictures(Task):
    """Pictures and charts of a regression; the fields are those of `Regression`."""

    targets: tuple[str, ...]
    units: Mapping[str, str]
    mean: Mapping[str, float]
    deviation: Mapping[str, float]

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """The image, with the values and their references in the caption."""
        values, errors = values_of(self.targets, prediction)
        reference = case.references.get(HEAD, {})
        parts = []
        for name, value in values.items():
            bar = f" \N{PLUS-MINUS SIGN} {number(errors[name])}" if errors else ""
            true = f" (reference {number(reference[name])})" if name in reference else ""
            unit = f" {self.units[name]}" if self.units[name] else ""
            parts.append(f"{name} {number(value)}{bar}{unit}{true}")
        return [figures.contours(stated_image(case), None, None, (), title=case.id, caption="; ".join(parts))]

    def overview(self, table: Table) -> list[Figure]:
        """Predictions over references, and differences over size, of the first targets."""
        drawn = []
        for measured in measured_of(table, self.targets)[:MOST_CHARTS]:
            name, unit = measured.target, self.units[measured.target]
            bars = None if measured.errors is None else 1.96 * measured.errors
            both = (measured.reference, measured.predicted)
            drawn.append(figures.agreement(*both, f"{name}: predicted and reference", unit=unit, errors=bars))
            drawn.append(agreement_figure(measured, f"{name}: differences", unit))
        return drawn

    def guess(self, table: Table) -> Guess:
        """The mean of the training cases for every case."""
        means = table["label"].map(labelled(self.mean)).astype(float)
        apart = means - table["reference"]
        guessed = table.assign(
            predicted=means,
            difference=apart,
            standardised_difference=apart.abs() / table["label"].map(labelled(self.deviation)).astype(float),
        )
        return Guess(guessed, {"": "always giving the mean of the training cases"}, ("mae",))

    def rank(self, table: Table) -> list[str]:
        """Case ids by the mean over targets of the standardised difference."""
        means = table.groupby("case", sort=False)["standardised_difference"].mean()
        return [str(case) for case in means.sort_values(kind="stable").index]

    def results(self, prediction: Prediction) -> list[Finding]:
        """Each value in its unit, with its interval."""
        values, own = values_of(self.targets, prediction)[0], prediction.confidence
        ends = {name: (finite(own.low.get(name)), finite(own.high.get(name))) for name in values}
        return [
            Finding(name, value, self.units[name], low=ends[name][0], high=ends[name][1])
            for name, value in values.items()
        ]

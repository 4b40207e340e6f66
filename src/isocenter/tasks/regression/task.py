"""Regression: one or several measured numbers for the whole image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from isocenter.errors import DatasetError
from isocenter.evaluation import Seed, Table
from isocenter.lazy import pandas as pd
from isocenter.lazy import torch
from isocenter.report import Figure, figures, number
from isocenter.tasks.answers import Decoding, Outputs, Scoring, Teaching, Traits, stated_image
from isocenter.tasks.regression.plan import check_settings, error_factors, settings_for
from isocenter.tasks.regression.scores import METRICS, Measured, agreement_rows, measured_of, summary_rows
from isocenter.tasks.shared import Shares, crossed, mean_of, reading
from isocenter.tasks.task import Task
from isocenter.values import (
    Array,
    Case,
    Dataset,
    Decision,
    Finding,
    Fingerprint,
    Floats,
    Geometry,
    Head,
    Label,
    Prediction,
    Row,
    Slabs,
    Target,
    Vector,
)

if TYPE_CHECKING:
    from torch import Tensor

HEAD = "value"
# The logarithm of a variance stays within these bounds: error bars of 1/150 to 150 deviations of the training cases.
LEAST_LOG, MOST_LOG = -10.0, 10.0
# By which power of its own variance a case's likelihood is weighed, as in the paper's trials: arXiv:2203.09168.
BETA = 0.5
# Residuals (in deviations) up to here count by their square, larger ones by their size.
HUBER = 1.0
# Targets whose charts stand in a report.
MOST_CHARTS = 4
# The settings that hold something for each target.
BY_TARGET = ("units", "mean", "deviation", "error_factor")


@dataclass(frozen=True)
class Regression:
    """One or several measured numbers.

    targets:      names, in the order of the head's outputs
    units:        {target: unit}; empty where nobody says it
    mean:         {target: of the training cases}, by which and by `deviation` the network's outputs are standardised
    deviation:    {target: standard deviation of the training cases}
    noise:        "gaussian": the network says its own error bar for each case; "none": it says none
    loss_name:    "huber", "mse" or "mae", of standardised values; with noise the likelihood takes its place
    error_factor: {target: by what its error bar is multiplied}; None until validation cases have decided
    """

    targets: tuple[str, ...]
    units: Mapping[str, str]
    mean: Mapping[str, float]
    deviation: Mapping[str, float]
    noise: Literal["none", "gaussian"] = "none"
    loss_name: Literal["huber", "mse", "mae"] = "huber"
    error_factor: Mapping[str, float] | None = None

    name: ClassVar[str] = "regression"
    needs: ClassVar[frozenset[str]] = frozenset({"value"})
    traits: ClassVar[Traits] = Traits(
        tunes=("error_factor",),
        case_metric="standardised_difference",
        search_values={"loss": ("huber", "mse", "mae")},
    )

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        return settings_for(dataset, fingerprint)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Regression:
        known = ("targets", "noise", "loss", *BY_TARGET)
        with reading(settings, known, "a regression"):
            targets = tuple(str(name) for name in settings["targets"])
            units = {name: str((settings.get("units") or {}).get(name) or "") for name in targets}
            mean, deviation = ({name: float(settings[key][name]) for name in targets} for key in ("mean", "deviation"))
            factors = settings.get("error_factor")
            task = cls(
                targets,
                units,
                mean,
                deviation,
                settings.get("noise", "none"),
                settings.get("loss", "huber"),
                None if factors is None else {str(name): float(value) for name, value in factors.items()},
            )
        check_settings(targets, mean, deviation, task.noise, task.loss_name, task.error_factor or {})
        return task

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "targets": list(self.targets),
            "units": dict(self.units),
            "mean": dict(self.mean),
            "deviation": dict(self.deviation),
            "noise": self.noise,
            "loss": self.loss_name,
            "error_factor": None if self.error_factor is None else dict(self.error_factor),
        }

    @property
    def heads(self) -> Mapping[str, Head]:
        """One for all: the values, and with noise behind them the logarithms of their variances."""
        return {HEAD: Vector(len(self.targets) * (2 if self.is_noisy else 1), holds="numbers")}

    @property
    def labels(self) -> tuple[Label, ...]:
        return tuple(Label(number, name) for number, name in enumerate(self.targets))

    @property
    def mirrored(self) -> tuple[int, ...] | None:
        """A value stays as it is when left and right change sides; one that names a side becomes its counterpart's."""
        order, count = crossed(self.targets), len(self.targets)
        if order is None or not self.is_noisy:
            return order
        return (*order, *(count + place for place in order))

    @property
    def is_noisy(self) -> bool:
        return self.noise == "gaussian"

    @property
    def teaching(self) -> Teaching:
        return Teaching(
            selects_by="r2",
            quality=self.quality,
            selection=self.selection,
            target_settings={key: self.settings[key] for key in ("targets", "mean", "deviation")},
        )

    @property
    def decoding(self) -> Decoding:
        return Decoding(
            merge="mean",
            mirrored=self.mirrored,
            average=self.average,
            probabilities=self.probabilities,
            decode=self.decode,
            outputs=self.outputs,
        )

    @property
    def scoring(self) -> Scoring:
        return Scoring(
            metrics=METRICS,
            score=self.score,
            summary=self.summary,
            rank=self.rank,
            figures=self.figures,
            overview=self.overview,
            results=self.results,
        )

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        return {
            "network.name": Decision("resnet", "it gives one answer for the whole image", "arXiv:1512.03385"),
            "augmentation.scale": Decision(0.0, "a value may be a size, and a scaled image would show another"),
            "training.selection": Decision(
                "r2",
                "it has no unit, so that targets have one mean; against the variance of the training cases, because "
                "that of a few validation cases says little",
            ),
            "evaluation.primary": Decision(
                "mae",
                "it is in the unit of the target and does not depend on how much these cases differ, as R² does",
                "doi:10.3354/cr030079",
            ),
        }

    def under(self, sampling: str) -> dict[str, Decision]:
        return {}

    def target(self, case: Case) -> Target:
        """(targets,) standardised values, NaN where the case has none; DatasetError where it has none at all."""
        values = self._values(case)
        return Target(self.heads[HEAD], ((values - self._mean) / self._deviation).astype(np.float32))

    def loss(self, outputs: Outputs, target: Tensor) -> Tensor:
        """The mean over the values that are known."""
        said, known = outputs[HEAD].float(), target.isfinite()
        # A hole is filled before anything is computed: no gradient survives a NaN, not even one multiplied by 0.
        values, truth = said[:, : len(self.targets)], torch.where(known, target, 0.0).float()
        cost = self._likelihood(said, truth) if self.is_noisy else LOSSES[self.loss_name](values, truth)
        return (cost * known).sum() / known.sum().clamp(min=1)

    def _likelihood(self, said: Tensor, truth: Tensor) -> Tensor:
        """Negative logarithm of the normal density, weighed so that cases with a large error bar still teach.

        Nix and Weigend, ICNN 1994, doi:10.1109/ICNN.1994.374138; Kendall and Gal, arXiv:1703.04977; the weight:
        Seitzer et al., arXiv:2203.09168
        """
        values, logs = said.split(len(self.targets), dim=1)
        logs = logs.clamp(LEAST_LOG, MOST_LOG)
        cost = 0.5 * (logs + (values - truth) ** 2 / logs.exp())
        return cost * logs.detach().exp() ** BETA

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        return {"value": outputs[HEAD].float()[:, : len(self.targets)], "target": target.float()}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """Mean over the targets of R² against the variance of the training cases, which is 1 of standardised values.

        Against that of a few validation cases a target that hardly varies among them would decide alone.
        """
        said, true = (collected[key].double().cpu().numpy() for key in ("value", "target"))
        known = np.isfinite(true)
        errors = [np.mean((said[own, n] - true[own, n]) ** 2) for n, own in enumerate(known.T) if own.any()]
        return 1 - float(np.mean(errors)) if errors else float("nan")

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The mean of the values; of error bars the geometric mean, so that how far networks differ is not in it."""
        return {HEAD: mean_of([np.asarray(one[HEAD], dtype=np.float32) for one in outputs], shares)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """There are none: values in deviations of the training cases and, with noise, their error bars."""
        values, errors = self._standardised(np.asarray(arrays[HEAD], dtype=np.float64))
        return {HEAD: values if errors is None else np.concatenate([values, errors])}

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """Standardised outputs of one case to values in their units."""
        [(_, arrays)] = slabs  # a vector head is one slab
        values, errors = self._standardised(np.asarray(arrays[HEAD], dtype=np.float64))
        found = dict(zip(self.targets, (values * self._deviation + self._mean).tolist(), strict=True))
        return Prediction(geometry, values=found, uncertainty=None if errors is None else errors * self._deviation)

    def _standardised(self, said: Floats) -> tuple[Floats, Floats | None]:
        """(targets, ...) values and their error bars, one standard deviation each."""
        count = len(self.targets)
        if not self.is_noisy:
            return said, None
        factors = np.array([(self.error_factor or {}).get(name, 1.0) for name in self.targets])
        errors = np.exp(0.5 * np.clip(said[count:], LEAST_LOG, MOST_LOG))
        return said[:count], errors * factors.reshape(-1, *[1] * (said.ndim - 1))

    def tuned(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> tuple[Task, dict[str, Decision]]:
        """With the factors that make the error bars as large as the errors of these cases; those that are set stay."""
        if not self.is_noisy or self.error_factor is not None or not cases:
            return self, {}
        found, decision = error_factors(self.targets, self._measured(self.score(predictions, cases)))
        return replace(self, error_factor=found), {"task.error_factor": decision}

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case and target that it has a reference of, in the target's unit.

        difference: predicted less reference; standardised_difference: its size in deviations of the training cases
        """
        rows = [row for pair in zip(predictions, cases, strict=True) for row in self._score(*pair)]
        return pd.DataFrame(rows)

    def _score(self, prediction: Prediction, case: Case) -> list[dict[str, Any]]:
        values, errors = self._said(prediction)
        rows = []
        for name, reference in zip(self.targets, self._values(case).tolist(), strict=True):
            if np.isnan(reference):
                continue
            difference = values[name] - reference
            rows.append(
                {
                    "case": case.id,
                    "patient": case.patient,
                    "label": name,
                    "difference": difference,
                    "standardised_difference": abs(difference) / self.deviation[name],
                    **({"error_bar": errors[name]} if errors else {}),
                    "reference": reference,
                    "predicted": values[name],
                }
            )
        return rows

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """Of several targets first their means, standardised; then each in its unit. Patients are resampled."""
        return summary_rows(self._measured(table), self.units, self.deviation, seed=seed)

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        values, errors = self._said(prediction)
        reference = case.references.get(HEAD, {})
        said = []
        for name, value in values.items():
            bar = f" \N{PLUS-MINUS SIGN} {number(errors[name])}" if errors else ""
            true = f" (reference {number(reference[name])})" if name in reference else ""
            unit = f" {self.units[name]}" if self.units[name] else ""
            said.append(f"{name} {number(value)}{bar}{unit}{true}")
        return [figures.contours(stated_image(case), None, None, (), title=case.id, caption="; ".join(said))]

    def overview(self, table: Table) -> list[Figure]:
        """Of the first targets how far predictions lie from the references, and how the differences lie over size."""
        drawn = []
        for one in self._measured(table)[:MOST_CHARTS]:
            unit = self.units[one.target]
            bars = None if one.errors is None else 1.96 * one.errors
            title = f"{one.target}: predicted and reference"
            drawn.append(figures.agreement(one.reference, one.predicted, title, unit=unit, errors=bars))
            bias, lower, upper = (row.estimate for row in agreement_rows(one, unit, seed=0))
            title = f"{one.target}: differences"
            drawn.append(
                figures.bland_altman(one.reference, one.predicted, title, bias=bias, limits=(lower, upper), unit=unit)
            )
        return drawn

    def rank(self, table: Table) -> list[str]:
        means = table.groupby("case", sort=False)["standardised_difference"].mean()
        return [str(case) for case in means.sort_values(kind="stable").index]

    def outputs(self, prediction: Prediction) -> Mapping[str, Any]:
        """Each value in its unit, and with noise its error bar: one standard deviation."""
        values, errors = self._said(prediction)
        return {
            **{f"value_{name}": value for name, value in values.items()},
            **{f"error_{name}": value for name, value in errors.items()},
        }

    def saliency(self, outputs: Outputs) -> Tensor:
        """(batch,) what a heat map explains: the mean of the standardised values."""
        return outputs[HEAD][:, : len(self.targets)].mean(dim=1)

    def results(self, prediction: Prediction) -> list[Finding]:
        values, _ = self._said(prediction)
        return [Finding(name, value=value, unit=self.units[name]) for name, value in values.items()]

    def _values(self, case: Case) -> Floats:
        """(targets,) in their units, NaN where the case has none; DatasetError where it has none of them."""
        given: Mapping[str, float] = case.references[HEAD]
        values = np.array([given.get(name, np.nan) for name in self.targets], dtype=np.float64)
        if not np.isfinite(values).any() or np.isinf(values).any():
            problem = f"has no value of {', '.join(self.targets)}, only {', '.join(given) or 'nothing'}"
            raise DatasetError(problem, case.id, "Name its columns with --column value:NAME=COLUMN, or leave it out")
        return values

    def _said(self, prediction: Prediction) -> tuple[dict[str, float], dict[str, float]]:
        """{target: value} and, with noise, {target: error bar}."""
        assert prediction.values is not None  # noqa: S101 - `decode` always gives them
        values = dict(prediction.values)
        if prediction.uncertainty is None:
            return values, {}
        errors = np.asarray(prediction.uncertainty, dtype=np.float64).tolist()
        return values, dict(zip(self.targets, errors, strict=True))

    def _measured(self, table: Table) -> list[Measured]:
        return measured_of(table, self.targets)

    @property
    def _mean(self) -> Floats:
        return np.array([self.mean[name] for name in self.targets])

    @property
    def _deviation(self) -> Floats:
        return np.array([self.deviation[name] for name in self.targets])


def _huber(values: Tensor, truth: Tensor) -> Tensor:
    """Huber, Ann Math Stat 1964, doi:10.1214/aoms/1177703732"""
    return torch.nn.functional.huber_loss(values, truth, reduction="none", delta=HUBER)


def _squared(values: Tensor, truth: Tensor) -> Tensor:
    return (values - truth) ** 2


def _absolute(values: Tensor, truth: Tensor) -> Tensor:
    return (values - truth).abs()


LOSSES = {"huber": _huber, "mse": _squared, "mae": _absolute}

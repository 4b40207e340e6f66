"""Regression: one or several measured numbers for the whole image."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np

from hilum import errors
from hilum.belief import Certainty, prediction_sets
from hilum.belief.certainties import INTERVALS
from hilum.errors import DatasetError, PlanError
from hilum.evaluation import Metrics, conformal
from hilum.lazy import stats, torch
from hilum.tasks.regression import losses, scoring
from hilum.tasks.regression.answering import HEAD
from hilum.tasks.regression.losses import LOSSES, NOISES
from hilum.tasks.regression.scoring import METRICS, ValueScoring
from hilum.tasks.shared import left_right, saliency
from hilum.tasks.shared.measurements import MeasuredQuantity
from hilum.tasks.task import Origin, Outputs, Uncertain
from hilum.values import (
    Case,
    Dataset,
    Decision,
    Fingerprint,
    Head,
    Label,
    Merge,
    Prediction,
    Setting,
    SettingsGroup,
    Target,
    Vector,
)
from hilum.values.setting_fields import StatedSettings

if TYPE_CHECKING:
    from torch import Tensor


HUBER = "doi:10.1214/aoms/1177703732"
# Laves et al., MIDL 2020: error bars that are too small or large are multiplied by one factor.
LAVES = "arXiv:2006.13092"
# Fewer validation cases say too little about the size of error bars, and by less than this chance alone.
FEWEST_CASES = 10
CHANCE = 0.05
# Digits of the deviation in which it and the mean are kept, and decimals of a factor.
DIGITS = 6
# What a column's name may end in, after a blank, an underscore or a bracket, and how it is written then.
UNITS: Mapping[str, str] = {
    **{name: name for name in ("mm", "cm", "km", "um", "nm", "ml", "dl", "kg", "mg", "ms", "HU", "bpm", "kPa", "SUV")},
    **{name: name for name in ("years", "months", "weeks", "days", "hours", "minutes", "seconds", "degrees")},
    **{"mm2": "mm²", "mm3": "mm³", "cm2": "cm²", "cm3": "cm³", "cc": "ml", "mmHg": "mmHg", "percent": "%", "pct": "%"},
}
BRACKETED = re.compile(r"[\(\[]\s*([^()\[\]]+?)\s*[\)\]]\s*$")


def _units(units: Mapping[str, str] | None) -> dict[str, str]:
    """Units of a plan, which knows none or those of some targets."""
    return {str(name): str(unit or "") for name, unit in (units or {}).items()}


def open_factors(settings: StatedSettings) -> dict[str, Decision]:
    """The factors of error bars are open where a person asks for these."""
    if settings["noise"] != "gaussian":
        return {}
    return {"task.error_factor": Decision(None, "it is found on validation cases after training")}


@dataclass(frozen=True)
class Regression(ValueScoring):
    """One or several measured numbers.

    targets:      names, in the order of the head's outputs
    units:        {target: unit}; empty where it is unknown
    mean:         {target: of the training cases}, by which and by `deviation` the network's outputs are standardised
    deviation:    {target: standard deviation of the training cases}
    noise:        "gaussian": the network predicts an error bar for each case; "quantiles": the two ends of an interval;
                  "none": nothing
    loss_name:    "huber", "mse" or "mae", of standardised values; with noise the likelihood takes its place
    error_factor: {target: by what its error bar is multiplied}; None until validation cases have decided
    certainty:    the intervals that are to hold, and what makes them so
    """

    targets: Annotated[tuple[str, ...], Setting(target=True)]
    units: Annotated[Mapping[str, str], Setting(read=_units)]
    mean: Annotated[Mapping[str, float], Setting(target=True)]
    deviation: Annotated[Mapping[str, float], Setting(target=True, compared=True)]
    noise: Annotated[Literal["none", "gaussian", "quantiles"], Setting(follows=open_factors)] = "none"
    loss_name: Annotated[Literal["huber", "mse", "mae"], Setting(name="loss", search=("huber", "mse", "mae"))] = "huber"
    error_factor: Annotated[Mapping[str, float] | None, Setting(tuned=True)] = None
    certainty: Annotated[Certainty, SettingsGroup(INTERVALS)] = field(default_factory=Certainty)
    name: ClassVar[str] = "regression"
    needs: ClassVar[frozenset[str]] = frozenset({"value"})
    merge: ClassVar[Merge] = "mean"
    selects_by: ClassVar[str] = "r2"
    uncertainty: ClassVar[Uncertain] = "values"
    metrics: ClassVar[Metrics] = METRICS

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Targets, units and standardisation from these training cases; DatasetError for one that cannot be learnt."""
        values = fingerprint.values()
        columns = {
            role.partition(":")[2]: column for role, column in dataset.columns.items() if role.startswith("value:")
        }
        targets = [*(name for name in columns if name in values), *(name for name in values if name not in columns)]
        where = str(dataset.root or dataset.name)
        if not targets:
            raise DatasetError("no training case has a value", where, "Name its column with --column value:NAME=COLUMN")
        for name in targets:
            _refuse_unteachable(name, values[name], where)
        read = {name: unit_of_name(name) or unit_of_name(columns.get(name, "")) for name in targets}
        units = {name: unit for name, unit in read.items() if unit}
        unknown = [name for name in targets if name not in units]
        named = f"no column's name says that of {', '.join(unknown)}" if unknown else "the names of the columns say so"
        counts = ", ".join(
            f"{errors.count_phrase(len(values[name]), 'case has', 'cases have')} {name}" for name in targets
        )
        located = {name: _mean_and_deviation(values[name]) for name in targets}
        means, deviations = ({name: numbers[n] for name, numbers in located.items()} for n in (0, 1))
        return {
            "targets": Decision(targets, f"{counts}, of {len(fingerprint)} training cases"),
            "units": Decision(units or None, named),
            "mean": Decision(means, "of the training cases: the network learns how far a case lies from it"),
            "deviation": Decision(
                deviations,
                "of the training cases: divided by it, targets of different units count alike, and the network's "
                "outputs are about 1",
            ),
            "noise": Decision(
                "none", "no error bar was asked for (gaussian gives one to each case)", "arXiv:1703.04977"
            ),
            "loss": Decision(
                "huber",
                "beyond one deviation the cost grows linearly, so that no outlier dominates; with noise the likelihood "
                "takes its place",
                HUBER,
            ),
            "error_factor": Decision({}, "there are no error bars"),
            **prediction_sets.interval_decisions(),
        }

    def check_and_fill(self) -> Regression:
        """Keep numbers of its targets only; PlanError names the setting that cannot be."""
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
    def channels_when_mirrored(self) -> tuple[int, ...] | None:
        """A value stays as it is when left and right change sides; one that names a side becomes its counterpart's."""
        order = left_right.counterpart_places(self.targets)
        count = len(self.targets)
        if order is None:
            return None
        return tuple(part * count + place for part in range(1 + NOISES[self.noise]) for place in order)

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """A network with one answer for the image, no scaling of images, R² to select and MAE to judge."""
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

    def target(self, case: Case) -> Target:
        """(targets,) standardised values, NaN where the case has none; DatasetError where it has none at all."""
        values = self._references(case)
        return Target(self.heads[HEAD], ((values - self._mean) / self._deviation).astype(np.float32))

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """The mean over the values that are known."""
        values, logs = outputs[HEAD].float().tensor_split([len(self.targets)], dim=1)
        # A hole is filled before anything is computed: no gradient survives a NaN, not even one multiplied by 0.
        referenced = target.isfinite()
        truth = torch.where(referenced, target, 0.0).float()
        if self.is_noisy:
            cost = losses.weighted_likelihood(values, logs, truth)
        elif self.noise == "quantiles":
            cost = losses.pinball(values, logs, truth, self.certainty.coverage)
        else:
            cost = LOSSES[self.loss_name](values, truth)
        return (cost * referenced).sum() / referenced.sum().clamp(min=1)

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        """(batch, targets) standardised values and references, NaN where there is none."""
        return {"value": outputs[HEAD].float()[:, : len(self.targets)], "target": target.float()}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """Mean over the targets of R² against the variance of the training cases, which is 1 of standardised values.

        Against that of a few validation cases a target that hardly varies among them would decide alone.
        """
        predicted, reference = (collected[key].double().cpu().numpy() for key in ("value", "target"))
        referenced = np.isfinite(reference)
        squared_errors = [
            np.mean((predicted[own, n] - reference[own, n]) ** 2) for n, own in enumerate(referenced.T) if own.any()
        ]
        return 1 - float(np.mean(squared_errors)) if squared_errors else float("nan")

    def fit_settings(
        self, predictions: Sequence[Prediction], cases: Sequence[Case], origin: Origin
    ) -> dict[str, Decision]:
        """Factors that make error bars as large as the errors of these cases, unless they are set."""
        if not self.is_noisy or self.error_factor is not None:
            return {}
        _, decision = error_factors(
            self.targets, scoring.measured_targets(self.score(predictions, cases), self.targets)
        )
        return {"task.error_factor": decision}

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """(batch,) the standardised value, without a target the mean of all."""
        values = outputs[HEAD][:, : len(self.targets)]
        return values.mean(dim=1) if target is None else values[:, saliency.place_of_target(target, self.targets)]


def unit_of_name(name: str) -> str:
    """The unit that a name ends in, as in "age (years)" or "volume_mm3"; empty where it says none."""
    if (bracketed := BRACKETED.search(name)) and is_unit(inside := bracketed[1]):
        return UNITS.get(inside, inside)
    *before, last = re.split(r"[\s_.]+", name.strip())
    by_lower_case = {key.lower(): unit for key, unit in UNITS.items()}
    return by_lower_case.get(last.lower(), "%" if last.endswith("%") else "") if before else ""


def is_unit(text: str) -> bool:
    """Whether what stands in brackets is a unit, and no remark such as "left"."""
    return text in UNITS or len(text) == 1 or any(sign in text for sign in "/^%°²³µ")


def error_factors(targets: Sequence[str], measured: Sequence[MeasuredQuantity]) -> tuple[dict[str, float], Decision]:
    """{target: by what its error bar is multiplied} where validation cases show it too small or too large.

    The factor of greatest likelihood is the root of the mean squared ratio of error and error bar. Its square, times
    the patients, follows chi-squared where the error bar is right: a factor that chance explains is not taken. Patients
    weigh alike, however many cases they have, because the errors of their cases may be the same.
    """
    factors: dict[str, float] = {}
    reasons = []
    by_target = {one.target: one for one in measured}
    for name in targets:
        scored = by_target.get(name)
        if scored is None or scored.errors is None or len(scored.cases) < FEWEST_CASES:
            cases = errors.count_phrase(0 if scored is None else len(scored.cases), "unseen case")
            reasons.append(f"{name}: {cases} are too few for a factor (at least {FEWEST_CASES} are needed)")
            continue
        shares, people = conformal.patient_shares(len(scored.cases), scored.patients)
        total = float(shares @ ((scored.predicted - scored.reference) / scored.errors) ** 2)
        low, high = (float(stats.chi2.ppf(share, people)) for share in (CHANCE / 2, 1 - CHANCE / 2))
        factor = round(float(np.sqrt(total / people)), DIGITS)
        cases = errors.count_phrase(len(scored.cases), "unseen case")
        because = f"{name}: errors of {cases} are {factor:.3g} times their error bars"
        if low <= total <= high:
            reasons.append(f"{because}, as chance explains: left as they are")
        else:
            factors[name] = factor
            reasons.append(because)
    return factors, Decision(factors, "; ".join(reasons), LAVES)


def check_settings(
    targets: Sequence[str],
    mean: Mapping[str, float],
    deviation: Mapping[str, float],
    factors: Mapping[str, float],
) -> None:
    """PlanError names the setting that cannot be."""
    if not targets or len(set(targets)) < len(targets):
        raise PlanError("at least one target is needed, and each once", "task.targets", "Name each value once")
    if others := sorted(set(factors) - set(targets)):
        raise PlanError(f"there is no target {others[0]!r}", "task.error_factor", f"Name {', '.join(targets)}")
    for asked, numbers in (("deviation", deviation), ("error_factor", factors)):
        for name, value in numbers.items():
            if not 0 < value < np.inf:
                raise PlanError(f"{value} for {name}", f"task.{asked}", "Give a number above 0")
    for name, value in mean.items():
        if not np.isfinite(value):
            raise PlanError(f"{value} for {name}", "task.mean", "Give a number")


def _refuse_unteachable(name: str, values: np.ndarray, where: str) -> None:
    if len(values) < 2:
        problem = f"{errors.count_phrase(len(values), 'training case has', 'training cases have')} a value of {name}"
        raise DatasetError(problem, where, "Give at least two, or leave the column out")
    if np.ptp(values) == 0:
        problem = f"{name} is {values[0]:g} in all {len(values)} training cases that have it"
        raise DatasetError(problem, where, "Give cases that differ, or leave the column out")


def _mean_and_deviation(values: np.ndarray) -> tuple[float, float]:
    """Mean and deviation, as exact as a small share of the deviation."""
    mean = float(values.mean())
    deviation = float(values.std())
    places = DIGITS - math.floor(math.log10(deviation))
    return round(mean, places), round(deviation, places)

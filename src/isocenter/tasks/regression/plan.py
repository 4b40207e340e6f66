"""Plans for a regression from its training cases, and the size of error bars from validation cases."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from isocenter.belief import interval_decisions
from isocenter.errors import DatasetError, PlanError, counted
from isocenter.evaluation import shares_of
from isocenter.lazy import stats
from isocenter.values import Dataset, Decision, Fingerprint

if TYPE_CHECKING:
    from isocenter.tasks.shared import Measured

HUBER = "doi:10.1214/aoms/1177703732"
# Laves et al., MIDL 2020: error bars that are too small or large are multiplied by one factor.
LAVES = "arXiv:2006.13092"
# Fewer validation cases say too little about the size of error bars, and by less than this chance alone.
FEWEST_CASES, CHANCE = 10, 0.05
# Digits of the deviation in which it and the mean are kept, and decimals of a factor.
DIGITS = 6
# What a column's name may end in, after a blank, an underscore or a bracket, and how it is written then.
UNITS: Mapping[str, str] = {
    **{name: name for name in ("mm", "cm", "km", "um", "nm", "ml", "dl", "kg", "mg", "ms", "HU", "bpm", "kPa", "SUV")},
    **{name: name for name in ("years", "months", "weeks", "days", "hours", "minutes", "seconds", "degrees")},
    **{"mm2": "mm²", "mm3": "mm³", "cm2": "cm²", "cm3": "cm³", "cc": "ml", "mmHg": "mmHg", "percent": "%", "pct": "%"},
}
BRACKETED = re.compile(r"[\(\[]\s*([^()\[\]]+?)\s*[\)\]]\s*$")


def settings_for(dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
    """The fields of a regression for these training cases; DatasetError for a target that cannot be learnt."""
    values = fingerprint.values()
    columns = {role.partition(":")[2]: column for role, column in dataset.columns.items() if role.startswith("value:")}
    targets = [*(name for name in columns if name in values), *(name for name in values if name not in columns)]
    where = str(dataset.root or dataset.name)
    if not targets:
        raise DatasetError("no training case has a value", where, "Name its column with --column value:NAME=COLUMN")
    for name in targets:
        _refuse_unteachable(name, values[name], where)
    read = {name: unit_in(name) or unit_in(columns.get(name, "")) for name in targets}
    units = {name: unit for name, unit in read.items() if unit}
    unknown = [name for name in targets if name not in units]
    named = f"no column's name says that of {', '.join(unknown)}" if unknown else "the names of the columns say so"
    counts = ", ".join(f"{counted(len(values[name]), 'case has', 'cases have')} {name}" for name in targets)
    located = {name: _located(values[name]) for name in targets}
    means, deviations = ({name: numbers[n] for name, numbers in located.items()} for n in (0, 1))
    return {
        "targets": Decision(targets, f"{counts}, of {len(fingerprint)} training cases"),
        "units": Decision(units or None, named),
        "mean": Decision(means, "of the training cases: the network learns how far a case lies from it"),
        "deviation": Decision(
            deviations, "of the training cases: divided by it, targets of different units count alike, and the "
            "network's outputs are about 1"
        ),
        "noise": Decision("none", "no error bar was asked for (gaussian gives one to each case)", "arXiv:1703.04977"),
        "loss": Decision(
            "huber", "beyond one deviation the cost grows linearly, so that no outlier dominates; with noise the "
            "likelihood takes its place", HUBER
        ),
        "error_factor": Decision({}, "there are no error bars"),
        **interval_decisions(),
    }  # fmt: skip


def open_factors(settings: Mapping[str, Any]) -> dict[str, Decision]:
    """The factors of error bars are open where a person asks for these."""
    if settings["noise"] not in ("gaussian", "evidential"):
        return {}
    return {"task.error_factor": Decision(None, "it is found on validation cases after training")}


def decisions() -> dict[str, Decision]:
    """The network, the augmentation that is forbidden, and the metrics that select and judge."""
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


def unit_in(name: str) -> str:
    """The unit that a name ends in, as in "age (years)" or "volume_mm3"; empty where it says none."""
    if (bracketed := BRACKETED.search(name)) and is_unit(inside := bracketed[1]):
        return UNITS.get(inside, inside)
    *before, last = re.split(r"[\s_.]+", name.strip())
    known = {key.lower(): unit for key, unit in UNITS.items()}
    return known.get(last.lower(), "%" if last.endswith("%") else "") if before else ""


def is_unit(text: str) -> bool:
    """Whether what stands in brackets is a unit, and no remark such as "left"."""
    return text in UNITS or len(text) == 1 or any(sign in text for sign in "/^%°²³µ")


def error_factors(targets: Sequence[str], measured: Sequence[Measured]) -> tuple[dict[str, float], Decision]:
    """{target: by what its error bar is multiplied} where validation cases show it too small or too large.

    The factor of greatest likelihood is the root of the mean squared ratio of error and error bar. Its square, times
    the patients, follows chi-squared where the error bar is right: a factor that chance explains is not taken. Patients
    weigh alike, however many cases they have, because the errors of their cases may be the same.
    """
    factors: dict[str, float] = {}
    reasons = []
    by_target = {one.target: one for one in measured}
    for name in targets:
        own = by_target.get(name)
        if own is None or own.errors is None or len(own.cases) < FEWEST_CASES:
            cases = counted(0 if own is None else len(own.cases), "unseen case")
            reasons.append(f"{name}: {cases} are too few for a factor (at least {FEWEST_CASES} are needed)")
            continue
        shares, people = shares_of(len(own.cases), own.patients)
        total = float(shares @ ((own.predicted - own.reference) / own.errors) ** 2)
        low, high = (float(stats.chi2.ppf(share, people)) for share in (CHANCE / 2, 1 - CHANCE / 2))
        factor = round(float(np.sqrt(total / people)), DIGITS)
        errors = f"{name}: errors of {counted(len(own.cases), 'unseen case')} are {factor:.3g} times their error bars"
        if low <= total <= high:
            reasons.append(f"{errors}, as chance explains: left as they are")
        else:
            factors[name] = factor
            reasons.append(errors)
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
    for setting, numbers in (("deviation", deviation), ("error_factor", factors)):
        for name, value in numbers.items():
            if not 0 < value < np.inf:
                raise PlanError(f"{value} for {name}", f"task.{setting}", "Give a number above 0")
    for name, value in mean.items():
        if not np.isfinite(value):
            raise PlanError(f"{value} for {name}", "task.mean", "Give a number")


def _refuse_unteachable(name: str, values: np.ndarray, where: str) -> None:
    if len(values) < 2:
        problem = f"{counted(len(values), 'training case has', 'training cases have')} a value of {name}"
        raise DatasetError(problem, where, "Give at least two, or leave the column out")
    if np.ptp(values) == 0:
        problem = f"{name} is {values[0]:g} in all {len(values)} training cases that have it"
        raise DatasetError(problem, where, "Give cases that differ, or leave the column out")


def _located(values: np.ndarray) -> tuple[float, float]:
    """Mean and deviation, as exact as a small share of the deviation."""
    mean, deviation = float(values.mean()), float(values.std())
    places = DIGITS - math.floor(math.log10(deviation))
    return round(mean, places), round(deviation, places)

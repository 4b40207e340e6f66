"""Calibrators: monotone maps from a network's log probabilities to log probabilities that agree with frequencies.

NumPy only: a packaged model carries a copy of this file. How they are fitted lies in `calibration_fit`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from isocenter.values import Floats

# classes: exclusive; grades: exclusive and in order, calibrated by the odds of being above each; labels: independent.
Scale = Literal["classes", "grades", "labels"]
METHODS = ("none", "temperature", "vector", "platt", "isotonic", "beta")
# Of boxes, which have a size.
SIZE = "size"
# A logarithm of odds beyond this is as sure as float64 can say.
SUREST = 700.0


@dataclass(frozen=True)
class Calibrator:
    """A fitted calibration.

    method:     temperature: log probabilities times a factor; vector: of classes a factor and a shift each, before the
                softmax; platt: log odds times a factor, and a shift; beta: a log p - b log(1 - p) + c (Kull et al.,
                doi:10.1214/17-EJS1338SI); isotonic: steps joined by lines (Zadrozny and Elkan,
                doi:10.1145/775047.775151); size: as platt, and the logarithm of a box's size times a number (Küppers et
                al., CVPRW 2020, arXiv:2004.13546)
    parameters: {column: numbers}: of temperature "all": [factor]; of vector and platt [factor, shift], of size a third
                number after them; of beta [a, b, c]; of isotonic log odds that rise, then as many probabilities. The
                columns are labels, of two classes the second, of grades all but the first
    cases:      how many it was fitted on
    """

    method: str = "none"
    parameters: Mapping[str, Sequence[float]] = field(default_factory=dict)
    cases: int = 0

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Calibrator:
        """Make a calibrator from plain values; ValueError for an unknown method, or for numbers that no map has."""
        parameters = {str(name): [float(n) for n in given] for name, given in settings["parameters"].items()}
        calibrator = cls(str(settings["method"]), parameters, int(settings["cases"]))
        if calibrator.method not in (*METHODS, SIZE):
            raise ValueError(f"{calibrator.method!r} is not a calibration method")
        lengths = {"none": 0, "temperature": 1, "vector": 2, "platt": 2, "beta": 3, SIZE: 3}
        for name, numbers in parameters.items():
            odd = (
                len(numbers) % 2 or not numbers
                if calibrator.method == "isotonic"
                else len(numbers) != lengths[calibrator.method]
            )
            if odd or not np.isfinite(numbers).all():
                raise ValueError(f"{numbers} are not a {calibrator.method} calibration of {name}")
        return calibrator

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values for YAML and JSON."""
        return {
            "method": self.method,
            "parameters": {name: list(numbers) for name, numbers in self.parameters.items()},
            "cases": self.cases,
        }

    def classes(self, logs: ArrayLike, names: Sequence[str], *, ordered: bool = False) -> Floats:
        """(..., classes) log probabilities, short of a number common to all, to calibrated ones that add up to 1.

        ordered: the classes are grades
        """
        normal = normalised(logs)
        if self.method == "none":
            return normal
        if self.method == "temperature" and not ordered:
            return normalised(normal * self.parameters["all"][0])
        if self.method == "vector" and len(names) > 2 and not ordered:
            factors, shifts = np.array([self.parameters[name] for name in names]).T
            return normalised(normal * factors + shifts)
        scale: Scale = "grades" if ordered else "classes"
        calibrated = from_odds(self.odds(odds_of(normal, scale), columns_of(names, scale)), scale)
        if self.method == "isotonic" and ordered:  # a grade between two equal steps would have none: half a case of all
            calibrated = normalised(np.logaddexp(calibrated, np.log(0.5 / (self.cases + 1))))
        return calibrated

    def odds(self, odds: ArrayLike, columns: Sequence[str], sizes: Floats | float = 0.0) -> Floats:
        """(..., columns) logarithms of odds to calibrated ones, each column by its own numbers.

        sizes: (...,) logarithms of the sizes of boxes
        """
        log_odds = np.asarray(odds, dtype=np.float64)
        if self.method == "none":
            return log_odds
        numbers = [self.parameters.get(name, self.parameters.get("all", ())) for name in columns]
        mapped = [_mapped(self.method, log_odds[..., place], own, sizes) for place, own in enumerate(numbers)]
        return np.stack(mapped, axis=-1)


def columns_of(names: Sequence[str], scale: Scale) -> tuple[str, ...]:
    """The names of the columns of odds: of two classes the second alone, of grades all but the first."""
    return tuple(names[1:] if scale == "grades" or (scale == "classes" and len(names) == 2) else names)


def odds_of(logs: ArrayLike, scale: Scale) -> Floats:
    """(..., classes) log probabilities that add up to 1 to (..., columns) logarithms of odds.

    Of two classes the second's, of several each against the rest, of grades those of lying above each but the last.
    """
    log_chances = np.asarray(logs, dtype=np.float64)
    count = log_chances.shape[-1]
    if scale == "labels":
        return log_chances - _log_of_rest(log_chances)
    if scale == "grades":
        ends = range(1, count)
        columns = [_log_sum(log_chances[..., end:]) - _log_sum(log_chances[..., :end]) for end in ends]
    elif count == 2:
        columns = [log_chances[..., 1] - log_chances[..., 0]]
    else:
        columns = [log_chances[..., n] - _log_sum(np.delete(log_chances, n, axis=-1)) for n in range(count)]
    return np.clip(np.stack(columns, axis=-1), -SUREST, SUREST)


def from_odds(odds: ArrayLike, scale: Scale) -> Floats:
    """The inverse of `odds_of`; what would not add up is normalised, and odds of grades are made to fall."""
    log_odds = np.asarray(odds, dtype=np.float64)
    if scale == "labels":
        return _log_sigmoid(log_odds)
    if scale == "grades":
        log_odds = np.minimum.accumulate(log_odds, axis=-1)
        above = np.concatenate([np.zeros_like(log_odds[..., :1]), _log_sigmoid(log_odds)], axis=-1)
        below = np.concatenate([_log_sigmoid(-log_odds), np.zeros_like(log_odds[..., :1])], axis=-1)
        falls = np.concatenate(
            [np.full_like(log_odds[..., :1], np.inf), log_odds, np.full_like(log_odds[..., :1], -np.inf)], -1
        )
        # sigmoid(a) - sigmoid(b) = sigmoid(a) * sigmoid(-b) * (1 - exp(b - a)), which also holds far from 0
        with np.errstate(divide="ignore", invalid="ignore"):
            between = np.log(-np.expm1(np.diff(falls, axis=-1)))
        return normalised(np.maximum(above + below + between, -SUREST))
    if log_odds.shape[-1] == 1:
        return np.concatenate([_log_sigmoid(-log_odds), _log_sigmoid(log_odds)], axis=-1)
    return normalised(_log_sigmoid(log_odds))


def normalised(logs: ArrayLike) -> Floats:
    """(..., classes) log probabilities, so that the probabilities add up to 1."""
    log_chances = np.asarray(logs, dtype=np.float64)
    return np.asarray(log_chances - _log_sum(log_chances)[..., None])


def _mapped(method: str, odds: Floats, numbers: Sequence[float], sizes: Floats | float) -> Floats:
    if method in ("temperature", "vector", "platt", SIZE):
        factor, shift, slope = (*numbers, 0.0, 0.0)[:3]
        return np.asarray(odds * factor + shift + slope * sizes)
    if method == "beta":
        a, b, c = numbers
        return a * _log_sigmoid(odds) - b * _log_sigmoid(-odds) + c
    knots = len(numbers) // 2
    chance = np.interp(odds, numbers[:knots], numbers[knots:])
    return np.asarray(np.log(chance) - np.log1p(-chance))


def _log_sum(logs: Floats) -> Floats:
    columns = np.ascontiguousarray(np.moveaxis(logs, -1, 0))  # few classes of many voxels: three times as fast
    most = np.maximum(columns.max(axis=0), -SUREST)
    return np.asarray(np.log(np.exp(columns - most).sum(axis=0).clip(np.exp(-SUREST))) + most)


def _log_of_rest(logs: Floats) -> Floats:
    """log(1 - p) of log p."""
    return np.log(-np.expm1(np.minimum(logs, -np.exp(-SUREST))))


def _log_sigmoid(values: Floats) -> Floats:
    return np.asarray(-np.logaddexp(0.0, -values))

"""Estimates: numbers with their intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.values.grid_geometry import Floats


@dataclass(frozen=True, eq=False)
class BootstrapDraws:
    """A figure in each bootstrap sample of patients; two figures of the same patients and seed are paired.

    figures: (draws,), NaN where the figure is undefined
    fewest:  patients in the smallest stratum
    strata:  (patients,) within which each was resampled
    models:  that scored them, each of its own patients
    """

    figures: Floats
    fewest: int
    strata: NDArray[np.integer[Any]]
    models: int = 1


@dataclass(frozen=True, eq=False)
class FigureRecipe:
    """The ingredients of a figure, so that it can be made again for any of these people.

    statistic: (draws, people) weights to (draws,) figures
    people:    (people,) who they are
    strata:    (people,) within which each is resampled
    sums:      (2, people) what each adds to the two sums whose ratio is the figure, if it is one
    ratios:    (2, ratios, people) the same of a figure that is the mean of several ratios
    """

    statistic: Callable[[Floats], Floats]
    people: NDArray[Any]
    strata: NDArray[np.integer[Any]]
    sums: Floats | None = None
    ratios: Floats | None = None


@dataclass(frozen=True)
class Estimate:
    """A value, the interval around it, and how both were made.

    low, high: absent where no interval can be given; `method` then states why
    level:     of the interval, 0.95 for a 95 % interval
    n:         cases that entered
    patients:  people behind them; 0 where they are not known
    unit:      "mm", "ml", "pixels"; empty for a ratio
    draws:     for comparisons only; no part of a record
    recipe:    for comparisons of groups of these people only; no part of a record
    """

    value: float
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    n: int = 0
    patients: int = 0
    unit: str = ""
    method: str = ""
    draws: BootstrapDraws | None = field(default=None, compare=False, repr=False)
    recipe: FigureRecipe | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        if self.low is None or self.high is None:
            return f"{self.value:.3f}{unit} (no interval: {self.method}; n = {self.n})"
        interval = f"{100 * self.level:.0f} % interval {self.low:.3f} to {self.high:.3f}"
        few = ", unreliable" if "unreliable" in self.method else ""
        return f"{self.value:.3f}{unit} ({interval}{few}, n = {self.n})"


@dataclass(frozen=True)
class Row:
    """One line of a summary: what was measured, for which label. The row over all labels is "all"."""

    metric: str
    label: str
    estimate: Estimate

"""A law that a statement of a report has to keep: a simulated study, and what its mean has to be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

Random = np.random.Generator
# One simulated study to a number whose mean is the law's figure: 1 where an interval holds the truth, or where a test
# alarms; a share of cases. NaN where the report states nothing.
Study = Callable[[Random], float]
# The share of studies with a p below 5 % that is close enough to 5 %.
ALARMS = (0.03, 0.07)
# The share of 95 % intervals that hold the truth that is close enough to 95 %.
COVERAGE = (0.93, 0.97)


@dataclass(frozen=True)
class Law:
    """What a statement claims, one set of circumstances, and the limits of the mean over many studies.

    claim:     the statement, in words; laws of a claim stand in one table
    cell:      the circumstances, such as "true .5, 40 patients"
    study:     one simulated study
    low, high: limits that the mean of many studies has to keep; infinite where nothing is asked of that side
    draws:     studies in `laws.py`
    few:       studies in the test suite, in at most 3 s; 0 where the suite leaves the cell out
    wide:      limits for those few; None: those of many
    """

    claim: str
    cell: str
    study: Study
    low: float = -np.inf
    high: float = np.inf
    draws: int = 1000
    few: int = 0
    wide: tuple[float, float] | None = None

    def studied(self, draws: int) -> np.ndarray:
        """(draws,) the number of each study; a study's seed is its claim, its cell and its place."""
        seed = list(f"{self.claim}: {self.cell}".encode())
        return np.array([self.study(np.random.default_rng([*seed, place])) for place in range(draws)], dtype=np.float64)

    def holds(self, figure: float) -> bool:
        """Whether the mean of many studies keeps the limits."""
        return self.low <= figure <= self.high


@dataclass(frozen=True)
class Figure:
    """What studies came to: their mean, its standard error, and the share of studies that stated nothing."""

    mean: float
    error: float
    without: float
    draws: int

    @classmethod
    def of(cls, numbers: Iterable[float]) -> Figure:
        values = np.array(list(numbers), dtype=np.float64)
        known = values[np.isfinite(values)]
        if not len(known):
            return cls(float("nan"), float("nan"), 1.0, len(values))
        error = float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else float("nan")
        return cls(float(known.mean()), error, 1 - len(known) / len(values), len(values))

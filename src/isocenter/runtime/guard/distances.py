"""Distances of a row of numbers from those of training cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Principal axes are as many as hold this share of the variance, and of the cases at most one in eight: an axis that two
# cases span says nothing of a third.
HELD, CASES_AN_AXIS, MOST_AXES = 0.99, 8, 32
# Of the mean variance, what an axis has at least: numbers that never differed would divide by 0.
LEAST = 1e-6
# Logarithms that differ by a tenth are alike: those of a set may not differ at all.
LEAST_SPREAD = 0.1
# Of the square of a spread, what each direction of numbers that go with each other has at least.
LEAST_MOMENT = 0.05
# Of a normal distribution, the standard deviation for each mean absolute deviation.
OF_MEAN_DEVIATION = float(np.sqrt(np.pi / 2))
# The neighbour to which the distance is taken.
NEIGHBOUR = 5


@dataclass(frozen=True, eq=False)
class Kept:
    """Arrays that a file keeps by their names."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats], name: str) -> Self:
        """Read what `arrays` gave; KeyError where one is missing."""
        return cls(*(np.asarray(arrays[f"{name}.{one.name}"], dtype=np.float64) for one in fields(cls)))

    def arrays(self, name: str) -> dict[str, Floats]:
        """Its arrays by names that begin so."""
        return {f"{name}.{one.name}": getattr(self, one.name) for one in fields(self)}


@dataclass(frozen=True, eq=False)
class Ranges(Kept):
    """The ranges of several logarithms in training cases.

    middles, spreads: (numbers,) medians and, of a normal distribution, standard deviations
    """

    middles: Floats
    spreads: Floats

    @classmethod
    def of(cls, rows: Floats) -> Ranges:
        """Fit (cases, numbers)."""
        middles = np.median(rows, axis=0)
        spreads = OF_MEAN_DEVIATION * np.mean(np.abs(rows - middles), axis=0)
        return cls(middles, np.maximum(LEAST_SPREAD, spreads))

    def furthest(self, row: Floats) -> float:
        """The distance of the number that is furthest from its middle, in spreads."""
        return float(np.max(np.abs(row - self.middles) / self.spreads))


@dataclass(frozen=True, eq=False)
class Correlated(Kept):
    """A few numbers of training cases that go with each other.

    middles, spreads: as in `Ranges`
    inverse: (numbers, numbers) of their second moments in spreads about the middles, shrunk to those of numbers that
             have nothing to do with each other, Ledoit and Wolf, doi:10.1016/S0047-259X(03)00096-4
    """

    middles: Floats
    spreads: Floats
    inverse: Floats

    @classmethod
    def of(cls, rows: Floats) -> Correlated:
        """Fit (cases, numbers)."""
        ranges = Ranges.of(rows)
        standard = (rows - ranges.middles) / ranges.spreads
        cases, numbers = standard.shape
        moments, diagonal = standard.T @ standard / cases, np.eye(numbers)
        target = np.trace(moments) / numbers * diagonal
        apart = float(np.sum(np.square(moments - target)))
        squares = np.sum(np.square(standard), axis=1)
        error = float(np.mean(np.square(squares)) - np.sum(np.square(moments))) / cases
        share = min(1.0, error / apart) if apart > 0 else 1.0
        shrunk = share * target + (1 - share) * moments
        return cls(ranges.middles, ranges.spreads, np.linalg.inv(shrunk + LEAST_MOMENT * diagonal))

    def mahalanobis(self, row: Floats) -> float:
        """The distance in standard deviations of the training cases."""
        standard = (row - self.middles) / self.spreads
        return float(np.sqrt(standard @ self.inverse @ standard))


@dataclass(frozen=True, eq=False)
class Reference(Kept):
    """Training cases by their principal axes, and what is left beside these.

    mean:       (numbers,)
    axes:       (axes, numbers), orthonormal
    variances:  (axes,) along each
    rest:       (1,) variance of a number beside the axes
    neighbours: (cases, axes + 1) the cases along the axes, and how far they lie beside these
    Woodland et al., arXiv:2308.03723, where the variance beside the axes is left out: what is new to a network often
    lies there, so it counts as in probabilistic PCA, Tipping and Bishop, doi:10.1111/1467-9868.00196
    """

    mean: Floats
    axes: Floats
    variances: Floats
    rest: Floats
    neighbours: Floats

    @classmethod
    def of(cls, rows: Floats) -> Reference:
        """Fit (cases, numbers) of at least two cases."""
        mean = rows.mean(axis=0)
        _, lengths, axes = np.linalg.svd(rows - mean, full_matrices=False)
        variances = lengths**2 / (len(rows) - 1)
        shares = np.cumsum(variances) / max(float(variances.sum()), np.finfo(float).tiny)
        count = min(int(np.searchsorted(shares, HELD)) + 1, max(1, len(rows) // CASES_AN_AXIS), MOST_AXES, len(axes))
        least = max(LEAST * float(variances.sum()) / rows.shape[1], np.finfo(np.float32).tiny)
        rest = variances[count:].sum() / max(1, rows.shape[1] - count)
        along, residual = np.maximum(variances[:count], least), np.array([max(rest, least)])
        made = cls(mean, axes[:count], along, residual, np.empty((0, 0)))
        return replace(made, neighbours=made.along(rows))

    def mahalanobis(self, row: Floats) -> float:
        """The distance in standard deviations of the training cases."""
        *along, residual = self.along(row[None])[0]
        return float(np.sqrt(np.sum(np.square(along) / self.variances) + residual**2 / self.rest[0]))

    def neighbour(self, row: Floats) -> float:
        """The distance to the fifth nearest training case, Sun et al., arXiv:2204.06507."""
        distances = np.sort(np.linalg.norm(self.neighbours - self.along(row[None]), axis=1))
        return float(distances[min(NEIGHBOUR, len(distances)) - 1])

    def along(self, rows: Floats) -> Floats:
        """(cases, axes + 1) along the principal axes, and how far beside these."""
        centred = rows - self.mean
        along = centred @ self.axes.T
        return np.column_stack([along, np.linalg.norm(centred - along @ self.axes, axis=1)])

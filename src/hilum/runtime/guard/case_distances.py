"""Distances of a row of numbers from those of training cases, and how rare they are as conformal p-values.

A distance is rare among cases that did not train.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.evaluation import conformal

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
class KeptArrays:
    """Arrays that a file keeps by their names."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats], name: str) -> Self:
        """Read what `arrays` gave; KeyError where one is missing."""
        return cls(*(np.asarray(arrays[f"{name}.{one.name}"], dtype=np.float64) for one in fields(cls)))

    def arrays(self, name: str) -> dict[str, Floats]:
        """Its arrays by names that begin so."""
        return {f"{name}.{one.name}": getattr(self, one.name) for one in fields(self)}


@dataclass(frozen=True, eq=False)
class Ranges(KeptArrays):
    """The ranges of several logarithms in training cases.

    middles, spreads: (numbers,) medians and, of a normal distribution, standard deviations
    """

    middles: Floats
    spreads: Floats

    @classmethod
    def from_rows(cls, rows: Floats) -> Ranges:
        """Fit (cases, numbers)."""
        middles = np.median(rows, axis=0)
        spreads = OF_MEAN_DEVIATION * np.mean(np.abs(rows - middles), axis=0)
        return cls(middles, np.maximum(LEAST_SPREAD, spreads))

    def furthest(self, row: Floats) -> float:
        """The distance of the number that is furthest from its middle, in spreads."""
        return float(np.max(np.abs(row - self.middles) / self.spreads))


@dataclass(frozen=True, eq=False)
class Correlated(KeptArrays):
    """A few numbers of training cases that go with each other.

    middles, spreads: as in `Ranges`
    inverse: (numbers, numbers) of their second moments in spreads about the middles, shrunk to those of numbers that
             have nothing to do with each other, Ledoit and Wolf, doi:10.1016/S0047-259X(03)00096-4
    """

    middles: Floats
    spreads: Floats
    inverse: Floats

    @classmethod
    def from_rows(cls, rows: Floats) -> Correlated:
        """Fit (cases, numbers)."""
        ranges = Ranges.from_rows(rows)
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
class Reference(KeptArrays):
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
    def from_rows(cls, rows: Floats) -> Reference:
        """Fit (cases, numbers) of at least two cases."""
        mean = rows.mean(axis=0)
        _, lengths, axes = np.linalg.svd(rows - mean, full_matrices=False)
        variances = lengths**2 / (len(rows) - 1)
        shares = np.cumsum(variances) / max(float(variances.sum()), np.finfo(float).tiny)
        count = min(int(np.searchsorted(shares, HELD)) + 1, max(1, len(rows) // CASES_AN_AXIS), MOST_AXES, len(axes))
        least = max(LEAST * float(variances.sum()) / rows.shape[1], np.finfo(np.float32).tiny)
        rest = variances[count:].sum() / max(1, rows.shape[1] - count)
        along, residual = np.maximum(variances[:count], least), np.array([max(rest, least)])
        reference = cls(mean, axes[:count], along, residual, np.empty((0, 0)))
        return replace(reference, neighbours=reference.along(rows))

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


# Of the largest distances, the part from which the tail goes on, and how many of them at most.
TAIL, MOST_OF_TAIL = 0.5, 30
# So many times further away than others cases of another source say nothing with them.
MOST_TIMES = 3.0
# Of a distance, what is no difference; and so of a sum of weights.
ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class KnownDistances:
    """Distances of cases from those that trained, each judged by cases other than itself.

    distances: (n,) sorted
    weights:   (n,) of each 1 / (cases of its patient): cases of one patient are alike, so that patients count
    """

    distances: Floats
    weights: Floats

    @classmethod
    def from_distances(cls, distances: Sequence[float], patients: Sequence[str]) -> KnownDistances:
        """Sort distances of cases of these patients; a case of nobody is a patient of its own."""
        owners = [f"patient {one}" if one else f"case {n}" for n, one in enumerate(patients)]
        values, (weights, _) = np.asarray(distances, dtype=np.float64), conformal.patient_shares(len(owners), owners)
        order = np.argsort(values, kind="stable")
        return cls(values[order], weights[order].astype(np.float64))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats], name: str) -> KnownDistances:
        """Read what `arrays` gave."""
        return cls(arrays[name], arrays[f"{name}.weights"])

    def arrays(self, name: str) -> dict[str, Floats]:
        """Its arrays by names that begin so."""
        return {name: self.distances, f"{name}.weights": self.weights}

    def __len__(self) -> int:
        return len(self.distances)

    @property
    def patients(self) -> int:
        """The number of patients."""
        return round(float(self.weights.sum()))

    def words(self, what: str = "case") -> str:
        """The number of cases, and of patients where these are fewer."""
        return errors.cases_of_patients(len(self), self.patients, what)

    def join(self, other: KnownDistances) -> KnownDistances:
        """Both, of other patients each."""
        values, weights = (np.concatenate(pair) for pair in zip(self._pair, other._pair, strict=True))
        order = np.argsort(values, kind="stable")
        return KnownDistances(values[order], weights[order])

    def as_far_as(self, others: KnownDistances) -> KnownDistances | None:
        """These distances, larger where cases of another source lie further away on average; None where far further.

        Their mean counts with its standard error: the spread of few cases is known from more of them, once scaled, and
        images like theirs are still refused no more often than the level says.
        """
        (mean_here, _), (mean, error) = self._mean, others._mean
        if not mean + error <= MOST_TIMES * mean_here:
            return None
        return KnownDistances(self.distances * max(1.0, (mean + error) / mean_here if mean_here else 1.0), self.weights)

    @property
    def _mean(self) -> tuple[float, float]:
        """The mean over patients, and its standard error."""
        mean = float(self.weights @ self.distances) / self.patients
        squares = float(self.weights @ np.square(self.distances - mean))
        return mean, float(np.sqrt(squares / (self.patients * (self.patients - 1)))) if self.patients > 1 else np.inf

    @property
    def _pair(self) -> tuple[Floats, Floats]:
        return self.distances, self.weights


def p_value(distance: float, held_out: KnownDistances, smallest: float, least: float = 0.0) -> float:
    """The share of patients like the held-out ones whose images lie at least as far away.

    smallest: the p-value that has to be told apart; where so many patients cannot, the tail is extrapolated
    least:    mean excess of the tail, at least: cases that are all alike say nothing of how far others may lie. Such
              numbers have few values, whose excesses are not exponential: where a held-out case lies as far, nothing is
              extrapolated
    With enough patients it is (1 + the weight of what is as far away) / (patients + 1), valid for a case of a patient
    like these, Lee et al., arXiv:2306.06342; with one case of each it is uniform (Vovk et al., 2005). Beyond the u-th
    largest the excesses are else taken as exponential: of k of them with the sum s a further one is above x with
    probability (1 + x / s)^-k, whatever their mean. Distances have lighter tails, so that it errs upwards.
    """
    distances, weights, count = held_out.distances, held_out.weights, held_out.patients
    if not np.isfinite(distance):
        return 0.0
    share = float(1 + weights[distances >= distance].sum()) / (count + 1)
    if is_enough(count, smallest) or count < 2 or (least and distance <= distances[-1]):
        return share
    # The largest distances that weigh so much; the last of them may exceed it.
    above = np.cumsum(weights[::-1])
    size = 1 + int(np.searchsorted(above, min(max(1, int(TAIL * count)), MOST_OF_TAIL, count - 1) - ROUNDING))
    threshold, k = distances[-size - 1], float(above[size - 1])
    if distance <= threshold:
        return share
    excess = float(weights[-size:] @ (distances[-size:] - threshold))
    total = max(excess, k * least, ROUNDING * distance)
    return float((k + 1) / (count + 1) * np.exp(-k * np.log1p((distance - threshold) / total)))


def is_enough(patients: int, smallest: float) -> bool:
    """Whether so many patients tell such a p-value without extrapolation."""
    return (patients + 1) * smallest >= 1

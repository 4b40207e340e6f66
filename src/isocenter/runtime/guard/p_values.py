"""The rarity of a distance among cases that did not train, as a conformal p-value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isocenter.errors import cases_of_patients
from isocenter.evaluation import shares_of
from isocenter.runtime.guard.distances import Floats

# Of the largest distances, the part from which the tail goes on, and how many of them at most.
TAIL, MOST_OF_TAIL = 0.5, 30
# So many times further away than others cases of another source say nothing with them.
MOST_TIMES = 3.0
# Of a distance, what is no difference; and so of a sum of weights.
ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Known:
    """Distances of cases from those that trained, each judged by cases other than itself.

    distances: (n,) sorted
    weights:   (n,) of each 1 / (cases of its patient): cases of one patient are alike, so that patients count
    """

    distances: Floats
    weights: Floats

    @classmethod
    def of(cls, distances: Sequence[float], patients: Sequence[str]) -> Known:
        """Sort distances of cases of these patients; a case of nobody is a patient of its own."""
        owners = [f"patient {one}" if one else f"case {n}" for n, one in enumerate(patients)]
        values, (weights, _) = np.asarray(distances, dtype=np.float64), shares_of(len(owners), owners)
        order = np.argsort(values, kind="stable")
        return cls(values[order], weights[order].astype(np.float64))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats], name: str) -> Known:
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
        return cases_of_patients(len(self), self.patients, what)

    def joined(self, other: Known) -> Known:
        """Both, of other patients each."""
        values, weights = (np.concatenate(pair) for pair in zip(self._pair, other._pair, strict=True))
        order = np.argsort(values, kind="stable")
        return Known(values[order], weights[order])

    def as_far_as(self, others: Known) -> Known | None:
        """These distances, larger where cases of another source lie further away on average; None where far further.

        Their mean counts with its standard error: the spread of few cases is known from more of them, once scaled, and
        images like theirs are still refused no more often than the level says.
        """
        (own, _), (mean, error) = self._mean, others._mean
        if not mean + error <= MOST_TIMES * own:
            return None
        return Known(self.distances * max(1.0, (mean + error) / own if own else 1.0), self.weights)

    @property
    def _mean(self) -> tuple[float, float]:
        """The mean over patients, and its standard error."""
        mean = float(self.weights @ self.distances) / self.patients
        squares = float(self.weights @ np.square(self.distances - mean))
        return mean, float(np.sqrt(squares / (self.patients * (self.patients - 1)))) if self.patients > 1 else np.inf

    @property
    def _pair(self) -> tuple[Floats, Floats]:
        return self.distances, self.weights


def p_value(distance: float, held_out: Known, smallest: float, least: float = 0.0) -> float:
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

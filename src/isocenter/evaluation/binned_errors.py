"""Calibration errors by bins with their intervals, which hold although the errors themselves are never below 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isocenter.errors import counted
from isocenter.evaluation.calibration import ece_of_equal_mass, equal_mass, places_of_equal_mass
from isocenter.evaluation.classification import BINS, EQUAL_WIDTH, ece, largest_calibration_error, place_in_bins
from isocenter.evaluation.intervals import CHUNK, FEW_PATIENTS, LEVEL, Resampling, Seed, tail_of
from isocenter.evaluation.weighting import refuse_no_draws
from isocenter.values import Estimate, Floats

# Of the law of the gaps.
DRAWS = 2000
LAW = "normal law of the gaps by patient"


@dataclass(frozen=True)
class BinnedError:
    """An error by bins.

    error:   of (images,) probabilities and (images,), or (draws, images), what happened
    bins_of: the bins for so many images, in words
    shares:  (images, bins) how much of each of (images,) probabilities lies in each bin
    largest: whether it is the largest gap of a bin, else the sum of the gaps by the bins' shares of the images
    """

    error: Callable[[ArrayLike, ArrayLike], Floats]
    bins_of: Callable[[int], str]
    shares: Callable[[Floats], Floats]
    largest: bool = False


BY_WIDTH = BinnedError(ece, lambda count: EQUAL_WIDTH, lambda chance: np.eye(BINS)[place_in_bins(chance, BINS)])
BY_MASS = BinnedError(ece_of_equal_mass, equal_mass, places_of_equal_mass)
LARGEST_GAP = replace(BY_WIDTH, error=largest_calibration_error, largest=True)


@dataclass(frozen=True, eq=False)
class Gaps:
    """Signed distances of probability from frequency, bin by bin, and what each patient adds to them.

    who:    (people,) their ids
    added:  (people, bins), of which the sums are the distances
    shares: (people, bins) of the images that a distance is the mean of; their sums are 1
    least:  (bins,) the variance at least, of outcomes that the stated probabilities themselves draw: a bin in which
            nothing happened says nothing of its own
    """

    who: NDArray[Any]
    added: Floats
    shares: Floats
    least: Floats

    @classmethod
    def of(cls, chance: Floats, happened: Floats, patients: NDArray, kind: BinnedError) -> Gaps:
        """Bins of (images,) probabilities, what happened, and whose images they are."""
        places = kind.shares(chance)
        places = places[:, places.sum(axis=0) > 0]
        each = places / (places.sum(axis=0) if kind.largest else len(chance))
        images = each if kind.largest else np.full((len(chance), 1), 1 / len(chance))
        least = (each**2 * (chance * (1 - chance))[:, None]).sum(axis=0)
        return cls.of_images(each * (chance - happened)[:, None], images, patients, least)

    @classmethod
    def of_images(cls, added: Floats, shares: Floats, patients: NDArray[Any], least: Floats) -> Gaps:
        """Bins of what each image adds: (images, bins), and (images, bins) or (images, 1) shares of its patient."""
        people, owner = np.unique(patients, return_inverse=True)
        of_people, their_shares = (
            np.stack([np.bincount(owner, column, len(people)).astype(np.float64) for column in columns.T], axis=1)
            for columns in (added, shares)
        )
        return cls(people, of_people, np.broadcast_to(their_shares, of_people.shape), least)

    @classmethod
    def joined(cls, parts: Sequence[Gaps]) -> Gaps:
        """Bins of several questions, of whose errors the mean is taken; not everybody need be asked each."""
        who = np.unique(np.concatenate([one.who for one in parts]))
        added, shares = (np.zeros((len(who), sum(one.added.shape[1] for one in parts))) for _ in range(2))
        start = 0
        for one in parts:
            place, columns = np.searchsorted(who, one.who), slice(start, start + one.added.shape[1])
            added[place, columns], shares[place, columns] = one.added / len(parts), one.shares
            start = columns.stop
        return cls(who, added, shares, np.concatenate([one.least for one in parts]) / len(parts) ** 2)

    @property
    def people(self) -> int:
        """Number of people."""
        return len(self.who)

    @property
    def values(self) -> Floats:
        """(bins,) the distances."""
        return np.asarray(self.added.sum(axis=0))

    def drawn(self, seed: int) -> Floats:
        """(draws, bins) errors of the distances, by normal multipliers of the people.

        Chernozhukov, Chetverikov and Kato, Ann Stat 2013, doi:10.1214/13-AOS1161
        """
        random = np.random.default_rng(seed)
        apart = self.added - self.shares * self.values
        factor = np.linalg.qr(apart, mode="r")  # the same law by as many numbers as there are bins
        lacking = np.sqrt((self.least - (apart**2).sum(axis=0)).clip(0))
        draws = min(DRAWS, max(200, CHUNK // max(1, apart.shape[1])))
        noise = random.normal(size=(draws, len(factor))) @ factor
        return np.asarray(noise + random.normal(size=noise.shape) * lacking)

    def interval_of_sum(self, seed: int) -> tuple[float, float]:
        """Interval of the sum of the sizes of the distances.

        The sum has a kink where a distance is 0, so that no bootstrap of the sum itself holds: a distance whose sign is
        sure moves it as it moves, another one adds its size (Fang and Santos, Rev Econ Stud 2019,
        doi:10.1093/restud/rdy049).
        """
        drawn, values, tail = self.drawn(seed), self.values, tail_of(self.people)
        spread, signed = drawn.std(axis=0), drawn * np.sign(values)
        sure = np.abs(values) > spread * np.sqrt(np.log(max(self.people, 3)))
        added = np.where(sure, signed, np.abs(drawn)).sum(axis=1)
        total = float(np.abs(values).sum())
        low, high = total - np.quantile(added, 1 - tail), total - np.quantile(signed.sum(axis=1), tail)
        return max(0.0, float(low)), min(1.0, float(high))

    def interval_of_largest(self, seed: int) -> tuple[float, float]:
        """Interval of the largest size of the distances, by intervals that hold for all bins at once."""
        drawn, values = self.drawn(seed), np.abs(self.values)
        spread = drawn.std(axis=0).clip(1e-12)
        wide = spread * float(np.quantile(np.abs(drawn / spread).max(axis=1), 1 - 2 * tail_of(self.people)))
        return max(0.0, float((values - wide).max())), min(1.0, float((values + wide).max()))


def calibration_error(
    probabilities: ArrayLike,
    happened: ArrayLike,
    patients: ArrayLike,
    *,
    seed: Seed,
    kind: BinnedError = BY_WIDTH,
    draws: int = 200,
) -> Estimate:
    """`ece`, or another error by bins; `method` says what it would be on average if the probabilities were right.

    probabilities: (images,), or (images, columns) of several questions, of whose errors the mean is taken
    happened:      the same
    patients:      (images,) whose image it is
    The interval is that of the error which many more such images would have in the same bins. The figure itself is too
    high in small sets and may lie above its interval; a bootstrap of it misses the truth (bench/claims/coverage.py).
    Bröcker and Smith, Weather Forecast 2007, doi:10.1175/WAF993.1
    """
    refuse_no_draws(draws)
    chance, random = np.asarray(probabilities, dtype=np.float64), np.random.default_rng(Resampling.of(seed).seed)
    count = len(chance)
    if not count:
        return Estimate(float("nan"), method="none: no cases")
    draws, at_once = min(draws, Resampling.of(seed).draws), max(1, CHUNK // count)
    parts = [min(at_once, draws - start) for start in range(0, draws, at_once)]
    owners, right, values, gaps = np.asarray(patients), [], [], []
    for own, true in zip(chance.reshape(count, -1).T, np.asarray(happened).reshape(count, -1).T, strict=True):
        right += [kind.error(own, random.random((rows, count)) < own) for rows in parts]
        values.append(float(kind.error(own, true)))
        gaps.append(Gaps.of(own, np.asarray(true, dtype=np.float64), owners, kind))
    expected, value = float(np.concatenate(right).mean()), float(np.mean(values))
    known = f"a calibrated model has {expected:.3f} on average with as many cases; {kind.bins_of(count)}"
    return estimate_of(value, Gaps.joined(gaps), n=count, seed=seed, largest=kind.largest, known=known)


def estimate_of(value: float, gaps: Gaps, *, n: int, seed: Seed, known: str, largest: bool = False) -> Estimate:
    """An error by bins with the interval of its gaps; known: what the method of the estimate ends with."""
    if gaps.people < 2:
        return Estimate(value, n=n, patients=gaps.people, method=f"none: one patient; {known}")
    interval = gaps.interval_of_largest if largest else gaps.interval_of_sum
    low, high = interval(Resampling.of(seed).seed)
    few = f"unreliable: {counted(gaps.people, 'patient')}; " * (gaps.people < FEW_PATIENTS)
    return Estimate(value, low, high, LEVEL, n, gaps.people, method=f"{LAW}; {few}{known}")

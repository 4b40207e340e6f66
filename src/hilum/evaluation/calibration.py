"""Agreement of probabilities with frequencies: errors by bins, parts of the Brier score, what calibration remains.

The errors themselves are never below 0, and the parts by bins are too high.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum import errors
from hilum.evaluation import _weighting, calibration_fit, classification, intervals
from hilum.evaluation.calibration_fit import LEAST_FACTOR, MOST_FACTOR, UnseenOutputs
from hilum.evaluation.classification import BINS, EQUAL_WIDTH
from hilum.evaluation.intervals import CHUNK, FEW_PATIENTS, LEVEL, Resampling, Seed
from hilum.lazy import special
from hilum.values import Estimate, Floats

# z of a two-sided 95 % interval.
DEVIATIONS = 1.959963984540054
# Newton's steps; a slope beyond this is that of cases which a straight line parts.
STEPS = 50
MOST_SLOPE = 100.0
# Of the gradient, a case: more is left where the steps have led nowhere.
UNSOLVED = 1e-4
FEWEST_PATIENTS = 10
FEWEST_IN_BIN = 10


def ece_of_equal_mass(
    probabilities: ArrayLike, happened: ArrayLike, weights: Floats | None = None, *, bins: int = BINS
) -> Floats:
    """ECE over bins of as many images each, at least `FEWEST_IN_BIN` where there are so many.

    happened: (images,), or (..., images) of several draws

    Nguyen and O'Connor, arXiv:1508.05154; images of equal probability share their outcomes, wherever a bin ends
    """
    chance = np.asarray(probabilities, dtype=np.float64)
    outcome = np.asarray(happened, dtype=np.float64)
    count = _weighting.case_weights(weights, len(chance))
    bins = _bins_of_equal_mass(len(chance), bins)
    order = np.argsort(chance, kind="stable")
    _, starts, ties = np.unique(chance[order], return_index=True, return_counts=True)
    shared = np.repeat(np.add.reduceat(outcome[..., order], starts, axis=-1) / ties, ties, axis=-1)
    bin_of_rank = np.arange(len(chance)) * bins // max(1, len(chance))
    gap = np.abs((count[..., order] * (chance[order] - shared)) @ np.eye(bins)[bin_of_rank])
    return _weighting.ratio_or_nan(gap.sum(axis=-1), count.sum(axis=-1))


def shares_in_bins(chance: Floats) -> Floats:
    """(images, bins) how much of each probability lies in each of those bins: equals are spread alike."""
    bins = _bins_of_equal_mass(len(chance))
    order = np.argsort(chance, kind="stable")
    member = np.eye(bins)[np.arange(len(chance)) * bins // len(chance)]
    _, starts, ties = np.unique(chance[order], return_index=True, return_counts=True)
    places = np.empty_like(member)
    places[order] = np.repeat(np.add.reduceat(member, starts, axis=0) / ties[:, None], ties, axis=0)
    return places


def _bins_of_equal_mass(cases: int, bins: int = BINS) -> int:
    """Number of bins that `ece_of_equal_mass` has of so many cases."""
    return max(1, min(bins, cases // FEWEST_IN_BIN))


def describe_equal_mass_bins(cases: int) -> str:
    """The bins of `ece_of_equal_mass` in words."""
    return f"{errors.count_phrase(_bins_of_equal_mass(cases), 'bin')} of equal mass"


def remaining_temperature(logs: ArrayLike, reference: ArrayLike, patients: ArrayLike) -> Estimate:
    """The temperature that would still lower the log loss: above 1 the model is too sure, below too unsure; or NaN.

    logs: (images, classes) log probabilities; the interval is that of maximum likelihood with clustered patients
    Guo et al., ICML 2017, arXiv:1706.04599
    """
    log_chances = np.asarray(logs, dtype=np.float64)
    truth = np.asarray(reference)
    owners = np.asarray(patients)
    people = len(np.unique(owners))
    if people < FEWEST_PATIENTS:
        method = f"none: {people} patients are too few"
        return Estimate(float("nan"), n=len(log_chances), patients=people, method=method)
    whose = np.arange(len(log_chances)).astype(str)
    names = tuple(map(str, range(log_chances.shape[1])))
    unseen = UnseenOutputs(log_chances, truth, whose, names)
    factor = calibration_fit.fit_calibrator("temperature", unseen).parameters["all"][0]
    chances = special.softmax(log_chances * factor, axis=1)
    expected = (chances * log_chances).sum(axis=1)
    scores = log_chances[np.arange(len(log_chances)), truth] - expected
    information = float(((chances * log_chances**2).sum(axis=1) - expected**2).sum())
    spread = _clustered_products(scores[:, None], owners)[0, 0] ** 0.5 / max(information, 1e-12)
    least, most = factor - DEVIATIONS * spread, factor + DEVIATIONS * spread
    if least <= 0 or not LEAST_FACTOR * 1.01 < factor < MOST_FACTOR / 1.01:
        method = "none: the probabilities discriminate too little, or completely, to fit one"
        return Estimate(float("nan"), n=len(log_chances), patients=people, method=method)
    method = "maximum likelihood, robust to patients with several images"
    return Estimate(1 / factor, 1 / most, 1 / least, LEVEL, len(log_chances), people, method=method)


def slope_and_intercept(odds: ArrayLike, happened: ArrayLike, patients: ArrayLike) -> tuple[Estimate, Estimate]:
    """Slope and intercept of the log odds in a logistic regression: 1 and 0 where the probabilities are right.

    odds: (images,) logarithms of the model's odds. The slope is below 1 where it is too sure; the intercept, with the
    slope held at 1, is below 0 where its probabilities are too high. NaN where a line parts the two sides.
    Van Calster et al., J Clin Epidemiol 2016, doi:10.1016/j.jclinepi.2015.12.005
    """
    log_odds = np.asarray(odds, dtype=np.float64)
    truth = np.asarray(happened, dtype=np.float64)
    owners = np.asarray(patients)
    ones = np.ones(len(log_odds))
    slope = _regress(np.stack([log_odds, ones], axis=1), np.zeros(len(log_odds)), truth, owners)
    return slope, _regress(ones[:, None], log_odds, truth, owners)


def _regress(features: Floats, offset: Floats, truth: Floats, owners: np.ndarray) -> Estimate:
    """The first number of a logistic regression."""
    people = len(np.unique(owners))
    coefficients = np.zeros(features.shape[1])
    unknown = Estimate(float("nan"), n=len(truth), patients=people)
    if people < FEWEST_PATIENTS or len(set(truth.tolist())) < 2:
        return replace(unknown, method="none: too few patients, or all alike")
    for _ in range(STEPS):
        chance = special.expit(offset + features @ coefficients)
        gradient = features.T @ (truth - chance)
        hessian = (features * (chance * (1 - chance))[:, None]).T @ features
        coefficients = coefficients + np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        if np.abs(coefficients).max() > MOST_SLOPE:
            return replace(unknown, method="none: the probabilities separate the two outcomes completely")
    inverse = np.linalg.pinv(hessian)
    left = features.T @ (truth - special.expit(offset + features @ coefficients))
    scores = features * (truth - chance)[:, None]
    variance, of_images = (
        float((inverse @ _clustered_products(scores, whose) @ inverse)[0, 0])
        for whose in (owners, np.arange(len(truth)))
    )
    # Where a model almost parts the two sides, what is left of the cases is next to nothing, and the robust variance
    # with it: of 40 cases with an AUROC of .99 three in four intervals held the true slope. It is widened by as much
    # as it falls short of the regression's own, were each image a patient's.
    variance *= max(1.0, float(inverse[0, 0]) / of_images) if of_images > 0 else 1.0
    # Where all chances are 0 or 1 to the last digit, no step leads anywhere.
    is_solved = 0 < variance < MOST_SLOPE**2 and np.abs(left).max() <= UNSOLVED * len(truth)
    if not is_solved:
        why = "the probabilities separate the two outcomes completely, or are too sure to tell"
        return replace(unknown, method=f"none: {why}")
    spread = variance**0.5
    low, high = (float(coefficients[0] + side * DEVIATIONS * spread) for side in (-1, 1))
    method = "logistic regression, robust to patients with several images"
    return Estimate(float(coefficients[0]), low, high, LEVEL, len(truth), people, method=method)


def _clustered_products(scores: Floats, owners: np.ndarray) -> Floats:
    """(numbers, numbers) products of the patients' sums of scores."""
    _, cluster = np.unique(owners, return_inverse=True)
    sums = np.zeros((cluster.max() + 1, scores.shape[1]))
    np.add.at(sums, cluster, scores)
    return np.asarray(sums.T @ sums)


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


BY_WIDTH = BinnedError(
    classification.ece, lambda count: EQUAL_WIDTH, lambda chance: np.eye(BINS)[classification.bin_index(chance, BINS)]
)
BY_MASS = BinnedError(ece_of_equal_mass, describe_equal_mass_bins, shares_in_bins)
LARGEST_GAP = replace(BY_WIDTH, error=classification.largest_calibration_error, largest=True)


@dataclass(frozen=True, eq=False)
class Gaps:
    """Signed distances of probability from frequency, bin by bin, and what each patient adds to them.

    who:    (people,) their ids
    added:  (people, bins), of which the sums are the distances
    shares: (people, bins) of the images that a distance is the mean of; their sums are 1
    least:  (bins,) the variance at least, of outcomes that the stated probabilities themselves imply: a bin in which
            nothing happened says nothing of its own
    """

    who: NDArray[Any]
    added: Floats
    shares: Floats
    least: Floats

    @classmethod
    def from_probabilities(cls, chance: Floats, happened: Floats, patients: NDArray[Any], kind: BinnedError) -> Gaps:
        """Bins of (images,) probabilities, what happened, and whose images they are."""
        places = kind.shares(chance)
        places = places[:, places.sum(axis=0) > 0]
        gaps = places / (places.sum(axis=0) if kind.largest else len(chance))
        images = gaps if kind.largest else np.full((len(chance), 1), 1 / len(chance))
        least = (gaps**2 * (chance * (1 - chance))[:, None]).sum(axis=0)
        return cls.of_images(gaps * (chance - happened)[:, None], images, patients, least)

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
    def join(cls, parts: Sequence[Gaps]) -> Gaps:
        """Bins of several questions, of whose errors the mean is taken; not everybody need be asked each."""
        who = np.unique(np.concatenate([one.who for one in parts]))
        added, shares = (np.zeros((len(who), sum(one.added.shape[1] for one in parts))) for _ in range(2))
        start = 0
        for part in parts:
            rows, columns = np.searchsorted(who, part.who), slice(start, start + part.added.shape[1])
            added[rows, columns] = part.added / len(parts)
            shares[rows, columns] = part.shares
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

    def sample_errors(self, seed: int) -> Floats:
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
        draws = self.sample_errors(seed)
        values = self.values
        tail = intervals.tail_share(self.people)
        spread = draws.std(axis=0)
        signed = draws * np.sign(values)
        sure = np.abs(values) > spread * np.sqrt(np.log(max(self.people, 3)))
        added = np.where(sure, signed, np.abs(draws)).sum(axis=1)
        total = float(np.abs(values).sum())
        low, high = total - np.quantile(added, 1 - tail), total - np.quantile(signed.sum(axis=1), tail)
        return max(0.0, float(low)), min(1.0, float(high))

    def interval_of_largest(self, seed: int) -> tuple[float, float]:
        """Interval of the largest size of the distances, by intervals that hold for all bins at once."""
        draws = self.sample_errors(seed)
        values = np.abs(self.values)
        spread = draws.std(axis=0).clip(1e-12)
        wide = spread * float(
            np.quantile(np.abs(draws / spread).max(axis=1), 1 - 2 * intervals.tail_share(self.people))
        )
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
    _weighting.refuse_no_draws(draws)
    chance = np.asarray(probabilities, dtype=np.float64)
    random = np.random.default_rng(Resampling.from_seed(seed).seed)
    count = len(chance)
    if not count:
        return Estimate(float("nan"), method="none: no cases")
    draws = min(draws, Resampling.from_seed(seed).draws)
    at_once = max(1, CHUNK // count)
    parts = [min(at_once, draws - start) for start in range(0, draws, at_once)]
    owners = np.asarray(patients)
    right = []
    values = []
    gaps = []
    for column, true in zip(chance.reshape(count, -1).T, np.asarray(happened).reshape(count, -1).T, strict=True):
        right += [kind.error(column, random.random((rows, count)) < column) for rows in parts]
        values.append(float(kind.error(column, true)))
        gaps.append(Gaps.from_probabilities(column, np.asarray(true, dtype=np.float64), owners, kind))
    expected = float(np.concatenate(right).mean())
    value = float(np.mean(values))
    expectation = f"a calibrated model has {expected:.3f} on average with as many cases; {kind.bins_of(count)}"
    return binned_error_estimate(
        value, Gaps.join(gaps), n=count, seed=seed, largest=kind.largest, expectation=expectation
    )


def binned_error_estimate(
    value: float, gaps: Gaps, *, n: int, seed: Seed, expectation: str, largest: bool = False
) -> Estimate:
    """An error by bins with the interval of its gaps; expectation: what the method of the estimate ends with."""
    if gaps.people < 2:
        return Estimate(value, n=n, patients=gaps.people, method=f"none: one patient; {expectation}")
    interval = gaps.interval_of_largest if largest else gaps.interval_of_sum
    low, high = interval(Resampling.from_seed(seed).seed)
    few = f"unreliable: {errors.count_phrase(gaps.people, 'patient')}; " * (gaps.people < FEW_PATIENTS)
    return Estimate(value, low, high, LEVEL, n, gaps.people, method=f"{LAW}; {few}{expectation}")


LAW_OF_PARTS = f"normal law of the parts by patient; {EQUAL_WIDTH}"
# How often an interval is halved, how many times as large as those found distances may be, and e to the power of what
# the shares of bins may change.
HALVINGS = 30
MOST_TIMES = 1e6
MOST_LOG = 20.0


def brier_parts(probabilities: ArrayLike, happened: ArrayLike, *, bins: int = BINS) -> tuple[float, float, float]:
    """Reliability, resolution and uncertainty, so that the score is about the first less the second plus the third.

    probabilities: (images,), or (images, classes), whose parts are summed as the score of several classes is
    happened:      the same
    Murphy, J Appl Meteorol 1973, doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2; by the bins of `ece`
    """
    chances = np.asarray(probabilities, dtype=np.float64)
    true = np.asarray(happened, dtype=np.float64)
    columns = zip(chances.reshape(len(chances), -1).T, true.reshape(len(true), -1).T, strict=True)
    reliable, resolved, uncertain = (
        np.array([_parts_of_one(chance, truth, bins) for chance, truth in columns]).sum(axis=0).tolist()
    )
    return reliable, resolved, uncertain


def _parts_of_one(probabilities: Floats, happened: Floats, bins: int) -> tuple[float, float, float]:
    chance, frequency, counts = classification.reliability_bins(probabilities, happened, bins=bins)
    share = counts / counts.sum()
    base = float(np.mean(happened))
    return float(share @ (chance - frequency) ** 2), float(share @ (frequency - base) ** 2), base * (1 - base)


def brier_estimates(
    probabilities: ArrayLike, happened: ArrayLike, patients: ArrayLike, *, seed: Seed
) -> tuple[Estimate, ...]:
    """`brier_parts` with their intervals.

    probabilities: (images,), or (images, classes)
    happened:      the same
    patients:      (images,) whose image it is
    The intervals are those of the parts which many more such images would have in the same bins. Reliability and
    resolution are too high in small sets and may lie above theirs (bench/claims/coverage.py).
    """
    chances = np.asarray(probabilities, float)
    true = np.asarray(happened, float)
    owners = np.asarray(patients)
    values = brier_parts(chances, true)
    people = len(np.unique(owners))
    number = Resampling.from_seed(seed).seed
    columns = [*zip(chances.reshape(len(chances), -1).T, true.reshape(len(true), -1).T, strict=True)]
    few = f"unreliable: {errors.count_phrase(people, 'patient')}; " * (people < FEW_PATIENTS)

    def estimate(value: float, interval: tuple[float, float] | None) -> Estimate:
        if interval is None:
            why = "one patient" if people < 2 else "all patients have the same share"
            return Estimate(value, n=len(chances), patients=people, method=f"none: {why}; {EQUAL_WIDTH}")
        low, high = interval
        return Estimate(value, low, high, LEVEL, len(chances), people, method=f"{few}{LAW_OF_PARTS}")

    if people < 2:
        return tuple(estimate(value, None) for value in values)
    squares = (
        _Squares.join([part(chance, truth) for chance, truth in columns]).interval(owners, number)
        for part in (_Squares.of_gaps, _Squares.of_differences)
    )
    part_intervals = (*squares, _of_uncertainty(true, owners, seed))
    return tuple(estimate(value, interval) for value, interval in zip(values, part_intervals, strict=True))


@dataclass(frozen=True, eq=False)
class _Squares:
    """A sum over bins of squared distances, each by its bin's share of the images, and what moves it.

    distances: (bins,) by the shares of the bins
    factors:   (bins,) by which their squares are added
    noise:     (images, bins) what each image adds to the error of a distance in its bin
    moved:     (images,) what each adds to the sum by which bin it is in: shares are those of these images
    least:     (bins,) the variance of the noise at least, of outcomes that the stated probabilities themselves imply
    most:      what the sum cannot exceed
    """

    distances: Floats
    factors: Floats
    noise: Floats
    moved: Floats
    least: Floats
    most: float

    @classmethod
    def of_gaps(cls, chance: Floats, happened: Floats) -> _Squares:
        """Reliability: distances of (images,) probabilities from frequencies."""
        return cls._from_bins(chance, chance - happened)

    @classmethod
    def of_differences(cls, chance: Floats, happened: Floats) -> _Squares:
        """Resolution: distances of the frequency in each bin from that everywhere, which is of these images too."""
        return cls._from_bins(chance, happened - happened.mean(), is_centred=True)

    @classmethod
    def _from_bins(cls, chance: Floats, apart: Floats, *, is_centred: bool = False) -> _Squares:
        places = BY_WIDTH.shares(chance)
        places = places[:, places.sum(axis=0) > 0]
        shares = places.mean(axis=0)
        means = (places * apart[:, None]).mean(axis=0) / shares
        gaps = (places - shares * is_centred) / len(chance)
        moved = places @ means**2
        return cls(
            shares * means,
            1 / shares,
            gaps * (apart - places @ means)[:, None],
            (moved - moved.mean()) / len(chance),
            (gaps**2 * (chance * (1 - chance))[:, None]).sum(axis=0),
            0.25 if is_centred else 1.0,
        )

    @classmethod
    def join(cls, parts: Sequence[_Squares]) -> _Squares:
        """The sum of several, of the same images."""
        sums = zip(*((one.distances, one.factors, one.least) for one in parts), strict=True)
        distances, factors, least = (np.concatenate(each) for each in sums)
        noise = np.concatenate([one.noise for one in parts], axis=1)
        moved = np.sum([one.moved for one in parts], axis=0)
        return cls(distances, factors, noise, moved, least, sum(one.most for one in parts))

    def interval(self, owners: NDArray[Any], seed: int) -> tuple[float, float]:
        """The interval of the sum; owners: (images,) whose image it is.

        The sum is too high by the squares of the noise. Distances so many times as large as these are tried: those with
        whose law the sum that was found lies in neither tail make the interval.
        """
        columns = np.column_stack([self.noise, self.moved])
        law = Gaps.of_images(columns, np.zeros((len(columns), 1)), owners, np.append(self.least, 0.0))
        *draws, moved = law.sample_errors(seed).T
        noise = np.stack(draws, axis=1)
        tail = intervals.tail_share(law.people)
        total = float(self.factors @ self.distances**2)
        across = noise @ (self.distances * self.factors)
        squares = noise**2 @ self.factors
        # As a factor, the shares of few people cannot make a sum of squares negative.
        shared = total * np.exp((moved / total).clip(-MOST_LOG, MOST_LOG)) if total > 0 else 0 * moved

        def quantile(times: float, level: float) -> float:
            return _quantile(times**2 * shared + 2 * times * across + squares, level)

        low = _largest(lambda times: quantile(times, 1 - tail) < total) ** 2 * total
        if quantile(0.0, tail) > total:  # smaller than noise alone would be: all that noise may hide is possible
            return low, min(self.most, quantile(0.0, 1 - tail))
        return low, min(self.most, _largest(lambda times: quantile(times, tail) <= total) ** 2 * total)


def _quantile(values: Floats, level: float) -> float:
    """NumPy's, by itself: what `np.quantile` does for any axes and methods takes most of its time on so few numbers."""
    position = level * (len(values) - 1)
    below = int(position)
    above = min(below + 1, len(values) - 1)
    sorted_there = np.partition(values, (below, above))
    return float(sorted_there[below] + (position - below) * (sorted_there[above] - sorted_there[below]))


def _largest(holds: Callable[[float], bool]) -> float:
    """The largest number from 0 on up to which this holds, 0 where it nowhere does."""
    least, most = 0.0, 1.0
    if not holds(least):
        return least
    while holds(most) and most < MOST_TIMES:
        least, most = most, 2 * most
    for _ in range(HALVINGS):
        middle = (least + most) / 2
        least, most = (middle, most) if holds(middle) else (least, middle)
    return least


def _of_uncertainty(happened: Floats, owners: NDArray[Any], seed: Seed) -> tuple[float, float] | None:
    """The interval of the last part, of (images,) or (images, classes) what happened.

    None where all patients have the same share.
    """
    if happened.ndim == 1:  # it rises up to a frequency of a half and falls from there
        frequency = intervals.bootstrap(happened, owners, seed=seed)
        if frequency.low is None or frequency.high is None:
            return None
        ends = [one * (1 - one) for one in (frequency.low, frequency.high)]
        return min(ends), 0.25 if frequency.low <= 0.5 <= frequency.high else max(ends)
    images, classes = happened.shape
    frequencies = happened.mean(axis=0)
    even = np.ones(classes)
    noise = (happened - frequencies) / images
    from_even = _Squares(frequencies - 1 / classes, even, noise, np.zeros(images), np.zeros(classes), 1.0)
    low, high = from_even.interval(owners, Resampling.from_seed(seed).seed)
    most = 1 - 1 / classes  # of classes that are equally frequent
    return max(0.0, most - high), most - low

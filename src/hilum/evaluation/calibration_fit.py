"""Calibrators: monotone maps of log probabilities, fitted to cases that did not train and chosen by cross-fitting."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import ArrayLike

from hilum.evaluation import classification
from hilum.lazy import optimize
from hilum.values import Floats, StatedSettings

if TYPE_CHECKING:
    from hilum.values.plain_values import PlainValue

# The simplest first. A vector is for classes that exclude each other, platt for every column of odds.
SIMPLEST = ("temperature", "vector", "platt", "beta", "isotonic")
# Of fewer patients, or fewer with a label or without, only a temperature is fitted: boxes of one image are no cases.
FEWEST = 30
FEWEST_OF_A_LABEL = 10
# `UnseenOutputs.spread` of cases with one answer each. Without it a temperature of 20 to 100 simulated cases, most of
# which are told apart, raises the log loss up to threefold (bench/findings/belief.md).
USUAL_SPREAD = 0.5
# Steps follow single cases; scikit-learn's manual asks for so many of them, here patients.
FEWEST_OF_STEPS = 1000
PARTS = 5
# Beyond this a factor says more of a few cases that can be told apart than of the network.
LEAST_FACTOR, MOST_FACTOR = 0.05, 20.0
# What ranks patients is worth more than what calibrates: ties of steps may cost so much AUROC.
MOST_AUROC_LOST = 0.001
# Times the loss at the start, holds the numbers of a class that no case has. Without that factor a structure of one
# voxel in 100 000 would not be fitted either: its part in the mean loss is no larger.
RIDGE = 1e-6
# Of the loss at the start, what a last step has to gain, and the slope at which a fit ends: for the same structures.
LEAST_GAIN = 1e-14
LEAST_SLOPE = 1e-9
DIGITS = 7
# Of a temperature over sites: steps at the most, and between the logarithms of the last two of them.
MOST_STEPS = 40
NEAR = 1e-9


@dataclass(frozen=True, eq=False)
class UnseenOutputs:
    """Outputs for cases that did not train, and their references.

    logs:     (samples, classes) log probabilities; of the scale "labels" (samples, labels) logarithms of odds
    truth:    (samples,) index of the class; of "labels" (samples, labels) 1, 0, or NaN where it is not known
    patients: (samples,) whose; all weigh alike, however many samples they have
    names:    of the classes or labels
    weights:  (samples,) how much a sample counts within its patient; None: all alike
    spread:   how far the logarithm of a factor is expected from 0 before any patient is seen (one standard deviation),
              and a shift twice as far, so that few patients, or such as are all told apart, change little;
              None: anything goes
    sizes:    (samples,) logarithms of the sizes of boxes; None of what has none
    """

    logs: Floats
    truth: np.ndarray
    patients: np.ndarray
    names: tuple[str, ...]
    scale: Scale = "classes"
    weights: Floats | None = None
    spread: float | None = None
    sizes: Floats | None = None

    @cached_property
    def counts(self) -> Floats:
        """(samples,) weights whose sum is the number of patients."""
        weights = np.ones(len(self.patients)) if self.weights is None else self.weights
        _, person = np.unique(self.patients, return_inverse=True)
        return np.asarray(weights / np.bincount(person, weights)[person])

    @property
    def is_exclusive(self) -> bool:
        """Whether a sample has one of the classes; each label is a question of its own."""
        return self.scale != "labels"

    @cached_property
    def odds(self) -> Floats:
        """(samples, columns) logarithms of odds."""
        return class_odds(self.logs, self.scale) if self.is_exclusive else np.asarray(self.logs, dtype=np.float64)

    @cached_property
    def positive(self) -> Floats:
        """(samples, columns) whether each column's question has the answer yes; NaN where nobody knows."""
        if not self.is_exclusive:
            return np.asarray(self.truth, dtype=np.float64)
        places = np.arange(len(self.names))
        is_ = self.truth[:, None] >= places if self.scale == "grades" else self.truth[:, None] == places
        return is_[:, len(places) - len(self.columns) :].astype(np.float64)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return odds_columns(self.names, self.scale)

    def only(self, rows: np.ndarray) -> UnseenOutputs:
        """Some of the samples."""
        weights, sizes = (None if one is None else one[rows] for one in (self.weights, self.sizes))
        fields = {"logs": self.logs[rows], "truth": self.truth[rows], "patients": self.patients[rows]}
        return replace(self, **fields, weights=weights, sizes=sizes)

    def apply_calibrator(self, calibrator: Calibrator) -> Floats:
        """`logs` as this calibrator maps them."""
        if not self.is_exclusive:
            return calibrator.odds(self.logs, self.names, 0.0 if self.sizes is None else self.sizes)
        return calibrator.classes(self.logs, self.names, ordered=self.scale == "grades")

    def losses(self, calibrator: Calibrator) -> Floats:
        """(samples,) negative log likelihood in nats, of labels the mean over those that are known."""
        logs = self.apply_calibrator(calibrator)
        if self.is_exclusive:
            return np.asarray(-logs[np.arange(len(logs)), self.truth])
        is_known = np.isfinite(self.positive)
        losses = np.logaddexp(0.0, np.where(self.positive > 0, -logs, logs))
        return np.asarray(np.where(is_known, losses, 0.0).sum(axis=1) / is_known.sum(axis=1).clip(min=1))

    def by_patient(self, losses: Floats) -> Floats:
        """(patients,) mean losses, in the order of their ids."""
        _, person = np.unique(self.patients, return_inverse=True)
        return np.asarray(np.bincount(person, losses * self.counts), dtype=np.float64)


@dataclass(frozen=True)
class CalibratorChoice:
    """A calibrator and the reason for it."""

    calibrator: Calibrator
    because: str


def fit_calibrator(method: str, unseen: UnseenOutputs) -> Calibrator:
    """The calibrator of one method; of a class or label that nobody has, it changes little."""
    parameters: Mapping[str, Sequence[float]] = MappingProxyType({})
    if method == "temperature":
        parameters = {"all": [_factor(unseen)]}
    elif method == "vector" and unseen.scale == "classes" and len(unseen.names) > 2:
        parameters = dict(zip(unseen.names, _vector(unseen), strict=True))
    elif method != "none":
        platt = _platt if unseen.weights is None else _plain
        fit = {"vector": platt, "platt": platt, "beta": _beta, "isotonic": _isotonic, SIZE: _by_size}[method]
        parameters = {}
        for name, odds, positive, counts in _columns(unseen, method):
            parameters[name] = fit(odds, positive, counts, unseen.spread)
    rounded = {name: [float(f"{n:.{DIGITS}g}") for n in numbers] for name, numbers in parameters.items()}
    return Calibrator(method, rounded, len(unseen.patients))


def choose_calibrator(
    method: str,
    unseen: UnseenOutputs,
    *,
    tried: Sequence[str] | None = None,
    admits: Callable[[Calibrator], bool] = lambda calibrator: True,
) -> CalibratorChoice:
    """The calibrator of a method, or of "auto" the simplest that is not surely worse than the best.

    tried:  the methods of "auto", the simplest first; None tries all where there are 30 patients and 10 of each label,
            at last those of boxes with their size, else a temperature alone
    admits: whether a calibrator that "auto" would take may be taken
    Methods are compared by the negative log likelihood of patients that each was fitted without (five parts): of those
    within one standard error (of the differences over patients) of the best the simplest is taken, none where it does
    not help (with a `spread`: where it is surely worse), and never one that lowers the AUROC by more than .001.
    """
    unseen = unseen.only(np.asarray(np.isfinite(unseen.logs).all(axis=1)))
    if not len(unseen.patients):
        return CalibratorChoice(Calibrator(), "there is no unseen case to fit a calibration on")
    of = f"fitted on {len(unseen.patients)} unseen samples of {len(np.unique(unseen.patients))} patients"
    if method != "auto":
        return CalibratorChoice(fit_calibrator(method, unseen), f"{of}, set by hand")
    if tried is None:
        several = unseen.scale == "classes" and len(unseen.names) > 2
        left_out = ["platt" if several else "vector"]
        left_out += ["isotonic"] if len(np.unique(unseen.patients)) < FEWEST_OF_STEPS else []
        tried = [name for name in SIMPLEST if name not in left_out] + [SIZE] * (unseen.sizes is not None)
        tried = tried if _is_enough(unseen) else tried[:1]
    parts = deal_into_parts(unseen)
    if parts is None:
        none = Calibrator(cases=len(unseen.patients))
        return CalibratorChoice(none, "one patient alone cannot be cross-fitted")
    losses = {name: _cross_fitted(name, unseen, parts) for name in ("none", *tried)}
    best = min(tried, key=lambda name: losses[name].mean())
    candidates = [name for name in tried if _is_near(losses[name], losses[best])]
    helps = _is_near if unseen.spread else _is_less
    candidates = [name for name in candidates if helps(losses[name], losses["none"])]
    for name in candidates:
        calibrator = fit_calibrator(name, unseen)
        if admits(calibrator) and _keeps_order(unseen, calibrator):
            words = f"{name} scaling: log loss {losses[name].mean():.4f} in patients that did not fit it, "
            words += f"{losses['none'].mean():.4f} without calibration"
            words += f", {losses[best].mean():.4f} with {best}, which is not surely better" if best != name else ""
            words += f"; {of}"
            return CalibratorChoice(calibrator, words)
    words = f"no calibration lowers the log loss of cross-fitted patients ({losses['none'].mean():.4f}) "
    words += f"of {len(unseen.patients)} unseen samples"
    return CalibratorChoice(replace(Calibrator(), cases=len(unseen.patients)), words)


def _is_enough(unseen: UnseenOutputs) -> bool:
    people = [len(np.unique(unseen.patients[own == side])) for own in unseen.positive.T for side in (0, 1)]
    return len(np.unique(unseen.patients)) >= FEWEST and min(people) >= FEWEST_OF_A_LABEL


def _is_near(losses: Floats, best: Floats) -> bool:
    apart = losses - best
    return bool(apart.mean() <= apart.std(ddof=1) / np.sqrt(len(apart)))


def _is_less(losses: Floats, others: Floats) -> bool:
    return bool(losses.mean() < others.mean())


def _keeps_order(unseen: UnseenOutputs, calibrator: Calibrator) -> bool:
    after = unseen.apply_calibrator(calibrator)
    odds = class_odds(after, unseen.scale) if unseen.is_exclusive else after
    for before, now, positive in zip(unseen.odds.T, odds.T, unseen.positive.T, strict=True):
        is_known = np.isfinite(positive)
        truth = positive[is_known] > 0
        if truth.any() and not truth.all():
            lost = float(classification.auroc(before[is_known], truth, unseen.counts[is_known]))
            lost -= float(classification.auroc(now[is_known], truth, unseen.counts[is_known]))
            if lost > MOST_AUROC_LOST:
                return False
    return True


def deal_into_parts(unseen: UnseenOutputs) -> np.ndarray | None:
    """(samples,) the part of each sample's patient, who are dealt class by class; None for one patient."""
    people, first, person = np.unique(unseen.patients, return_index=True, return_inverse=True)
    if len(people) < 2:
        return None
    # Of several classes each row of `positive` has one answer yes, whichever class it is of.
    classes = (unseen.truth if unseen.is_exclusive else np.nansum(unseen.positive, axis=1))[first]
    mixed = np.random.default_rng(0).permutation(len(people))
    order = mixed[np.argsort(classes[mixed], kind="stable")]
    part = np.empty(len(people), dtype=int)
    part[order] = np.arange(len(people)) % min(PARTS, len(people))
    return np.asarray(part[person])


def _cross_fitted(method: str, unseen: UnseenOutputs, parts: np.ndarray) -> Floats:
    """(patients,) mean losses by calibrators that were fitted without them."""
    losses = np.zeros(len(parts))
    for part in np.unique(parts):
        is_held_out = parts == part
        losses[is_held_out] = unseen.only(is_held_out).losses(fit_calibrator(method, unseen.only(~is_held_out)))
    return unseen.by_patient(losses)


def _columns(unseen: UnseenOutputs, method: str) -> Iterator[tuple[str, Floats, Floats, Floats]]:
    """Name, odds (with sizes, for the method of that name), answers and weights of each column."""
    for name, odds, positive in zip(unseen.columns, unseen.odds.T, unseen.positive.T, strict=True):
        is_known = np.isfinite(positive)
        sizes = np.zeros(len(odds)) if unseen.sizes is None else unseen.sizes
        regressors = np.stack([odds, sizes], axis=1) if method == SIZE else odds
        yield name, regressors[is_known], positive[is_known], unseen.counts[is_known]


def _factor(unseen: UnseenOutputs) -> float:
    def loss(log: float) -> float:
        """The loss of all patients with a factor, by its logarithm, and what speaks against so large a one."""
        calibrator = Calibrator("temperature", {"all": [float(np.exp(log))]})
        against = 0.0 if unseen.spread is None else 0.5 * (log / unseen.spread) ** 2
        return float(unseen.losses(calibrator) @ unseen.counts) + against

    bounds = (np.log(LEAST_FACTOR), np.log(MOST_FACTOR))
    return float(np.exp(optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7}).x))


def factor_slopes(unseen: UnseenOutputs, log: float) -> tuple[float, float]:
    """First and second derivative of the patients' loss by the logarithm of the factor of a temperature, at this one.

    Of classes without an order, and of labels. Those of several sites add up to those of all their patients; what
    `spread` expects of the factor is left to `common_factor`.
    """
    factor = float(np.exp(log))
    if unseen.is_exclusive:
        logs = normalise_logs(unseen.logs)
        chance = np.exp(normalise_logs(factor * logs))
        rows = np.arange(len(logs))
        mean = (chance * logs).sum(axis=1)
        first, second = mean - logs[rows, unseen.truth], (chance * np.square(logs - mean[:, None])).sum(axis=1)
    else:
        is_known = np.isfinite(unseen.positive)
        odds = unseen.odds
        chance = np.exp(_log_sigmoid(factor * odds))
        share = is_known / is_known.sum(axis=1, keepdims=True).clip(min=1)
        first = (share * np.where(is_known, (chance - unseen.positive) * odds, 0)).sum(axis=1)
        second = (share * chance * (1 - chance) * np.square(odds)).sum(axis=1)
    first = factor * first
    return float(first @ unseen.counts), float((first + factor**2 * second) @ unseen.counts)


def common_factor(slopes: Callable[[float], tuple[float, float]], spread: float | None = USUAL_SPREAD) -> float:
    """The factor of a temperature where the loss is lowest, by its derivatives (`factor_slopes`) at a few logarithms.

    Newton's steps, and halves of what is left where one would leave it: the loss has one minimum.
    """
    low = math.log(LEAST_FACTOR)
    high = math.log(MOST_FACTOR)
    log = 0.0
    for _ in range(MOST_STEPS):
        first, second = slopes(log)
        if spread is not None:
            first, second = first + log / spread**2, second + 1 / spread**2
        low, high = (low, log) if first > 0 else (log, high)
        after = log - first / second if second > 0 else math.nan
        after = after if low <= after <= high else (low + high) / 2
        if abs(after - log) < NEAR:
            return math.exp(after)
        log = after
    return math.exp(log)


def temperature_of(factor: float, cases: int) -> Calibrator:
    """The calibrator that a common factor is."""
    return Calibrator("temperature", {"all": [float(f"{factor:.{DIGITS}g}")]}, cases)


def _vector(unseen: UnseenOutputs) -> list[list[float]]:
    """Factor and shift of each class."""
    logs = unseen.logs - unseen.logs.max(axis=1, keepdims=True)
    classes = len(unseen.names)
    logs = logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))
    shares = unseen.counts / unseen.counts.sum()

    def loss(numbers: Floats) -> tuple[float, Floats]:
        """The mean loss and its gradient."""
        factors = numbers[:classes]
        shifts = numbers[classes:]
        scores = logs * factors + shifts
        scores = scores - scores.max(axis=1, keepdims=True)
        chance = np.exp(scores)
        chance /= chance.sum(axis=1, keepdims=True)
        rows = np.arange(len(logs))
        cost = -shares @ np.log(chance[rows, unseen.truth].clip(1e-300))
        off = chance
        off[rows, unseen.truth] -= 1
        off *= shares[:, None]
        return float(cost), np.concatenate([(off * logs).sum(axis=0), off.sum(axis=0)])

    start = np.concatenate([np.full(classes, _factor(unseen)), np.zeros(classes)])
    fitted = _lowest(loss, start, classes, LEAST_FACTOR, unseen.spread, float(unseen.counts.sum()))
    shifts = fitted[classes:] - fitted[classes:].mean()
    return [[float(a), float(b)] for a, b in zip(fitted[:classes], shifts, strict=True)]


def _lowest(
    loss: Callable[[Floats], tuple[float, Floats]],
    start: Floats,
    factors: int,
    least: float,
    spread: float | None,
    patients: float,
) -> Floats:
    """The numbers, factors first, with the lowest mean loss and what speaks against them, in units of the first loss.

    least: factor
    """
    unit = max(loss(start)[0], 1e-12)

    def held(numbers: Floats) -> tuple[float, Floats]:
        """The same with what speaks against these numbers."""
        cost, gradient = loss(numbers)
        against, uphill = _against(numbers, factors, spread, patients)
        per = 1.0 if spread is None else unit
        return cost / unit + against / per, gradient / unit + uphill / per

    bounds = [(least, MOST_FACTOR)] * factors + [(None, None)] * (len(start) - factors)
    options = {"maxiter": 1000, "ftol": LEAST_GAIN, "gtol": LEAST_SLOPE}
    fitted = optimize.minimize(held, start, jac=True, bounds=bounds, method="L-BFGS-B", options=options)  # type: ignore[call-overload]  # SciPy's stubs know no such options
    return np.asarray(fitted.x)


def _against(numbers: Floats, factors: int, spread: float | None, patients: float) -> tuple[float, Floats]:
    """Penalty of large changes beside a mean loss, and its gradient; without a spread beside 1.

    numbers: factors, which are expected about 1 as that of a temperature is, then shifts, twice as far from 0
    """
    if spread is None:
        held = np.concatenate([numbers[:factors] - 1, numbers[factors:]])
        return float(RIDGE * held @ held), 2 * RIDGE * held
    logs = np.log(numbers[:factors]) / spread
    shifts = numbers[factors:] / (2 * spread)
    cost = 0.5 * float(logs @ logs + shifts @ shifts)
    uphill = np.concatenate([logs / (spread * numbers[:factors]), shifts / (2 * spread)])
    return cost / patients, uphill / patients


def _logistic(
    features: Floats, targets: Floats, counts: Floats, spread: float | None, least: float, *, others: int = 0
) -> Floats:
    """Factors of (samples, features) and a shift that lower the cross-entropy most.

    others: so many of the last factors are expected about 0, as the shift is, and not about 1
    """
    shares = counts / max(counts.sum(), 1e-300)

    def loss(numbers: Floats) -> tuple[float, Floats]:
        """The mean cross-entropy and its gradient."""
        odds = features @ numbers[:-1] + numbers[-1]
        cost = shares @ (np.logaddexp(0.0, odds) - targets * odds)
        off = shares * (np.exp(-np.logaddexp(0.0, -odds)) - targets)
        return float(cost), np.append(features.T @ off, off.sum())

    factors = features.shape[1] - others
    start = np.append(np.ones(factors), np.zeros(others + 1))
    return _lowest(loss, start, factors, least, spread, max(float(counts.sum()), 1.0))


def _plain(odds: Floats, positive: Floats, counts: Floats, spread: float | None) -> list[float]:
    """The targets stay: one more case of each side would weigh more than all voxels of a small structure."""
    return cast("list[float]", _logistic(odds[:, None], positive, counts, spread, LEAST_FACTOR).tolist())


def _platt(odds: Floats, positive: Floats, counts: Floats, spread: float | None) -> list[float]:
    """Targets are pulled in as by one more case of each side: Platt 1999, Lin et al., doi:10.1007/s10994-007-5018-6."""
    if spread is not None:
        return _plain(odds, positive, counts, spread)
    yes = float(positive.sum())  # samples, whatever they weigh
    no = len(positive) - yes
    targets = np.where(positive > 0, (yes + 1) / (yes + 2), 1 / (no + 2))
    return cast("list[float]", _logistic(odds[:, None], targets, counts, None, LEAST_FACTOR).tolist())


def _by_size(regressors: Floats, positive: Floats, counts: Floats, spread: float | None) -> list[float]:
    """given: (samples, 2) odds, and logarithms of sizes, which are measured from their mean while it is fitted."""
    middle = float(regressors[:, 1] @ counts / counts.sum()) if len(regressors) else 0.0
    features = regressors - np.array([0.0, middle])
    factor, slope, shift = _logistic(features, positive, counts, spread, LEAST_FACTOR, others=1).tolist()
    return [factor, shift - slope * middle, slope]


def _beta(odds: Floats, positive: Floats, counts: Floats, spread: float | None) -> list[float]:
    features = np.stack([-np.logaddexp(0.0, -odds), np.logaddexp(0.0, odds)], axis=1)
    least = 0.0 if spread is None else LEAST_FACTOR
    return cast("list[float]", _logistic(features, positive, counts, spread, least).tolist())


def _isotonic(odds: Floats, positive: Floats, counts: Floats, spread: float | None) -> list[float]:
    """Knots: log odds where a step begins or ends, and its probability, kept from 0 and 1 by half a case."""
    if not len(odds):
        return [0.0, 0.5]
    values, level = np.unique(odds, return_inverse=True)
    weights = np.bincount(level, counts)
    means = np.bincount(level, counts * positive) / weights
    steps = optimize.isotonic_regression(means, weights=weights).x
    ends = np.append(np.diff(steps) != 0, True) | np.insert(np.diff(steps) != 0, 0, True)
    least = 0.5 / (counts.sum() + 1)
    return [*values[ends].tolist(), *steps[ends].clip(least, 1 - least).tolist()]


# Calibrators: monotone maps from a network's log probabilities to log probabilities that agree with frequencies.
#
# NumPy only: a packaged model carries a copy of this part. How they are fitted lies in `calibration_fit`.

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
    def from_record(cls, settings: StatedSettings) -> Calibrator:
        """Make a calibrator from plain values; ValueError for an unknown method, or for numbers that no map has."""
        parameters = {str(name): [float(n) for n in given] for name, given in settings["parameters"].items()}
        calibrator = cls(str(settings["method"]), parameters, int(settings["cases"]))
        if calibrator.method not in (*METHODS, SIZE):
            raise ValueError(f"{calibrator.method!r} is not a calibration method")
        lengths = {"none": 0, "temperature": 1, "vector": 2, "platt": 2, "beta": 3, SIZE: 3}
        for name, numbers in parameters.items():
            count = len(numbers)
            is_isotonic = calibrator.method == "isotonic"
            odd = count % 2 or not count if is_isotonic else count != lengths[calibrator.method]
            if odd or not np.isfinite(numbers).all():
                raise ValueError(f"{numbers} are not a {calibrator.method} calibration of {name}")
        return calibrator

    @property
    def settings(self) -> dict[str, PlainValue]:
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
        normal = normalise_logs(logs)
        if self.method == "none":
            return normal
        if self.method == "temperature" and not ordered:
            return normalise_logs(normal * self.parameters["all"][0])
        if self.method == "vector" and len(names) > 2 and not ordered:
            factors, shifts = np.array([self.parameters[name] for name in names]).T
            return normalise_logs(normal * factors + shifts)
        scale: Scale = "grades" if ordered else "classes"
        calibrated = logs_from_odds(self.odds(class_odds(normal, scale), odds_columns(names, scale)), scale)
        if self.method == "isotonic" and ordered:  # a grade between two equal steps would have none: half a case of all
            calibrated = normalise_logs(np.logaddexp(calibrated, np.log(0.5 / (self.cases + 1))))
        return calibrated

    def odds(self, odds: ArrayLike, columns: Sequence[str], sizes: Floats | float = 0.0) -> Floats:
        """(..., columns) logarithms of odds to calibrated ones, each column by its own numbers.

        sizes: (...,) logarithms of the sizes of boxes
        """
        log_odds = np.asarray(odds, dtype=np.float64)
        if self.method == "none":
            return log_odds
        numbers = [self.parameters.get(name, self.parameters.get("all", ())) for name in columns]
        mapped = [_map_odds(self.method, log_odds[..., place], own, sizes) for place, own in enumerate(numbers)]
        return np.stack(mapped, axis=-1)


def odds_columns(names: Sequence[str], scale: Scale) -> tuple[str, ...]:
    """The names of the columns of odds: of two classes the second alone, of grades all but the first."""
    return tuple(names[1:] if scale == "grades" or (scale == "classes" and len(names) == 2) else names)


def class_odds(logs: ArrayLike, scale: Scale) -> Floats:
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


def logs_from_odds(odds: ArrayLike, scale: Scale) -> Floats:
    """The inverse of `class_odds`; what would not add up is normalised, and odds of grades are made to fall."""
    log_odds = np.asarray(odds, dtype=np.float64)
    if scale == "labels":
        return _log_sigmoid(log_odds)
    if scale == "grades":
        log_odds = np.minimum.accumulate(log_odds, axis=-1)
        above = np.concatenate([np.zeros_like(log_odds[..., :1]), _log_sigmoid(log_odds)], axis=-1)
        below = np.concatenate([_log_sigmoid(-log_odds), np.zeros_like(log_odds[..., :1])], axis=-1)
        first, last = (np.full_like(log_odds[..., :1], end) for end in (np.inf, -np.inf))
        falls = np.concatenate([first, log_odds, last], axis=-1)
        # sigmoid(a) - sigmoid(b) = sigmoid(a) * sigmoid(-b) * (1 - exp(b - a)), which also holds far from 0
        with np.errstate(divide="ignore", invalid="ignore"):
            between = np.log(-np.expm1(np.diff(falls, axis=-1)))
        return normalise_logs(np.maximum(above + below + between, -SUREST))
    if log_odds.shape[-1] == 1:
        return np.concatenate([_log_sigmoid(-log_odds), _log_sigmoid(log_odds)], axis=-1)
    return normalise_logs(_log_sigmoid(log_odds))


def normalise_logs(logs: ArrayLike) -> Floats:
    """(..., classes) log probabilities, so that the probabilities add up to 1."""
    log_chances = np.asarray(logs, dtype=np.float64)
    return np.asarray(log_chances - _log_sum(log_chances)[..., None])


def _map_odds(method: str, odds: Floats, numbers: Sequence[float], sizes: Floats | float) -> Floats:
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
    return cast("Floats", np.log(-np.expm1(np.minimum(logs, -np.exp(-SUREST)))))


def _log_sigmoid(values: Floats) -> Floats:
    return np.asarray(-np.logaddexp(0.0, -values))

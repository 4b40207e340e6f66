"""Discrimination and calibration of class probabilities, and figures of grades: classes that have an order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum.errors import UsageError
from hilum.evaluation import _weighting, intervals
from hilum.evaluation.intervals import FEW_PATIENTS, LEVEL, Seed
from hilum.evaluation.metric import Metric
from hilum.lazy import sparse
from hilum.values import Estimate, Floats

# Bins of equal width, as in Guo et al., ICML 2017, arXiv:1706.04599.
BINS = 15
EQUAL_WIDTH = f"{BINS} bins of equal width"
# Of one label that is called or not: of its probabilities, then of its calls.
LABEL_METRICS = (
    Metric("auroc", "AUROC", least=0.0, most=1.0),
    Metric("average_precision", least=0.0, most=1.0),
    Metric("sensitivity", worst=0.0),
    Metric("specificity", worst=0.0),
    Metric("ppv", "PPV", worst=0.0),
    Metric("npv", "NPV", worst=0.0),
    Metric("f1", worst=0.0),
    Metric("kappa", "Cohen's kappa", least=-1.0, most=1.0),
)
# Of calls of several classes, beside those of each.
CLASS_METRICS = (
    Metric("accuracy", least=0.0, most=1.0),
    Metric("balanced_accuracy", least=0.0, most=1.0),
    Metric("mcc", "MCC", least=-1.0, most=1.0),
)
BRIER = Metric("brier", "Brier score", "less", worst=1.0)
# Points of 1 - specificity at which the band of a ROC curve is computed.
POINTS = 101
# A probability of 0 for what happened would cost infinitely much; float32 knows no smaller step beside 1.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)


def auroc(scores: ArrayLike, positive: ArrayLike, weights: Floats | None = None) -> Floats:
    """Chance that a positive image scores higher than a negative one, ties counting half; NaN for one class.

    scores: (images,); positive: (images,) truths
    Hanley and McNeil, Radiology 1982, doi:10.1148/radiology.143.1.7063747
    """
    yes, no = _tie_scores(scores, positive, weights)
    below = np.cumsum(no, axis=-1) - no / 2
    return _weighting.ratio_or_nan((yes * below).sum(axis=-1), yes.sum(axis=-1) * no.sum(axis=-1))


def average_precision(scores: ArrayLike, positive: ArrayLike, weights: Floats | None = None) -> Floats:
    """Mean precision over the positives, without interpolation; NaN without positives.

    Davis and Goadrich, ICML 2006, doi:10.1145/1143844.1143874 (why steps and not lines)
    """
    yes, no = (counts[..., ::-1] for counts in _tie_scores(scores, positive, weights))
    hits = np.cumsum(yes, axis=-1)
    called = hits + np.cumsum(no, axis=-1)
    precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
    return _weighting.ratio_or_nan((precision * yes).sum(axis=-1), yes.sum(axis=-1))


def one_against_rest(
    figure: Callable[[ArrayLike, ArrayLike, Floats | None], Floats],
    probabilities: ArrayLike,
    reference: ArrayLike,
    weights: Floats | None = None,
) -> Floats:
    """Unweighted mean of a two-class figure over the classes, each against the rest; for two classes, the second.

    probabilities: (images, classes); reference: (images,) index of the class
    A class without images makes it NaN: a mean over other classes would be another figure.
    """
    table = np.asarray(probabilities, dtype=np.float64)
    truth = np.asarray(reference)
    classes = range(table.shape[1]) if table.shape[1] > 2 else (1,)
    return cast("Floats", np.mean([figure(table[:, label], truth == label, weights) for label in classes], axis=0))


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts at an operating point: rows are the reference, columns the prediction.

    counts: (..., classes, classes)
    Two-class figures take the second class as positive. What cannot be known (PPV without a positive call) is NaN.
    """

    counts: Floats

    @classmethod
    def from_calls(
        cls, predicted: ArrayLike, reference: ArrayLike, classes: int = 2, weights: Floats | None = None
    ) -> Confusion:
        """Counts of (images,) class indices or truths."""
        truth = np.asarray(reference, dtype=np.intp)
        called = np.asarray(predicted, dtype=np.intp)
        if not np.isin((truth, called), range(classes)).all():
            raise UsageError(f"a class index outside 0..{classes - 1}", "Confusion", "Give indices into the classes")
        places = (np.arange(len(truth)), truth * classes + called)
        cells = sparse.csr_array((np.ones(len(truth)), places), shape=(len(truth), classes**2))
        counts = np.asarray(_weighting.case_weights(weights, len(truth)) @ cells)
        return cls(counts.reshape(*counts.shape[:-1], classes, classes))

    @property
    def accuracy(self) -> Floats:
        """Share of images that were called right."""
        return _weighting.ratio_or_nan(np.trace(self.counts, axis1=-2, axis2=-1), self.counts.sum(axis=(-2, -1)))

    @property
    def recalls(self) -> Floats:
        """(..., classes) share of each class that was called so."""
        return _weighting.ratio_or_nan(self._right, self.counts.sum(axis=-1))

    @property
    def balanced_accuracy(self) -> Floats:
        """Mean of the recalls; NaN where a class has no image."""
        return cast("Floats", self.recalls.mean(axis=-1))

    @property
    def sensitivity(self) -> Floats:
        """Share of the second class that was called so; NaN without one of it."""
        return self.recalls[..., 1]

    @property
    def specificity(self) -> Floats:
        """Share of the first class that was called so; NaN without one of it."""
        return self.recalls[..., 0]

    @property
    def ppv(self) -> Floats:
        """Positive predictive value at the prevalence of these images; elsewhere `ppv_at`."""
        return self._precisions[..., 1]

    @property
    def npv(self) -> Floats:
        """Negative predictive value at the prevalence of these images; elsewhere `npv_at`."""
        return self._precisions[..., 0]

    def ppv_at(self, prevalence: float) -> Floats:
        """PPV where `prevalence` of all people are positive (Bayes)."""
        right = self.sensitivity * prevalence
        return _weighting.ratio_or_nan(right, right + (1 - self.specificity) * (1 - prevalence))

    def npv_at(self, prevalence: float) -> Floats:
        """NPV where `prevalence` of all people are positive (Bayes)."""
        right = self.specificity * (1 - prevalence)
        return _weighting.ratio_or_nan(right, right + (1 - self.sensitivity) * prevalence)

    @property
    def f1(self) -> Floats:
        """F1 of the positive class; of several the unweighted mean (macro), 0 for a class never called right."""
        right = self._right
        named = self.counts.sum(axis=-1) + self.counts.sum(axis=-2)
        of_classes = _weighting.ratio_or_nan(2 * right, named)
        return of_classes[..., 1] if of_classes.shape[-1] == 2 else of_classes.mean(axis=-1)

    @property
    def mcc(self) -> Floats:
        """Matthews correlation, for several classes too; NaN where either side names one class only.

        Gorodkin, Comput Biol Chem 2004, doi:10.1016/j.compbiolchem.2004.09.006
        """
        total = self.counts.sum(axis=(-2, -1))
        right = self._right.sum(axis=-1)
        true = self.counts.sum(axis=-1)
        called = self.counts.sum(axis=-2)
        agreement = right * total - (true * called).sum(axis=-1)
        spread = (total**2 - (called**2).sum(axis=-1)) * (total**2 - (true**2).sum(axis=-1))
        return _weighting.ratio_or_nan(agreement, np.sqrt(spread))

    @property
    def kappa(self) -> Floats:
        """Agreement beyond chance: 1 at best, NaN where both sides name one class.

        Cohen, Educ Psychol Meas 1960, doi:10.1177/001316446002000104
        """
        total = self.counts.sum(axis=(-2, -1))
        chance = _weighting.ratio_or_nan((self.counts.sum(axis=-1) * self.counts.sum(axis=-2)).sum(axis=-1), total**2)
        return _weighting.ratio_or_nan(self.accuracy - chance, 1 - chance)

    @cached_property
    def _right(self) -> Floats:
        return np.diagonal(self.counts, axis1=-2, axis2=-1)

    @property
    def _precisions(self) -> Floats:
        return _weighting.ratio_or_nan(self._right, self.counts.sum(axis=-2))


def brier(probabilities: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """Mean squared error of the probabilities: 0..1 for two classes, 0..2 summed over more.

    probabilities: (images,) of the positive class with truths, or (images, classes) with class indices
    Brier, Mon Weather Rev 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2
    """
    table, truth = _by_class(probabilities, reference)
    squares = (table - np.eye(table.shape[1])[truth]) ** 2
    # With two classes both columns say the same, and the usual figure is that of one.
    scores = squares.sum(axis=1) / (2 if table.shape[1] == 2 else 1)
    return _weighting.weighted_mean(scores, _weighting.case_weights(weights, len(table)))


def log_loss(probabilities: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """Mean negative logarithm (nats) of the probability given to what was true, which is clipped at 1.2e-7."""
    table, truth = _by_class(probabilities, reference)
    losses = -np.log(np.clip(table[np.arange(len(truth)), truth], SMALLEST_PROBABILITY, 1.0))
    return _weighting.weighted_mean(losses, _weighting.case_weights(weights, len(table)))


def ece(probabilities: ArrayLike, happened: ArrayLike, weights: Floats | None = None, *, bins: int = BINS) -> Floats:
    """Expected calibration error: mean distance between probability and frequency, over bins of equal width.

    probabilities: (images,) of the positive class with `happened` its truths; for several classes the
                   highest probability with `happened` whether that class was right (top label); (..., images) of
                   several draws
    Guo et al., ICML 2017, arXiv:1706.04599; it is never below 0 and so too high in small sets
    """
    chance = _weighting.require_probabilities(probabilities, "probabilities")
    outcome = _weighting.require_truths(happened, "happened")
    if chance.ndim != 1 or outcome.shape[-1:] != chance.shape:
        problem = f"{chance.shape} probabilities for {outcome.shape} truths in `happened`"
        raise UsageError(problem, "ece", "Give one probability and one truth for each image")
    count = _weighting.case_weights(weights, chance.size)
    member = np.eye(bins)[bin_index(chance, bins)]
    gap = np.abs((count * (chance - outcome)) @ member)
    return _weighting.ratio_or_nan(gap.sum(axis=-1), count.sum(axis=-1))


def largest_calibration_error(probabilities: ArrayLike, happened: ArrayLike, *, bins: int = BINS) -> Floats:
    """The largest distance between probability and frequency of any of the bins of `ece`.

    happened: (images,), or (..., images) of several draws
    Naeini et al., AAAI 2015, doi:10.1609/aaai.v29i1.9602
    """
    chance = np.asarray(probabilities, dtype=np.float64)
    outcome = np.asarray(happened, dtype=np.float64)
    member = np.eye(bins)[bin_index(chance, bins)]
    counts = member.sum(axis=0)
    gaps = np.abs((chance - outcome) @ member[:, counts > 0]) / counts[counts > 0]
    return np.asarray(gaps.max(axis=-1, initial=0.0))


def roc_curve(scores: ArrayLike, positive: ArrayLike, weights: Floats | None = None) -> tuple[Floats, Floats, Floats]:
    """1 - specificity, sensitivity and threshold ("positive from here up"), from no call to every call.

    weights: (images,) how much each counts; None: all alike
    The first threshold is infinite; the area under straight lines through the points is `auroc`.
    """
    yes, no = (counts[::-1] for counts in _tie_scores(scores, positive, weights))
    thresholds = np.unique(np.asarray(scores, dtype=np.float64))[::-1]
    wrong, hits = (np.concatenate([[0.0], np.cumsum(part)]) for part in (no, yes))
    return (
        _weighting.ratio_or_nan(wrong, wrong[-1]),
        _weighting.ratio_or_nan(hits, hits[-1]),
        np.concatenate([[np.inf], thresholds]),
    )


def reliability_bins(
    probabilities: ArrayLike, happened: ArrayLike, *, bins: int = BINS
) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """Mean probability, frequency and images of each bin of `ece` that is not empty, for a figure."""
    chance = np.asarray(probabilities, dtype=np.float64)
    outcome = np.asarray(happened, dtype=np.float64)
    bin_of_image = bin_index(chance, bins)
    counts = np.bincount(bin_of_image, minlength=bins)
    full = counts > 0
    mean, frequency = (
        np.bincount(bin_of_image, each, minlength=bins)[full] / counts[full] for each in (chance, outcome)
    )
    return mean, frequency, counts[full]


def roc_band(
    scores: ArrayLike, positive: ArrayLike, patients: ArrayLike, *, seed: Seed, draws: int = 500
) -> tuple[Floats, Floats, Floats] | None:
    """1 - specificity, and the lowest and highest sensitivity there in 95 % of draws of patients within their class.

    None where a class has fewer than ten patients: a band would seem to say more than is known.
    Each point has its own interval; the whole curve leaves the band more often. Macskassy and Provost, ROCAI 2004
    """
    values = np.asarray(scores, dtype=np.float64)
    truth = _weighting.require_truths(positive, "positive")
    owners = np.asarray(patients)
    if min(len(np.unique(owners[side])) for side in (truth, ~truth)) < FEW_PATIENTS:
        return None
    # From the highest score down; cases of equal score enter together.
    order = np.argsort(-values, kind="stable")
    last = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)
    across = np.linspace(0, 1, POINTS)
    sensitivities = []
    for weights in intervals.patient_weights(owners, strata=truth, seed=seed, draws=draws):
        counts = weights[:, order]
        right, wrong = (np.cumsum(counts * side[order], axis=1)[:, last] for side in (truth, ~truth))
        for hit, false in zip(right, wrong, strict=True):
            sensitivities.append(np.interp(across, np.append(0, false / false[-1]), np.append(0, hit / hit[-1])))
    low, high = np.quantile(sensitivities, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return across, low, high


def predictive_values(
    called: ArrayLike, positive: ArrayLike, patients: ArrayLike, *, prevalence: float | None, seed: Seed
) -> tuple[Estimate, Estimate]:
    """PPV and NPV of (images,) calls where `prevalence` of all people are positive; None: as many as of these images.

    prevalence: a share, as 0.1 for 10 %
    Of these images they are proportions of the calls. At another prevalence they follow from sensitivity and
    specificity (Bayes), whose patients are resampled within positives and negatives; where no call is wrong, the exact
    bound of sensitivity or specificity bounds them.
    """
    calls = _weighting.require_truths(called, "called")
    truth = _weighting.require_truths(positive, "positive")
    owners = np.asarray(patients)
    if not len(calls) == len(truth) == len(owners):
        problem = f"{len(calls)} calls, {len(truth)} truths in `positive` and {len(owners)} patients"
        raise UsageError(problem, "predictive values", "Give one of each for each image")
    if prevalence is not None and not 0 <= prevalence <= 1:
        raise UsageError(f"{prevalence} is not a share of people", "prevalence", "Give a number from 0 to 1")
    if prevalence is None:
        at = f"; at a prevalence of {truth.mean():.3g}, that of these cases" if len(truth) else ""
        estimates = [
            intervals.proportion(truth[calls], owners[calls], seed=seed),
            intervals.proportion(~truth[~calls], owners[~calls], seed=seed),
        ]
    else:
        at = f"; at a stated prevalence of {prevalence:.3g}"
        estimates = [
            _predictive_value(calls, truth, owners, prevalence, seed),
            _predictive_value(~calls, ~truth, owners, 1 - prevalence, seed),
        ]
    ppv, npv = (replace(one, method=one.method + at) for one in estimates)
    return ppv, npv


def _tie_scores(scores: ArrayLike, positive: ArrayLike, weights: Floats | None) -> tuple[Floats, Floats]:
    """(..., scores that differ, rising) weight of the positive and of the negative images with that score."""
    values = np.asarray(scores, dtype=np.float64)
    truths = _weighting.require_truths(positive, "positive")
    if not _weighting.have_same_cases(values, truths) or not len(values) or np.isnan(values).any():
        problem = f"scores of {values.shape} for truths of {truths.shape}, or a score that is NaN"
        raise UsageError(problem, "classification", "Give one score and one truth for each image")
    order = np.argsort(values, kind="stable")
    starts = np.concatenate([[0], np.flatnonzero(values[order][1:] != values[order][:-1]) + 1])
    count = _weighting.case_weights(weights, len(values))[..., order]
    if len(starts) == len(values):  # no two are tied: nothing is summed up
        yes = count * truths[order]
        return yes, count - yes
    yes = np.add.reduceat(count * truths[order], starts, axis=-1)
    return yes, np.add.reduceat(count, starts, axis=-1) - yes


def _by_class(probabilities: ArrayLike, reference: ArrayLike) -> tuple[Floats, NDArray[np.intp]]:
    table = np.asarray(probabilities, dtype=np.float64)
    truth = np.asarray(reference).astype(np.intp)
    if table.ndim == 1:
        table = np.stack([1 - table, table], axis=1)
    if table.shape[:1] != truth.shape or not np.isin(truth, range(table.shape[1])).all():
        problem = f"probabilities of {table.shape} for references of {truth.shape}, or a class without a column"
        raise UsageError(problem, "classification", "Give (images, classes) and (images,) indices of classes")
    return table, truth


def bin_index(chance: Floats, bins: int) -> NDArray[np.intp]:
    """Place among bins of equal width; 1 belongs to the last."""
    return np.clip((_weighting.require_probabilities(chance, "probabilities") * bins).astype(np.intp), 0, bins - 1)


def _predictive_value(
    calls: np.ndarray, truth: np.ndarray, owners: np.ndarray, prevalence: float, seed: Seed
) -> Estimate:
    """PPV of calls at a prevalence; an NPV is the PPV of the other class."""

    def value(weights: Floats) -> Floats:
        """The positive predictive value, for each weighting."""
        return Confusion.from_calls(calls, truth, 2, weights).ppv_at(prevalence)

    estimate = intervals.bootstrap_statistic(value, owners, strata=truth, seed=seed, exact=False)
    if estimate.low is not None or estimate.value != 1.0:
        return estimate
    # No negative was called positive: at worst as many as the exact interval of that proportion allows.
    free = len(np.unique(owners[~truth]))
    least = float(intervals.clopper_pearson(free, free).low or 0.0)
    right = float(Confusion.from_calls(calls, truth).sensitivity) * prevalence
    low = right / (right + (1 - least) * (1 - prevalence))
    return replace(estimate, low=low, high=1.0, method="exact (Clopper-Pearson) bound of the wrong calls, by patient")


GRADE_METRICS = (
    Metric("quadratic_kappa", "Quadratic-weighted kappa", least=-1.0, most=1.0),
    Metric("mae", "MAE", "less", unit="grades", least=0.0),
    Metric("rps", "Ranked probability score", "less", worst=1.0),
)


def grade_distances(grades: int, power: float = 1.0) -> Floats:
    """(grades, grades) how many grades lie between two of them, to a power: 1 for absolute errors, 2 for squared."""
    places = np.arange(grades, dtype=np.float64)
    return np.abs(places[:, None] - places) ** power


def weighted_kappa(confusion: Confusion, costs: ArrayLike) -> Floats:
    """Agreement beyond chance where each miss counts by its cost: 1 at best, NaN where both sides name one class.

    costs: (classes, classes) of calling a reference (row) so (column); squared distances make the quadratic kappa
    Cohen, Psychol Bull 1968, doi:10.1037/h0026256
    """
    counts = confusion.counts
    weights = _square(costs, confusion.counts.shape[-1])
    observed = (counts * weights).sum(axis=(-2, -1))
    chance = np.einsum("...i,ij,...j->...", counts.sum(axis=-1), weights, counts.sum(axis=-2))
    return np.asarray(1 - _weighting.ratio_or_nan(observed * counts.sum(axis=(-2, -1)), chance))


def ranked_probability_score(probabilities: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """Mean squared error of the probabilities of exceeding each grade but the last: 0..1; of two grades `brier`.

    probabilities: (images, grades) in their order; reference: (images,) index of the grade
    Epstein, J Appl Meteorol 1969, doi:10.1175/1520-0450(1969)008<0985:ASSFPF>2.0.CO;2
    """
    table = np.asarray(probabilities, dtype=np.float64)
    truth = np.asarray(reference).astype(np.intp)
    grades = table.shape[-1] if table.shape else 0
    if table.shape != (*truth.shape, grades) or grades < 2:
        problem = f"probabilities of {table.shape} for references of {truth.shape}"
        raise UsageError(problem, "grades", "Give (images, grades) and (images,)")
    reached = truth[:, None] <= np.arange(grades - 1)
    scores = ((np.cumsum(table, axis=1)[:, :-1] - reached) ** 2).mean(axis=1)
    return _weighting.weighted_mean(scores, _weighting.case_weights(weights, len(scores)))


def least_cost_class(probabilities: ArrayLike, costs: ArrayLike) -> np.ndarray:
    """(images,) index of the class that costs least on average, if the probabilities are right.

    probabilities: (images, classes); costs: (classes, classes) of calling a reference (row) so (column)
    Ferrer, arXiv:2209.05355
    """
    table = np.asarray(probabilities, dtype=np.float64)
    return np.asarray((table @ _square(costs, table.shape[-1])).argmin(axis=-1))


def _square(costs: ArrayLike, classes: int) -> Floats:
    weights = np.asarray(costs, dtype=np.float64)
    if weights.shape != (classes, classes):
        problem = f"costs of {weights.shape} for {classes} classes"
        raise UsageError(problem, "costs", "Give one row and column per class")
    return weights

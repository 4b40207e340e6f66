"""How well classes are told apart and how far probabilities can be believed.

Every figure takes `weights`, (..., images) how often each image counts, and gives one number a weighting: (...).
Without weights each image counts once. So a figure and its bootstrap (`bootstrap_statistic`) are one definition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isocenter.errors import UsageError
from isocenter.lazy import sparse
from isocenter.values import Estimate, Floats

# Bins of equal width, as in Guo et al., ICML 2017, arXiv:1706.04599.
BINS = 15
# A probability of 0 for what happened would cost infinitely much; float32 knows no smaller step beside 1.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)


def auroc(scores: ArrayLike, positive: ArrayLike, weights: Floats | None = None) -> Floats:
    """Chance that a positive image scores higher than a negative one, ties counting half; NaN for one class.

    scores: (images,); positive: (images,) truths
    Hanley and McNeil, Radiology 1982, doi:10.1148/radiology.143.1.7063747
    """
    yes, no = _tied(scores, positive, weights)
    below = np.cumsum(no, axis=-1) - no / 2
    return _ratio((yes * below).sum(axis=-1), yes.sum(axis=-1) * no.sum(axis=-1))


def average_precision(scores: ArrayLike, positive: ArrayLike, weights: Floats | None = None) -> Floats:
    """Mean precision over the found positives, without interpolation; NaN without positives.

    Davis and Goadrich, ICML 2006, doi:10.1145/1143844.1143874 (why steps and not lines)
    """
    yes, no = (counts[..., ::-1] for counts in _tied(scores, positive, weights))
    found = np.cumsum(yes, axis=-1)
    called = found + np.cumsum(no, axis=-1)
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    return _ratio((precision * yes).sum(axis=-1), yes.sum(axis=-1))


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
    table, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(reference)
    classes = range(table.shape[1]) if table.shape[1] > 2 else (1,)
    return np.mean([figure(table[:, label], truth == label, weights) for label in classes], axis=0)


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts at an operating point: rows are the reference, columns the prediction.

    counts: (..., classes, classes)
    Two-class figures take the second class as positive. What cannot be known (PPV without a positive call) is NaN.
    """

    counts: Floats

    @classmethod
    def of(
        cls, predicted: ArrayLike, reference: ArrayLike, classes: int = 2, weights: Floats | None = None
    ) -> Confusion:
        """Counts of (images,) class indices or truths."""
        truth, called = np.asarray(reference, dtype=np.intp), np.asarray(predicted, dtype=np.intp)
        if not np.isin((truth, called), range(classes)).all():
            raise UsageError(f"a class index outside 0..{classes - 1}", "Confusion", "Give indices into the classes")
        images = np.arange(len(truth))
        cells = sparse.csr_array(
            (np.ones(len(truth)), (images, truth * classes + called)), shape=(len(truth), classes**2)
        )
        counts = np.asarray(_weights(weights, len(truth)) @ cells)
        return cls(counts.reshape(*counts.shape[:-1], classes, classes))

    @property
    def accuracy(self) -> Floats:
        return _ratio(np.trace(self.counts, axis1=-2, axis2=-1), self.counts.sum(axis=(-2, -1)))

    @property
    def recalls(self) -> Floats:
        """(..., classes) share of each class that was called so."""
        return _ratio(self._right, self.counts.sum(axis=-1))

    @property
    def balanced_accuracy(self) -> Floats:
        """Mean of the recalls; NaN where a class has no image."""
        return self.recalls.mean(axis=-1)

    @property
    def sensitivity(self) -> Floats:
        return self.recalls[..., 1]

    @property
    def specificity(self) -> Floats:
        return self.recalls[..., 0]

    @property
    def ppv(self) -> Floats:
        """At the prevalence of these images; elsewhere `ppv_at`."""
        return self._precisions[..., 1]

    @property
    def npv(self) -> Floats:
        """At the prevalence of these images; elsewhere `npv_at`."""
        return self._precisions[..., 0]

    def ppv_at(self, prevalence: float) -> Floats:
        """PPV where `prevalence` of all people are positive (Bayes)."""
        right = self.sensitivity * prevalence
        return _ratio(right, right + (1 - self.specificity) * (1 - prevalence))

    def npv_at(self, prevalence: float) -> Floats:
        """NPV where `prevalence` of all people are positive (Bayes)."""
        right = self.specificity * (1 - prevalence)
        return _ratio(right, right + (1 - self.sensitivity) * prevalence)

    @property
    def f1(self) -> Floats:
        """Of the positive class; for several classes the unweighted mean (macro), 0 for a class never called right."""
        right, named = self._right, self.counts.sum(axis=-1) + self.counts.sum(axis=-2)
        each = _ratio(2 * right, named)
        return each[..., 1] if each.shape[-1] == 2 else each.mean(axis=-1)

    @property
    def mcc(self) -> Floats:
        """Matthews correlation, for several classes too; NaN where either side names one class only.

        Gorodkin, Comput Biol Chem 2004, doi:10.1016/j.compbiolchem.2004.09.006
        """
        total, right = self.counts.sum(axis=(-2, -1)), self._right.sum(axis=-1)
        true, called = self.counts.sum(axis=-1), self.counts.sum(axis=-2)
        agreement = right * total - (true * called).sum(axis=-1)
        spread = (total**2 - (called**2).sum(axis=-1)) * (total**2 - (true**2).sum(axis=-1))
        return _ratio(agreement, np.sqrt(spread))

    @cached_property
    def _right(self) -> Floats:
        return np.diagonal(self.counts, axis1=-2, axis2=-1)

    @property
    def _precisions(self) -> Floats:
        return _ratio(self._right, self.counts.sum(axis=-2))


def brier(probabilities: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """Mean squared error of the probabilities: 0..1 for two classes, 0..2 summed over more.

    probabilities: (images,) of the positive class with truths, or (images, classes) with class indices
    Brier, Mon Weather Rev 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2
    """
    table, truth = _by_class(probabilities, reference)
    squares = (table - np.eye(table.shape[1])[truth]) ** 2
    # With two classes both columns say the same, and the usual figure is that of one.
    return _mean(squares.sum(axis=1) / (2 if table.shape[1] == 2 else 1), weights)


def log_loss(probabilities: ArrayLike, reference: ArrayLike, weights: Floats | None = None) -> Floats:
    """Mean negative logarithm (nats) of the probability given to what was true, which is clipped at 1.2e-7."""
    table, truth = _by_class(probabilities, reference)
    given = table[np.arange(len(truth)), truth]
    return _mean(-np.log(np.clip(given, SMALLEST_PROBABILITY, 1.0)), weights)


def ece(probabilities: ArrayLike, happened: ArrayLike, weights: Floats | None = None, *, bins: int = BINS) -> Floats:
    """Expected calibration error: mean distance between probability and frequency, over bins of equal width.

    probabilities: (images,) of the positive class with `happened` its truths; for several classes the
                   highest probability with `happened` whether that class was right (top label)
    Guo et al., ICML 2017, arXiv:1706.04599; it is never below 0 and so too high in small sets
    """
    chance, count = np.asarray(probabilities, dtype=np.float64), _weights(weights, np.size(probabilities))
    member = np.eye(bins)[_bin(chance, bins)]
    gap = np.abs((count * (chance - np.asarray(happened, dtype=np.float64))) @ member)
    return _ratio(gap.sum(axis=-1), count.sum(axis=-1))


def calibration_error(
    probabilities: ArrayLike, happened: ArrayLike, patients: ArrayLike, *, seed: int, draws: int = 200
) -> Estimate:
    """`ece` beside what it would be on average if the probabilities were right, which `method` says.

    It has no interval: each draw with replacement is worse calibrated than the cases it is drawn from, so that a
    bootstrap misses the truth (bench/interval_coverage.py).
    Bröcker and Smith, Weather Forecast 2007, doi:10.1175/WAF993.1
    """
    chance, random = np.asarray(probabilities, dtype=np.float64), np.random.default_rng(seed)
    if not len(chance):
        return Estimate(float("nan"), method="none: no cases")
    expected = np.mean([ece(chance, random.random(len(chance)) < chance) for _ in range(draws)])
    people = len(np.unique(np.asarray(patients)))
    method = f"none: {expected:.3f} on average if calibrated, with as many cases"
    return Estimate(float(ece(chance, happened)), n=len(chance), patients=people, method=method)


def roc_curve(scores: ArrayLike, positive: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """1 - specificity, sensitivity and threshold ("positive from here up"), from no call to every call.

    The first threshold is infinite; the area under straight lines through the points is `auroc`.
    """
    yes, no = (counts[::-1] for counts in _tied(scores, positive, None))
    thresholds = np.unique(np.asarray(scores, dtype=np.float64))[::-1]
    wrong, found = (np.concatenate([[0.0], np.cumsum(part)]) for part in (no, yes))
    return _ratio(wrong, wrong[-1]), _ratio(found, found[-1]), np.concatenate([[np.inf], thresholds])


def precision_recall_curve(scores: ArrayLike, positive: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Recall, precision and threshold ("positive from here up"), from the highest score to the lowest."""
    yes, no = (np.cumsum(counts[::-1]) for counts in _tied(scores, positive, None))
    return _ratio(yes, yes[-1]), yes / (yes + no), np.unique(np.asarray(scores, dtype=np.float64))[::-1]


def reliability(
    probabilities: ArrayLike, happened: ArrayLike, *, bins: int = BINS
) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """Mean probability, frequency and images of each bin of `ece` that is not empty, for a figure."""
    chance, outcome = np.asarray(probabilities, dtype=np.float64), np.asarray(happened, dtype=np.float64)
    place = _bin(chance, bins)
    counts = np.bincount(place, minlength=bins)
    full = counts > 0
    mean, frequency = (np.bincount(place, each, minlength=bins)[full] / counts[full] for each in (chance, outcome))
    return mean, frequency, counts[full]


def _tied(scores: ArrayLike, positive: ArrayLike, weights: Floats | None) -> tuple[Floats, Floats]:
    """(..., scores that differ, rising) weight of the positive and of the negative images with that score."""
    values, truths = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    if values.shape != truths.shape or values.ndim != 1 or not len(values) or np.isnan(values).any():
        problem = f"scores of {values.shape} for truths of {truths.shape}, or a score that is NaN"
        raise UsageError(problem, "classification", "Give one score and one truth for each image")
    order = np.argsort(values, kind="stable")
    starts = np.concatenate([[0], np.flatnonzero(values[order][1:] != values[order][:-1]) + 1])
    count = _weights(weights, len(values))[..., order]
    yes = np.add.reduceat(count * truths[order], starts, axis=-1)
    return yes, np.add.reduceat(count, starts, axis=-1) - yes


def _by_class(probabilities: ArrayLike, reference: ArrayLike) -> tuple[Floats, NDArray[np.intp]]:
    table, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(reference).astype(np.intp)
    if table.ndim == 1:
        table = np.stack([1 - table, table], axis=1)
    if table.shape[:1] != truth.shape or not np.isin(truth, range(table.shape[1])).all():
        problem = f"probabilities of {table.shape} for references of {truth.shape}, or a class without a column"
        raise UsageError(problem, "classification", "Give (images, classes) and (images,) indices of classes")
    return table, truth


def _bin(chance: Floats, bins: int) -> NDArray[np.intp]:
    """Place among bins of equal width; 1 belongs to the last."""
    return np.minimum((chance * bins).astype(np.intp), bins - 1)


def _weights(weights: Floats | None, images: int) -> Floats:
    return np.ones(images) if weights is None else np.asarray(weights, dtype=np.float64)


def _mean(scores: Floats, weights: Floats | None) -> Floats:
    count = _weights(weights, len(scores))
    return _ratio(count @ scores, count.sum(axis=-1))


def _ratio(part: Any, whole: Any) -> Floats:
    """part / whole; NaN where there is nothing to divide by."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan), where=whole > 0)

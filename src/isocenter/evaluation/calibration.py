"""Agreement of probabilities with frequencies: errors by bins; temperature, slope and intercept that remain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from isocenter.errors import counted
from isocenter.evaluation.calibration_fit import LEAST_FACTOR, MOST_FACTOR, Unseen, fitted_calibrator
from isocenter.evaluation.classification import BINS
from isocenter.evaluation.weighting import ratio, weights_of
from isocenter.lazy import special
from isocenter.values import Estimate, Floats

# z of a two-sided 95 % interval.
LEVEL, DEVIATIONS = 0.95, 1.959963984540054
# Newton's steps; a slope beyond this is that of cases which a straight line parts.
STEPS, MOST_SLOPE = 50, 100.0
# Of the gradient, a case: more is left where the steps have led nowhere.
UNSOLVED = 1e-4
FEWEST_PATIENTS, FEWEST_IN_BIN = 10, 10


def ece_of_equal_mass(
    probabilities: ArrayLike, happened: ArrayLike, weights: Floats | None = None, *, bins: int = BINS
) -> Floats:
    """ECE over bins of as many images each, at least `FEWEST_IN_BIN` where there are so many.

    happened: (images,), or (..., images) of several draws

    Nguyen and O'Connor, arXiv:1508.05154; images of equal probability share their outcomes, wherever a bin ends
    """
    chance, outcome = np.asarray(probabilities, dtype=np.float64), np.asarray(happened, dtype=np.float64)
    count, bins = weights_of(weights, len(chance)), _bins_of_equal_mass(len(chance), bins)
    order = np.argsort(chance, kind="stable")
    _, starts, ties = np.unique(chance[order], return_index=True, return_counts=True)
    shared = np.repeat(np.add.reduceat(outcome[..., order], starts, axis=-1) / ties, ties, axis=-1)
    bin_of_rank = np.arange(len(chance)) * bins // max(1, len(chance))
    gap = np.abs((count[..., order] * (chance[order] - shared)) @ np.eye(bins)[bin_of_rank])
    return ratio(gap.sum(axis=-1), count.sum(axis=-1))


def places_of_equal_mass(chance: Floats) -> Floats:
    """(images, bins) how much of each probability lies in each of those bins: equals are spread alike."""
    bins, order = _bins_of_equal_mass(len(chance)), np.argsort(chance, kind="stable")
    member = np.eye(bins)[np.arange(len(chance)) * bins // len(chance)]
    _, starts, ties = np.unique(chance[order], return_index=True, return_counts=True)
    places = np.empty_like(member)
    places[order] = np.repeat(np.add.reduceat(member, starts, axis=0) / ties[:, None], ties, axis=0)
    return places


def _bins_of_equal_mass(cases: int, bins: int = BINS) -> int:
    """Number of bins that `ece_of_equal_mass` has of so many cases."""
    return max(1, min(bins, cases // FEWEST_IN_BIN))


def equal_mass(cases: int) -> str:
    """The bins of `ece_of_equal_mass` in words."""
    return f"{counted(_bins_of_equal_mass(cases), 'bin')} of equal mass"


def remaining_temperature(logs: ArrayLike, reference: ArrayLike, patients: ArrayLike) -> Estimate:
    """The temperature that would still lower the log loss: above 1 the model is too sure, below too unsure; or NaN.

    logs: (images, classes) log probabilities; the interval is that of maximum likelihood with clustered patients
    Guo et al., ICML 2017, arXiv:1706.04599
    """
    log_chances, truth, owners = np.asarray(logs, dtype=np.float64), np.asarray(reference), np.asarray(patients)
    people = len(np.unique(owners))
    if people < FEWEST_PATIENTS:
        return Estimate(
            float("nan"), n=len(log_chances), patients=people, method=f"none: {people} patients are too few"
        )
    unseen = Unseen(
        log_chances, truth, np.arange(len(log_chances)).astype(str), tuple(map(str, range(log_chances.shape[1])))
    )
    factor = fitted_calibrator("temperature", unseen).parameters["all"][0]
    chances = special.softmax(log_chances * factor, axis=1)
    expected = (chances * log_chances).sum(axis=1)
    scores = log_chances[np.arange(len(log_chances)), truth] - expected
    information = float(((chances * log_chances**2).sum(axis=1) - expected**2).sum())
    spread = _clustered(scores[:, None], owners)[0, 0] ** 0.5 / max(information, 1e-12)
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
    log_odds, truth = np.asarray(odds, dtype=np.float64), np.asarray(happened, dtype=np.float64)
    owners, ones = np.asarray(patients), np.ones(len(log_odds))
    slope = _regressed(np.stack([log_odds, ones], axis=1), np.zeros(len(log_odds)), truth, owners)
    return slope, _regressed(ones[:, None], log_odds, truth, owners)


def _regressed(features: Floats, offset: Floats, truth: Floats, owners: np.ndarray) -> Estimate:
    """The first number of a logistic regression."""
    people, coefficients = len(np.unique(owners)), np.zeros(features.shape[1])
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
    inverse, left = np.linalg.pinv(hessian), features.T @ (truth - special.expit(offset + features @ coefficients))
    scores = features * (truth - chance)[:, None]
    variance, of_images = (
        float((inverse @ _clustered(scores, whose) @ inverse)[0, 0]) for whose in (owners, np.arange(len(truth)))
    )
    # Where a model almost parts the two sides, what is left of the cases is next to nothing, and the robust variance
    # with it: of 40 cases with an AUROC of .99 three in four intervals held the true slope. It is widened by as much
    # as it falls short of the regression's own, were each image a patient's.
    variance *= max(1.0, float(inverse[0, 0]) / of_images) if of_images > 0 else 1.0
    # Where all chances are 0 or 1 to the last digit, no step leads anywhere.
    is_solved = 0 < variance < MOST_SLOPE**2 and np.abs(left).max() <= UNSOLVED * len(truth)
    if not is_solved:
        return replace(
            unknown, method="none: the probabilities separate the two outcomes completely, or are too sure to tell"
        )
    spread = variance**0.5
    low, high = (float(coefficients[0] + side * DEVIATIONS * spread) for side in (-1, 1))
    method = "logistic regression, robust to patients with several images"
    return Estimate(float(coefficients[0]), low, high, LEVEL, len(truth), people, method=method)


def _clustered(scores: Floats, owners: np.ndarray) -> Floats:
    """(numbers, numbers) products of the patients' sums of scores."""
    _, cluster = np.unique(owners, return_inverse=True)
    sums = np.zeros((cluster.max() + 1, scores.shape[1]))
    np.add.at(sums, cluster, scores)
    return np.asarray(sums.T @ sums)
